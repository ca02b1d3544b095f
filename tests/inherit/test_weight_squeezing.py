"""Weight Squeezing: the invariants of 2010.06993 and of what is ours (shared streams, heads, temperature)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.inherit.formula import pseudo_inverse
from compressor.inherit.starts import parts_of, trace
from compressor.student.student import temperature
from compressor.training.imitation import without_dropout
from compressor.training.registry import build_options
from tests.support.inheriting_cases import (
    ALL_MAPPED,
    FAMILIES,
    FULL,
    SMALL,
    difference,
    exactly,
    inheriting_context,
    inputs_of,
    mapped_teacher,
    objective_of,
    outputs_of,
    spoil,
    widened_context,
)
from tests.support.method_cases import Case, context_of, descend, make_case, state_of, tiny_model

METHOD = "weight_squeezing"
NARROWER = (8 / 12) ** 0.5  # of the queries of SMALL: heads of 8 dimensions, not 12
QUERY = "bert.encoder.layer.0.attention.self.query.weight"


@pytest.mark.parametrize("is_vocabulary_new", [True, False])
@pytest.mark.parametrize("options", [{}, ALL_MAPPED, {**ALL_MAPPED, "tied": True}, {"heads": False}], ids=str)
@pytest.mark.parametrize("model_type", FAMILIES)
def test_with_identities_at_equal_shape_the_student_is_the_teacher(
    model_type: str, options: dict[str, Any], is_vocabulary_new: bool
) -> None:
    """Under a changed vocabulary it is the teacher with its table replaced by the mapped one."""
    context = inheriting_context(model_type=model_type, is_vocabulary_new=is_vocabulary_new, inherits=True)
    objective, batch = spoil(objective_of(METHOD, context, options)), inputs_of(context)
    teacher = mapped_teacher(context)
    assert difference(outputs_of(objective.student, batch, objective.values()), outputs_of(teacher, batch)) < 1e-6
    exact = outputs_of(objective.double().student, batch, objective.values())
    assert exact.dtype == torch.float64
    assert difference(exact, outputs_of(teacher.double(), batch)) < 1e-12


@pytest.mark.parametrize("kind", ["classification", "embedding"])
def test_narrow_tables_stay_the_teachers_and_the_rest_is_mapped(kind: str) -> None:
    context = inheriting_context(kind, model_type="electra", inherits=True)
    objective, batch = spoil(objective_of(METHOD, context, ALL_MAPPED)).double(), inputs_of(context)
    values = objective.values()
    assert (
        difference(outputs_of(objective.student, batch, values), outputs_of(mapped_teacher(context).double(), batch))
        < 1e-12
    )
    tables = [each for each in objective.maps.maps if each.slot.role == "table"]
    assert len(tables) == 3 and not any(each.left or each.right for each in tables)
    assert all(torch.equal(values[each.slot.name], objective.maps.source(each.slot)[0]) for each in tables)


@pytest.mark.parametrize(
    "options", [{}, {"depth": "mixture", **ALL_MAPPED}, {"tied": True, "heads": False, "tables": "student"}], ids=str
)
def test_in_singular_coordinates_the_student_is_the_same_up_to_single_precision(
    options: dict[str, Any],
) -> None:
    """The singular vectors are multiplied into sides that are kept in float32, so not to the last bit of float64.

    A shared side stays in the teacher's coordinates, for it belongs to tensors of other singular vectors.
    """
    context = inheriting_context(inherits=True, **SMALL)
    batch, outputs = inputs_of(context), []
    for basis in ("teacher", "singular"):
        objective = spoil(objective_of(METHOD, context, {**options, "basis": basis}))
        outputs.append(outputs_of(objective.student, batch, objective.values()))
        is_singular = any(each.is_singular for each in objective.maps.maps)
        assert is_singular == (basis == "singular" and "tied" not in options)
    assert difference(*outputs) < 1e-5


@pytest.mark.parametrize("model_type", [*FAMILIES, "electra"])
def test_selecting_sides_give_sub_matrices_of_the_teacher_exactly(model_type: str) -> None:
    context = inheriting_context(model_type=model_type, **SMALL)
    ancestry = trace(context, context.student)
    kept = parts_of(context, ancestry)
    values = objective_of(METHOD, context, ALL_MAPPED).values()
    assert set(values) >= {slot.name for slot in ancestry.slots if len(slot.axes) == 2}
    for slot in ancestry.slots:
        if slot.name not in values:
            continue
        expected = ancestry.sources[slot.name][0]
        for position, axis in enumerate(slot.axes):
            if axis.along in ("", "embedding"):
                continue
            places = {"inner": kept.inner, "ffn": kept.units}.get(axis.along, [kept.coordinates])[axis.layer]
            expected = expected.index_select(position, torch.from_numpy(places))
        assert torch.equal(values[slot.name], expected * NARROWER if slot.role == "query" else expected), slot


@pytest.mark.parametrize("model_type", FAMILIES)
def test_by_default_a_student_starts_as_slicing_made_it(model_type: str) -> None:
    context = inheriting_context(model_type=model_type, inherits=True, **SMALL)
    batch = inputs_of(context)
    before = outputs_of(context.student, batch)
    objective = spoil(objective_of(METHOD, context))
    assert difference(outputs_of(objective.student, batch, objective.values()), before) < 1e-6


@pytest.mark.parametrize("model_type", FAMILIES)
def test_without_the_temperature_narrower_heads_lose_a_teacher_that_they_could_be(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads of 64 dimensions, of which 48 are zero, become heads of 16: the same, if scores keep their scale."""
    context, small = widened_context(4, 32, model_type)
    assert context.teacher is not None
    batch = inputs_of(context)
    teacher = outputs_of(context.teacher.double(), batch)
    context.teacher.float()
    options = {**ALL_MAPPED, "loss_options": {"hidden": 0.0}}
    for bias in ("classifier.bias", "classifier.out_proj.bias"):  # the one vector that is never mapped
        if bias in small.state_dict():
            context.student.load_state_dict({**context.student.state_dict(), bias: small.state_dict()[bias]})
    shapes = trace(context, context.student)
    assert temperature(shapes.teacher, shapes.student) == 0.5

    def squeezed() -> Tensor:
        objective = spoil(build({"basis": "teacher", **options})).double()
        return outputs_of(objective.student, batch, objective.values())

    def build(options: dict[str, Any]) -> Any:  # an Inheriting
        from compressor.methods.weight_squeezing import Objective, Options

        return Objective(context, Options(**options))

    assert difference(squeezed(), teacher) < 1e-12
    monkeypatch.setattr("compressor.methods.weight_squeezing.temperature", lambda *_: 1.0)
    assert difference(squeezed(), teacher) > 1e-3


def gated_case(gate: float, **options: Any) -> Case:
    case = make_case(METHOD, context_of(), {"gated": True, "gate": gate, "loss": "finetune", **options})
    without_dropout(case.objective.student)
    return case


@pytest.mark.parametrize("gate_by", ["tensor", "element"])
def test_an_open_gate_is_plain_fine_tuning_and_so_is_its_first_step(gate_by: str) -> None:
    """sigma(30) is 1 in float32, so the factor of the first update of W_0 is 1; narrower heads, own queries."""
    ours, theirs = gated_case(30.0, gate_by=gate_by), make_case("finetune", context_of())
    without_dropout(theirs.objective.student)
    batch = inputs_of(ours.context)
    plain = outputs_of(theirs.objective.student, batch)
    assert difference(outputs_of(ours.objective.student, batch, ours.objective.values()), plain) < 1e-6
    for case in (ours, theirs):
        optimizer = torch.optim.SGD([each for each in case.objective.parameters() if each.requires_grad], lr=0.5)
        case.objective(**case.collate(range(8)))["labels"].backward()
        if case is ours:
            case.objective.before_step(optimizer)
        optimizer.step()
    before = context_of().student.state_dict()
    own, trained = ours.objective.student.state_dict(), theirs.objective.student.state_dict()
    assert max(difference(own[name], trained[name]) for name in own) < 1e-6
    assert difference(trained[QUERY], before[QUERY]) > 1e-5


@pytest.mark.parametrize("gate", [-2.0, 0.3, 30.0])
def test_the_students_own_tensor_gets_its_gradient_times_the_gate(gate: float) -> None:
    objective = exactly(gated_case(gate).objective)
    objective(**inputs_of(context_of()))["square"].backward()
    given = {name: leaf.grad.clone() for name, leaf in objective.leaves.items()}
    objective.before_step(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
    opened = torch.sigmoid(torch.tensor(gate, dtype=torch.float32).double())
    own = objective.own()
    assert all(difference(own[name].grad, opened * each) < 1e-12 for name, each in given.items())
    assert QUERY in given and given[QUERY].any()


def test_a_closed_gate_is_plain_squeezing() -> None:
    ours = exactly(gated_case(-30.0).objective)
    theirs = exactly(make_case(METHOD, context_of(), {"loss": "finetune"}).objective)
    batch, gradients = inputs_of(context_of()), []
    for objective in (ours, theirs):
        objective(**batch)["square"].backward()
        objective.before_step(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
        gradients.append({name: each.grad for name, each in objective.maps.named_parameters() if "gate" not in name})
    found, expected = (outputs_of(each.student, batch, each.values()) for each in (ours, theirs))
    assert difference(found, expected) < 1e-11
    assert gradients[0].keys() == gradients[1].keys()
    assert all(difference(gradients[0][name], gradients[1][name]) < 1e-11 for name in gradients[0])


def test_gates_start_at_4_one_per_tensor_or_per_entry_and_are_trained() -> None:
    for gate_by in ("tensor", "element"):
        case = make_case(METHOD, context_of(), {"gated": True, "gate_by": gate_by})
        gates = {each.slot.name: case.objective.maps.value(each.gate) for each in case.objective.maps.maps}
        shapes = {name: each.shape for name, each in case.objective.student.state_dict().items()}
        assert all(gate.shape == (shapes[name] if gate_by == "element" else ()) for name, gate in gates.items())
        assert all((gate == 4.0).all() for gate in gates.values())
        descend(case, 2)
        assert all((gate != 4.0).any() for gate in gates.values())


def test_a_shared_stream_has_one_map_whose_inverse_still_inverts_it_after_training() -> None:
    case = make_case(METHOD, context_of(), {**ALL_MAPPED, "tied": True, "start": "principal"})
    maps = case.objective.maps
    along = {
        (name, axis.reads)
        for each in maps.maps
        for name, axis in zip((each.left, each.right), each.slot.axes, strict=False)
        if axis.along == "residual"
    }
    assert along == {("residual", True), ("residual/write", False)}
    start = maps.value("residual").detach().clone()
    descend(case, 10, rate=1e-2)
    read = maps.double().value("residual")
    assert read.shape == (16, 24) and difference(read, start) > 1e-2
    assert difference(pseudo_inverse(read) @ read.T, torch.eye(16)) < 1e-12
    assert difference(maps.value("residual/write"), torch.linalg.pinv(read.T)) < 1e-10


def test_heads_stay_apart_where_the_student_has_as_many_and_are_mixed_where_not() -> None:
    case = make_case(METHOD, context_of())
    descend(case, 5)
    sides = {each.slot.role: case.objective.maps.value(each.left) for each in case.objective.maps.maps if each.left}
    assert all(sides[role].shape == (2, 8, 12) for role in ("query", "key", "value")) and sides["ffn_in"].dim() == 2
    out = next(each for each in case.objective.maps.maps if each.slot.role == "attention_out")
    assert case.objective.maps.value(out.right).shape == (2, 8, 12)
    context = context_of()
    context.student.config.num_attention_heads = 4
    object.__setattr__(context, "student", tiny_model(context.student.config, seed=1))
    maps = make_case(METHOD, context).objective.maps
    query = next(each for each in maps.maps if each.slot.role == "query")
    assert maps.value(query.left).shape == (16, 24) and query.factor == pytest.approx((4 / 12) ** 0.5)
    sides = [name for each in maps.maps for name in (each.left, each.right) if name]
    assert all(maps.value(name).dim() == 2 for name in sides)


def test_a_mixture_starts_as_the_mean_of_adjacent_layers_and_only_groups_have_one() -> None:
    context = inheriting_context(hidden=24, layers=2)
    objective = objective_of(METHOD, context, {"depth": "mixture", "tables": "student"})
    assert context.teacher is not None
    theirs, values = context.teacher.state_dict(), objective.values()
    depths = {}
    for each in objective.maps.maps:
        expected = torch.stack([theirs[name] for name in each.slot.sources]).mean(dim=0)
        assert difference(values[each.slot.name], expected) < 1e-6
        assert bool(each.mixture) == (len(each.slot.sources) > 1)
        depths[each.slot.layer] = len(each.slot.sources)
    assert depths == {0: 2, 1: 1, -1: 1}


def test_tables_norms_and_biases_are_the_students_own_where_asked() -> None:
    def mapped(**options: Any) -> set[str]:
        return {each.slot.name for each in objective_of(METHOD, context_of(), options).maps.maps}

    state = state_of(context_of().student)
    matrices = {name for name, each in state.items() if each.dim() == 2}
    tables = {name for name in matrices if "embeddings" in name}
    norms = {name for name in state if "LayerNorm" in name}
    assert mapped() == matrices and mapped(tables="student") == matrices - tables
    assert mapped(map_layernorm=True) == matrices | norms
    assert mapped(**ALL_MAPPED) == set(state) - {"classifier.bias"}  # an axis of classes is no width


@pytest.mark.parametrize("start", ["selection", "orthonormal", "principal", "xavier"])
def test_every_start_trains(start: str) -> None:
    losses = descend(make_case(METHOD, context_of(), {"start": start}), 12, rate=1e-2)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("key", "value"), [("start", "pca"), ("depth", "mix"), ("tables", "own"), ("gate_by", "row"), ("basis", "svd")]
)
def test_an_unknown_word_is_refused_with_the_known_ones(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"'weight_squeezing' option {key} = '{value}', expected one of "):
        build_options(METHOD, {key: value})


def test_full_width_students_keep_the_queries_as_they_are() -> None:
    objective = objective_of(METHOD, inheriting_context(**FULL))
    assert {each.factor for each in objective.maps.maps} == {1.0}
    narrower = objective_of(METHOD, inheriting_context(**SMALL))
    assert {each.slot.role for each in narrower.maps.maps if each.factor != 1.0} == {"query"}
