"""Make the student's weights learned linear images of the teacher's: W = L W_t R, trained with any loss, then folded.

Every matrix and table is L W_t R of the teacher's tensor of its role (Chumachenko et al., 2010.06993); the teacher is
frozen and L, R are trained. Biases and LayerNorms are the student's own and trained directly, or mapped as well
(``map_biases``, ``map_layernorm``). Where the student keeps the number of heads, L of the queries, keys and values is
block-diagonal over them (``heads``); when heads get narrower the queries carry sqrt(d_student / d_teacher), so that
attention keeps its temperature. ``tied``: one matrix R for everything that reads the residual stream and its
pseudo-inverse for everything that writes into it. ``depth``: one teacher layer per student layer ("select") or a
learned mixture of a group of adjacent ones ("mixture"). ``gated``: W = sigma(g) W_0 + (1 - sigma(g)) L W_t R beside the
student's own W_0, for a student that is pretrained already ([student] pretrained); g starts at ``gate``.

``tables``: the embeddings are images of the teacher's, through the vocabulary map where the vocabularies differ
("teacher"), or the student's own, for instance those of a dual training before this stage ("student"). ``loss`` and
``loss_options`` name the method whose loss trains it. At the end the maps are folded, in float64, and certified.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.inherit.formula import WRITE, LearnedMap
from compressor.inherit.learned import MapSet
from compressor.inherit.objective import Inheriting, LossOptions, shapes_of
from compressor.inherit.singular import has_singular_basis
from compressor.inherit.starts import STARTS, Ancestry, Starts, parts_of, trace
from compressor.models.slots import Slot
from compressor.refused import Refused
from compressor.student.student import temperature
from compressor.training.contract import Context, check_choice

NAME = "weight_squeezing"


@dataclass(frozen=True)
class Options(LossOptions):
    """Knobs of ``weight_squeezing``."""

    start: str = "selection"  # or "orthonormal", "principal", "xavier"
    tied: bool = False
    heads: bool = True  # block-diagonal over heads where teacher and student have as many
    depth: str = "select"  # or "mixture"
    map_biases: bool = False
    map_layernorm: bool = False
    tables: str = "teacher"  # or "student"
    basis: str = "singular"  # or "teacher": the sides as written, slower steps
    gated: bool = False
    gate: float = 4.0  # sigma(4) = 0.98: training starts as plain training of the pretrained student
    gate_by: str = "tensor"  # or "element"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(NAME, "start", self.start, STARTS)
        check_choice(NAME, "depth", self.depth, ("select", "mixture"))
        check_choice(NAME, "basis", self.basis, ("teacher", "singular"))
        check_choice(NAME, "tables", self.tables, ("teacher", "student"))
        check_choice(NAME, "gate_by", self.gate_by, ("tensor", "element"))
        if not math.isfinite(self.gate):
            raise Refused(f"recipe: [[stage]] {NAME!r} option gate = {self.gate}, expected a finite number.")
        if not self.gated and (self.gate, self.gate_by) != (Options.gate, Options.gate_by):
            raise Refused(
                f"recipe: [[stage]] {NAME!r} has gate or gate_by without gated = true, expected both or none. Add "
                "gated = true."
            )

    def certifies(self, kind: str) -> bool:
        """Return whether tensors of this kind are made of the teacher's."""
        mapped = {"table": self.tables == "teacher", "norm": self.map_layernorm, "bias": self.map_biases}
        return mapped.get(kind, True)


class Objective(Inheriting):
    """The student as an image of its teacher."""

    def __init__(self, context: Context, options: Options) -> None:
        ancestry = trace(context, context.student, mixes_layers=options.depth == "mixture")
        super().__init__(context, options, context.student, build_maps(context, ancestry, options))


def build_maps(context: Context, ancestry: Ancestry, options: Options) -> MapSet:
    """Return the maps of the student, at their start."""
    assert context.activations is not None
    starts = Starts(ancestry, parts_of(context, ancestry), context.activations, options.start)
    shapes = shapes_of(context.student)
    chosen = [slot for slot in ancestry.slots if is_mapped(slot, options)]
    maps = MapSet({slot.name: ancestry.sources[slot.name] for slot in chosen})
    is_by_heads = options.heads and ancestry.teacher.heads == ancestry.student.heads
    for slot in chosen:
        values: dict[str, Tensor] = {}
        sides = ["", ""]
        for position, axis in enumerate(slot.axes):
            if axis.along in ("", "embedding"):
                continue
            name = f"{slot.name}/{('left', 'right')[position]}"
            if options.tied and axis.along == "residual":
                name = "residual"
            if name not in maps.values:
                values[name] = starts.new(slot, position, shapes[slot.name][position], is_by_heads)
            sides[position] = name if axis.reads or name != "residual" else f"residual{WRITE}"
        mixture = f"{slot.name}/mixture" if len(slot.sources) > 1 else ""
        if mixture:
            values[mixture] = torch.full((len(slot.sources),), 1 / len(slot.sources))
        gate = f"{slot.name}/gate" if options.gated else ""
        if gate:
            values[gate] = torch.full(shapes[slot.name] if options.gate_by == "element" else (), options.gate)
        factor = temperature(ancestry.teacher, ancestry.student) if slot.role == "query" else 1.0
        is_singular = options.basis == "singular" and has_singular_basis(slot, sides, values)
        learned = LearnedMap(slot, sides[0], sides[1], mixture, gate=gate, factor=factor, is_singular=is_singular)
        maps.add(learned, values)
    return maps.seal()


def is_mapped(slot: Slot, options: Options) -> bool:
    """Return whether a tensor is an image of the teacher's; the others are the student's own."""
    if slot.role == "table":
        return options.tables == "teacher"
    if slot.is_norm:
        return options.map_layernorm and slot.axes[0].along != "embedding"
    if slot.is_bias:
        return options.map_biases and slot.axes[0].along != ""
    return True
