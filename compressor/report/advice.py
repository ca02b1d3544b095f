"""What to change where a drop is larger than allowed, read from the run's own numbers and the curve of its last stage.

A pure function of the report, and four rules:

    the package is further below the float student than it misses        -> more bits
    the score still rises from the middle third of the curve to the last -> more epochs
    neither, and the loss on training rows goes on falling               -> more rows: the student learns them by heart
    neither, and the loss hardly falls                                   -> more bytes: it has learned what it can hold

Rows that are held out tell the score where the log has them, else the evaluation rows. It advises, it promises nothing:
a rate that goes down to 0 flattens every curve, so a small rise counts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

RISE = 0.002  # of the score from third to third that is no noise
WORTH = 0.1  # of what is missing that a third must have gained: with less, more epochs are not the way
FALL = 1 / 3  # of the training loss from third to third while the score stays
MORE = 4  # times the training that is advised


class Curve(NamedTuple):
    """Scores by step."""

    steps: list[float]
    scores: list[float]


def advice(report: Mapping[str, Any]) -> list[str]:
    """Return what to change, the most certain first; nothing where the drop is allowed or the report does not tell."""
    budget, metric = report.get("budget", {}), report.get("task", {}).get("metric")
    limit, drop = budget.get("limits", {}).get("drop"), budget.get("measured", {}).get("drop")
    stages = report.get("training") or []
    if limit is None or drop is None or not stages or drop <= float(limit) + 1e-9:
        return []
    missing = drop - float(limit)  # points
    log = stages[-1].get("log", [])
    curve = curve_of(log, metric)
    bits = _bits(report, metric, missing)
    if len(curve.scores) < 2:
        few = f"the student was scored {'once' if curve.scores else 'never'} while it was trained, too early to tell"
        return bits or [f"{few} where it ends: train longer, {_effort(report)}"]
    # Means of thirds, from the last back: of two scores the last and the one before.
    third = max(1, len(curve.scores) // 3)
    before, last = _mean(curve.scores[-2 * third : -third]), _mean(curve.scores[-third:])
    n_last = f"the last {third} scores" if third > 1 else "the last score"
    if last - before >= max(RISE, WORTH * missing / 100):
        rising = f"{metric} still rose, by {100 * (last - before):.1f} points to {n_last}"
        return [*bits, f"{rising}: train longer, {_effort(report)}"]
    if bits:
        return bits
    fall = _fall(log, curve.steps, third)
    if fall is not None and fall >= FALL:
        falling = f"{metric} no longer rises while the loss on training rows fell by another {100 * fall:.0f} %"
        return [f"{falling}: the student learns them by heart; give more rows with --train"]
    stays = f"{metric} no longer rises, and the loss hardly falls"
    return [f"{stays}: the student has learned what its size can hold; allow more bytes{_size(budget)}"]


def curve_of(log: Sequence[Mapping[str, Any]], metric: str) -> Curve:
    """Return the scores of a stage's log by step: of rows held out where it has them, else of the evaluation rows."""
    for name in (f"held_out_{metric}", "held_out", f"eval_{metric}"):
        points = [(float(line.get("step", 0)), float(line[name])) for line in log if line.get(name) is not None]
        if points:
            return Curve([step for step, _ in points], [score for _, score in points])
    return Curve([], [])


def _bits(report: Mapping[str, Any], metric: str, missing: float) -> list[str]:
    """Return the sentence where float weights would have kept the promise."""
    scores = report.get("metrics", {})
    student, package = (scores.get(name, {}).get(metric) for name in ("student", "package"))
    scheme = report.get("quantization", {}).get("scheme")
    if student is None or package is None or scheme == "none" or 100 * (student - package) < missing:
        return []
    cost = f"quantising costs {100 * (student - package):.1f} points, more than the {missing:.1f} that are missing"
    return [f"{cost}: give more bits, --quantize {'none' if scheme == 'int8' else 'int8'}"]


def _fall(log: Sequence[Mapping[str, Any]], steps: Sequence[float], third: int) -> float | None:
    """Return the share by which the loss of the last third is below that of the third before; None where unknown."""
    bounds = [0.0, *steps]
    start, middle, end = bounds[-2 * third - 1], bounds[-third - 1], bounds[-1]
    losses = [(float(line.get("step", 0)), float(line["loss"])) for line in log if line.get("loss") is not None]
    before = [loss for step, loss in losses if start < step <= middle]
    last = [loss for step, loss in losses if middle < step <= end]
    return 1 - _mean(last) / _mean(before) if before and last and _mean(before) > 0 else None


def _effort(report: Mapping[str, Any]) -> str:
    effort = report.get("recipe", {}).get("effort") or 1
    return f"--effort {MORE * effort:g} or {MORE} times the --epochs"


def _size(budget: Mapping[str, Any]) -> str:
    size = budget.get("limits", {}).get("size")
    return f" than --max-size {size}" if size else ", or a larger student"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
