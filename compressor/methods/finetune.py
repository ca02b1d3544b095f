"""Train on the labels alone: no teacher.

loss = cross-entropy(logits, label) for classes, mean squared error for a score. It makes teachers (``tenmeg
finetune``), and it is the student-from-scratch arm of every comparison. It refuses sentence embeddings, which have no
labels.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

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


class Objective(base.Objective):
    """The student and its labels."""

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__()
        if context.spec.kind == "embedding":
            raise Refused(
                "method 'finetune' got a sentence encoder, expected a task with labels. Use --method distill."
            )
        self.student = context.student
        self.is_regression = context.spec.kind == "regression"
        self.options = options

    def forward(self, labels: Tensor, **batch: Tensor) -> dict[str, Tensor]:
        """Return the one term ``labels``; ``labels`` is (batch,) of class ids or scores."""
        logits = self.student(**model_inputs(batch)).logits.float()  # (batch, classes)
        if self.is_regression:
            return {"labels": F.mse_loss(logits.squeeze(-1), labels.float())}
        return {"labels": F.cross_entropy(logits, labels, label_smoothing=self.options.label_smoothing)}
