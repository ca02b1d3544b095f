"""Columns of Parquet by their types: read as texts and numbers, or left out and named."""

import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from compressor.data.columns import Columns
from compressor.data.table import Table, describe_rows, read_table

TEXTS, IDS = [f"some film {row}" for row in range(10)], [row % 2 for row in range(10)]
LABELS = [str(number) for number in IDS]


def table_of(folder: Path, content: dict[str, object], **how: object) -> Table:
    pyarrow.parquet.write_table(pa.table(content), folder / "a.parquet")
    return read_table(str(folder / "a.parquet"), **({"needs_label": True} | how))  # type: ignore[arg-type]


BYTES = [text.encode() for text in TEXTS]
READ = {
    "string_view": {"text": pa.array(TEXTS, pa.string_view()), "label": IDS},
    "large_string": {"text": pa.array(TEXTS, pa.large_string()), "label": pa.array(LABELS, pa.large_string())},
    "binary": {"text": BYTES, "label": pa.array([label.encode() for label in LABELS], pa.large_binary())},
    "binary_view": {"text": pa.array(BYTES, pa.binary_view()), "label": pa.array(IDS, pa.uint8())},
    "dictionary": {"text": pa.array(TEXTS).dictionary_encode(), "label": pa.array(LABELS).dictionary_encode()},
    "list of one": {"text": TEXTS, "label": [[number] for number in IDS]},
    "fixed list of one": {"text": TEXTS, "label": pa.array([[n] for n in IDS], pa.list_(pa.int64(), 1))},
    "large list of one text": {"text": pa.array([[text] for text in TEXTS], pa.large_list(pa.string())), "label": IDS},
    "whole decimal": {"text": TEXTS, "label": pa.array(map(Decimal, IDS), pa.decimal128(3, 0))},
}


@pytest.mark.parametrize("kind", READ)
def test_columns_are_read(kind: str, tmp_path: Path) -> None:
    table = table_of(tmp_path, READ[kind])
    assert (table.texts, table.labels) == (TEXTS, LABELS)


def test_decimals_are_numbers(tmp_path: Path) -> None:
    halves = pa.array([Decimal(number) / 2 for number in range(10)], pa.decimal128(5, 1))
    assert table_of(tmp_path, {"text": TEXTS, "score": halves}).labels == [number / 2 for number in range(10)]


LEFT_OUT = {
    "struct": ({"text": [{"en": text} for text in TEXTS], "label": IDS}, r"text \(struct<en: string>\)"),
    "timestamp": (
        {"text": TEXTS, "label": [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)] * 10},
        r"label \(timestamp\[us, tz=UTC\]\)",
    ),
    "list": ({"text": TEXTS, "label": [[0, 1]] * 10}, r"label \(list<element: int64>\)"),
    "bytes": ({"text": [b"\xff\xfe"] * 10, "label": IDS}, r"text \(binary\)"),
    "nothing": ({"text": TEXTS, "label": pa.nulls(10)}, r"label \(null\)"),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_columns_that_are_left_out_are_named(kind: str, tmp_path: Path) -> None:
    columns, named = LEFT_OUT[kind]
    with pytest.raises(ValueError, match=f"no column looks like a .*Not read, for their types .*: {named}"):
        table_of(tmp_path, columns)
    role = "text" if "text (" in named.replace("\\", "") else "label"
    with pytest.raises(ValueError, match=f"--{role}-column '{role}' is of type .*, expected texts or numbers"):
        table_of(tmp_path, columns, columns=Columns(**{role: role}))


def test_what_is_ignored_is_told_with_its_type(tmp_path: Path) -> None:
    more = {"vector": [[0.1, 0.2]] * 10, "day": [datetime.date(2020, 1, 1)] * 10}
    table = table_of(tmp_path, {"text": TEXTS, "label": IDS, **more})
    assert "ignored: vector (list<element: double>), day (date32[day])" in describe_rows(table)


def test_several_labels_a_row_stay_lists(tmp_path: Path) -> None:
    table = table_of(tmp_path, {"text": TEXTS, "labels": [["a"], ["a", "b"]] * 5}, several=())
    assert table.labels == [("a",), ("a", "b")] * 5
