"""The interval of a drop: what must hold of it whatever the outputs, and how often it holds the truth."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.data.table import Table
from compressor.scoring.contract import Resampled
from compressor.scoring.drop import drop_of
from compressor.scoring.registry import kind_names, load_kind, task_spec
from compressor.scoring.resampling import means

BINARY = task_spec("classification", ("no", "yes"), pair=False)
RIGHT = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60)  # teacher, package


def of_rows(is_right: np.ndarray) -> Resampled:
    """Return accuracy on draws, through the task's own hook, of a model that is right on some rows."""
    table = Table([f"a{row}" for row in range(len(is_right))], None, ["yes"] * len(is_right), {}, "", "dev.tsv")
    return BINARY.resampled(np.eye(2)[is_right.astype(int)], table)


def dropped(theirs: np.ndarray, ours: np.ndarray) -> dict[str, float]:
    return drop_of(100 * (theirs.mean() - ours.mean()), of_rows(theirs), of_rows(ours), len(theirs))


def drawn(n_rows: int, seed: int, both: float = 0.8, lost: float = 0.08, gained: float = 0.04) -> tuple:
    """Return rows that both are right on, the teacher only, the package only, or neither, by these chances."""
    chance = np.random.default_rng(seed).random(n_rows)
    lost_to, gained_to = both + lost, both + lost + gained
    return chance < lost_to, (chance < both) | ((chance >= lost_to) & (chance < gained_to))


@settings(max_examples=20, deadline=None)
@given(rows=RIGHT)
def test_an_interval_is_ordered_possible_and_the_same_again(rows: list[tuple[bool, bool]]) -> None:
    theirs, ours = np.array(rows).T
    found = dropped(theirs, ours)
    assert -100 <= found["low"] <= found["high"] <= 100
    assert found["rows"] == len(rows) and found["level"] == 0.95
    assert found == dropped(theirs, ours)
    differences = theirs.astype(float) - ours
    assert 100 * differences.min() <= found["low"] and found["high"] <= 100 * differences.max()


@settings(max_examples=20, deadline=None)
@given(rows=RIGHT)
def test_whoever_is_called_the_teacher_the_interval_is_mirrored(rows: list[tuple[bool, bool]]) -> None:
    theirs, ours = np.array(rows).T
    found, other = dropped(theirs, ours), dropped(ours, theirs)
    assert (found["low"], found["high"]) == pytest.approx((-other["high"], -other["low"]), abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.booleans(), min_size=2, max_size=60))
def test_equal_answers_have_no_drop_and_no_width(rows: list[bool]) -> None:
    found = dropped(np.array(rows), np.array(rows))
    assert (found["points"], found["low"], found["high"]) == (0, 0, 0)
    assert str(found["low"]) == str(found["points"]) == "0.0"  # never -0.0


@pytest.mark.parametrize("name", kind_names())
def test_equal_outputs_of_any_kind_and_metric_have_none(name: str) -> None:
    kind = load_kind(name)
    labels = [("no",), ("yes",), ("no", "yes"), ()] * 5 if kind.several_labels else [0.0, 1.0, 2.0, 1.0] * 5
    if kind.has_one_class:
        labels = ["no", "yes", "yes", "no"] * 5
    texts = [f"a{row}" for row in range(20)]
    table = Table(texts, None if kind.reads_pairs else [f"b{row}" for row in range(20)], labels, {}, "", "dev.tsv")
    for metric in kind.metrics:
        spec = kind.of(("no", "yes"), pair=table.pairs is not None, metric=metric)
        width = len(spec.labels) or spec.head().n_values or 5
        outputs = np.random.default_rng(0).normal(size=(20 if kind.reads_pairs else 40, width))
        both = [spec.resampled(each, table, outputs) for each in (outputs, outputs.copy())]
        found = drop_of(0.0, *both, len(table))
        assert (found["low"], found["high"]) == pytest.approx((0, 0), abs=1e-6), metric


def test_more_rows_of_the_same_narrow_it_by_their_root() -> None:
    def width(n_rows: int) -> float:
        found = [dropped(*drawn(n_rows, seed)) for seed in range(8)]
        return float(np.mean([each["high"] - each["low"] for each in found]))

    assert width(200) / width(3200) == pytest.approx(4, rel=0.15)


def test_what_is_hard_for_both_cancels_out() -> None:
    theirs, ours = drawn(1000, 0, both=0.6, lost=0.01, gained=0.01)
    paired, apart = dropped(theirs, ours), dropped(theirs, np.random.default_rng(1).permutation(ours))
    assert paired["high"] - paired["low"] < 0.4 * (apart["high"] - apart["low"])


def test_it_holds_the_true_drop_as_often_as_it_says() -> None:
    true, held = 100 * (0.08 - 0.04), 0
    for seed in range(200):
        found = dropped(*drawn(300, seed))
        held += found["low"] <= true <= found["high"]
    assert 0.90 <= held / 200 <= 0.99  # 0.95 give or take three standard errors, and the little that 300 rows cost


def test_a_single_row_has_no_interval() -> None:
    assert dropped(np.array([True]), np.array([False])) == {"points": 100.0, "rows": 1}


@pytest.mark.parametrize("n_units", [2, 7])
def test_as_many_are_drawn_as_there_are(n_units: int) -> None:
    seen: list[np.ndarray] = []

    def scored(value: float) -> Callable[[np.ndarray], np.ndarray]:
        def score(counts: np.ndarray) -> np.ndarray:
            seen.append(counts)
            return means(np.full(n_units, value), counts)

        return score

    drop_of(0.0, Resampled(n_units, scored(1.0)), Resampled(n_units, scored(1.0)), n_units)
    of_teacher, of_package = seen[::2], seen[1::2]
    assert sum(map(len, of_teacher)) == 1000
    for theirs, ours in zip(of_teacher, of_package, strict=True):
        assert np.array_equal(theirs, ours) and (theirs.sum(axis=1) == n_units).all()
