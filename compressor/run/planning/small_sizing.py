"""The shape of a small encoder for a byte budget: the grid, and what is expected of its shapes.

Of the shapes whose predicted package fits the budget, the one with the smallest *expected loss* in points is taken:

      0.8 * log2(256 / units)                       "mean" has none
    + 0.5 * log2(256 / columns of the token table)  3.0 where a mean of its rows is all there is
    + 1.2 * per cent of the running words that are rarer than the free tokens are many, and so are cut into pieces
    + 0.3 for a token table of 4 bits

As among transformers the points are rough and only order shapes of one family.

Counted words (TF-IDF) are no shape to rank. A word costs its entry in tokenizer.json and a row of the tables, a bucket
for pairs a row. Words of most rows come first:

    all words and twice as many buckets as there are pairs, where all of it fits
    otherwise the words of two rows or more, for ``WORDS_SHARE`` of the bytes at most, and buckets for the rest

More buckets than twice the pairs buy nothing that can be measured. No torch here.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from tokenizers import Tokenizer

from compressor.data.table import Table
from compressor.recipe.recipe import Recipe
from compressor.recipe.sections import QuantizeSection
from compressor.recipe.student import StudentSection
from compressor.run.planning import choice as choosing
from compressor.run.planning.words import Words
from compressor.scoring.contract import TaskSpec
from compressor.student.counted import Counted, count_words
from exporters.predicted_bytes import predict_bytes
from exporters.shape import Scheme, Shape
from exporters.small.shape import FIRST_WORD, SmallShape, small_shape, state_size, tfidf_shape
from vocab.save import compact_json
from vocab.words import word_bytes, word_tokenizer

UNITS = (24, 32, 48, 64, 96, 128, 160, 192, 256)
WIDTHS = (16, 32, 48, 64, 96, 128, 192, 256)
DENSE = 64
START = "token table: the teacher's, mapped, in its principal components"
STARTS = {"static": "a token's vector is the teacher's of it as a text, in principal components, weighted by frequency"}
BODIES = {"static": "mean"}  # what a family that is not trained has instead of one of its own
COUNTED = (
    "words of most rows first, what is left of the bytes for pairs of them",
    "coefficients: fitted on the labels of the rows, without training",
)
SCHEME_OF_COUNTED = Scheme(8, 8)
ENOUGH_BYTES = 2_000_000  # for counted words, where no budget is given
WORDS_SHARE = 0.6  # of the bytes, where not everything fits
FEWEST_WORDS = 20
BUCKETS_PER_PAIR = 2
ENOUGH = 256  # units, and columns, beyond which nothing is expected


def expected_loss(shape: SmallShape, scheme: Scheme, words: Words) -> float:
    """Return the expected loss in points: the formula of the module docstring."""
    is_mean = shape.family == "mean"
    units = 0.0 if is_mean else 0.8 * math.log2(ENOUGH / shape.units)
    return (
        units
        + (3.0 if is_mean else 0.5) * math.log2(ENOUGH / shape.width)
        + 120 * words.rarer_than(shape.vocab_size - words.least)
        + (0.3 if scheme.embedding_bits == 4 else 0.0)
    )


def choose(
    teacher: Shape,
    student: StudentSection,
    quantize: QuantizeSection,
    vocab_size: int | None,
    words: Words,
    positions: int,
    kind: str,
    max_bytes: int | None,
    max_ms: float | None,
    *,
    is_pair: bool,
    n_tokenizer_bytes: int | None = None,
) -> choosing.Choice:
    """Return the best shape of the student's family that fits; arguments as of ``choosing.choose``.

    Raises:
        OverBudget: when not even the smallest shape fits.
    """
    assert student.family is not None
    known = words if vocab_size is None else Words(0, 0)
    sizes = choosing.vocabularies(teacher, vocab_size, words)
    ranked = [
        (expected_loss(shape, scheme, known), shape, scheme)
        for shape, scheme in _candidates(teacher, student, quantize, sizes, positions, is_pair)
    ]
    predict = partial(predict_bytes, n_tokenizer_bytes=n_tokenizer_bytes, kind=kind)
    is_open = None in (student.hidden, student.embedding, vocab_size) or quantize.scheme == "auto"
    limit = (max_bytes or choosing.DEFAULT_MAX_BYTES) * (choosing.MARGIN if is_open else 1.0)
    choice = choosing.first_fitting(ranked, predict, limit, max_bytes, max_ms)
    said = f"smallest expected loss ({choice.expected_loss:.1f} points) among the {student.family} shapes that fit"
    return replace(choice, reasons=(said, STARTS.get(student.family, START)))


def _candidates(
    teacher: Shape,
    student: StudentSection,
    quantize: QuantizeSection,
    vocabularies: list[int],
    positions: int,
    is_pair: bool,
) -> Iterator[tuple[SmallShape, Scheme]]:
    """Yield the shapes and bits of a family that the user leaves open."""
    family = BODIES.get(student.family or "", student.family or "")
    all_units = [0] if family == "mean" else [student.hidden] if student.hidden else UNITS
    widths = [student.embedding] if student.embedding else WIDTHS
    dense = student.ffn or max(DENSE, teacher.n_labels)
    made = partial(small_shape, positions=positions, n_labels=teacher.n_labels, dense=dense, is_pair=is_pair)
    schemes = list(_schemes(quantize))
    for units, width, vocabulary, scheme in itertools.product(all_units, widths, vocabularies, schemes):
        narrowed = teacher.hidden if state_size(family, units, width) > teacher.hidden else 0
        yield made(family, vocabulary, width, units, output=narrowed), scheme


def _schemes(quantize: QuantizeSection) -> Iterator[Scheme]:
    """Yield the bits: weights have 8, for they are few; the token table has 8 or 4."""
    if quantize.scheme == "none":
        yield Scheme(None, None)
        return
    given = quantize.embedding_bits or {"int8": 8, "int4": 4}.get(quantize.scheme)
    for embedding_bits in (given,) if given else (8, 4):
        yield Scheme(8, embedding_bits, quantize.block_size or 16)  # type: ignore[arg-type]


def choose_counted(
    recipe: Recipe, spec: TaskSpec, train: Table, truncation: Literal["right", "left"], max_length: int, positions: int
) -> choosing.Choice:
    """Return the words and buckets that fit; the recipe may name how many (size of [vocab], hidden of [student]).

    Args:
        recipe: with sizes and budgets.
        spec: the task: its columns of coefficients, its labels.
        train: the rows that are counted.
        truncation: where long texts lose words.
        max_length: words of a text at most.
        positions: as the configuration says them.

    Raises:
        OverBudget: when not even the fewest words fit.
    """
    size, hidden, budget = recipe.vocab.size, recipe.student.hidden, recipe.budget.to_budget()
    counted, columns = count_words(train, max_length, is_left=truncation == "left"), spec.n_linear()
    per_row, n_labels = 1 + columns, max(1, len(spec.labels))

    def predicted(n_words: int, n_pairs: int) -> choosing.Choice:
        shape = tfidf_shape(FIRST_WORD + n_words, n_pairs, columns, positions=positions, n_labels=n_labels)
        n_bytes = tokenizer_bytes(word_tokenizer(counted.words[:n_words]))
        parts = predict_bytes(shape, SCHEME_OF_COUNTED, n_bytes)
        return choosing.Choice(shape, SCHEME_OF_COUNTED, parts, 0.0, COUNTED)

    is_open, max_bytes = None in (size, hidden), budget.max_bytes or ENOUGH_BYTES
    limit = max_bytes * (choosing.MARGIN if is_open else 1.0)
    room = limit - predicted(0, 0).n_bytes
    n_words = _words(counted, room, per_row) if size is None else min(size - FIRST_WORD, len(counted.words))
    left = room - int(word_bytes(counted.words[:n_words]).sum()) - n_words * per_row
    found = predicted(n_words, hidden or _buckets(counted, n_words, left, per_row))
    if not is_open and budget.max_bytes is None:
        return found  # all is said, and nothing is promised
    max_ms = budget.latency and budget.latency.max_ms
    only = [(0.0, found.shape, found.scheme)]
    choosing.first_fitting(only, lambda *_: found.predicted, limit, max_bytes, max_ms)  # may refuse
    return found


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
