"""Say which word of the text each token belongs to, so that two tokenisations of one text can be compared word by word.

Words are runs of letters, digits and marks, or runs of anything else that is no space; they are counted in the text
itself, so that any tokenizer that knows its offsets can be aligned with any other. A token over several words belongs
to the first. The words of a pair's second text are numbered on from the first's.
"""

import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate, chain

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

from vocab.refused import Refused

Words = npt.NDArray[np.int32]

NO_WORD = -1
ASCII_WORD = re.compile(r"\w+|[^\w\s]+", re.ASCII)


def word_spans(text: str) -> list[tuple[int, int]]:
    r"""Return (start, end) of each word: ``word_spans("it's 5") == [(0, 2), (2, 3), (3, 4), (5, 6)]``.

    ``\w+|[^\w\s]+``, with combining marks counted among the letters: vowel signs and accents do not end a word.
    """
    pattern = ASCII_WORD if text.isascii() else _word()
    return [match.span() for match in pattern.finditer(text)]


def align_batch(texts: Sequence[str], pairs: Sequence[str] | None, encodings: Sequence[Encoding]) -> list[Words]:
    """Return the words per token of many encodings: one search over all of them, laid end to end.

    Raises:
        ValueError: if there are not as many encodings as texts, or as pairs.
    """
    if len(texts) != len(encodings) or (pairs is not None and len(pairs) != len(texts)):
        n_pairs = "no" if pairs is None else len(pairs)
        raise Refused(f"align: got {len(texts)} texts, {n_pairs} pairs, {len(encodings)} encodings, not as many.")
    if not texts:
        return []
    # Two documents a row: the text and its pair, the latter empty where there is none.
    documents = list(texts) if pairs is None else list(chain.from_iterable(zip(texts, pairs, strict=True)))
    per_row = len(documents) // len(texts)
    bases = np.fromiter(accumulate((len(text) + 1 for text in documents), initial=0), np.int64, len(documents) + 1)
    spans = [word_spans(text) for text in documents]
    n_words = np.fromiter(map(len, spans), np.int64, len(spans))
    limits = _flat(spans) + np.repeat(bases[:-1], n_words)[:, None]  # (words, 2)
    first_words = np.concatenate([[0], np.cumsum(n_words)])[::per_row]  # (rows + 1,)

    lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
    rows = np.repeat(np.arange(len(texts)), lengths)  # (tokens,)
    # A special token belongs to no sequence: None.
    sequence = chain.from_iterable(encoding.sequence_ids for encoding in encodings)
    side = np.fromiter((NO_WORD if which is None else which for which in sequence), np.int64, len(rows))
    bounds = _flat([encoding.offsets for encoding in encodings])
    bounds += bases[rows * per_row + np.clip(side, 0, per_row - 1)][:, None]  # (tokens, 2)
    words = _first_overlap(bounds[:, 0], bounds[:, 1], limits[:, 0], limits[:, 1])
    in_row = np.where((side == NO_WORD) | (words == NO_WORD), NO_WORD, words - first_words[rows]).astype(np.int32)
    ends = np.cumsum(lengths).tolist()
    return [in_row[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _first_overlap(
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    word_starts: npt.NDArray[np.int64],
    word_ends: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Return the first word that ends after the token's start and begins before its end."""
    if not len(word_ends):
        return np.full(len(starts), NO_WORD, np.int64)
    words = np.searchsorted(word_ends, starts, side="right")
    found = np.minimum(words, len(word_ends) - 1)
    return np.where((words < len(word_ends)) & (word_starts[found] < ends), found, NO_WORD)


def _flat(spans: Iterable[list[tuple[int, int]]]) -> npt.NDArray[np.int64]:
    numbers = chain.from_iterable(chain.from_iterable(spans))
    return np.fromiter(numbers, np.int64).reshape(-1, 2)


@cache
def _word() -> re.Pattern[str]:
    """Build the pattern; ``re`` has no class for combining marks, so their ranges are written out."""
    marks = [code for code in range(0x300, sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("M")]
    ranges: list[list[int]] = []
    for code in marks:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    letters = r"\w" + "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
    return re.compile(rf"[{letters}]+|[^{letters}\s]+")
