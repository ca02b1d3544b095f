"""The wide network between compactors is the teacher, what goes is exactly zero, and the cut student is the same."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from compressor.inherit.compactors import MaskedLayerNorm, cut
from compressor.inherit.masks import Masks, find_groups
from compressor.models.families import family_of
from compressor.models.slots import find_slots
from compressor.training.contract import FoldError
from exporters.shape import Shape
from tests.support.inheriting_cases import (
    FAMILIES,
    SMALL,
    difference,
    inheriting_context,
    inputs_of,
    mapped_teacher,
    outputs_of,
    widened_context,
)
from tests.support.method_cases import context_of
from tests.support.narrowing_cases import cut_down, disturb, mlm_model, objective_of, stage_context

# (family, task, strategy, whether the vocabulary changes)
STAGES = [
    *((model_type, "classification", strategy, True) for model_type in FAMILIES for strategy in ("dim", "head")),
    *(("bert", "embedding", strategy, new) for strategy in ("dim", "head") for new in (True, False)),
    ("bert", "classification", "dim", False),
    ("electra", "classification", "dim", True),
    *((model_type, "mlm", strategy, False) for model_type in FAMILIES for strategy in ("dim", "head")),
]


SAME = [
    *((model_type, "classification", new) for model_type in (*FAMILIES, "electra") for new in (True, False)),
    *(("bert", "embedding", new) for new in (True, False)),
    *((model_type, "mlm", False) for model_type in FAMILIES),
]


@pytest.mark.parametrize(("model_type", "kind", "is_vocabulary_new"), SAME)
def test_at_the_identity_the_wide_network_is_the_teacher(model_type: str, kind: str, is_vocabulary_new: bool) -> None:
    if kind == "mlm":
        context = stage_context(model_type, kind, "dim", is_vocabulary_new)
        context = dataclasses.replace(context, student=mlm_model(model_type, 16, 3, 1))
    else:
        context = inheriting_context(kind, model_type=model_type, hidden=16, is_vocabulary_new=is_vocabulary_new)
    objective, teacher, batch = objective_of(context), mapped_teacher(context), inputs_of(context)
    assert difference(outputs_of(objective.student, batch, objective.values()), outputs_of(teacher, batch)) < 1e-6
    objective.double()
    exact = outputs_of(objective.student, batch, objective.values())
    assert difference(exact, outputs_of(teacher.double(), batch)) < 1e-12


@pytest.mark.parametrize(("model_type", "kind", "strategy", "is_vocabulary_new"), STAGES)
def test_the_cut_student_is_the_wide_network_with_zeros(
    model_type: str, kind: str, strategy: str, is_vocabulary_new: bool
) -> None:
    context = stage_context(model_type, kind, strategy, is_vocabulary_new)
    objective, batch = objective_of(context), inputs_of(context)
    shapes = {name: value.shape for name, value in context.student.state_dict().items()}
    disturb(objective)
    cut_down(objective)
    wide, kept = copy.deepcopy(objective.student), objective.masks.kept("residual")
    found = wide_outputs(objective, wide, batch, kept if kind == "embedding" else None)
    certificate = objective.finish([batch])
    assert certificate["outputs"]["float64"] < 1e-11
    assert objective.student is context.student
    assert difference(outputs_of(objective.student, batch), found) < 1e-5 * max(1.0, float(found.abs().max()))
    exact = double_cut(objective)
    student = copy.deepcopy(context.student).double()
    student.load_state_dict(exact)
    theirs = wide_outputs(objective.double(), wide.double(), batch, kept if kind == "embedding" else None)
    assert difference(outputs_of(student, batch), theirs) < 1e-12 * max(1.0, float(theirs.abs().max()))
    # Nothing but the student's own tensors survives.
    assert {name: value.shape for name, value in objective.student.state_dict().items()} == shapes
    assert not any(isinstance(module, MaskedLayerNorm) for module in objective.student.modules())


def wide_outputs(objective: Any, wide: Any, batch: dict[str, Tensor], kept: Tensor | None) -> Tensor:
    """Return the wide network's outputs; of its hidden states, where they are the outputs, the kept coordinates."""
    outputs = outputs_of(wide, batch, objective.values())
    return outputs if kept is None else outputs.view(-1, len(kept))[:, kept].flatten()


def double_cut(objective: Any) -> dict[str, Tensor]:
    """Return the student's tensors in float64."""
    wide = objective.inner.student
    own = {name: value.double() for name, value in wide.state_dict().items()}
    return objective._cut({**own, **objective.maps.fold({})})


@pytest.mark.parametrize(
    ("model_type", "kind"),
    [("electra", "classification"), *((each, kind) for each in FAMILIES for kind in ("classification", "mlm"))],
)
def test_what_goes_is_exactly_zero_after_every_layer_norm(model_type: str, kind: str) -> None:
    context = stage_context(model_type, kind, "dim", is_vocabulary_new=False)
    objective = objective_of(context)
    disturb(objective)
    cut_down(objective)
    seen: list[tuple[str, Tensor]] = []
    wide = objective.student.eval()
    for name, module in wide.named_modules():
        if isinstance(module, MaskedLayerNorm):
            module.register_forward_hook(lambda module, _, out, name=name: seen.append((name, out[..., ~module.kept])))
    outputs_of(wide, inputs_of(context), objective.values())
    # Two per layer, the embeddings' (ELECTRA's is of the narrow table), and that of a masked-language head.
    assert len({name for name, _ in seen}) == 4 + (model_type != "electra") + (kind == "mlm")
    assert all(values.shape[-1] == 8 and not values.any() for _, values in seen)


def test_statistics_are_those_of_the_kept_coordinates() -> None:
    norm = torch.nn.LayerNorm(6, eps=1e-3)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    ours, values = MaskedLayerNorm(norm), torch.randn(4, 6)
    assert torch.equal(ours(values), norm(values))
    kept = torch.tensor([True, True, False, True, False, False])
    ours.keep(kept)
    changed = values + torch.randn(4, 6) * ~kept * 100
    assert torch.equal(ours(values)[:, kept], ours(changed)[:, kept])
    theirs = torch.nn.functional.layer_norm(values[:, kept], (3,), norm.weight[kept], norm.bias[kept], norm.eps)
    torch.testing.assert_close(ours(values)[:, kept], theirs)
    ours.keep(torch.ones(6, dtype=torch.bool))
    assert torch.equal(ours(values), norm(values))


def test_the_embeddings_are_cut_by_one_compactor() -> None:
    objective = objective_of(stage_context("bert", "classification", "dim", True))
    disturb(objective)
    cut_down(objective)
    kept = objective.masks.kept("residual")
    folded, sources = double_cut(objective), {slot.name: slot for slot in objective.slots}
    compactor = objective.maps.value("embeddings/right").detach().double()
    names = [f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")]
    for name in names:
        rows = objective.maps.source(sources[name])[0].detach().double()  # (rows, teacher's width)
        torch.testing.assert_close(folded[name], (rows @ compactor.T)[:, kept])
    picked = sum(folded[name][1] for name in names)
    wide = sum(objective.maps.fold({})[name][1] for name in names)
    torch.testing.assert_close(picked, wide[kept])


@pytest.mark.parametrize("strategy", ["dim", "head"])
def test_all_tensors_along_a_width_lose_the_same_parts(strategy: str) -> None:
    objective = objective_of(stage_context("bert", "classification", strategy, True))
    disturb(objective)
    cut_down(objective)
    values, hidden = objective.values(), 16 if strategy == "dim" else 12
    seen: dict[str, set[tuple[int, ...]]] = {}
    own = objective.student.state_dict()
    for slot in objective.slots:
        value = values.get(slot.name, own[slot.name])
        for position, axis in enumerate(slot.axes):
            if axis.group:
                sums = value.abs().movedim(position, 0).flatten(1).sum(1) if value.dim() > 1 else value.abs()
                seen.setdefault(axis.group, set()).add(tuple(sums.nonzero().squeeze(1).tolist()))
    assert set(seen) == {"residual", "head", "inner.0", "inner.1", "ffn.0", "ffn.1"}
    assert all(len(sets) == 1 for sets in seen.values())
    found = {name: next(iter(sets)) for name, sets in seen.items()}
    assert {name: len(kept) for name, kept in found.items()} == {
        name: 2 * hidden if name.startswith("ffn") else hidden for name in seen
    }
    for layer in (0, 1):
        by_head = [sum(1 for index in found[f"inner.{layer}"] if index // 12 == head) for head in (0, 1)]
        assert sorted(by_head) == ([8, 8] if strategy == "dim" else [0, 12])


@pytest.mark.parametrize(("hidden", "n_parameters"), [(192, 11_334_720), (516, 54_703_740)])
def test_real_sizes_come_out_of_the_cut(hidden: int, n_parameters: int) -> None:
    teacher, ours = (
        Shape(vocab_size=30522, hidden=width, layers=12, heads=12, ffn=4 * width, positions=512)
        for width in (768, hidden)
    )
    with torch.device("meta"):
        models = [
            BertModel(BertConfig(hidden_size=each.hidden, intermediate_size=each.ffn)) for each in (teacher, ours)
        ]
    wide, narrow = ({name: tuple(value.shape) for name, value in model.state_dict().items()} for model in models)
    slots = find_slots(family_of("bert"), wide, wide, [(layer,) for layer in range(12)])
    masks = Masks(find_groups(slots, teacher, ours, "dim"))
    scores = {
        name: torch.rand(group.size, generator=torch.Generator().manual_seed(1)) for name, group in masks.groups.items()
    }
    masks.choose(scores, 16, dict.fromkeys(scores, 16))
    values = {name: torch.empty(1).expand(shape) for name, shape in wide.items()}
    found = {name: tuple(value.shape) for name, value in cut(values, slots, masks, 1.0).items()}
    assert found == narrow
    assert sum(torch.Size(shape).numel() for shape in found.values()) == n_parameters


def test_a_wide_copy_of_a_small_model_is_cut_back_to_it() -> None:
    """Heads of 64 become heads of 16: without the factor of the queries this is another model."""
    context, small = widened_context(times=4, hidden=32)
    objective = objective_of(context)
    objective.finish([inputs_of(context)])
    batch = inputs_of(context)
    assert difference(outputs_of(objective.student, batch), outputs_of(small, batch)) < 1e-5


def test_without_the_factor_of_the_queries_there_is_no_student(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.methods.weight_inheritance.temperature", lambda *_: 1.0)
    context, _ = widened_context(times=4, hidden=32)
    with pytest.raises(FoldError, match="outputs in float64 differ"):
        objective_of(context).finish([inputs_of(context)])


def test_an_activation_that_is_not_zero_at_zero_is_refused() -> None:
    context = inheriting_context(**SMALL)
    assert context.teacher is not None
    context.teacher.config.hidden_act = "sigmoid"
    with pytest.raises(ValueError, match=r"activation 'sigmoid' is 0.5 at 0, expected 0 there"):
        objective_of(context)


def test_a_student_that_cannot_be_cut_out_is_refused() -> None:
    context = context_of(model_type="electra")
    config = copy.deepcopy(context.student.config)
    config.embedding_size = 8
    other = dataclasses.replace(context, student=type(context.student)(config))
    with pytest.raises(ValueError, match=r"leaves 150 x 12 of the teacher's tensor .*word_embeddings.*has 150 x 8"):
        objective_of(other)
