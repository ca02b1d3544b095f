"""Sentence encoders: token vectors, pooled and normalised as the checkpoint asks."""

from typing import TYPE_CHECKING, Any

from exporters import head

if TYPE_CHECKING:
    from torch import Tensor

    from exporters.pooling import Pooling


class Head(head.Head):
    """A vector for each text."""

    task = "feature-extraction"
    names = ("last_hidden_state", "sentence_embedding")
    answer = "sentence_embedding"
    compared = "sentence_embedding"
    has_layer = False

    @staticmethod
    def outputs(output: Any, attention_mask: "Tensor", pooling: "Pooling | None") -> "tuple[Tensor, ...]":
        """Return token vectors (batch, tokens, hidden) and text vectors (batch, hidden)."""
        from torch.nn.functional import normalize

        assert pooling is not None
        hidden = output[0]  # (batch, tokens, hidden)
        pooled = pool(hidden, attention_mask, pooling.mode)
        return hidden, normalize(pooled, dim=-1) if pooling.normalize else pooled


def pool(hidden: "Tensor", attention_mask: "Tensor", mode: str) -> "Tensor":
    """Return one vector per text, ``(batch, hidden)``, from token vectors ``(batch, tokens, hidden)``."""
    weight = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (batch, tokens, 1)
    if mode == "cls":
        return hidden[:, 0]
    if mode == "max":
        return (hidden + (weight - 1) * 1e9).amax(dim=1)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)
