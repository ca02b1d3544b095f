"""Any number of labels: logits, and the probability of each label by itself."""

from typing import TYPE_CHECKING, Any

from exporters import head

if TYPE_CHECKING:
    from torch import Tensor


class Head(head.Head):
    """Labels for each text, none to all of them."""

    names = ("logits", "probabilities")
    answer = "probabilities"
    fewest_labels = 1

    @staticmethod
    def outputs(output: Any, attention_mask: "Tensor", pooling: object) -> "tuple[Tensor, ...]":
        """Return logits (batch, labels) and their sigmoid."""
        return output.logits, output.logits.sigmoid()
