"""Budgets: what a package may cost, what a shape will cost, and which promises a measurement breaks.

Sizes are decimal bytes of the *whole* package (``7MB`` = 7,000,000; ``MiB`` is understood too). Latency is text in,
answer out, in milliseconds at a percentile. A drop is points (hundredths) of the task's metric below the teacher.
Standard library only, so that a device or a CI job can import it alone. It predicts and compares; it measures nothing.
"""

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from exporters.refused import Refused

SIZE_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class OverBudget(Exception):
    """A prediction or a measurement breaks a budget; ``violations`` holds one sentence for each."""

    def __init__(self, violations: list[str]) -> None:
        super().__init__("; ".join(violations))
        self.violations = violations


def parse_size(text: str) -> int:
    """Return bytes: ``parse_size("7MB") == 7_000_000``, ``parse_size("1.5MiB") == 1_572_864``.

    Raises:
        ValueError: if the text is not a positive number with one of the units B, kB, MB, GB, KiB, MiB, GiB.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", text)
    unit = match.group(2).lower() or "b" if match else ""
    if match is None or unit not in SIZE_UNITS or float(match.group(1)) <= 0:
        raise Refused(f"size: got {text!r}, expected a positive number with a unit. Write for example 7MB or 900kB.")
    return int(float(match.group(1)) * SIZE_UNITS[unit])


class LatencyLimit(NamedTuple):
    """An upper limit of one percentile of the time from text to answer."""

    percentile: Literal["p50", "p95", "p99"]
    max_ms: float

    def __str__(self) -> str:
        return f"{self.percentile}={self.max_ms:g}ms"


def parse_latency(text: str) -> LatencyLimit:
    """Return the limit in ``p95=5ms`` (``us``, ``ms`` and ``s`` are understood).

    Raises:
        ValueError: if the percentile or the time is not understood.
    """
    match = re.fullmatch(r"\s*(p50|p95|p99)\s*=\s*([0-9]*\.?[0-9]+)\s*(us|ms|s)\s*", text)
    if match is None or float(match.group(2)) <= 0:
        raise Refused(f"latency: got {text!r}, expected a percentile and a time. Write for example p95=5ms.")
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}[match.group(3)]
    return LatencyLimit(match.group(1), float(match.group(2)) * scale)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Budget:
    """What the user allows; ``None`` means no limit."""

    max_bytes: int | None = None
    latency: LatencyLimit | None = None
    max_drop: float | None = None  # points of the task's metric below the teacher


@dataclass(frozen=True)
class Measurement:
    """What was measured of a package; ``None`` means not measured."""

    n_bytes: int | None = None
    latency_ms: dict[str, float] | None = None  # {"p50": ..., "p95": ..., "p99": ...}
    drop: float | None = None  # points below the teacher; negative when the package is better


def violations(measured: Measurement, budget: Budget) -> list[str]:
    """Return one sentence per broken promise: all of them, not the first. An empty list means the budget is met."""
    broken = []
    if budget.max_bytes is not None and measured.n_bytes is not None and measured.n_bytes > budget.max_bytes:
        over = measured.n_bytes - budget.max_bytes
        broken.append(f"size: {measured.n_bytes:,} bytes, allowed {budget.max_bytes:,} (--max-size): {over:,} too many")
    if budget.latency is not None and measured.latency_ms is not None:
        got = measured.latency_ms[budget.latency.percentile]
        if got > budget.latency.max_ms:
            broken.append(
                f"latency: {budget.latency.percentile} {got:.2f} ms, allowed {budget.latency.max_ms:g} ms "
                f"(--max-latency): {got - budget.latency.max_ms:.2f} ms too slow"
            )
    if budget.max_drop is not None and measured.drop is not None and measured.drop > budget.max_drop + 1e-9:
        broken.append(
            f"quality: {measured.drop:.2f} points below the teacher, allowed {budget.max_drop:g} (--max-drop): "
            f"{measured.drop - budget.max_drop:.2f} points too many"
        )
    return broken
