"""Token states, one per word or per text."""

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.pooling import Pooling


def word_means(hidden: Tensor, words: Tensor, n_words: int) -> tuple[Tensor, Tensor]:
    """Return the mean state of every word and whether the word has any token.

    Args:
        hidden: states (batch, tokens, width).
        words: index of the word each token belongs to, negative for none (batch, tokens).
        n_words: how many words to return.

    Returns:
        (batch, n_words, width) and (batch, n_words).
    """
    membership = F.one_hot(words.clamp(min=-1) + 1, n_words + 1)[..., 1:].to(hidden.dtype)  # (batch, tokens, words)
    counts = membership.sum(dim=1)  # (batch, words)
    sums = membership.transpose(1, 2) @ hidden  # (batch, words, width)
    return sums / counts.clamp(min=1).unsqueeze(-1), counts > 0


class UnitMeans:
    """Which of our tokens make up each unit of the other model, worked out once for all layers."""

    def __init__(self, words: Tensor, units: Tensor) -> None:
        """Pair the two cuts of a text.

        Args:
            words: word of each of our tokens, negative for none (batch, tokens).
            units: words whose states the other model gives, negative for padding (batch, units).
        """
        n_words = int(max(units.max(), words.max())) + 1
        rows = torch.arange(len(words), device=words.device).unsqueeze(1) * n_words
        is_word = words >= 0
        places = (rows + words.clamp(min=0))[is_word]  # of our tokens among all rows' words (our tokens,)
        n_tokens = torch.bincount(places, minlength=len(words) * n_words)
        wanted = rows + units.clamp(min=0)
        self.found = (units >= 0) & (n_tokens[wanted] > 0)  # (batch, units): those that our cut has too
        chosen = wanted[self.found]
        slots = torch.full_like(n_tokens, -1)
        slots[chosen] = torch.arange(len(chosen), device=words.device)
        target = slots[places]
        is_used = target >= 0
        self.tokens = is_word.flatten().nonzero().squeeze(1)[is_used]
        self.target, self.counts = target[is_used], n_tokens[chosen].unsqueeze(-1)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the mean states (found units, width), in float32 at least, from (batch, tokens, width)."""
        kept = hidden.flatten(0, 1).index_select(0, self.tokens)
        kept = kept.to(torch.promote_types(hidden.dtype, torch.float32))
        sums = kept.new_zeros(len(self.counts), kept.shape[1]).index_add(0, self.target, kept)
        return sums / self.counts


def word_attention(attention: Tensor, words: Tensor, n_words: int) -> Tensor:
    """Return how much each word attends to each other word (batch, n_words, n_words): rows of words sum to at most 1.

    Weights are summed over the pieces of the word that is looked at, averaged over the pieces of the word that looks
    and over the heads; what goes to tokens without a word is left out.

    Args:
        attention: weights of one layer (batch, heads, tokens, tokens).
        words: word of each token, negative for none (batch, tokens).
        n_words: how many words to return; those beyond it are left out.
    """
    kept = words.masked_fill(words >= n_words, -1)
    membership = F.one_hot(kept.clamp(min=-1) + 1, n_words + 1)[..., 1:].float()  # (batch, tokens, words)
    to_words = attention.float().mean(dim=1) @ membership  # (batch, tokens, words)
    counts = membership.sum(dim=1).clamp(min=1).unsqueeze(-1)  # (batch, words, 1)
    return (membership.transpose(1, 2) @ to_words) / counts


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
