"""What one model can imitate of another across two vocabularies: outputs, hidden states and attention, word by word.

    logits * T^2 KL(theirs / T || ours / T)               classes (mean squared error for a score)
  + labels * CE(ours, label)                              where the rows carry labels
  + embedding * (1 - cos(ours, theirs)) + similarity * |cos matrix - cos matrix|^2      sentence embeddings
  + hidden * mean over layers, words of |s/|s| - t/|t||^2
  + attention * mean over words of KL(their attention || ours), last layer, heads averaged

Words are spans of the text, so that states can be compared although the two models cut them differently: a word's
state is the mean over its pieces, its attention the mean over its pieces of the sum over the other word's; the first
special token counts as one more word. When the widths differ, a learned linear map per layer brings our states to
their width (``compressor.training.projection``); it is dropped after training. Our layer i stands beside their layer
at the same relative depth (PKD 1908.09355, TinyBERT 1909.10351). Nothing here knows where the other model's outputs
come from: a cache, or a model that is trained alongside.
"""

from typing import Any

import torch
from torch import Tensor, nn

from compressor.batches.pooling import UnitMeans, pool, word_attention, word_means
from compressor.scoring.contract import Weights
from compressor.scoring.losses import unit_distance, word_kl
from compressor.training.contract import Context
from compressor.training.projection import Projection, brought


class Imitation(nn.Module):
    """The terms, and the projections that they need."""

    def __init__(
        self, context: Context, weights: Weights, *, width: int, n_layers: int, layers: tuple[int, ...]
    ) -> None:
        """Build the projections.

        Args:
            context: of the method; says the task and the teacher's width and depth.
            weights: of the terms.
            width: of our hidden states.
            n_layers: how many layers we have.
            layers: which of the teacher's hidden states are given to ``forward``; 0 is the embedding output.
        """
        super().__init__()
        self.spec, self.pooling, self.weights = context.spec, context.pooling, weights
        n_teacher = max(context.teacher_n_layers, 1)
        # The teacher's layer k of n stands beside our layer at the same relative depth, at least the first.
        self.layers = [max(1, round(layer * n_layers / n_teacher)) for layer in layers]
        same_width = width == context.teacher_hidden
        self.projections = nn.ModuleList(
            nn.Identity()
            if same_width or weights.hidden <= 0
            else Projection(f"words/{ours}-{theirs}", width, context.teacher_hidden)
            for ours, theirs in zip(self.layers, layers, strict=True)
        )
        self.embedding_projection: Projection | None = None
        if self.pooling is not None and weights.embedding > 0 and not same_width:
            self.embedding_projection = Projection("embedding", width, context.teacher_hidden, bias=False)

    @classmethod
    def of_teacher(cls, context: Context, weights: Weights) -> "Imitation":
        """Return the terms for a model of the teacher's own shape."""
        shape = {"width": context.teacher_hidden, "n_layers": context.teacher_n_layers}
        return cls(context, weights, **shape, layers=context.teacher_layers)

    def needs_hidden(self, batch: dict[str, Tensor]) -> bool:
        """Return whether our model must return its hidden states for this batch."""
        return self.weights.hidden > 0 and "teacher_states" in batch

    def forward(
        self, output: Any, mask: Tensor, words: Tensor | None, batch: dict[str, Tensor]
    ) -> dict[str, Tensor]:  # Any: transformers' ModelOutput, whose fields depend on the task
        """Return the weighted terms by name.

        Args:
            output: of our model: ``logits`` or ``last_hidden_state``, ``hidden_states``, ``attentions``.
            mask: our attention mask (batch, tokens).
            words: word of each of our tokens, -1 for none (batch, tokens).
            batch: ``teacher_output`` (batch, classes or width); ``teacher_units`` (batch, units) and
                ``teacher_states`` (batch, units, layers, teacher width); ``teacher_attention`` (batch, words, words);
                ``labels``, the targets of the task.
        """
        ours = output.logits if self.pooling is None else pool(output.last_hidden_state, mask, self.pooling)
        brought = None if self.embedding_projection is None else self.embedding_projection.beside
        terms = self.spec.imitation_terms(ours, batch, self.weights, brought)
        return terms | self.state_terms(output, words, batch)

    def state_terms(self, output: Any, words: Tensor | None, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms of hidden states and attention only; arguments as of ``forward``."""
        terms = {}
        if self.needs_hidden(batch):
            assert words is not None
            terms["hidden"] = self.weights.hidden * self._hidden_term(output.hidden_states, words, batch)
        if self.weights.attention > 0 and "teacher_attention" in batch:
            assert words is not None
            theirs = batch["teacher_attention"]
            ours = word_attention(output.attentions[-1], words, theirs.shape[-1])
            terms["attention"] = self.weights.attention * word_kl(ours, theirs)
        return terms

    def _hidden_term(self, hidden_states: tuple[Tensor, ...], words: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean over layers and words; states without a word of the other model's are left out."""
        units = batch["teacher_units"]  # (batch, units): word of each of the teacher's states, -1 for padding
        means = UnitMeans(words, units)
        theirs = batch["teacher_states"][means.found]  # (found, layers, teacher width)
        total = hidden_states[-1].new_zeros(()).float()
        for index, (layer, projection) in enumerate(zip(self.layers, self.projections, strict=True)):
            ours, wanted = means(hidden_states[layer]), theirs[:, index].float()
            total = total + unit_distance(brought(projection, ours, wanted), wanted)
        return total / max(len(self.layers), 1)


def live_states(output: Any, words: Tensor, layers: tuple[int, ...]) -> dict[str, Tensor]:  # Any: a ModelOutput
    """Return a running model's word states (and attention, if it gave any) as ``Imitation.forward`` takes them.

    Args:
        output: with ``hidden_states`` of (batch, tokens, width) each.
        words: word of each token, -1 for none (batch, tokens).
        layers: which hidden states.
    """
    n_words = int(words.max()) + 1
    means = [word_means(output.hidden_states[layer].float(), words, n_words) for layer in layers]
    numbers = torch.arange(n_words, device=words.device).expand(len(words), -1)
    units = numbers.masked_fill(~means[0][1], -1) if means else numbers
    found = {"teacher_units": units}
    if means:
        found["teacher_states"] = torch.stack([mean for mean, _ in means], dim=2).detach()
    if getattr(output, "attentions", None):
        found["teacher_attention"] = word_attention(output.attentions[-1], words, n_words).detach()
    return found


def without_dropout(model: nn.Module, probability: float = 0.0) -> None:
    """Set every dropout of ``model``; targets come from a teacher without it."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
