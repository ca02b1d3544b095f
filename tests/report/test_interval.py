"""How sure a drop is, in words, and when the rows are too few to tell."""

import pytest

from compressor.report.interval import interval, too_few


def drop(low: float, high: float, rows: int = 500) -> dict[str, float]:
    return {"points": (low + high) / 2, "low": low, "high": high, "level": 0.95, "rows": rows}


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (-0.3, 2.1, " (95 %: -0.3 to +2.1)"),
        (0.0, 0.0, " (95 %: +0.0 to +0.0)"),
        (-0.04, 12.25, " (95 %: +0.0 to +12.2)"),
    ],
)
def test_an_interval_is_told_with_its_signs(low: float, high: float, text: str) -> None:
    assert interval(drop(low, high)) == text


def test_without_an_interval_nothing_is_told_of_it() -> None:
    assert interval({}) == interval({"points": 1.0, "rows": 1}) == ""


@pytest.mark.parametrize(
    ("low", "high", "max_drop", "says"),
    [
        (-0.3, 2.1, 1.0, "the drop is between -0.30 and 2.10 points (95 %), --max-drop 1 lies within"),
        (-9.0, 9.0, 0.5, "the drop is between -9.00 and 9.00 points (95 %), --max-drop 0.5 lies within"),
        (-2.0, 2.1, None, "the drop is between -2.00 and 2.10 points (95 %)"),
    ],
)
def test_rows_are_too_few_where_they_do_not_decide(low: float, high: float, max_drop: float | None, says: str) -> None:
    assert too_few(drop(low, high), max_drop) == [
        f"the rows are too few to tell: {says}; give more rows with --eval",
    ]


@pytest.mark.parametrize(
    ("low", "high", "max_drop"),
    [(-9.0, 0.4, 0.5), (0.6, 9.0, 0.5), (0.5, 9.0, 0.5), (-2.0, 2.0, None), (2.0, 2.0, 2.0)],
)
def test_rows_that_decide_are_enough_however_wide_the_interval_is(
    low: float, high: float, max_drop: float | None
) -> None:
    assert too_few(drop(low, high), max_drop) == []


@pytest.mark.parametrize(("rows", "max_drop", "is_told"), [(60, None, True), (75, None, False), (250, 1.0, True),
                                                          (300, 1.0, False), (10, 40.0, False)])  # fmt: skip
def test_equal_answers_on_few_rows_may_still_hide_a_drop(rows: int, max_drop: float | None, is_told: bool) -> None:
    """By the rule of three: what none of n rows shows may, at 95 %, be on 3 of n others."""
    found = too_few(drop(0.0, 0.0, rows), max_drop)
    assert bool(found) == is_told
    if is_told:
        assert f"up to {300 / rows:.2f} points of drop (95 %) may show on none of {rows} rows" in found[0]


def test_a_single_row_tells_nothing() -> None:
    expected = "the rows are too few to tell how sure the drop is; give more rows with --eval"
    assert too_few({"points": 0.0, "rows": 1}, None) == too_few({"points": 0.0, "rows": 1}, 3.0) == [expected]
