"""Several labels a row: three ways to write them are read alike, and what is none of them is refused with its row."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.data.columns import Columns
from compressor.data.splits import split_holdout
from compressor.data.table import Table, describe_rows, read_table

KNOWN = ("anger", "joy", "great surprise")
ROWS = [("what a day", ["joy", "great surprise"]), ("no", ["anger"]), ("well", []), ("hm hm", ["anger", "joy"])]


def read(path: Path, known: tuple[str, ...] = KNOWN, label: str | None = None, **more: bool) -> Table:
    columns = Columns(label=label)
    return read_table(str(path), columns=columns, needs_label=more.pop("needs_label", True), several=known, **more)


def write(folder: Path, name: str, lines: list[str]) -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def switched(labels: list[str], on: str = "1", off: str = "0") -> list[str]:
    return [on if name in labels else off for name in KNOWN]


def test_lists_texts_and_columns_of_0_and_1_are_the_same_rows(tmp_path: Path) -> None:
    files = [
        write(tmp_path, "a.jsonl", [json.dumps({"text": text, "labels": labels}) for text, labels in ROWS]),
        write(tmp_path, "a.tsv", ["text\tlabels", *(f"{text}\t{'|'.join(labels)}" for text, labels in ROWS)]),
        write(tmp_path, "b.tsv", ["text\temotion", *(f"{text}\t{'; '.join(labels)}" for text, labels in ROWS)]),
        write(tmp_path, "a.csv", ["text,labels", *(f'{text},"{", ".join(labels)}"' for text, labels in ROWS)]),
        write(tmp_path, "b.csv", ["text,labels", *(f'{text},"{labels}"' for text, labels in ROWS)]),
        write(
            tmp_path,
            "c.tsv",
            ["text\tid\tlabels", *(f"{t}\t{n}\t{json.dumps(each)}" for n, (t, each) in enumerate(ROWS))],
        ),
    ]
    for path in files:
        assert [set(labels) for labels in read(path).labels or []] == [set(labels) for _, labels in ROWS], path.name
    for number, (on, off) in enumerate((("1", "0"), ("True", "False"), ("1.0", "0.0"))):
        lines = ["\t".join(["text", *KNOWN]), *("\t".join([text, *switched(labels, on, off)]) for text, labels in ROWS)]
        found = read(write(tmp_path, f"{number}-switches.tsv", lines))
        assert [set(labels) for labels in found.labels or []] == [set(labels) for _, labels in ROWS]
        assert found.columns["label"] == "anger, joy, great surprise" and found.columns["ignored"] == []


def test_a_parquet_file_may_hold_lists_of_names_or_of_ids(tmp_path: Path) -> None:
    import datasets

    ids = [[KNOWN.index(label) for label in labels] for _, labels in ROWS]
    features = datasets.Features(
        {"text": datasets.Value("string"), "labels": datasets.List(datasets.ClassLabel(names=list(KNOWN)))}
    )
    content = {"text": [text for text, _ in ROWS], "labels": ids}
    datasets.Dataset.from_dict(content, features=features).to_parquet(tmp_path / "ids.parquet")
    datasets.Dataset.from_dict({**content, "labels": [labels for _, labels in ROWS]}).to_parquet(tmp_path / "n.parquet")
    for name in ("ids.parquet", "n.parquet"):
        assert read(tmp_path / name).labels == [tuple(labels) for _, labels in ROWS]


def test_columns_of_0_and_1_are_found_without_knowing_the_labels(tmp_path: Path) -> None:
    lines = ["text,id,joy,anger", "what a day,1,1,0", "no,0,0,1", "well,1,0,0"]
    found = read(write(tmp_path, "a.csv", lines), ())
    assert found.labels == [("joy",), ("anger",), ()]
    assert found.columns["ignored"] == ["id"]
    lines = ["text,joy,anger,seen", "what a day,1,0,1", "no,0,1,1"]
    found = read(write(tmp_path, "b.csv", lines), (), "joy, anger")
    assert found.labels == [("joy",), ("anger",)] and found.columns["how"] == {"text": "name", "label": "flag"}


def test_a_separator_inside_a_known_label_separates_nothing(tmp_path: Path) -> None:
    known = ("food, drink", "travel")
    path = write(tmp_path, "a.jsonl", [json.dumps({"text": "a", "labels": "food, drink; travel"}),
                                       json.dumps({"text": "b", "labels": "food, drink"})])  # fmt: skip
    assert read(path, known).labels == [("food, drink", "travel"), ("food, drink",)]


def test_a_label_that_comes_twice_in_a_row_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", ["text\tlabels", "a\tjoy|joy|anger", "b\tjoy|"])
    assert read(path).labels == [("joy", "anger"), ("joy",)]


def test_the_line_that_describes_rows_counts_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", ["text\tlabels", "a\tjoy|anger", "b\t", "c\tjoy"])
    line = describe_rows(read(path))
    assert "label column 'labels' (1.00 of 2 labels a row, 1 rows without: anger, joy)" in line


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["joy", "anger", "calm"]), max_size=3, unique=True), min_size=1, max_size=20))
def test_what_is_written_with_any_separator_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, labels: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    for number, separator in enumerate(("|", ";", ",", " | ")):
        lines = ["text\tlabels", *(f"text {n}\t{separator.join(each)}" for n, each in enumerate(labels))]
        found = read(write(folder, f"{number}.tsv", lines), ("joy", "anger", "calm"), needs_label=False)
        assert found.labels == [tuple(each) for each in labels]


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("a.jsonl", ['{"text": "a", "labels": ["joy"]}', '{"text": "b", "labels": null}'],
         r"a.jsonl, line 2: the label is missing \(column 'labels'\)\. Write \[\] for a row without a label"),
        ("a.jsonl", ['{"text": "a", "labels": ["joy", null]}'], r"line 1: the list in column 'labels' holds None"),
        ("a.jsonl", ['{"text": "a", "labels": [["joy"]]}'], r"holds \['joy'\] \(list\), expected names of labels"),
        ("a.jsonl", ['{"text": "a", "labels": {"joy": 1}}'], r"holds \{'joy': 1\} \(dict\), expected a list of labels"),
        ("a.jsonl", ['{"text": "a", "labels": ["joy", ""]}'], r"holds '' \(str\), expected names of labels"),
        ("a.tsv", ["text\tlabels", "a\t[joy, anger]"], r"line 2: .* begins like a list and is none\. Write it as JSON"),
        ("a.tsv", ["text\tlabels", "a\t[{[]: 1}]"], r"line 2: .* begins like a list and is none\. Write it as JSON"),
        ("a.tsv", ["text\tlabels", f"a\t{'[' * 50_000}{']' * 50_000}"], r"line 2: .* begins like a list and is none"),
        ("a.tsv", ["text\tlabels", "a\tjoy", "b\tnan"], r"line 3: the label is 'nan'"),
        ("a.tsv", ["text\tlabels", "a\t", "b\t"], r"a.tsv: no row has a label \(column 'labels'\)"),
        ("a.tsv", ["text\tanger\tjoy\tgreat surprise", "a\t1\t0\t1", "b\t1\t2\t0"],
         r"line 3: the column 'joy' holds '2' \(str\), expected 0 or 1"),
        ("a.tsv", ["text\tanger\tjoy", "a\t1\t0"], r"columns for 2 of the 3 labels and none for 'great surprise'"),
    ],
)  # fmt: skip
def test_what_is_no_labels_is_refused_with_its_row(tmp_path: Path, name: str, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path, name, lines))


def test_many_labels_in_the_column_called_labels_are_no_text(tmp_path: Path) -> None:
    many = [f"kind {number}" for number in range(20)]
    for name, lines in (
        ("a.jsonl", [json.dumps({"text": f"a film of {number}", "labels": many}) for number in range(5)]),
        ("a.tsv", ["text\tlabels", *(f"a film of {number}\t{' | '.join(many)}" for number in range(5))]),
    ):
        assert read(write(tmp_path, name, lines), ()).labels == [tuple(many)] * 5


def test_a_flag_that_names_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", ["text,joy,anger", "a,1,0"])
    with pytest.raises(ValueError, match=r"--label-column names 'joy' twice\. Name every column once"):
        read(path, (), "joy,joy")
    with pytest.raises(ValueError, match=r"names 'text' among others, which holds 'a' \(str\), expected 0 and 1"):
        read(path, (), "joy,text")
    with pytest.raises(ValueError, match=r"--label-column 'angr' is not a column\. Did you mean 'anger'\?"):
        read(path, (), "joy,angr")


def test_a_list_where_one_label_is_expected_says_what_takes_several(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", ['{"text": "a", "label": ["joy", "anger"]}'])
    with pytest.raises(ValueError, match=r"holds a list, expected one label \(several need a model of 'tenmeg"):
        read_table(str(path), needs_label=True)


def test_a_column_that_is_called_labels_goes_before_columns_of_0_and_1(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", ["text\tlabels\tis_reply\thas_link", "a\tjoy|anger\t0\t1", "b\tjoy\t1\t1"])
    found = read(path, ())
    assert found.labels == [("joy", "anger"), ("joy",)] and found.columns["ignored"] == ["is_reply", "has_link"]


def test_columns_that_are_named_must_be_those_of_all_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", ["text\tanger\tjoy\tgreat surprise", "a\t1\t0\t1"])
    with pytest.raises(ValueError, match=r"columns for 2 of the 3 labels and none for 'great surprise'"):
        read(path, KNOWN, "anger,joy")


def test_a_command_that_needs_texts_alone_reads_no_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", ['{"text": "a", "labels": ["joy"]}', '{"text": "b", "labels": null}'])
    assert read_table(str(path), needs_label=None).labels is None


def test_lists_of_0_and_1_are_those_of_the_known_labels(tmp_path: Path) -> None:
    for number, (on, off) in enumerate(((1, 0), (1.0, 0.0), (True, False))):
        rows = [{"text": text, "labels": [on if name in labels else off for name in KNOWN]} for text, labels in ROWS]
        path = write(tmp_path, f"{number}.jsonl", [json.dumps(row) for row in rows])
        assert [set(labels) for labels in read(path).labels or []] == [set(labels) for _, labels in ROWS]
        for known in ((), KNOWN[:2]):
            with pytest.raises(ValueError, match=r"holds lists of 3 numbers 0 and 1, expected names of labels"):
                read(path, known)


def test_a_text_of_an_array_without_commas_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", ["text,labels", "a,['joy' 'anger']", "b,['joy']"])
    with pytest.raises(ValueError, match="begins like a list and is none"):
        read(path, ())


def test_one_column_of_0_and_1_is_no_column_of_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", ["text,toxic", "a,1", "b,0", "c,1"])
    with pytest.raises(ValueError, match=r"the column 'toxic' holds 0 and 1 only, expected the labels of a row"):
        read(path, (), "toxic")


def test_the_column_called_labels_goes_before_columns_of_the_known_labels(tmp_path: Path) -> None:
    path = write(
        tmp_path, "a.tsv", ["text\tlabels\tanger\tjoy\tgreat surprise", "a\tjoy\t1\t0\t1", "b\tanger\t0\t1\t0"]
    )
    assert read(path).labels == [("joy",), ("anger",)]


def test_rows_that_are_held_out_leave_a_row_of_every_label(tmp_path: Path) -> None:
    rows = [("common",)] * 60 + [("common", f"rare {number}") for number in range(20)]
    made = write(tmp_path, "a.jsonl", [json.dumps({"text": f"t{n}", "labels": each}) for n, each in enumerate(rows)])
    train, held = split_holdout(read(made, ()), 0.3, 0)
    assert {label for labels in train.labels or [] for label in labels} == {label for each in rows for label in each}
    assert 15 <= len(held) <= 24
