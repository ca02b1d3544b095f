"""The student's shape and bits for a byte budget, when the user does not give them: a rule that documents itself.

Every shape of a grid (layers, width, FFN, vocabulary, bits) whose predicted package fits the budget is given an
*expected loss* in points, and the smallest loss wins; ties go to fewer bytes:

      3.0 * log2(teacher hidden / hidden) + 2.5 * log2(teacher hidden / hidden) ** 2
    + 1.5 * log2(teacher layers / layers) ** 2             half the layers cost little, a single one much
    + 1.5 * log2(teacher ffn / ffn)
    + 0.6 * log2(teacher vocabulary / free vocabulary)     tokens beyond the characters that must stay readable
    + 1.2 * per cent of the running words that are rarer than the free tokens are many, and so are cut into pieces
    - 6.0 where width, depth and three quarters of the FFN are the teacher's: every layer starts about as it is
    + 0.2 for 4-bit weights, 0.1 for 4-bit embeddings

The points are rough, a rule of thumb from a few runs of equal work, and they only order the shapes: of students of a
megabyte two layers that read whole words were better than five that read pieces of them, and learned twice as fast. So
4-bit weights usually win over fewer 8-bit ones. The width costs time: with a latency budget the
shapes whose estimated time is over it are left out. ``reasons`` says all this about the chosen one. No torch here.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from compressor.recipe.sections import QuantizeSection
from compressor.recipe.student import StudentSection
from compressor.refused import Refused
from compressor.run.planning.choice import (
    DEFAULT_MAX_BYTES,
    MARGIN,
    Choice,
    first_fitting,
    vocabularies,
)
from compressor.run.planning.words import Words
from exporters.predicted_bytes import predict_bytes
from exporters.repetition import pattern
from exporters.shape import Scheme, Shape

FFN_SHARES = (1.0, 11 / 12, 5 / 6, 3 / 4, 2 / 3, 7 / 12, 1 / 2, 5 / 12, 1 / 3, 1 / 4, 1 / 6)


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
    given: Shape | None = None,
    n_tokenizer_bytes: int | None = None,
    certificates: tuple[int, int] = (0, 0),
) -> Choice:
    """Return the best shape that fits.

    Args:
        teacher: its shape.
        student: what the user fixed of the student's.
        quantize: what the user fixed of the bits.
        vocab_size: what the user fixed of the vocabulary; 0 keeps the teacher's.
        words: of the rows, for the vocabulary.
        positions: rows of the position table.
        kind: of the tokenizer, for its bytes.
        max_bytes: budget of the whole package.
        max_ms: latency budget, for ``TYPICAL_TOKENS`` tokens on one thread.
        given: the shape of a student that exists; only the bits are chosen then.
        n_tokenizer_bytes: of a vocabulary that exists; ``None`` estimates them.
        certificates: bytes that the package holds on folded weights: (once, per layer).

    Raises:
        OverBudget: when not even the smallest shape fits.
    """
    is_open = None in (student.layers, student.hidden, student.ffn, vocab_size) or quantize.scheme == "auto"
    limit = (max_bytes or DEFAULT_MAX_BYTES) * (MARGIN if is_open else 1.0)
    known = words if vocab_size is None else Words(0, 0)
    predict = partial(predict_bytes, n_tokenizer_bytes=n_tokenizer_bytes, kind=kind, certificates=certificates)
    if given is not None:
        candidates = [(given, scheme) for scheme in _schemes(quantize)]
    else:
        if student.layers is None:
            _check_again(student, teacher.layers, "the teacher")
        candidates = list(_candidates(teacher, student, quantize, vocab_size, words, positions))
    if not candidates:
        raise Refused(
            f"student: heads={student.heads} and hidden={student.hidden} leave no shape to choose. Give --hidden and "
            "--heads so that heads divides hidden."
        )
    ranked = [(expected_loss(teacher, shape, scheme, known), shape, scheme) for shape, scheme in candidates]
    choice = first_fitting(ranked, predict, limit, max_bytes, max_ms)
    return replace(choice, reasons=tuple(_reasons(teacher, choice, max_bytes, is_given=given is not None)))


def expected_loss(teacher: Shape, shape: Shape, scheme: Scheme, words: Words) -> float:
    """Return the expected loss in points: the formula of the module docstring."""
    free_vocabulary = max(shape.vocab_size - words.least, 0) + 200
    narrower = math.log2(teacher.hidden / shape.hidden)
    is_same = (shape.hidden, shape.layers) == (teacher.hidden, teacher.layers)
    is_whole = is_same and 4 * shape.ffn >= 3 * teacher.ffn
    return (
        3.0 * narrower
        + 2.5 * narrower**2
        + 1.5 * math.log2(teacher.layers / shape.layers) ** 2
        + 1.5 * math.log2(teacher.ffn / shape.ffn)
        + 0.6 * max(0.0, math.log2(teacher.vocab_size / free_vocabulary))
        - (6.0 if is_whole else 0.0)
        + 120 * words.rarer_than(shape.vocab_size - words.least)
        + (0.2 if scheme.weight_bits == 4 else 0.0)
        + (0.1 if scheme.embedding_bits == 4 else 0.0)
    )


def with_blocks(quantize: QuantizeSection, block_size: int) -> QuantizeSection:
    """Fill in the block size that suits the task, where none is given."""
    return quantize.model_copy(update={"block_size": quantize.block_size or block_size})


def _candidates(
    teacher: Shape,
    student: StudentSection,
    quantize: QuantizeSection,
    vocab_size: int | None,
    words: Words,
    positions: int,
) -> Iterator[tuple[Shape, Scheme]]:
    head_size = teacher.hidden // teacher.heads
    widths = [student.hidden] if student.hidden else [head_size * n for n in range(1, teacher.heads + 1)]
    least = 1 if student.repeat is None or isinstance(student.repeat, str) else max(student.repeat) + 1
    depths = [student.layers] if student.layers else list(range(least, teacher.layers + 1))
    ffns = (
        [student.ffn]
        if student.ffn
        else sorted({max(32, round(teacher.ffn * share / 32) * 32) for share in FFN_SHARES})
    )
    for width, depth, ffn, vocabulary, scheme in itertools.product(
        widths, depths, ffns, vocabularies(teacher, vocab_size, words), list(_schemes(quantize))
    ):
        heads = student.heads or _heads(width, head_size)
        narrow = teacher.embedding_size
        if width % heads or width == narrow:  # as wide as its tables it would have no layer behind them (ELECTRA)
            continue
        plain = replace(
            teacher, vocab_size=vocabulary, hidden=width, layers=depth, heads=heads, ffn=ffn, positions=positions,
            embedding_size=narrow, passes=(), exchanged=(),
        )  # fmt: skip
        yield repeated(plain, student), scheme


def repeated(shape: Shape, student: StudentSection) -> Shape:
    """Return the shape with the passes that the user asks for; a shape that is not asked to repeat stays as it is.

    Raises:
        ValueError: if a layer that shall run again does not exist.
    """
    if student.repeat is None:
        return shape
    if student.pretrained:
        _check_again(student, shape.layers, f"--pretrained {student.pretrained}")
    found = pattern(student.repeat, shape.layers, student.exchange is not False)
    return replace(shape, **(found._asdict() if len(found.passes) > shape.layers else {"passes": (), "exchanged": ()}))


def _check_again(student: StudentSection, n_layers: int, whose: str) -> None:
    """Refuse layers to run again that no student can have, where ``layers`` is not what to change."""
    if isinstance(student.repeat, tuple) and max(student.repeat) >= n_layers:
        raise Refused(
            f"--repeat {','.join(map(str, student.repeat))} names layer {max(student.repeat)}, {whose} has layers 0 to "
            f"{n_layers - 1}. Leave it out of --repeat."
        )


def _heads(width: int, head_size: int) -> int:
    """Keep the teacher's head size where it divides the width, otherwise the nearest number of heads that does."""
    wanted = max(1, round(width / head_size))
    return min((n for n in range(1, width + 1) if width % n == 0), key=lambda n: (abs(n - wanted), n))


def _schemes(quantize: QuantizeSection) -> Iterator[Scheme]:
    if quantize.scheme == "none":
        yield Scheme(None, None)
        return
    bits = {"auto": (8, 4), "int8": (8,), "int4": (4,)}[quantize.scheme]
    for weight_bits in bits:
        tables = (quantize.embedding_bits,) if quantize.embedding_bits else (weight_bits, 8)
        for embedding_bits in dict.fromkeys(tables):
            yield Scheme(weight_bits, embedding_bits, quantize.block_size or 32)  # type: ignore[arg-type]


def _reasons(teacher: Shape, choice: Choice, max_bytes: int | None, *, is_given: bool) -> Iterator[str]:
    shape = choice.shape
    budget = f"{max_bytes:,}" if max_bytes else f"{DEFAULT_MAX_BYTES:,} (the default)"
    if is_given:
        yield f"the most bits that are predicted within {budget} bytes; the shape is that of the model given"
        return
    yield f"smallest expected loss ({choice.expected_loss:.1f} points) among the shapes predicted within {budget} bytes"
    if shape.hidden == teacher.hidden and shape.layers == teacher.layers and shape.ffn == teacher.ffn:
        yield "at the teacher's own shape every layer is copied as it is; only the embeddings are new"
    elif shape.hidden == teacher.hidden:
        yield "at the teacher's own width the residual stream is kept whole; layers and FFN units by importance"
    else:
        yield "narrower than the teacher: coordinates, heads and FFN units are kept by importance"
    if shape.passes:
        yield "layers that run again cost time and no weights; how they repeat was asked for, not chosen"
    if choice.scheme.weight_bits == 4:
        yield "4-bit weights buy more width than 8-bit ones at the same bytes, and a wider student takes longer"
