"""Weight Distillation: the invariants of 2009.09152 and of our starts."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.models.slots import group_layers
from compressor.training.contract import Context
from compressor.training.registry import build_options
from compressor.training.trainer import Optimisation, train_stage
from tests.support.inheriting_cases import (
    FAMILIES,
    FULL,
    SMALL,
    difference,
    inheriting_context,
    inputs_of,
    mapped_teacher,
    objective_of,
    outputs_of,
    spoil,
)
from tests.support.method_cases import (
    context_of,
    descend,
    finish,
    is_same,
    make_case,
    state_of,
    tiny_config,
    tiny_model,
)

METHOD = "weight_distillation"
PUBLISHED = {"start": "xavier", "layer_start": "xavier", "match": False}
NARROWER = (8 / 12) ** 0.5  # of the queries of SMALL: heads of 8 dimensions, not 12


@pytest.mark.parametrize("is_vocabulary_new", [True, False])
@pytest.mark.parametrize("options", [{}, {"match": False}, {"tied_bias": True}, {"heads": True}], ids=str)
@pytest.mark.parametrize("model_type", [*FAMILIES, "electra"])
def test_without_tanh_identities_at_equal_shape_give_the_teacher(
    model_type: str, options: dict[str, Any], is_vocabulary_new: bool
) -> None:
    """Under a changed vocabulary it is the teacher with its table replaced by the mapped one."""
    context = inheriting_context(model_type=model_type, is_vocabulary_new=is_vocabulary_new, inherits=True)
    objective, batch = spoil(objective_of(METHOD, context, {**options, "squash": "identity"})), inputs_of(context)
    teacher = mapped_teacher(context)
    assert difference(outputs_of(objective.student, batch, objective.values()), outputs_of(teacher, batch)) < 1e-6
    exact = outputs_of(objective.double().student, batch, objective.values())
    assert difference(exact, outputs_of(teacher.double(), batch)) < 1e-12


@pytest.mark.parametrize("model_type", FAMILIES)
def test_with_tanh_and_without_matching_every_tensor_is_the_tanh_of_the_teachers(model_type: str) -> None:
    """So identities do not give the teacher back: W - W_t is about -W_t^3 / 3, and gains of 1 start at 0.76."""
    context = inheriting_context(model_type=model_type, **FULL)
    teacher = mapped_teacher(context).state_dict()
    values = objective_of(METHOD, context, {"match": False}).values()
    assert values.keys() == teacher.keys()
    assert all(torch.equal(value, torch.tanh(teacher[name])) for name, value in values.items())
    small = {name: teacher[name].abs().max() < 0.5 for name in values}
    assert any(small.values())
    assert all(difference(value, teacher[name]) < 0.5**3 / 3 for name, value in values.items() if small[name])


@pytest.mark.parametrize("inherits", [True, False])
@pytest.mark.parametrize("model_type", [*FAMILIES, "electra"])
def test_matched_vectors_start_where_the_student_stands(model_type: str, inherits: bool) -> None:
    """Through B, and gains through S = g / tanh(g), so that they stay within reach of the teacher's."""
    context = inheriting_context(model_type=model_type, inherits=inherits, **SMALL)
    before = state_of(context.student)
    objective = objective_of(METHOD, context)
    values = objective.values()
    vectors = [each for each in objective.maps.maps if before[each.slot.name].dim() == 1]
    assert len(vectors) == len([name for name, each in before.items() if each.dim() == 1])
    assert max(difference(values[each.slot.name], before[each.slot.name]) for each in vectors) < 1e-6
    gains = [each for each in vectors if each.slot.is_norm and not each.slot.is_bias]
    assert max(difference(objective.maps.value(each.shift), torch.zeros(1)) for each in gains) < 1e-6
    matrices = [each for each in objective.maps.maps if each not in vectors]
    assert all((objective.maps.value(each.scale) == 1).all() for each in matrices)
    assert not any(objective.maps.value(each.shift).any() for each in matrices)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_without_tanh_a_student_of_the_teachers_depth_starts_as_slicing_made_it(model_type: str) -> None:
    """A shallower one does not: slicing takes one layer of a group, the generator its mean."""
    context = inheriting_context(model_type=model_type, hidden=16, layers=3, inherits=True)
    batch = inputs_of(context)
    before = outputs_of(context.student, batch)
    objective = spoil(objective_of(METHOD, context, {"squash": "identity"}))
    assert difference(outputs_of(objective.student, batch, objective.values()), before) < 1e-5


def test_a_scale_of_zero_gives_the_shift_whoever_the_teacher_is() -> None:
    """B itself where heads keep their size; the queries of narrower heads are B times their temperature."""
    found = []
    for seed in (0, 9):
        context = context_of()
        other = tiny_model(tiny_config("bert", context.teacher.config.vocab_size, 24, 3), seed=seed)  # type: ignore[union-attr]
        maps = objective_of(METHOD, dataclasses.replace(context, teacher=other), {"match": False}).maps
        with torch.no_grad():
            for number, each in enumerate(maps.maps):
                maps.value(each.scale).zero_()
                maps.value(each.shift).normal_(generator=torch.Generator().manual_seed(number))
        values = maps({})
        for each in maps.maps:
            assert each.factor == (pytest.approx(NARROWER) if each.slot.role == "query" else 1.0)
            assert torch.equal(values[each.slot.name], maps.value(each.shift) * each.factor)
        torch.stack([value.sum() for value in values.values()]).sum().backward()
        cut = [each.left for each in maps.maps if each.left] + [each.mixture for each in maps.maps]
        assert not any(maps.gradient(name).any() for name in cut)  # type: ignore[union-attr]
        found.append(values)
    assert is_same(*found)


def test_generated_tensors_stay_within_their_scale_of_their_shift() -> None:
    """|W - B| <= |S|, for queries of narrower heads |W / f - B| <= |S|."""
    case = make_case(METHOD, context_of(), PUBLISHED)
    descend(case, 8, rate=3e-2)
    values, maps = case.objective.values(), case.objective.maps
    for each in maps.maps:
        away = (values[each.slot.name] / each.factor - maps.value(each.shift)).abs()
        assert (away <= maps.value(each.scale).abs() + 1e-6).all(), each


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_groups_of_layers_stand_behind_each_layer_with_equal_coefficients_that_sum_to_1(n_layers: int) -> None:
    maps = objective_of(METHOD, context_of(layers=n_layers)).maps
    groups = group_layers(3, n_layers)
    for each in maps.maps:
        coefficients = maps.value(each.layer_map) @ maps.value(each.mixture)
        n_sources = 1 if each.slot.layer < 0 else len(groups[each.slot.layer])
        assert coefficients.shape == (n_sources,) and len(set(coefficients.tolist())) == 1
        assert float(coefficients.detach().sum()) == pytest.approx(1.0, abs=1e-6)
        if each.slot.layer >= 0:
            layers = [int(source.split(".layer.")[1].split(".")[0]) for source in each.slot.sources]
            assert tuple(layers) == groups[each.slot.layer]


def test_the_published_start_draws_maps_and_layers_by_xavier_and_leaves_s_and_b_plain() -> None:
    """Its coefficients are random with mean 0, not an average."""
    maps = objective_of(METHOD, context_of(layers=1), PUBLISHED).maps
    sums = []
    for each in maps.maps:
        assert (maps.value(each.scale) == 1).all() and not maps.value(each.shift).any()
        assert torch.allclose(maps.value(each.mixture), torch.tensor(1 / len(each.slot.sources)))
        sums.append(float((maps.value(each.layer_map) @ maps.value(each.mixture)).detach().sum()))
        if each.left and len(each.slot.axes) == 2:
            side = maps.value(each.left).detach()
            assert float(side.std()) == pytest.approx((2 / sum(side.shape)) ** 0.5, rel=0.2)
    assert min(sums) < 0 < max(sums)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_a_matrixs_generator_has_the_published_number_of_parameters(n_layers: int) -> None:
    """o_t o_s + i_t i_s + n^2 + n + 2 o_s i_s for a group of n layers; a vector has no i, a table no o."""
    objective = objective_of(METHOD, context_of(layers=n_layers))
    shapes = {name: tuple(each.shape) for name, each in objective.student.state_dict().items()}
    total = 0
    for each in objective.maps.maps:
        ours, n, theirs = shapes[each.slot.name], len(each.slot.sources), objective.maps.source(each.slot).shape[1:]
        sides = sum(a * b for a, b, axis in zip(ours, theirs, each.slot.axes, strict=True) if axis.along)
        expected = sides + n * n + n + 2 * torch.Size(ours).numel()
        names = [each.left, each.right, each.mixture, each.layer_map, each.scale, each.shift]
        assert sum(objective.maps.value(name).numel() for name in names if name) == expected, each
        assert [bool(each.left), bool(each.right)][: len(ours)] == [bool(axis.along) for axis in each.slot.axes]
        total += expected
    assert total == sum(each.numel() for each in objective.maps.parameters())  # nothing is shared


def test_a_tied_bias_has_the_map_of_its_matrix_and_norms_keep_their_own() -> None:
    maps = objective_of(METHOD, context_of(), {"tied_bias": True}).maps
    lefts = {each.slot.name: each.left for each in maps.maps if each.left}
    biases = [each.slot for each in maps.maps if each.slot.is_bias and each.left]
    assert len(biases) > 10
    for slot in biases:
        owner = slot.name if slot.is_norm else f"{slot.name.removesuffix('bias')}weight"
        assert lefts[slot.name] == f"{owner}/left"


def test_tables_of_the_students_own_are_left_alone_and_trained_directly() -> None:
    case = make_case(METHOD, context_of(), {"tables": "student"})
    table = case.objective.student.get_input_embeddings().weight
    assert table.requires_grad and not any(each.slot.role == "table" for each in case.objective.maps.maps)
    before = table.detach().clone()
    descend(case, 2)
    assert difference(table, before) > 1e-4


@pytest.mark.parametrize("options", [{}, {"depth": 2}, {"tied_bias": True}], ids=str)
def test_in_singular_coordinates_the_student_is_the_same_up_to_single_precision(options: dict[str, Any]) -> None:
    options = dict(options)
    context = inheriting_context(inherits=True, hidden=16, layers=options.pop("depth", 3))
    values = [objective_of(METHOD, context, {**options, "basis": basis}).values() for basis in ("teacher", "singular")]
    assert values[0].keys() == values[1].keys()
    assert max(difference(values[0][name], values[1][name]) for name in values[0]) < 1e-5


def phase(method: str, context: Context, folder: Path, options: dict[str, Any] | None = None) -> Any:  # a Case
    """Train a stage of two epochs and end it; return it with its log."""
    case = make_case(method, context, options)
    optimisation = Optimisation(2.0, 1e-2, 8, 0.5, 0.01, 7)
    log = train_stage(case.objective, case.rows, case.collate, optimisation, folder, None, lambda *_: None)
    return case, log


def test_the_second_phase_begins_where_the_first_one_ended_with_a_fresh_optimizer_and_warm_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes over the weights and nothing else: from a copy of them it is the same training, bit for bit."""
    monkeypatch.setattr("compressor.training.trainer.LOG_EVERY", 1)
    first, first_log = phase(METHOD, inheriting_context(**SMALL), tmp_path / "first")
    batch = inputs_of(first.context)
    last_score = outputs_of(first.objective.scored(), batch)
    finish(first)
    student = first.objective.student
    copied = inheriting_context(**SMALL)
    copied.student.load_state_dict(state_of(student))
    taken_over = dataclasses.replace(first.context, student=student)
    assert difference(outputs_of(student, batch), last_score) < 1e-5
    ours, ours_log = phase("distill", taken_over, tmp_path / "ours")
    theirs, theirs_log = phase("distill", copied, tmp_path / "theirs")
    assert is_same(state_of(ours.objective), state_of(theirs.objective)) and ours_log[:-1] == theirs_log[:-1]
    rates = [[line["learning_rate"] for line in log if "learning_rate" in line] for log in (first_log, ours_log)]
    assert rates[0] == rates[1] and rates[1][0] < 0.5 * max(rates[1]) and rates[0][-1] < max(rates[0])


@pytest.mark.parametrize(
    ("key", "value"), [("start", "pca"), ("layer_start", "mean"), ("squash", "relu"), ("tables", "own")]
)
def test_an_unknown_word_is_refused_with_the_known_ones(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"'weight_distillation' option {key} = '{value}', expected one of "):
        build_options(METHOD, {key: value})


def test_the_published_start_trains_too() -> None:
    losses = descend(make_case(METHOD, context_of(), PUBLISHED), 15, rate=1e-2)
    assert losses[-1] < 0.9 * losses[0]
