"""The teacher's tensors behind each slot, the activations they are judged by, and where the sides start."""

from typing import Any

import numpy as np
import pytest
import torch

from compressor.batches.encoded import Collator, encode_rows
from compressor.batches.outputs import takes_segments
from compressor.inherit.starts import STARTS, Ancestry, Starts, parts_of, principal, selection, trace
from compressor.models.families import family_of
from compressor.models.slots import Axis, Slot
from compressor.student.copied import NEW, mapped_table
from compressor.training.contract import Context, model_inputs
from exporters.shape import Shape
from tests.support.inheriting_cases import FAMILIES, FULL, SMALL, inheriting_context
from tests.support.method_cases import MAX_LENGTH, TEACHER_HIDDEN, activations_of, table, tiny_teacher, tokenizers

RESIDUAL, INNER, FFN = Axis("residual"), Axis("inner", 0), Axis("ffn", 1)


def starts_of(context: Context, how: str) -> Starts:
    ancestry = trace(context, context.student)
    assert context.activations is not None
    return Starts(ancestry, parts_of(context, ancestry), context.activations, how)


@pytest.mark.parametrize("mixes_layers", [False, True])
@pytest.mark.parametrize("model_type", [*FAMILIES, "electra"])
def test_sources_are_the_teachers_tensors_one_after_the_other(model_type: str, mixes_layers: bool) -> None:
    context = inheriting_context(model_type=model_type, **SMALL)
    assert context.teacher is not None
    ancestry = trace(context, context.student, mixes_layers=mixes_layers)
    state = context.teacher.state_dict()
    assert [slot.name for slot in ancestry.slots] == list(context.student.state_dict()) == list(ancestry.sources)
    for slot in ancestry.slots:
        if slot.role != "table":
            expected = torch.stack([state[source] for source in slot.sources])
            assert torch.equal(ancestry.sources[slot.name], expected)
    depths = {len(slot.sources) for slot in ancestry.slots if slot.layer >= 0}
    assert depths == ({1, 2} if mixes_layers else {1})  # three layers for two: two and one


@pytest.mark.parametrize("is_vocabulary_new", [True, False])
def test_tables_are_brought_to_the_students_tokens_and_positions(is_vocabulary_new: bool) -> None:
    context = inheriting_context(is_vocabulary_new=is_vocabulary_new, **SMALL)
    positions = context.student.bert.embeddings.position_embeddings  # type: ignore[union-attr]
    positions.weight = torch.nn.Parameter(positions.weight[:50])
    assert context.teacher is not None
    state = context.teacher.state_dict()
    tables = {
        slot.name.split(".")[-2]: trace(context, context.student).sources[slot.name]
        for slot in trace(context, context.student).slots
        if slot.role == "table"
    }
    assert {name: len(each) for name, each in tables.items()} == dict.fromkeys(tables, 1)
    assert torch.equal(tables["position_embeddings"][0], state["bert.embeddings.position_embeddings.weight"][:50])
    words = state["bert.embeddings.word_embeddings.weight"]
    expected = words if context.vocab_map is None else mapped_table(context.vocab_map, words)
    assert torch.equal(tables["word_embeddings"][0], expected)
    assert len(expected) == context.student.config.vocab_size


def test_a_selection_is_rows_of_the_identity_and_nothing_where_there_is_no_source() -> None:
    assert torch.equal(
        selection(np.array([2, NEW, 0]), 3), torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    )


@pytest.mark.parametrize(("axis", "heads"), [(RESIDUAL, 0), (INNER, 0), (INNER, 2), (FFN, 0)])
def test_a_selecting_side_keeps_the_parts_that_slicing_keeps(axis: Axis, heads: int) -> None:
    starts = starts_of(inheriting_context(**SMALL), "selection")
    kept = {"residual": starts.kept.coordinates, "inner": starts.kept.inner[0], "ffn": starts.kept.units[1]}[axis.along]
    n_student, n_teacher = (32, 48) if axis.along == "ffn" else (16, 24)
    side = starts.side(axis, n_student, n_teacher, heads)
    assert side.shape == ((heads, n_student // heads, n_teacher // heads) if heads else (n_student, n_teacher))
    dense = torch.block_diag(*side) if heads else side
    assert torch.equal(dense, torch.eye(n_teacher)[torch.from_numpy(kept)])


@pytest.mark.parametrize("how", [how for how in STARTS if how not in ("xavier", "principal")])
def test_at_the_teachers_width_a_side_starts_as_the_identity(how: str) -> None:
    """But for "xavier", which is random as published, and "principal", which only turns."""
    starts = starts_of(inheriting_context(**FULL), how)
    for axis, width in ((RESIDUAL, 24), (INNER, 24), (FFN, 48), (Axis("head"), 24)):
        assert torch.equal(starts.side(axis, width, width), torch.eye(width))
    assert torch.equal(starts.side(INNER, 24, 24, 2), torch.eye(12).expand(2, 12, 12))


@pytest.mark.parametrize("how", ["selection", "orthonormal", "principal"])
def test_rows_of_a_side_are_orthonormal(how: str) -> None:
    starts = starts_of(inheriting_context(**SMALL), how)
    sides = [starts.side(RESIDUAL, 16, 24), starts.side(FFN, 32, 48), *starts.side(INNER, 16, 24, 2)]
    for side in sides:
        torch.testing.assert_close(side @ side.T, torch.eye(len(side)), atol=1e-5, rtol=0)


def test_what_is_drawn_at_random_comes_from_torchs_generator_alone() -> None:
    for how in ("orthonormal", "xavier"):
        starts, sides = starts_of(inheriting_context(**SMALL), how), []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            sides.append(starts.side(RESIDUAL, 16, 24))
        assert torch.equal(sides[0], sides[1]) and not torch.equal(sides[0], sides[2])


def test_principal_directions_are_those_of_the_largest_second_moment_in_order() -> None:
    factors = np.random.default_rng(0).normal(size=(9, 6)) * np.geomspace(1, 0.01, 9)[:, None]
    moment = factors.T @ factors
    found = principal(moment, 3).double().numpy()
    energy = np.einsum("ki,ij,kj->k", found, moment, found)
    np.testing.assert_allclose(energy, np.linalg.eigvalsh(moment)[::-1][:3], rtol=1e-5)
    assert (np.take_along_axis(found, np.abs(found).argmax(axis=1, keepdims=True), axis=1) > 0).all()


@pytest.mark.parametrize("heads", [0, 2])
def test_principal_sides_keep_more_of_what_runs_along_an_axis_than_selection(heads: int) -> None:
    context = inheriting_context(**SMALL)
    assert context.activations is not None
    axes = [(INNER, "inner.0")] if heads else [(RESIDUAL, "residual"), (Axis("inner", 1), "inner.2")]
    for axis, group in axes:
        moment = torch.from_numpy(context.activations.moments[group]).float()
        kept = []
        for how in ("principal", "selection"):
            side = starts_of(context, how).side(axis, 16, 24, heads)
            side = torch.block_diag(*side) if heads else side
            kept.append(float((side @ moment @ side.T).trace()))
        assert float(moment.trace()) >= kept[0] > kept[1]


def test_units_behind_an_activation_are_selected_by_every_start_that_looks_at_the_text() -> None:
    starts = starts_of(inheriting_context(**SMALL), "principal")
    assert torch.equal(starts.side(FFN, 32, 48), starts_of(inheriting_context(**SMALL), "selection").side(FFN, 32, 48))


@pytest.mark.parametrize("how", ["selection", "orthonormal"])
def test_an_image_of_gaussian_weights_keeps_their_scale(how: str) -> None:
    """Not with "xavier": its variance is 2 / (n + m), more than the 1 / n that keeps the scale of a narrower one."""
    torch.manual_seed(0)
    shape = Shape(vocab_size=5, positions=4, hidden=320, layers=1, heads=4, ffn=640, token_types=0, n_labels=2)
    slot = Slot("w", "query", 0, ("w",), (INNER, RESIDUAL))
    ancestry = Ancestry(family_of("bert"), shape, shape, [slot], {})
    context = inheriting_context()
    starts = Starts(ancestry, parts_of(context, trace(context, context.student)), _wide_activations(320), how)
    starts.kept = starts.kept._replace(coordinates=np.arange(96), inner=[np.arange(200, 296)])
    teacher = 0.05 * torch.randn(320, 320)
    image = starts.side(INNER, 96, 320) @ teacher @ starts.side(RESIDUAL, 96, 320).T
    assert 0.8 < float(image.std() / teacher.std()) < 1.25
    published = Starts(ancestry, starts.kept, starts.activations, "xavier")
    image = published.side(INNER, 96, 320) @ teacher @ published.side(RESIDUAL, 96, 320).T
    assert float(image.std() / teacher.std()) == pytest.approx(2 * 320 / (320 + 96), rel=0.05)


def _wide_activations(hidden: int) -> Any:  # an Activations, of which only the moments are read
    found = activations_of("classification", "bert")
    return type(found)(np.ones(hidden), [np.ones(hidden)], [np.ones(2 * hidden)], {}, {}, {})


@pytest.mark.parametrize("model_type", [*FAMILIES, "electra"])
def test_moments_are_the_mean_products_of_what_enters_on_real_tokens(model_type: str) -> None:
    """Along the residual stream over what enters queries and FFN layers, along attention dimensions per layer."""
    found = activations_of("classification", model_type)
    teacher, family = tiny_teacher("classification", model_type), family_of(model_type)
    encoder: Any = getattr(teacher, family.prefix)
    seen: dict[str, list[torch.Tensor]] = {}
    rows = encode_rows(tokenizers()[0], table(), MAX_LENGTH)
    batch = Collator(rows, 0, takes_segments(model_type))(range(len(rows.lengths)))
    mask = batch["attention_mask"].bool()
    for layer in range(3):
        for role, group in (("query", "residual"), ("ffn_in", "residual"), ("attention_out", f"inner.{layer}")):
            encoder.get_submodule(family.module(layer, role)).register_forward_pre_hook(
                lambda _module, given, group=group: seen.setdefault(group, []).append(given[0][mask].double())
            )
    with torch.no_grad():
        teacher(**model_inputs(batch))
    assert set(found.moments) == set(seen) == {"residual", "inner.0", "inner.1", "inner.2"}
    for group, parts in seen.items():
        values = torch.cat(parts)
        expected = (values.T @ values / len(values)).numpy()
        np.testing.assert_allclose(found.moments[group], expected, rtol=1e-3, atol=1e-4)
        assert found.moments[group].shape == (TEACHER_HIDDEN, TEACHER_HIDDEN)
        assert np.linalg.eigvalsh(found.moments[group]).min() > -1e-6
