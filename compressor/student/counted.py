"""The words of rows and what they weigh: which come first, their pairs, and the features that the package will see.

The features are those of ``exporters.small.tfidf``, made of the same ids: cut to the package's length, words outside
the vocabulary left out, inverse document frequencies rounded. No torch here.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compressor.data.table import Table
from compressor.refused import Refused
from exporters.small.shape import FIRST_WORD, PAIR_STEP, TfidfShape
from vocab.words import WordIds, every_word, word_ids, word_tokenizer

UNIT = 16  # of an inverse document frequency that is stored as a whole number
MOST_IDF, MOST_COEFFICIENT = 255, 127
_Sparse = Any  # scipy.sparse has no usable types
Ints = npt.NDArray[np.int64]


class Counted(NamedTuple):
    """The words of some rows, those of most rows first, ties in the order of the alphabet."""

    words: list[str]
    n_rows: Ints  # (words,) that hold each
    found: WordIds  # the rows as ids of these words

    def n_pairs(self, n_words: int) -> int:
        """Return how many different pairs of adjacent words the rows hold, of the first ``n_words``."""
        size = FIRST_WORD + n_words
        known = np.where(self.found.ids < size, self.found.ids, 0)
        following = _following(known, self.found.starts)
        is_pair = (known > 0) & (following > 0)
        return len(np.unique(known[is_pair] * size + following[is_pair]))


def count_words(rows: Table, max_length: int, *, is_left: bool) -> Counted:
    """Return the words of the rows, which are cut to ``max_length`` words on the right, or on the left.

    Raises:
        ValueError: where there are none.
    """
    names = every_word(rows.texts)
    found = word_ids(word_tokenizer(names), rows.texts, max_length, is_left=is_left)
    size = FIRST_WORD + len(names)
    n_rows = np.bincount(_distinct(_rows_of(found), found.ids, size)[1], minlength=size)[FIRST_WORD:]
    order = np.argsort(-n_rows, kind="stable")  # the names are in the order of the alphabet
    order = order[n_rows[order] > 0]  # others stand behind the cut
    if not len(order):
        raise Refused(f"{rows.source}: holds no words, expected texts to count them in. Use --family mean.")
    rank = np.zeros(size, dtype=np.int64)
    rank[FIRST_WORD + order] = FIRST_WORD + np.arange(len(order))
    return Counted([names[place] for place in order], n_rows[order], WordIds(rank[found.ids], found.starts))


def tfidf_features(found: WordIds, shape: TfidfShape) -> tuple[_Sparse, npt.NDArray[np.uint8]]:
    """Return the features (rows, vocabulary and pairs) of length 1, and inverse document frequencies by feature."""
    import scipy.sparse

    n_rows, n_features = len(found.starts) - 1, shape.vocab_size + shape.n_pairs
    places, numbers = _occurrences(found, shape)
    rows, columns, counts = _distinct(places, numbers, n_features)
    idf = rounded_idf(np.bincount(columns, minlength=n_features), n_rows)
    values = (1 + np.log(counts)) * idf[columns]
    lengths = np.sqrt(np.bincount(rows, values**2, minlength=n_rows))
    shaped = scipy.sparse.csr_matrix((values / lengths[rows], (rows, columns)), shape=(n_rows, n_features))
    return shaped.astype(np.float32), idf


def rounded_idf(n_holding: Ints, n_rows: int) -> npt.NDArray[np.uint8]:
    """Return 1 + ln((1 + rows) / (1 + rows that hold it)) in sixteenths by feature, 0 for what no row holds."""
    idf = 1 + np.log((1 + n_rows) / (1 + n_holding))
    whole = np.clip(np.round(UNIT * idf), 1, MOST_IDF)
    return np.where(n_holding > 0, whole, 0).astype(np.uint8)


def round_columns(weights: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return weights (features, columns) as whole numbers, and the scale of each column."""
    largest = np.abs(weights).max(axis=0)
    scale = np.where(largest > 0, largest / MOST_COEFFICIENT, 1.0).astype(np.float32)
    return np.round(weights / scale).astype(np.int8), scale


def _occurrences(found: WordIds, shape: TfidfShape) -> tuple[Ints, Ints]:
    """Return row and number of every feature that occurs, as often as it does."""
    known = np.where(found.ids >= FIRST_WORD, found.ids, 0)
    following = _following(known, found.starts)
    rows, is_pair = _rows_of(found), (known > 0) & (following > 0)
    buckets = shape.vocab_size + (known * PAIR_STEP + following) % shape.n_pairs
    return (
        np.concatenate([rows[known > 0], rows[is_pair]]),
        np.concatenate([known[known > 0], buckets[is_pair]]),
    )


def _following(known: Ints, starts: Ints) -> Ints:
    """Return the word behind each, 0 at the end of a row."""
    following = np.append(known[1:], 0)[: len(known)]
    ends = starts[1:][starts[1:] > starts[:-1]] - 1
    following[ends] = 0
    return following


def _rows_of(found: WordIds) -> Ints:
    return np.repeat(np.arange(len(found.starts) - 1), np.diff(found.starts))


def _distinct(rows: Ints, numbers: Ints, n_features: int) -> tuple[Ints, Ints, Ints]:
    """Return (row, number) once each, in order, and how often each pair occurs."""
    keys, counts = np.unique(rows * n_features + numbers, return_counts=True)
    return keys // n_features, keys % n_features, counts
