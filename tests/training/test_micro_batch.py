"""Batches that pass in parts, and scores by steps: the same training in less memory, and a finer curve."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.commands.decisions import to_recipe
from compressor.data.table import Table
from compressor.models.families import shape_of
from compressor.recipe import recipe as recipes
from compressor.recipe.sections import StageSection
from compressor.run.finetune import prepare
from compressor.run.planning.stage_defaults import fill_stage, in_parts
from compressor.training.imitation import without_dropout
from compressor.training.registry import resolve
from compressor.training.trainer import Optimisation, StageTrainer, n_steps, optimisation_of, train_stage
from tests.support.method_cases import N_ROWS, context_of, make_case, state_of
from tests.support.training import descent


def train(
    folder: Path, optimisation: Optimisation, scores: Any = None
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], list[list[int]]]:
    """Fine-tune the tiny student; return what was trained, the log, and the rows of every forward pass."""
    case = make_case("finetune", context_of())
    without_dropout(case.objective.student)  # its random numbers are others when a batch passes in parts
    seen: list[list[int]] = []

    def collate(indices: Any) -> dict[str, torch.Tensor]:
        seen.append([int(index) for index in indices])
        return case.collate(indices)

    log = train_stage(case.objective, case.rows, collate, optimisation, folder, scores, lambda *_: None)
    assert log == [
        *map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()),
        *log[len(log) - 1 :],  # the trainer's last entry, of which nothing is left
    ]
    return state_of(case.objective), log, seen


def settings(micro_batch: int | None, batch_size: int = 8, evaluate_every: int | None = None) -> Optimisation:
    return Optimisation(3.0, 0.1, batch_size, 0.0, 0.0, 7, micro_batch, evaluate_every)


@pytest.mark.parametrize(("batch_size", "micro_batch"), [(8, 1), (8, 2), (8, 8), (10, 2), (10, 5)])
def test_parts_of_a_batch_train_as_the_whole_batch(
    batch_size: int, micro_batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In single precision; 10 rows a step leave 4 for the last of an epoch."""
    monkeypatch.setattr("compressor.training.trainer.has_fast_bfloat16", lambda: False)
    monkeypatch.setattr("compressor.training.trainer.LOG_EVERY", 1)
    monkeypatch.setattr(StageTrainer, "create_optimizer", descent)
    whole, whole_log, whole_rows = train(tmp_path / "whole", settings(None, batch_size))
    parts, parts_log, parts_rows = train(tmp_path / "parts", settings(micro_batch, batch_size))
    assert max(float((whole[name] - parts[name]).abs().max()) for name in whole) < 1e-5
    start = state_of(make_case("finetune", context_of()).objective)
    assert max(float((whole[name] - start[name]).abs().max()) for name in whole) > 1e-2
    steps = n_steps(N_ROWS, settings(micro_batch, batch_size))
    assert [line["step"] for line in whole_log] == [line["step"] for line in parts_log] == [*range(1, steps + 1), steps]
    for ours, theirs in zip(parts_log, whole_log, strict=True):
        if N_ROWS % batch_size:  # how much of an epoch is done goes by passes
            ours, theirs = ({key: line[key] for key in line if key != "epoch"} for line in (ours, theirs))
        assert ours == pytest.approx(theirs, rel=1e-4)
    order, whole_order = ([row for rows in each for row in rows] for each in (parts_rows, whole_rows))
    assert order == whole_order  # the same rows in every step, however they pass
    assert {len(rows) for rows in parts_rows} <= {micro_batch, 4}
    assert len(whole_rows) == steps


@pytest.mark.parametrize(
    ("every", "expected"), [(None, [3, 6, 9]), (4, [4, 8, 9]), (3, [3, 6, 9]), (100, [9]), (1, [*range(1, 10)])]
)
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_scores_come_at_the_asked_steps_and_at_the_end(
    every: int | None, expected: list[int], micro_batch: int | None, tmp_path: Path
) -> None:
    scored: list[bool] = []

    def score(objective: torch.nn.Module) -> dict[str, float]:
        scored.append(objective.training)
        return {"eval_accuracy": 0.5}

    _, log, _ = train(tmp_path, settings(micro_batch, evaluate_every=every), score)
    assert [line["step"] for line in log if "eval_accuracy" in line] == expected
    assert scored == [False] * len(expected)


def test_scores_by_steps_do_not_change_the_training(tmp_path: Path) -> None:
    ours, _, _ = train(tmp_path / "ours", settings(None, evaluate_every=2), lambda _objective: {"eval_accuracy": 0.5})
    theirs, _, _ = train(tmp_path / "theirs", settings(None))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("micro_batch", "fits"), [(3, 2), (12, 8), (64, 32)])
def test_parts_of_different_sizes_are_refused(micro_batch: int, fits: int) -> None:
    flags = {"teacher": "t", "train": "f.tsv", "batch_size": 32, "micro_batch": micro_batch}
    expected = rf"\[\[stage\]\] micro_batch={micro_batch} does not divide batch_size=32. Use micro_batch={fits}, or a"
    with pytest.raises(ValueError, match=expected):
        recipes.from_dict(to_recipe(flags))


def test_a_batch_that_is_not_given_consists_of_whole_parts() -> None:
    texts = [f"text number {number}" for number in range(500)]
    table = Table(texts=texts, pairs=None, labels=None, columns={}, sha256="", source="")
    small = shape_of(context_of().student.config.to_dict(), 3)
    how = {"is_copied": True, "has_head": True}
    whole = fill_stage(resolve(StageSection(method="distill")), table, 64, small, small, **how).section
    assert whole.batch_size == 128 and whole.micro_batch is None
    in_twelves = resolve(StageSection(method="distill", micro_batch=12))
    parts = fill_stage(in_twelves, table, 64, small, small, **how).section
    assert (parts.batch_size, parts.micro_batch) == (132, 12)
    assert StageSection.model_validate(parts.model_dump()) == parts
    assert [in_parts(32, None), in_parts(32, 12), in_parts(32, 100)] == [32, 36, 100]


def test_a_teacher_is_fine_tuned_in_whole_parts_too(tiny_teacher_dir: Path, tiny_rows: Any) -> None:
    flags = {"model": str(tiny_teacher_dir), "train": str(tiny_rows.train), "method": ("finetune",), "micro_batch": 12}
    prepared = prepare(recipes.finetune_job(to_recipe(flags)))
    assert (prepared.stage.batch_size, prepared.stage.micro_batch) == (12, 12)


def test_a_stage_says_all_of_its_optimisation() -> None:
    stage = StageSection(
        method="distill", epochs=2, learning_rate=1e-3, batch_size=8, micro_batch=4, evaluate_every=5, warmup=0.1
    )
    assert optimisation_of(stage, 3) == Optimisation(2.0, 1e-3, 8, 0.1, 0.01, 3, 4, 5)
