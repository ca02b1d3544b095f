"""Numbers with a decimal comma, as Excel writes them in most of Europe: ``0,5`` is a half.

A column of whole numbers and numbers with one comma is a quantity, also where all are ``1,0`` and ``0,0``. Refused, for
they can be read in two ways or in none: separators of thousands, commas beside points, ``1,234`` where all commas stand
before three digits, and words among such numbers.
"""

import re
from collections.abc import Callable, Sequence

from compressor.refused import Refused

_COMMA = re.compile(r"[-+]?(?:\d+,\d+|,\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[-+]?\d+", re.ASCII)
_POINT = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
# Two different separators, or one of them twice: 1.234,5 and 1,234.5 and 1.234.567 and 1 234,5
_THOUSANDS = re.compile(
    r"[-+]?\d{1,3}(?:(?:\.\d{3})+,\d+|(?:,\d{3})+\.\d+|(?:,\d{3}){2,}|(?:\.\d{3}){2,}|"
    r"(?:[ '’\u00a0\u202f]\d{3})+(?:[.,]\d+)?)",
    re.ASCII,
)
_SEVERAL = re.compile(r"\d+(?:[,;|] ?\d+)+", re.ASCII)  # ids of several labels
_EITHER = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}", re.ASCII)


def with_point(text: str) -> str:
    """Return a number with a decimal comma as one with a point, and any other text as it is."""
    return text.replace(",", ".") if _COMMA.fullmatch(text.strip()) else text


def read_decimals(labels: Sequence[str], column: str, place_of: Callable[[int], str]) -> list[float] | None:
    """Return labels as numbers where they are written with a decimal comma, else None.

    Args:
        labels: the column, one text per row.
        column: its name, for messages.
        place_of: gives the file and line of a row, for messages.

    Raises:
        ValueError: for the first row whose number can be read in two ways, or whose label is no number among such.
    """
    shapes = {label: _shape(label) for label in dict.fromkeys(labels)}
    found = {shape: label for label, shape in reversed(shapes.items())}  # the first of each
    if not {"comma", "either", "thousands"} & found.keys():
        return None

    def refused(label: str, what: str) -> Refused:
        return Refused(f"{place_of(list(labels).index(label))}: the label {label!r} (column {column!r}) {what}")

    n_numbers = sum(shapes[label] != "word" for label in labels)
    if "word" in found:
        if n_numbers <= len(labels) / 4:
            return None  # names, some of which look like numbers
        is_several = _SEVERAL.fullmatch(found["word"]) is not None
        several = "If it is several labels, the column needs a model of 'tenmeg finetune --task multi_label'; else c"
        what = (
            f"is not a number, but the other labels are. {several if is_several else 'C'}orrect it or remove the row."
        )
        raise refused(found["word"], what)
    if "thousands" in found:
        raise refused(
            found["thousands"],
            "has separators of thousands, expected a number without, such as 1234.5. Write the column without them.",
        )
    with_comma = found.get("comma", found.get("either", ""))
    if "point" in found:
        raise refused(
            found["point"],
            f"is written with a point and {with_comma!r} with a comma, so one of them may not be a decimal. Write all "
            "of the column with a decimal point.",
        )
    if "comma" not in found:
        raise refused(
            found["either"],
            f"may be {found['either'].replace(',', '')} or {with_point(found['either'])}. Write the column without "
            "separators of thousands and with a decimal point.",
        )
    return [float(with_point(label)) for label in labels]


def _shape(label: str) -> str:
    text = label.strip()
    kinds = {"whole": _WHOLE, "either": _EITHER, "comma": _COMMA, "point": _POINT, "thousands": _THOUSANDS}
    return next((name for name, pattern in kinds.items() if pattern.fullmatch(text)), "word")
