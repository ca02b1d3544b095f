"""Scores: the one logit is the answer."""

from typing import TYPE_CHECKING, Any

from exporters import head

if TYPE_CHECKING:
    from torch import Tensor


class Head(head.Head):
    """A number for each text."""

    n_values = 1

    @staticmethod
    def outputs(output: Any, attention_mask: "Tensor", pooling: object) -> "tuple[Tensor, ...]":
        """Return the score (batch, 1)."""
        return (output.logits,)
