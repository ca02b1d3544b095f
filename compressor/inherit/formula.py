"""How a student tensor is made of the teacher's: the formula of ``inherit.learned``, for several of one size."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.models.slots import Slot

WRITE = "/write"  # after the name of a shared side: its pseudo-inverse


@dataclass(frozen=True)
class LearnedMap:
    """How one student tensor is made; the strings name parameters of a :class:`MapSet`, "" for none."""

    slot: Slot
    left: str = ""
    right: str = ""
    mixture: str = ""  # c, one number per teacher tensor
    layer_map: str = ""  # W_L (teacher tensors, teacher tensors): c = W_L w, as published
    scale: str = ""
    shift: str = ""
    squashes: bool = False
    gate: str = ""
    factor: float = 1.0
    is_singular: bool = False  # the sides are kept in singular coordinates (``compressor.inherit.singular``)


def generate(
    learned: LearnedMap, sources: Tensor, named: Mapping[str, Tensor], kept: Tensor | None, *, is_cheap: bool = True
) -> Tensor:
    """Return the values of maps of one kind (group, *shape).

    Args:
        learned: one of them: which parts there are.
        sources: (group, teacher tensors, *teacher shape), or with ``is_singular`` what ``to_singular`` returns.
        named: the parameters of each part, stacked.
        kept: the student's own tensors, for the gate.
        is_cheap: multiply in the order that takes fewer operations.
    """
    left, right = named.get("left"), named.get("right")
    mixture = named.get("mixture")
    if mixture is not None and "layer_map" in named:
        mixture = (named["layer_map"] @ mixture.unsqueeze(-1)).squeeze(-1)  # (group, teacher tensors)
    is_mixed = mixture is not None and sources.shape[1] > 1
    if is_mixed:
        assert mixture is not None
        value = (sources * mixture.to(sources.dtype).view(*mixture.shape, *[1] * (sources.dim() - 2))).sum(dim=1)
    else:
        value = sources[:, 0]
    if learned.is_singular and right is not None:
        assert left is not None
        value = (left * value.unsqueeze(1)) @ right.transpose(-1, -2)
    elif len(learned.slot.axes) == 1:
        value = image(value.unsqueeze(-1), left, None).squeeze(-1)
    else:
        value = image(value, left, right, is_cheap=is_cheap)
    value = value if value.dtype == torch.float64 else value.float()
    if mixture is not None and not is_mixed:  # linear in the one tensor there is: cheaper on the smaller result
        value = value * _spread(mixture.squeeze(-1), value)
    return _transform(learned, value, named, kept)


def _transform(learned: LearnedMap, value: Tensor, named: Mapping[str, Tensor], kept: Tensor | None) -> Tensor:
    """Return gate(factor * (scale * tanh(value) + shift)), each part where there is one."""
    if learned.squashes:
        value = torch.tanh(value)
    if learned.scale:
        value = named["scale"] * value
    if learned.shift:
        value = value + named["shift"]
    if learned.factor != 1.0:  # not of the student's own tensor, which was made for its heads
        value = value * learned.factor
    if kept is not None:
        opened = _spread(torch.sigmoid(named["gate"]), value)
        value = opened * kept + (1 - opened) * value
    return value


def _spread(each: Tensor, value: Tensor) -> Tensor:
    """Return one number per member of the group as something to multiply (group, *shape) with."""
    return each.view(*each.shape, *[1] * (value.dim() - each.dim()))


def image(value: Tensor, left: Tensor | None, right: Tensor | None, *, is_cheap: bool = True) -> Tensor:
    """Return A value B^T.

    Args:
        value: (..., rows, columns).
        left: A (..., student rows, rows), or blocks (..., blocks, student rows / blocks, rows / blocks).
        right: B (..., student columns, columns), or blocks.
        is_cheap: multiply in the order that takes fewer operations, not from the left.
    """
    if is_cheap and left is not None and right is not None:
        rows, columns = value.shape[-2:]
        n_left, n_right = left.shape[-2] * rows, right.shape[-2] * columns  # operations per column and per row
        left_out, right_out = (_length(side, value) for side in (left, right))
        if n_left * columns + n_right * left_out > n_right * rows + n_left * right_out:
            return _left(_right(value, right), left)
    if left is not None:
        value = _left(value, left)
    return value if right is None else _right(value, right)


def _length(side: Tensor, value: Tensor) -> int:
    """Return how long the axis of the student is."""
    return side.shape[-2] * (side.shape[-3] if side.dim() > value.dim() else 1)


def _left(value: Tensor, side: Tensor) -> Tensor:
    if side.dim() == value.dim():
        return side @ value
    blocks, n_in = side.shape[-3], side.shape[-1]
    parts = value.reshape(*value.shape[:-2], blocks, n_in, value.shape[-1])
    return (side @ parts).flatten(-3, -2)


def _right(value: Tensor, side: Tensor) -> Tensor:
    if side.dim() == value.dim():
        return value @ side.transpose(-1, -2)
    return _left(value.transpose(-1, -2), side).transpose(-1, -2)


def pseudo_inverse(read: Tensor) -> Tensor:
    """Return R^+ (student, teacher) of R = ``read`` transposed, (teacher, student), which has full column rank.

    Solved in full precision whatever autocast says: (R^T R)^-1 R^T.
    """
    with torch.autocast(read.device.type, enabled=False):
        read = read if read.dtype == torch.float64 else read.float()
        solved: Tensor = torch.linalg.solve(read @ read.T, read)
        return solved
