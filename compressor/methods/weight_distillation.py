"""Generate the student's weights from groups of teacher layers: W = S * tanh(W_O^T (sum_j c_j T_j) W_I) + B.

The first phase of Weight Distillation (Lin et al., 2009.09152): every student tensor has a parameter generator of its
own over the frozen teacher tensors of a group of adjacent layers, with the layer mixture c = W_L w, maps W_O and W_I of
the two axes, tanh, an elementwise scale S and shift B. Tables have W_I alone, vectors W_O alone. The stage ends by
generating the weights once, in float64; the second phase is the next stage (``distill``, for instance), with its own
optimizer and schedule, as published with a shorter warm-up.

``start``, ``layer_start``: W_O and W_I select coordinates and the layers are averaged (W_L = I), or "xavier" for both
as published. ``squash``: "tanh", or "identity". ``match``: S of a LayerNorm's gain starts at g / tanh(g), and B of a
vector where the student stands, so that the student starts as it was; without it S = 1 and B = 0, as published, and
tanh takes a gain of 1 to 0.76. ``tied_bias``: a bias has the W_O of its matrix. ``heads``, ``tables``, ``loss`` and
``loss_options`` as in weight_squeezing. When heads get narrower the queries carry sqrt(d_student / d_teacher).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.inherit.formula import LearnedMap
from compressor.inherit.learned import MapSet
from compressor.inherit.objective import Inheriting, LossOptions, shapes_of
from compressor.inherit.singular import has_singular_basis
from compressor.inherit.starts import STARTS, Ancestry, Starts, parts_of, trace
from compressor.models.slots import Slot
from compressor.student.student import temperature
from compressor.training.contract import Context, check_choice

NAME = "weight_distillation"


@dataclass(frozen=True)
class Options(LossOptions):
    """Knobs of ``weight_distillation``."""

    start: str = "selection"  # or "orthonormal", "principal", "xavier"
    layer_start: str = "average"  # or "xavier"
    squash: str = "tanh"  # or "identity"
    match: bool = True
    tied_bias: bool = False
    heads: bool = False  # published: head structure is ignored
    tables: str = "teacher"  # or "student"
    basis: str = "singular"  # or "teacher": the sides as written, slower steps

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(NAME, "start", self.start, STARTS)
        check_choice(NAME, "layer_start", self.layer_start, ("average", "xavier"))
        check_choice(NAME, "squash", self.squash, ("tanh", "identity"))
        check_choice(NAME, "basis", self.basis, ("teacher", "singular"))
        check_choice(NAME, "tables", self.tables, ("teacher", "student"))

    def certifies(self, kind: str) -> bool:
        """Return whether tensors of this kind are made of the teacher's."""
        return kind != "table" or self.tables == "teacher"


class Objective(Inheriting):
    """The student as its generators make it."""

    def __init__(self, context: Context, options: Options) -> None:
        ancestry = trace(context, context.student, mixes_layers=True)
        super().__init__(context, options, context.student, build_maps(context, ancestry, options))


def build_maps(context: Context, ancestry: Ancestry, options: Options) -> MapSet:
    """Return one generator per tensor of the student, at its start."""
    assert context.activations is not None
    starts = Starts(ancestry, parts_of(context, ancestry), context.activations, options.start)
    state, shapes = context.student.state_dict(), shapes_of(context.student)
    chosen = [slot for slot in ancestry.slots if slot.role != "table" or options.tables == "teacher"]
    maps = MapSet({slot.name: ancestry.sources[slot.name] for slot in chosen})
    is_by_heads = options.heads and ancestry.teacher.heads == ancestry.student.heads
    for slot in chosen:
        values: dict[str, Tensor] = {}
        sides = ["", ""]
        for position, axis in enumerate(slot.axes):
            if axis.along in ("", "embedding"):
                continue
            is_shared = options.tied_bias and slot.is_bias and not slot.is_norm
            owner = f"{slot.name.removesuffix('bias')}weight" if is_shared else slot.name
            sides[position] = f"{owner}/{('left', 'right')[position]}"
            if not is_shared:
                values[sides[position]] = starts.new(slot, position, shapes[slot.name][position], is_by_heads)
        mixture, layer_map = f"{slot.name}/mixture", f"{slot.name}/layers"
        values |= dict(zip((mixture, layer_map), _mixture(len(slot.sources), options.layer_start), strict=True))
        scale, shift = f"{slot.name}/scale", f"{slot.name}/shift"
        values |= {scale: torch.ones(shapes[slot.name]), shift: torch.zeros(shapes[slot.name])}
        factor = temperature(ancestry.teacher, ancestry.student) if slot.role == "query" else 1.0
        is_singular = options.basis == "singular" and not options.tied_bias and has_singular_basis(slot, sides, values)
        learned = LearnedMap(
            slot, sides[0], sides[1], mixture, layer_map, scale, shift,
            squashes=options.squash == "tanh", factor=factor, is_singular=is_singular,
        )  # fmt: skip
        maps.add(learned, values)
    if options.match:
        _match(maps, chosen, state)
    return maps.seal()


def _mixture(n_sources: int, start: str) -> tuple[Tensor, Tensor]:
    """Return w (n,) and W_L (n, n); with W_L = I every coefficient is 1 / n."""
    weights = torch.full((n_sources,), 1 / n_sources)
    if start == "average":
        return weights, torch.eye(n_sources)
    return weights, torch.nn.init.xavier_normal_(torch.empty(n_sources, n_sources))


@torch.no_grad()
def _match(maps: MapSet, slots: list[Slot], state: dict[str, Tensor]) -> None:
    """Start every vector where the student stands: S undoes tanh on gains, B makes up for the rest."""
    vectors = {each.slot.name: each for each in maps.maps if len(each.slot.axes) == 1}
    generated = maps({})
    for slot in slots:
        if slot.is_norm and not slot.is_bias:
            made = generated[slot.name]
            is_safe = made.abs() > 1e-3
            ratio = torch.where(is_safe, state[slot.name] / torch.where(is_safe, made, 1.0), 1.0)
            maps.value(vectors[slot.name].scale).copy_(ratio)
    generated = maps({})
    for name, learned in vectors.items():
        maps.value(learned.shift).copy_((state[name] - generated[name]) / learned.factor)
