"""Whole runs with a teacher that reads two vocabularies, and what is refused before the first of their steps."""

import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from compressor.recipe import recipe as recipes
from compressor.recipe.recipe import Recipe
from compressor.run.compress import Outcome, compress
from compressor.run.planning.plan import plan
from edge_demo import runtime
from tests.support.method_cases import MODEL_TYPES, tiny_config, tiny_model
from tests.support.runs import files_of, make_recipe, pair_rows, write_table

MIXED = {"method": "mixed_vocabulary", "epochs": 2, "batch_size": 16}
TWO_STAGES = [MIXED, {"method": "distill", "epochs": 2}]
METHODS = ("mixed_vocabulary", "dual_training")


@pytest.fixture
def make(tiny_teacher_dir, tiny_rows):
    """A recipe on the tiny teacher with the given stages."""

    def made(stages: list[dict[str, Any]], **more: Any) -> Recipe:
        return make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=stages, **more)

    return made


def check_package(outcome: Outcome, stages: list[str]) -> None:
    assert [stage["method"] for stage in outcome.report["training"]] == stages
    package = runtime.load(outcome.package_dir)
    assert package.predict("a wonderful film").label in ("negative", "positive")
    assert outcome.report["parity"][0]["step"] == "torch to ONNX"


def hashes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.slow
def test_embeddings_are_learned_in_the_teacher_and_then_layers_on_top_of_them(make, tiny_teacher_dir, tmp_path):
    before = hashes(tiny_teacher_dir)
    outcome = compress(make(TWO_STAGES, student={"hidden": 16, "heads": 2}), tmp_path / "out")
    check_package(outcome, ["mixed_vocabulary", "distill"])
    assert hashes(tiny_teacher_dir) == before
    steps = tmp_path / "out" / "steps"
    student, first = (
        load_file(steps / name / "model" / "model.safetensors") for name in ("student", "train-1-mixed_vocabulary")
    )
    changed = [name for name in student if not torch.equal(student[name], first[name])]
    assert changed == ["bert.embeddings.word_embeddings.weight"]
    log = outcome.report["training"][0]["log"]
    assert {"loss_teacher_logits", "loss_teacher_hidden"} <= set(log[0])
    assert not any("eval_accuracy" in line for line in log)  # the student's layers have learned nothing yet
    assert any("eval_accuracy" in line for line in outcome.report["training"][1]["log"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"projection": "up", "labels": 1.0, "teacher_labels": 1.0}, {"every": 2, "attention": 1.0}]
)
def test_teacher_and_student_are_trained_together(options, make, tmp_path):
    stage = {"method": "dual_training", "epochs": 2, "options": options}
    outcome = compress(make([stage], student={"init": "embeddings"}), tmp_path / "out")
    check_package(outcome, ["dual_training"])
    log = outcome.report["training"][0]["log"]
    assert any("eval_accuracy" in line for line in log)
    assert any("norm_" in key for key in log[0]) and "loss_projection" in log[0]
    assert log[0]["loss"] == pytest.approx(sum(value for key, value in log[0].items() if key.startswith("loss_")))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_an_encoder_learns_from_hidden_words_and_then_from_the_teacher(method, tiny_encoder_dir, tmp_path):
    rows = [(a, b, index % 6 / 2) for index, (a, b) in enumerate(pair_rows(150, 5))]
    train = write_table(tmp_path / "train.tsv", ["sentence1", "sentence2", "score"], rows[:100])
    dev = write_table(tmp_path / "dev.tsv", ["sentence1", "sentence2", "score"], rows[100:])
    stages = [{"method": method, "epochs": 1, "options": {"objective": "mlm"}}, {"method": "distill", "epochs": 1}]
    outcome = compress(make_recipe(tiny_encoder_dir, train, dev, stage=stages), tmp_path / "out")
    assert "loss_teacher_mlm" in outcome.report["training"][0]["log"][0]
    embedding = runtime.load(outcome.package_dir).predict("a wonderful film").embedding
    assert float((embedding**2).sum()) == pytest.approx(1, abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_pair_task_with_texts_longer_than_the_teacher_reads(method, tiny_teacher_dir, tmp_path):
    rows = [(f"{a} {b} " * 4, b, index % 2) for index, (a, b) in enumerate(pair_rows(120, 3))]
    train = write_table(tmp_path / "train.tsv", ["sentence1", "sentence2", "label"], rows[:90])
    dev = write_table(tmp_path / "dev.tsv", ["sentence1", "sentence2", "label"], rows[90:])
    stages = [{"method": method, "epochs": 1}]
    outcome = compress(make_recipe(tiny_teacher_dir, train, dev, stage=stages), tmp_path / "out")
    assert runtime.load(outcome.package_dir).predict("a film", "the film").label in ("negative", "positive")


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_family_from_end_to_end(model_type, tiny_teacher_dir, tiny_rows, tmp_path):
    teacher = tmp_path / "teacher"
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_dir)
    tiny_model(tiny_config(model_type, len(tokenizer), 32, 2, 2)).save_pretrained(teacher)
    tokenizer.save_pretrained(teacher)
    stages = [{**MIXED, "epochs": 1}, {"method": "dual_training", "epochs": 1}]
    recipe = make_recipe(teacher, tiny_rows.train, tiny_rows.dev, stage=stages, student={"hidden": 16, "heads": 2})
    outcome = compress(recipe, tmp_path / "out")
    assert runtime.load(outcome.package_dir).predict("a wonderful film").label in ("LABEL_0", "LABEL_1")


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["train-1-mixed_vocabulary", "train-2-dual_training"])
def test_a_killed_stage_goes_on_and_makes_the_same_package(killed, make, tmp_path, caplog):
    stages = [{**MIXED, "epochs": 3}, {"method": "dual_training", "epochs": 2, "options": {"mix_ramp": 0.5}}]
    recipe = make(stages)
    (tmp_path / "recipe.toml").write_text(recipe.dumps(), encoding="utf-8")
    program = (
        "import sys, compressor.training.trainer as train; train.SAVE_SECONDS = 0.02; from pathlib import Path\n"
        "from compressor.recipe import recipe; from compressor.run.compress import compress\n"
        "compress(recipe.load(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    out = tmp_path / "killed"
    command = [sys.executable, "-c", program, str(tmp_path / "recipe.toml"), str(out)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    try:
        work = out / "steps" / f"{killed}.part" / "work"
        while not list(work.glob("checkpoint-*/complete.json")):
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (out / "steps" / killed).exists()
    with caplog.at_level(logging.INFO, logger="compressor.training.trainer"):
        resumed = compress(recipe, out)
    assert any("goes on at checkpoint-" in record.getMessage() for record in caplog.records)
    alone = compress(recipe, tmp_path / "alone")
    assert files_of(resumed.package_dir) == files_of(alone.package_dir)
    assert resumed.archive_path.read_bytes() == alone.archive_path.read_bytes()
    for step in ("train-1-mixed_vocabulary", "train-2-dual_training"):
        logs = [(folder / "steps" / step / "metrics.jsonl").read_bytes() for folder in (out, tmp_path / "alone")]
        assert logs[0] == logs[1]


def refused(recipe: Recipe, out: Path, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        compress(recipe, out)
    assert not out.exists()


@pytest.mark.parametrize("method", METHODS)
def test_the_teachers_own_vocabulary_is_refused_before_anything_runs(method, make, tmp_path):
    sentence = (
        rf"^--vocab-size 0 keeps the teacher's vocabulary, expected another one for method '{method}'\. Give a si"
    )
    refused(make([{"method": method}], vocab={"size": 0}), tmp_path / "out", sentence)


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_option_is_refused_before_anything_runs(method, make, tmp_path):
    stage = {"method": method, "options": {"mix": 2.0}}
    refused(make([{"method": "distill"}, stage]), tmp_path / "out", r"option mix = 2, expected between 0 and 1\.$")


@pytest.mark.parametrize("method", METHODS)
def test_hidden_words_need_a_mask_token_before_anything_runs(method, tiny_teacher_dir, tiny_rows, tmp_path):
    teacher = Path(shutil.copytree(tiny_teacher_dir, tmp_path / "teacher"))
    for path in teacher.glob("*token*.json"):
        path.write_text(path.read_text(encoding="utf-8").replace("[MASK]", "[HIDE]"), encoding="utf-8")
    stages = [{"method": "distill"}, {"method": method, "options": {"objective": "mlm"}}]
    recipe = make_recipe(teacher, tiny_rows.train, tiny_rows.dev, stage=stages)
    refused(recipe, tmp_path / "out", r"^objective = 'mlm' needs a mask token, and the teacher's tokenizer has neither")


def test_a_teacher_that_learns_from_labels_needs_their_column(tiny_teacher_dir, tiny_rows, tmp_path):
    train = tmp_path / "train.txt"
    train.write_text("a wonderful film\na dull film\n" * 20, encoding="utf-8")
    for labels in ("labels", "teacher_labels"):
        stage = {"method": "dual_training", "options": {labels: 1.0}}
        with pytest.raises(ValueError, match=r"label"):
            plan(make_recipe(tiny_teacher_dir, train, tiny_rows.dev, stage=[stage]))


def test_the_time_of_a_stage_counts_the_teacher_that_is_trained(make, monkeypatch):
    monkeypatch.setattr("compressor.batches.outputs.measure_flops", lambda: 1e9)  # the same speed each time
    seconds = {}
    for method, options in (("distill", {}), ("dual_training", {}), ("dual_training", {"every": 4})):
        planned = plan(make([{"method": method, "epochs": 50, "options": options}]))
        seconds[method, len(options)] = planned.seconds
    assert seconds["distill", 0] < seconds["dual_training", 1] < seconds["dual_training", 0]


def test_a_first_stage_is_short_and_a_recipe_of_both_reads_back(make):
    resolved = plan(make([{"method": "mixed_vocabulary"}, {"method": "distill"}])).resolved
    first, second = resolved.stage
    assert first.learning_rate == 1e-3
    assert first.epochs is not None and second.epochs is not None and first.epochs < second.epochs
    assert recipes.parse(resolved.dumps()) == resolved
    assert json.loads(resolved.model_dump_json())["stage"][0]["options"] == {}
