"""The stage that learns what the teacher gets right and how sure it is: what it makes, leaves and refuses."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from compressor.cli import main
from compressor.files import write_json
from compressor.methods.teacher_predictions import CLASSES, ERRORS, last_projection, median_thresholds
from compressor.run import student_steps
from compressor.run.planning.plan import plan
from compressor.training.contract import model_inputs
from compressor.training.registry import build_options, load_method
from compressor.training.trainer import train_stage
from tests.support.method_cases import MODEL_TYPES, context_of, descend, finish, is_same, make_case, state_of
from tests.support.runs import make_recipe, pair_rows, write_table
from tests.support.tiny import LABELS, tiny_config, tiny_tokenizer
from tests.support.training import METHOD, stages


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


class Run(NamedTuple):
    """A finished run of two stages from the command line."""

    folder: Path
    before: list[dict[str, torch.Tensor]]  # the student's tensors when a stage begins to train, stage by stage
    after: list[dict[str, torch.Tensor]]  # and when it has trained


@pytest.fixture(scope="module")
def run(tiny_teacher_dir: Path, tiny_rows: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder, before, after = tmp_path_factory.mktemp("two") / "out", [], []

    def watched(objective: Any, *given: Any) -> Any:
        before.append(state_of(objective.student))
        log = train_stage(objective, *given)
        after.append(state_of(objective.student))
        return log

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(student_steps, "train_stage", watched)
        done = tenmeg_compress(tiny_teacher_dir, tiny_rows, folder)
    assert done.exit_code == 0, done.output
    yield Run(folder, before, after)


def tenmeg_compress(teacher: Path, rows: Any, folder: Path) -> Any:
    return tenmeg(
        "compress", "--teacher", teacher, "--train", rows.train, "--eval", rows.dev, "--max-size",
        "40kB", "--method", METHOD, "--method", "distill", "--option", f"{METHOD}.t1=0.9", "--epochs", 1, "--runs", 5,
        "--no-baselines", "--output", folder,
    )  # fmt: skip


def test_a_run_of_two_stages_reports_thresholds_and_counts(run: Run) -> None:
    report = json.loads((run.folder / "report.json").read_text(encoding="utf-8"))
    first, second = report["training"]
    facts = first["facts"]
    assert facts["t1"] == 0.9 and 0.5 <= facts["t2"] <= 1
    assert sum(facts[name] for name in CLASSES) == facts["rows"] == 300
    assert "facts" not in second and "predictions" in str(first["log"])
    assert not any(key.startswith("eval_") for line in first["log"] for key in line)
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Rows of stage 1 (teacher_predictions)" in page and "unconfidently wrong" in page


def test_the_next_stage_begins_with_the_same_tensors_and_a_fresh_projection(run: Run) -> None:
    assert len(run.after) == 2 and is_same(run.after[0], run.before[1])
    kept = [name for name, each in run.before[0].items() if torch.equal(each, run.before[1][name])]
    assert {"classifier.weight", "classifier.bias"} <= set(kept) and len(kept) < len(run.after[0]) / 2
    assert not run.before[1]["classifier.bias"].any() and 0 < run.before[1]["classifier.weight"].std() < 0.04
    assert not torch.equal(run.before[1]["classifier.weight"], run.after[1]["classifier.weight"])
    start, config = (run.folder / "steps" / name / "model" for name in ("student", f"train-1-{METHOD}"))
    assert not torch.equal(
        load_file(start / "model.safetensors")["classifier.weight"], run.after[0]["classifier.weight"]
    )
    assert list(json.loads((config / "config.json").read_text(encoding="utf-8"))["id2label"].values()) == list(LABELS)


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
    for head in ("fresh", "keep"):
        last = stages(head=head)[:1]
        refused(r"last stage.*student cannot answer it, for its head", tiny_teacher_dir, tiny_rows.train, last)
        last = [{"method": "weight_squeezing", "options": {"loss": METHOD, "loss_options": {"head": head}}}]
        refused("is the last stage|fresh head", tiny_teacher_dir, tiny_rows.train, last)
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
