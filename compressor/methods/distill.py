"""Imitate the teacher's outputs and its hidden states, word by word, across two different vocabularies.

    loss = logits * T^2 KL(teacher / T || student / T)          classes (mean squared error for a score)
         + labels * CE(student, label)                          where the rows carry labels
         + hidden * mean over layers, words of |s/|s| - t/|t||^2
         + embedding * (1 - cos(student, teacher)) + similarity * |cos matrix - cos matrix|^2     sentence embeddings

The terms are those of ``compressor.training.imitation``. Where a row has several labels, KL and CE are those of each
label by itself, summed. The teacher is not here at all: its outputs come from the cache, computed once per row on its
own cut of the text. Refuses nothing that a teacher of the supported families can do.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from compressor.models.families import n_passes
from compressor.scoring.contract import Weights
from compressor.training import objective as base
from compressor.training.contract import Context, MethodOptions, Situation, Wants, model_inputs
from compressor.training.imitation import Imitation, without_dropout

OFTEN, DROPOUT, SMALL_DROPOUT = 3.0, 0.1, 0.3  # from so many epochs on


@dataclass(frozen=True)
class Options(MethodOptions):
    """Knobs of ``distill``."""

    temperature: float = 2.0
    logits: float = 1.0
    labels: float = 0.0
    hidden: float = 1.0  # the plan says 0 for a student that is no transformer, where it is not given
    embedding: float = 1.0
    similarity: float = 10.0
    dropout: float = 0.0  # while training; the plan says more for three epochs or more, where it is not given
    layers: int = 2  # how many of the teacher's layers are cached and compared, evenly spaced, the last among them

    def wants(self) -> Wants:
        """Return what a stage with this loss wants of the run."""
        is_free = not self.labels
        return Wants(word_layers=self.layers if self.hidden > 0 else 0, labels=not is_free, varies=is_free)

    def suited(self, given: Collection[str], situation: Situation) -> dict[str, Any]:
        """Return the dropout, some where rows are seen often and answers are few numbers, and the weight of states."""
        is_often = situation.epochs >= OFTEN and situation.has_head
        dropout = SMALL_DROPOUT if situation.is_small else DROPOUT
        found = {"dropout": dropout if is_often else 0.0, **({"hidden": 0.0} if situation.is_small else {})}
        return {name: value for name, value in found.items() if name not in given}


class Objective(base.Objective):
    """The student and the projections that training needs."""

    keeps_best = True
    any_family = True

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__()
        self.student = context.student
        without_dropout(self.student, options.dropout)
        config = context.student.config
        self.imitation = Imitation(
            context,
            Weights.of(options),
            width=config.hidden_size,
            n_layers=n_passes(config),
            layers=context.teacher_layers,
        )

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name; the batch's names and shapes are those of ``Imitation.forward``."""
        output = self.student(**model_inputs(batch), output_hidden_states=self.imitation.needs_hidden(batch))
        terms: dict[str, Tensor] = self.imitation(output, batch["attention_mask"], batch.get("words"), batch)
        return terms
