r"""Mix two tokenizers within one text: per word, a seeded draw decides whether the teacher's or the student's cuts it.

    pieces(unit) = student's pieces of it if z(unit) else teacher's,   z(unit) ~ Bernoulli(p)

after Zhao et al., "Extremely Small BERT Models from Mixed-Vocabulary Training" (arXiv 1909.11687). What is drawn is a
*unit* (``vocab.mixing.units``): the smallest run of text that both tokenizers end a word at. Each text is encoded
whole, once by each tokenizer; a mixture takes slices of the two results, so that p=0 gives exactly the teacher's ids
and p=1 exactly the student's. Special tokens are the teacher's and never drawn. Ids of a mixture count both
vocabularies: the student's first, then the teacher's.

It refuses lengths that do not hold the special tokens. Nothing is padded here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from vocab.comparing.align import align_batch
from vocab.mixing.cut import CutRows, Indices, MixedRows, cut_rows, gather, join_rows, select, starts_of
from vocab.mixing.units import (
    NO_UNIT,
    Flags,
    Integers,
    Pieces,
    common_units,
    documents_of,
    kept_pieces,
    number_units,
    pieces_of,
)
from vocab.refused import Refused
from vocab.surfaces import bare, spec_of, special_tokens, vocab_of

CHUNK = 1024  # rows encoded at a time


class Mixture(NamedTuple):
    """Mixed sequences, flat. Id i < n_student is the student's token i, otherwise the teacher's token i - n_student."""

    ids: Integers
    is_student: Flags
    segments: npt.NDArray[np.int8]
    words: npt.NDArray[np.int32]
    units: npt.NDArray[np.int32]
    is_special: Flags
    starts: Integers  # (rows + 1,)


class MixedTokenizer:
    """Two tokenizers that cut the same rows.

    Attributes:
        n_student: ids of the student's vocabulary; a teacher's id i is ``n_student + i`` in a mixture.
        n_teacher: ids of the teacher's vocabulary.
        max_length: longest sequence in tokens, special ones included; ``None`` for no limit.

    Raises:
        ValueError: if ``max_length`` leaves no room for text.
    """

    def __init__(self, teacher: Tokenizer, student: Tokenizer, max_length: int | None = None) -> None:
        self.max_length = max_length
        self._tokenizers = (bare(teacher), bare(student))
        self.n_teacher, self.n_student = (max(vocab_of(spec_of(each)).values()) + 1 for each in self._tokenizers)
        self._avoided = tuple(_special_ids(each) for each in self._tokenizers)
        self._templates = [_template(self._tokenizers[0], is_pair=is_pair) for is_pair in (False, True)]
        self._check_room(is_pair=False)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> MixedRows:
        """Cut every row with both tokenizers.

        Raises:
            ValueError: if there are not as many pairs as texts, or no room for a pair.
        """
        if pairs is not None and len(pairs) != len(texts):
            raise Refused(f"mixed tokenisation: got {len(texts)} texts and {len(pairs)} pairs. Give one per text.")
        self._check_room(is_pair=pairs is not None)
        chunks = [
            self._encode_chunk(texts[first : first + CHUNK], None if pairs is None else pairs[first : first + CHUNK])
            for first in range(0, max(1, len(texts)), CHUNK)
        ]
        return join_rows(chunks)

    def _check_room(self, *, is_pair: bool) -> None:
        n_special = max(each.num_special_tokens_to_add(is_pair) for each in self._tokenizers)
        if self.max_length is not None and self.max_length <= n_special:
            raise Refused(
                f"mixed tokenisation: max_length={self.max_length} leaves no room beside {n_special} special tokens. "
                f"Use {n_special + 1} or more."
            )

    def _encode_chunk(self, texts: Sequence[str], pairs: Sequence[str] | None) -> MixedRows:
        inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        documents = documents_of(texts, pairs)
        both: list[Pieces] = []
        words: list[npt.NDArray[np.int32]] = []
        for tokenizer in self._tokenizers:
            encodings = tokenizer.encode_batch(inputs)
            both.append(pieces_of(encodings, documents))
            words.append(np.concatenate([np.empty(0, np.int32), *align_batch(texts, pairs, encodings)]))
        kept = [kept_pieces(pieces, len(texts), self.max_length) for pieces in both]
        units = common_units(both[0], both[1], documents)
        n_before, segments = self._templates[pairs is not None]
        numbering = number_units(both, units, kept, n_before, documents)
        in_row = (numbering.of_first, numbering.of_second)
        is_known = np.ones(len(numbering.sides), np.bool_)
        cuts = []
        for which in (0, 1):
            cut = cut_rows(both[which], words[which], in_row[which], kept[which], len(texts))
            of_avoided = np.isin(cut.ids, self._avoided[which])
            is_known[flat_units(cut, numbering.starts)[of_avoided & ~cut.is_special]] = False
            cuts.append(cut)
        unit_segments = np.append(segments, 0)[numbering.sides].astype(np.int8)
        is_special = cuts[0].is_special
        unit_segments[_all_units(cuts[0], numbering.starts)[is_special]] = cuts[0].segments[is_special]
        return MixedRows(
            teacher=cuts[0],
            student=cuts[1],
            n_units=np.diff(numbering.starts),
            unit_starts=numbering.starts,
            is_drawable=numbering.is_whole,
            is_maskable=numbering.is_whole & numbering.in_first & numbering.in_second & is_known,
            unit_segments=unit_segments,
        )


def draw(rows: MixedRows, indices: Indices, probability: float, rng: np.random.Generator) -> Flags:
    """Draw for each unit of the chosen rows, laid end to end, whether the student cuts it.

    One number is drawn per unit, drawable or not: a larger ``probability`` only adds units to the drawn ones.

    Raises:
        ValueError: if ``probability`` is no probability.
    """
    _check_probability(probability)
    places, _ = chosen_units(rows, indices)
    return (rng.random(len(places)) < probability) & rows.is_drawable[places]


def mix(rows: MixedRows, indices: Indices, drawn: Flags, n_student: int, max_length: int | None = None) -> Mixture:
    """Return the mixtures of the chosen rows: the student's pieces of the drawn units, the teacher's of the others.

    Args:
        rows: both cuts.
        indices: of the rows, in any order, repeated or not.
        drawn: as ``draw`` returns it; units that are not drawable stay the teacher's whatever it says.
        n_student: of the ``MixedTokenizer``.
        max_length: of a mixture in tokens; a longer one loses pieces of text at its end, never a special token.

    Raises:
        ValueError: if ``drawn`` is not one flag per unit, or ``max_length`` does not hold the special tokens.
    """
    places, unit_starts = chosen_units(rows, indices)
    if drawn.shape != places.shape:
        raise Refused(f"mixed tokenisation: got {len(drawn)} draws for {len(places)} units of the chosen rows.")
    is_drawn = np.append(drawn & rows.is_drawable[places], False)  # the last for special tokens, whose unit is -1
    teacher, student = select(rows.teacher, indices), select(rows.student, indices)
    teacher_units, student_units = flat_units(teacher, unit_starts), flat_units(student, unit_starts)
    of_teacher = np.flatnonzero(~is_drawn[teacher_units])
    of_student = np.flatnonzero(is_drawn[student_units])
    # Units are numbered through the rows, so that sorting by unit sorts by row, too; stable keeps pieces in order.
    keys = np.concatenate([_all_units(teacher, unit_starts)[of_teacher], student_units[of_student]])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    n_teacher_pieces = len(of_teacher)
    ids = np.concatenate([teacher.ids[of_teacher] + np.int64(n_student), student.ids[of_student].astype(np.int64)])
    mixture = Mixture(
        ids=ids[order],
        is_student=order >= n_teacher_pieces,
        segments=rows.unit_segments[places][keys],
        words=np.concatenate([teacher.words[of_teacher], student.words[of_student]])[order],
        units=(keys - unit_starts[np.searchsorted(unit_starts, keys, side="right") - 1]).astype(np.int32),
        is_special=np.concatenate([teacher.is_special[of_teacher], np.zeros(len(of_student), np.bool_)])[order],
        starts=np.searchsorted(keys, unit_starts).astype(np.int64),
    )
    return mixture if max_length is None else _shortened(mixture, max_length)


def chosen_units(rows: MixedRows, indices: Indices) -> tuple[Integers, Integers]:
    """Return the places of the chosen rows' units in ``rows``, and where each chosen row begins among them.

    The latter, (chosen rows + 1,), is what ``flat_units`` and ``vocab.mixing.masking`` call ``unit_starts``.
    """
    return gather(rows.unit_starts, indices)


def flat_units(cut: CutRows | Mixture, unit_starts: Integers) -> Integers:
    """Return the unit of each piece counted through the rows, -1 for special tokens."""
    return np.where(cut.is_special, NO_UNIT, _all_units(cut, unit_starts))


def _check_probability(probability: float) -> None:
    if not 0 <= probability <= 1:
        raise Refused(f"mixed tokenisation: probability={probability} is not between 0 and 1.")


def _all_units(cut: CutRows | Mixture, unit_starts: Integers) -> Integers:
    return np.repeat(unit_starts[:-1], np.diff(cut.starts)) + cut.units


def _shortened(mixture: Mixture, max_length: int) -> Mixture:
    """Drop the last pieces of text of the rows that are too long."""
    lengths = np.diff(mixture.starts)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    n_special = np.bincount(rows[mixture.is_special], minlength=len(lengths))
    if (n_special > max_length).any():
        raise Refused(f"mixed tokenisation: max_length={max_length} does not hold {n_special.max()} special tokens.")
    is_text = ~mixture.is_special
    n_text = starts_of(is_text.astype(np.int64))  # (pieces + 1,) text pieces before each piece
    rank = n_text[:-1] - n_text[mixture.starts[:-1]][rows]
    kept = mixture.is_special | (rank < max_length - n_special[rows])
    starts = starts_of(np.bincount(rows[kept], minlength=len(lengths)))
    return Mixture._make([*(column[kept] for column in mixture[:-1]), starts])


def _special_ids(tokenizer: Tokenizer) -> Integers:
    spec = spec_of(tokenizer)
    ids = vocab_of(spec)
    return np.array([ids[token] for token in special_tokens(spec)], np.int64)


def _template(tokenizer: Tokenizer, *, is_pair: bool) -> tuple[list[int], list[int]]:
    """Return, for the text and its pair, the number of special tokens before it and its segment."""
    text = next(text for text in ("a", *tokenizer.get_vocab()) if tokenizer.encode(text, add_special_tokens=False).ids)
    encoding = tokenizer.encode(text, text if is_pair else None)
    sides = encoding.sequence_ids
    first = [sides.index(side) for side in range(1 + is_pair)]
    return [sides[:place].count(None) for place in first], [encoding.type_ids[place] for place in first]
