"""Rows held out of a table: every row once, classes alike, by seed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.data.splits import split_holdout, subset
from compressor.data.table import Table


def table_of(n: int, n_classes: int = 2) -> Table:
    labels = [f"c{i % n_classes}" for i in range(n)]
    return Table([f"text {i}" for i in range(n)], None, labels, {}, "", "made")


@settings(max_examples=40, deadline=None)
@given(n=st.integers(4, 300), n_classes=st.integers(1, 6), share=st.floats(0.01, 0.5), seed=st.integers(0, 9))
def test_holdout_splits_every_row_once(n: int, n_classes: int, share: float, seed: int) -> None:
    table = table_of(n, n_classes)
    if n <= n_classes:
        return
    train, held = split_holdout(table, share, seed)
    assert sorted(train.texts + held.texts) == sorted(table.texts)
    assert len(held) >= 1
    assert set(train.labels or []) == set(table.labels or [])
    assert len(held) <= max(1, round(share * n))


def test_holdout_is_stratified_deterministic_and_seeded() -> None:
    table = Table([f"t{i}" for i in range(1000)], None, ["rare"] * 100 + ["common"] * 900, {}, "", "made")
    _, held = split_holdout(table, 0.1, seed=0)
    assert [(held.labels or []).count(name) for name in ("rare", "common")] == [10, 90]
    assert split_holdout(table, 0.1, seed=0)[1] == held
    assert split_holdout(table, 0.1, seed=1)[1].sha256 != held.sha256


def test_holdout_never_parts_equal_texts() -> None:
    table = Table([f"t{i % 40}" for i in range(200)], None, [f"c{i % 2}" for i in range(200)], {}, "", "made")
    train, held = split_holdout(table, 0.2, seed=3)
    assert len(held) == 40
    assert not set(train.texts) & set(held.texts)


def test_holdout_of_too_few_rows_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"1 rows are too few to hold some out for evaluation. Give a file with --eval"
    ):
        split_holdout(table_of(1), 0.1, seed=0)
    with pytest.raises(ValueError, match=r"hold out is 1.5, expected between 0 and 1"):
        split_holdout(table_of(10), 1.5, seed=0)


def test_subset_keeps_order_and_is_seeded() -> None:
    table = table_of(100)
    part = subset(table, 10, seed=0)
    assert part == subset(table, 10, seed=0)
    assert [table.texts.index(text) for text in part.texts] == sorted(table.texts.index(text) for text in part.texts)
    assert subset(table, 10, seed=1).texts != part.texts
    assert subset(table, 100, seed=0) is table
    with pytest.raises(ValueError, match="0 rows were asked for"):
        subset(table, 0, seed=0)
