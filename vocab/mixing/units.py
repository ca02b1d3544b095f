"""Find the units of a text: the smallest runs of it that two tokenizers both end a pre-token at.

Each tokenizer cuts the whole text once; its pieces have offsets and the number of their pre-token. Pieces that no cut
may come between make a block: those of one pre-token, unless white space parts them (a tokenizer may have no other
pre-tokens), and those that overlap. Blocks of the two tokenizers that overlap are one unit, so that every unit is whole
in both cuts, whatever the kinds of the tokenizers. Everything is counted over many documents laid end to end.
"""

import sys
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NO_SIDE = -1  # of a special token
NO_UNIT = -1
SEPARATOR = "\0"  # between documents; no white space, so that it parts nothing


class Documents(NamedTuple):
    """Texts laid end to end, one character apart; a pair is two documents, the text and its pair."""

    bases: Integers  # (documents + 1,) where each begins
    per_row: int  # 1, or 2 for pairs
    is_space: Flags  # (characters,)


class Pieces(NamedTuple):
    """All pieces of many encodings, flat and in their order; spans count the characters of ``Documents``."""

    ids: Integers
    segments: Integers
    rows: Integers
    sides: Integers  # 0 for the text, 1 for its pair, -1 for special tokens
    starts: Integers
    ends: Integers
    pre_tokens: Integers  # numbered within the document


class Numbering(NamedTuple):
    """The units of many rows, numbered within their row, special tokens of the first tokenizer among them."""

    of_first: Integers  # (pieces,) unit in the row
    of_second: Integers  # (pieces,) -1 for special tokens
    starts: Integers  # (rows + 1,) where the units of each row begin
    sides: Integers  # (units,) 0 for the text, 1 for its pair, -1 for special tokens
    is_whole: Flags  # (units,) of text, and before the first unit of its document that truncation touched
    in_first: Flags  # (units,) the first tokenizer gives it a piece
    in_second: Flags  # (units,)


def documents_of(texts: Sequence[str], pairs: Sequence[str] | None) -> Documents:
    """Lay the texts, each followed by its pair where there are pairs, end to end."""
    documents = list(texts) if pairs is None else list(chain.from_iterable(zip(texts, pairs, strict=True)))
    bases = np.fromiter(accumulate((len(text) + 1 for text in documents), initial=0), np.int64, len(documents) + 1)
    codes = np.frombuffer(SEPARATOR.join([*documents, ""]).encode("utf-32-le", "surrogatepass"), np.uint32)
    return Documents(bases, 1 if pairs is None else 2, _space_table()[codes])


def pieces_of(encodings: Sequence[Encoding], documents: Documents) -> Pieces:
    """Return the pieces of one tokenizer's encodings, neither truncated nor padded, one per row."""
    lengths = np.fromiter((len(encoding) for encoding in encodings), np.int64, len(encodings))
    n_pieces = int(lengths.sum())
    rows = np.repeat(np.arange(len(encodings)), lengths)
    sides = _numbers((encoding.sequence_ids for encoding in encodings), n_pieces)
    bounds = np.fromiter(
        chain.from_iterable(chain.from_iterable(encoding.offsets for encoding in encodings)), np.int64, 2 * n_pieces
    ).reshape(n_pieces, 2)
    bounds += documents.bases[rows * documents.per_row + np.maximum(sides, 0)][:, None]
    return Pieces(
        ids=np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64, n_pieces),
        segments=np.fromiter(chain.from_iterable(encoding.type_ids for encoding in encodings), np.int64, n_pieces),
        rows=rows,
        sides=sides,
        starts=bounds[:, 0],
        ends=bounds[:, 1],
        pre_tokens=_numbers((encoding.word_ids for encoding in encodings), n_pieces),
    )


def kept_pieces(pieces: Pieces, n_rows: int, max_length: int | None) -> Flags:
    """Say which pieces stay when each row is truncated from the right as tokenizers do ("longest_first").

    Special tokens stay. Of a pair the longer text is shortened to what the shorter leaves, but neither below one half.
    """
    is_text = pieces.sides != NO_SIDE
    if max_length is None:
        return np.ones(len(is_text), np.bool_)
    cells = pieces.rows[is_text] * 2 + pieces.sides[is_text]
    counts = np.bincount(cells, minlength=2 * n_rows).reshape(n_rows, 2)
    room = max_length - np.bincount(pieces.rows[~is_text], minlength=n_rows)  # (rows,)
    shorter = counts.min(axis=1)
    longer = np.maximum(shorter, room - shorter)
    is_halved = shorter + longer > room
    limits = np.where(is_halved, room // 2, shorter), np.where(is_halved, room - room // 2, longer)
    is_swapped = counts[:, 0] > counts[:, 1]
    sides = np.stack([np.where(is_swapped, *limits[::-1]), np.where(is_swapped, *limits)], axis=1)  # (rows, 2)
    kept = ~is_text
    kept[is_text] = _ranks(cells) < sides.reshape(-1)[cells]
    return kept


def common_units(first: Pieces, second: Pieces, documents: Documents) -> tuple[Integers, Integers]:
    """Return the unit of each piece of both, -1 for special tokens.

    Units are numbered in the order of the text through all documents; neither tokenizer's pieces ever go back.
    """
    n_spaces = np.concatenate([[0], np.cumsum(documents.is_space)])
    orders = [_text_order(pieces, documents) for pieces in (first, second)]
    cuts = [_blocks(pieces, order, documents, n_spaces) for pieces, order in zip((first, second), orders, strict=True)]
    lows = np.concatenate([cut[1] for cut in cuts])
    highs = np.concatenate([cut[2] for cut in cuts])
    order = np.lexsort((highs, lows))  # stable: blocks without width stay in their tokenizer's order
    reach = np.maximum.accumulate(highs[order])
    is_empty = (lows == highs)[order]
    is_new = np.ones(len(order), np.int64)
    is_new[1:] = (lows[order][1:] >= reach[:-1]) & ~(is_empty[1:] & is_empty[:-1] & (lows[order][1:] == reach[:-1]))
    unit_of_block = np.empty(len(order), np.int64)
    unit_of_block[order] = np.cumsum(is_new) - 1
    units = []
    offset = 0
    for pieces, text_order, (block_of_piece, block_lows, _) in zip((first, second), orders, cuts, strict=True):
        of_piece = np.full(len(pieces.ids), -1, np.int64)
        of_piece[text_order] = unit_of_block[offset + block_of_piece]
        units.append(of_piece)
        offset += len(block_lows)
    return units[0], units[1]


def number_units(
    both: Sequence[Pieces],
    units: Sequence[Integers],
    kept: Sequence[Flags],
    n_before: Sequence[int],
    documents: Documents,
) -> Numbering:
    """Number the units within their rows, and the special tokens of the first tokenizer, in the order of its sequence.

    Args:
        both: pieces of the two tokenizers.
        units: of their pieces, as ``common_units`` returns them.
        kept: as ``kept_pieces`` returns them; units of which no piece is kept get no number.
        n_before: how many special tokens stand before the text, and before its pair.
        documents: what the pieces were cut from.
    """
    n_documents = len(documents.bases) - 1
    n_units = 1 + max((int(of_piece.max(initial=-1)) for of_piece in units), default=-1)
    document = np.zeros(n_units, np.int64)
    is_there = np.zeros((2, n_units), np.bool_)
    first_cut = np.full(n_documents, n_units, np.int64)
    for which, (pieces, of_piece) in enumerate(zip(both, units, strict=True)):
        index = pieces.rows * documents.per_row + pieces.sides
        is_text = pieces.sides != NO_SIDE
        document[of_piece[is_text]] = index[is_text]
        is_there[which, of_piece[is_text & kept[which]]] = True
        np.minimum.at(first_cut, index[~kept[which]], of_piece[~kept[which]])
    numbered = np.flatnonzero(is_there.any(axis=0))
    rows, sides = np.divmod(document[numbered], documents.per_row)
    special = np.flatnonzero(both[0].sides == NO_SIDE)
    # Sorted by row, place in the template, place in the text.
    all_rows = np.concatenate([rows, both[0].rows[special]])
    slots = np.concatenate([2 * np.asarray(n_before, np.int64)[sides], 2 * _ranks(both[0].rows[special]) + 1])
    order = np.lexsort((np.concatenate([numbered, special]), slots, all_rows))
    starts = np.searchsorted(all_rows[order], np.arange(n_documents // documents.per_row + 1)).astype(np.int64)
    in_row = np.empty(len(order), np.int64)
    in_row[order] = np.arange(len(order)) - starts[all_rows[order]]
    number = np.full(n_units + 1, NO_UNIT, np.int64)  # the last for special tokens, whose unit is -1
    number[numbered] = in_row[: len(numbered)]
    of_first = number[units[0]]
    of_first[special] = in_row[len(numbered) :]
    is_whole = numbered < first_cut[document[numbered]]
    no, yes = np.zeros(len(special), np.bool_), np.ones(len(special), np.bool_)
    return Numbering(
        of_first=of_first,
        of_second=number[units[1]],
        starts=starts,
        sides=np.concatenate([sides, np.full(len(special), NO_SIDE)])[order],
        is_whole=np.concatenate([is_whole, no])[order],
        in_first=np.concatenate([is_there[0, numbered], yes])[order],
        in_second=np.concatenate([is_there[1, numbered], no])[order],
    )


def _text_order(pieces: Pieces, documents: Documents) -> Integers:
    """Return the places of the pieces that are no special tokens, document by document."""
    places = np.flatnonzero(pieces.sides != NO_SIDE)
    index = pieces.rows[places] * documents.per_row + pieces.sides[places]
    return places[np.argsort(index, kind="stable")]  # a template may put the pair first


def _blocks(
    pieces: Pieces, order: Integers, documents: Documents, n_spaces: Integers
) -> tuple[Integers, Integers, Integers]:
    """Return the block of each piece in ``order``, and where each block begins and ends.

    Running bounds keep blocks apart and in order where a normaliser moved characters or a piece has odd offsets.
    """
    starts, ends = _spans(pieces.starts[order], pieces.ends[order], documents.is_space, n_spaces)
    starts = np.minimum.accumulate(starts[::-1])[::-1]
    ends = np.maximum.accumulate(ends)
    index = pieces.rows[order] * documents.per_row + pieces.sides[order]
    pre_tokens = pieces.pre_tokens[order]
    is_pre_token = (pre_tokens[1:] != pre_tokens[:-1]) | (index[1:] != index[:-1])
    before, after = ends[:-1], starts[1:]
    # A piece of spaces alone begins where it stands: "a" | "▁" "b", for the mark belongs to what follows.
    is_space_between = (n_spaces[after] > n_spaces[before]) | documents.is_space[after]
    is_cut = (before <= after) & (is_pre_token | is_space_between)
    begins = np.ones(len(order), np.bool_)
    begins[1:] = is_cut
    closes = np.ones(len(order), np.bool_)
    closes[:-1] = is_cut
    return np.cumsum(begins) - 1, starts[begins], ends[closes]


def _spans(starts: Integers, ends: Integers, is_space: Flags, n_spaces: Integers) -> tuple[Integers, Integers]:
    """Shrink spans to what is between their first and last character that is no space; spaces alone stay.

    A piece of spaces alone whose offsets were trimmed to nothing (byte-level tokenizers do) gets its spaces back.
    """
    characters = np.arange(len(is_space))
    # For each character the nearest that is no space, at or after it, and at or before it.
    later = np.minimum.accumulate(np.where(is_space, len(is_space), characters)[::-1])[::-1]
    earlier = np.maximum.accumulate(np.where(is_space, -1, characters))
    has_more = n_spaces[ends] - n_spaces[starts] < ends - starts
    is_trimmed = (starts == ends) & (ends > 0) & is_space[ends - 1]
    reach = np.maximum.accumulate(np.concatenate([[0], ends]))[:-1]  # the end of what is before each piece
    restored = np.where(is_trimmed, np.minimum(np.maximum(reach, earlier[ends - 1] + 1), ends), starts)
    return np.where(has_more, later[starts], restored), np.where(has_more, earlier[ends - 1] + 1, ends)


def _ranks(cells: Integers) -> Integers:
    """Return for each piece how many of the same cell come before it."""
    order = np.argsort(cells, kind="stable")
    in_order = cells[order]
    ranks = np.empty(len(cells), np.int64)
    ranks[order] = np.arange(len(cells)) - np.searchsorted(in_order, in_order)
    return ranks


def _numbers(lists: Iterable[list[int | None]], n_numbers: int) -> Integers:
    """Return the numbers of all lists, -1 for None."""
    flat = np.array(list(chain.from_iterable(lists)), dtype=np.float64)  # None becomes not-a-number
    assert len(flat) == n_numbers
    return np.where(np.isnan(flat), -1, flat).astype(np.int64)


@cache
def _space_table() -> Flags:
    table = np.zeros(sys.maxunicode + 1, np.bool_)
    table[[code for code in range(sys.maxunicode + 1) if chr(code).isspace()]] = True
    return table
