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
from dataclasses import dataclass, replace
from functools import partial

from compressor.recipe.sections import QuantizeSection, StudentSection
from compressor.refused import Refused
from compressor.run.planning.words import Words
from exporters.budget import OverBudget
from exporters.predicted_bytes import predict_bytes
from exporters.repetition import pattern
from exporters.shape import Scheme, Shape

VOCABULARY_SIZES = (
    30000, 24000, 20000, 16000, 12000, 10000, 8000, 7000, 6000, 5000, 4500, 4000, 3500, 3000, 2500, 2000, 1500, 1000,
)  # fmt: skip
FFN_SHARES = (1.0, 11 / 12, 5 / 6, 3 / 4, 2 / 3, 7 / 12, 1 / 2, 5 / 12, 1 / 3, 1 / 4, 1 / 6)
MARGIN = 0.995  # the prediction may be off by half a percent
DEFAULT_MAX_BYTES = 10_000_000
# Microseconds per million multiplications on one thread: rough, for ordering shapes under a latency budget.
US_PER_MEGA_MULTIPLICATION = {8: 10.0, 4: 10.0, None: 26.0}
TYPICAL_TOKENS = 32


@dataclass(frozen=True)
class Choice:
    """A shape, its bits, and what is expected of them."""

    shape: Shape
    scheme: Scheme
    predicted: dict[str, int]
    expected_loss: float
    reasons: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        """Predicted bytes of the whole package."""
        return sum(self.predicted.values())


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
    # The first that fits has the smallest loss; ties go to fewer parameters.
    candidates.sort(
        key=lambda found: (round(expected_loss(teacher, found[0], found[1], known), 9), found[0].n_parameters)
    )
    for shape, scheme in candidates:
        if max_ms is not None and estimate_ms(shape, scheme) > max_ms:
            continue
        predicted = predict(shape, scheme)
        if sum(predicted.values()) <= limit:
            choice = Choice(shape, scheme, predicted, expected_loss(teacher, shape, scheme, known), ())
            return replace(choice, reasons=tuple(_reasons(teacher, choice, max_bytes, is_given=given is not None)))
    smallest = min(
        (Choice(shape, scheme, predict(shape, scheme), 0.0, ()) for shape, scheme in candidates),
        key=lambda choice: choice.n_bytes,
    )
    raise OverBudget([_unmet(smallest, limit, max_bytes, max_ms)])


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


def estimate_ms(shape: Shape, scheme: Scheme) -> float:
    """Return a rough time for ``TYPICAL_TOKENS`` tokens on one thread; the package is measured in any case."""
    multiplications = shape.n_multiplications * TYPICAL_TOKENS
    return multiplications / 1e6 * US_PER_MEGA_MULTIPLICATION[scheme.weight_bits] / 1e3


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
        widths, depths, ffns, _vocabularies(teacher, vocab_size, words), list(_schemes(quantize))
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


def _vocabularies(teacher: Shape, vocab_size: int | None, words: Words) -> list[int]:
    if vocab_size is not None:
        return [vocab_size or teacher.vocab_size]
    least, most = words.least, words.most
    sizes = [size for size in VOCABULARY_SIZES if least <= size <= most and size < teacher.vocab_size]
    return sizes or [min(max(least, 200), max(most, least))]


def _schemes(quantize: QuantizeSection) -> Iterator[Scheme]:
    if quantize.scheme == "none":
        yield Scheme(None, None)
        return
    bits = {"auto": (8, 4), "int8": (8,), "int4": (4,)}[quantize.scheme]
    for weight_bits in bits:
        tables = (quantize.embedding_bits,) if quantize.embedding_bits else (weight_bits, 8)
        for embedding_bits in dict.fromkeys(tables):
            yield Scheme(weight_bits, embedding_bits, quantize.block_size or 32)  # type: ignore[arg-type]


def _unmet(smallest: Choice, limit: float, max_bytes: int | None, max_ms: float | None) -> str:
    """Return which limit the smallest shape does not keep, or else that none is quick enough."""
    if smallest.n_bytes <= limit:
        return f"latency: no shape is expected to answer within {max_ms:g} ms (--max-latency): raise it"
    allowed = max_bytes or DEFAULT_MAX_BYTES
    return (
        f"size: the smallest student that this recipe allows is predicted at {smallest.n_bytes:,} bytes "
        f"({describe(smallest.shape, smallest.scheme)}), allowed {allowed:,} (--max-size): "
        f"{smallest.n_bytes - allowed:,} too many"
    )


def describe(shape: Shape, scheme: Scheme) -> str:
    """Return ``6 layers x 384, 12 heads, FFN 1536, 6,000 tokens, int4``; of repeated ones ``6 layers, 9 passes x``."""
    return (
        f"{depth(shape)} x {shape.hidden}, {shape.heads} heads, FFN {shape.ffn}, "
        f"{shape.vocab_size:,} tokens, {scheme.name}"
    )


def depth(shape: Shape) -> str:
    """Return ``6 layers``, or ``6 layers, 9 passes`` where some run again."""
    return f"{shape.layers} layers" + (f", {shape.n_passes} passes" if shape.passes else "")


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
