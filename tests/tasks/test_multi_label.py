"""Several labels a row: thresholds, scores, and losses against what can be counted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.data.table import Table
from compressor.scoring.evaluate import evaluate, score
from compressor.scoring.losses import soft_binary_cross_entropy, soft_cross_entropy
from compressor.scoring.registry import task_spec
from compressor.tasks.multi_label import FEW_ROWS, THRESHOLDS, Task, probabilities

EMOTIONS = task_spec("multi_label", ("anger", "joy", "surprise"), pair=False)


def table(labels: list[tuple[str, ...]]) -> Table:
    return Table([f"a{i}" for i in range(len(labels))], None, labels, {}, "", "dev.tsv")


def drawn(n_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and right answers that they tell something about."""
    generator = np.random.default_rng(seed)
    right = generator.random((n_rows, 3)) < (0.5, 0.2, 0.05)
    return 2.0 * right - 3.0 + generator.normal(size=right.shape), right


def f1(right: np.ndarray, answered: np.ndarray) -> float:
    return 2 * (right & answered).sum() / max(right.sum() + answered.sum(), 1)


def named(right: np.ndarray) -> list[tuple[str, ...]]:
    return [tuple(np.array(EMOTIONS.labels)[row]) for row in right]


def test_scores_equal_the_hand_count() -> None:
    # answers: joy | anger, joy | nothing; right: joy | joy, surprise | nothing -> 2 hits of 3 answers and 3 labels
    logits = np.array([[-1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, -1.0]])
    targets = EMOTIONS.targets(table([("joy",), ("joy", "surprise"), ()]))
    assert score(logits, targets, EMOTIONS) == {
        "micro_f1": pytest.approx(2 / 3),
        "macro_f1": pytest.approx(1 / 3),
        "exact_match": pytest.approx(2 / 3),
    }


def test_labels_are_matched_as_those_of_classes_are() -> None:
    for names in (["Joy", "ANGER", "surprise"], ["1", "0", "2"], ["joy", "ang", "surp"]):
        first, second, third = names
        found = EMOTIONS.targets(table([(first, second), (third,), ()]))
        assert found is not None and np.array_equal(found, [[1, 1, 0], [0, 0, 1], [0, 0, 0]])


def test_an_unknown_label_is_refused_with_its_row() -> None:
    with pytest.raises(ValueError, match=r"the label 'joi' of row 3 is unknown .* Did you mean 'joy'\?"):
        EMOTIONS.targets(table([("joy",), ("anger", "joy"), ("anger", "joi")]))


def test_logits_and_their_probabilities_have_one_score() -> None:
    logits, right = drawn(50, 0)
    targets = EMOTIONS.targets(table(named(right)))
    ours = score(probabilities(logits, "logits"), targets, EMOTIONS, "probabilities")
    assert ours == score(logits, targets, EMOTIONS)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 200))
def test_the_threshold_of_a_label_with_enough_rows_is_its_best(seed: int, n_rows: int) -> None:
    logits, right = drawn(n_rows, seed)
    tuned = EMOTIONS.tuned(logits, table(named(right)))
    chances = probabilities(logits, "logits")
    for label, threshold in enumerate(tuned.thresholds):
        assert threshold in THRESHOLDS
        if right[:, label].sum() >= FEW_ROWS:
            tried = [f1(right[:, label], chances[:, label] >= each) for each in THRESHOLDS]
            assert f1(right[:, label], chances[:, label] >= threshold) == pytest.approx(max(tried))
    rare = [t for t, n in zip(tuned.thresholds, right.sum(axis=0), strict=True) if n < FEW_ROWS]
    assert len(set(rare)) <= 1  # those share the threshold of all


def test_equally_good_thresholds_give_the_one_nearest_to_a_half() -> None:
    right = np.tile([[True, False, True], [False, True, False]], (FEW_ROWS, 1))
    tuned = EMOTIONS.tuned(np.where(right, 8.0, -8.0), table(named(right)))
    assert tuned.thresholds == (0.5, 0.5, 0.5)


def test_thresholds_decide_what_is_answered() -> None:
    logits, right = drawn(300, 1)
    rows = table(named(right))
    tuned = EMOTIONS.tuned(logits, rows)
    plain, better = (evaluate(lambda *_: logits, rows, spec).metrics["micro_f1"] for spec in (EMOTIONS, tuned))
    assert better > plain + 0.02


def test_the_soft_loss_is_that_of_two_classes_for_each_label() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    for temperature in (1.0, 3.0):
        pairs = [
            soft_cross_entropy(*(torch.stack([0 * x[:, i], x[:, i]], dim=1) for x in (ours, theirs)), temperature)
            for i in range(3)
        ]
        found = soft_binary_cross_entropy(ours, theirs, temperature)
        assert float(found) == pytest.approx(float(sum(pairs)), rel=1e-5)


def test_smoothing_moves_the_best_logit_in() -> None:
    logits = torch.tensor([[4.0, -4.0]])
    labels = torch.tensor([[1.0, 0.0]])
    spec = Task.of(("a", "b"), pair=False)
    assert float(spec.label_loss(logits, labels, 0.2)) > float(spec.label_loss(logits, labels))
    assert float(spec.label_loss(torch.tensor([[2.197, -2.197]]), labels, 0.2)) == pytest.approx(2 * 0.3251, abs=1e-3)


def test_a_label_that_no_row_has_is_never_answered_by_the_linear_model() -> None:
    features = np.eye(4, dtype=np.float32)
    targets = [[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]]
    weights, bias = EMOTIONS.fit_linear(features, targets, 0)
    answered = probabilities(features @ weights + bias, "logits") >= 0.5
    assert not answered[:, 1].any() and answered[:, 2].all()
    assert answered[:, 0].tolist() == [True, False, True, False]


def test_rows_of_which_none_has_a_label_teach_nothing() -> None:
    with pytest.raises(ValueError, match=r"dev.tsv: no row has a label\. Give rows that have some to --train"):
        Task.check_training(table([(), ()]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([("joy",), ()], "only one label, 'joy'; at least two labels are needed"),
        ([(f"tag {i}",) for i in range(30)], "30 different labels in 30 rows are not classes"),
    ],
)
def test_labels_that_make_no_model_are_refused(labels: list[tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Task.collect(table(labels))


def test_parts_of_a_column_keep_the_rule_that_explains_all_of_it() -> None:
    numbered = task_spec("multi_label", ("1", "2", "3", "4"), pair=False)
    whole = table([("0",), ("1", "3"), ("2",)])  # ids from 0: "0" is no name, so "1" is the second label
    first, second = numbered.settled([table([("0",)]), table([("1", "3"), ("2",)])])
    assert (first.labels, second.labels) == ([("1",)], [("2", "4"), ("3",)])
    expected = numbered.targets(whole)
    found = [*(numbered.targets(first) or []), *(numbered.targets(second) or [])]
    assert expected is not None and np.array_equal(expected, found)
