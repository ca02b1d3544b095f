"""Student tensors as learned maps of frozen teacher tensors: evaluated while training, folded once into plain tensors.

    M = A (sum_j c_j T_j) B^T                     sides A, B; T_j the teacher's tensors of one role in adjacent layers
    M = S * tanh(M) + D                           scale, squash, shift, each optional
    M = f M                                       f: the temperature of the queries when heads get narrower
    W = sigma(g) W_0 + (1 - sigma(g)) M           gate beside the student's own tensor, optional

Weight Squeezing (2010.06993) is A and B alone, or with the gate; Weight Distillation (2009.09152) is all of it but the
gate; Weight-Inherited Distillation (2305.09098) is square A and B that start as the identity, over teacher tensors that
are trained a little. ``compressor.inherit.formula`` is the formula; ``compressor.inherit.singular`` keeps two dense
sides of one tensor in coordinates where they are cheap.

A *side* maps one axis, (student, teacher), and belongs to one tensor or is shared by several; one
that is block-diagonal (over heads) is (blocks, student, teacher). The shared map of the residual stream is kept as what
reads it, R^T; what writes into the stream uses its pseudo-inverse, so that a student of full width with R = I is the
teacher. ``forward`` multiplies in the cheapest order and in half precision under autocast; ``fold`` takes the other
order, in float64.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compressor.inherit.formula import WRITE, LearnedMap, generate, pseudo_inverse
from compressor.inherit.singular import find_basis, fingerprint, from_singular, to_singular
from compressor.models.slots import Slot
from compressor.refused import Refused
from compressor.training.contract import FoldError

PARTS = ("left", "right", "mixture", "layer_map", "scale", "shift", "gate")
SAME_BASIS = 1e-3  # how far two fingerprints of one basis may be apart


class MapSet(nn.Module):
    """The maps of a student and their parameters.

    ``values`` holds the parameters by name; the teacher's tensors are buffers that are not saved with the state, or,
    with ``trains_sources``, parameters.
    """

    def __init__(self, sources: Mapping[str, Tensor], *, trains_sources: bool = False) -> None:
        """Keep the teacher's tensors.

        Args:
            sources: by name of the student's tensor, (teacher tensors, *shape); one tensor is (1, *shape).
            trains_sources: whether they are trained too.
        """
        super().__init__()
        self.maps: list[LearnedMap] = []
        self.groups: list[list[LearnedMap]] = []  # maps of equal sizes; empty until they are asked for
        self.values = nn.ParameterDict()
        self.places: dict[str, tuple[str, int]] = {}  # of the parameters that ``seal`` has stacked: where, and which
        self.trains_sources = trains_sources
        self.stacked: dict[tuple[object, ...], Tensor] = {}  # the frozen tensors of each group, as multiplied
        self.originals: dict[str, Tensor] = {}  # the teacher's tensors whose sides are kept in singular coordinates
        if trains_sources:
            self.sources = nn.ParameterDict(
                {_key(name): nn.Parameter(each.detach().clone().float()) for name, each in sources.items()}
            )
        else:
            for name, each in sources.items():
                self.register_buffer(f"source_{_key(name)}", each.detach().clone().float(), persistent=False)

    def add(self, learned: LearnedMap, values: Mapping[str, Tensor]) -> None:
        """Add one map; ``values`` are the starts of its parameters, shared ones given once.

        With ``is_singular`` the sides are given in the teacher's coordinates and kept in those of its singular vectors.
        """
        values = dict(values)
        self.groups = []
        if learned.is_singular:
            name = _buffer(learned.slot)
            original: Tensor = getattr(self, name)
            basis = find_basis(learned, original)
            self.originals[learned.slot.name] = original
            self.register_buffer(name, to_singular(learned, basis, original, values), persistent=False)
            self.register_buffer(f"basis_{_key(learned.slot.name)}", torch.tensor([fingerprint(basis)]))
        self.maps.append(learned)
        for name, start in values.items():
            self.values[_key(name)] = nn.Parameter(start.detach().clone().float())

    def source(self, slot: Slot) -> Tensor:
        """Return the teacher's tensors behind a slot, (teacher tensors, *shape)."""
        return self.originals.get(slot.name, self._multiplied(slot))

    def _multiplied(self, slot: Slot) -> Tensor:
        """Return what stands between the sides: the teacher's tensors, or what singular coordinates leave of them."""
        found: Tensor = self.sources[_key(slot.name)] if self.trains_sources else getattr(self, _buffer(slot))
        return found

    def seal(self) -> "MapSet":
        """Stack the parameters of maps that are evaluated together, so that no step has to; nothing is added later."""
        for number, group in enumerate(self._groups()):
            for part in PARTS:
                names = [getattr(each, part) for each in group]
                is_own = all(_key(name) in self.values and self.uses(name) == 1 for name in names)
                if len(names) > 1 and is_own:
                    stacked = torch.stack([self.values.pop(_key(name)).detach() for name in names])
                    self.values[f"{number}/{part}"] = nn.Parameter(stacked)
                    self.places |= {name: (f"{number}/{part}", index) for index, name in enumerate(names)}
        return self

    def uses(self, name: str) -> int:
        """Return in how many places of the maps a parameter stands."""
        return sum(other.removesuffix(WRITE) == name for each in self.maps for other in _names(each))

    def value(self, name: str) -> Tensor:
        """Return a parameter by its name, the writing side of a shared map included; of stacked ones a view."""
        if name.endswith(WRITE):
            return pseudo_inverse(self.value(name.removesuffix(WRITE)))
        if name in self.places:
            place, index = self.places[name]
            return self.values[place][index]
        return self.values[_key(name)]

    def gradient(self, name: str) -> Tensor | None:
        """Return the gradient of a parameter by its name."""
        place, index = self.places.get(name, (_key(name), None))
        found: Tensor | None = self.values[place].grad
        return found if found is None or index is None else found[index]

    def forward(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return every mapped tensor by the student's name; maps of equal sizes are evaluated together.

        Args:
            own: the student's own tensors, for the gates.
        """
        written: dict[str, Tensor] = {}

        def get(name: str) -> Tensor:
            if name.endswith(WRITE) and name not in written:
                written[name] = self.value(name)
            return written[name] if name in written else self.value(name)

        found: dict[str, Tensor] = {}
        for group in self._groups():
            sources = self._sources(group)
            first = group[0]
            named = {part: self._stacked(group, part, get) for part in PARTS if getattr(first, part)}
            kept = _stack([own[each.slot.name] for each in group]) if first.gate else None
            values = generate(first, sources, named, kept)
            found |= {each.slot.name: value for each, value in zip(group, values.unbind(0), strict=True)}
        return {each.slot.name: found[each.slot.name] for each in self.maps}

    def fold(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return every mapped tensor in float64, one by one, multiplied in the order in which it is written down.

        Singular coordinates are left first: what is multiplied is the teacher's tensor itself, A T B^T.
        """
        exact = copy.deepcopy(self).double()
        found = {}
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for each in exact.maps:
                named = {part: exact.value(getattr(each, part)) for part in PARTS if getattr(each, part)}
                source = exact.source(each.slot).double()
                if each.is_singular:
                    basis = find_basis(each, source)
                    if abs(fingerprint(basis) - float(getattr(self, f"basis_{_key(each.slot.name)}"))) > SAME_BASIS:
                        raise FoldError(f"fold: {each.slot.name} was not trained with these singular vectors.")
                    named = from_singular(each, basis, named)
                kept = own[each.slot.name].detach().double()[None] if each.gate else None
                plain = dataclasses.replace(each, is_singular=False)
                stacked = {part: value[None] for part, value in named.items()}
                found[each.slot.name] = generate(plain, source[None], stacked, kept, is_cheap=False)[0].detach()
        return found

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name, buffer in self.named_buffers(recurse=False):
            saved = state_dict.get(prefix + name) if name.startswith("basis_") else None
            if saved is not None and float((saved.to(buffer) - buffer).abs()) > SAME_BASIS:
                raise Refused(
                    f"stage: its checkpoint has other singular vectors of {name.removeprefix('basis_')} than this "
                    "machine computes. Delete the stage's folder to start it again, or use option basis = 'teacher'."
                )
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[no-untyped-call]

    def _stacked(self, group: list[LearnedMap], part: str, get: Callable[[str], Tensor]) -> Tensor:
        names = [getattr(each, part) for each in group]
        place = self.places.get(names[0])
        return self.values[place[0]] if place else _stack([get(name) for name in names])

    def _groups(self) -> list[list[LearnedMap]]:
        """Return the maps that are evaluated together; found once, for sizes do not change while they are trained."""
        if self.groups:
            return self.groups
        groups: dict[tuple[object, ...], list[LearnedMap]] = {}
        for each in self.maps:
            shapes = [self.value(name.removesuffix(WRITE)).shape for name in _names(each)]
            kind = (
                self._multiplied(each.slot).shape,
                *shapes,
                each.squashes,
                each.is_singular,
                each.factor,
                *map(bool, _all(each)),
            )
            groups.setdefault(kind, []).append(each)
        self.groups = list(groups.values())
        return self.groups

    def _sources(self, group: list[LearnedMap]) -> Tensor:
        """Return a group's teacher tensors (group, tensors, *shape), frozen ones as autocast multiplies them."""
        first = self._multiplied(group[0].slot)
        if self.trains_sources:
            return torch.stack([self._multiplied(each.slot) for each in group])
        kind = first.device.type
        is_half = torch.is_autocast_enabled(kind) and first.dim() > 2
        dtype = torch.get_autocast_dtype(kind) if is_half else next(self.parameters()).dtype
        key = (group[0].slot.name, dtype, first.device)
        if key not in self.stacked:
            self.stacked[key] = torch.stack([self._multiplied(each.slot) for each in group]).to(dtype)
        return self.stacked[key]

    def _apply(self, *args: Any, **kwargs: Any) -> "MapSet":  # nn.Module's own: to(), double(), ...
        self.stacked = {}
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self


def _stack(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0)  # one is not copied


def _all(learned: LearnedMap) -> list[str]:
    return [getattr(learned, part) for part in PARTS]


def _names(learned: LearnedMap) -> list[str]:
    return [name for name in _all(learned) if name]


def _key(name: str) -> str:
    return name.replace(".", "/")  # a module's attribute has no dots


def _buffer(slot: Slot) -> str:
    return f"source_{_key(slot.name)}"
