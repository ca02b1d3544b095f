"""Patient distillation: its loss against one written by hand, and the students and stages that it trains."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.models.families import n_passes
from compressor.scoring.losses import unit_mse
from compressor.training.contract import Context, model_inputs
from compressor.training.trainer import Optimisation, train_stage
from exporters.repetition import pattern
from tests.support.inheriting_cases import SMALL, inheriting_context
from tests.support.method_cases import (
    FIRST_LAYERS,
    TEACHER_HIDDEN,
    context_of,
    descend,
    finish,
    is_same,
    make_case,
    state_of,
)


def loss_by_hand(
    ours: tuple[np.ndarray, list[np.ndarray]], theirs: tuple[np.ndarray, list[np.ndarray]], labels: np.ndarray,
    alpha: float, temperature: float, beta: float,
) -> float:  # fmt: skip
    """Return (1-alpha) CE + alpha T^2 KL_batchmean + beta MSE of unit states, in numpy and float64."""

    def log_softmax(values: np.ndarray) -> np.ndarray:
        return values - np.log(np.exp(values).sum(axis=1, keepdims=True))

    (logits, states), (their_logits, their_states) = ours, theirs
    hard = -log_softmax(logits)[np.arange(len(labels)), labels].mean()
    soft, target = log_softmax(logits / temperature), log_softmax(their_logits / temperature)
    divergence = (np.exp(target) * (target - soft)).sum() / len(labels)
    squares = [
        (left / np.linalg.norm(left, axis=1, keepdims=True) - right / np.linalg.norm(right, axis=1, keepdims=True)) ** 2
        for left, right in zip(states, their_states, strict=True)
    ]
    patience = np.mean([square.mean() for square in squares]) if squares else 0.0
    return float((1 - alpha) * hard + alpha * temperature**2 * divergence + beta * patience)


def repeated(context: Context, repeat: str) -> Context:
    """Return the context with a student of the same stored weights whose layers repeat."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    import exporters.repeats  # noqa: F401 - registers the architectures whose layers repeat

    config = context.student.config
    found = pattern(repeat, config.num_hidden_layers)
    numbers = {name: value for name, value in config.to_dict().items() if name != "model_type"}
    kind = f"repeated-{config.model_type}"
    own = AutoConfig.for_model(kind, **numbers, passes=list(found.passes), exchanged=list(found.exchanged))
    student = AutoModelForSequenceClassification.from_config(own).train()
    student.load_state_dict(context.student.state_dict())
    return dataclasses.replace(context, student=student)


class TestLoss:
    @pytest.mark.parametrize("options", [{}, {"alpha": 0.3, "temperature": 2.0, "beta": 7.0}, {"layers": [2]}])
    @pytest.mark.parametrize("hidden", [16, TEACHER_HIDDEN])
    def test_it_is_the_one_written_by_hand_in_float64(self, options: dict[str, Any], hidden: int) -> None:
        context = context_of(hidden=hidden)
        case = make_case("patient", context, options)
        batch = case.collate(range(8))
        objective = case.objective.double().eval()
        batch["teacher_first"] = torch.randn(8, len(FIRST_LAYERS), TEACHER_HIDDEN, dtype=torch.float64)
        with torch.no_grad():
            terms = objective(**batch)
            output = objective.student(**model_inputs(batch), output_hidden_states=True)
            states = [objective.projections[0](output.hidden_states[1][:, 0]).numpy()]
        place = FIRST_LAYERS.index(options.get("layers", [1])[0] + 1)  # halves up: 1.5 of 3 layers is the second
        chosen = case.options
        expected = loss_by_hand(
            (output.logits.numpy(), states),
            (batch["teacher_output"].double().numpy(), [batch["teacher_first"][:, place].numpy()]),
            batch["labels"].numpy(), chosen.alpha, chosen.temperature, chosen.beta,
        )  # fmt: skip
        assert float(sum(terms.values())) == pytest.approx(expected, rel=1e-5)  # logits are compared in float32
        assert set(terms) == {"logits", "labels", "patience"}

    def test_the_term_of_states_is_exact_in_float64_and_means_over_layers(self) -> None:
        torch.manual_seed(0)
        ours, theirs = torch.randn(2, 5, 4, 7, dtype=torch.float64)
        labels, logits = np.zeros(5, dtype=int), np.zeros((5, 3))
        left, right = ([each.numpy() for each in states.unbind(1)] for states in (ours, theirs))
        expected = loss_by_hand((logits, left), (logits, right), labels, 1.0, 1.0, 1.0)
        assert unit_mse(ours, theirs).item() == pytest.approx(expected, rel=1e-12)
        assert unit_mse(ours, -3 * ours).item() == pytest.approx(4 / 7)

    def test_a_student_that_is_its_teacher_loses_nothing(self) -> None:
        case = make_case("patient", context_of(hidden=TEACHER_HIDDEN), {"alpha": 1.0})
        batch = case.collate(range(6))
        case.objective.eval()
        with torch.no_grad():
            output = case.objective.student(**model_inputs(batch), output_hidden_states=True)
            batch["teacher_output"] = output.logits
            first = [output.hidden_states[min(layer, 2) if layer != 2 else 1][:, 0] for layer in FIRST_LAYERS]
            batch["teacher_first"] = torch.stack(first, dim=1)
            terms = case.objective(**batch)
        assert set(terms) == {"logits", "patience"}
        assert all(abs(value.item()) < 1e-6 for value in terms.values())

    def test_without_alpha_and_beta_it_is_plain_cross_entropy(self) -> None:
        ours = make_case("patient", context_of(), {"alpha": 0.0, "beta": 0.0})
        theirs = make_case("finetune", context_of())
        for each in (ours, theirs):
            each.objective.eval()
        batch = ours.collate(range(6))
        terms = ours.objective(**batch)
        assert terms.keys() == {"labels"}
        assert torch.equal(terms["labels"], theirs.objective(**batch)["labels"])

    def test_a_score_has_squared_errors_and_patience(self) -> None:
        case = make_case("patient", context_of("regression"), {"alpha": 0.25})
        case.objective.eval()
        batch = case.collate(range(6))
        with torch.no_grad():
            terms, logits = case.objective(**batch), case.objective.student(**model_inputs(batch)).logits
        expected = 0.25 * (logits - batch["teacher_output"]).square().mean()
        assert terms["logits"].item() == pytest.approx(expected.item(), rel=1e-6)
        expected = 0.75 * (logits.squeeze(-1) - batch["labels"]).square().mean()
        assert terms["labels"].item() == pytest.approx(expected.item(), rel=1e-6)
        assert terms["patience"] > 0

    def test_an_encoder_has_the_terms_of_embeddings_and_patience(self) -> None:
        case = make_case("patient", context_of("embedding"))
        assert set(case.objective(**case.collate(range(6)))) == {"embedding", "similarity", "patience"}


class TestStudents:
    def test_a_student_of_one_pass_has_no_term_and_returns_no_states(self) -> None:
        case = make_case("patient", context_of(layers=1))
        assert set(case.objective(**case.collate(range(4)))) == {"logits", "labels"}
        assert not list(case.objective.projections)

    @pytest.mark.parametrize(("hidden", "n_maps"), [(16, 3), (TEACHER_HIDDEN, 0)])
    def test_a_repeated_student_has_a_pair_for_each_pass_but_the_last(self, hidden: int, n_maps: int) -> None:
        context = repeated(context_of(hidden=hidden), "all")
        case = make_case("patient", context)
        assert n_passes(context.student.config) == 4
        assert case.objective.passes == [0, 1, 2] and case.objective.places == [0, 1, 1]
        maps = [each for each in case.objective.projections if isinstance(each, torch.nn.Linear)]
        assert [tuple(each.weight.shape) for each in maps] == [(TEACHER_HIDDEN, hidden)] * n_maps
        batch = case.collate(range(6))
        case.objective.eval()
        with torch.no_grad():
            states = case.objective.student(**model_inputs(batch), output_hidden_states=True).hidden_states
            ours = [map_(states[run][:, 0]) for run, map_ in zip((1, 2, 3), case.objective.projections, strict=True)]
            theirs = [batch["teacher_first"][:, place].float() for place in (0, 1, 1)]
            expected = np.mean([unit_mse(*both).item() for both in zip(ours, theirs, strict=True)])
            assert len(states) == 5
            assert case.objective(**batch)["patience"].item() == pytest.approx(100 * expected, rel=1e-5)

    def test_projections_are_trained_and_are_no_part_of_the_student(self) -> None:
        case = make_case("patient", context_of())
        before = state_of(case.objective.projections)
        names = set(case.context.student.state_dict())
        descend(case, 2)
        assert not is_same(before, state_of(case.objective.projections))
        assert set(case.objective.student.state_dict()) == names

    def test_bfloat16_comes_close_to_float32(self) -> None:
        case = make_case("patient", context_of())
        case.objective.eval()
        batch = case.collate(range(8))
        with torch.no_grad():
            exact = case.objective(**batch)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                coarse = case.objective(**batch)
        for name, value in exact.items():
            assert coarse[name].dtype == torch.float32
            assert coarse[name].item() == pytest.approx(value.item(), rel=0.05, abs=0.02)

    @pytest.mark.parametrize(
        ("method", "options"),
        [("weight_squeezing", {}), ("weight_distillation", {"basis": "teacher"}), ("weight_inheritance", {})],
    )
    def test_it_trains_weights_that_are_made_of_the_teachers(self, method: str, options: dict[str, Any]) -> None:
        case = make_case(method, inheriting_context(**SMALL), {"loss": "patient", **options})
        assert "patience" in case.objective(**case.collate(range(6)))
        losses = descend(case, 12)
        assert losses[-1] < losses[0]
        finish(case)

    def test_resume_is_bit_exact(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("compressor.training.trainer.SAVE_SECONDS", 0.0)  # a checkpoint after every step

        def train(folder: Path, stop_at: int = 0) -> dict[str, torch.Tensor]:
            def progress(step: int, _total: int) -> None:
                if step == stop_at:
                    raise KeyboardInterrupt

            case = make_case("patient", context_of(), {"dropout": 0.1})
            train_stage(case.objective, case.rows, case.collate, Optimisation(3.0, 1e-3, 8, 0.1, 0.01, 7), folder, None,
                        progress)  # fmt: skip
            return state_of(case.objective)

        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "stopped", stop_at=5)
        assert is_same(train(tmp_path / "whole"), train(tmp_path / "stopped"))
