"""Fit the rule that chooses a family of student: docs/results/families.json and worth.json in, numbers out.

    python -m benchmarks.fit_families

For each kind of task and family: points lost against the teacher = at 1 MB + per doubling * log2(bytes / 1 MB), least
squares over the packages of those sets on which transformers were measured too, a set with several seeds counted once
per size by their mean. The spread is the
root mean square of what the line leaves, times sqrt(n / (n - 2)), and at least ``LEAST_SPREAD``: a dev set of a
thousand rows tells no less.
Writes compressor/run/planning/families.json.
"""

import json
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from compressor.files import write_json

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
RULE = ROOT / "compressor" / "run" / "planning" / "families.json"
COMMAND = "python -m benchmarks.fit_families"
CLASSIFIED = ("SST-2", "CLINC150", "SNIPS")
KINDS = {**dict.fromkeys(CLASSIFIED, "classification"), "STS-B vectors": "embedding"}
LEAST_SPREAD = 1.0  # points
FEWEST = 3  # packages that a line is fitted on

Points = dict[str, dict[str, list[tuple[float, float]]]]  # kind, family: (log2 of megabytes, points lost)


@click.command()
def main() -> None:
    """Fit and write the rule."""
    points = read_points()
    lines: dict[str, dict[str, Any]] = {}
    for kind, families in points.items():
        for family, found in families.items():
            if len(found) >= FEWEST:
                lines.setdefault(kind, {})[family] = fitted(found)
    write_json(RULE, {"version": 1, "command": COMMAND, "judged_on": "dev", "lines": lines})
    for kind, rows in lines.items():
        for family, row in rows.items():
            click.echo(f"{kind} {family}: {row}")


def read_points() -> Points:
    """Return what the packages lost, by kind of task and family."""
    points: Points = defaultdict(lambda: defaultdict(list))
    found = []
    for name, read in (("families.json", _of_families), ("worth.json", _of_worth)):
        if (RESULTS / name).is_file():
            found += read(json.loads((RESULTS / name).read_text(encoding="utf-8"))["rows"])
    # A family must not look worse because it was measured on a harder set.
    compared = {data for data, family, _ in found if family == "transformer"}
    for data, family, seeds in found:
        if data in KINDS and data in compared:
            lost = statistics.mean(100 * (each["teacher"] - each["package"]) for each in seeds)
            points[KINDS[data]][family].append((math.log2(seeds[0]["bytes"] / 1e6), lost))
    return points


def _of_families(rows: dict[str, Any]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    return [
        (data, family, list(seeds.values()))
        for data, sizes in rows.items()
        for families in sizes.values()
        for family, seeds in families.items()
        if family != "rule"
    ]


def _of_worth(rows: dict[str, Any]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    return [
        (data, "transformer", list(seeds.values()))
        for data, arms in rows.items()
        for arm, seeds in arms.items()
        if arm.startswith("now-")
    ]


def fitted(found: list[tuple[float, float]]) -> dict[str, float]:
    """Return the line through (log2 of megabytes, points lost) by least squares, and its spread."""
    sizes, lost = (np.array(each, dtype=np.float64) for each in zip(*found, strict=True))
    slope, at_1mb = np.polyfit(sizes, lost, 1) if np.ptp(sizes) > 0.5 else (0.0, lost.mean())
    slope = min(float(slope), 0.0)  # more bytes are not expected to be worse
    at_1mb = float((lost - slope * sizes).mean())
    left = lost - at_1mb - slope * sizes
    spread = math.sqrt(float((left**2).sum()) / max(1, len(found) - 2))
    numbers = {"at_1mb": at_1mb, "per_doubling": slope, "spread": max(spread, LEAST_SPREAD), "packages": len(found)}
    numbers["largest_mb"] = 2.0 ** float(sizes.max())
    return {name: round(value, 2) for name, value in numbers.items()}


if __name__ == "__main__":
    main()
