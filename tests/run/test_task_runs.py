"""Whole runs of kinds of task beside classes: several labels a row, retrieval, and a kind that is added as files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from compressor.cli import main
from compressor.run.compress import Outcome, compress
from edge_demo import runtime
from tests.support.runs import make_recipe, write_table
from tests.support.tiny import MOODS, make_moods, make_rows

ROOT = Path(__file__).resolve().parents[2]


def write_moods(path: Path, n_rows: int, seed: int) -> Path:
    return write_table(path, ["text", "moods"], [(text, "|".join(moods)) for text, moods in make_moods(n_rows, seed)])


def tenmeg(*arguments: str | Path) -> dict:
    done = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def moods(tiny_encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A folder with rows and a multi-label teacher that was made of an encoder, and what making it said."""
    folder = tmp_path_factory.mktemp("moods")
    train, dev = write_moods(folder / "train.tsv", 400, 0), write_moods(folder / "dev.tsv", 80, 1)
    said = tenmeg(
        "finetune", "--model", tiny_encoder_dir, "--train", train, "--eval", dev, "--task", "multi_label",
        "--label-column", "moods", "--epochs", "16", "--learning-rate", "5e-3", "--output", folder / "teacher",
    )  # fmt: skip
    return folder, said


@pytest.fixture(scope="module")
def made(moods: tuple[Path, dict], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The package of its student."""
    folder, _ = moods
    recipe = make_recipe(
        folder / "teacher", folder / "train.tsv", folder / "dev.tsv", baselines=True, measure={"runs": 20},
        data={"train": str(folder / "train.tsv"), "eval": str(folder / "dev.tsv"), "label_column": "moods"},
        stage=[{"method": "distill", "epochs": 6, "learning_rate": 3e-3}],
    )  # fmt: skip
    return compress(recipe, tmp_path_factory.mktemp("run") / "out")


def test_a_teacher_of_several_labels_is_made_and_says_so(moods: tuple[Path, dict]) -> None:
    folder, said = moods
    config = json.loads((folder / "teacher" / "config.json").read_text(encoding="utf-8"))
    assert config["problem_type"] == "multi_label_classification"
    assert list(config["id2label"].values()) == said["labels"] == sorted(MOODS)
    assert said["micro_f1"] > 0.7 and set(said) >= {"macro_f1", "exact_match"}


def test_thresholds_come_from_rows_that_are_neither_trained_on_nor_reported(made: Outcome) -> None:
    out = made.report_path.parent
    plan = json.loads((out / "steps" / "check" / "plan.json").read_text(encoding="utf-8"))
    assert plan["rows"] == {"train": 360, "eval": 80, "held_out": 40, "variations": 4}
    package = runtime.load(made.package_dir)
    assert package.manifest["kind"] == "multi_label" and package.manifest["task"] == "text-classification"
    assert len(package.manifest["thresholds"]) == len(package.manifest["labels"]) == 4
    assert made.report["task"]["thresholds"] == package.manifest["thresholds"]
    assert package.manifest["quality"]["metric"] == "micro_f1"


def test_a_student_of_several_labels_learns_from_its_teacher(made: Outcome) -> None:
    scores = made.report["metrics"]
    assert scores["package"]["micro_f1"] > 0.75 * scores["teacher"]["micro_f1"]
    assert {row["name"] for row in made.report["baselines"]} == {
        "TF-IDF + logistic regression for each label", "teacher as ONNX int8"
    }  # fmt: skip
    assert made.violations == []


def test_the_reader_answers_every_label_that_reaches_its_threshold(made: Outcome) -> None:
    package = runtime.load(made.package_dir)
    limits = dict(zip(package.manifest["labels"], package.manifest["thresholds"], strict=True))
    texts = [text for text, _ in make_moods(30, 2)]
    answers = [package.predict(text) for text in texts]
    for answer in answers:
        assert answer.label is None and answer.scores is not None
        assert answer.labels == [label for label, score in answer.scores.items() if score >= limits[label]]
    assert len({len(answer.labels or []) for answer in answers}) > 1


def test_the_package_is_scored_with_its_own_thresholds(made: Outcome, moods: tuple[Path, dict]) -> None:
    dev = moods[0] / "dev.tsv"
    found = tenmeg("verify", made.package_dir, "--eval", dev, "--label-column", "moods", "--max-drop", "100")
    package = made.report["metrics"]["package"]
    assert found["micro_f1"] == pytest.approx(package["micro_f1"])
    assert found["teacher"] == pytest.approx(made.report["metrics"]["teacher"]["micro_f1"], abs=1e-6)


def test_the_interval_of_a_drop_is_by_the_thresholds_of_each(made: Outcome, moods: tuple[Path, dict]) -> None:
    """Of the run the teacher's are those chosen on held-out rows: else a drop would not be among its own draws."""
    drop = made.report["drop"]
    assert drop["low"] < drop["points"] < drop["high"] and drop["rows"] == 80
    found = tenmeg(
        "verify", made.package_dir, "--eval", moods[0] / "dev.tsv", "--label-column", "moods",
        "--teacher", moods[0] / "teacher",
    )  # fmt: skip
    again = found["drop_interval"]
    assert again["low"] < again["points"] < again["high"] and again["points"] == pytest.approx(found["drop"], abs=1e-6)


def test_the_command_line_of_the_reader_lists_labels(made: Outcome) -> None:
    text = next(text for text, moods in make_moods(50, 3) if len(moods) == 2)
    command = [sys.executable, "-m", "edge_demo", str(made.package_dir), text, "--json"]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
    assert set(answer["labels"]) <= set(answer["scores"]) == set(MOODS)


def test_another_metric_decides_when_it_is_asked_for(moods: tuple[Path, dict], made: Outcome) -> None:
    dev = moods[0] / "dev.tsv"
    command = ["verify", made.package_dir, "--eval", dev, "--label-column", "moods", "--metric"]
    found = tenmeg(*command, "macro_f1")
    assert found["metric"] == "macro_f1" and "drop" not in found  # the package knows its teacher's micro F1 only
    done = CliRunner().invoke(main, [*map(str, command), "marco_f1"])
    assert done.exit_code == 1 and "Did you mean 'macro_f1'?" in done.stderr


def test_an_export_of_several_labels_answers_at_a_half(moods: tuple[Path, dict], tmp_path: Path) -> None:
    tenmeg("export", moods[0] / "teacher", "--output", tmp_path / "export")
    tenmeg("package", tmp_path / "export", "--output", tmp_path / "package")
    assert runtime.load(tmp_path / "package").manifest["thresholds"] == [0.5] * 4


@pytest.mark.slow
def test_an_encoder_is_judged_by_what_its_queries_find(tiny_encoder_dir: Path, tiny_rows, tmp_path: Path) -> None:
    texts = [text for text, _ in make_rows(40, 5)]
    pairs = [(text, f"{text} indeed") for text in dict.fromkeys(texts)]
    dev = write_table(tmp_path / "dev.tsv", ["query", "document"], pairs)
    recipe = make_recipe(
        tiny_encoder_dir, tiny_rows.train, dev, baselines=True, budget={"max_size": "200kB", "max_drop": 90.0},
        measure={"runs": 20, "metric": "recall@10"},
    )  # fmt: skip
    outcome = compress(recipe, tmp_path / "out")
    scores = outcome.report["metrics"]
    for each in scores.values():
        assert 0 < each["recall@1"] <= each["recall@5"] <= each["recall@10"] <= 1
    assert outcome.report["task"]["metric"] == "recall@10"
    drop = 100 * (scores["teacher"]["recall@10"] - scores["package"]["recall@10"])
    assert outcome.report["budget"]["measured"]["drop"] == pytest.approx(drop)
    assert outcome.report["drop"]["low"] <= drop <= outcome.report["drop"]["high"]
    assert all("mrr@10" in row["metrics"] for row in outcome.report["baselines"])
    found = tenmeg("verify", outcome.package_dir, "--eval", dev)
    assert found["metric"] == "recall@10" and found["recall@10"] == pytest.approx(scores["package"]["recall@10"])


TOY = '''"""Classes in an order: an answer counts by how near it is."""

import numpy as np

from compressor.tasks import classification


class Task(classification.Task):
    """A toy."""

    metrics = ("closeness",)

    @classmethod
    def claims(cls, task, config):
        """Return whether the checkpoint says that its classes have an order."""
        return bool(config.get("has_order"))

    def score(self, outputs, targets, name="logits"):
        """Return 1 - the mean distance, as a share of the largest."""
        distance = np.abs(outputs.argmax(axis=1) - np.asarray(targets)).mean()
        return {"closeness": float(1 - distance / (len(self.labels) - 1))}

    def soft_loss(self, ours, theirs, temperature):
        """Return the squared difference of the expected classes."""
        places = ours.new_tensor(range(len(self.labels)))
        return ((ours.softmax(-1) - theirs.softmax(-1)) @ places).square().mean()
'''
TOY_HEAD = '''"""Classes in an order: read as classes are."""

from exporters.heads import classification


class Head(classification.Head):
    """A toy."""

    read_as = "classification"
'''


@pytest.mark.slow
def test_a_kind_that_is_added_as_files_goes_the_whole_way_to_a_package(
    tiny_teacher_dir: Path, tiny_rows, tmp_path: Path
) -> None:
    tree, teacher = tmp_path / "tree", tmp_path / "teacher"
    for package in ("compressor", "exporters", "vocab", "edge_demo"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "compressor" / "tasks" / "ordered.py").write_text(TOY, encoding="utf-8")
    (tree / "exporters" / "heads" / "ordered.py").write_text(TOY_HEAD, encoding="utf-8")
    shutil.copytree(tiny_teacher_dir, teacher)
    config = json.loads((teacher / "config.json").read_text(encoding="utf-8"))
    (teacher / "config.json").write_text(json.dumps({**config, "has_order": True}), encoding="utf-8")
    command = [
        sys.executable, "-m", "compressor.cli", "compress", "--teacher", teacher, "--train", tiny_rows.train, "--eval",
        tiny_rows.dev, "--max-size", "90kB", "--epochs", "2", "--runs", "20", "--no-baselines", "--output",
        tmp_path / "out", "--json",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["task"]["kind"] == "ordered" and report["task"]["metric"] == "closeness"
    assert set(report["metrics"]) == {"teacher", "student", "package"}
    package = runtime.load(tmp_path / "out" / "package")  # this reader has never heard of it
    assert package.manifest["kind"] == "classification" and package.manifest["quality"]["metric"] == "closeness"
    assert package.predict("a wonderful film").label in ("negative", "positive")
