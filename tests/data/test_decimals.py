"""Decimal commas are numbers or refused, and classes of a new teacher that differ only in spelling are refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.data.decimals import read_decimals, with_point
from compressor.data.labels import collect_labels, is_regression
from compressor.data.table import describe_rows, read_table
from compressor.scoring.registry import load_kind


def decimals(*labels: str) -> list[float] | None:
    return read_decimals(labels, "score", lambda row: f"rows.csv, line {row + 2}")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["0,5", "1,0", "3,5"], [0.5, 1.0, 3.5]),
        (["1,0", "0,0"], [1.0, 0.0]),
        (["5", "-0,25", "+1,5e2", ",5"], [5.0, -0.25, 150.0, 0.5]),
        (["1,234", "0,5"], [1.234, 0.5]),
        (["0,125", "0,250"], [0.125, 0.25]),
        (["1", "0"], None),
        (["0.5", "1"], None),
        (["good, bad", "good"], None),
        ([*["a"] * 9, "1,5"], None),
    ],
)
def test_decimal_commas_are_numbers(labels: list[str], expected: list[float] | None) -> None:
    assert decimals(*labels) == expected


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["0,5", "1.234,5"], r"line 3: the label '1.234,5' \(column 'score'\) has separators of thousands"),
        (["0,5", "1 234,5"], "has separators of thousands"),
        (["0,5", "1'234,5"], "has separators of thousands"),
        (["1,234.5", "2"], "has separators of thousands"),
        (["1,234,567", "2"], "has separators of thousands"),
        (["0,5", "0.5"], r"line 3: the label '0.5' .* a point and '0,5' with a comma"),
        (["1,234", "5,678"], "line 2: the label '1,234' .* may be 1234 or 1.234"),
        (["0,5", "n/a"], "line 3: the label 'n/a' .* is not a number"),
        (["27", "3,10", "2,3,5"], "line 4: the label '2,3,5' .* --task multi_label"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_with_its_line(labels: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decimals(*labels)


@given(values=st.lists(st.floats(-100, 100).map(lambda value: round(value, 2)), min_size=1, max_size=20))
def test_numbers_come_back(values: list[float]) -> None:
    assert decimals(*(f"{value:.2f}".replace(".", ",") for value in values)) == values


def test_a_column_of_scores_is_found_and_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text;gut\r\n" + "".join(f"ein Film {row};{row % 7},5\r\n" for row in range(20)))
    table = read_table(str(path), needs_label=True)
    assert table.labels == [row % 7 + 0.5 for row in range(20)]
    assert "numbers with a decimal comma, such as 0,5" in describe_rows(table)
    path.write_text("text;gut\r\n" + "".join(f"ein Film {row};{row % 2},0\r\n" for row in range(20)))
    labels = read_table(str(path), needs_label=True).labels
    assert labels == [row % 2 for row in range(20)] and is_regression(labels)  # type: ignore[arg-type]
    assert load_kind("regression").of((), pair=False).targets(read_table(str(path), needs_label=True)) == labels


def test_only_numbers_get_a_point() -> None:
    assert [with_point(text) for text in ("0,5", " 1,0 ", "a,b", "1,2,3")] == ["0.5", " 1.0 ", "a,b", "1,2,3"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Positive", "positive"), ("very good", "very  good"), ("sci-fi", "sci_fi"), ("café", "cafe\u0301"),
        ("joy", "joy\u200b"), ("STRASSE", "straße"), ("1", "1.0"),
    ],
)  # fmt: skip
def test_classes_that_differ_only_in_spelling_are_refused(one: str, other: str) -> None:
    with pytest.raises(ValueError, match=r"\(3 rows\) and .*\(2 rows\) differ only in case.* Write each class in one"):
        collect_labels([one, other, "other"] * 2 + [one], "rows.tsv")


def test_classes_that_differ_stay() -> None:
    assert collect_labels(["C", "C++", "C#", "-1", "+"]) == ("+", "-1", "C", "C#", "C++")
    assert collect_labels(["1", "1.0", "0"]) == ("0", "1")


def test_several_labels_that_differ_only_in_spelling_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a b", "labels": ["Joy", "fear"]}\n{"text": "c d", "labels": ["joy"]}\n')
    table = read_table(str(path), needs_label=True, several=())
    with pytest.raises(ValueError, match=r"'Joy' \(1 rows\) and 'joy' \(1 rows\) differ only"):
        load_kind("multi_label").collect(table)
