"""Metrics of many draws at once are those of scikit-learn and SciPy on the rows that were drawn, for every kind."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from compressor.data.table import Table, select
from compressor.scoring.contract import TaskSpec
from compressor.scoring.evaluate import agreed, measured
from compressor.scoring.metrics import RETRIEVAL, similarities
from compressor.scoring.registry import kind_names, load_kind
from compressor.scoring.resampling import similarity_spearman
from compressor.tasks import classification

NAMES = ("a", "b", "c")
CASES = [(name, metric) for name in kind_names() for metric in load_kind(name).metrics]
ROW_WISE = [case for case in CASES if case[1] not in (*RETRIEVAL, "similarity_spearman")]
SEEDS = st.integers(0, 10_000)


def case_of(name: str, metric: str, n_rows: int, seed: int, labels: tuple[str, ...] = NAMES):
    """Return a task, labelled rows of it, a teacher's outputs and a student's; values repeat, so that ranks tie."""
    kind, rng = load_kind(name), np.random.default_rng(seed)
    if kind.several_labels:
        targets: list = [tuple(label for label in labels if rng.random() < 0.4) for _ in range(n_rows)]
    elif kind.has_classes:
        targets = [labels[index] for index in rng.integers(0, len(labels), n_rows)]
    else:
        targets = list(rng.integers(0, 6, n_rows) / 2)
    pairs = None if kind.reads_pairs else [f"document {row}" for row in range(n_rows)]
    table = Table([f"query {row}" for row in range(n_rows)], pairs, targets, {}, "", "dev.tsv")
    spec = kind.of(labels, pair=pairs is not None, metric=metric)
    width = len(spec.labels) or spec.head().n_values or 4
    theirs = rng.normal(size=(n_rows * (1 if kind.reads_pairs else 2), width))
    ours = theirs + rng.normal(size=theirs.shape)
    return spec, table, theirs.round(1), ours.round(1)


def scored(spec: TaskSpec, outputs: np.ndarray, table: Table, reference: np.ndarray) -> float:
    return (measured(outputs, table, spec) | agreed(outputs, reference, spec))[spec.metric]


def counts_of(rows: np.ndarray, n_rows: int) -> np.ndarray:
    return np.bincount(rows, minlength=n_rows).astype(float)


@pytest.mark.parametrize(("name", "metric"), CASES)
def test_each_row_once_is_the_metric_itself(name: str, metric: str) -> None:
    spec, table, theirs, ours = case_of(name, metric, 60, 1)
    found = spec.resampled(ours, table, theirs)
    (value,) = found.score(np.ones((1, found.n_units)))
    within = 3e-3 if metric == "similarity_spearman" else 1e-9  # which is counted in bins
    assert value == pytest.approx(scored(spec, ours, table, theirs), abs=within)


@pytest.mark.parametrize(("name", "metric"), ROW_WISE)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, n_rows=st.integers(2, 40), n_labels=st.sampled_from((2, 3)))
def test_a_draw_scores_as_the_rows_that_were_drawn(
    name: str, metric: str, seed: int, n_rows: int, n_labels: int
) -> None:
    spec, table, theirs, ours = case_of(name, metric, n_rows, seed, NAMES[:n_labels])
    rows = np.random.default_rng(seed + 1).integers(0, n_rows, (3, n_rows))
    values = spec.resampled(ours, table, theirs).score(np.stack([counts_of(each, n_rows) for each in rows]))
    for value, drawn in zip(values, rows, strict=True):
        texts = drawn if spec.reads_pairs else np.concatenate([drawn, drawn + n_rows])
        expected = scored(spec, ours[texts], select(table, drawn.tolist()), theirs[texts])
        assert value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("name", "metric"), CASES)
def test_who_agrees_with_a_teacher_in_all_scores_as_it_does(name: str, metric: str) -> None:
    spec, table, theirs, _ = case_of(name, metric, 30, 2)
    teacher, same = (spec.resampled(each, table, theirs) for each in (theirs, theirs.copy()))
    counts = np.random.default_rng(0).multinomial(teacher.n_units, [1 / teacher.n_units] * teacher.n_units, 5)
    np.testing.assert_allclose(teacher.score(counts.astype(float)), same.score(counts.astype(float)), atol=1e-9)


class Ordered(classification.Task):
    """A kind that refines another and has a metric of its own."""

    metrics = ("closeness",)

    def score(self, outputs, targets, name="logits"):
        return {"closeness": 1 - float(np.abs(outputs.argmax(axis=1) - np.asarray(targets)).mean()) / 2}


def test_a_metric_that_is_new_is_scored_draw_by_draw() -> None:
    _, table, theirs, ours = case_of("classification", "accuracy", 20, 3)
    spec = Ordered.of(NAMES, pair=False)
    rows = np.random.default_rng(0).integers(0, 20, 20)
    (value,) = spec.resampled(ours, table, theirs).score(counts_of(rows, 20)[None])
    assert value == pytest.approx(measured(ours[rows], select(table, rows.tolist()), spec)["closeness"])


def test_queries_are_drawn_and_look_among_all_documents() -> None:
    spec, table, theirs, ours = case_of("embedding", "mrr@10", 12, 4)
    table = replace(table, texts=[f"query {row // 2}" for row in range(12)], labels=None)  # two documents each
    found = spec.resampled(ours, table, theirs)
    assert found.n_units == 6
    each = [float(found.score(np.eye(6)[[query]])[0]) for query in range(6)]
    assert np.mean(each) == pytest.approx(measured(ours, table, spec)["mrr@10"])
    (value,) = found.score(np.array([[3.0, 0, 0, 3, 0, 0]]))
    assert value == pytest.approx((each[0] + each[3]) / 2)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_a_text_that_is_drawn_twice_is_not_compared_with_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    theirs = rng.normal(size=(24, 4))
    first, second = similarities(theirs), similarities(theirs + 0.5 * rng.normal(size=theirs.shape))
    row_of = np.arange(24) % 12  # two texts a row
    rows = rng.integers(0, 12, 12)
    counts = counts_of(rows, 12)
    pairs: list[tuple[float, float]] = []
    for one in range(24):
        for other in range(one):
            same = row_of[one] == row_of[other]
            times = counts[row_of[one]] * (1 if same else counts[row_of[other]])
            pairs += [(first[one, other], second[one, other])] * int(times)
    (value,) = similarity_spearman(first, second, row_of)(counts[None])
    assert value == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic, abs=0.02)


def test_where_no_pair_is_drawn_nothing_correlates() -> None:
    rows = similarities(np.random.default_rng(0).normal(size=(3, 4)))
    assert similarity_spearman(rows, rows, np.arange(3))(np.array([[3.0, 0.0, 0.0]])) == 0.0
