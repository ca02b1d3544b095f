"""The stage that learns what the teacher gets right and how sure it is: what it makes, leaves and refuses."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import LABELS, tiny_config, tiny_tokenizer
from method_cases import MODEL_TYPES, context_of, descend, finish, make_case, state_of
from safetensors.torch import load_file
from test_run import make_recipe, pair_rows, write_table
from test_stage_student import Prepared

from compressor import out_of_fold
from compressor.cli import main
from compressor.journal import write_json
from compressor.methods.teacher_predictions import last_projection
from compressor.objective import build_options, load_method, model_inputs
from compressor.plan import plan
from compressor.teacher_labels import CLASSES, ERRORS, counts, median_thresholds, ptp_labels

METHOD = "teacher_predictions"
BASE_OPTIONS = {"out_of_fold": 2, "base_epochs": 1, "base_learning_rate": 5e-3}


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_classes_are_told_from_what_the_tasks_own_projection_reads(model_type: str) -> None:
    case = make_case(METHOD, context_of(model_type=model_type))
    objective, batch = case.objective.eval(), case.collate(range(6))
    projection = last_projection(objective.student)
    with torch.no_grad():
        projection.weight.normal_()
        objective.classes.weight[:3], objective.classes.bias[:3] = projection.weight, projection.bias
        objective.classes.weight[3], objective.classes.bias[3] = 0.0, -1e9
        theirs = objective.student(**model_inputs(batch)).logits.softmax(-1)
        labels = torch.arange(6) % 3
        ours = objective(**{**batch, "labels": labels})["predictions"]
    assert ours.item() == pytest.approx(-theirs[range(6), labels].log().mean().item(), rel=1e-5)


@pytest.mark.parametrize("head", ["fresh", "keep"])
def test_only_the_tasks_projection_is_drawn_fresh_and_no_layer_but_it_stays(head: str) -> None:
    before = state_of(context_of().student)
    case = make_case(METHOD, context_of(), {"head": head})
    built = state_of(case.objective.student)
    assert before.keys() == built.keys()
    fresh = {name for name in before if not torch.equal(before[name], built[name])}
    assert fresh == ({"classifier.weight", "classifier.bias"} if head == "fresh" else set())
    descend(case, 4)
    after = state_of(case.objective.student)
    untouched = {name for name in after if torch.equal(after[name], built[name])}
    assert {"classifier.weight", "classifier.bias"} <= untouched
    assert all("position_ids" in name or "token_type_ids" in name for name in untouched if "classifier" not in name)
    assert after["classifier.weight"].shape == before["classifier.weight"].shape
    assert not case.objective.student.classifier._forward_pre_hooks


def test_thresholds_are_medians_numbers_or_the_papers() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 3, 40)
    medians = median_thresholds(logits, labels)

    def thresholds(**options: Any) -> tuple[float, float]:
        facts = make_case(METHOD, context_of(), options).objective.relabel(logits, labels).facts
        return facts["t1"], facts["t2"]

    assert thresholds() == medians
    assert thresholds(t1=0.6) == (0.6, medians.t2)
    assert thresholds(published="mrpc") == (0.95, 0.75)


def test_a_teacher_that_is_nearly_always_right_is_warned_of_with_the_counts(caplog: pytest.LogCaptureFixture) -> None:
    labels = np.arange(300) % 3
    logits = 4 * np.eye(3, dtype=np.float32)[labels]
    logits[:3] = -logits[:3]
    relabel = make_case(METHOD, context_of()).objective.relabel
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        found = relabel(logits, labels)
    assert "wrong on 3 of 300 training rows" in caplog.text and "unconfidently wrong 3" in caplog.text
    assert "out_of_fold = 5" in found.facts["note"]
    logits[:12] = -logits[3:15]
    assert "note" not in relabel(logits, labels).facts


@pytest.mark.parametrize("method", ["weight_squeezing", "weight_inheritance"])
def test_it_is_a_loss_for_weights_that_are_maps(method: str) -> None:
    case = make_case(method, context_of(), {"loss": METHOD, "loss_options": {"head": "keep"}})
    losses = descend(case, 8, rate=1e-2)
    assert losses[-1] < losses[0] and not case.objective.is_scored
    assert case.objective.relabel == case.objective.inner.relabel
    assert finish(case)["largest"]["difference"] < 1e-4


def tenmeg(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that has learned nothing yet."""
    from transformers import BertModel

    folder, tokenizer = tmp_path_factory.mktemp("base") / "base", tiny_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        BertModel(tiny_config(len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def out(tiny_teacher_dir: Path, tiny_rows: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two stages from the command line."""
    folder = tmp_path_factory.mktemp("two") / "out"
    done = tenmeg(
        "compress", "--teacher", tiny_teacher_dir, "--train", tiny_rows.train, "--eval", tiny_rows.dev, "--max-size",
        "40kB", "--method", METHOD, "--method", "distill", "--option", f"{METHOD}.t1=0.9", "--epochs", 1, "--runs", 5,
        "--no-baselines", "--output", folder,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder


def test_a_run_of_two_stages_reports_thresholds_and_counts(out: Path) -> None:
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    first, second = report["training"]
    facts = first["facts"]
    assert facts["t1"] == 0.9 and 0.5 <= facts["t2"] <= 1
    assert sum(facts[name] for name in CLASSES) == facts["rows"] == 300
    assert "facts" not in second and "predictions" in str(first["log"])
    assert not any(key.startswith("eval_") for line in first["log"] for key in line)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Rows of stage 1 (teacher_predictions)" in page and "unconfidently wrong" in page


def test_the_next_stage_begins_with_the_same_tensors_and_a_fresh_projection(out: Path) -> None:
    start, ours = (
        load_file(out / "steps" / name / "model" / "model.safetensors") for name in ("student", f"train-1-{METHOD}")
    )
    config = json.loads((out / "steps" / f"train-1-{METHOD}" / "model" / "config.json").read_text(encoding="utf-8"))
    assert {name: each.shape for name, each in start.items()} == {name: each.shape for name, each in ours.items()}
    assert list(config["id2label"].values()) == list(LABELS)
    assert all(not torch.equal(start[name], ours[name]) for name in ours)
    assert not ours["classifier.bias"].any() and ours["classifier.weight"].std() < 0.04
    theirs = tenmeg_student(out / "steps" / f"train-1-{METHOD}" / "model")
    assert theirs.keys() >= ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in ours)


def tenmeg_student(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors as the next stage reads them."""
    from transformers import AutoModelForSequenceClassification

    return state_of(AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32))


def stages(**options: Any) -> list[dict[str, Any]]:
    return [{"method": METHOD, "epochs": 1, "options": options}, {"method": "distill", "epochs": 1}]


@pytest.mark.slow
def test_every_row_is_judged_by_a_teacher_that_has_not_seen_it_and_a_stopped_fold_goes_on(
    base_dir: Path, tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**BASE_OPTIONS, "base": str(base_dir)}
    planned = plan(make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=stages(**options)))
    run, taught, answer = Prepared(planned, tmp_path), [], out_of_fold._answer

    def watched(prepared: Any, model_dir: Path, path: Path) -> None:
        taught.append((prepared.train.texts, prepared.evaluation.texts))
        if len(taught) == 2:
            raise KeyboardInterrupt
        answer(prepared, model_dir, path)

    monkeypatch.setattr(out_of_fold, "_answer", watched)
    with pytest.raises(KeyboardInterrupt):
        run.train(f"train-1-{METHOD}")
    kept = run.journal.steps_dir / f"train-1-{METHOD}.part" / "folds" / "fold-1.npy"
    before = kept.stat().st_mtime_ns
    folder = run.train(f"train-1-{METHOD}")
    assert [each[1] for each in taught] == [taught[0][1], taught[1][1], taught[1][1]]
    assert (folder / "folds" / "fold-1.npy").stat().st_mtime_ns == before
    assert all(not set(seen) & set(unseen) for seen, unseen in taught)
    assert {*taught[0][1], *taught[1][1]} == set(planned.train.texts)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    assert facts["out_of_fold"] == 2 and sum(facts[name] for name in CLASSES) == 300
    assert sorted(path.name for path in (folder / "folds").iterdir()) == ["fold-1.npy", "fold-2.npy"]
    outputs = out_of_fold.out_of_fold_outputs(planned, build_options(METHOD, options), folder / "folds")
    labels = np.array([int(label) for label in planned.train.labels or []])
    made = ptp_labels(outputs, labels, facts["t1"], facts["t2"])
    assert counts(made, CLASSES) == {name: facts[name] for name in CLASSES}


def test_a_score_is_labelled_by_thirds_of_the_error(tmp_path: Path) -> None:
    rows = np.linspace(0, 1, 9, dtype=np.float32)
    objective = make_case(METHOD, context_of("regression")).objective
    found = objective.relabel(rows[:, None] ** 4 + 1, rows)
    assert objective.classes.out_features == 3
    assert {name: found.facts[name] for name in ERRORS} == dict.fromkeys(ERRORS, 3)
    write_json(tmp_path / "facts.json", found.facts)  # plain JSON


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"t1": 1.2}, r"option t1 = 1.2, expected between 0 and 1"),
        ({"head": "none"}, r"option head = 'none', expected one of fresh, keep"),
        ({"published": "sst-2"}, r"expected one of rte, mrpc, sst2, qnli, cola\. Did you mean 'sst2'"),
        ({"published": "sst2", "t2": 0.5}, r"has published = 'sst2' and t1 or t2"),
        ({"out_of_fold": 1}, r"out_of_fold = 1, expected 0 \(off\) or at least 2"),
        ({"out_of_fold": 5}, r"out_of_fold = 5 has no base, .* the one given has seen every row\. Add base"),
        ({"base": "b"}, r"has base without out_of_fold"),
        ({"base_epochs": -1}, r"base_epochs = -1, expected 0 or more"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_options(METHOD, options)


def test_what_it_cannot_learn_from_is_refused_before_the_teacher_runs(
    tiny_teacher_dir: Path, tiny_encoder_dir: Path, tiny_rows: Any, tmp_path: Path
) -> None:
    def refused(sentence: str, teacher: Path, train: Path, stage: list[dict[str, Any]]) -> None:
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            plan(make_recipe(teacher, train, tiny_rows.dev, stage=stage))

    unlabelled = write_table(tmp_path / "texts.tsv", ["text"], [("a fine film",), ("a dull one",)])
    refused("got a sentence encoder, expected a task with labels", tiny_encoder_dir, tiny_rows.train, stages())
    refused("no column looks like a label", tiny_teacher_dir, unlabelled, stages())
    refused("is the last stage, expected one after it", tiny_teacher_dir, tiny_rows.train, stages()[:1])
    of_base = {**BASE_OPTIONS, "base": str(tmp_path / "none")}
    refused(r"option base = .*none does not exist", tiny_teacher_dir, tiny_rows.train, stages(**of_base))
    itself = {**BASE_OPTIONS, "base": str(tiny_teacher_dir)}
    refused("is the teacher itself, which has seen every row", tiny_teacher_dir, tiny_rows.train, stages(**itself))
    with pytest.raises(ValueError, match="got a sentence encoder"):
        load_method(METHOD).objective_class(context_of("embedding"), build_options(METHOD, {}))


def test_a_score_has_no_confidence_to_set_a_threshold_for(tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    folder, tokenizer = tmp_path / "score", tiny_tokenizer()
    BertForSequenceClassification(tiny_config(len(tokenizer), num_labels=1)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    rows = [(*both, index % 6 / 2) for index, both in enumerate(pair_rows(40, 5))]
    train = write_table(tmp_path / "train.tsv", ["sentence1", "sentence2", "score"], rows)
    with pytest.raises(ValueError, match=r"has t1, but the teacher predicts a score.*Leave out t1"):
        plan(make_recipe(folder, train, train, stage=stages(t1=0.9)))
