"""Models and rows in memory, from end to end: the same run as on files, done once, never over what a run reads."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import tenmeg
from compressor.data.table import read_table
from compressor.refused import Refused
from compressor.report.verdict import NO_STUDENT
from compressor.scoring.registry import task_spec
from exporters.budget import OverBudget
from tenmeg.inputs import beside, read_inputs
from tests.support.runs import files_of
from tests.support.tiny import make_rows

TRAIN, DEV = make_rows(300, 0), make_rows(60, 1)
DECISIONS: dict[str, Any] = {"max_size": "90kB", "epochs": 1, "runs": 5, "baselines": False}


class Live(NamedTuple):
    model: Any
    tokenizer: Any


@pytest.fixture(scope="module")
def live(tiny_teacher_dir) -> Live:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_dir)
    return Live(model, AutoTokenizer.from_pretrained(tiny_teacher_dir))


@pytest.fixture(scope="module")
def done(live, tmp_path_factory):
    """One finished run of a model and rows in memory."""
    out = tmp_path_factory.mktemp("door") / "out"
    return tenmeg.compress(live.model, TRAIN, output=out, eval=DEV, tokenizer=live.tokenizer, **DECISIONS)


@pytest.fixture
def out(done, tmp_path) -> Path:
    """A copy of the run, with the inputs that it reads."""
    made = done.package_dir.parent
    shutil.copytree(made.with_name(".out.inputs"), tmp_path / ".out.inputs")
    return Path(shutil.copytree(made, tmp_path / "out"))


def again(live: Live, out: Path, rows: list[Any], **more: Any) -> list[str]:
    said: list[str] = []
    settings = {"eval": DEV, **DECISIONS, **more}
    tenmeg.compress(live.model, rows, output=out, tokenizer=live.tokenizer, echo=said.append, **settings)
    return [line for line in said if line.endswith(": done before")]


@pytest.fixture
def files(live, tmp_path) -> dict[str, Path]:
    """The same model and rows as a user would save them, with a tokenizer that was not called yet."""
    live.tokenizer._tokenizer.no_padding()
    live.tokenizer._tokenizer.no_truncation()
    live.model.save_pretrained(tmp_path / "teacher")
    live.tokenizer.save_pretrained(tmp_path / "teacher")
    for name, rows in (("train", TRAIN), ("eval", DEV)):
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"teacher": tmp_path / "teacher", "train": tmp_path / "train.jsonl", "eval": tmp_path / "eval.jsonl"}


def test_a_run_says_what_it_made_and_opens_it(done):
    assert done.violations == [] and done.report["status"] == "ok"
    assert done.package.predict("a wonderful film").label in ("negative", "positive")
    assert done.package is done.package
    assert done.archive_path.is_file() and done.package_dir.name == "package"
    assert done.lines()[0].startswith("package ")
    assert len(repr(done)) < 1000


def test_it_leaves_what_it_reads_beside_the_output_and_nothing_else(done):
    folder = done.package_dir.parents[1]
    assert {path.name for path in folder.iterdir()} == {"out", ".out.inputs"}
    (inputs,) = (folder / ".out.inputs").iterdir()
    assert {path.name for path in inputs.iterdir()} == {"teacher", "train.jsonl", "eval.jsonl"}
    assert tenmeg.Recipe.load(done.package_dir.parent / "recipe.toml").teacher.path == str(inputs / "teacher")


def test_the_same_call_does_nothing_again_however_the_tokenizer_was_called_since(live, out):
    live.tokenizer(["a film", "a much longer film"], padding=True, truncation=True, max_length=4)
    live.model.train()
    assert len(again(live, out, TRAIN)) == 9
    assert len(list(out.with_name(".out.inputs").iterdir())) == 1
    assert live.model.training


def test_the_same_model_and_rows_in_files_are_the_same_run(out, files):
    said: list[str] = []
    tenmeg.compress(files.pop("teacher"), **files, output=out, echo=said.append, **DECISIONS)
    assert sum(line.endswith(": done before") for line in said) == 9


@pytest.mark.slow
def test_a_run_on_the_same_files_makes_the_same_package_byte_for_byte(done, files, tmp_path):
    made = tenmeg.compress(files.pop("teacher"), **files, output=tmp_path / "other", **DECISIONS)
    assert files_of(made.package_dir) == files_of(done.package_dir)
    assert made.archive_path.read_bytes() == done.archive_path.read_bytes()


def test_changed_rows_are_refused_and_the_run_keeps_its_own(live, out):
    before = files_of(out.parent)
    rows = [(f"{TRAIN[0][0]} indeed", TRAIN[0][1]), *TRAIN[1:]]
    with pytest.raises(FileExistsError, match="holds a run of another recipe"):
        again(live, out, rows)
    with pytest.raises(OverBudget):  # found before anything is removed
        again(live, out, rows, max_size="2kB", overwrite=True)
    assert files_of(out.parent) == before


def test_a_changed_model_is_refused(live, out, tiny_teacher_dir):
    other = type(live.model).from_pretrained(tiny_teacher_dir)
    other.classifier.bias.data += 0.5
    with pytest.raises(FileExistsError, match="holds a run of another recipe"):
        again(Live(other, live.tokenizer), out, TRAIN)


def test_what_was_refused_leaves_nothing(live, tmp_path):
    with pytest.raises(OverBudget):
        again(live, tmp_path / "out", TRAIN, max_size="2kB")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_inputs_that_no_run_reads_is_removed(tmp_path):
    first, second = (read_inputs({}, None, {"train": rows}) for rows in (TRAIN, DEV))
    with beside(first, tmp_path / "out", lambda _name: True) as names:
        kept = Path(names["train"])
    assert kept.is_file() and json.loads(kept.read_text(encoding="utf-8").splitlines()[0])["text"] == TRAIN[0][0]
    with beside(second, tmp_path / "out", lambda name: name == kept.parent.name) as names:
        assert Path(names["train"]).is_file() and kept.is_file()
    assert list((tmp_path / ".out.inputs").iterdir()) == [kept.parent]
    (tmp_path / ".out.inputs" / "notes.txt").write_text("mine")
    with beside(first, tmp_path / "out", lambda _name: False):
        pass
    assert files_of(tmp_path) == {".out.inputs/notes.txt": b"mine"}


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (["a dull film", "a fine film\nof two lines"], ("text", None, None)),
        ([("a dull film", "bad"), ("a fine film", "good")], ("text", None, ["bad", "good"])),
        ([("a dull film", "a bad one", 0.5), ("a fine film", "a good one", 1)], ("text1", "text2", [0.5, 1.0])),
        ([("a dull film", "a bad one", None), ("a fine film", "a good one", None)], ("text1", "text2", None)),
        ([{"sentence": "a dull film", "label": True}, {"sentence": "a fine film", "label": False}],
         ("sentence", None, ["true", "false"])),
    ],
)  # fmt: skip
def test_each_shape_of_rows_is_read_as_what_it_is(rows, found, tmp_path):
    names = read_inputs({}, None, {"train": rows}).written(tmp_path)
    table = read_table(names["train"], needs_label=found[2] is not None)
    assert (table.columns["text"], table.columns["pair"], table.labels) == found
    firsts = [next(iter(row.values())) if isinstance(row, dict) else row[0] for row in rows if not isinstance(row, str)]
    assert table.texts == (firsts or rows)


@pytest.mark.parametrize(
    ("rows", "pair"),
    [
        ([("a dull film", ["plot"]), ("a fine film", ("music", "plot")), ("a film", [])], None),
        ([("a dull film", "so", ["plot"]), ("a fine film", "so", ["music", "plot"]), ("a film", "so", [])], "text2"),
        ([("a dull film", [1]), ("a fine film", [0, np.int64(1)]), ("a film", [])], None),
        ([{"text": "a dull film", "labels": ["plot"]}, {"text": "a fine film", "labels": ["music", "plot"]},
          {"text": "a film", "labels": []}], None),
    ],
)  # fmt: skip
def test_a_list_in_every_row_is_any_number_of_labels(rows, pair, tmp_path):
    names = read_inputs({}, None, {"train": rows}).written(tmp_path)
    table = read_table(names["train"], needs_label=True, several=("music", "plot"))
    found = task_spec("multi_label", ("music", "plot"), pair=False).targets(table)
    assert np.array_equal(found, [[0, 1], [1, 1], [0, 0]]) and table.columns["pair"] == pair


def test_transformers_is_as_talkative_afterwards_as_before(live, out):
    from transformers.utils import logging

    had_bars = logging.is_progress_bar_enabled()  # not after a run from the command line in this process
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    try:
        again(live, out, TRAIN)
        assert logging.get_verbosity() == logging.INFO and logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity_warning()
        if not had_bars:
            logging.disable_progress_bar()


def test_a_plan_is_made_of_the_same_arguments_and_can_be_run(live, tiny_rows):
    planned = tenmeg.plan(live.model, TRAIN, eval=DEV, tokenizer=live.tokenizer, **DECISIONS)
    assert planned.choice.n_bytes <= 90_000 and planned.n_steps > 0
    same = tenmeg.plan(recipe=planned.resolved)
    assert same.digest == planned.digest
    narrower = tenmeg.plan(recipe=planned.resolved, ffn=32, train=str(tiny_rows.train))
    assert narrower.shape.ffn == 32 and narrower.train.source == str(tiny_rows.train)


def test_a_recipe_object_says_no_more_than_its_author(tiny_teacher_dir, tiny_rows, given_vocabulary):
    recipe = tenmeg.Recipe(teacher={"path": str(tiny_teacher_dir)}, data={"train": str(tiny_rows.train)})
    planned = tenmeg.plan(recipe=recipe, vocab_from=given_vocabulary)  # beside [vocab] rule it would be refused
    assert planned.vocabulary is not None
    assert tenmeg.plan(tiny_teacher_dir, tiny_rows.train, vocab_from=given_vocabulary).digest == planned.digest


@pytest.fixture
def given_vocabulary(tiny_teacher_dir, tmp_path) -> Path:
    folder = tmp_path / "vocabulary"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_teacher_dir / name, folder / name)
    return folder


def test_verify_takes_rows_and_a_teacher_in_memory(done, live):
    told = tenmeg.verify(done.package_dir, eval=DEV, teacher=live.model, tokenizer=live.tokenizer, max_size="1kB")
    assert told["rows"] == 60 and 0 <= told["accuracy"] <= 1 and told["vocabulary"]["words"] > 0
    assert [sentence.partition(":")[0] for sentence in told["violations"]] == ["size"]
    known = tenmeg.verify(done.package_dir, eval=DEV, max_drop=100)  # the very rows that the package was scored on
    assert known["violations"] == [] and known["teacher"] == told["teacher"]


def test_load_opens_what_compress_made(done):
    package = tenmeg.load(done.package_dir)
    assert np.array_equal(package.outputs(["a dull film"]), done.package.outputs(["a dull film"]))


def test_export_takes_a_model_in_memory_and_leaves_only_its_output(live, tmp_path):
    told = tenmeg.export(live.model, tmp_path / "out", tokenizer=live.tokenizer, eval=DEV, quantize="int8")
    assert told["violations"] == [] and (tmp_path / "out" / "model_quantized.onnx").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(FileExistsError, match="is not empty"):
        tenmeg.export(live.model, tmp_path / "out", tokenizer=live.tokenizer)


def test_finetune_and_compress_take_lists_of_labels(live, tmp_path):
    topics = ("film", "movie", "plot")
    rows, more = ([(text, [name for name in topics if name in text]) for text, _ in each] for each in (TRAIN, DEV))
    with pytest.raises(Refused, match=r"train, line 1: the column 'label' holds a list, expected one label"):
        tenmeg.finetune(live.model, rows, output=tmp_path / "made", tokenizer=live.tokenizer, epochs=1)
    settings = {"eval": more, "task": "multi_label", "epochs": 1}
    told = tenmeg.finetune(live.model, rows, output=tmp_path / "made", tokenizer=live.tokenizer, **settings)
    assert told["labels"] == list(topics) and {"micro_f1", "macro_f1", "exact_match"} <= set(told)
    assert {"micro_f1", "bytes"} <= set(told["tfidf"])
    planned = tenmeg.plan(tmp_path / "made", rows, eval=more, **DECISIONS)
    assert planned.spec.kind == "multi_label" and len(planned.held_out) == 30
    with pytest.raises(Refused, match=r"the label 'plto' of row 1 is unknown .* Did you mean 'plot'\?"):
        tenmeg.plan(tmp_path / "made", [("a film", ["plto"]), *rows], eval=more, **DECISIONS)


def test_finetune_makes_a_teacher_of_a_model_and_rows_in_memory(live, tmp_path):
    before = {name: weight.clone() for name, weight in live.model.state_dict().items()}
    told = tenmeg.finetune(live.model, TRAIN, output=tmp_path / "made", eval=DEV, tokenizer=live.tokenizer, epochs=1)
    assert told["labels"] == ["0", "1"] and told["rows"] == {"train": 300, "held_out": 0, "eval": 60}
    assert told["tfidf"] == {"accuracy": 1.0, "f1": 1.0, "bytes": told["tfidf"]["bytes"]}
    assert told["verdict"] == ([NO_STUDENT] if told["accuracy"] < 1 else [])
    kept = json.loads((tmp_path / "made" / "finetune.json").read_text(encoding="utf-8"))
    assert (kept["tfidf"], kept["verdict"]) == (told["tfidf"], told["verdict"])
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert all(weight.equal(before[name]) for name, weight in live.model.state_dict().items())
    with pytest.raises(FileExistsError, match="exists already"):
        tenmeg.finetune(live.model, TRAIN, output=tmp_path / "made", tokenizer=live.tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
