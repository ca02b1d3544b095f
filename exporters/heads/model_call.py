"""How every head calls its model: with the attention mask as the attention adds it."""

from typing import Any

import torch
from torch import Tensor, nn


# Any: the models' output classes share no base that declares .logits
def call(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Any:
    """Return the model's output for ids and mask, each (batch, tokens).

    The mask is made here because the models' own code makes it from ranges and index arithmetic, which is 20 nodes
    more in the graph.
    """
    visible = attention_mask[:, None, None, :].to(torch.float32)  # (batch, 1, 1, tokens)
    mask = (1.0 - visible) * torch.finfo(torch.float32).min
    types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
    return model(input_ids=input_ids, attention_mask=mask, **types)
