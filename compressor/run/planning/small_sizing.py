"""The shape of a small encoder for a byte budget: the grid, and what is expected of its shapes.

Of the shapes whose predicted package fits the budget, the one with the smallest *expected loss* in points is taken:

      0.8 * log2(256 / units)                       "mean" has none
    + 0.5 * log2(256 / columns of the token table)
    + 1.2 * per cent of the running words that are rarer than the free tokens are many, and so are cut into pieces
    + 0.3 for a token table of 4 bits

As among transformers the points are rough and only order shapes of one family. No torch here.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from compressor.recipe.sections import QuantizeSection
from compressor.recipe.student import StudentSection
from compressor.run.planning import choice as choosing
from compressor.run.planning.words import Words
from exporters.predicted_bytes import predict_bytes
from exporters.shape import Scheme, Shape
from exporters.small.shape import SmallShape, small_shape, state_size

UNITS = (24, 32, 48, 64, 96, 128, 160, 192, 256)
WIDTHS = (16, 32, 48, 64, 96, 128, 192, 256)
DENSE = 64
START = "token table: the teacher's, mapped, in its principal components"
STARTS = {"static": "a token's vector is the teacher's of it as a text, in principal components, weighted by frequency"}
BODIES = {"static": "mean"}  # what a family that is not trained has instead of one of its own
ENOUGH = 256  # units, and columns, beyond which nothing is expected


def expected_loss(shape: SmallShape, scheme: Scheme, words: Words) -> float:
    """Return the expected loss in points: the formula of the module docstring."""
    units = 0.0 if shape.family == "mean" else 0.8 * math.log2(ENOUGH / shape.units)
    return (
        units
        + 0.5 * math.log2(ENOUGH / shape.width)
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
