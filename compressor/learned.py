"""Student tensors as learned maps of frozen teacher tensors: evaluated while training, folded once into plain tensors.

    M = A (sum_j c_j T_j) B^T                     sides A, B; T_j the teacher's tensors of one role in adjacent layers
    M = S * tanh(M) + D                           scale, squash, shift, each optional
    M = f M                                       f: the temperature of the queries when heads get narrower
    W = sigma(g) W_0 + (1 - sigma(g)) M           gate beside the student's own tensor, optional

Weight Squeezing (2010.06993) is A and B alone, or with the gate; Weight Distillation (2009.09152) is all of it but the
gate; Weight-Inherited Distillation (2305.09098) is square A and B that start as the identity, over teacher tensors that
are trained a little. Two dense sides of one tensor may be kept in the coordinates of its singular vectors, T = U s V^T:
(A U) diag(s) (B V)^T is the same set of images for a fraction of the products.

A *side* maps one axis, (student, teacher), and belongs to one tensor or is shared by several; one
that is block-diagonal (over heads) is (blocks, student, teacher). The shared map of the residual stream is kept as what
reads it, R^T; what writes into the stream uses its pseudo-inverse, so that a student of full width with R = I is the
teacher. ``forward`` multiplies in the cheapest order and in half precision under autocast; ``fold`` takes the other
order, in float64.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.layout import Slot

PARTS = ("left", "right", "mixture", "layer_map", "scale", "shift", "gate")
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
    is_singular: bool = False  # the sides are kept in the coordinates of the teacher tensor's singular vectors


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
        self.values = nn.ParameterDict()
        self.places: dict[str, tuple[str, int]] = {}  # of the parameters that ``seal`` has stacked: where, and which
        self.trains_sources = trains_sources
        self.stacked: dict[tuple[object, ...], Tensor] = {}  # the frozen tensors of each group, as multiplied
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
        if learned.is_singular:
            name = _buffer(learned.slot)
            self.register_buffer(name, _to_singular(learned, getattr(self, name), values), persistent=False)
        self.maps.append(learned)
        for name, start in values.items():
            self.values[_key(name)] = nn.Parameter(start.detach().clone().float())

    def source(self, slot: Slot) -> Tensor:
        """Return the teacher's tensors behind a slot, (teacher tensors, *shape)."""
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
        """Return every mapped tensor in float64, one by one, multiplied in the order in which it is written down."""
        exact = copy.deepcopy(self).double()
        found = {}
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for each in exact.maps:
                named = {part: exact.value(getattr(each, part))[None] for part in PARTS if getattr(each, part)}
                kept = own[each.slot.name].detach().double()[None] if each.gate else None
                found[each.slot.name] = generate(each, exact.source(each.slot)[None], named, kept, is_cheap=False)[0]
        return found

    def _stacked(self, group: list[LearnedMap], part: str, get: Callable[[str], Tensor]) -> Tensor:
        names = [getattr(each, part) for each in group]
        place = self.places.get(names[0])
        return self.values[place[0]] if place else _stack([get(name) for name in names])

    def _groups(self) -> list[list[LearnedMap]]:
        groups: dict[tuple[object, ...], list[LearnedMap]] = {}
        for each in self.maps:
            shapes = [self.value(name.removesuffix(WRITE)).shape for name in _names(each)]
            kind = (
                self.source(each.slot).shape,
                *shapes,
                each.squashes,
                each.is_singular,
                each.factor,
                *map(bool, _all(each)),
            )
            groups.setdefault(kind, []).append(each)
        return list(groups.values())

    def _sources(self, group: list[LearnedMap]) -> Tensor:
        """Return a group's teacher tensors (group, tensors, *shape), frozen ones as autocast multiplies them."""
        first = self.source(group[0].slot)
        if self.trains_sources:
            return torch.stack([self.source(each.slot) for each in group])
        kind = first.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) and first.dim() > 2 else first.dtype
        key = (group[0].slot.name, dtype, first.device)
        if key not in self.stacked:
            self.stacked[key] = torch.stack([self.source(each.slot) for each in group]).to(dtype)
        return self.stacked[key]

    def _apply(self, *args: Any, **kwargs: Any) -> "MapSet":  # nn.Module's own: to(), double(), ...
        self.stacked = {}
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self


def generate(
    learned: LearnedMap, sources: Tensor, named: Mapping[str, Tensor], kept: Tensor | None, *, is_cheap: bool = True
) -> Tensor:
    """Return the values of maps of one kind (group, *shape).

    Args:
        learned: one of them: which parts there are.
        sources: (group, teacher tensors, *teacher shape), or with ``is_singular`` singular values (group, 1, rank).
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


def _to_singular(learned: LearnedMap, sources: Tensor, values: dict[str, Tensor]) -> Tensor:
    """Turn the sides in ``values`` to singular coordinates and return what stands between them.

    A matrix (1, rows, columns) becomes its singular values (1, rank). Vectors (teacher tensors, rows) become their
    coordinates (teacher tensors, rank) in the basis of the few directions that they span: a side acts on no others.
    """
    exact = sources.double()
    if not learned.right:
        basis, singular, mixed = torch.linalg.svd(
            exact.T, full_matrices=False
        )  # (rows, rank), (rank,), (rank, tensors)
        values[learned.left] = values[learned.left].double() @ basis
        return (singular.unsqueeze(1) * mixed).T.float()
    left, singular, right = torch.linalg.svd(exact[0], full_matrices=False)
    values[learned.left] = values[learned.left].double() @ left
    values[learned.right] = values[learned.right].double() @ right.T
    return singular.float().unsqueeze(0)


def has_singular_basis(slot: Slot, sides: Sequence[str], values: Mapping[str, Tensor]) -> bool:
    """Return whether a tensor can be kept in singular coordinates.

    One teacher matrix with two dense sides of its own, or vectors with one.
    """
    own = [name for name in sides[: len(slot.axes)] if name.startswith(f"{slot.name}/")]  # not shared with others
    is_own = len(own) == len(slot.axes) and all(name in values and values[name].dim() == 2 for name in own)
    return is_own and (len(slot.axes) == 1 or len(slot.sources) == 1)


def pseudo_inverse(read: Tensor) -> Tensor:
    """Return R^+ (student, teacher) of R = ``read`` transposed, (teacher, student), which has full column rank.

    Solved in full precision whatever autocast says: (R^T R)^-1 R^T.
    """
    with torch.autocast(read.device.type, enabled=False):
        read = read if read.dtype == torch.float64 else read.float()
        solved: Tensor = torch.linalg.solve(read @ read.T, read)
        return solved


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
