"""The head of classes and scores: logits and, of classes, their probabilities."""

import torch
from torch import Tensor, nn

from exporters.heads.model_call import call


class Classifier(nn.Module):
    """Logits and, unless it is a regression, their softmax."""

    def __init__(self, model: nn.Module, n_labels: int) -> None:
        super().__init__()
        self.model = model
        self.is_regression = n_labels == 1

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return logits (batch, labels) and, of classes, their softmax."""
        logits = call(self.model, input_ids, attention_mask, token_type_ids).logits  # (batch, labels)
        return (logits,) if self.is_regression else (logits, torch.softmax(logits, dim=-1))
