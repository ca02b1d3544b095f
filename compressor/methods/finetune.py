"""Train on the labels alone: no teacher.

    loss = cross-entropy(logits, label)          classes; of each label by itself where a row has several
         = mean squared error                     a score

It makes teachers (``tenmeg finetune``), and it is the student-from-scratch arm of every comparison. It refuses sentence
embeddings, which have no labels.

A teacher's layers learn at rates of their own (:meth:`Objective.by_layer`; Howard and Ruder 2018, 1801.06146): the last
layer, which answers, fastest, and each layer of the encoder slower than the one above it.
"""

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from compressor.refused import Refused
from compressor.training import objective as base
from compressor.training.contract import Context, MethodOptions, Wants, model_inputs


@dataclass(frozen=True)
class Options(MethodOptions):
    """Knobs of ``finetune``."""

    label_smoothing: float = 0.0

    def wants(self) -> Wants:
        """Return what a stage with this loss wants of the run: labels alone."""
        return Wants(cache=False, labels=True)


LAYER_DECAY = 0.9  # of the learning rate from one layer to the one below
HEAD_RATE = 10.0  # times the stage's: the last layer's


class Objective(base.Objective):
    """The student and its labels."""

    keeps_best = True
    any_family = True

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__()
        if not context.spec.needs_labels:
            raise Refused(
                "method 'finetune' got a sentence encoder, expected a task with labels. Use --method distill."
            )
        self.student, self.spec, self.options = context.student, context.spec, options
        self.rates: dict[str, float] = {}

    def by_layer(self, learning_rate: float) -> None:
        """Let every layer learn at its own rate: the topmost of the encoder at ``learning_rate``."""
        self.rates = {f"student.{name}": rate for name, rate in layer_rates(self.student, learning_rate).items()}

    def rate_of(self, name: str) -> float | None:
        """Return the peak learning rate of one parameter, or ``None`` for the stage's."""
        return self.rates.get(name)

    def forward(self, labels: Tensor, **batch: Tensor) -> dict[str, Tensor]:
        """Return the one term ``labels``; ``labels`` are the targets of the task, (batch,) or (batch, values)."""
        logits = self.student(**model_inputs(batch)).logits.float()  # (batch, classes)
        return {"labels": self.spec.label_loss(logits, labels, self.options.label_smoothing)}


def layer_rates(model: Any, learning_rate: float) -> dict[str, float]:  # Any: a PreTrainedModel
    """Return the rate of every parameter by name; layers that repeat, or are shared, are one."""
    names = [name for name, _ in model.named_parameters()]
    layers = {name: int(found[1]) for name in names if (found := re.search(r"\.layer\.(\d+)\.", name))}
    n_layers = 1 + max(layers.values(), default=-1)
    last = last_linear(model)[0]
    rates = {}
    for name in names:
        if name.startswith(f"{last}."):
            rates[name] = HEAD_RATE * learning_rate
            continue
        # Below the lowest layer are the embeddings, and what brings narrow ones to the model's width.
        n_below = n_layers if "embed" in name else n_layers - 1 - layers[name] if name in layers else 0
        rates[name] = learning_rate * LAYER_DECAY**n_below
    return rates


def last_linear(model: nn.Module) -> tuple[str, nn.Linear]:
    """Return name and module of the layer that answers: the last linear one of a model with a head."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
