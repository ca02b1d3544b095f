"""How sure a drop is, in words: its interval behind a number, and a sentence where the rows are too few to tell.

A drop is what ``compressor.scoring.drop.drop_of`` returns: "points", "rows", and "low", "high" and "level" where the
rows are two or more.
"""

from collections.abc import Mapping
from typing import Any

WIDE = 4.0  # points of an interval that says little, where no --max-drop asks for more
UNSEEN = 300.0  # points of a share that n rows can miss, times n: the rule of three, at 95 %
MORE_ROWS = "give more rows with --eval"


def interval(drop: Mapping[str, Any]) -> str:
    """Return the interval of a drop as it stands behind one: ``" (95 %: -0.3 to +2.1)"``, or "" without any."""
    if "low" not in drop:
        return ""
    low, high = (round(drop[side], 1) + 0.0 for side in ("low", "high"))  # + 0.0: never -0.0
    return f" ({100 * drop['level']:g} %: {low:+.1f} to {high:+.1f})"


def too_few(drop: Mapping[str, Any], max_drop: float | None) -> list[str]:
    """Return a sentence where the rows are too few to decide what was asked; else nothing.

    Args:
        drop: with its interval.
        max_drop: that was allowed; None: nothing was asked, and the interval may be ``WIDE`` points wide.
    """
    if "low" not in drop:
        return [f"the rows are too few to tell how sure the drop is; {MORE_ROWS}"]
    low, high, share = drop["low"], drop["high"], f"({100 * drop['level']:g} %)"
    if low == high == 0:  # no row tells them apart, which draws of the same rows cannot
        high = UNSEEN / drop["rows"]
        between = f"up to {high:.2f} points of drop {share} may show on none of {drop['rows']} rows"
    else:
        between = f"the drop is between {low:.2f} and {high:.2f} points {share}"
    if max_drop is None:
        return [f"the rows are too few to tell: {between}; {MORE_ROWS}"] if high - low > WIDE else []
    if not low < max_drop < high:
        return []
    return [f"the rows are too few to tell: {between}, --max-drop {max_drop:g} lies within; {MORE_ROWS}"]
