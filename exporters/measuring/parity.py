"""Compare what two models answer to the same rows: are they the same function, or close enough?

``compare`` measures, ``check`` turns limits into sentences; a caller that must stop raises ``ParityLost`` with them.
Works on arrays of any model: torch, ONNX, a package. It runs no model itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporters.refused import Refused

Array = NDArray[Any]  # any floating type


class ParityLost(Exception):
    """Two models that should agree do not; ``violations`` holds one sentence for each limit."""

    def __init__(self, violations: list[str]) -> None:
        super().__init__("; ".join(violations))
        self.violations = violations


class Parity(NamedTuple):
    """How far two sets of outputs are apart; cosines and the top class are per row (the last axis holds the values)."""

    max_abs: float
    cosine_min: float
    cosine_mean: float
    top1_agreement: float


@dataclass(frozen=True)
class Limits:
    """What a step may change; ``None`` is no limit. ``step`` names it in the sentences: ``ONNX to int8``."""

    step: str
    max_abs: float | None = None
    cosine_min: float | None = None
    cosine_mean: float | None = None
    top1_agreement: float | None = None


def compare(ours: Sequence[Array], theirs: Sequence[Array]) -> Parity:
    """Compare two sequences of arrays, each ``(..., values)``.

    Raises:
        ValueError: if counts or shapes differ, there is nothing to compare, or a value is not finite.
    """
    if len(ours) != len(theirs) or not ours:
        raise Refused(f"parity: got {len(ours)} and {len(theirs)} outputs, expected the same number, at least one.")
    for mine, other in zip(ours, theirs, strict=True):
        if mine.shape != other.shape or mine.size == 0:
            raise Refused(f"parity: got outputs of shape {mine.shape} and {other.shape}, expected equal ones.")
    left = [_rows(array) for array in ours]
    right = [_rows(array) for array in theirs]
    if not all(np.isfinite(rows).all() for rows in (*left, *right)):
        raise Refused("parity: an output is NaN or infinite. The model is broken: look at its training loss.")
    pairs = list(zip(left, right, strict=True))
    cosines = np.concatenate([_cosines(mine, other) for mine, other in pairs])
    agrees = np.concatenate([mine.argmax(axis=1) == other.argmax(axis=1) for mine, other in pairs])
    return Parity(
        max_abs=float(max(np.abs(mine - other).max() for mine, other in pairs)),
        cosine_min=float(cosines.min()),
        cosine_mean=float(cosines.mean()),
        top1_agreement=float(agrees.mean()),
    )


def check(parity: Parity, limits: Limits) -> list[str]:
    """Return one sentence per limit that is missed: all of them, not the first."""
    missed = []
    if limits.max_abs is not None and parity.max_abs > limits.max_abs:
        missed.append(f"parity: {limits.step} changes an output by {parity.max_abs:.3g}, allowed {limits.max_abs:g}")
    for name in ("cosine_min", "cosine_mean", "top1_agreement"):
        limit, got = getattr(limits, name), getattr(parity, name)
        if limit is not None and got < limit:
            missed.append(f"parity: {limits.step} has {name.replace('_', ' ')} {got:.4f}, expected at least {limit:g}")
    return missed


def _rows(array: Array) -> NDArray[np.float64]:
    values = np.asarray(array, dtype=np.float64)
    return values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)  # (rows, values)


def _cosines(mine: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(other, axis=1)
    products = np.einsum("ri,ri->r", mine, other)
    is_equal = (mine == other).all(axis=1)  # two rows of zeros are equal, and have no direction
    found: NDArray[np.float64] = np.where(is_equal, 1.0, products / np.maximum(lengths, 1e-30))
    return found
