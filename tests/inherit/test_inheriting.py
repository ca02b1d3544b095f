"""What Weight Squeezing and Weight Distillation share: evaluation once per step, gradients, any loss, checkpoints."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from compressor.recipe.sections import StageSection
from compressor.training.callbacks import last_checkpoint
from compressor.training.registry import build_options, resolve
from compressor.training.trainer import Optimisation, n_steps, train_stage
from tests.support.inheriting_cases import (
    FULL,
    SMALL,
    ExactLoss,
    difference,
    exactly,
    inheriting_context,
    inputs_of,
    objective_of,
    outputs_of,
)
from tests.support.method_cases import N_ROWS, Case, context_of, descend, finish, is_same, make_case, state_of

METHODS = ("weight_squeezing", "weight_distillation")
LOSSES = ("distill", "finetune", "dual_training", "mixed_vocabulary")


def exact_case(method: str, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Tensor]]:
    """Return an objective in float64 and a batch."""
    context = inheriting_context(**SMALL)
    return exactly(objective_of(method, context, options)), inputs_of(context, 8)


def send_back(objective: Any, batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the gradient of the mean loss over the batches, as an optimizer step finds it."""
    objective.zero_grad()
    for batch in batches:
        (torch.stack(list(objective(**batch).values())).sum() / len(batches)).backward()
    objective.before_step(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
    return {name: each.grad.clone() for name, each in objective.named_parameters() if each.grad is not None}


def largest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys() and ours
    return max(difference(ours[name], theirs[name]) for name in ours)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("weight_squeezing", {}),
    ("weight_squeezing", {"tied": True, "map_biases": True, "map_layernorm": True}),
    ("weight_squeezing", {"gated": True, "gate": 0.5, "depth": "mixture"}),
    ("weight_distillation", {"tied_bias": True}),
]


@pytest.mark.parametrize(("method", "options"), VARIANTS)
def test_gradients_through_the_leaves_are_those_through_the_maps(method: str, options: dict[str, Any]) -> None:
    objective, batch = exact_case(method, options)
    found = send_back(objective, [batch])
    values = {f"student.{name}": each for name, each in objective.evaluate().items()}
    loss = torch.func.functional_call(objective.inner, values, kwargs=batch)["square"]
    trained = {name: each for name, each in objective.named_parameters() if each.requires_grad}
    expected = dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))
    assert largest(found, expected) < 1e-12
    assert max(float(each.abs().max()) for each in found.values()) > 1e-3


@pytest.mark.parametrize(("method", "options"), VARIANTS)
def test_four_micro_batches_evaluate_the_maps_once_and_give_the_gradient_of_the_whole(
    method: str, options: dict[str, Any]
) -> None:
    objective, batch = exact_case(method, options)
    calls: list[int] = []
    objective.maps.register_forward_hook(lambda *_: calls.append(1))
    whole = send_back(objective, [batch])
    parts = [{name: each[start : start + 2] for name, each in batch.items()} for start in (0, 2, 4, 6)]
    assert len(calls) == 1 and not objective.leaves
    assert largest(send_back(objective, parts), whole) < 1e-12
    assert len(calls) == 2 and not objective.graph


def test_gradients_of_the_maps_are_those_of_the_closed_formulas() -> None:
    """dL = G (W_t R)^T and dR = (L W_t)^T G, where G is the gradient of the student's tensor."""
    objective, batch = exact_case("weight_squeezing", {"heads": False})
    torch.stack(list(objective(**batch).values())).sum().backward()
    given = {name: each.grad.clone() for name, each in objective.leaves.items()}
    objective.before_step(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
    matrices = [each for each in objective.maps.maps if each.left and each.right]
    assert len(matrices) == 6 * SMALL["layers"] + 1  # and the pooler
    for each in matrices:
        left, right = objective.maps.value(each.left), objective.maps.value(each.right)
        teacher, gradient = objective.maps.source(each.slot)[0], each.factor * given[each.slot.name]
        assert difference(objective.maps.gradient(each.left), gradient @ (teacher @ right.T).T) < 1e-12
        assert difference(objective.maps.gradient(each.right), ((left @ teacher).T @ gradient).T) < 1e-12


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_a_stage_evaluates_the_maps_once_per_optimizer_step(micro_batch: int | None, tmp_path: Path) -> None:
    case = make_case("weight_squeezing", context_of())
    calls: list[int] = []
    # Not where the loss's own maps are solved for: nothing is trained by those passes.
    case.objective.maps.register_forward_hook(lambda *_: calls.append(1) if torch.is_grad_enabled() else None)
    optimisation = Optimisation(2.0, 1e-3, 8, 0.1, 0.01, 7, micro_batch)
    train_stage(case.objective, case.rows, case.collate, optimisation, tmp_path, None, lambda *_: None)
    assert len(calls) == n_steps(N_ROWS, optimisation) == 6


@pytest.mark.parametrize("method", METHODS)
def test_without_gradients_the_current_values_are_used_and_nothing_is_kept(method: str) -> None:
    case = make_case(method, inheriting_context(**SMALL))
    descend(case, 2)
    batch = case.collate(range(6))
    case.objective.eval()
    with torch.no_grad():
        ours = case.objective(**batch)
    assert not case.objective.leaves and not case.objective.graph
    scored = case.objective.scored()
    case.objective.student.load_state_dict(scored.state_dict())
    with torch.no_grad():
        theirs = case.objective.inner(**batch)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_scored_is_a_plain_copy_that_training_does_not_notice(method: str) -> None:
    losses = []
    for is_scored in (True, False):
        case = make_case(method, inheriting_context(**SMALL))
        for _ in range(3):
            losses += descend(case, 1)
            if is_scored:
                model = case.objective.scored()
                batch = inputs_of(case.context)
                expected = outputs_of(case.objective.student, batch, case.objective.values())
                assert torch.equal(outputs_of(model, batch), expected)
                model.load_state_dict({name: torch.zeros_like(each) for name, each in model.state_dict().items()})
    assert losses[:3] == losses[3:]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", LOSSES)
def test_any_loss_trains_the_maps_and_folds(method: str, loss: str) -> None:
    case = make_case(method, context_of(), {"loss": loss})
    assert resolve(StageSection(method=method, options={"loss": loss})).wants == build_options(loss, {}).wants()
    assert (case.objective.mixing is not None) == (loss in ("dual_training", "mixed_vocabulary"))
    before = state_of(case.objective.maps)
    assert all(torch.isfinite(torch.tensor(descend(case, 3))))
    assert not is_same(before, state_of(case.objective.maps))
    values = case.objective.values()
    finish(case)
    state = case.objective.student.state_dict()
    assert all(difference(state[name], value) < 1e-5 for name, value in values.items())


@pytest.mark.parametrize("method", METHODS)
def test_a_teacher_that_the_loss_trains_is_not_the_one_the_maps_read(method: str) -> None:
    case = make_case(method, context_of(), {"loss": "dual_training", "loss_options": {"teacher_learning_rate": 1e-2}})
    assert case.context.teacher is not None
    teacher = state_of(case.context.teacher)
    sources = {each.slot.name: case.objective.maps.source(each.slot).clone() for each in case.objective.maps.maps}
    descend(case, 2)
    assert not is_same(teacher, state_of(case.context.teacher))
    assert all(
        torch.equal(case.objective.maps.source(each.slot), sources[each.slot.name]) for each in case.objective.maps.maps
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_makes_weights_itself_is_refused(method: str) -> None:
    for loss in METHODS:
        with pytest.raises(ValueError, match=rf"option loss = '{loss}' makes weights out of weights itself.*'distill'"):
            build_options(method, {"loss": loss})
    with pytest.raises(ValueError, match=r"method: 'distil' is not known. Did you mean 'distill'"):
        build_options(method, {"loss": "distil"})
    with pytest.raises(ValueError, match=r"'distill' has no option 'temprature'. Did you mean 'temperature'"):
        build_options(method, {"loss_options": {"temprature": 1.0}})


@pytest.mark.parametrize("method", METHODS)
def test_maps_have_the_stages_rate_without_decay_and_the_students_own_tensors_one_of_theirs(method: str) -> None:
    options = {"loss": "dual_training", "student_rate": 5e-5, "loss_options": {"teacher_learning_rate": 1e-6}}
    objective = make_case(method, context_of(), options).objective
    own = "inner.student.bert.encoder.layer.0.output.dense.bias"
    rates = {name: objective.rate_of(name) for name, _ in objective.named_parameters()} | {own: objective.rate_of(own)}
    assert {rate for name, rate in rates.items() if name.startswith("maps.")} == {None}
    assert {rate for name, rate in rates.items() if name.startswith("inner.teacher.")} == {1e-6}
    assert rates[own] == 5e-5
    undecayed = {name for name in rates if objective.is_undecayed(name)}
    assert undecayed == {name for name in rates if name.startswith("maps.values.")} and undecayed
    assert make_case(method, context_of()).objective.rate_of(own) is None  # 0: the stage's


@pytest.mark.parametrize("method", METHODS)
def test_the_teacher_stays_bit_for_bit_and_is_in_no_checkpoint(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the teacher's own shape, from a random student: any tensor of the teacher would have to come from the maps."""
    monkeypatch.setattr("compressor.training.trainer.SAVE_SECONDS", 0.0)
    case = make_case(method, inheriting_context(**FULL))
    assert case.context.teacher is not None
    teacher = state_of(case.context.teacher)
    stop_in_a_stage(case, tmp_path, 5)
    assert is_same(teacher, state_of(case.context.teacher))
    assert all(parameter.grad is None for parameter in case.context.teacher.parameters())
    for each in case.objective.maps.maps:
        source = case.objective.maps.source(each.slot)
        assert not source.requires_grad
        assert each.slot.role == "table" or torch.equal(
            source, torch.stack([teacher[name] for name in each.slot.sources])
        )
    found = last_checkpoint(tmp_path)
    assert found is not None
    saved = load_file(found / "model.safetensors")
    assert saved.keys() == case.objective.state_dict().keys() and not [name for name in saved if "source" in name]
    matrices = [each for each in [*teacher.values(), *sources_in(case)] if each.dim() > 1]
    assert not [name for name, each in saved.items() if any(torch.equal(each, theirs) for theirs in matrices)]
    n_trained = sum(each.numel() for each in case.objective.parameters() if each.requires_grad)
    state = torch.load(found / "optimizer.pt", weights_only=True)["state"]
    assert sum(each["exp_avg"].numel() for each in state.values()) <= n_trained


def sources_in(case: Case) -> list[Tensor]:
    return [case.objective.maps.source(each.slot)[0] for each in case.objective.maps.maps]


def stop_in_a_stage(case: Case, folder: Path, stop_at: int | None = None) -> None:
    """Train three epochs of three steps, or until a step."""

    def progress(step: int, _total: int) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    optimisation = Optimisation(3.0, 1e-3, 8, 0.1, 0.01, 7)
    arguments = case.objective, case.rows, case.collate, optimisation, folder, None, progress
    if stop_at is None:
        train_stage(*arguments)
        return
    with pytest.raises(KeyboardInterrupt):
        train_stage(*arguments)


@pytest.mark.parametrize(
    ("method", "options"), [("weight_squeezing", {"gated": True, "tied": True}), ("weight_distillation", {})]
)
def test_resume_is_bit_exact(
    method: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressor.training.trainer.SAVE_SECONDS", 0.0)
    whole = make_case(method, context_of(), options)
    stop_in_a_stage(whole, tmp_path / "whole")
    stop_in_a_stage(make_case(method, context_of(), options), tmp_path / "stopped", 5)
    resumed = make_case(method, context_of(), options)
    stop_in_a_stage(resumed, tmp_path / "stopped")
    assert is_same(state_of(whole.objective), state_of(resumed.objective))
    logs = [(tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8") for name in ("whole", "stopped")]
    assert logs[0] == logs[1] and all("loss" in json.loads(line) for line in logs[0].splitlines())
    assert json.dumps(finish(whole)) == json.dumps(finish(resumed))


def test_the_exact_loss_of_these_tests_is_a_mean_over_rows() -> None:
    context = inheriting_context(**SMALL)
    loss, batch = ExactLoss(context.student.double().eval()), inputs_of(context, 4)
    halves = [loss(**{name: each[part] for name, each in batch.items()})["square"] for part in (slice(2), slice(2, 4))]
    assert loss(**batch)["square"].item() == pytest.approx(sum(each.item() for each in halves) / 2, rel=1e-12)
