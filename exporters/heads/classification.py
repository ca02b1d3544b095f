"""Classes: logits, and their probabilities."""

from typing import TYPE_CHECKING, Any

from exporters import head

if TYPE_CHECKING:
    from torch import Tensor


class Head(head.Head):
    """One of several classes for each text."""

    names = ("logits", "probabilities")
    answer = "probabilities"
    fewest_labels = 2

    @staticmethod
    def outputs(output: Any, attention_mask: "Tensor", pooling: object) -> "tuple[Tensor, ...]":
        """Return logits (batch, labels) and their softmax."""
        return output.logits, output.logits.softmax(dim=-1)
