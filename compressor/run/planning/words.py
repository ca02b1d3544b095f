"""What the training rows ask of a vocabulary: how many tokens they fill, and which words a smaller one cuts."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

WORD = re.compile(r"\w+|[^\w\s]")
TOKENS_PER_WORD_FORM = 0.8  # a corpus of n different words fills about so many tokens beyond the characters


class Words(NamedTuple):
    """What texts ask of a vocabulary."""

    least: int  # tokens that keep every character readable
    most: int  # about as many as the texts fill
    rarer: tuple[float, ...] = ()  # share of the running words that are not among the n most frequent forms

    def rarer_than(self, n_tokens: int) -> float:
        """Return the share of the running words that are not among the ``n_tokens`` most frequent forms."""
        return self.rarer[max(n_tokens, 0)] if max(n_tokens, 0) < len(self.rarer) else 0.0


def words_of(least: int, texts: Iterable[str]) -> Words:
    """Return what the texts ask of a vocabulary whose characters take ``least`` tokens."""
    parts = Counter(part for text in texts for part in WORD.findall(text.lower()))
    forms = {word for text in texts for word in text.lower().split()}
    counts = np.sort(np.fromiter(parts.values(), dtype=np.int64))[::-1]
    rarer = 1 - np.concatenate([[0], np.cumsum(counts)]) / max(int(counts.sum()), 1)
    return Words(least, least + int(TOKENS_PER_WORD_FORM * len(forms)), tuple(rarer.tolist()))
