"""Which teacher tensors stand behind each tensor of a student, and what its axes run over."""

from itertools import pairwise
from types import MappingProxyType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.inherit.formula import LearnedMap
from compressor.inherit.learned import MapSet
from compressor.models.families import Family, family_of
from compressor.models.slots import ROLE_AXES, Axis, Slot, find_slots, group_layers, pick_layers, prefix_of
from tests.support.method_cases import MODEL_TYPES, TEACHER_HIDDEN, TEACHER_LAYERS, tiny_config, tiny_model

STUDENT_HIDDEN, VOCABULARY = 16, 40
KINDS = ("classification", "regression", "embedding")
WRITERS = {"attention_out", "attention_norm", "ffn_out", "ffn_norm", "embedding_norm", "embedding_project", "table"}
READERS = {"query", "key", "value", "ffn_in", "head_dense"}
Shapes = dict[str, tuple[int, ...]]


@st.composite
def depths(draw: st.DrawFn) -> tuple[int, int]:
    n_teacher = draw(st.integers(1, 48))
    return n_teacher, draw(st.integers(1, n_teacher))


@given(depths())
def test_picked_layers_rise_strictly_and_end_with_the_last(depth: tuple[int, int]) -> None:
    n_teacher, n_student = depth
    layers = pick_layers(n_teacher, n_student)
    assert len(layers) == n_student and layers[-1] == n_teacher - 1 and layers[0] >= 0
    assert all(first < second for first, second in pairwise(layers))


@given(depths())
def test_groups_are_contiguous_disjoint_ordered_cover_all_layers_and_are_even(depth: tuple[int, int]) -> None:
    n_teacher, n_student = depth
    groups = group_layers(n_teacher, n_student)
    assert len(groups) == n_student and all(groups)
    assert [layer for group in groups for layer in group] == list(range(n_teacher))
    sizes = {len(group) for group in groups}
    assert max(sizes) - min(sizes) <= 1
    assert n_teacher % n_student or sizes == {n_teacher // n_student}  # as published where it divides
    assert [group[-1] for group in groups] == pick_layers(n_teacher, n_student)


@given(st.integers(1, 48))
def test_at_equal_depth_every_layer_has_its_own(n_layers: int) -> None:
    assert pick_layers(n_layers, n_layers) == list(range(n_layers))
    assert group_layers(n_layers, n_layers) == [(layer,) for layer in range(n_layers)]


@pytest.mark.parametrize("choose", [pick_layers, group_layers])
@pytest.mark.parametrize("n_student", [0, 7])
def test_a_deeper_student_and_one_without_layers_are_refused(choose: Any, n_student: int) -> None:
    with pytest.raises(
        ValueError, match=rf"student: layers={n_student}, expected 1 to the teacher's 6. Use --layers 6"
    ):
        choose(6, n_student)


def shapes_of(model: torch.nn.Module) -> Shapes:
    return {name: tuple(each.shape) for name, each in model.state_dict().items()}


def tiny_shapes(model_type: str, kind: str) -> tuple[Shapes, Shapes]:
    """Return the shapes of a student and of a teacher that has more of everything."""
    n_labels = 1 if kind == "regression" else 3
    student = tiny_config(model_type, VOCABULARY, STUDENT_HIDDEN, 2, n_labels, max_position_embeddings=50)
    teacher = tiny_config(model_type, VOCABULARY + 20, TEACHER_HIDDEN, TEACHER_LAYERS, n_labels)
    return shapes_of(tiny_model(student, kind)), shapes_of(tiny_model(teacher, kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_tensor_has_a_slot_whose_axes_have_the_width_of_their_kind(model_type: str, kind: str) -> None:
    ours, theirs = tiny_shapes(model_type, kind)
    slots = find_slots(family_of(model_type), ours, theirs, group_layers(TEACHER_LAYERS, 2))
    assert [slot.name for slot in slots] == list(ours)
    for hidden, shape_of in ((STUDENT_HIDDEN, lambda slot: [ours[slot.name]]), (TEACHER_HIDDEN, sources_in(theirs))):
        widths = {"residual": hidden, "inner": hidden, "ffn": 2 * hidden, "head": hidden, "embedding": 12}
        for slot in slots:
            for shape in shape_of(slot):
                found = {axis.along: size for axis, size in zip(slot.axes, shape, strict=True) if axis.along}
                assert found == {kind: widths[kind] for kind in found}, slot
    classes = [slot.name for slot in slots if slot.axes[0].along == "" and slot.role != "table"]
    assert [name.rpartition(".")[2] for name in classes] == ([] if kind == "embedding" else ["weight", "bias"])


def sources_in(theirs: Shapes) -> Any:  # a function of a slot
    return lambda slot: [theirs[source] for source in slot.sources]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_roles_write_into_the_residual_stream_or_read_from_it(model_type: str) -> None:
    ours, theirs = tiny_shapes(model_type, "classification")
    slots = find_slots(family_of(model_type), ours, theirs, [(0,), (2,)])
    along = [(slot.role, axis.reads) for slot in slots for axis in slot.axes if axis.group == "residual"]
    is_narrow = model_type == "electra"
    absent = {"table", "embedding_norm"} if is_narrow else {"embedding_project"}
    assert {role for role, reads in along if not reads} == WRITERS - absent
    assert {role for role, reads in along if reads} == READERS
    narrow = {slot.role for slot in slots for axis in slot.axes if axis.along == "embedding"}
    assert narrow == ({"table", "embedding_norm", "embedding_project"} if is_narrow else set())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_attention_dimensions_and_ffn_units_have_a_group_per_layer(model_type: str) -> None:
    ours, theirs = tiny_shapes(model_type, "classification")
    slots = find_slots(family_of(model_type), ours, theirs, [(0,), (2,)])
    for layer in (0, 1):
        members = {slot.role for slot in slots for axis in slot.axes if axis.group == f"inner.{layer}"}
        assert members == {"query", "key", "value", "attention_out"}
        members = {slot.role for slot in slots for axis in slot.axes if axis.group == f"ffn.{layer}"}
        assert members == {"ffn_in", "ffn_out"}
    assert {axis.group for slot in slots for axis in slot.axes if slot.layer < 0} <= {
        "residual",
        "head",
        "embedding",
        "",
    }


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_sources_are_the_tensors_of_the_same_role_in_the_groups_layers_in_order(model_type: str) -> None:
    ours, theirs = tiny_shapes(model_type, "classification")
    family, groups = family_of(model_type), [(0, 1), (2,)]
    for slot in find_slots(family, ours, theirs, groups):
        if slot.layer < 0:
            assert slot.sources == (slot.name,)
            continue
        start = f"{family.prefix}.{family.layer}."
        rest = slot.name.removeprefix(start.format(slot.layer))
        assert slot.sources == tuple(start.format(layer) + rest for layer in groups[slot.layer])


def test_a_bare_encoder_finds_its_tensors_in_a_teacher_with_a_head() -> None:
    ours, theirs = tiny_shapes("bert", "embedding")[0], tiny_shapes("bert", "classification")[1]
    assert (prefix_of(family_of("bert"), ours), prefix_of(family_of("bert"), theirs)) == ("", "bert.")
    slots = find_slots(family_of("bert"), ours, theirs, [(0,), (2,)])
    assert all(slot.sources == (f"bert.{slot.name}",) for slot in slots if slot.layer < 0)
    assert slots[-1].sources[0].startswith("bert.encoder.layer.2.")


def test_a_tensor_without_a_counterpart_is_refused_by_name() -> None:
    ours, theirs = tiny_shapes("bert", "classification")
    missing = "bert.encoder.layer.2.output.dense.weight"
    without = {name: shape for name, shape in theirs.items() if name != missing}
    with pytest.raises(
        ValueError, match=rf"layer.1.output.dense.weight .* has no counterpart {missing} in the teacher"
    ):
        find_slots(family_of("bert"), ours, without, [(0,), (2,)])
    with pytest.raises(ValueError, match=r"no counterpart .* Use a teacher and a student of the same architecture"):
        find_slots(family_of("bert"), ours, {**theirs, missing: (3,)}, [(0,), (2,)])


def test_a_module_of_no_known_role_is_refused() -> None:
    ours, theirs = ({**shapes, "adapter.up.weight": (3, 4)} for shapes in tiny_shapes("bert", "classification"))
    with pytest.raises(ValueError, match=r"the role of its tensor adapter.up.weight is not known. Use a model of a"):
        find_slots(family_of("bert"), ours, theirs, [(0,), (2,)])


def test_keys_of_a_cross_attention_read_the_encoders_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weight Distillation, invariant 7: the generator's input is as wide as the encoder, not as the decoder."""
    monkeypatch.setattr(
        "compressor.models.slots.ROLE_AXES",
        {**ROLE_AXES, **dict.fromkeys(("cross_key", "cross_value"), ("inner", "memory"))},
    )
    roles = {"cross_key": "encoder_attn.k_proj", "cross_value": "encoder_attn.v_proj", "query": "encoder_attn.q_proj"}
    family = Family("decoder", "layers.{}", MappingProxyType(roles), MappingProxyType({}))
    encoder, (ours_decoder, theirs_decoder) = (20, 36), (8, 24)  # (student's, teacher's) encoder, then both decoders

    def shapes(n_layers: int, decoder: int, encoder: int) -> Shapes:
        inputs = {"k_proj": encoder, "v_proj": encoder, "q_proj": decoder}
        return {
            f"decoder.layers.{layer}.encoder_attn.{name}.weight": (decoder, width)
            for layer in range(n_layers)
            for name, width in inputs.items()
        }

    ours, theirs = shapes(1, ours_decoder, encoder[0]), shapes(2, theirs_decoder, encoder[1])
    slots = find_slots(family, ours, theirs, group_layers(2, 1))
    for slot in slots:
        is_cross = slot.role.startswith("cross")
        assert slot.axes == (Axis("inner", 0), Axis("memory" if is_cross else "residual", reads=True))
        sources = torch.randn(len(slot.sources), *theirs[slot.sources[0]])
        maps = MapSet({slot.name: sources})
        sides = [torch.randn(*pair) for pair in zip(ours[slot.name], sources.shape[1:], strict=True)]
        maps.add(LearnedMap(slot, "left", "right"), {"left": sides[0], "right": sides[1]})
        assert tuple(sides[1].shape) == (encoder if is_cross else (ours_decoder, theirs_decoder))
        assert tuple(maps({})[slot.name].shape) == ours[slot.name]


def test_a_slot_says_whether_it_is_a_bias_or_of_a_norm() -> None:
    slot = Slot("layer.0.LayerNorm.bias", "ffn_norm", 0, ("x",), (Axis("residual"),))
    assert slot.is_bias and slot.is_norm
    assert Axis("", 3).group == "" and Axis("ffn", 3).group == "ffn.3" and Axis("residual").group == "residual"
