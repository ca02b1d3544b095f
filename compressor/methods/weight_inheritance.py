"""Narrow the teacher while it is trained: compactors around every matrix, cut away part by part, then multiplied in.

Weight-Inherited Distillation (Wu et al., 2305.09098). Every linear module of a network of the teacher's width and the
student's depth gets two square compactors that start as the identity:

    y = C_out (W (C_in x) + b);  at the end W' = C_out[kept, :] W C_in[:, kept], b' = (C_out b)[kept]

Every ``interval`` steps (0: a fortieth of the stage) the parts that matter least are chosen: the squared norms of the
compactors that read them, times their energy on real text (``importance``). ``score`` = "first" takes one reader per
width, as published. Chosen parts are reset to zero: ``resetting`` = "shrink" multiplies them by 1 - rate * ``decay`` at
every step (``decay`` = 0: to 1 % within a quarter of the stage, however long it is) and by 0 in the last share
``settle`` of the stage; "momentum" is the published edit of Adam. Everything is chosen by 60 % of the stage and then
stays chosen, or, with ``churn``, is chosen anew. ``strategy``: every head loses dimensions ("dim") or whole heads go
("head"). ``source_rate`` is the learning rate of the original weights; ``compactors_only`` freezes them. ``depth``:
student layers start as teacher layers ("select") or as means of adjacent ones ("mixture"). ``loss`` and
``loss_options`` name the method whose loss trains the wide network.

The student's own tensors from before the stage are not used: it belongs first. When heads get narrower the queries
carry sqrt(d_student / d_teacher), which the released code forgets. It refuses activations that are not 0 at 0 and
students that have neither the teacher's number of heads nor its head size.
"""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.inherit.compactors import MaskedLayerNorm, Network, build_network, check_cut, cut
from compressor.inherit.fold import certify
from compressor.inherit.masks import (
    STRATEGIES,
    Entries,
    Masks,
    Schedule,
    choose_strategy,
    clear,
    find_groups,
    hold,
    plan_schedule,
    redirect,
    shrink,
)
from compressor.inherit.objective import Inheriting, LossOptions, shapes_of
from compressor.models.families import Shape, shape_of
from compressor.models.slots import group_layers, pick_layers
from compressor.refused import Refused
from compressor.student.student import temperature
from compressor.training.contract import Context, MethodOptions, check_choice, check_shares

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "weight_inheritance"
PUBLISHED_DECAY = 20.0


@dataclass(frozen=True)
class Options(LossOptions):
    """Knobs of ``weight_inheritance``."""

    source_rate: float = 2e-5  # of the original weights; published 1/50 of the compactors'
    compactors_only: bool = False
    depth: str = "select"  # or "mixture"
    strategy: str = "auto"  # or "dim", "head"
    score: str = "all"  # or "first"
    importance: bool = True
    interval: int = 0
    churn: bool = False
    resetting: str = "shrink"  # or "momentum"
    decay: float = 0.0  # published: 20, for 400,000 steps
    settle: float = 0.1  # share of the stage at its end in which what goes is exactly zero

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(NAME, "depth", self.depth, ("select", "mixture"))
        check_choice(NAME, "strategy", self.strategy, STRATEGIES)
        check_choice(NAME, "score", self.score, ("all", "first"))
        check_choice(NAME, "resetting", self.resetting, ("shrink", "momentum"))
        check_shares(NAME, settle=self.settle)
        if self.compactors_only and self.source_rate != Options.source_rate:
            raise Refused(
                f"recipe: [[stage]] {NAME!r} option source_rate = {self.source_rate:g} is for the original weights, "
                "which compactors_only keeps as they are. Leave one of the two out."
            )
        for key in ("source_rate", "interval", "decay"):
            if getattr(self, key) < 0:
                raise Refused(f"recipe: [[stage]] {NAME!r} option {key} = {getattr(self, key):g}, expected 0 or more.")


class Objective(Inheriting):
    """The wide network, its compactors and its masks."""

    step: Tensor
    runs_wide = True

    @staticmethod
    def check_shapes(teacher: Shape, student: Shape, options: MethodOptions) -> None:
        """Refuse numbers of heads that no strategy arrives at."""
        Inheriting.check_shapes(teacher, student, options)
        assert isinstance(options, Options)
        choose_strategy(teacher, student, options.strategy)

    def __init__(self, context: Context, options: Options) -> None:
        network = build_network(
            context, mixes_layers=options.depth == "mixture", trains_sources=not options.compactors_only
        )
        theirs = network.ancestry.teacher
        ours = shape_of(context.student.config.to_dict(), theirs.n_labels)
        strategy = choose_strategy(theirs, ours, options.strategy)
        groups = find_groups(network.ancestry.slots, theirs, ours, strategy)
        check_cut(network, groups, shapes_of(context.student))
        super().__init__(context, options, network.model, network.maps)
        self.options, self.slots, self.sides = options, network.ancestry.slots, network.sides
        self.masks = Masks(groups)
        self.factor = temperature(theirs, ours)
        self.plain, self.is_finished = [context.student], False  # in a list: not a part of what is trained
        for name, worth in _worth(context, network, self.masks, options).items():
            self.register_buffer(_buffer(name), worth, persistent=False)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.schedule: Schedule | None = None
        self.n_steps = 0
        self.held: list[Tensor] = []

    @property
    def student(self) -> "PreTrainedModel":
        """The wide network; after ``finish`` the plain student."""
        return self.plain[0] if self.is_finished else super().student

    def begin(self, n_steps: int) -> None:
        """Plan the choices for a stage of so many steps."""
        self.n_steps = n_steps
        self.schedule = plan_schedule(list(self.masks.groups.values()), n_steps, self.options.interval)
        self._show()

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Send gradients back through the compactors, and take them off what is chosen."""
        super().before_step(optimizer)
        if self.options.resetting == "shrink":
            self.held = hold(self.entries())
        elif self._n_choices() == 0:
            for side in self._compactors():
                if side.grad is not None:
                    side.grad += side.detach()
        else:
            redirect(self.entries(), optimizer, self.options.decay or PUBLISHED_DECAY)

    @torch.no_grad()
    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Shrink what is chosen, and choose when it is time."""
        assert self.schedule is not None
        rate = float(optimizer.param_groups[0]["lr"])  # the stage's own rate comes first
        n_choices = self._n_choices()
        self.step += 1
        step = int(self.step)
        if self.options.resetting == "shrink":
            is_settled = step > (1 - self.options.settle) * self.n_steps
            factor = 1 - rate * self.options.decay if self.options.decay else 0.01 ** (4 / self.n_steps)
            shrink(self.entries(), self.held, 0.0 if is_settled else max(0.0, factor))
            if n_choices == 0 and self.masks.has_targets:  # the published L2 term, apart from Adam too
                for side in self._compactors():
                    side *= 1 - rate
        if step % self.schedule.interval == 0 and (self.options.churn or not self.masks.is_done):
            self.choose(step // self.schedule.interval)

    def choose(self, choice: int) -> None:
        """Choose what is kept, for the ``choice``-th time."""
        assert self.schedule is not None
        self.masks.choose(self.scores(), choice, self.schedule.n_choices)
        self._show()

    @torch.no_grad()
    def scores(self) -> dict[str, Tensor]:
        """Return the score of every part by group, (size,)."""
        found = {}
        for name, group in self.masks.groups.items():
            worth: Tensor = getattr(self, _buffer(name))
            readers = [side for side in self.sides if side.group == name and side.reads]
            if name == "residual" and self.options.score == "first":
                readers = [side for side in readers if side.role == "value" and side.layer == 0]
            norms = [self.maps.value(side.name).square().sum(dim=1) for side in readers]
            # A bare encoder's pooler is read by nothing.
            found[name] = worth * (torch.stack(norms).sum(dim=0) if norms else worth.new_ones(group.size))
        return found

    def entries(self) -> Entries:
        """Return everything that masks take rows from."""
        own = dict(super().student.named_parameters())
        norms = [
            (own[slot.name], self.masks.kept(slot.axes[0].group))
            for slot in self.slots
            if slot.is_norm and slot.axes[0].group in self.masks.groups
        ]
        sides = [(self.maps.value(side.name), self.masks.kept(side.group)) for side in self.sides]
        return [*sides, *norms]  # type: ignore[list-item]

    def rate_of(self, name: str) -> float | None:
        """Return the learning rate of the original weights, or of what is trained directly where it has its own."""
        return self.options.source_rate if name.startswith("maps.sources.") else super().rate_of(name)

    def observe(self) -> dict[str, float]:
        """Return the share of what goes that is chosen, and the largest entry of it that is left."""
        left = [float(values.detach()[~kept].abs().max()) for values, kept in self.entries() if not kept.all()]
        return super().observe() | {"removed": self.masks.share, "left": max(left, default=0.0)}

    def finish(self, batches: list[dict[str, Tensor]]) -> dict[str, Any]:
        """Set what goes to zero, cut the student out and return the certificate (``inherit.fold.certify``)."""
        self.forget()
        if not self.masks.is_done:
            self.schedule = self.schedule or plan_schedule(list(self.masks.groups.values()), 0)
            self.choose(max(self.schedule.n_choices.values()))
        clear(self.entries())
        wide = super().student
        with torch.no_grad():
            exact = copy.deepcopy(self.maps).double()({})
        live, own = self.values(), wide.state_dict()
        folded = {name: value.detach() for name, value in self.maps.fold({}).items()}
        student = self.plain[0]
        found = certify(
            carrier=self._comparable(wide),
            live=live,
            exact=exact,
            tensors=self._cut({**own, **live}),
            folded=self._cut({**{name: value.double() for name, value in own.items()}, **folded}),
            student=student,
            batches=batches,
        )
        student.requires_grad_(True)
        self.is_finished = True
        return found

    def _cut(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return cut(values, self.slots, self.masks, self.factor)

    def _comparable(self, wide: nn.Module) -> nn.Module:
        """Return a copy of the wide network whose hidden states are the student's coordinates."""
        kept = self.masks.kept("residual")

        def narrow(_module: nn.Module, _inputs: Any, output: Any) -> Any:  # Any: a ModelOutput
            if getattr(output, "last_hidden_state", None) is not None:
                output.last_hidden_state = output.last_hidden_state[..., kept]
            return output

        carrier = copy.deepcopy(wide)
        carrier.register_forward_hook(narrow)
        return carrier

    def _n_choices(self) -> int:
        assert self.schedule is not None
        return int(self.step) // self.schedule.interval

    def _compactors(self) -> list[Tensor]:
        return [self.maps.value(side.name) for side in self.sides]

    def _show(self) -> None:
        """Tell every LayerNorm which coordinates are kept."""
        for slot in self.slots:
            module = super().student.get_submodule(slot.name.rpartition(".")[0])
            if isinstance(module, MaskedLayerNorm):
                module.keep(self.masks.kept(slot.axes[0].group))


def _worth(context: Context, network: Network, masks: Masks, options: Options) -> dict[str, Tensor]:
    """Return what every part is worth by group, (size,) with mean 1: its energy on real text, or 1.

    The inside of a head was not measured: there it is the squared norm of the weights that read it.
    """
    ancestry = network.ancestry
    found = {name: torch.ones(group.size, dtype=torch.float64) for name, group in masks.groups.items()}
    if options.importance:
        assert context.activations is not None
        n_layers = ancestry.teacher.layers, ancestry.student.layers
        layers = group_layers(*n_layers) if options.depth == "mixture" else [(each,) for each in pick_layers(*n_layers)]
        for name in found:
            kind, _, layer = name.partition(".")
            if kind == "residual":
                found[name] = torch.from_numpy(context.activations.coordinates)
            elif kind == "head":
                for slot in ancestry.slots:
                    if slot.role == "head_out" and not slot.is_bias:
                        found[name] = ancestry.sources[slot.name][0].double().square().sum(dim=0)
            else:
                measured = context.activations.inner if kind == "inner" else context.activations.units
                found[name] = sum(torch.from_numpy(measured[each]) for each in layers[int(layer)])  # type: ignore[assignment]
    return {name: (worth / worth.mean().clamp(min=1e-30)).float() for name, worth in found.items()}


def _buffer(name: str) -> str:
    return f"worth_{name.replace('.', '_')}"
