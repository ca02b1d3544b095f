"""TF-IDF: its score on separable data, its bytes counted by hand, its limits kept."""

import numpy as np
import pytest

from compressor.data.table import Table
from compressor.packaging.baselines import tfidf
from compressor.scoring.registry import task_spec

GOOD, BAD, FILL = ["fine", "warm", "funny"], ["dull", "cold", "empty"], ["film", "plot", "actor", "scene", "story"]
BINARY = task_spec("classification", ("neg", "pos"), pair=False)


def reviews(n: int, seed: int) -> Table:
    generator = np.random.default_rng(seed)
    labels = ["pos" if generator.random() < 0.5 else "neg" for _ in range(n)]
    texts = [f"the {generator.choice(FILL)} is {generator.choice(GOOD if label == 'pos' else BAD)}" for label in labels]
    return Table(texts, None, labels, {}, "", "made")


def likenesses(n: int, seed: int) -> Table:
    generator = np.random.default_rng(seed)
    words = np.array(GOOD + BAD + FILL)
    shared = generator.integers(0, 5, size=n)
    rows = [generator.permutation(words)[:8] for _ in range(n)]
    texts = [" ".join(row[:4]) for row in rows]
    pairs = [" ".join([*row[:k], *row[4 : 8 - k]]) for row, k in zip(rows, shared, strict=True)]
    return Table(texts, pairs, [float(k) + 0.5 for k in shared], {}, "", "made")


def test_separable_reviews_are_told_apart_and_the_bytes_are_those_of_the_parts() -> None:
    result = tfidf(reviews(200, 0), reviews(60, 1), BINARY, None, seed=0)
    assert result.metrics == {"accuracy": 1.0, "f1": 1.0}
    words = ["the", "is", *GOOD, *BAD, *FILL]
    couples = [f"the {word}" for word in FILL] + [f"{word} is" for word in FILL] + [f"is {word}" for word in GOOD + BAD]
    assert result.n_features == len(words) + len(couples)
    # Each term: its text, a newline, a float32 idf, a float32 coefficient; one intercept.
    assert result.bytes == sum(len(term) + 1 + 4 + 4 for term in words + couples) + 4
    assert 0 < result.p50_ms <= result.p95_ms


@pytest.mark.parametrize("max_bytes", [200, 333, 400])
def test_a_byte_limit_is_kept_and_used(max_bytes: int) -> None:
    result = tfidf(reviews(200, 0), reviews(60, 1), BINARY, max_bytes, seed=0)
    assert max_bytes - 30 <= result.bytes <= max_bytes


def test_an_impossible_byte_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"made: no term of TF-IDF fits 10 bytes. Use a larger --max-size"):
        tfidf(reviews(20, 0), reviews(20, 1), BINARY, 10, seed=0)


def test_two_runs_give_the_same_numbers() -> None:
    first, second = (tfidf(reviews(100, 0), reviews(60, 1), BINARY, 400, seed=0) for _ in range(2))
    assert first[:4] == second[:4]


def test_a_class_without_training_rows_is_never_answered() -> None:
    spec = task_spec("classification", ("never", "neg", "pos"), pair=False)
    result = tfidf(reviews(200, 0), reviews(60, 1), spec, None, seed=0)
    assert result.metrics["accuracy"] == 1.0


def test_regression_on_pairs_follows_the_overlap() -> None:
    result = tfidf(likenesses(400, 0), likenesses(100, 1), task_spec("regression", pair=True), None, seed=0)
    assert result.name == "TF-IDF + ridge regression"
    assert result.metrics["spearman"] > 0.9
    # Two coefficients per term (|a - b| and a * b), one for the cosine, one intercept.
    assert result.bytes > result.n_features * (4 + 2 * 4) + 8


def test_pairs_within_a_byte_limit() -> None:
    spec = task_spec("regression", pair=True)
    assert tfidf(likenesses(100, 0), likenesses(20, 1), spec, 600, seed=0).bytes <= 600


def test_embeddings_are_judged_by_cosine_and_carry_no_coefficients() -> None:
    spec = task_spec("embedding", pair=True)
    result = tfidf(likenesses(100, 0), likenesses(100, 1), spec, None, seed=0)
    assert result.metrics["spearman"] > 0.9
    unlabelled = Table(["one text", "another text"], None, None, {}, "", "made")
    assert tfidf(unlabelled, unlabelled, task_spec("embedding", pair=False), None, seed=0).metrics == {}


def test_training_rows_without_labels_or_words_are_refused() -> None:
    unlabelled = Table(["one", "two"], None, None, {}, "", "made")
    with pytest.raises(ValueError, match="TF-IDF needs labelled training rows"):
        tfidf(unlabelled, reviews(20, 1), BINARY, None, seed=0)
    dots = Table(["...", "!!"], None, ["neg", "pos"], {}, "", "made")
    with pytest.raises(ValueError, match="holds no words for TF-IDF"):
        tfidf(dots, dots, BINARY, None, seed=0)
    same = Table(["one", "two"], None, ["neg", "neg"], {}, "", "made")
    with pytest.raises(ValueError, match="only one class, 'neg'"):
        tfidf(same, same, BINARY, None, seed=0)
