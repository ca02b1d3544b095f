"""Batches for a teacher that reads two vocabularies: the student's view, and the same rows cut by both at once.

What is drawn for a row (which words the student's vocabulary cuts, which are hidden) depends on the seed, the epoch and
the batch only, never on what was drawn before: a resumed stage draws the same.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from torch import Tensor

from compressor.batches.encoded import Collator, EncodedRows, Visit, pad
from compressor.data.table import Table
from compressor.refused import Refused
from compressor.training.contract import Mixing
from vocab.mixing import masking, mixed
from vocab.mixing.cut import MixedRows, select
from vocab.surfaces import spec_of, unknown_token


class Tokens(NamedTuple):
    """What the collator must know of the two vocabularies."""

    n_student: int
    unknown: tuple[int, int]  # the student's and the teacher's id, -1 for none
    mask: tuple[int, int]  # -1 where no word is hidden
    pools: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]  # ids of a mixture that may replace a hidden word


def encode_mixed(
    teacher: Tokenizer, student: Tokenizer, table: Table, max_length: int
) -> tuple[MixedRows, EncodedRows]:
    """Cut all rows by both tokenizers, once; the student's cut also as plain ``compressor.batches.encoded``."""
    rows = mixed.MixedTokenizer(teacher, student, max_length).encode(table.texts, table.pairs)
    cut = rows.student
    return rows, EncodedRows(cut.ids, cut.segments, _numbered(cut.words, cut.starts), cut.starts)


def tokens_of(teacher: Tokenizer, student: Tokenizer, masked: float) -> Tokens:
    """Return the ids that mixing and masking need.

    Raises:
        ValueError: if words are to be masked and a vocabulary has no mask token.
    """
    both = (student, teacher)
    specs = [spec_of(tokenizer) for tokenizer in both]
    unknown = [_id(tokenizer, unknown_token(spec)) for tokenizer, spec in zip(both, specs, strict=True)]
    mask = [mask_id(tokenizer) if masked > 0 else -1 for tokenizer in both]
    n_student = student.get_vocab_size()
    pools = masking.replacement_pool(student), masking.replacement_pool(teacher, n_student)
    return Tokens(n_student, (unknown[0], unknown[1]), (mask[0], mask[1]), pools)


def mask_id(tokenizer: Tokenizer) -> int:
    """Return the id of the token that stands for a hidden word.

    Raises:
        ValueError: if there is none.
    """
    found = [index for index in (_id(tokenizer, name) for name in ("[MASK]", "<mask>")) if index >= 0]
    if not found:
        raise Refused(
            "objective = 'mlm' needs a mask token, and the teacher's tokenizer has neither [MASK] nor <mask>. "
            "Use objective = 'task'."
        )
    return found[0]


class MixedCollator:
    """Row numbers to a batch with both views; names and shapes as the methods document them."""

    def __init__(
        self,
        rows: MixedRows,
        plain: Collator,
        tokens: Tokens,
        mixing: Mixing,
        seed: int,
        epochs: float,
        max_length: int | None = None,
    ) -> None:
        """Remember what batches are made of.

        Args:
            rows: both cuts of every row.
            plain: makes the student's view.
            tokens: of both vocabularies.
            mixing: what the objective asks for.
            seed: of the draws.
            epochs: of the stage; the ramp is a share of them.
            max_length: tokens that the teacher can read; a mixture can be longer than both of its cuts.
        """
        self.rows, self.plain, self.tokens, self.mixing = rows, plain, tokens, mixing
        self.seed, self.epochs, self.max_length = seed, epochs, max_length

    def __call__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return the padded batch."""
        first = indices[0]
        epoch, done = (first.epoch, first.done) if isinstance(first, Visit) else (0, self.epochs)
        rng = np.random.default_rng((self.seed, epoch, int(first)))
        batch = self.plain(indices)
        read = [int(index) for index in indices[:: self.mixing.every]]
        drawn = mixed.draw(self.rows, read, self.probability(done), rng)
        mixture = mixed.mix(self.rows, read, drawn, self.tokens.n_student, self.max_length)
        mixture = self._known(mixture)
        batch |= self._view(mixture)
        if self.mixing.masked > 0:
            batch |= self._masked([int(index) for index in indices], mixture, rng)
        return batch

    def probability(self, done: float) -> float:
        """Return the mixing probability after so many epochs."""
        ramp = self.mixing.ramp * self.epochs
        return self.mixing.probability * (min(1.0, done / ramp) if ramp > 0 else 1.0)

    def _known(self, mixture: mixed.Mixture) -> mixed.Mixture:
        """Give the unknown token of the student's vocabulary the teacher's row: special tokens have one (A2)."""
        ours, theirs = self.tokens.unknown
        if ours < 0 or theirs < 0:
            return mixture
        is_unknown = mixture.ids == ours
        ids = np.where(is_unknown, self.tokens.n_student + theirs, mixture.ids)
        return mixture._replace(ids=ids, is_student=mixture.is_student & ~is_unknown)

    def _masked(self, indices: list[int], mixture: mixed.Mixture, rng: np.random.Generator) -> dict[str, Tensor]:
        """Hide the same words in both streams (A3)."""
        actions = masking.choose(self.rows, indices, self.mixing.masked, rng)
        _, starts = mixed.chosen_units(self.rows, indices)
        (our_mask, their_mask), (our_pool, _) = self.tokens.mask, self.tokens.pools
        cut = select(self.rows.student, indices)
        ids, labels = masking.apply(cut.ids, mixed.flat_units(cut, starts), actions, our_mask, our_pool, rng)
        every = self.mixing.every
        _, read_starts = mixed.chosen_units(self.rows, indices[::every])
        read = np.concatenate([actions[starts[row] : starts[row + 1]] for row in range(0, len(indices), every)])
        mask_id = self.tokens.n_student + their_mask
        theirs, their_labels = masking.mask_mixture(mixture, read_starts, read, mask_id, self.tokens.pools, rng)
        return {
            "input_ids": _padded(ids, cut.starts, self.plain.pad_id),
            "masked_labels": _padded(labels, cut.starts, masking.IGNORE),
            "mixed_ids": _padded(theirs, mixture.starts, 0),
            "mixed_labels": _padded(their_labels, mixture.starts, masking.IGNORE),
        }

    def _view(self, mixture: mixed.Mixture) -> dict[str, Tensor]:
        """Return the mixed view; padding is the first token, behind a mask of 0."""
        starts = mixture.starts
        return {
            "mixed_ids": _padded(mixture.ids, starts, 0),
            "mixed_mask": _padded(np.ones(len(mixture.ids), dtype=np.int64), starts, 0),
            "mixed_segments": _padded(mixture.segments, starts, 0),
            "mixed_words": _padded(_numbered(mixture.words, starts), starts, -1),
        }


def _padded(flat: npt.NDArray[np.generic], starts: npt.NDArray[np.int64], fill: int) -> Tensor:
    """Return flat rows as a padded tensor (rows, tokens)."""
    return pad([flat[start:end] for start, end in pairwise(starts)], fill)


def _numbered(words: npt.NDArray[np.int32], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Return words as batches number them: from 1, and 0 for the first special token of a row."""
    numbered = np.where(words >= 0, words + 1, -1).astype(np.int32)
    first = starts[:-1][np.diff(starts) > 0]
    numbered[first[words[first] < 0]] = 0
    return numbered


def _id(tokenizer: Tokenizer, token: str | None) -> int:
    found = tokenizer.token_to_id(token) if token else None
    return -1 if found is None else int(found)
