"""Where learned maps start: the teacher's tensors behind each slot, and the first value of each side.

"selection" keeps the coordinates, heads and units that slicing keeps (rows of the identity: the student starts as a
part of its teacher); "orthonormal" draws a matrix with orthonormal rows, which keeps the scale of the weights; and
"principal" takes the main directions of what runs along an axis on real text (the residual stream and the attention
dimensions; for FFN units, which an activation follows, it selects). "xavier" is the published start of 2009.09152. All
random values come from the generator that is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from compressor.models.families import Family, family_of, shape_of
from compressor.models.slots import Axis, Slot, find_slots, group_layers, pick_layers
from compressor.student.activations import Activations
from compressor.student.copied import NEW, Index, mapped_table
from compressor.student.student import Kept, choose_parts
from compressor.training.contract import Context
from exporters.shape import Shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STARTS = ("selection", "orthonormal", "principal", "xavier")


@dataclass(frozen=True)
class Ancestry:
    """The slots of a student and the teacher's tensors behind them."""

    family: Family
    teacher: Shape
    student: Shape
    slots: list[Slot]
    sources: dict[str, Tensor]  # by name of the student's tensor: (teacher tensors, *shape)


def trace(context: Context, student: "PreTrainedModel", *, mixes_layers: bool = False) -> Ancestry:
    """Return what each tensor of ``student`` is made of.

    Args:
        context: with the teacher's model, and the vocabulary map where the vocabularies differ.
        student: the model whose tensors are mapped.
        mixes_layers: whether a layer has a group of adjacent teacher layers behind it, or one.
    """
    assert context.teacher is not None
    family = family_of(context.model_type)
    n_labels = int(student.config.num_labels) if context.spec.has_head else 0
    theirs, ours = (shape_of(model.config.to_dict(), n_labels) for model in (context.teacher, student))
    groups: Sequence[Sequence[int]]
    if mixes_layers:
        groups = group_layers(theirs.layers, ours.layers)
    else:
        groups = [(layer,) for layer in pick_layers(theirs.layers, ours.layers)]
    teacher_state = context.teacher.state_dict()
    our_shapes, their_shapes = (
        {name: tuple(each.shape) for name, each in state.items()} for state in (student.state_dict(), teacher_state)
    )
    slots = find_slots(family, our_shapes, their_shapes, groups)
    sources = {}
    for slot in slots:
        stacked = torch.stack([teacher_state[source].detach() for source in slot.sources]).float()
        sources[slot.name] = _cut_rows(slot, stacked, our_shapes[slot.name], context)
    return Ancestry(family, theirs, ours, slots, sources)


def _cut_rows(slot: Slot, stacked: Tensor, shape: tuple[int, ...], context: Context) -> Tensor:
    """Bring a table to the student's tokens and positions; nothing else has rows without an axis to map."""
    if slot.role != "table":
        return stacked
    if slot.name.endswith("word_embeddings.weight") and context.vocab_map is not None:
        return mapped_table(context.vocab_map, stacked[0]).detach().unsqueeze(0)
    return stacked[:, : shape[0]]


def parts_of(context: Context, ancestry: Ancestry) -> Kept:
    """Return the parts of the teacher that matter most, by its activations on training text."""
    assert context.activations is not None
    return choose_parts(ancestry.teacher, ancestry.student, context.activations)


class Starts:
    """First values of sides."""

    def __init__(self, ancestry: Ancestry, kept: Kept, activations: Activations, how: str) -> None:
        self.ancestry, self.kept, self.activations, self.how = ancestry, kept, activations, how

    def new(self, slot: Slot, position: int, n_student: int, by_heads: bool) -> Tensor:
        """Return the start of a side of its own, of the slot's axis at ``position``; see ``side``."""
        axis, n_teacher = slot.axes[position], self.ancestry.sources[slot.name].shape[1 + position]
        heads = self.ancestry.student.heads if by_heads and axis.along == "inner" else 0
        return self.side(axis, n_student, n_teacher, heads, is_silent=slot.role == "key")

    def side(self, axis: Axis, n_student: int, n_teacher: int, heads: int = 0, *, is_silent: bool = False) -> Tensor:
        """Return (student, teacher), or with ``heads`` the blocks (heads, student / heads, teacher / heads).

        A part that no part of the teacher is behind (other numbers of heads) is drawn at random where it is written
        and zero where it is read, so it changes nothing at first and learns. Queries and keys both write, and multiply:
        keys are to be ``is_silent``, zero too.
        """
        if heads:
            blocks = [
                self._dense(axis, n_student // heads, n_teacher // heads, head, is_silent) for head in range(heads)
            ]
            return torch.stack(blocks)
        return self._dense(axis, n_student, n_teacher, -1, is_silent)

    def _dense(self, axis: Axis, n_student: int, n_teacher: int, head: int, is_silent: bool) -> Tensor:
        if self.how == "xavier":
            return nn.init.xavier_normal_(torch.empty(n_student, n_teacher))
        moments = self.activations.moments.get(self._teacher_group(axis))
        if self.how == "principal" and moments is not None:
            start = max(head, 0) * n_teacher
            return principal(moments[start : start + n_teacher, start : start + n_teacher], n_student)
        if self.how == "orthonormal" and n_student < n_teacher:
            return nn.init.orthogonal_(torch.empty(n_student, n_teacher))
        kept = self._kept(axis)
        if head >= 0:
            part = kept[head * n_student : (head + 1) * n_student]
            kept = np.where(part == NEW, NEW, part - head * n_teacher)
        found = selection(kept, n_teacher)
        if not (axis.reads or is_silent):
            new = torch.from_numpy(kept == NEW)
            found[new] = torch.randn(int(new.sum()), n_teacher) / n_teacher**0.5
        return found

    def _kept(self, axis: Axis) -> Index:
        if axis.along == "inner":
            return self.kept.inner[axis.layer]
        if axis.along == "ffn":
            return self.kept.units[axis.layer]
        assert axis.along in ("residual", "head"), axis
        return self.kept.coordinates

    def _teacher_group(self, axis: Axis) -> str:
        return axis.along if axis.layer < 0 else f"{axis.along}.{self.kept.layers[axis.layer]}"


def selection(kept: Index, n_teacher: int) -> Tensor:
    """Return rows of the identity (kept, teacher); a row without a source is zero."""
    found = torch.zeros(len(kept), n_teacher)
    rows = np.flatnonzero(kept != NEW)
    found[torch.from_numpy(rows), torch.from_numpy(kept[rows])] = 1.0
    return found


def principal(moment: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", n_kept: int) -> Tensor:
    """Return the main directions (kept, width) of a second moment (width, width), largest first.

    A direction's sign is free: its largest entry is made positive.
    """
    _, vectors = np.linalg.eigh(moment)
    chosen = vectors[:, ::-1][:, :n_kept].T
    signs = np.sign(np.take_along_axis(chosen, np.abs(chosen).argmax(axis=1, keepdims=True), axis=1))
    return torch.from_numpy(np.ascontiguousarray(chosen * signs)).float()
