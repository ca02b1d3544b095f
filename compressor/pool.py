"""Pooling of token states in torch; the same arithmetic as inside the exported graph."""

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.pooling import Pooling


def pool(states: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector per row (batch, width) from states (batch, tokens, width) and mask (batch, tokens)."""
    states = states.float()
    mask = attention_mask.unsqueeze(-1).to(states.dtype)  # (batch, tokens, 1)
    if pooling.mode == "cls":
        pooled = states[:, 0]
    elif pooling.mode == "max":
        pooled = states.masked_fill(mask == 0, torch.finfo(states.dtype).min).max(dim=1).values
    else:
        pooled = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
    return F.normalize(pooled, dim=-1) if pooling.normalize else pooled
