"""A stage of a run whose objective makes the student out of something else: what it is given, scored by and leaves."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from compressor.methods import finetune
from compressor.run import student_steps
from compressor.run.monitor import evaluation_batches
from compressor.run.planning.plan import plan
from compressor.training.contract import Context, FoldError
from tests.support.method_cases import state_of
from tests.support.runs import Prepared, make_recipe, pair_rows, write_table
from tests.support.training import CLASSIFIER, ByHand


@pytest.fixture(scope="module")
def prepared(tiny_teacher_dir: Path, tiny_rows: Any, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    stages = [{"method": "finetune", "epochs": 1, "batch_size": 32, "evaluate_every": 4}]
    recipe = make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=stages)
    return Prepared(plan(recipe), tmp_path_factory.mktemp("stage"))


def test_the_student_that_finish_makes_is_the_one_that_is_saved(
    prepared: Prepared,
) -> None:
    made: list[ByHand] = []

    class Scored(ByHand):
        def scored(self) -> nn.Module:
            """The student when it always says "positive"."""
            model = copy.deepcopy(self.student)
            with torch.no_grad():
                model.classifier.bias.copy_(torch.tensor([-1e4, 1e4]))
            return model

        def finish(self, batches: list[dict[str, Tensor]]) -> dict[str, Any]:
            made.append(self)
            return super().finish(batches)

    folder = prepared.with_objective(Scored).train("train-1-scored")
    saved = load_file(folder / "model" / "model.safetensors")
    assert torch.equal(saved[CLASSIFIER], (made[0].factor * made[0].frozen).detach())
    before = load_file(prepared.journal.folder("student") / "model" / "model.safetensors")
    assert not torch.equal(saved[CLASSIFIER], before[CLASSIFIER])
    assert json.loads((folder / "fold.json").read_text(encoding="utf-8")) == {"rows": 60, "device": "cpu"}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    labels = prepared.planned.evaluation.labels
    assert labels is not None
    share = sum(label == "positive" or label == 1 or label == "1" for label in labels) / len(labels)
    scores = {line["step"]: line["eval_accuracy"] for line in lines if "eval_accuracy" in line}
    assert scores == {step: pytest.approx(share) for step in (4, 8, 10)}


def test_a_student_that_does_not_fold_fails_the_stage(prepared: Prepared) -> None:
    class Unfoldable(ByHand):
        def finish(self, batches: list[dict[str, Tensor]]) -> dict[str, Any]:
            raise FoldError("factored: the folded student differs by 0.3 from the trained one, expected 1e-5 at most.")

    with pytest.raises(ValueError, match=r"folded student differs by 0\.3"):
        prepared.with_objective(Unfoldable).train("train-1-unfoldable")
    assert not prepared.journal.folder("train-1-unfoldable").exists()
    assert not list(prepared.journal.steps_dir.glob("train-1-unfoldable.part/model"))


@pytest.mark.parametrize(
    ("attribute", "has_teacher", "has_activations"),
    [("trains_teacher", True, False), ("needs_teacher", True, False), ("measures", False, True), ("", False, False)],
)
def test_the_context_brings_what_the_objective_asks_for(
    attribute: str, has_teacher: bool, has_activations: bool, prepared: Prepared
) -> None:
    contexts: list[Context] = []

    class Asking(finetune.Objective):
        def __init__(self, context: Context, options: finetune.Options) -> None:
            super().__init__(context, options)
            contexts.append(context)

    if attribute:
        setattr(Asking, attribute, True)
    prepared.with_objective(Asking).train(f"train-1-asking-{attribute}")
    teacher, tokenizer = student_steps.load_teacher(prepared.planned)
    expected = student_steps.teacher_activations(prepared.planned, teacher, tokenizer)
    found = contexts[0]
    assert (found.teacher is not None, found.activations is not None) == (has_teacher, has_activations)
    if found.teacher is not None:
        ours, theirs = state_of(found.teacher), state_of(teacher)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    if found.activations is not None:
        assert not found.activations.norm_inputs, "measured again, though the step of the student has kept them"
        assert np.array_equal(found.activations.coordinates, expected.coordinates)
        assert all(np.array_equal(*both) for both in zip(found.activations.units, expected.units, strict=True))


def test_the_batches_of_finish_are_evaluation_rows_as_the_student_reads_them(prepared: Prepared) -> None:
    tokenizer = student_steps.student_tokenizer(prepared.journal)
    batches = evaluation_batches(prepared.planned, tokenizer, 0)
    assert all(set(batch) == {"input_ids", "attention_mask", "token_type_ids"} for batch in batches)
    texts = prepared.planned.evaluation.texts
    rows = [row[mask.bool()].tolist() for batch in batches for row, mask in zip(*list(batch.values())[:2], strict=True)]
    assert rows == [tokenizer.encode(text).ids for text in texts[:64]]


def test_an_encoder_reads_both_texts_of_the_evaluation_pairs_one_by_one(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    rows = [(a, b, index % 6 / 2) for index, (a, b) in enumerate(pair_rows(150, 5))]
    columns = ["sentence1", "sentence2", "score"]
    train_path = write_table(tmp_path / "train.tsv", columns, rows[:50])
    planned = plan(make_recipe(tiny_encoder_dir, train_path, write_table(tmp_path / "dev.tsv", columns, rows[50:])))
    tokenizer = student_steps.load_teacher(planned)[1]
    batches = evaluation_batches(planned, tokenizer, 0)
    assert sum(len(batch["input_ids"]) for batch in batches) == 64
    first = batches[0]["input_ids"][0][batches[0]["attention_mask"][0].bool()].tolist()
    assert first == tokenizer.encode(planned.evaluation.texts[0]).ids
