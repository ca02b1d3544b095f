"""Imitate the teacher's outputs and its hidden states, word by word, across two different vocabularies.

    loss = logits * T^2 KL(teacher / T || student / T)          classes (mean squared error for a score)
         + labels * CE(student, label)                          where the rows carry labels
         + hidden * mean over layers, words of |s/|s| - t/|t||^2
         + embedding * (1 - cos(student, teacher)) + similarity * |cos matrix - cos matrix|^2     sentence embeddings

Words are spans of the text, so that the states can be compared although student and teacher cut them differently: a
word's state is the mean over its pieces; the first special token counts as one more word. When the widths differ, a
learned linear map per layer brings the student's states to the teacher's width; it is dropped afterwards, and for
sentence embeddings of another width the ``similarity`` term ties the geometry. Student layer i is compared with the
teacher's layer at the same relative depth (PKD 1908.09355, TinyBERT 1909.10351). The teacher is not here at all: its
outputs come from the cache, computed once per row. Refuses nothing that a teacher of the supported families can do.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from compressor.losses import cosine_distance, normalized_mse, similarity_mse, soft_cross_entropy, word_means
from compressor.objective import Context
from compressor.pool import pool


@dataclass(frozen=True)
class Options:
    """Knobs of ``distill``."""

    temperature: float = 2.0
    logits: float = 1.0
    labels: float = 0.0
    hidden: float = 1.0
    embedding: float = 1.0
    similarity: float = 10.0
    dropout: float = 0.0  # while training; the cached targets are those of a teacher without it
    layers: int = 2  # how many of the teacher's layers are cached and compared, evenly spaced, the last among them


class Objective(nn.Module):
    """The student and the projections that training needs."""

    needs_teacher = True

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__()
        self.student = context.student
        for module in self.student.modules():
            if isinstance(module, nn.Dropout):
                module.p = options.dropout
        self.kind = context.spec.kind
        self.pooling = context.pooling
        self.options = options
        config = context.student.config
        n_student, n_teacher = config.num_hidden_layers, max(context.teacher_n_layers, 1)
        # The teacher's layer k of n stands beside the student's layer at the same relative depth, at least the first.
        self.student_layers = [max(1, round(layer * n_student / n_teacher)) for layer in context.teacher_layers]
        same_width = config.hidden_size == context.teacher_hidden
        self.projections = nn.ModuleList(
            nn.Identity() if same_width else nn.Linear(config.hidden_size, context.teacher_hidden)
            for _ in self.student_layers
        )
        self.embedding_projection: nn.Module | None = None
        if self.kind == "embedding" and not same_width:
            self.embedding_projection = nn.Linear(config.hidden_size, context.teacher_hidden, bias=False)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name.

        Args:
            **batch: ``input_ids``, ``attention_mask``, maybe ``token_type_ids`` (batch, tokens); ``teacher_output``
                (batch, classes or width); ``words`` (batch, tokens) and ``teacher_units`` (batch, units),
                ``teacher_states`` (batch, units, layers, teacher width); ``labels`` (batch,).
        """
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
        use_hidden = self.options.hidden > 0 and "teacher_states" in batch
        output = self.student(**inputs, output_hidden_states=use_hidden)
        terms: dict[str, Tensor] = {}
        if self.kind == "embedding":
            terms |= self._embedding_terms(output.last_hidden_state, batch)
        else:
            terms |= self._logit_terms(output.logits, batch)
        if use_hidden:
            terms["hidden"] = self.options.hidden * self._hidden_term(output.hidden_states, batch)
        return terms

    def _logit_terms(self, logits: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        terms = {}
        if self.options.logits > 0:
            if self.kind == "regression":
                loss = F.mse_loss(logits.float(), batch["teacher_output"])
            else:
                loss = soft_cross_entropy(logits, batch["teacher_output"], self.options.temperature)
            terms["logits"] = self.options.logits * loss
        if self.options.labels > 0 and "labels" in batch:
            if self.kind == "regression":
                loss = F.mse_loss(logits.float().squeeze(-1), batch["labels"].float())
            else:
                loss = F.cross_entropy(logits.float(), batch["labels"])
            terms["labels"] = self.options.labels * loss
        return terms

    def _embedding_terms(self, states: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        assert self.pooling is not None
        ours = pool(states, batch["attention_mask"], self.pooling)  # (batch, width)
        theirs = batch["teacher_output"]  # (batch, teacher width)
        terms = {}
        if self.options.similarity > 0:
            terms["similarity"] = self.options.similarity * similarity_mse(ours, theirs)
        if self.options.embedding > 0:
            projected = ours if self.embedding_projection is None else self.embedding_projection(ours)
            terms["embedding"] = self.options.embedding * cosine_distance(projected, theirs)
        return terms

    def _hidden_term(self, hidden_states: tuple[Tensor, ...], batch: dict[str, Tensor]) -> Tensor:
        units = batch["teacher_units"]  # (batch, units): word index of each cached state, -1 for padding
        n_words = int(max(units.max(), batch["words"].max())) + 1
        total = hidden_states[-1].new_zeros(()).float()
        for index, (layer, projection) in enumerate(zip(self.student_layers, self.projections, strict=True)):
            ours, has_ours = word_means(hidden_states[layer].float(), batch["words"], n_words)  # (batch, words, width)
            positions = units.clamp(min=0)
            ours = ours.gather(1, positions.unsqueeze(-1).expand(-1, -1, ours.shape[-1]))  # (batch, units, width)
            mask = (units >= 0) & has_ours.gather(1, positions)
            total = total + normalized_mse(projection(ours), batch["teacher_states"][:, :, index], mask)
        return total / max(len(self.student_layers), 1)
