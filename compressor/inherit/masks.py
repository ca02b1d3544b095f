"""Which parts of a wide network go, how many of them when, and how what goes is brought to zero.

Weight-Inherited Distillation (2305.09098) narrows a network while it is trained. Everything that runs along one width
shares one mask: the residual stream has one, each layer's attention dimensions, each layer's FFN units, and the inside
of the head have one each. A part's score is the squared norm of what reads it (section 2.2 of our notes on the released
code, with all readers instead of one), times what it was worth on real text; ties keep the lower index.

    removed after k choices = floor(k total / n), never more than total; n choices in all

Masked entries are reset: they no longer follow the loss but shrink to zero, either by a factor per step, or, as
published, by a gradient of their own and an edit of Adam's first moment. No models here, tensors only.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from compressor.models.slots import Slot
from compressor.refused import Refused
from exporters.shape import Shape

STRATEGIES = ("auto", "dim", "head")
FINE_STEPS, COARSE_STEPS = 16, 8  # choices until FFN units and the head's inside are gone; attention and the stream
N_INTERVALS = 40  # choices in a stage, unless the user says how many steps apart
LATEST = 0.6  # share of a stage by which everything is chosen, so that it has time to shrink


class Group(NamedTuple):
    """What shares one mask."""

    name: str  # "residual", "head", "inner.0", "ffn.0", ...
    size: int  # of the teacher
    n_kept: int  # of the student
    n_choices: int  # until everything that goes is chosen
    blocks: int = 1  # heads; each loses as many dimensions
    is_blockwise: bool = False  # whole heads go

    @property
    def total(self) -> int:
        """How many go in all: whole blocks, or parts of each block."""
        return (self.size - self.n_kept) * (self.blocks if self.is_blockwise else 1) // self._unit

    @property
    def _unit(self) -> int:
        return self.size if self.is_blockwise else self.blocks


class Schedule(NamedTuple):
    """When parts are chosen."""

    interval: int  # steps between two choices
    n_choices: Mapping[str, int]  # by group


def choose_strategy(teacher: Shape, student: Shape, wanted: str) -> str:
    """Return "dim" (every head loses dimensions) or "head" (whole heads go), whichever makes the student's shape.

    Raises:
        ValueError: if none does, with the numbers of heads that work.
    """
    same_heads = teacher.heads == student.heads
    same_size = teacher.hidden * student.heads == student.hidden * teacher.heads
    possible = [name for name, fits in (("dim", same_heads), ("head", same_size)) if fits]
    if wanted in possible:
        return wanted
    if wanted == "auto" and possible:
        return possible[0]
    working = {"dim": [teacher.heads] if student.hidden % teacher.heads == 0 else []}
    size = teacher.hidden // teacher.heads
    working["head"] = [student.hidden // size] if student.hidden % size == 0 else []
    heads = sorted({each for name, found in working.items() for each in found if wanted in ("auto", name)})
    advice = f"Use a --hidden that is a multiple of {size}."
    if heads:
        advice = f"Use --heads {' or '.join(map(str, heads))}."
    only = "" if wanted == "auto" else f" and strategy = {wanted!r}"
    raise Refused(
        f"recipe: [[stage]] 'weight_inheritance' got a student of {student.heads} heads of "
        f"{student.hidden // student.heads} and a teacher of {teacher.heads} heads of {size}, expected as many heads "
        f"(strategy 'dim') or heads of the same size (strategy 'head'){only}. {advice}"
    )


def find_groups(slots: Iterable[Slot], teacher: Shape, student: Shape, strategy: str) -> list[Group]:
    """Return the groups that the tensors of a model run along.

    Args:
        slots: of the wide network.
        teacher: shape of the teacher, which the wide network has, its depth aside.
        student: shape of the student.
        strategy: "dim" or "head".

    Raises:
        ValueError: if the student is wider.
    """
    for name in ("hidden", "ffn"):
        if getattr(student, name) > getattr(teacher, name):
            raise Refused(
                f"recipe: [[stage]] 'weight_inheritance' got a student of {name}={getattr(student, name)}, expected at "
                f"most the teacher's {getattr(teacher, name)}. Use --{name} {getattr(teacher, name)} or less."
            )
    is_blockwise = strategy == "head"
    # One head per two choices, as published.
    n_coarse = 2 * (teacher.heads - student.heads) if is_blockwise else COARSE_STEPS
    found = {}
    for axis in (axis for slot in slots for axis in slot.axes):
        if axis.along in ("residual", "head"):
            n_choices = n_coarse if axis.along == "residual" else FINE_STEPS
            found[axis.group] = Group(axis.group, teacher.hidden, student.hidden, n_choices)
        elif axis.along == "inner":
            found[axis.group] = Group(axis.group, teacher.hidden, student.hidden, n_coarse, teacher.heads, is_blockwise)
        elif axis.along == "ffn":
            found[axis.group] = Group(axis.group, teacher.ffn, student.ffn, FINE_STEPS)
    return list(found.values())


def removed(choice: int, total: int, n_choices: int) -> int:
    """Return how many are gone after so many choices.

    >>> [removed(choice, 48, 8) for choice in (0, 1, 2, 7, 8, 9)]
    [0, 6, 12, 42, 48, 48]
    """
    return total if choice >= n_choices else choice * total // n_choices


def plan_schedule(groups: Sequence[Group], n_steps: int, interval: int = 0) -> Schedule:
    """Return when parts are chosen: at most so late that everything is by ``LATEST`` of the stage.

    Args:
        groups: what is narrowed.
        n_steps: of the stage.
        interval: steps between two choices, 0 for a fortieth of the stage; less where that would take too long.
    """
    latest = int(LATEST * n_steps)
    most = max((group.n_choices for group in groups if group.total), default=1)
    interval = max(1, min(interval or n_steps // N_INTERVALS, latest // most))
    # A stage of very few steps takes more at a time.
    most = max(1, latest // interval)
    return Schedule(interval, {group.name: max(1, min(group.n_choices, most)) for group in groups})


def select(group: Group, scores: Tensor, n_removed: int) -> Tensor:
    """Return which parts are kept, bool (size,): all but the lowest scores, ties to the lower index.

    Args:
        group: whose parts.
        scores: (size,), not negative.
        n_removed: of each block, or whole blocks.
    """
    by_block = scores.view(group.blocks, -1)  # (blocks, size / blocks)
    rows = by_block.sum(dim=1).unsqueeze(0) if group.is_blockwise else by_block
    order = torch.argsort(rows, dim=1, descending=True, stable=True)
    kept = torch.zeros_like(rows, dtype=torch.bool)
    kept.scatter_(1, order[:, : rows.shape[1] - n_removed], True)
    if group.is_blockwise:
        return kept.view(-1, 1).expand(by_block.shape).flatten()
    return kept.flatten()


class Masks(nn.Module):
    """The masks of a network by group: True for what is kept. They are saved with its state."""

    def __init__(self, groups: Sequence[Group]) -> None:
        """Keep everything."""
        super().__init__()
        self.groups = {group.name: group for group in groups}
        for group in groups:
            self.register_buffer(_buffer(group.name), torch.ones(group.size, dtype=torch.bool))

    def kept(self, name: str) -> Tensor:
        """Return a group's mask, bool (size,)."""
        found: Tensor = getattr(self, _buffer(name))
        return found

    def choose(self, scores: Mapping[str, Tensor], choice: int, n_choices: Mapping[str, int]) -> None:
        """Choose anew in every group, from its scores (size,)."""
        for name, group in self.groups.items():
            n_removed = removed(choice, group.total, n_choices[name])
            self.kept(name).copy_(select(group, scores[name], n_removed))

    @property
    def has_targets(self) -> bool:
        """Whether anything goes at all."""
        return any(group.total for group in self.groups.values())

    @property
    def share(self) -> float:
        """How much of what goes is chosen, 0 to 1."""
        total = sum(group.size - group.n_kept for group in self.groups.values())
        return sum(int((~self.kept(name)).sum()) for name in self.groups) / total if total else 1.0

    @property
    def is_done(self) -> bool:
        """Whether the student's shape is reached."""
        return all(int(self.kept(name).sum()) == group.n_kept for name, group in self.groups.items())


def _buffer(name: str) -> str:
    return f"kept_{name.replace('.', '_')}"


Entries = Sequence[tuple[nn.Parameter, Tensor]]  # a parameter and which of its rows are kept, bool (rows,)


def hold(entries: Entries) -> list[Tensor]:
    """Take the loss's gradient off masked rows and return their values, to be given to :func:`shrink` after the step.

    Without a gradient they do not count when gradients are clipped, and Adam remembers nothing of them.
    """
    held = []
    for parameter, kept in entries:
        if parameter.grad is not None:
            parameter.grad[~kept] = 0.0
        held.append(parameter.detach()[~kept])
    return held


@torch.no_grad()
def shrink(entries: Entries, held: Sequence[Tensor], factor: float) -> None:
    """Put masked rows to ``factor`` times what they were, whatever the optimizer did to them."""
    for (parameter, kept), values in zip(entries, held, strict=True):
        parameter[~kept] = factor * values


@torch.no_grad()
def redirect(entries: Entries, optimizer: torch.optim.Optimizer, decay: float) -> None:
    """Give masked rows the published gradient, min(decay, 1) theta, and edit Adam's first moment.

    moment <- 0.9 moment + 0.1 (decay - 1) theta on masked rows. Kept rows take part in the factor 0.9, as published.
    """
    for parameter, kept in entries:
        if parameter.grad is None:
            continue
        masked = torch.where(_column(kept, parameter), 0.0, parameter)
        parameter.grad.mul_(_column(kept, parameter)).add_(masked, alpha=min(decay, 1.0))
        moment = optimizer.state.get(parameter, {}).get("exp_avg")
        if moment is not None and decay > 1:
            moment.mul_(0.9).add_(masked, alpha=0.1 * (decay - 1))


@torch.no_grad()
def clear(entries: Entries) -> None:
    """Set masked rows to zero."""
    for parameter, kept in entries:
        parameter[~kept] = 0.0


def _column(kept: Tensor, parameter: Tensor) -> Tensor:
    return kept.view(-1, *[1] * (parameter.dim() - 1))
