"""Stages of weight inheritance: what is chosen and when, how it goes, resuming, options, and a whole run."""

import copy
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.inherit.objective import Inheriting
from compressor.run.compress import compress
from compressor.training.callbacks import last_checkpoint
from compressor.training.registry import build_options
from compressor.training.trainer import Optimisation, train_stage
from edge_demo import runtime
from tests.support.inheriting_cases import SMALL, difference, inheriting_context, inputs_of, outputs_of
from tests.support.method_cases import context_of, descend, is_same, make_case, state_of
from tests.support.narrowing_cases import NAME, disturb, objective_of
from tests.support.runs import make_recipe


@pytest.mark.parametrize(("decay", "factor"), [(20.0, 0.8), (0.0, 0.01 ** (1 / 25))], ids=["rate x decay", "by length"])
def test_masked_entries_do_not_follow_the_loss(decay: float, factor: float) -> None:
    """At 100 steps what is chosen is down to 1 % within 25 of them, unless the decay is given."""
    case = make_case(NAME, inheriting_context(**SMALL), {"decay": decay})
    after = []
    for rows in (range(8), range(8, 16)):
        objective = copy.deepcopy(case.objective)
        objective.begin(100)
        objective.choose(100)
        objective.step.fill_(10)  # past the first choice, before which everything decays a little
        before = [values[~kept].clone() for values, kept in objective.entries()]
        optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            sum(objective(**case.collate(rows)).values()).backward()
            objective.before_step(optimizer)
            optimizer.step()
            objective.after_step(optimizer)
        after.append([values.detach().clone() for values, _ in objective.entries()])
        for (values, kept), start in zip(objective.entries(), before, strict=True):
            torch.testing.assert_close(values[~kept], start * factor**3)
    masks = [kept for _, kept in objective.entries()]
    assert all(torch.equal(ours[~kept], other[~kept]) for ours, other, kept in zip(*after, masks, strict=True))
    assert any(not torch.equal(ours[kept], other[kept]) for ours, other, kept in zip(*after, masks, strict=True))


VARIANTS: list[dict[str, Any]] = [
    {},
    {"depth": "mixture", "compactors_only": True},
    {"resetting": "momentum", "churn": True, "score": "first", "importance": False},
    {"loss": "finetune", "interval": 3, "settle": 0.0},
]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "-".join(options) or "defaults")
def test_training_lowers_the_loss_and_leaves_the_students_shape(options: dict[str, Any]) -> None:
    case = make_case(NAME, inheriting_context(**SMALL), options)
    sizes = []
    objective = case.objective
    choose = objective.choose

    def spy(choice: int) -> None:
        choose(choice)
        sizes.append({name: int(objective.masks.kept(name).sum()) for name in objective.masks.groups})

    objective.choose = spy
    losses = descend(case, 30, rate=2e-3)
    assert losses[-1] < 0.95 * losses[0]
    assert all(now[name] <= before[name] for before, now in pairwise(sizes) for name in now)
    assert objective.masks.is_done and objective.observe()["removed"] == 1.0
    objective.finish([inputs_of(case.context)])
    assert objective.student.config.hidden_size == 16


def test_choices_are_counted_from_one_and_made_where_the_schedule_says() -> None:
    case = make_case(NAME, inheriting_context(**SMALL), {"interval": 2})
    made, objective = [], case.objective
    choose = objective.choose

    def spy(choice: int) -> None:
        made.append((int(objective.step), choice))
        choose(choice)

    objective.choose = spy
    descend(case, 60)
    last = max(group.n_choices for group in objective.masks.groups.values() if group.total)
    assert made == [(2 * choice, choice) for choice in range(1, last + 1)]


@pytest.mark.parametrize("resetting", ["shrink", "momentum"])
def test_before_the_first_choice_every_compactor_decays_a_little(resetting: str) -> None:
    """The published L2 term: in the gradient where the published edit is asked for, apart from Adam else."""
    cases = [make_case(NAME, inheriting_context(**SMALL), {"resetting": resetting}) for _ in range(2)]
    for case in cases:
        case.objective.begin(100)
        torch.manual_seed(0)  # dropout
        sum(case.objective(**case.collate(range(8))).values()).backward()
    plain, objective = (case.objective for case in cases)
    optimizer = torch.optim.SGD([each for each in objective.parameters() if each.requires_grad], lr=0.1)
    Inheriting.before_step(plain, optimizer)  # without what is tested
    name = objective.sides[3].name
    side, moved = objective.maps.value(name), plain.maps.gradient(name)
    start = side.detach().clone()
    objective.before_step(optimizer)
    optimizer.step()
    objective.after_step(optimizer)
    expected = start - 0.1 * (moved + start) if resetting == "momentum" else (start - 0.1 * moved) * 0.9
    torch.testing.assert_close(side.detach(), expected)


def test_what_goes_is_zero_in_the_last_part_of_a_stage() -> None:
    case = make_case(NAME, inheriting_context(**SMALL), {})
    descend(case, 20)
    assert case.objective.observe()["left"] == 0.0
    case = make_case(NAME, inheriting_context(**SMALL), {"settle": 0.0})
    descend(case, 20)
    assert case.objective.observe()["left"] > 0.0


def test_a_stage_of_one_step_still_ends_in_the_students_shape() -> None:
    for n_steps in (0, 1):
        case = make_case(NAME, inheriting_context(**SMALL), {})
        descend(case, n_steps)
        case.objective.finish([inputs_of(case.context)])
        assert case.objective.masks.is_done
        assert all(parameter.requires_grad for parameter in case.objective.student.parameters())


@pytest.mark.parametrize(("key", "value"), [("hidden_act", "relu"), ("layer_norm_eps", 1e-3)])
def test_a_student_that_computes_otherwise_than_the_teacher_is_refused(key: str, value: Any) -> None:
    context = inheriting_context(**SMALL)
    setattr(context.student.config, key, value)
    with pytest.raises(ValueError, match=f"--pretrained has {key} {value!r}, the teacher .*expected the same"):
        objective_of(context)


def test_what_is_scored_is_the_wide_network_as_it_is() -> None:
    objective, batch = objective_of(inheriting_context(**SMALL)), inputs_of(context_of())
    disturb(objective)
    objective.begin(100)
    objective.choose(3)
    assert 0 < objective.masks.share < 1 and objective.observe()["left"] > 0
    expected = outputs_of(objective.student, batch, objective.values())
    assert difference(outputs_of(objective.scored(), batch), expected) < 1e-6


def test_kept_parts_are_those_that_matter_and_else_the_first() -> None:
    context = inheriting_context(**SMALL)
    assert context.activations is not None
    informed, blind = (objective_of(context, importance=flag) for flag in (True, False))
    for objective in (informed, blind):
        objective.begin(100)
        objective.choose(100)
    best = torch.from_numpy(context.activations.coordinates).argsort(descending=True)[:16].sort().values
    assert torch.equal(informed.masks.kept("residual").nonzero().squeeze(1), best)
    assert torch.equal(blind.masks.kept("residual").nonzero().squeeze(1), torch.arange(16))


def test_the_score_counts_every_reader_or_the_published_one() -> None:
    for score, module, is_seen in (
        ("all", "bert.encoder.layer.1.intermediate.dense", True),
        ("first", "bert.encoder.layer.1.intermediate.dense", False),
        ("first", "bert.encoder.layer.0.attention.self.value", True),
    ):
        objective = objective_of(inheriting_context(**SMALL), score=score)
        before = objective.scores()["residual"].clone()
        with torch.no_grad():
            objective.maps.value(f"{module}/right")[5] *= 2  # column 5 of C_in
        changed = (objective.scores()["residual"] != before).nonzero().flatten().tolist()
        assert changed == ([5] if is_seen else [])


def test_learning_rates_are_those_of_their_kind() -> None:
    objective = objective_of(inheriting_context(**SMALL), source_rate=1e-6, student_rate=1e-4)
    rates = {name: objective.rate_of(name) for name, value in objective.named_parameters() if value.requires_grad}
    norms = {name for name in rates if "LayerNorm" in name or name.endswith("classifier.bias")}
    assert {rates[name] for name in norms} == {1e-4}
    assert {rates[name] for name in rates if name.startswith("maps.values.")} == {None}
    assert {rates[name] for name in rates if name.startswith("maps.sources.")} == {1e-6}
    alone = objective_of(inheriting_context(**SMALL), compactors_only=True)
    assert not any(name.startswith("maps.sources") for name, _ in alone.named_parameters())


def train(tmp_path: Path, options: dict[str, Any], stop_at: int | None = None) -> Any:  # an Objective
    """Train a stage of nine steps."""
    case = make_case(NAME, inheriting_context(**SMALL), options)

    def progress(step: int, _total: int) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    optimisation = Optimisation(3.0, 1e-3, 8, 0.1, 0.01, seed=7)
    train_stage(case.objective, case.rows, case.collate, optimisation, tmp_path, None, progress)
    return case.objective


@pytest.mark.parametrize(("options", "stop_at"), [({}, 5), ({"resetting": "momentum", "churn": True}, 7)])
def test_resume_is_bit_exact(
    tmp_path: Path, options: dict[str, Any], stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressor.training.trainer.SAVE_SECONDS", 0.0)
    monkeypatch.setattr("compressor.training.trainer.LOG_EVERY", 2)
    undisturbed = train(tmp_path / "whole", options)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", options, stop_at)
    assert last_checkpoint(tmp_path / "stopped") is not None
    resumed = train(tmp_path / "stopped", options)
    assert is_same(state_of(undisturbed), state_of(resumed))
    logs = [(tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8") for name in ("whole", "stopped")]
    assert logs[0] == logs[1] and '"removed": 1.0' in logs[0]
    batch = inputs_of(context_of())
    for objective in (undisturbed, resumed):
        objective.finish([batch])
    assert is_same(state_of(undisturbed.student), state_of(resumed.student))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"strategy": "heads"}, r"option strategy = 'heads', expected one of auto, dim, head\. Did you mean 'head'"),
        ({"decay": -1.0}, r"option decay = -1, expected 0 or more"),
        ({"settle": 1.5}, r"option settle = 1.5, expected between 0 and 1"),
        ({"loss": NAME}, r"makes weights out of weights itself"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        build_options(NAME, options)


@pytest.mark.slow
@pytest.mark.parametrize("heads", [2, 1])
def test_a_run_packages_the_narrow_student(heads: int, tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path) -> None:
    stages = [{"method": NAME, "epochs": 2, "options": {"loss": "finetune"}}, {"method": "distill", "epochs": 1}]
    student = {"hidden": 16, "heads": heads, "ffn": 32}
    recipe = make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=stages, student=student)
    outcome = compress(recipe, tmp_path / "out")
    assert runtime.load(outcome.package_dir).predict("a wonderful film").label in ("negative", "positive")
    stage = tmp_path / "out" / "steps" / f"train-1-{NAME}"
    fold = json.loads((stage / "fold.json").read_text(encoding="utf-8"))
    assert fold["outputs"]["float64"] < 1e-9 and fold["outputs"]["rows"] == 60
    config = json.loads((stage / "model" / "config.json").read_text(encoding="utf-8"))
    assert (config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]) == (16, heads, 32)
    log = [json.loads(line) for line in (stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any("eval_accuracy" in line for line in log)
    assert [line["removed"] for line in log if "removed" in line][-1] == 1.0
