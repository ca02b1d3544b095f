"""Reading tables: formats, refusals with their line, round trips, garbage."""

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressor.data.columns import Columns
from compressor.data.table import describe_rows, read_table
from compressor.refused import Refused

# One temporary folder serves all examples of a property: every example overwrites its file.
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(path)


def tsv(names: list[str], *rows: list[str]) -> str:
    return "".join("\t".join(row) + "\n" for row in (names, *rows))


def csv_text(names: list[str], *rows: list[str]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([names, *rows])
    return out.getvalue()


BAD = {
    "empty": ("a.tsv", "", "is empty"),
    "blank": ("a.tsv", "\n \n", "only blank lines"),
    "only quotes": ("a.csv", '""', "holds no row"),
    "only a header": ("a.tsv", "sentence\tlabel\n", "holds only its first line"),
    "too many fields": ("a.tsv", "sentence\tlabel\na b\t1\na\tb\t1\n", "line 3: has 3 fields, the header has 2"),
    "too few fields": ("a.csv", "text,label\na b,1\nc d\n", "line 3: has 1 fields"),
    "empty text": ("a.tsv", "sentence\tlabel\na b\t1\n  \t1\n", "line 3: the column 'sentence' holds no text"),
    "no label": ("a.tsv", "sentence\tlabel\na b\t1\nc d\t\n", "line 3: the label is missing"),
    "NaN label": ("a.tsv", "sentence\tlabel\na b\t1\nc d\tNaN\n", "line 3: the label is 'NaN'"),
    "NaN score": (
        "a.tsv",
        "text\tscore\na b\t1.5\nc d\t2.5\ne f\tinf\n",
        "line 4: the label 'inf' is not a finite num",
    ),
    "latin-1": ("a.tsv", "sentence\tlabel\na b\t1\ncaf\xe9\t1\n".encode("latin-1"), "line 3: byte 0xe9 is not UTF-8"),
    "UTF-16": ("a.tsv", "sentence\tlabel\na b\t1\n".encode("utf-16"), "is UTF-16, expected UTF-8"),
    "open quote": ("a.csv", 'text,label\na b,1\n"c d,1\ne f,1\n', "line 3: the quotes"),
    "inner quote": ("a.csv", 'text,label\na b,1\n"c" d,1\n', "line 3: the quotes"),
    "same name twice": ("a.csv", "text,text,label\na b,c d,1\n", "names the column 'text' twice"),
    "csv called tsv": ("a.tsv", "text,label\na b,1\n", "holds no tab. Rename the file to .csv"),
    "not JSON": ("a.jsonl", '{"text": "a b", "label": "x"}\n{"text": }\n', "line 2: is not JSON"),
    "JSON list": ("a.jsonl", '{"text": "a b", "label": "x"}\n["a", "b"]\n', "line 2: is a list, expected an object"),
    "JSON key twice": ("a.jsonl", '{"text": "a b", "text": "x"}\n', "line 1: is not JSON .a key comes twice"),
    "JSON NaN": ("a.jsonl", '{"text": "a b", "label": 1}\n{"text": NaN, "label": 1}\n', "line 2: the column 'text'"),
    "JSON missing key": (
        "a.jsonl",
        '{"text": "a b", "label": 1}\n{"label": 1}\n',
        "line 2: the column 'text' holds no",
    ),
    "JSON null label": (
        "a.jsonl",
        '{"text": "a b", "label": 1}\n{"text": "c d", "label": null}\n',
        "line 2: the label",
    ),
    "JSON list label": ("a.jsonl", '{"text": "a b", "label": ["x"]}\n', "line 1: the column 'label' holds a list"),
    "JSON surrogate": ("a.jsonl", '{"text": "a \\ud800", "label": 1}\n', "line 1: the column 'text' holds half a sur"),
    "JSON of lists": ("a.json", '{"train": [["a b", "x"]]}', "lists or objects only"),
    "JSON nested": ("a.json", "[" * 100_000, "is not JSON"),
    "Parquet": ("a.parquet", b"PAR1 this is none PAR1", "not a readable Parquet file"),
    "cut gzip": ("a.tsv.gz", b"", "is empty"),
    "file type": ("a.xlsx", "x", "unknown file type '.xlsx', expected .tsv, .csv"),
    "plain text": ("a.txt", "a b\n", "plain text with no labels"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_content_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    file_name, content, message = BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        read_table(write(tmp_path, file_name, content), needs_label=True)
    assert "\n" not in str(caught.value)


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(gzip.compress(b"text\tlabel\na b\t1\n" * 50)[:-9])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        read_table(str(path), needs_label=True)


def test_a_missing_file_is_answered_with_near_names_and_a_folder_with_its_files(tmp_path: Path) -> None:
    write(tmp_path, "train.tsv", "text\tlabel\na b\t1\n")
    with pytest.raises(FileNotFoundError, match=r"tran.tsv: does not exist. Did you mean train.tsv"):
        read_table(str(tmp_path / "tran.tsv"), needs_label=True)
    with pytest.raises(FileNotFoundError, match="nor does the folder"):
        read_table(str(tmp_path / "nowhere" / "train.tsv"), needs_label=True)
    with pytest.raises(ValueError, match=r"is a folder, expected a file. Name the file inside it: train.tsv"):
        read_table(str(tmp_path), needs_label=True)


def test_an_id_outside_the_hub_cache_is_refused_in_one_sentence_without_asking_the_hub() -> None:
    with pytest.raises(ValueError, match=r"nobody/nothing: is no file here.*hub cache \(--offline\)") as caught:
        read_table("nobody/nothing", offline=True, needs_label=True)
    assert "\n" not in str(caught.value)


def test_one_megabyte_lines_emoji_and_odd_separators_are_kept(tmp_path: Path) -> None:
    texts = ["x" * 1_000_000, "🙂 fine 👩‍👩‍👧", "one\u2028two\x85three\x0bfour", 'a "quoted" word', "\u00e9 e\u0301"]
    for name in ("a.tsv", "a.csv", "a.jsonl", "a.tsv.gz"):
        rows = [[text, "yes"] for text in texts]
        content = {
            "tsv": tsv(["text", "label"], *rows),
            "csv": csv_text(["text", "label"], *rows),
            "jsonl": "".join(json.dumps({"text": text, "label": "yes"}) + "\n" for text in texts),
        }[name.removesuffix(".gz").split(".")[1]]
        assert read_table(write(tmp_path, name, content), needs_label=True).texts == texts


def test_line_numbers_count_the_lines_of_quoted_fields(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text,label\n"one\ntwo\nthree",1\n\n ,1\n')
    with pytest.raises(ValueError, match="line 6: the column 'text' holds no text"):
        read_table(path, needs_label=True)


def test_byte_order_mark_and_windows_lines_leave_no_trace(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", b"\xef\xbb\xbfsentence\tlabel\r\na b\t1\r\nc d\t0\r\n")
    table = read_table(path, needs_label=True)
    assert (table.texts, table.labels, table.columns["text"]) == (["a b", "c d"], ["1", "0"], "sentence")


def test_semicolon_csv_and_fully_quoted_tsv_are_read(tmp_path: Path) -> None:
    semicolon = read_table(write(tmp_path, "a.csv", 'text;label\n"a; b";1\nc, d;0\n'), needs_label=True)
    assert semicolon.texts == ["a; b", "c, d"]
    quoted = read_table(write(tmp_path, "a.tsv", '"text"\t"label"\n"say ""hi"""\t"1"\n'), needs_label=True)
    assert quoted.texts == ['say "hi"']


def test_a_list_of_objects_is_read_like_lines(tmp_path: Path) -> None:
    rows = [{"text": "a b", "label": True}, {"text": "c d", "label": False}]
    listed = read_table(write(tmp_path, "a.json", json.dumps(rows, indent=2)), needs_label=True)
    lines = read_table(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))), needs_label=True)
    assert listed.labels == lines.labels == ["true", "false"]
    assert listed.sha256 == lines.sha256


def test_plain_text_is_one_text_per_line(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a.txt.gz", "one line\n\n12\nthree\tcells\n"), needs_label=False)
    assert (table.texts, table.pairs, table.labels) == (["one line", "12", "three\tcells"], None, None)


def test_scores_become_numbers_and_class_ids_stay_strings(tmp_path: Path) -> None:
    scores = read_table(write(tmp_path, "a.tsv", "text\tscore\na b\t5.000\nc d\t3.800\n"), needs_label=True)
    assert scores.labels == [5.0, 3.8]
    classes = read_table(write(tmp_path, "b.tsv", "text\tscore\na b\t5\nc d\t3\n"), needs_label=True)
    assert classes.labels == ["5", "3"]


def test_rows_without_agreement_are_left_out_and_noted(tmp_path: Path) -> None:
    content = "gold_label\tsentence1\tsentence2\nneutral\ta b\tc d\n-\te f\tg h\nentailment\ti j\tk l\n"
    table = read_table(write(tmp_path, "a.tsv", content), needs_label=True)
    assert (table.texts, table.labels) == (["a b", "i j"], ["neutral", "entailment"])
    assert "1 rows left out" in describe_rows(table)


def test_missing_labels_matter_only_where_labels_are_needed(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "text\tlabel\na b\t1\nc d\t\n")
    table = read_table(path, needs_label=False)
    assert table.labels is None and len(table) == 2
    assert "labels are not used because the column 'label' is empty at line 3" in describe_rows(table)
    with pytest.raises(ValueError, match="line 3: the label is missing"):
        read_table(path, columns=Columns(label="label"), needs_label=False)


def test_parquet_keeps_the_declared_class_names(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])},
    )
    rows = {"text": ["a b", "c d", "e f"], "label": [1, 0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "a.parquet"))
    table = read_table(str(tmp_path / "a.parquet"), needs_label=True)
    assert (table.labels, table.columns["label_names"]) == (["pos", "neg", "pos"], ["neg", "pos"])
    unlabelled = datasets.Dataset.from_dict(rows | {"label": [-1, -1, -1]}, features=features)
    unlabelled.to_parquet(str(tmp_path / "b.parquet"))
    with pytest.raises(ValueError, match="row 1: the label is missing"):
        read_table(str(tmp_path / "b.parquet"), needs_label=True)


def test_describe_shows_what_was_found(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "id\tsentence\tlabel\n1\ta b\tyes\n2\tc d\tno\n")
    expected = "2 rows; text column 'sentence'; label column 'label' (2 classes: no, yes); ignored: id"
    assert describe_rows(read_table(path, needs_label=True)) == f"{path}: {expected}"


def test_the_hash_is_of_the_content_not_of_the_file(tmp_path: Path) -> None:
    first = read_table(write(tmp_path, "a.tsv", "text\tlabel\na b\t1\n"), needs_label=True)
    second = read_table(write(tmp_path, "b.csv.gz", "label,text\n1,a b\n"), needs_label=True)
    third = read_table(write(tmp_path, "c.tsv", "text\tlabel\na b\t2\n"), needs_label=True)
    assert first.sha256 == second.sha256 != third.sha256


# Texts without what a line-based TSV cannot hold; a text is never only spaces.
plain = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r"), min_size=1, max_size=30).filter(str.strip)
anything = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(str.strip)
label = st.sampled_from(["yes", "no", "maybe so", "été"])


@relaxed
@given(rows=st.lists(st.tuples(plain, plain, label), min_size=1, max_size=8))
def test_tsv_round_trip(rows: list[tuple[str, str, str]], tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", tsv(["first words", "other words", "answer"], *map(list, rows)))
    table = read_table(path, columns=Columns("first words", "other words", "answer"), needs_label=True)
    assert list(zip(table.texts, table.pairs or [], table.labels or [], strict=True)) == rows


@relaxed
@given(rows=st.lists(st.tuples(anything, anything, label), min_size=1, max_size=8))
def test_csv_and_json_round_trip(rows: list[tuple[str, str, str]], tmp_path: Path) -> None:
    names = ["premise", "hypothesis", "label"]
    lines = "".join(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
    for path in (write(tmp_path, "a.csv.gz", csv_text(names, *map(list, rows))), write(tmp_path, "a.jsonl", lines)):
        table = read_table(path, columns=Columns(*names), needs_label=True)
        assert list(zip(table.texts, table.pairs or [], table.labels or [], strict=True)) == rows


fragments = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from([b"\n", b"\t", b",", b'"', b"text\tlabel\n", b"text,label\n", b'{"text": "a", "label": 1}\n']),
        st.sampled_from(
            [b"\r\n", b"[", b"{", b"}", b"\x00", b"\xef\xbb\xbf", b"1.5", b"nan", b"\x1f\x8b", b"PAR1", b";"]
        ),
    ),
    max_size=15,
).map(b"".join)


@settings(relaxed, max_examples=150)
@given(data=fragments, kind=st.sampled_from(["tsv", "csv", "jsonl", "json", "txt", "parquet"]), needs=st.booleans())
def test_garbage_gives_one_sentence_or_a_valid_table(data: bytes, kind: str, needs: bool, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(data)
    try:
        table = read_table(str(path), needs_label=needs)
    except ValueError as error:
        assert type(error) is Refused
        assert "\n" not in str(error) and str(path) in str(error)
    else:
        assert table.texts and all(text.strip() for text in table.texts)
        assert table.labels is None or len(table.labels) == len(table)
        assert table.labels is not None or not needs


@settings(relaxed, max_examples=20)
@given(data=st.binary(max_size=40))
def test_garbage_in_gzip_gives_one_sentence(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(b"\x1f\x8b\x08" + data)
    with pytest.raises(ValueError, match="gzip"):
        read_table(str(path), needs_label=False)
