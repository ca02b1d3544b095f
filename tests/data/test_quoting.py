"""Quotes of tab-separated files: taken off where the whole file shows quoting, else letters, and said where unclear."""

import csv
import io
from pathlib import Path

import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressor.data.columns import Columns
from compressor.data.table import Table, describe_rows, read_table

relaxed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(folder: Path, content: str, name: str = "rows.tsv", needs_label: bool = True) -> Table:
    path = folder / name
    path.write_bytes(content.encode())
    return read_table(str(path), needs_label=needs_label)


def by_pandas(rows: list[tuple[str, str]], **how: object) -> str:
    out = io.StringIO(newline="")
    pandas.DataFrame(rows, columns=["text", "label"]).to_csv(out, sep="\t", **({"index": False} | how))
    return out.getvalue()


ROWS = [(f'they said "film {number}"' if number % 2 else f"film\t{number},\nof two lines", "no") for number in range(9)]


@pytest.mark.parametrize("how", [{}, {"index": True}, {"quoting": csv.QUOTE_ALL}, {"lineterminator": "\r\n"}])
@pytest.mark.parametrize("name", ["rows.tsv", "rows.csv"])
def test_what_pandas_quotes_comes_back(how: dict[str, object], name: str, tmp_path: Path) -> None:
    table = read(tmp_path, by_pandas(ROWS, **how), name)
    assert list(zip(table.texts, table.labels or [], strict=True)) == ROWS
    assert table.columns["notes"] == []


awkward = st.text(st.sampled_from("ab \"\t\n,;|\\'é"), min_size=1, max_size=12).filter(str.strip)


@relaxed
@given(rows=st.lists(st.tuples(awkward, st.sampled_from(["yes", 'say "no"'])), min_size=1, max_size=6))
def test_minimal_quoting_round_trip(rows: list[tuple[str, str]], tmp_path: Path) -> None:
    """With a doubled quote somewhere, which nothing but quoting explains; a CSV says so by its name."""
    rows = [('a "quoted" word', "yes"), *rows]
    path = tmp_path / "rows.tsv"
    path.write_bytes(by_pandas(rows).encode())
    table = read_table(str(path), columns=Columns("text", None, "label"), needs_label=True)
    assert list(zip(table.texts, table.labels or [], strict=True)) == rows


letters = st.text(st.sampled_from('ab "'), min_size=1, max_size=8).filter(str.strip)


@relaxed
@given(texts=st.lists(letters, min_size=1, max_size=6))
def test_quotes_are_letters_where_one_is_bare(texts: list[str], tmp_path: Path) -> None:
    texts = ['he said "no" twice', *texts]
    content = "text\tlabel\n" + "".join(f"{text}\tyes\n" for text in texts)
    path = tmp_path / "rows.tsv"
    path.write_bytes(content.encode())
    assert read_table(str(path), columns=Columns("text", None, "label"), needs_label=True).texts == texts


def test_excel_quotes_commas_and_it_is_said(tmp_path: Path) -> None:
    table = read(tmp_path, 'text\tlabel\r\n"a, b"\t1\r\nc d\t0\r\n"e, f g"\t1\r\n')
    assert table.texts == ["a, b", "c d", "e, f g"]
    assert "quotes around 2 fields (first in line 2) with a comma were taken off" in describe_rows(table)


@pytest.mark.parametrize(
    ("cells", "note"),
    [
        (['"a b"', "c d"], "the quotes around 1 field (line 2) without need were kept as letters"),
        (['"a ""b"" c"', 'c "d" e'], "also those around 1 field (line 2) as in a CSV, for line 3 holds one"),
        (['"a \\"b\\" c"', "c d"], "also those around 1 field (line 2) as in a CSV"),
        (['"a b', 'c d"'], "quotes that may be those of a CSV were kept as letters"),
    ],
)
def test_what_is_neither_is_kept_and_said(cells: list[str], note: str, tmp_path: Path) -> None:
    table = read(tmp_path, "text\tlabel\n" + "".join(f"{cell}\t{row}\n" for row, cell in enumerate(cells)))
    assert table.texts == cells
    assert note in describe_rows(table)


def test_lines_are_numbered_as_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 6: the column 'text' holds no text"):
        read(tmp_path, 'text\tlabel\n"a ""b""\nc"\t1\n\n"d\te"\t0\n \t1\n')


@pytest.mark.parametrize("name", ["rows.tsv", "rows.csv"])
def test_old_line_ends_are_line_ends(name: str, tmp_path: Path) -> None:
    mark = "\t" if name.endswith("tsv") else ";"
    content = f'text{mark}label\r"one\ntwo"{mark}1\rc d{mark}0\r'
    assert read(tmp_path, content, name).texts == ["one\ntwo", "c d"]
    plain = f"text{mark}label\ra b{mark}1\rc d{mark}0"
    assert read(tmp_path, plain, name).texts == ["a b", "c d"]
    assert read(tmp_path, "a b\rc d\r", "rows.txt", needs_label=False).texts == ["a b", "c d"]
    objects = '{"text": "a b", "label": 1}\r{"text": "c d", "label": 0}\r'
    assert read(tmp_path, objects, "rows.jsonl").texts == ["a b", "c d"]


@pytest.mark.parametrize(("first", "mark"), [("sep=;", ";"), ('"sep=|"', "|"), ("SEP=\t", "\t"), ("sep=,", ",")])
@pytest.mark.parametrize("name", ["rows.tsv", "rows.csv"])
def test_the_word_of_excel_on_the_separator_is_taken(first: str, mark: str, name: str, tmp_path: Path) -> None:
    content = f"\ufeff{first}\r\ntext{mark}label\r\na b{mark}1\r\nc d{mark}\r\n"
    with pytest.raises(ValueError, match="line 4: the label is missing"):
        read(tmp_path, content, name)
    assert read(tmp_path, content.replace(f"c d{mark}", f"c d{mark}0"), name).texts == ["a b", "c d"]
