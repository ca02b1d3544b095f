"""Metrics against hand-counted and reference values; one path for every predictor."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from compressor.data.table import Table
from compressor.scoring.contract import TaskSpec
from compressor.scoring.evaluate import agreed, evaluate, score
from compressor.scoring.registry import task_spec

BINARY = task_spec("classification", ("NEGATIVE", "POSITIVE"), pair=False)
SCORED = task_spec("embedding", pair=True)
PLAIN = task_spec("embedding", pair=False)


def table(labels: list[str] | list[float] | None, *, pair: bool = False, n: int = 4, **columns: object) -> Table:
    pairs = [f"b{i}" for i in range(n)] if pair else None
    return Table([f"a{i}" for i in range(n)], pairs, labels, columns, "", "dev.tsv")


def answers(*ids: int, n_classes: int = 2) -> np.ndarray:
    return np.eye(n_classes)[list(ids)]


def test_binary_scores_equal_the_hand_count() -> None:
    # true positives 1, false positives 1, false negatives 1: F1 = 2 / (2 + 1 + 1)
    assert score(answers(1, 1, 0, 0), [1, 0, 1, 0], BINARY) == {"accuracy": 0.5, "f1": 0.5}


def test_more_classes_have_the_macro_f1() -> None:
    spec = task_spec("classification", ("a", "b", "c"), pair=False)
    metrics = score(answers(0, 0, 2, 2, n_classes=3), [0, 1, 2, 2], spec)
    assert metrics == {"accuracy": 0.75, "f1": pytest.approx((2 / 3 + 0 + 1) / 3)}


def test_a_class_never_answered_gives_zero_f1_not_a_warning() -> None:
    assert score(answers(0, 0), [0, 0], BINARY) == {"accuracy": 1.0, "f1": 0.0}


def test_regression_takes_columns_and_rows_alike() -> None:
    spec = task_spec("regression", pair=True)
    outputs, labels = np.array([0.1, 0.4, 0.3, 0.9]), [1.0, 2.0, 3.0, 4.0]
    metrics = score(outputs.reshape(-1, 1), labels, spec)
    assert metrics == score(outputs, labels, spec)
    assert metrics["spearman"] == pytest.approx(0.8)
    assert metrics["pearson"] == pytest.approx(np.corrcoef(outputs, labels)[0, 1])


def test_a_constant_predictor_scores_zero() -> None:
    assert score(np.ones(3), [1.0, 2.0, 3.0], task_spec("regression", pair=False)) == {"spearman": 0.0, "pearson": 0.0}


def test_scored_pairs_are_judged_by_their_cosines() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 50, 8))
    scores = list(generator.normal(size=50))
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(first, second, strict=True)]
    ours = score(np.concatenate([first, second]), scores, SCORED)["spearman"]
    theirs = spearmanr(cosines, scores).statistic
    assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(
    ("outputs", "labels", "spec", "message"),
    [
        (np.array([[0.0, 1.0], [np.nan, 1.0]]), [0, 1], BINARY, "output of row 2 is not finite"),
        (answers(0, 1), [0], BINARY, "2 rows of outputs for 1 labels"),
        (answers(0, 1, n_classes=3), [0, 1], BINARY, r"shape \(2, 3\), expected 2 values per row"),
        (np.zeros((0, 2)), [], BINARY, "0 rows of outputs for 0 labels"),
        (np.zeros((3, 2)), [1.0, 2.0], SCORED, "3 rows of outputs for 2 labels"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(
    outputs: np.ndarray, labels: list[int], spec: TaskSpec, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        score(outputs, labels, spec)


def test_labels_are_matched_by_name_before_scoring() -> None:
    result = evaluate(lambda texts, pairs: answers(1, 0, 1, 0), table(["positive", "negative"] * 2), BINARY)
    assert result.metrics == {"accuracy": 1.0, "f1": 1.0}
    assert result.outputs.shape == (4, 2)


def test_the_data_sets_own_names_reach_a_teacher_without_names() -> None:
    spec = task_spec("classification", ("LABEL_0", "LABEL_1"), pair=False)
    data = table(["pos", "neg"] * 2, label_names=["neg", "pos"])
    assert evaluate(lambda texts, pairs: answers(1, 0, 1, 0), data, spec).metrics["accuracy"] == 1.0


def test_pairs_go_to_the_predictor_together_and_embeddings_one_by_one() -> None:
    seen: list[tuple[int, int | None]] = []

    def predict(texts: list[str], pairs: list[str] | None) -> np.ndarray:
        seen.append((len(texts), None if pairs is None else len(pairs)))
        return np.random.default_rng(0).normal(size=(len(texts), 1 if pairs else 8))

    scores = [1.0, 2.5, 3.0, 4.0]
    evaluate(predict, table(scores, pair=True), task_spec("regression", pair=True))
    embedded = evaluate(predict, table(scores, pair=True), SCORED)
    assert seen == [(4, 4), (8, None)]
    assert embedded.outputs.shape == (8, 8)


def test_agreement_with_the_teacher_is_added() -> None:
    teacher = answers(1, 0, 1, 1)
    result = evaluate(lambda texts, pairs: answers(1, 0, 1, 0), table(["1", "0"] * 2), BINARY, teacher)
    assert result.metrics == {"accuracy": 1.0, "f1": 1.0, "teacher_agreement": 0.75}


def test_an_embedding_equal_up_to_length_has_cosine_one() -> None:
    teacher = np.random.default_rng(0).normal(size=(20, 8))
    metrics = agreed(3 * teacher, teacher, PLAIN)
    assert metrics == {"cosine": pytest.approx(1.0), "similarity_spearman": pytest.approx(1.0)}


def test_embeddings_of_another_width_keep_only_the_similarity_structure() -> None:
    teacher = np.random.default_rng(0).normal(size=(20, 8))
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0][:8]
    metrics = agreed(teacher @ rotation, teacher, PLAIN)
    assert metrics == {"similarity_spearman": pytest.approx(1.0)}


def test_classes_of_pairs_are_no_similarities() -> None:
    data = table(["neutral", "entailment"] * 2, pair=True)
    assert SCORED.targets(data) is None
    with pytest.raises(ValueError, match="no similarities, which spearman needs"):
        evaluate(lambda texts, pairs: np.ones((len(texts), 2)), data, SCORED)


def test_a_task_without_its_metric_is_refused_with_what_is_missing() -> None:
    def predict(texts: list[str], pairs: list[str] | None) -> np.ndarray:
        return np.ones((len(texts), 2))

    with pytest.raises(ValueError, match=r"no labels, which accuracy needs. Name them with --label-column"):
        evaluate(predict, table(None), BINARY)
    with pytest.raises(ValueError, match=r"need a teacher to compare with. Name it with --teacher"):
        evaluate(predict, table(None), PLAIN)
    with pytest.raises(ValueError, match=r"needs two texts, the rows have one. Name the other: --pair-column"):
        evaluate(predict, table([0.5, 1.0, 2.0, 3.0]), task_spec("regression", pair=True))
    with pytest.raises(ValueError, match="4 rows of the student, 3 of the teacher"):
        evaluate(predict, table(None), PLAIN, np.ones((3, 2)))
