"""Many rows cut by one tokenizer or by two, as flat arrays: how they are made, chosen from and joined."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vocab.mixing.units import NO_SIDE, Flags, Integers, Pieces

Indices = Sequence[int] | Integers


class CutRows(NamedTuple):
    """One tokenizer's cut of many rows with its special tokens, flat; row i is ``[starts[i]:starts[i + 1]]``."""

    ids: npt.NDArray[np.int32]
    segments: npt.NDArray[np.int8]
    words: npt.NDArray[np.int32]  # as ``vocab.comparing.align.align_batch`` counts them, -1 for special tokens
    units: npt.NDArray[np.int32]  # unit in the row; -1 for the student's special tokens
    is_special: Flags
    starts: Integers  # (rows + 1,)


class MixedRows(NamedTuple):
    """Both cuts of many rows, and their units; those of row i are ``[unit_starts[i]:unit_starts[i + 1]]``.

    Units are counted over the teacher's sequence with its special tokens: [CLS] is 0, the first word 1. A unit that
    only one of the tokenizers gives pieces (a control character, doubled spaces) is a unit all the same.
    """

    teacher: CutRows
    student: CutRows
    n_units: Integers  # (rows,)
    unit_starts: Integers  # (rows + 1,)
    is_drawable: Flags  # (units,) neither special nor at or after the first unit of its text that truncation touched
    is_maskable: Flags  # (units,) drawable, with pieces in both cuts, none of them unknown or a special token's
    unit_segments: npt.NDArray[np.int8]  # (units,) the teacher's segment there


def cut_rows(
    pieces: Pieces, words: npt.NDArray[np.int32], units: Integers, kept: npt.NDArray[np.bool_], n_rows: int
) -> CutRows:
    """Return the kept pieces, with the word and the unit of each, as rows."""
    return CutRows(
        ids=pieces.ids[kept].astype(np.int32),
        segments=pieces.segments[kept].astype(np.int8),
        words=words[kept],
        units=units[kept].astype(np.int32),
        is_special=pieces.sides[kept] == NO_SIDE,
        starts=np.searchsorted(pieces.rows[kept], np.arange(n_rows + 1)).astype(np.int64),
    )


def select(cut: CutRows, indices: Indices) -> CutRows:
    """Return the chosen rows, in the order chosen, as rows of their own."""
    places, starts = gather(cut.starts, indices)
    return CutRows._make([*(column[places] for column in cut[:-1]), starts])


def join_cuts(cuts: Sequence[CutRows]) -> CutRows:
    """Return all rows of several cuts, one after the other."""
    *columns, starts = zip(*cuts, strict=True)
    lengths = np.concatenate([np.diff(each) for each in starts])
    return CutRows._make([*map(np.concatenate, columns), starts_of(lengths)])


def join_rows(chunks: Sequence[MixedRows]) -> MixedRows:
    """Return all rows of several chunks, one after the other."""
    n_units = np.concatenate([chunk.n_units for chunk in chunks])
    return MixedRows(
        teacher=join_cuts([chunk.teacher for chunk in chunks]),
        student=join_cuts([chunk.student for chunk in chunks]),
        n_units=n_units,
        unit_starts=starts_of(n_units),
        is_drawable=np.concatenate([chunk.is_drawable for chunk in chunks]),
        is_maskable=np.concatenate([chunk.is_maskable for chunk in chunks]),
        unit_segments=np.concatenate([chunk.unit_segments for chunk in chunks]),
    )


def gather(starts: Integers, indices: Indices) -> tuple[Integers, Integers]:
    """Return the places of the chosen rows' items, row after row, and where each chosen row begins among them.

    ``gather([0, 2, 5], [1, 0]) == ([2, 3, 4, 0, 1], [0, 3, 5])``.
    """
    chosen = np.asarray(indices, np.int64)
    lengths = starts[chosen + 1] - starts[chosen]
    new_starts = starts_of(lengths)
    return np.arange(new_starts[-1]) + np.repeat(starts[chosen] - new_starts[:-1], lengths), new_starts


def starts_of(lengths: Integers) -> Integers:
    """Return where each of several rows begins, and where the last ends: ``starts_of([2, 3]) == [0, 2, 5]``."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts
