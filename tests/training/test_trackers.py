"""Trackers of a stage: what reaches tensorboard, where, once, and that the stage itself is none the wiser."""

import re
from pathlib import Path

import pytest

from compressor.refused import Refused
from compressor.training.trackers import Tracking, known_trackers
from tests.support.method_cases import is_same
from tests.support.training import curves, train


@pytest.fixture
def tracking(tmp_path: Path) -> Tracking:
    return Tracking(("tensorboard",), "out/train-1-distill", tmp_path / "logs" / "train-1-distill")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.training.trainer.SAVE_SECONDS", 0.0)  # a checkpoint after every step
    monkeypatch.setattr("compressor.training.trainer.LOG_EVERY", 4)


@pytest.mark.usefixtures("often")
def test_the_log_and_the_scores_reach_tensorboard_and_the_stage_is_the_same(tracking, tmp_path):
    plain = train(tmp_path / "plain", "parts")
    assert is_same(plain, train(tmp_path / "told", "parts", tracking=tracking))
    texts = [(tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8") for name in ("plain", "told")]
    assert texts[0] == texts[1]
    shown = curves(tracking.events_dir)
    assert {"train/loss", "train/loss_logits", "train/learning_rate", "eval/norm"} <= set(shown)
    assert [step for step, _ in shown["eval/norm"]] == [4, 8, 9]  # PARTS, and the end
    assert [step for step, _ in shown["train/loss"]] == list(range(1, 10))
    assert not (tmp_path / "told" / "runs").exists()


@pytest.mark.usefixtures("often")
def test_a_stage_that_was_killed_goes_on_in_the_same_curves(tracking, tmp_path):
    whole = tracking._replace(events_dir=tmp_path / "logs" / "whole")
    train(tmp_path / "whole", "parts", tracking=whole)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", "parts", stop_at=5, tracking=tracking)
    train(tmp_path / "stopped", "parts", tracking=tracking)
    ours, theirs = curves(tracking.events_dir), curves(whole.events_dir)
    assert len(list(tracking.events_dir.iterdir())) == 2
    for tag in ("train/loss", "train/learning_rate", "eval/norm"):
        assert ours[tag] == theirs[tag]


def test_another_run_of_the_folder_takes_the_place_of_its_curves(tracking, tmp_path):
    for name in ("first", "second"):
        train(tmp_path / name, "parts", tracking=tracking)
    assert [step for step, _ in curves(tracking.events_dir)["eval/norm"]] == [4, 8, 9]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_refused_with_what_to_type(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    sentence = f"--report-to {name}: the package {name} is not installed. Install it: pip install {name}"
    with pytest.raises(Refused, match=f"^{re.escape(sentence)}$"):
        known_trackers([name])


def test_a_folder_of_the_name_of_a_tracker_is_no_tracker(tmp_path, monkeypatch):
    (tmp_path / "trackio").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Refused, match="the package trackio is not installed"):
        known_trackers("trackio")


def test_names_are_read_one_or_many_and_once_each():
    assert known_trackers(None) == known_trackers(()) == ()
    assert known_trackers("tensorboard") == known_trackers(["tensorboard", "tensorboard"]) == ("tensorboard",)
    with pytest.raises(Refused, match=r"wandbb: expected tensorboard, wandb or trackio\. Did you mean 'wandb'\?"):
        known_trackers(["wandbb"])
