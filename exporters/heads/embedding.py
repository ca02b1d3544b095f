"""The head of sentence encoders: token vectors, pooled and normalised as the checkpoint asks."""

from torch import Tensor, nn

from exporters.heads.model_call import call
from exporters.pooling import Pooling


class Embedder(nn.Module):
    """Token vectors and the pooled sentence vector."""

    def __init__(self, model: nn.Module, pooling: Pooling) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return token vectors (batch, tokens, hidden) and text vectors (batch, hidden)."""
        hidden = call(self.model, input_ids, attention_mask, token_type_ids)[0]  # (batch, tokens, hidden)
        pooled = pool(hidden, attention_mask, self.pooling.mode)  # (batch, hidden)
        return hidden, nn.functional.normalize(pooled, dim=-1) if self.pooling.normalize else pooled


def pool(hidden: Tensor, attention_mask: Tensor, mode: str) -> Tensor:
    """Return one vector per text, ``(batch, hidden)``, from token vectors ``(batch, tokens, hidden)``."""
    weight = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (batch, tokens, 1)
    if mode == "cls":
        return hidden[:, 0]
    if mode == "max":
        return (hidden + (weight - 1) * 1e9).amax(dim=1)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)
