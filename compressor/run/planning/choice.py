"""What a sizing rule comes to: a shape, its bits and bytes, and the first of many that keeps the budgets.

The rules themselves are in ``compressor.run.planning.sizing`` (transformers) and ``small_sizing``. No torch here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compressor.recipe.student import OF_PASSES, UNTRAINED, StudentSection
from compressor.run.planning.words import Words
from exporters.budget import OverBudget
from exporters.shape import Scheme, Shape
from exporters.small.shape import SmallShape, TfidfShape

VOCABULARY_SIZES = (
    30000, 24000, 20000, 16000, 12000, 10000, 8000, 7000, 6000, 5000, 4500, 4000, 3500, 3000, 2500, 2000, 1500, 1000,
)  # fmt: skip
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


def first_fitting(
    ranked: Sequence[tuple[float, Shape, Scheme]],
    predict: Callable[[Shape, Scheme], dict[str, int]],
    limit: float,
    max_bytes: int | None,
    max_ms: float | None,
) -> Choice:
    """Return the candidate with the smallest loss that keeps the budgets; ties go to fewer parameters.

    Args:
        ranked: expected loss, shape and bits.
        predict: the bytes of a package by part.
        limit: of its bytes.
        max_bytes: as the user gave it.
        max_ms: latency budget.

    Raises:
        OverBudget: where none does.
    """
    for loss, shape, scheme in sorted(ranked, key=lambda each: (round(each[0], 9), each[1].n_parameters)):
        if max_ms is not None and estimate_ms(shape, scheme) > max_ms:
            continue
        predicted = predict(shape, scheme)
        if sum(predicted.values()) <= limit:
            return Choice(shape, scheme, predicted, loss, ())
    smallest = min(
        (Choice(shape, scheme, predict(shape, scheme), 0.0, ()) for _, shape, scheme in ranked),
        key=lambda choice: choice.n_bytes,
    )
    raise OverBudget([_unmet(smallest, limit, max_bytes, max_ms)])


def estimate_ms(shape: Shape, scheme: Scheme) -> float:
    """Return a rough time for ``TYPICAL_TOKENS`` tokens on one thread; the package is measured in any case."""
    multiplications = shape.n_multiplications * TYPICAL_TOKENS
    return multiplications / 1e6 * US_PER_MEGA_MULTIPLICATION[scheme.weight_bits] / 1e3


def vocabularies(teacher: Shape, vocab_size: int | None, words: Words) -> list[int]:
    """Return the sizes of vocabulary to choose among."""
    if vocab_size is not None:
        return [vocab_size or teacher.vocab_size]
    least, most = words.least, words.most
    sizes = [size for size in VOCABULARY_SIZES if least <= size <= most and size < teacher.vocab_size]
    return sizes or [min(max(least, 200), max(most, least))]


def resolved_student(student: StudentSection, shape: Shape) -> StudentSection:
    """Return the section with nothing of the shape left open."""
    if isinstance(shape, TfidfShape):
        return StudentSection(family="tfidf", hidden=shape.n_pairs)
    if isinstance(shape, SmallShape):
        units = {"hidden": shape.units} if shape.units else {}
        dense = {"ffn": shape.ffn} if shape.n_labels else {}
        family = student.family if student.family in UNTRAINED else shape.family
        return StudentSection(family=family, embedding=shape.width, init=student.init, **units, **dense)  # type: ignore[arg-type]
    numbers = {name: getattr(shape, name) for name in ("layers", "hidden", "heads", "ffn")}
    said = {name: getattr(student, name) for name in OF_PASSES}
    said["exchange"] = student.exchange is not False if shape.passes else None
    return StudentSection(**numbers, init=student.init, **said)


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
    if isinstance(shape, TfidfShape):
        return shape.told
    if isinstance(shape, SmallShape):
        return f"{shape.told}, {shape.vocab_size:,} tokens, {scheme.name}"
    return (
        f"{depth(shape)} x {shape.hidden}, {shape.heads} heads, FFN {shape.ffn}, "
        f"{shape.vocab_size:,} tokens, {scheme.name}"
    )


def depth(shape: Shape) -> str:
    """Return ``6 layers``, or ``6 layers, 9 passes`` where some run again."""
    return f"{shape.layers} layers" + (f", {shape.n_passes} passes" if shape.passes else "")
