"""Labels made of what a teacher predicts: a partition of the rows, thresholds at medians, folds without twins."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compressor.data.splits import fold_numbers
from compressor.methods.teacher_predictions import (
    CLASSES,
    ERRORS,
    confidences,
    counts,
    error_terciles,
    median_thresholds,
    ptp_labels,
)
from tests.support.method_cases import table_of

SHARES = st.floats(0, 1)


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Logits (rows, classes) and labels (rows,)."""
    n_rows, n_classes = draw(st.integers(1, 20)), draw(st.integers(2, 5))
    logits = draw(arrays.arrays(np.float32, (n_rows, n_classes), elements=st.floats(-30, 30, width=32)))
    return logits, draw(arrays.arrays(np.int64, n_rows, elements=st.integers(0, n_classes - 1)))


@given(predictions(), SHARES, SHARES)
def test_the_four_classes_partition_the_rows(both: tuple[Any, Any], t1: float, t2: float) -> None:
    logits, labels = both
    made = ptp_labels(logits, labels, t1, t2)
    assert sum(counts(made, CLASSES).values()) == len(labels)
    is_right = logits.argmax(axis=1) == labels
    assert np.array_equal(made < 2, is_right)
    confident = confidences(logits) > np.where(is_right, t1, t2)
    assert np.array_equal(made % 2 == 0, confident)


@given(predictions())
def test_a_threshold_of_one_leaves_nobody_confident_and_one_of_zero_everybody(both: tuple[Any, Any]) -> None:
    n = counts(ptp_labels(*both, 1.0, 0.0), CLASSES)
    assert n["confidently_correct"] == n["unconfidently_wrong"] == 0
    n = counts(ptp_labels(*both, 0.0, 1.0), CLASSES)
    assert n["unconfidently_correct"] == n["confidently_wrong"] == 0


@given(predictions())
def test_at_most_half_of_a_group_is_above_its_median(both: tuple[Any, Any]) -> None:
    logits, labels = both
    t1, t2 = median_thresholds(logits, labels)
    n = counts(ptp_labels(logits, labels, t1, t2), CLASSES)
    assert n["confidently_correct"] <= n["unconfidently_correct"]
    assert n["confidently_wrong"] <= n["unconfidently_wrong"]
    assert 1 / logits.shape[1] <= min(t1, t2) and max(t1, t2) <= 1


def test_the_threshold_of_an_empty_group_is_one_over_the_classes() -> None:
    logits = np.array([[4, 0, 0], [0, 2, 0]], dtype=np.float32)
    t1, t2 = median_thresholds(logits, np.array([0, 1]))
    assert (t1, t2) == (float(np.median(confidences(logits))), 1 / 3)
    assert median_thresholds(logits, np.array([1, 2])) == (1 / 3, t1)


def test_confidence_is_the_largest_softmax() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    theirs = torch.from_numpy(logits).double().softmax(-1).amax(-1).numpy()
    assert np.allclose(confidences(logits), theirs, rtol=1e-12)


@given(st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=30, unique=True))
def test_errors_of_a_score_are_cut_into_thirds(errors: list[float]) -> None:
    made, (low, high) = error_terciles(np.array(errors, dtype=np.float32)[:, None], np.zeros(len(errors)))
    n = counts(made, ERRORS)
    assert sum(n.values()) == len(errors) and low <= high
    assert n["large_error"] <= len(errors) / 3 + 1
    sizes = [np.abs(np.array(errors))[made == name] for name in range(3)]
    assert all(a.max() <= b.min() for a, b in pairwise(sizes) if len(a) and len(b))


@given(st.lists(st.integers(0, 12), min_size=13, max_size=60), st.integers(2, 5), st.integers(0, 3))
def test_folds_are_even_and_twins_share_one(texts: list[int], n_folds: int, seed: int) -> None:
    distinct = sorted(set(texts))
    table = table_of([str(text) for text in texts])
    if len(distinct) < n_folds:
        with pytest.raises(ValueError, match=rf"out_of_fold = {n_folds} is more than the {len(distinct)} different"):
            fold_numbers(table, n_folds, seed)
        return
    folds = fold_numbers(table, n_folds, seed)
    assert np.array_equal(folds, fold_numbers(table, n_folds, seed))
    of_text = [set(folds[np.array(texts) == text]) for text in distinct]
    assert all(len(each) == 1 for each in of_text)
    sizes = np.bincount([each.pop() for each in of_text], minlength=n_folds)
    assert sizes.max() - sizes.min() <= 1
