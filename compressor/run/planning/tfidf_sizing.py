"""The numbers of a TF-IDF student for a byte budget: which words it has, and how many buckets for pairs of them.

A word costs its entry in tokenizer.json and a row of the tables, a bucket a row. Words of most rows come first:

    all words and twice as many buckets as there are pairs, where all of it fits
    otherwise the words of two rows or more, for ``WORDS_SHARE`` of the bytes at most, and buckets for the rest

More buckets than twice the pairs buy nothing that can be measured.
"""

from dataclasses import replace

import numpy as np
from tokenizers import Tokenizer

from compressor.data.table import Table
from compressor.recipe.student import StudentSection
from compressor.run.planning import choice as choosing
from compressor.student.tfidf import Counted, count_words
from exporters.predicted_bytes import predict_bytes
from exporters.shape import Scheme
from exporters.small.shape import FIRST_WORD, tfidf_shape
from vocab.save import compact_json
from vocab.words import word_bytes, word_tokenizer

ENOUGH_BYTES = 2_000_000  # where no budget is given
WORDS_SHARE = 0.6  # of the bytes, where not everything fits
FEWEST_WORDS = 20
BUCKETS_PER_PAIR = 2
SCHEME = Scheme(8, 8)
REASONS = (
    "words of most rows first, what is left of the bytes for pairs of them",
    "coefficients: fitted on the labels of the rows, without training",
)


def choose(
    student: StudentSection,
    size: int | None,
    train: Table,
    columns: int,
    n_labels: int,
    max_length: int,
    positions: int,
    max_bytes: int | None,
    max_ms: float | None,
    *,
    is_left: bool,
) -> choosing.Choice:
    """Return the words and buckets that fit.

    Args:
        student: may name the buckets (``hidden``).
        size: of the vocabulary, with [PAD] and [UNK], as the user said it.
        train: the rows that are counted.
        columns: of coefficients.
        n_labels: of the task.
        max_length: words of a text at most.
        positions: as the configuration says them.
        max_bytes: of the whole package.
        max_ms: latency budget.
        is_left: long texts are cut on the left.

    Raises:
        OverBudget: when not even the fewest words fit.
    """
    counted = count_words(train, max_length, is_left=is_left)

    def predicted(n_words: int, n_pairs: int) -> choosing.Choice:
        shape = tfidf_shape(FIRST_WORD + n_words, n_pairs, columns, positions=positions, n_labels=n_labels)
        n_bytes = tokenizer_bytes(word_tokenizer(counted.words[:n_words]))
        return choosing.Choice(shape, SCHEME, predict_bytes(shape, SCHEME, n_bytes), 0.0, ())

    is_open = None in (size, student.hidden)
    limit = float(max_bytes or ENOUGH_BYTES) * (choosing.MARGIN if is_open else 1.0)
    room = limit - predicted(0, 0).n_bytes
    n_words = _words(counted, room, 1 + columns) if size is None else min(size - FIRST_WORD, len(counted.words))
    left = room - int(word_bytes(counted.words[:n_words]).sum()) - n_words * (1 + columns)
    n_pairs = student.hidden or _buckets(counted, n_words, left, 1 + columns)
    found = predicted(n_words, n_pairs)
    if not is_open and max_bytes is None:
        limit = found.n_bytes  # all is said, and nothing is promised
    fitting = choosing.first_fitting(
        [(0.0, found.shape, SCHEME)], lambda *_: found.predicted, limit, max_bytes or ENOUGH_BYTES, max_ms
    )
    return replace(fitting, reasons=REASONS)


def _words(counted: Counted, room: float, per_row: int) -> int:
    """Return how many words are taken where ``room`` bytes are left beside what every package holds."""
    costs = np.cumsum(word_bytes(counted.words) + per_row)
    n_all = len(counted.words)
    if costs[-1] + per_row * BUCKETS_PER_PAIR * counted.n_pairs(n_all) <= room:
        return n_all
    n_common = int((counted.n_rows > 1).sum())
    n_fitting = int(np.searchsorted(costs, WORDS_SHARE * room, side="right"))
    return min(max(min(n_common, n_fitting), FEWEST_WORDS), n_all)


def _buckets(counted: Counted, n_words: int, room: float, per_row: int) -> int:
    """Return how many buckets fit, at least one: it says nothing where no pair was seen."""
    return max(1, min(BUCKETS_PER_PAIR * counted.n_pairs(n_words), int(room) // per_row))


def tokenizer_bytes(tokenizer: Tokenizer) -> int:
    """Return the bytes of its tokenizer.json in a package."""
    return len(compact_json(tokenizer).encode()) + 1  # a newline
