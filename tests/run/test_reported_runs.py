"""Runs that report to a tracker: the same bytes as without, curves that outlive them, and what is refused before."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import tenmeg
from compressor.cli import main
from compressor.run.compress import compress
from tests.support.runs import files_of, make_recipe
from tests.support.training import curves


@pytest.fixture(scope="module")
def recipe(tiny_teacher_dir, tiny_rows):
    return make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev)


@pytest.fixture(scope="module")
def plain(recipe, tmp_path_factory):
    return compress(recipe, tmp_path_factory.mktemp("plain") / "out")


@pytest.fixture(scope="module")
def told(recipe, tmp_path_factory):
    return compress(recipe, tmp_path_factory.mktemp("told") / "out", report_to=["tensorboard"])


def test_a_run_that_reports_makes_the_same_bytes(plain, told):
    assert told.report["hashes"] == plain.report["hashes"]
    assert files_of(told.package_dir) == files_of(plain.package_dir)
    ours, theirs = (outcome.report_path.parent for outcome in (told, plain))
    assert (ours / "recipe.toml").read_bytes() == (theirs / "recipe.toml").read_bytes()
    assert (ours / "run.json").read_bytes() == (theirs / "run.json").read_bytes()
    for name in told.report["seconds"]:
        step, same = (json.loads((out / "steps" / name / "step.json").read_text("utf-8")) for out in (ours, theirs))
        is_timed = name == "package"  # it reads what "verify" has measured
        assert is_timed or step["inputs_sha256"] == same["inputs_sha256"], name
        assert step["files"].keys() == same["files"].keys(), name


def test_the_curves_are_in_the_output_and_hold_what_the_log_holds(told, plain):
    out = told.report_path.parent
    ours, theirs = ({path.name for path in each.report_path.parent.iterdir()} for each in (told, plain))
    assert ours - theirs == {"logs"}
    assert [path.name for path in (out / "logs").iterdir()] == ["train-1-distill"]
    shown = curves(out / "logs" / "train-1-distill")
    (stage,) = told.report["training"]
    logged = {"train/loss": "loss", "train/learning_rate": "learning_rate", "eval/accuracy": "eval_accuracy"}
    for tag, name in logged.items():
        said = [(line["step"], line[name]) for line in stage["log"] if name in line]
        assert said and [step for step, _ in shown[tag]] == [step for step, _ in said]
        assert [value for _, value in shown[tag]] == pytest.approx([value for _, value in said])


def test_a_finished_run_is_done_whether_it_is_to_report_or_not(recipe, plain, told, tmp_path):
    for outcome, report_to in ((plain, ["tensorboard"]), (told, [])):
        out = Path(shutil.copytree(outcome.report_path.parent, tmp_path / str(len(report_to))))
        said: list[str] = []
        compress(recipe, out, echo=said.append, report_to=report_to)
        assert sum(line.endswith(": done before") for line in said) == 9


def test_overwriting_removes_the_curves_of_the_other_run_and_no_other_logs(recipe, told, tmp_path):
    out = Path(shutil.copytree(told.report_path.parent, tmp_path / "out"))
    (out / "logs" / "mine.txt").write_text("kept")
    other = recipe.model_copy(update={"seed": 1})
    with pytest.raises(FileExistsError, match="holds a run of another recipe"):
        compress(other, out)
    compress(other, out, overwrite=True)
    assert files_of(out / "logs") == {"mine.txt": b"kept"}


def test_finetune_makes_the_same_model_and_its_curves_are_beside_it(tiny_teacher_dir, tiny_rows, tmp_path):
    given = {"eval": tiny_rows.dev, "epochs": 1}
    plain = tenmeg.finetune(tiny_teacher_dir, tiny_rows.train, output=tmp_path / "plain", **given)
    told = tenmeg.finetune(
        tiny_teacher_dir, tiny_rows.train, output=tmp_path / "told", report_to="tensorboard", **given
    )
    assert told["sha256"] == plain["sha256"]
    assert files_of(tmp_path / "told").keys() == files_of(tmp_path / "plain").keys()
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "told", "told.logs"}
    assert {"train/loss", "train/learning_rate"} <= curves(tmp_path / "told.logs" / "finetune").keys()


@pytest.mark.parametrize("command", ["compress", "run", "finetune"])
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_written(
    command, tiny_teacher_dir, tiny_rows, recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    rows = ["--train", str(tiny_rows.train), "--output", str(tmp_path / "out"), "--report-to", "wandb"]
    (tmp_path / "recipe.toml").write_text(recipe.dumps(), encoding="utf-8")
    given = {
        "compress": ["--teacher", str(tiny_teacher_dir), *rows],
        "run": [str(tmp_path / "recipe.toml"), *rows[2:]],
        "finetune": ["--model", str(tiny_teacher_dir), *rows],
    }[command]
    done = CliRunner().invoke(main, [command, *given])
    sentence = "--report-to wandb: the package wandb is not installed. Install it: pip install wandb"
    assert done.exit_code == 1 and done.stderr == f"tenmeg: {sentence}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


@pytest.mark.parametrize("door", [tenmeg.compress, tenmeg.finetune])
def test_from_python_it_is_refused_with_the_same_sentence(door, tiny_teacher_dir, tmp_path):
    rows = [("a dull film", 0), ("a fine film", 1)] * 20
    with pytest.raises(ValueError, match="--report-to mlflow: expected tensorboard, wandb or trackio"):
        door(str(tiny_teacher_dir), rows, output=tmp_path / "out", report_to="mlflow")
    assert list(tmp_path.iterdir()) == []
