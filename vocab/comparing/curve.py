"""The curve of a vocabulary's size against what it costs and gives on a corpus, and the size that a byte budget buys.

``curve`` trains vocabularies of several sizes on nine tenths of each file of the corpus and measures them on the rest:
tokens per text (which are time: an encoder takes about as long as its text has tokens), words that stay whole, tokens
that the teacher has too, bytes. How many bytes a table of embeddings takes is the caller's to say.

``pick`` takes the size at which

    bytes of the package x time per text        time: tokens, special ones included, against the teacher's cut

is least among those within the limits. Up to that size a percent of bytes saves more than a percent of time, beyond it
less. Of several files each has the same say, by the geometric mean of their times, so that a language with few lines is
not starved for one with many. What a small vocabulary costs in quality is not measured here, and neither is attention's
square of the length.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

from vocab.choosing import DEFAULT_RULE, Floats, Rule
from vocab.comparing.measures import Measures, Ruler, Texts
from vocab.refused import Refused
from vocab.save import compact_json
from vocab.surfaces import Kind
from vocab.train import train_sizes

HELD_OUT = 0.1


class Point(NamedTuple):
    """One size of the curve, in tokens and bytes."""

    size: int
    measures: Measures
    embedding_bytes: int
    tokenizer_bytes: int  # of tokenizer.json, as it is packaged
    package_bytes: int

    @property
    def vocabulary_bytes(self) -> int:
        """Bytes that the vocabulary alone takes."""
        return self.embedding_bytes + self.tokenizer_bytes

    def as_dict(self) -> dict[str, object]:
        """Return the point as JSON."""
        return {**self._asdict(), "vocabulary_bytes": self.vocabulary_bytes, "measures": self.measures.as_dict()}


class Bytes(NamedTuple):
    """What a vocabulary of some size takes in a package, and the whole package with it."""

    embeddings: int
    package: int


class Curve(NamedTuple):
    """All sizes, by size, beside the teacher's own cut of the same texts."""

    points: list[Point]
    teacher: Measures
    n_texts: dict[str, int]  # by file, before some are held out


class Pick(NamedTuple):
    """The chosen point, and why."""

    point: Point
    reasons: tuple[str, ...]


def curve(
    files: Mapping[str, Texts],
    sizes: Sequence[int],
    kind: Kind,
    teacher: Tokenizer,
    bytes_of: Callable[[int, int], Bytes],
    *,
    rule: Rule = DEFAULT_RULE,
    embeddings: Floats | None = None,
    is_balanced: bool = False,
    seed: int = 0,
) -> Curve:
    """Return a point for each size; sizes that the corpus does not give are left out, but for its largest.

    Args:
        files: texts by name of the file; each file is held out and measured by itself.
        sizes: in tokens.
        kind: of the student's tokenizer.
        teacher: its tokenizer.
        bytes_of: the bytes for a number of tokens and the bytes of their tokenizer.json.
        rule: see ``vocab.choosing``.
        embeddings: the teacher's table (tokens, width), for the rule ``embedding``.
        is_balanced: files weigh equally in the corpus and in ``tokens_per_text``, whatever their numbers of lines.
        seed: of what is held out.

    Raises:
        ValueError: if a file has too few texts to hold some out, or by ``vocab.train``.
    """
    parts = {name: split(texts, seed, name) for name, texts in files.items()}
    held_out = {name: part[1] for name, part in parts.items()}
    corpus = balanced([part[0] for part in parts.values()], seed) if is_balanced else None
    if corpus is None:
        corpus = [text for part in parts.values() for text in part[0]]
    ruler = Ruler(teacher, held_out, is_balanced)
    points: dict[int, Point] = {}
    for tokenizer in train_sizes(corpus, sorted(set(sizes)), kind, teacher, rule=rule, embeddings=embeddings):
        size = tokenizer.get_vocab_size()
        n_bytes = len(compact_json(tokenizer).encode("utf-8")) + 1  # the newline at its end
        found = bytes_of(size, n_bytes)
        points[size] = Point(size, ruler.measure(tokenizer), found.embeddings, n_bytes, found.package)
    n_texts = {name: len(texts) for name, texts in files.items()}
    return Curve(list(points.values()), ruler.measure(teacher), n_texts)


def pick(points: Sequence[Point], max_bytes: int | None = None, max_vocabulary_bytes: int | None = None) -> Pick | None:
    """Return the size with the least product of package bytes and time within the limits; ``None`` if none is within.

    Args:
        points: of the curve, by size.
        max_bytes: of the whole package.
        max_vocabulary_bytes: of the embeddings and tokenizer.json alone.
    """
    fitting = [
        point
        for point in points
        if (max_bytes is None or point.package_bytes <= max_bytes)
        and (max_vocabulary_bytes is None or point.vocabulary_bytes <= max_vocabulary_bytes)
    ]
    if not fitting:
        return None
    chosen = min(fitting, key=_product)
    return Pick(chosen, tuple(_reasons(points, fitting, chosen, max_bytes)))


def split(texts: Texts, seed: int, name: str = "the corpus") -> tuple[list[str], list[str]]:
    """Return the texts to train on and a seeded tenth to measure on, both in their order; at least one of each."""
    n_held = max(1, round(HELD_OUT * len(texts)))
    if n_held >= len(texts):
        raise Refused(f"{name}: {len(texts)} texts are too few to hold some out. Give a file with more rows.")
    held = set(random.Random(seed).sample(range(len(texts)), n_held))
    return (
        [text for index, text in enumerate(texts) if index not in held],
        [text for index, text in enumerate(texts) if index in held],
    )


def balanced(files: Sequence[Texts], seed: int) -> list[str]:
    """Return the texts of all files, those of smaller ones as often as it takes to have as many as the largest.

    >>> balanced([["a", "b", "c", "d"], ["x", "y"]], seed=0)
    ['a', 'b', 'c', 'd', 'x', 'y', 'x', 'y']
    """
    most = max(map(len, files), default=0)
    corpus: list[str] = []
    for texts in files:
        copies, rest = divmod(most, len(texts)) if texts else (0, 0)
        corpus += [*texts] * copies + random.Random(seed).sample(list(texts), rest)
    return corpus


def _product(point: Point) -> float:
    return point.package_bytes * point.measures.time


def _reasons(points: Sequence[Point], fitting: Sequence[Point], chosen: Point, max_bytes: int | None) -> Iterator[str]:
    best = min(points, key=_product)
    if best is chosen:
        yield "package bytes x time per text is least here among the sizes tried"
    else:
        yield (
            f"package bytes x time per text is least at {best.size:,} tokens, which is over the limit; "
            "this is the best that fits"
        )
    place = list(points).index(chosen)
    for other, name in ((place - 1, "from"), (place + 1, "on to")):
        if 0 <= other < len(points):
            yield _step(*((points[other], chosen) if other < place else (chosen, points[other])), name)
    measures = chosen.measures
    yield (
        f"{100 * measures.coverage:.1f} % of the tokens in use are the teacher's own and keep its embeddings; "
        f"{100 * measures.whole_words:.1f} % of the words are one token"
    )
    if max_bytes is not None and fitting[-1] is not chosen:
        yield (
            f"{max_bytes - chosen.package_bytes:,} bytes of the budget stay free for the encoder; they would do for "
            f"{fitting[-1].size:,} tokens"
        )


def _step(smaller: Point, larger: Point, name: str) -> str:
    """Return what the step from one size to the next larger one costs and saves."""
    growth = 100 * (larger.package_bytes / smaller.package_bytes - 1)
    saved = 100 * (1 - larger.measures.time / smaller.measures.time)
    size, verb = (smaller.size, "") if name == "from" else (larger.size, "would ")
    grows, saves = (f"{verb}grow", f"{verb}save") if verb else ("grows", "saves")
    return (
        f"{name} {size:,} tokens the package {grows} by {growth:.1f} % and the step {saves} {saved:.1f} % of the time"
    )
