"""What an objective may do around the steps of a stage: its own gradients, decay, scores, and its plain student."""

from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.methods import finetune
from compressor.training.callbacks import last_checkpoint
from compressor.training.trainer import Optimisation, StageTrainer, train_stage
from tests.support.method_cases import Case, context_of, make_case, state_of
from tests.support.training import ByAutograd, ByHand, descent


def case_of(kind: type[finetune.Objective], monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr(finetune, "Objective", kind)
    monkeypatch.setattr("compressor.training.trainer.has_fast_bfloat16", lambda: False)
    return make_case("finetune", context_of())


def train(
    case: Case, folder: Path, *, micro_batch: int | None = None, stop_at: int = 0, rate: float = 1e-2
) -> list[dict[str, Any]]:
    """Train three epochs of three steps."""

    def progress(step: int, _total: int) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    optimisation = Optimisation(3.0, rate, 8, 0.0, 0.01, 7, micro_batch)
    return train_stage(case.objective, case.rows, case.collate, optimisation, folder, None, progress)


@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize("loss_factor", [0.1, 100.0])  # gradients below and far above the limit of their norm
def test_gradients_set_before_the_step_train_as_autograd_would(
    micro_batch: int | None, loss_factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ByAutograd, "loss_factor", loss_factor)
    monkeypatch.setattr(StageTrainer, "create_optimizer", descent)
    ours, theirs = case_of(ByHand, monkeypatch), case_of(ByAutograd, monkeypatch)
    start = float(ours.objective.factor.detach())
    both = ((ours, "our"), (theirs, "their"))
    logs = [train(case, tmp_path / name, micro_batch=micro_batch, rate=0.1) for case, name in both]
    expected, found = state_of(theirs.objective), state_of(ours.objective)
    assert all(torch.allclose(expected[name], found[name], atol=1e-5) for name in expected)
    assert abs(float(ours.objective.factor.detach()) - start) > 5e-4
    norms = [[line["grad_norm"] for line in log if "grad_norm" in line] for log in logs]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    assert max(norms[0]) < 1 if loss_factor < 1 else min(norms[0]) > 1


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_the_hooks_are_called_once_a_step_and_clipping_comes_between(
    micro_batch: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ByAutograd, "loss_factor", 100.0)
    case = case_of(ByHand, monkeypatch)
    train(case, tmp_path, micro_batch=micro_batch)
    events = case.objective.events
    assert [name for name, _ in events] == ["begin", *["before", "after", "rate"] * 9]
    assert events[0] == ("begin", 9)
    for name, value in events[1:]:
        if name == "before":
            assert value[1e-2] > 2
        elif name == "after":
            assert value == {1e-2: pytest.approx(1.0, rel=1e-3)}
    rates = [value for name, value in events if name == "rate"]
    assert rates == pytest.approx([1e-2 * (1 - step / 9) for step in range(9)])  # of the step that was taken


def test_every_learning_rate_is_clipped_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ByAutograd, "loss_factor", 1000.0)
    monkeypatch.setattr(ByHand, "rate_of", lambda _self, name: 1e-4 if name == "factor" else None, raising=False)
    case = case_of(ByHand, monkeypatch)
    train(case, tmp_path)
    after = [value for name, value in case.objective.events if name == "after"]
    assert len(after) == 9
    for value in after:
        assert value == {1e-2: pytest.approx(1.0, rel=1e-3), 1e-4: pytest.approx(1.0, rel=1e-3)}


def test_a_stage_that_resumes_begins_again_and_ends_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressor.training.trainer.SAVE_SECONDS", 0.0)  # a checkpoint after every step
    undisturbed = case_of(ByHand, monkeypatch)
    train(undisturbed, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(case_of(ByHand, monkeypatch), tmp_path / "stopped", stop_at=5)
    assert last_checkpoint(tmp_path / "stopped") is not None
    resumed = case_of(ByHand, monkeypatch)
    train(resumed, tmp_path / "stopped")
    assert [name for name, _ in resumed.objective.events] == ["begin", *["before", "after", "rate"] * 5]
    assert resumed.objective.events[0] == ("begin", 9)
    expected, found = state_of(undisturbed.objective), state_of(resumed.objective)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert int(found["n_done"]) == 9
    logs = [(tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8") for name in ("whole", "stopped")]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("has_rates", [False, True])
def test_parameters_without_decay_are_those_the_objective_names_beside_biases(
    has_rates: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ByHand, "is_undecayed", lambda _self, name: "query" in name, raising=False)
    if has_rates:
        monkeypatch.setattr(ByHand, "rate_of", lambda _self, name: 1e-4 if name == "factor" else None, raising=False)
    made: list[torch.optim.Optimizer] = []
    create = StageTrainer.create_optimizer
    monkeypatch.setattr(StageTrainer, "create_optimizer", lambda *given: made.append(create(*given)) or made[-1])
    case = case_of(ByHand, monkeypatch)
    train(case, tmp_path)
    names = {id(value): name for name, value in case.objective.named_parameters() if value.requires_grad}
    found = {
        names[id(value)]: (group["initial_lr"], group["weight_decay"])
        for group in made[0].param_groups
        for value in group["params"]
    }
    assert found.keys() == set(names.values())
    for name, (rate, decay) in found.items():
        assert rate == (1e-4 if has_rates and name == "factor" else 1e-2)
        assert decay == (0.0 if name.endswith("bias") or "LayerNorm" in name or "query" in name else 0.01), name
