"""Learned maps by themselves: their algebra, their gradients, and the exact evaluation that folds them."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressor.inherit.formula import WRITE, LearnedMap, image, pseudo_inverse
from compressor.inherit.learned import MapSet
from compressor.models.slots import Axis, Slot
from compressor.training.contract import FoldError

NAME = "layer.0.query.weight"


def slot_of(n_sources: int) -> Slot:
    return Slot(NAME, "query", 0, ("teacher",) * n_sources, (Axis("inner", 0), Axis("residual", reads=True)))


def maps_of(source: Tensor, values: dict[str, Tensor], **parts: Any) -> MapSet:
    """Return one map of ``source`` (teacher tensors, *shape), in float64; ``parts`` are those of a LearnedMap."""
    maps = MapSet({NAME: source})
    maps.add(LearnedMap(slot_of(len(source)), **parts), values)
    return maps.double()


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return random numbers that are the same in float32 and float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


sizes = st.integers(1, 7)


@settings(deadline=None)
@given(sizes, sizes, sizes, sizes, st.integers(1, 3), st.booleans(), st.booleans())
def test_an_image_is_the_product_from_both_sides_in_either_order(
    rows: int, columns: int, kept_rows: int, kept_columns: int, blocks: int, left_is_dense: bool, right_is_dense: bool
) -> None:
    value = draw(rows * blocks, columns * blocks)
    sides = []
    for is_dense, kept, n in ((left_is_dense, kept_rows, rows), (right_is_dense, kept_columns, columns)):
        sides.append(draw(kept * blocks, n * blocks, seed=1) if is_dense else draw(blocks, kept, n, seed=2))
    dense_left, dense_right = (side if side.dim() == 2 else torch.block_diag(*side) for side in sides)
    expected = dense_left @ value @ dense_right.T
    for is_cheap in (True, False):
        torch.testing.assert_close(image(value, *sides, is_cheap=is_cheap), expected)
        torch.testing.assert_close(image(value, sides[0], None, is_cheap=is_cheap), dense_left @ value)
        torch.testing.assert_close(image(value, None, sides[1], is_cheap=is_cheap), value @ dense_right.T)
        twice = image(
            torch.stack([value, 2 * value]), *(torch.stack([side, side]) for side in sides), is_cheap=is_cheap
        )
        torch.testing.assert_close(twice, torch.stack([expected, 2 * expected]))


def test_gradients_of_both_sides_are_those_of_the_closed_formulas() -> None:
    """dL = G (W R)^T and dR = (L W)^T G; the right side is kept as R^T."""
    maps = maps_of(draw(1, 6, 5), {"left": draw(3, 6, seed=1), "right": draw(2, 5, seed=2)}, left="left", right="right")
    given_gradient = draw(3, 2, seed=3)
    maps({})[NAME].backward(given_gradient)
    teacher, left, right = maps.source(slot_of(1))[0], maps.value("left"), maps.value("right")
    torch.testing.assert_close(left.grad, given_gradient @ (teacher @ right.T).T, rtol=0, atol=1e-13)
    torch.testing.assert_close(right.grad, ((left @ teacher).T @ given_gradient).T, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"a": (3, 6), "b": (2, 4)}, {"left": "a", "right": "b"}),
        ({"a": (2, 2, 3), "b": (2, 1, 2)}, {"left": "a", "right": "b"}),
        ({"a": (3, 6), "b": (2, 4)}, {"left": f"a{WRITE}", "right": "b"}),
        (
            {"a": (3, 6), "b": (2, 4), "c": (2,), "w": (2, 2), "s": (3, 2), "d": (3, 2)},
            {"left": "a", "right": "b", "mixture": "c", "layer_map": "w", "scale": "s", "shift": "d", "squashes": True},
        ),
        ({"a": (3, 6), "b": (2, 4), "g": ()}, {"left": "a", "right": "b", "gate": "g", "factor": 0.7}),
    ],
    ids=["dense", "blocks", "shared", "generator", "gated"],
)
def test_gradients_agree_with_finite_differences(values: dict[str, tuple[int, ...]], parts: dict[str, Any]) -> None:
    starts = {name: draw(*shape, seed=number) for number, (name, shape) in enumerate(values.items())}
    maps = maps_of(0.3 * draw(2 if "c" in values else 1, 6, 4, seed=9), starts, **parts)
    own = draw(3, 2, seed=11)

    def evaluate(own: Tensor, *given_values: Tensor) -> Tensor:
        named = dict(zip((f"values.{name}" for name in values), given_values, strict=True))
        found: dict[str, Tensor] = torch.func.functional_call(maps, named, ({NAME: own},))
        return found[NAME]

    inputs = [own, *(start.clone() for start in starts.values())]
    assert torch.autograd.gradcheck(evaluate, tuple(each.requires_grad_() for each in inputs))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 1000))
def test_what_writes_undoes_what_reads(n_student: int, more: int, seed: int) -> None:
    read = torch.linalg.qr(draw(n_student + more, n_student, seed=seed)).Q.T * (1 + draw(n_student, 1, seed=seed).abs())
    written = pseudo_inverse(read)  # (student, teacher)
    torch.testing.assert_close(written @ read.T, torch.eye(n_student, dtype=torch.float64))
    torch.testing.assert_close(written, torch.linalg.pinv(read.T))


def test_the_pseudo_inverse_is_solved_in_full_precision_under_autocast() -> None:
    read = draw(8, 20).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pseudo_inverse(read), pseudo_inverse(read.clone()))
        assert pseudo_inverse(read.bfloat16()).dtype == torch.float32
        found = pseudo_inverse(read)
    assert torch.equal(found, pseudo_inverse(read))


def test_a_full_width_stream_may_be_turned_as_long_as_nothing_stands_between_writing_and_reading() -> None:
    """W_read R R^+ W_write = W_read W_write for any invertible R.

    Of matrices only: a LayerNorm in between does not commute with R, so outputs change.
    """
    read, write, turn = draw(5, 8), draw(8, 4, seed=1), draw(8, 8, seed=2)
    slots = [Slot(name, "", 0, (name,), ()) for name in ("reads", "writes")]
    maps = MapSet({"reads": read.unsqueeze(0), "writes": write.unsqueeze(0)})
    maps.add(LearnedMap(slots[0], right="residual"), {"residual": turn})
    maps.add(LearnedMap(slots[1], left=f"residual{WRITE}"), {})
    found = maps.double()({})
    torch.testing.assert_close(found["reads"] @ found["writes"], read @ write)
    assert (found["reads"] - read).abs().max() > 0.1 and list(maps.values) == ["residual"]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 8), st.integers(0, 1000))
def test_an_image_has_at_most_the_rank_of_the_teacher_and_of_its_own_size(
    rows: int, columns: int, rank: int, seed: int
) -> None:
    teacher = draw(12, rank, seed=seed) @ draw(rank, 10, seed=seed + 1)
    sides = {"left": draw(rows, 12, seed=seed + 2), "right": draw(columns, 10, seed=seed + 3)}
    found = maps_of(teacher.unsqueeze(0), sides, left="left", right="right")({})[NAME]
    assert int(torch.linalg.matrix_rank(found, rtol=1e-5)) <= min(rows, columns, rank)
    assert rank or not found.any()  # a teacher of zeros gives zeros


def test_the_closed_form_of_a_generator_is_its_chain_of_products() -> None:
    """W_O^T (sum_j c_j T_j) W_I with c = W_L w, against the published order of 2009.09152: out, layers, in, w."""
    teacher = draw(3, 6, 5)  # (layers, out, in)
    values = {"o": draw(4, 6, seed=1), "i": draw(2, 5, seed=2), "w": draw(3, seed=3), "l": draw(3, 3, seed=4)}
    parts = {"left": "o", "right": "i", "mixture": "w", "layer_map": "l"}
    stacked = teacher.permute(1, 2, 0)  # (out, in, layers)
    chain = torch.einsum("oij,op->pij", stacked, values["o"].T)
    chain = torch.einsum("pij,jk->pik", chain, values["l"])
    chain = torch.einsum("pik,iq->pqk", chain, values["i"].T)
    expected = chain @ values["w"]
    assert (maps_of(teacher, values, **parts)({})[NAME] - expected).abs().max() < 1e-12
    single = maps_of(teacher, values, **parts).float()
    assert (single({})[NAME] - expected).abs().max() < 1e-5


@given(st.permutations(range(4)))
@settings(deadline=None, max_examples=24)
def test_layers_permuted_together_with_their_coefficients_change_nothing(order: list[int]) -> None:
    teacher, mixture = draw(4, 3, 2), draw(4, seed=1)
    ours = maps_of(teacher[order], {"c": mixture[order]}, mixture="c")({})[NAME]
    torch.testing.assert_close(ours, maps_of(teacher, {"c": mixture}, mixture="c")({})[NAME])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_a_squashed_tensor_stays_within_its_scale_of_its_shift(seed: int, size: float) -> None:
    values = {"s": draw(4, 3, seed=seed), "d": draw(4, 3, seed=seed + 1)}
    maps = maps_of(size * draw(1, 4, 3, seed=seed + 2), values, scale="s", shift="d", squashes=True)
    assert ((maps({})[NAME] - values["d"]).abs() <= values["s"].abs() + 1e-12).all()


def test_a_scale_of_zero_leaves_the_shift_and_cuts_the_teacher_off() -> None:
    values = {"a": draw(3, 4), "s": torch.zeros(3, 3), "d": draw(3, 3, seed=1)}
    maps = maps_of(draw(1, 4, 3, seed=2), values, left="a", scale="s", shift="d", squashes=True)
    found = maps({})[NAME]
    assert torch.equal(found, values["d"])
    found.sum().backward()
    assert not maps.value("a").grad.any() and maps.value("d").grad.all()  # type: ignore[union-attr]


@pytest.mark.parametrize("gate", [torch.tensor(0.3), draw(3, 2, seed=5)])
def test_a_gate_mixes_the_students_own_tensor_in_and_the_temperature_is_of_the_teachers_part_alone(
    gate: Tensor,
) -> None:
    """The student's own queries have the scale that its own heads need."""
    own, teacher = draw(3, 2), draw(1, 3, 2, seed=1)
    found = maps_of(teacher, {"g": gate}, gate="g", factor=0.5)({NAME: own})[NAME]
    opened = torch.sigmoid(gate.double())
    torch.testing.assert_close(found, opened * own + (1 - opened) * 0.5 * teacher[0])


def test_a_fold_is_in_float64_and_in_the_written_order() -> None:
    values = {"a": draw(3, 40), "b": draw(2, 50, seed=1), "g": torch.tensor(0.0)}
    maps = maps_of(draw(1, 40, 50, seed=2), values, left="a", right="b", gate="g", factor=0.5).float()
    own = {NAME: draw(3, 2, seed=3).float()}
    folded, live = maps.fold(own)[NAME], maps(own)[NAME]
    expected = 0.5 * own[NAME].double() + 0.25 * (values["a"] @ draw(1, 40, 50, seed=2)[0]) @ values["b"].T
    assert folded.dtype == torch.float64 and not folded.requires_grad and live.dtype == torch.float32
    torch.testing.assert_close(folded, expected, rtol=0, atol=1e-12)
    assert 0 < (folded - live).abs().max() < 1e-4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(maps.fold(own)[NAME], folded)
        assert (maps(own)[NAME] - live).abs().max() > 1e-3  # the products are in half precision, the result is not
        assert maps(own)[NAME].dtype == torch.float32


def test_maps_of_equal_sizes_are_evaluated_together_as_one_by_one() -> None:
    """Names, order and values are those of every map by itself, whatever it is grouped with."""
    shapes = [(6, 5), (6, 5), (6,), (6, 5), (6,), (4, 5)]
    sources = {f"t{n}": draw(2 if n == 3 else 1, *shape, seed=n) for n, shape in enumerate(shapes)}
    together, alone = MapSet(sources), dict[str, Tensor]()
    for number, (name, source) in enumerate(sources.items()):
        axes = (Axis("ffn"), Axis("residual", reads=True))[: source.dim() - 1]
        values = {f"{name}/left": draw(3, source.shape[1], seed=10 + number)}
        parts: dict[str, Any] = {"left": f"{name}/left", "squashes": number == 1}
        if len(source) > 1:
            values[f"{name}/mixture"], parts["mixture"] = draw(2), f"{name}/mixture"
        if source.dim() == 3:
            values[f"{name}/right"], parts["right"] = draw(2, 5, seed=20 + number), f"{name}/right"
        learned = LearnedMap(Slot(name, "ffn_in", 0, (name,) * len(source), axes), **parts)
        single = MapSet({name: source})
        for maps in (together, single):
            maps.add(learned, values)
        alone |= single.double()({})
    found = together.double()({})
    assert list(found) == list(sources)
    for name, value in found.items():
        torch.testing.assert_close(value, alone[name], rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(6, 5), (5, 6), (5, 5)])
def test_sides_in_singular_coordinates_give_the_same_images_and_fold_through_the_teachers_tensor(
    shape: tuple[int, int],
) -> None:
    """Up to the rounding of the sides to float32; trained on, the fold goes back to A T B^T and is the same image."""
    teacher, goal = draw(1, *shape), draw(3, 2, seed=4)
    values = {"a": draw(3, shape[0], seed=1), "b": draw(2, shape[1], seed=2)}
    ours, theirs = (
        maps_of(teacher, values, left="a", right="b", is_singular=is_singular) for is_singular in (True, False)
    )
    assert ours.value("a").shape == (3, 5) and ours.value("b").shape == (2, 5)  # the rank
    torch.testing.assert_close(ours({})[NAME], theirs({})[NAME], rtol=0, atol=1e-5)
    for _ in range(2):
        (ours({})[NAME] - goal).square().sum().backward()
        with torch.no_grad():
            for value in ours.parameters():
                assert value.grad is not None
                value.sub_(value.grad, alpha=1e-2)
                value.grad = None
    torch.testing.assert_close(ours.fold({})[NAME], ours({})[NAME], rtol=0, atol=1e-11)
    ours.originals[NAME] = -ours.originals[NAME].flip(1)
    with pytest.raises(FoldError, match="singular vectors"):
        ours.fold({})


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_in_singular_coordinates_an_image_has_no_higher_rank_than_the_teachers_tensor(rank: int) -> None:
    teacher = (draw(6, rank, seed=7) @ draw(rank, 5, seed=8))[None]
    maps = maps_of(teacher, {"a": draw(4, 6), "b": draw(5, 5, seed=1)}, left="a", right="b", is_singular=True)
    with torch.no_grad():
        for value in maps.parameters():
            value.add_(draw(*value.shape, seed=9))
    image_of = maps({})[NAME].detach()
    assert int(torch.linalg.matrix_rank(image_of, atol=1e-4)) == rank
    torch.testing.assert_close(maps.fold({})[NAME], image_of, rtol=0, atol=1e-6)


def test_a_checkpoint_of_other_singular_vectors_is_refused() -> None:
    teacher, values = draw(1, 6, 5), {"a": draw(3, 6, seed=1), "b": draw(2, 5, seed=2)}
    state = maps_of(teacher, values, left="a", right="b", is_singular=True).state_dict()
    other = maps_of(-teacher.flip(1), values, left="a", right="b", is_singular=True)
    with pytest.raises(ValueError, match="other singular vectors"):
        other.load_state_dict(state)
    maps_of(teacher, values, left="a", right="b", is_singular=True).load_state_dict(state)


def test_the_teachers_tensors_are_neither_trained_nor_saved_unless_asked() -> None:
    teacher = draw(1, 4, 3).float()
    frozen = maps_of(teacher, {"a": draw(2, 4)}, left="a")
    assert list(frozen.state_dict()) == ["values.a"] == [name for name, _ in frozen.named_parameters()]
    frozen({})[NAME].sum().backward()
    assert frozen.source(slot_of(1)).grad is None and torch.equal(frozen.source(slot_of(1)), teacher.double())
    trained = MapSet({NAME: teacher}, trains_sources=True)
    trained.add(LearnedMap(slot_of(1)), {})
    trained({})[NAME].sum().backward()
    assert [name for name, _ in trained.named_parameters()] == ["sources.layer/0/query/weight"]
    assert torch.equal(trained.source(slot_of(1)).grad, torch.ones(1, 4, 3))  # type: ignore[arg-type]
    trained.source(slot_of(1)).data.zero_()
    assert teacher.any()  # a copy of its own
