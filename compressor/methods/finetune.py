"""Train on the labels alone: no teacher.

    loss = cross-entropy(logits, label)          classes; of each label by itself where a row has several
         = mean squared error                     a score

It makes teachers (``tenmeg finetune``), and it is the student-from-scratch arm of every comparison. It refuses sentence
embeddings, which have no labels.
"""

from dataclasses import dataclass

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
        if not context.spec.needs_labels:
            raise Refused(
                "method 'finetune' got a sentence encoder, expected a task with labels. Use --method distill."
            )
        self.student, self.spec, self.options = context.student, context.spec, options

    def forward(self, labels: Tensor, **batch: Tensor) -> dict[str, Tensor]:
        """Return the one term ``labels``; ``labels`` are the targets of the task, (batch,) or (batch, values)."""
        logits = self.student(**model_inputs(batch)).logits.float()  # (batch, classes)
        return {"labels": self.spec.label_loss(logits, labels, self.options.label_smoothing)}
