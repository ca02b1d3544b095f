"""What is said where something simpler than the package, or than its teacher, is better on the evaluation rows.

One sentence each, the same at the end of a run, in report.json and report.html, in the model card, and beside the score
of ``tenmeg finetune``. It judges scores and bytes only, which two runs with one seed agree on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

SIMPLE = "TF-IDF"  # the name of a baseline that is no transformer begins so
SAME_BYTES = 1.05
NO_STUDENT = (
    "TF-IDF is better than the teacher: no student of it can be worth its bytes; take TF-IDF, or fine-tune a better "
    "teacher"
)
BETTER_TEACHER = "TF-IDF is better than the teacher, if not than this student: fine-tune a better teacher"


def verdict(
    metric: str, scores: Mapping[str, Mapping[str, float]], baselines: Sequence[Mapping[str, Any]], n_bytes: int
) -> list[str]:
    """Return what speaks against a package; nothing where nothing does.

    Args:
        metric: that decides.
        scores: of ``"teacher"`` and ``"package"``, by metric.
        baselines: what was scored on the same rows: name, metrics and bytes.
        n_bytes: of the package.
    """
    ours, theirs = scores["package"][metric], scores["teacher"][metric]
    found = []
    for other in baselines:
        value, name = other["metrics"].get(metric), str(other["name"])
        if value is None:
            continue
        if name.startswith(SIMPLE) and value > theirs:
            found.append(NO_STUDENT if value > ours else BETTER_TEACHER)
        elif value > ours and other["bytes"] <= n_bytes * SAME_BYTES:
            found.append(f"{name} is better at these bytes: take it, or allow more")
    return found


def verdict_on_teacher(metric: str, teacher: Mapping[str, float], simple: Mapping[str, float]) -> list[str]:
    """Return what speaks against a teacher, of its scores and of TF-IDF's."""
    return [NO_STUDENT] if metric in simple and simple[metric] > teacher[metric] else []
