"""Labels made of what a teacher predicts: how sure it is of a row, and whether it is right (Pea-KD, arXiv 2009.14822).

    confidence = max softmax(logits)
    0 confidently correct    argmax logits = label and confidence >  t1
    1 unconfidently correct  argmax logits = label and confidence <= t1
    2 confidently wrong      argmax logits != label and confidence >  t2
    3 unconfidently wrong    argmax logits != label and confidence <= t2

The paper means t1 (t2) as the median confidence of the rows that the teacher gets right (wrong), and its code gives
constants for five tasks. For a score, which the paper leaves open, the three labels are the terciles of
|prediction - label|. Pure functions of arrays; no torch here.
"""

from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

CLASSES = ("confidently_correct", "unconfidently_correct", "confidently_wrong", "unconfidently_wrong")
ERRORS = ("small_error", "middle_error", "large_error")

Numbers = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.int64]


class Thresholds(NamedTuple):
    """The confidence above which the teacher counts as confident, in (0, 1]."""

    t1: float  # where it is right
    t2: float  # where it is wrong


# The constants of the authors' code.
PUBLISHED = MappingProxyType(
    {
        "rte": Thresholds(0.80, 0.60),
        "mrpc": Thresholds(0.95, 0.75),
        "sst2": Thresholds(0.98, 0.80),
        "qnli": Thresholds(0.98, 0.70),
        "cola": Thresholds(0.95, 0.70),
    }
)


def confidences(logits: Numbers) -> npt.NDArray[np.float64]:
    """Return max softmax of every row (rows,), from logits (rows, classes); at least 1/classes, at most 1."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return 1.0 / np.exp(shifted).sum(axis=1)


def ptp_labels(logits: Numbers, labels: npt.NDArray[Any], t1: float, t2: float) -> Labels:
    """Return which of ``CLASSES`` each row is in (rows,).

    Args:
        logits: of the teacher (rows, classes).
        labels: ids of the right classes (rows,).
        t1: confidence above which a right prediction is a confident one; 1 empties class 0, 0 empties class 1.
        t2: the same for wrong predictions and the classes 2 and 3.
    """
    is_right, confidence = logits.argmax(axis=1) == labels, confidences(logits)
    confident = np.where(is_right, confidence > t1, confidence > t2)
    return np.where(is_right, 0, 2) + np.where(confident, 0, 1)


def median_thresholds(logits: Numbers, labels: npt.NDArray[Any]) -> Thresholds:
    """Return the median confidence of the rows (rows, classes) that are right and of those that are wrong.

    Of a group without rows it is 1/classes, below which no confidence is. At most half of a group is above its median.
    """
    is_right, confidence = logits.argmax(axis=1) == labels, confidences(logits)
    groups = confidence[is_right], confidence[~is_right]
    return Thresholds(*(float(np.median(group)) if len(group) else 1.0 / logits.shape[1] for group in groups))


def error_terciles(outputs: Numbers, labels: npt.NDArray[Any]) -> tuple[Labels, tuple[float, float]]:
    """Return which of ``ERRORS`` each row is in (rows,), and the errors at which the second and the third begin.

    Args:
        outputs: scores that the teacher predicts (rows, 1).
        labels: the right scores (rows,).
    """
    errors = np.abs(outputs[:, 0].astype(np.float64) - labels.astype(np.float64))
    low, high = (float(value) for value in np.quantile(errors, (1 / 3, 2 / 3)))
    return (errors > low).astype(np.int64) + (errors > high), (low, high)


def counts(labels: Labels, names: tuple[str, ...]) -> dict[str, int]:
    """Return how many rows each name has; they add up to all rows."""
    return dict(zip(names, np.bincount(labels, minlength=len(names)).tolist(), strict=True))
