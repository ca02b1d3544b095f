"""A network of the teacher's width between square compactors, and the narrow student that is cut out of it.

    y = C_out (W (C_in x) + b)        W' = C_out W C_in,  b' = C_out b        2305.09098; every C starts as the identity

The wide network has the student's depth, vocabulary and positions and the teacher's widths and weights; at the
teacher's depth and vocabulary it is the teacher. Its tensors are maps (``compressor.inherit.learned``): C_out is the
left side and the transpose of C_in the right one, so that on both it is *rows* that masks take away. A matrix and its
bias share C_out; the word, position and segment tables share one C, which acts on their sum. LayerNorms are the
network's own parameters and take mean and spread over the kept coordinates only. ELECTRA's narrow tables keep their
width.

A bias needs no mask of its own: b' vanishes where the rows of C_out do, and b itself lies before C_out.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.inherit.formula import LearnedMap
from compressor.inherit.learned import MapSet
from compressor.inherit.masks import Group, Masks
from compressor.inherit.starts import Ancestry, trace
from compressor.models.families import Family, family_of
from compressor.models.slots import Slot
from compressor.refused import Refused
from compressor.training.contract import Context

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TABLES = "embeddings/right"  # the compactor that all tables share


class Side(NamedTuple):
    """One compactor."""

    name: str  # in the MapSet
    group: str  # whose mask takes rows from it
    role: str
    layer: int
    reads: bool  # C_in, or C_out


class Network(NamedTuple):
    """A wide network and its compactors."""

    model: "PreTrainedModel"
    ancestry: Ancestry
    maps: MapSet
    sides: list[Side]


class MaskedLayerNorm(nn.LayerNorm):
    """A LayerNorm whose mean and spread are those of the kept coordinates; with all of them nn.LayerNorm's numbers."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        """Take over the parameters of ``norm``."""
        super().__init__(norm.normalized_shape, eps=norm.eps)
        self.weight, self.bias = norm.weight, norm.bias
        self.register_buffer("kept", torch.ones(norm.normalized_shape, dtype=torch.bool), persistent=False)
        self.n_kept = int(norm.normalized_shape[0])

    def keep(self, kept: Tensor) -> None:
        """Set which coordinates are kept, bool (width,)."""
        mask: Tensor = self.kept  # type: ignore[assignment]
        mask.copy_(kept)
        self.n_kept = int(kept.sum())

    def forward(self, values: Tensor) -> Tensor:
        """Normalize (..., width) over the kept coordinates; the others are scaled by the same mean and spread."""
        mask: Tensor = self.kept  # type: ignore[assignment]
        if self.n_kept == len(mask):
            return F.layer_norm(values, self.normalized_shape, self.weight, self.bias, self.eps)
        exact = values if values.dtype == torch.float64 else values.float()
        share = mask.to(exact.dtype) / self.n_kept
        centered = exact - (exact * share).sum(dim=-1, keepdim=True)
        variance = (centered.square() * share).sum(dim=-1, keepdim=True)
        normed = centered * torch.rsqrt(variance + self.eps)
        return (normed * self.weight + self.bias).to(values.dtype)


def build_network(context: Context, *, mixes_layers: bool, trains_sources: bool) -> Network:
    """Return the wide network with all compactors at the identity.

    Args:
        context: with the student, the teacher's model and the vocabulary map.
        mixes_layers: a student layer starts as the mean of a group of teacher layers, not as one of them.
        trains_sources: whether the original weights are trained too.

    Raises:
        ValueError: for an activation f with f(0) != 0: a part that is zero before it would not be zero after it.
    """
    assert context.teacher is not None
    family = family_of(context.model_type)
    _check_activation(context.teacher.config)
    _check_equal(context.student.config, context.teacher.config)
    model = _wide_model(context, family)
    ancestry = trace(context, model, mixes_layers=mixes_layers)
    sources = {name: stacked.mean(dim=0, keepdim=True) for name, stacked in ancestry.sources.items()}
    model.load_state_dict({name: stacked[0] for name, stacked in sources.items()})
    maps, sides = _add_compactors(ancestry.slots, sources, trains_sources)
    _mask_norms(model, ancestry.slots)
    return Network(model, ancestry, maps, sides)


def _wide_model(context: Context, family: Family) -> "PreTrainedModel":
    assert context.teacher is not None
    config, theirs = copy.deepcopy(context.student.config), context.teacher.config
    keys = [family.config[name] for name in ("hidden", "heads", "ffn")]
    for key in [*keys, *(["embedding_size"] if context.model_type == "electra" else [])]:
        setattr(config, key, getattr(theirs, key))
    arguments = {} if context.spec.has_head else family.without_pooler
    with torch.random.fork_rng(devices=[]):  # the fresh weights are thrown away
        model: PreTrainedModel = type(context.student)(config, **arguments)
    return model.float().train(context.student.training)


def _check_activation(config: Any) -> None:  # Any: a configuration of any family
    from transformers.activations import ACT2FN

    name = getattr(config, "hidden_act", None) or config.activation
    at_zero = float((ACT2FN[name] if isinstance(name, str) else name)(torch.zeros(1)))
    if at_zero != 0:
        raise Refused(
            f"teacher: its activation {name!r} is {at_zero:g} at 0, expected 0 there, for 'weight_inheritance' takes "
            "FFN units away by bringing them to zero. Use --method weight_squeezing."
        )


def _check_equal(student: Any, teacher: Any) -> None:  # Any: configurations of any family
    """Refuse a student that computes otherwise: the wide network has its code and the teacher's weights."""
    for name in ("hidden_act", "activation", "layer_norm_eps"):
        ours, theirs = getattr(student, name, None), getattr(teacher, name, None)
        if ours != theirs:
            raise Refused(
                f"--pretrained has {name} {ours!r}, the teacher {theirs!r}, expected the same, for "
                "'weight_inheritance' starts as the teacher. Use --method weight_squeezing."
            )


def _add_compactors(
    slots: Iterable[Slot], sources: Mapping[str, Tensor], trains_sources: bool
) -> tuple[MapSet, list[Side]]:
    """Return one map per tensor beside LayerNorms and the last bias, which are trained as they are."""
    mapped = [slot for slot in slots if not slot.is_norm and not (slot.is_bias and slot.role == "head_out")]
    maps = MapSet({slot.name: sources[slot.name] for slot in mapped}, trains_sources=trains_sources)
    sides: dict[str, Side] = {}
    for slot in mapped:
        names, values = ["", ""], {}
        for position, axis in enumerate(slot.axes):
            if axis.along in ("", "embedding"):
                continue
            module = slot.name.rpartition(".")[0]
            name = TABLES if slot.role == "table" else f"{module}/{('left', 'right')[position]}"
            names[position] = name
            if name not in sides:
                sides[name] = Side(name, axis.group, slot.role, slot.layer, axis.reads)
                values[name] = torch.eye(sources[slot.name].shape[1 + position])
        maps.add(LearnedMap(slot, names[0], names[1]), values)
    return maps, list(sides.values())


def _mask_norms(model: nn.Module, slots: Iterable[Slot]) -> None:
    for slot in slots:
        if slot.is_norm and not slot.is_bias and slot.axes[0].along in ("residual", "head"):
            path, _, name = slot.name.removesuffix(".weight").rpartition(".")
            parent = model.get_submodule(path)
            setattr(parent, name, MaskedLayerNorm(getattr(parent, name)))


def check_cut(network: Network, groups: Iterable[Group], student: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a student that is not what remains of the wide network.

    Args:
        network: with the shapes of the wide network's tensors.
        groups: with what is kept of each width.
        student: the shapes of the student's tensors by name.
    """
    kept = {group.name: group.n_kept for group in groups}
    expected = {
        slot.name: tuple(
            kept.get(axis.group, n_wide)
            for axis, n_wide in zip(slot.axes, network.ancestry.sources[slot.name].shape[1:], strict=True)
        )
        for slot in network.ancestry.slots
    }
    for name in expected | dict(student):
        if expected.get(name) != student.get(name):
            raise Refused(
                f"student: 'weight_inheritance' leaves {_described(expected.get(name))} of the teacher's tensor "
                f"{name}, the student has {_described(student.get(name))}. Use a student of the teacher's "
                "architecture, with its embedding size."
            )


def _described(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else " x ".join(map(str, shape))


def cut(values: Mapping[str, Tensor], slots: Iterable[Slot], masks: Masks, factor: float) -> dict[str, Tensor]:
    """Return the student's tensors: what is kept of the wide network's (section 2.5).

    Args:
        values: of every tensor of the wide network, with its compactors multiplied in.
        slots: of the wide network.
        masks: which parts are kept.
        factor: of the queries. Attention divides by the root of the head size, so the scores of narrower heads would
            grow; sqrt(head size of the student / of the teacher) keeps them what they were.
    """
    found = {}
    for slot in slots:
        value = values[slot.name]
        for position, axis in enumerate(slot.axes):
            if axis.group in masks.groups:
                value = value.index_select(position, masks.kept(axis.group).nonzero().squeeze(1))
        found[slot.name] = value * factor if slot.role == "query" else value
    return found
