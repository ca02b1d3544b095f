"""How a tokenizer cuts texts, beside the teacher's cut of the same texts: lengths, whole words, tokens in common."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from vocab.comparing.align import align_batch
from vocab.surfaces import bare, spec_of, surfaces, unknown_token, vocab_of

CHUNK = 4096  # texts that are encoded at a time

Texts = Sequence[str]


class Measures(NamedTuple):
    """How a vocabulary cuts the held-out texts; special tokens are left aside except in ``time``."""

    tokens_per_text: float
    tokens_per_text_by_file: dict[str, float]
    whole_words: float  # share of the running words that are one token
    coverage: float  # share of the running tokens that the teacher has, too
    unknown_rate: float  # share of the running tokens that are the unknown one
    time: float  # of the teacher's cut is 1; the geometric mean over the files

    def as_dict(self) -> dict[str, object]:
        """Return the measures as JSON, with six decimals."""
        return {name: _rounded(value) for name, value in self._asdict().items()}


class Tally(NamedTuple):
    """Counts of one file."""

    texts: int
    tokens: int = 0
    known: int = 0  # tokens that the teacher has
    unknown: int = 0  # tokens that are the unknown one
    words: int = 0
    whole: int = 0  # words that are one token


class Ruler:
    """The held-out texts and the teacher's cut of them, to measure tokenizers by."""

    def __init__(self, teacher: Tokenizer, held_out: Mapping[str, Texts], is_balanced: bool = False) -> None:
        self.held_out = held_out
        self.is_balanced = is_balanced
        self.known = set(surfaces(spec_of(teacher)).values())
        self.teacher_lengths = _lengths(teacher, self._tallies(bare(teacher)))

    def measure(self, tokenizer: Tokenizer) -> Measures:
        """Return how ``tokenizer`` cuts the texts; truncation and padding are left aside."""
        tallies = self._tallies(bare(tokenizer))
        lengths = _lengths(tokenizer, tallies)
        ratios = [math.log(length / self.teacher_lengths[name]) for name, length in lengths.items()]
        per_text = {name: tally.tokens / max(1, tally.texts) for name, tally in tallies.items()}
        counts = [1 if self.is_balanced else tally.texts for tally in tallies.values()]
        weighed = sum(length * n for length, n in zip(per_text.values(), counts, strict=True))
        _, n_tokens, n_known, n_unknown, n_words, n_whole = map(sum, zip(*tallies.values(), strict=True))
        return Measures(
            tokens_per_text=weighed / max(1, sum(counts)),
            tokens_per_text_by_file=per_text,
            whole_words=n_whole / max(1, n_words),
            coverage=n_known / max(1, n_tokens),
            unknown_rate=n_unknown / max(1, n_tokens),
            time=math.exp(sum(ratios) / len(ratios)),
        )

    def _tallies(self, tokenizer: Tokenizer) -> dict[str, Tally]:
        spec = spec_of(tokenizer)
        ids = vocab_of(spec)
        unknown = ids.get(unknown_token(spec) or "", -1)
        is_known = np.zeros(max(ids.values()) + 1, dtype=bool)  # (tokens,)
        is_known[[ids[token] for token, surface in surfaces(spec).items() if surface in self.known]] = True
        return {name: _tally(tokenizer, texts, is_known, unknown) for name, texts in self.held_out.items()}


def _lengths(tokenizer: Tokenizer, tallies: Mapping[str, Tally]) -> dict[str, float]:
    """Return tokens per text by file with the special tokens; never 0, so that ratios are finite."""
    n_special = tokenizer.num_special_tokens_to_add(is_pair=False)
    return {name: n_special + max(tally.tokens, 1) / max(1, tally.texts) for name, tally in tallies.items()}


def _tally(tokenizer: Tokenizer, texts: Texts, is_known: npt.NDArray[np.bool_], unknown: int) -> Tally:
    counts = np.zeros(5, dtype=np.int64)
    for first in range(0, len(texts), CHUNK):
        batch = texts[first : first + CHUNK]
        encodings = tokenizer.encode_batch(list(batch), add_special_tokens=False)
        ids = np.fromiter((id_ for encoding in encodings for id_ in encoding.ids), np.int64)
        whole = _whole_words(batch, encodings, unknown)
        counts += (len(ids), is_known[ids].sum(), (ids == unknown).sum(), *whole)
    return Tally(len(texts), *counts.tolist())


def _whole_words(texts: Texts, encodings: list[Encoding], unknown: int) -> tuple[int, int]:
    """Return the number of words in which some token starts, and how many of them are a single, known token."""
    n_words = n_whole = 0
    for encoding, words in zip(encodings, align_batch(texts, None, encodings), strict=True):
        is_in_word = words >= 0
        counts = np.bincount(words[is_in_word])  # (words,)
        n_words += int((counts > 0).sum())
        n_whole += int((counts == 1).sum())
        if unknown in encoding.ids:
            is_unknown = (np.array(encoding.ids) == unknown) & is_in_word
            n_whole -= int((counts[words[is_unknown]] == 1).sum())
    return n_words, n_whole


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return round(value, 6) if isinstance(value, float) else value
