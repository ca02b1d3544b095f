"""Teachers that have not seen the rows they judge: what they are made from, how they go on, and what is refused."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from compressor.batches.outputs import predictor
from compressor.methods.teacher_predictions import CLASSES, counts, ptp_labels
from compressor.models.teacher import load_tokenizer
from compressor.run import finetune, folds
from compressor.run.compress import compress
from compressor.run.finetune import load_classifier
from compressor.run.planning.plan import Plan, plan
from compressor.student import pretrained
from tests.support.method_cases import is_same, state_of
from tests.support.runs import Prepared, make_recipe
from tests.support.tiny import tiny_config, tiny_tokenizer
from tests.support.training import METHOD, stages

BASE_OPTIONS = {"out_of_fold": 2, "base_epochs": 1, "base_learning_rate": 5e-3}


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with other labels than the teacher's, which has learned nothing yet."""
    from transformers import BertForSequenceClassification

    folder, tokenizer = tmp_path_factory.mktemp("base") / "base", tiny_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        BertForSequenceClassification(tiny_config(len(tokenizer), num_labels=5)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def planned(base_dir: Path, tiny_teacher_dir: Path, tiny_rows: Any) -> Plan:
    stage = stages(**BASE_OPTIONS, base=str(base_dir))
    return plan(make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=stage))


def test_a_head_for_other_labels_is_drawn_fresh_from_the_seed(base_dir: Path, planned: Plan) -> None:
    options = planned.stages[0].wants.folds
    base = pretrained.read_base(options.base, planned.resolved.teacher, planned.info)
    once, again, other = (state_of(load_classifier(base_dir, base, seed)) for seed in (0, 0, 1))
    theirs = load_file(base_dir / "model.safetensors")
    assert is_same(once, again) and once["classifier.weight"].shape == (2, 32)
    assert not torch.equal(once["classifier.weight"], other["classifier.weight"])
    assert 0.01 < once["classifier.weight"].std() < 0.03 and not once["classifier.bias"].any()
    assert all(torch.equal(once[name], theirs[name]) for name in theirs if not name.startswith("classifier"))


def test_an_encoder_of_other_sizes_than_it_says_is_refused(base_dir: Path, planned: Plan, tmp_path: Path) -> None:
    weights, name = load_file(base_dir / "model.safetensors"), "bert.encoder.layer.0.intermediate.dense.weight"
    weights[name] = weights[name][:48].clone()
    (tmp_path / "config.json").write_bytes((base_dir / "config.json").read_bytes())
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=rf"hold {name} of 48x32, config.json says 64x32\. .* take both files"):
        load_classifier(tmp_path, planned.info)


def test_a_killed_fold_goes_on_at_its_checkpoint_and_answers_the_same(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = planned.stages[0].wants.folds
    steps: list[tuple[str, int]] = []
    stop_at = ("", 0)

    @contextmanager
    def watched(title: str, _total: int) -> Iterator[Callable[[int, int], None]]:
        def progress(step: int, _total: int) -> None:
            steps.append((title, step))
            if steps[-1] == stop_at:
                raise KeyboardInterrupt

        yield progress

    monkeypatch.setattr("compressor.training.trainer.SAVE_SECONDS", 0.0)  # a checkpoint after every step
    monkeypatch.setattr(finetune, "step_bar", watched)
    whole = folds.out_of_fold_outputs(planned, options, tmp_path / "whole")
    wanted, stop_at = steps.copy(), ("teacher 2 of 2", 3)
    assert stop_at in wanted and wanted[-1] > stop_at
    steps.clear()
    with pytest.raises(KeyboardInterrupt):
        folds.out_of_fold_outputs(planned, options, tmp_path / "stopped")
    n_done, stop_at = len(steps), ("", 0)
    assert np.array_equal(folds.out_of_fold_outputs(planned, options, tmp_path / "stopped"), whole)
    assert steps[:n_done] == wanted[:n_done] and n_done <= len(steps) < len(wanted) + 2
    assert steps[n_done][0] == "teacher 2 of 2" and steps[n_done][1] > 1


def test_a_teacher_that_cuts_on_the_left_answers_its_fold_with_the_end_of_the_texts(
    base_dir: Path, tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutting = tmp_path / "cutting"
    shutil.copytree(base_dir, cutting)
    settings = json.loads((cutting / "tokenizer_config.json").read_text(encoding="utf-8"))
    cuts = {**settings, "truncation_side": "left", "model_max_length": 6}
    (cutting / "tokenizer_config.json").write_text(json.dumps(cuts), encoding="utf-8")
    stage = stages(**BASE_OPTIONS, base=str(cutting))
    planned = plan(make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=stage))
    answer, compared = folds._answer, []

    def watched(prepared: Any, model_dir: Path, path: Path) -> None:
        answer(prepared, model_dir, path)
        tokenizer, rows = load_tokenizer(model_dir)._tokenizer, prepared.evaluation
        for side in ("left", "right"):
            predict = predictor(load_classifier(model_dir, prepared.info), tokenizer, 6, None, side)
            compared.append(np.array_equal(np.load(path), predict(rows.texts, rows.pairs)))

    monkeypatch.setattr(folds, "_answer", watched)
    folds.out_of_fold_outputs(planned, planned.stages[0].wants.folds, tmp_path / "folds")
    assert compared == [True, False] * 2


@pytest.mark.slow
def test_every_row_is_judged_by_a_teacher_that_has_not_seen_it_and_a_stopped_fold_goes_on(
    base_dir: Path, tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**BASE_OPTIONS, "base": str(base_dir)}
    planned = plan(make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=stages(**options)))
    run, taught, trained = Prepared(planned, tmp_path), [], []
    answer, train = folds._answer, folds.train_model

    def watched(prepared: Any, model_dir: Path, path: Path) -> None:
        taught.append((prepared.train.texts, prepared.evaluation.texts))
        if len(taught) == 2:
            raise KeyboardInterrupt
        answer(prepared, model_dir, path)

    def counted(*given: Any) -> None:
        trained.append(given[-1])
        train(*given)

    monkeypatch.setattr(folds, "_answer", watched)
    monkeypatch.setattr(folds, "train_model", counted)
    with pytest.raises(KeyboardInterrupt):
        run.train(f"train-1-{METHOD}")
    kept = run.journal.steps_dir / "folds-1.part" / "fold-1.npy"
    before = kept.stat().st_mtime_ns
    folder = run.train(f"train-1-{METHOD}")
    assert trained == ["teacher 1 of 2", "teacher 2 of 2"]
    assert [each[1] for each in taught] == [taught[0][1], taught[1][1], taught[1][1]]
    made_by = run.journal.folder("folds-1")
    assert (made_by / "fold-1.npy").stat().st_mtime_ns == before
    assert all(not set(seen) & set(unseen) for seen, unseen in taught)
    assert {*taught[0][1], *taught[1][1]} == set(planned.train.texts)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    assert facts["out_of_fold"] == 2 and sum(facts[name] for name in CLASSES) == 300
    assert sorted(path.name for path in made_by.glob("*.npy")) == ["fold-1.npy", "fold-2.npy", "outputs.npy"]
    wanted = planned.stages[0].wants.folds
    assert wanted is not None
    outputs = folds.out_of_fold_outputs(planned, wanted, made_by)
    labels = np.array([int(label) for label in planned.train.labels or []])
    made = ptp_labels(outputs, labels, facts["t1"], facts["t2"])
    assert counts(made, CLASSES) == {name: facts[name] for name in CLASSES}


def test_what_no_teacher_can_be_made_from_is_refused_before_anything_runs(
    base_dir: Path, tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path
) -> None:
    def refused(sentence: str, base: Path, n_folds: int = 2) -> None:
        stage = stages(**{**BASE_OPTIONS, "out_of_fold": n_folds}, base=str(base))
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            plan(make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=stage))

    refused(r"option base = .*none does not exist\. Check the path\.$", tmp_path / "none")
    refused("is the teacher itself, which has seen every row", tiny_teacher_dir)
    refused(r"out_of_fold = 301 is more than the 300 different rows of .*out_of_fold = 300 or less", base_dir, 301)
    for path in base_dir.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    refused(r"holds only pytorch_model.bin, .*does\): a base is read from safetensors only\.$", tmp_path)


@pytest.mark.slow
def test_the_teachers_of_folds_are_shared_by_runs_with_one_cache(
    base_dir: Path, tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path
) -> None:
    said: dict[int, list[str]] = {}
    for epochs in (1, 2):  # of the student: another run with the same teachers
        first, second = stages(**BASE_OPTIONS, base=str(base_dir))
        stage = [first, {**second, "epochs": epochs}]
        recipe = make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=stage, measure={"runs": 5})
        said[epochs] = []
        compress(recipe, tmp_path / str(epochs), echo=said[epochs].append, cache=tmp_path / "cache")
    assert "folds-1: from the cache" in said[2] and "folds-1: from the cache" not in said[1]
    once, again = (tmp_path / name / "steps" / "folds-1" / "outputs.npy" for name in ("1", "2"))
    assert np.array_equal(np.load(once), np.load(again))
