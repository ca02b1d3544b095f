"""Bad input from Python is one sentence that says what to do, before anything is written."""

import re
from pathlib import Path

import numpy as np
import pytest

import tenmeg
from compressor.refused import Refused
from tenmeg.rows import row_lines

ROWS = [("a dull film", 0), ("a fine film", 1)]


class SentenceTransformer:
    """Of another library, which is told by the name of its class."""


@pytest.fixture
def model():
    from transformers import BertForSequenceClassification

    from tests.support.tiny import tiny_config

    return BertForSequenceClassification(tiny_config(300))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(*arguments, **keywords) -> str:
    with pytest.raises((Refused, FileNotFoundError)) as caught:
        tenmeg.compress(*arguments, **{"output": "out", **keywords})
    assert not list(Path().iterdir())
    return str(caught.value)


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"max_sise": "7MB"}, "compress: unknown keyword 'max_sise'. Did you mean 'max_size'? Known: allow_pickle, "),
        ({"dry_run": True}, "compress: unknown keyword 'dry_run'. Call tenmeg.plan instead."),
        ({"layers": 0}, "compress: layers=0: 0 is not in the range x>=1. Layers of the student."),
        ({"layers": 4.5}, "compress: layers=4.5: '4.5' is not a valid integer range."),
        ({"layers": True}, "compress: layers=True: got a bool, expected a text or a number."),
        ({"quantize": "int3"}, "compress: quantize='int3': 'int3' is not one of 'auto', 'int8', 'int4', 'none'."),
        ({"epochs": "two"}, "compress: epochs='two': 'two' is not a valid float."),
        ({"offline": "yes"}, "compress: offline='yes': expected True or False."),
        ({"option": {"temperature": {"a": 1}}}, "expected numbers, texts, truth values or lists of them as options."),
        ({"option": "temperature"}, "--option temperature: expected KEY=VALUE"),
        ({"method": "distil"}, "Did you mean 'distill'?"),
        ({"max_size": "big"}, "size: got 'big', expected a positive number with a unit."),
        ({"recipe": 3}, "recipe: got a int, expected a name, a .toml file or a tenmeg.Recipe."),
        ({"recipe": "classification-dul"}, "Did you mean 'classification-dual'?"),
        ({"recipe": "no.toml"}, "recipe: no.toml does not exist."),
        ({"tokenizer": "t"}, "tokenizer: a teacher by name brings its own. Leave out tokenizer=, or give the model"),
    ],
)
def test_a_wrong_keyword(keywords, sentence):
    assert sentence in refusal("teacher", "train.tsv", **keywords)


def test_a_teacher_and_rows_are_needed_from_somewhere():
    assert refusal(None, "f.tsv") == "compress: there is no teacher. Give teacher=, or a recipe= that names one."
    assert refusal("teacher") == "compress: there is no train. Give train=, or a recipe= that names one."
    with pytest.raises(Refused, match=re.escape("plan: there is no teacher.")):
        tenmeg.plan(recipe="classification-dual", train="f.tsv")


def test_a_model_without_its_tokenizer_and_the_reverse(model):
    assert refusal(model, ROWS) == (
        "teacher: a BertForSequenceClassification comes without a tokenizer. Give its own as tokenizer=."
    )
    assert "tokenizer: got a str, expected a transformers tokenizer." in refusal(model, ROWS, tokenizer="bert")
    assert "tokenizer: there is no teacher that it is of." in refusal(None, ROWS, tokenizer="bert")


def test_something_that_is_no_model(model):
    asked = "expected a folder, a hub id or a transformers model."
    assert refusal(42, ROWS) == f"teacher: got a int, {asked} Save it to a folder and give that."
    assert f"teacher: got a type, {asked}" in refusal(type(model), ROWS)
    assert "Save it with its save_pretrained, and give the folder." in refusal(SentenceTransformer(), ROWS)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "train: the list is empty, expected rows."),
        ([*ROWS, ("a film",)], "train: row 3 (train[2]) is ('a film',) (tuple), expected a text, (text, label),"),
        ([*ROWS, "a film"], "train: row 3 (train[2]) is 'a film' (str), row 1 is ('a dull film', 0) (tuple)."),
        ([*ROWS, ("a", "b", 1)], "Give all rows in one shape."),
        ([*ROWS, ("a film", None)], "train: row 3 (train[2]) has no label (None), row 1 has one."),
        ([("a", None), ("b", 1)], "train: row 2 (train[1]) has a label, row 1 has none. Give every row a label, or"),
        ([(0, "a dull film")], "train: row 1 (train[0]) holds 0 (int) where a text belongs."),
        ([*ROWS, (" ", 1)], "train: row 3 (train[2]) holds ' ' (str) where a text belongs."),
        ([*ROWS, ("a film", [1])], "train: row 3 (train[2]) has [1] (list) as its label, row 1 has one label."),
        ([*ROWS, ("a film", {1})], "has {1} (set) as its label, expected a text, a number or, in every row, a list of"),
        ([*ROWS, ("a film", float("nan"))], "has nan (float) as its label"),
        ([("a film", []), ("b", "joy")], "train: row 2 (train[1]) has 'joy' (str) as its label, row 1 has a list of"),
        ([("a film", ["joy"]), ("b", None)], "train: row 2 (train[1]) has no label (None), row 1 has one."),
        ([("a film", {"joy"})], "train: row 1 (train[0]) has {'joy'} (set) as its label, expected a text, a number"),
        ([("a film", ["joy", None])], "has None (NoneType) in its list of labels, expected names or ids. Correct it."),
        ([("a film", ["joy", " "])], "has ' ' (str) in its list of labels, expected names or ids."),
        ([("a film", [["joy"]])], "has ['joy'] (list) in its list of labels, expected names or ids."),
        ([("a film", [0.5])], "has 0.5 (float) in its list of labels, expected names or ids."),
        ([("a film", [True, False])], "has True (bool) in its list of labels, expected names or ids."),
        ([("a film", ["\ud83d"])], "train: row 1 (train[0]) holds half a surrogate pair."),
        ([*ROWS, ("a \ud83d film", 1)], "train: row 3 (train[2]) holds half a surrogate pair."),
        ([{"text": "a", "label": 1}, {"text": "b"}], "train: row 2 (train[1]) lacks 'label', which row 1 has."),
        ([{"text": "a"}, {"text": "b", "label": 1}], "train: row 2 (train[1]) has 'label', which row 1 has not."),
        ([{"text": "a", "label": {1}}], "train: row 1 (train[0]) holds {1} (set) in 'label', expected what JSON can"),
        ([{}], "train: row 1 (train[0]) is {} (dict), expected"),
        ([*ROWS, None], "train: row 3 (train[2]) is None (NoneType), expected"),
        (iter(ROWS), "train: got a list_iterator, expected a path, a hub id or a list of rows."),
        (np.array([1]), "train: got a ndarray, expected a path, a hub id or a list of rows."),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_read(rows, sentence):
    said = refusal("teacher", rows)
    assert sentence in said and said.endswith(".") and "\n" not in said


def test_what_the_reader_finds_later_names_the_row_and_no_file(tiny_teacher_dir):
    rows = [{"text": "a dull film", "label": 0}, {"text": "", "label": 1}]
    assert refusal(tiny_teacher_dir, rows).startswith("train, line 2: the column 'text' holds no text.")
    said = refusal(tiny_teacher_dir, [*ROWS * 10, ("a film", "odd")], eval=ROWS)
    assert said.startswith("train: the label 'odd' of row 21 is unknown to the teacher")


def test_rows_become_lines_that_say_the_same():
    assert row_lines("train", ["a"]) == ['{"text": "a"}']
    assert row_lines("train", [("ä", np.int64(1)), ["b", np.int64(0)]])[0] == '{"text": "ä", "label": 1}'
    assert row_lines("train", [("a", "b", 0.5)]) == ['{"text1": "a", "text2": "b", "label": 0.5}']
    assert row_lines("train", [("a", "b", None)]) == ['{"text1": "a", "text2": "b"}']
    several = row_lines("train", [("a", ["joy", "ä"]), ("b", ()), ("c", (np.int64(1),))])
    assert [line.partition(", ")[2] for line in several] == ['"label": ["joy", "ä"]}', '"label": []}', '"label": [1]}']
    assert row_lines("train", [("a", "b", ["joy"])]) == ['{"text1": "a", "text2": "b", "label": ["joy"]}']
    assert row_lines("train", [{"x": 1, "y": None}, {"y": 2, "x": 3}])[1] == '{"x": 3, "y": 2}'


def test_keywords_are_read_as_flags_are():
    from tenmeg.decisions import flag_values

    read = flag_values("compress", {
        "layers": np.int64(4), "epochs": 2, "embedding_bits": 8, "baselines": False, "method": "distill", "seed": None,
        "repeat": [0, 1], "option": {"temperature": 2, "loss": "patient", "layers": [1, 2]}, "vocab_from": Path("v"),
    })  # fmt: skip
    assert read == {
        "layers": 4, "epochs": 2.0, "embedding_bits": 8, "baselines": False, "method": ("distill",), "repeat": [0, 1],
        "option": ("temperature=2", 'loss="patient"', "layers=[\n    1,\n    2,\n]"), "vocab_from": "v",
    }  # fmt: skip


def test_other_functions_refuse_alike(model, here):
    with pytest.raises(Refused, match=r"verify: unknown keyword 'max_drops'\. Did you mean 'max_drop'\?"):
        tenmeg.verify("package", max_drops=1)
    with pytest.raises(Refused, match="model: a BertForSequenceClassification comes without a tokenizer"):
        tenmeg.export(model, "out")
    with pytest.raises(Refused, match="finetune: unknown keyword 'layers'"):
        tenmeg.finetune("model", ROWS, output="out", layers=2)
    with pytest.raises(ValueError, match="package: nowhere is not a folder"):
        tenmeg.verify("nowhere")
    with pytest.raises(ValueError, match="package: nowhere is not a folder"):
        tenmeg.load("nowhere")
    assert not list(here.iterdir())
