"""What the methods that make student weights out of teacher weights have in common.

The tensors of a *carrier* (the student itself, or for Weight-Inherited Distillation a network of the teacher's width)
are computed from the teacher's by a :class:`compressor.inherit.learned.MapSet`. The loss is that of another method,
named by the option ``loss`` and built on the carrier: distillation with any of its terms, labels alone, dual training.
The maps are evaluated once per optimizer step: what the forward passes see are leaves, whose gradients, added up over
micro-batches, are sent back through the maps just before the step. At the end the maps are folded, in float64, into the
plain student, and ``compressor.inherit.fold`` certifies it.
"""

import copy
import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from compressor.inherit.fold import certify
from compressor.inherit.learned import MapSet
from compressor.refused import Refused
from compressor.training import objective as base
from compressor.training.contract import Context, MethodOptions, Situation
from compressor.training.registry import build_options, load_method
from exporters.shape import Shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LossOptions(MethodOptions):
    """What the student learns from while its weights are maps."""

    loss: str = "distill"  # the method whose loss it is
    loss_options: dict[str, Any] = field(default_factory=dict)  # of that method
    student_rate: float = 0.0  # learning rate of the student's own tensors, those that are no maps; 0: the stage's

    def __post_init__(self) -> None:
        inner = build_options(self.loss, self.loss_options)
        if not 0 <= self.student_rate < math.inf:
            raise Refused(
                f"recipe: [[stage]] option student_rate = {self.student_rate:g}, expected 0 or more. Leave it out for "
                "the stage's own learning rate."
            )
        if getattr(inner, "head", "") == "fresh":
            raise Refused(
                f"recipe: [[stage]] option loss = {self.loss!r} ends with a fresh head, expected one that stays, for "
                "here the head is made out of the teacher's. Add loss_options = { head = 'keep' }."
            )
        is_nested = isinstance(inner, LossOptions)
        if is_nested:
            raise Refused(
                f"recipe: [[stage]] option loss = {self.loss!r} makes weights out of weights itself, expected a method "
                "with a loss of its own, such as 'distill'. Put the two in stages one after the other."
            )

    def suited(self, given: Collection[str], situation: Situation) -> dict[str, Any]:
        """Return the inner method's options with those that it leaves to the situation."""
        suited = build_options(self.loss, self.loss_options).suited(self.loss_options, situation)
        return {"loss_options": {**self.loss_options, **suited}} if suited else {}

    @property
    def inner(self) -> tuple[str, dict[str, Any]]:
        """The method whose loss it is, and that method's options."""
        return self.loss, self.loss_options


class Inheriting(base.Objective):
    """A loss on a network whose tensors are maps of the teacher's."""

    needs_teacher = measures = is_folded = makes_gradients = True
    learning_rate = 3e-4
    token_share = 0.25  # of the tokens that a stage sees by default: the stage after it needs the rest

    def __init__(self, context: Context, options: LossOptions, carrier: "PreTrainedModel", maps: MapSet) -> None:
        """Build the loss on ``carrier``; its tensors that are mapped and not gated are no longer trained."""
        super().__init__()
        method = load_method(options.loss)
        inner_context = dataclasses.replace(context, student=carrier)
        self.inner = method.objective_class(inner_context, build_options(options.loss, options.loss_options))
        self.maps, self.rate = maps, options.student_rate or None
        gated = {each.slot.name for each in maps.maps if each.gate}
        mapped = {each.slot.name for each in maps.maps}
        for name, parameter in carrier.named_parameters():
            parameter.requires_grad_(name not in mapped or name in gated)
        self.graph: dict[str, Tensor] = {}
        self.leaves: dict[str, Tensor] = {}
        self.mixing, self.is_scored, self.relabels = self.inner.mixing, self.inner.is_scored, self.inner.relabels
        self.trains_teacher = self.inner.trains_teacher
        self.relabel = self.inner.relabel  # type: ignore[method-assign]

    @staticmethod
    def check_shapes(teacher: Shape, student: Shape, options: MethodOptions) -> None:
        """Refuse tables that differ in what no map changes: their number of segments, or their own width (ELECTRA)."""
        for name in ("token_types", "embedding_size"):
            ours, theirs = getattr(student, name), getattr(teacher, name)
            if ours != theirs:
                raise Refused(
                    f"--pretrained has {name} {ours}, the teacher {theirs}, expected as many where weights are made "
                    "out of the teacher's. Give another model, or use --method distill."
                )

    @property
    def student(self) -> "PreTrainedModel":
        """The plain student; its mapped tensors are up to date after ``finish`` only."""
        student: PreTrainedModel = self.inner.student
        return student

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss; arguments as of the inner method's."""
        values = self._step_values() if torch.is_grad_enabled() else self.values()
        named = {f"student.{name}": value for name, value in values.items()}
        terms: dict[str, Tensor] = torch.func.functional_call(self.inner, named, kwargs=batch)
        return terms

    def _step_values(self) -> dict[str, Tensor]:
        """Return this optimizer step's values, evaluated at its first micro-batch."""
        if not self.leaves:
            self.graph = self.evaluate()
            # In float32 under autocast, where gradients of micro-batches add up, and in float64 where all is.
            self.leaves = {
                name: each.detach().to(torch.promote_types(each.dtype, torch.float32)).requires_grad_()
                for name, each in self.graph.items()
            }
        return self.leaves

    def evaluate(self) -> dict[str, Tensor]:
        """Return the value of every mapped tensor by the carrier's name."""
        return self.maps(self.own())

    def values(self) -> dict[str, Tensor]:
        """Return the values in full precision, without a graph."""
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return self.evaluate()

    def own(self) -> dict[str, Tensor]:
        """Return the carrier's own tensors, which gates mix in."""
        return dict(self.inner.student.named_parameters())

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Send the gradients of the leaves back through the maps, averaged over processes."""
        reached = [
            name for name, leaf in self.leaves.items() if leaf.grad is not None and self.graph[name].requires_grad
        ]
        gradients = [gradient for name in reached if (gradient := self.leaves[name].grad) is not None]
        if dist.is_available() and dist.is_initialized():
            for gradient in gradients:
                dist.all_reduce(gradient)
                gradient.div_(dist.get_world_size())
        outputs = [self.graph[name] for name in reached]
        wanted = [each for each in [*self.maps.parameters(), *self._gated()] if each.requires_grad]
        given = [gradient.to(each.dtype) for gradient, each in zip(gradients, outputs, strict=True)]
        # Not backward(): under DistributedDataParallel its hooks would take these for a second pass.
        for parameter, gradient in zip(
            wanted, torch.autograd.grad(outputs, wanted, given, allow_unused=True), strict=True
        ):
            parameter.grad = gradient
        self.forget()

    def _gated(self) -> list[Tensor]:
        own = self.own()
        return [own[each.slot.name] for each in self.maps.maps if each.gate]

    def forget(self) -> None:
        """Drop this step's values."""
        self.graph, self.leaves = {}, {}

    def rate_of(self, name: str) -> float | None:
        """Return the learning rate of what is trained directly, where it has one of its own."""
        if name.startswith("maps."):
            return None
        own = self.inner.rate_of(name.removeprefix("inner."))
        return self.rate if own is None and name.startswith("inner.student.") else own

    def is_undecayed(self, name: str) -> bool:
        """Keep weight decay off sides and gates: it would shrink the product quadratically."""
        return name.startswith("maps.values.")

    def observe(self) -> dict[str, float]:
        """Return the inner method's numbers for the log."""
        return self.inner.observe()

    def scored(self) -> nn.Module:
        """Return a plain copy of the student as it is now."""
        model = copy.deepcopy(self.inner.student)
        model.load_state_dict({**model.state_dict(), **self.values()})
        return model.eval()

    def finish(self, batches: list[dict[str, Tensor]]) -> dict[str, Any]:
        """Fold the maps into the student and return the certificate (``compressor.inherit.fold.certify``)."""
        self.forget()
        live = self.values()
        maps, own = copy.deepcopy(self.maps).double(), {name: each.double() for name, each in self.own().items()}
        with torch.no_grad():
            exact = maps(own)
        carrier = self.inner.student
        found = certify(
            carrier=copy.deepcopy(carrier), live=live, exact=exact, tensors=live, folded=self.maps.fold(self.own()),
            student=carrier, batches=batches,
        )  # fmt: skip
        carrier.requires_grad_(True)
        return found


def shapes_of(model: nn.Module) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of every tensor of a model by name."""
    return {name: tuple(each.shape) for name, each in model.state_dict().items()}
