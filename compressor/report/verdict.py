"""What is said where something simpler than the package, or than its teacher, is better, or where rows are too few.

One sentence each, the same at the end of a run, in report.json and report.html, in the model card, and beside the score
of ``tenmeg finetune``. It judges scores and bytes only, which two runs with one seed agree on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from compressor.report.interval import too_few

SIMPLE = "TF-IDF"  # the name of a baseline that is no transformer begins so
SAME_BYTES = 1.05
NO_STUDENT = (
    "TF-IDF is better than the teacher: no student of it can be worth its bytes; take TF-IDF, or fine-tune a better "
    "teacher"
)
BETTER_TEACHER = "TF-IDF is better than the teacher, if not than this student: fine-tune a better teacher"

SIMPLE_IS_BETTER = "this package, which is TF-IDF, is better than the teacher: fine-tune a better teacher"
UNLEARNED = (
    "a linear model on the vectors of the frozen encoder is better than the teacher: fine-tuning has unlearned what "
    "it knew; fine-tune it with a lower --learning-rate or more --epochs"
)


def verdict(
    metric: str,
    scores: Mapping[str, Mapping[str, float]],
    baselines: Sequence[Mapping[str, Any]],
    n_bytes: int,
    drop: Mapping[str, Any] | None = None,
    max_drop: float | None = None,
    *,
    is_simple: bool = False,
) -> list[str]:
    """Return what speaks against a package, or against what the rows say of it; nothing where nothing does.

    Args:
        metric: that decides.
        scores: of ``"teacher"`` and ``"package"``, by metric.
        baselines: what was scored on the same rows: name, metrics and bytes.
        n_bytes: of the package.
        drop: with its interval, where it is known.
        max_drop: the drop that is allowed, where one is.
        is_simple: the package is TF-IDF itself, so that another one beside it says nothing.
    """
    ours, theirs = scores["package"][metric], scores["teacher"][metric]
    found = [SIMPLE_IS_BETTER] if is_simple and ours > theirs else []
    for other in baselines:
        value, name = other["metrics"].get(metric), str(other["name"])
        if value is None or (is_simple and name.startswith(SIMPLE)):
            continue
        if name.startswith(SIMPLE) and value > theirs:
            found.append(NO_STUDENT if value > ours else BETTER_TEACHER)
        elif value > ours and other["bytes"] <= n_bytes * SAME_BYTES:
            found.append(f"{name} is better at these bytes: take it, or allow more")
    return found if drop is None else [*found, *too_few(drop, max_drop)]


def verdict_on_teacher(
    metric: str, teacher: Mapping[str, float], simple: Mapping[str, float], probe: Mapping[str, float] | None = None
) -> list[str]:
    """Return what speaks against a teacher, of its scores, of TF-IDF's and of the frozen probe's."""
    found = [NO_STUDENT] if metric in simple and simple[metric] > teacher[metric] else []
    return found + ([UNLEARNED] if probe and metric in probe and probe[metric] > teacher[metric] else [])
