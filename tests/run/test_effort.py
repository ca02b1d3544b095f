"""How much is trained: the same work for every student, more or less of it when asked, and what rows are spared."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.commands.decisions import to_recipe
from compressor.data.table import Table
from compressor.recipe import recipe as recipes
from compressor.run.compress import compress
from compressor.run.planning import plan as planning
from compressor.run.planning.plan import Plan
from compressor.run.planning.rows import held_out_share
from compressor.run.planning.stage_defaults import FORWARD, WORK, fitting_variations, stage_work, work_per_token
from compressor.training.registry import resolve
from tests.support.runs import make_recipe

SHAPE = {"layers": 1, "hidden": 32, "ffn": 64, "vocab_size": 200}


@pytest.fixture
def flags(tiny_teacher_dir: Path, tiny_rows: Any) -> dict[str, Any]:
    return {"teacher": str(tiny_teacher_dir), "train": str(tiny_rows.train), "eval": str(tiny_rows.dev), **SHAPE}


def planned(flags: dict[str, Any], **more: Any) -> Plan:
    return planning.plan(recipes.from_dict(to_recipe({**flags, **more})))


def work_of(found: Plan) -> float:
    """Return the work of a plan's training in the units of the rule, by the row tokens that it estimates itself."""
    n_tokens = sum(len(text.split()) + 2 for text in found.rows.texts) * 1.3
    return sum(
        stage_work(stage, found.shape, found.info.shape) * (stage.section.epochs or 0) * n_tokens
        for stage in found.stages
    )


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> float:
    """Make the default so little work that tiny rows are not seen as often as is allowed."""
    monkeypatch.setattr("compressor.run.planning.stage_defaults.WORK", 2e9)
    return 2e9


@pytest.mark.parametrize("shape", [{"hidden": 32}, {"hidden": 16}, {"layers": 2}, {"ffn": 32}])
def test_students_of_any_shape_get_the_same_work(flags: dict[str, Any], cheap: float, shape: dict[str, int]) -> None:
    assert work_of(planned(flags, **shape)) == pytest.approx(cheap, rel=0.06)


@pytest.mark.parametrize("effort", [0.25, 1.0, 4.0])
def test_effort_multiplies_the_work(flags: dict[str, Any], cheap: float, effort: float) -> None:
    found = planned(flags, effort=effort)
    assert work_of(found) == pytest.approx(effort * cheap, rel=0.06)
    assert found.resolved.effort == 1.0 and found.resolved.minutes is None  # the epochs say it now
    again = planning.plan(recipes.parse(found.resolved.dumps()))
    assert again.digest == found.digest and again.stages == found.stages


def test_few_rows_are_not_seen_for_ever(flags: dict[str, Any]) -> None:
    assert planned(flags).stages[0].section.epochs == 60
    assert planned(flags, effort=4.0).stages[0].section.epochs == 240
    assert planned(flags, option=("labels=1",)).stages[0].section.epochs == 15  # rows with labels cannot vary


def test_a_token_of_a_narrow_student_costs_more_than_its_multiplications() -> None:
    from exporters.shape import Shape

    shape = Shape(5000, 128, 3, 4, 512, 80, 2)
    assert shape.n_multiplications < work_per_token(shape) < 4 * shape.n_multiplications


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"effort": 4.0, "epochs": 3.0}, r"effort \(--effort\) says how many epochs .* Leave one out"),
        ({"minutes": 4.0, "epochs": 3.0}, r"minutes \(--minutes\) says how many epochs .* Leave one out"),
        ({"minutes": 4.0, "effort": 2.0}, "both say how much to train. Leave one out"),
        ({"variations": 2, "method": ("finetune",)}, "--variations 2: no stage can use them: finetune reads labels"),
    ],
)
def test_what_is_said_twice_or_does_nothing_is_refused(
    flags: dict[str, Any], given: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        planned(flags, **given)


def test_minutes_are_measured_once(flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.run.planning.pace.SECONDS", 0.2)
    recipe = recipes.from_dict(to_recipe({**flags, "minutes": 0.003, "runs": 5, "baselines": False}))
    first = compress(recipe, tmp_path / "out").report
    monkeypatch.setattr("compressor.run.planning.pace.effort_of", lambda *_: pytest.fail("measured again"))
    second = compress(recipe, tmp_path / "out").report
    assert first["hashes"] == second["hashes"]
    assert first["recipe"]["stage"][0]["epochs"] == second["recipe"]["stage"][0]["epochs"] > 0
    assert first["recipe"]["minutes"] is None


def test_twice_the_minutes_are_twice_the_effort(flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from compressor.run.planning.pace import effort_of

    monkeypatch.setattr("compressor.run.planning.pace.SECONDS", 0.5)
    found = planned(flags)
    one, two = (effort_of(minutes, found.info, found.shape) for minutes in (1.0, 2.0))
    assert 1.0 < two / one < 4.0  # but for the noise of measuring


def table_of(n_rows: int, labels: bool = True) -> Table:
    return Table(["a text"] * n_rows, None, ["x"] * n_rows if labels else None, {}, "", "rows")


def test_rows_are_spared_where_there_are_enough() -> None:
    assert held_out_share(table_of(10_000), tunes=False, n_classes=2) == 0.05
    assert held_out_share(table_of(100_000), tunes=False, n_classes=2) == 0.01  # at most 1,000
    assert held_out_share(table_of(399), tunes=False, n_classes=2) == 0
    assert held_out_share(table_of(2999), tunes=False, n_classes=150) == 0  # fewer than 20 a class
    assert held_out_share(table_of(3000), tunes=False, n_classes=150) == 0.05
    assert held_out_share(table_of(500, labels=False), tunes=False, n_classes=0) == 0.05
    assert held_out_share(table_of(500, labels=False), tunes=True, n_classes=0) == 0  # thresholds need labels


def test_variations_cost_the_teacher_no_more_than_training_costs(flags: dict[str, Any]) -> None:
    found = planned(flags)
    assert found.n_variations == 4  # the student of few rows sees each 60 times
    assert planned(flags, epochs=2.0).n_variations == 0
    assert planned(flags, epochs=20.0, option=("labels=0.5",)).n_variations == 0
    assert planned(flags, variations=2).n_variations == 2
    big = replace(found.info.shape, hidden=4096, ffn=16384, layers=48)
    rows = found.rows
    n = fitting_variations(found.stages, rows, found.max_length, found.shape, big, 1.0)
    n_tokens = sum(len(text.split()) + 2 for text in rows.texts) * 1.3
    assert n == min(4, int(WORK / (FORWARD * work_per_token(big) * n_tokens)))


@pytest.mark.slow  # two whole runs
def test_a_run_with_variations_keeps_the_best_of_its_epochs_and_repeats_byte_for_byte(
    tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path
) -> None:
    recipe = make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev)
    content = recipe.model_dump(exclude_none=True)
    content["data"]["variations"] = 2
    content["stage"] = [{"method": "distill", "epochs": 4.0, "learning_rate": 3e-3}]
    outcome = compress(recipes.from_dict(content), tmp_path / "one")
    steps = tmp_path / "one" / "steps"
    rows = json.loads((steps / "check" / "plan.json").read_text(encoding="utf-8"))["rows"]
    outputs = np.concatenate([np.load(path) for path in sorted((steps / "variations" / "cache").glob("*/output.npy"))])
    assert len(outputs) == 2 * rows["train"]
    (stage,) = outcome.report["training"]
    scores = [line["held_out"] for line in stage["log"] if "held_out" in line]
    assert len(scores) == (4 if rows.get("held_out") else 0)
    again = compress(recipes.from_dict(content), tmp_path / "two")
    assert again.report["hashes"] == outcome.report["hashes"]


def test_options_that_depend_on_the_situation_are_made_explicit(flags: dict[str, Any]) -> None:
    assert planned(flags).stages[0].section.options == {"dropout": 0.1}
    assert planned(flags, epochs=2.0).stages[0].section.options == {"dropout": 0.0}
    assert planned(flags, option=("dropout=0.3",)).stages[0].section.options == {"dropout": 0.3}
    squeezed = planned(flags, method=("weight_squeezing",), epochs=5.0).stages[0]
    assert squeezed.section.options["loss_options"] == {"dropout": 0.1}
    assert resolve(squeezed.section).loss_options == squeezed.loss_options
