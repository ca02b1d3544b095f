"""Any number of labels: logits, and the probability of each label by itself."""

from typing import TYPE_CHECKING, Any

from exporters.heads import classification

if TYPE_CHECKING:
    from torch import Tensor


class Head(classification.Head):
    """Labels for each text, none to all of them."""

    fewest_labels = 1

    @staticmethod
    def outputs(output: Any, attention_mask: "Tensor", pooling: object) -> "tuple[Tensor, ...]":
        """Return logits (batch, labels) and their sigmoid."""
        return output.logits, output.logits.sigmoid()
