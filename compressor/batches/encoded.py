"""Rows to batches: encoded once, grouped by length, with the views that a method asks for.

A row's tokens carry the index of the word they belong to (0 is the first special token, words count from 1), so that
two vocabularies can be compared word by word. Truncation happens here and nowhere else.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from compressor.batches.teacher_cache import TeacherCache, VariedCache
from compressor.data.table import Table
from vocab.comparing.align import align_batch

Collate = Callable[[Sequence[int]], dict[str, Tensor]]  # row numbers to a padded batch
Side = Literal["right", "left"]  # where a text that is too long loses tokens

CHUNK = 4096  # rows encoded at a time: bounds memory on long texts
LONG_CHARACTERS = 100  # per token of the limit: pairs beyond are cut without the help of ``tokenizers``
MEGA_BATCH = 32  # batches whose rows are sorted by length together
VARIED = 0.5  # share of the visits that see a variation of the row


class EncodedRows(NamedTuple):
    """Token ids, segment ids and words of all rows, one flat array each; row i is ``[starts[i]:starts[i + 1]]``.

    Behind the rows may stand variations of them, round by round: those of row i are i + n_rows, i + 2 n_rows, ...
    """

    ids: npt.NDArray[np.int32]
    segments: npt.NDArray[np.int8]
    words: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    n_variations: int = 0  # of each row

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, and of each variation."""
        return np.diff(self.starts)

    @property
    def n_rows(self) -> int:
        """How many rows there are, variations aside."""
        return (len(self.starts) - 1) // (1 + self.n_variations)


def encode_rows(tokenizer: Tokenizer, table: Table, max_length: int, side: Side = "right") -> EncodedRows:
    """Encode texts (and pairs), truncated to ``max_length`` tokens on one side, longest part first.

    Long pairs are encoded whole and cut here: truncating two texts of 50 kB takes ``tokenizers`` seconds and
    gigabytes, because it keeps every combination of what it cuts off.
    """
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.no_padding()
    whole = copy.deepcopy(tokenizer) if table.pairs else tokenizer
    whole.no_truncation()
    tokenizer.enable_truncation(max_length, strategy="longest_first", direction=side)
    ids, segments, words, lengths = [], [], [], []
    for start in range(0, len(table.texts), CHUNK):
        texts = table.texts[start : start + CHUNK]
        pairs = table.pairs[start : start + CHUNK] if table.pairs else None
        inputs: list[Any] = list(zip(texts, pairs, strict=True)) if pairs else list(texts)  # Any: texts or pairs
        is_long = [bool(pairs) and max(map(len, both)) > LONG_CHARACTERS * max_length for both in inputs]
        encodings = tokenizer.encode_batch([both for both, long in zip(inputs, is_long, strict=True) if not long])
        for row in np.flatnonzero(is_long).tolist():
            encodings.insert(row, whole.encode(*inputs[row]))
        # Words are counted in the whole texts: a pair's second text has the same numbers whatever the maximum length.
        aligned = align_batch(texts, pairs, encodings)
        for encoding, of_words, long in zip(encodings, aligned, is_long, strict=True):
            kept = _kept(encoding, max_length, side) if long else slice(None)
            ids.append(np.asarray(encoding.ids, dtype=np.int32)[kept])
            segments.append(np.asarray(encoding.type_ids, dtype=np.int8)[kept])
            words.append(_units(encoding, of_words)[kept])
            lengths.append(len(ids[-1]))
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return EncodedRows(np.concatenate(ids), np.concatenate(segments), np.concatenate(words), starts)


def _kept(encoding: Encoding, max_length: int, side: Side) -> npt.NDArray[np.bool_]:
    """Return which tokens of a whole pair stay (tokens,): the longer gives way first, as in ``longest_first``."""
    which = np.asarray([-1 if sequence is None else sequence for sequence in encoding.sequence_ids])  # (tokens,)
    places = [np.flatnonzero(which == sequence) for sequence in (0, 1)]
    limit, counts = max_length - int((which < 0).sum()), [len(place) for place in places]
    kept = which < 0
    if sum(counts) <= limit:
        return np.ones_like(kept)
    shorter = min(*counts, limit // 2)
    n_kept = [shorter, limit - shorter] if counts[0] <= counts[1] else [limit - shorter, shorter]
    for place, n_tokens in zip(places, n_kept, strict=True):
        kept[place[len(place) - n_tokens :] if side == "left" else place[:n_tokens]] = True
    return kept


def _units(encoding: Encoding, words: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    units = np.where(words >= 0, words + 1, -1).astype(np.int32)
    if encoding.special_tokens_mask and encoding.special_tokens_mask[0] == 1:
        units[0] = 0
    return units


class Visit(int):
    """A row number that knows when it is visited: what is drawn for a row can differ each time, and be repeated."""

    epoch: int
    done: float  # epochs done before this visit

    @classmethod
    def at(cls, row: int, epoch: int, done: float) -> "Visit":
        """Return the visit of ``row``."""
        visit = cls(row)
        visit.epoch, visit.done = epoch, done
        return visit


class RowDataset(Dataset[int]):
    """Row numbers: the collator looks everything else up, so nothing is copied per row."""

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, index: int) -> int:
        return index


class Collator:
    """Row numbers to a batch of tensors."""

    def __init__(
        self,
        rows: EncodedRows,
        pad_id: int,
        has_segments: bool,
        labels: npt.NDArray[np.generic] | None = None,
        teacher: TeacherCache | VariedCache | None = None,
        has_words: bool = False,
    ) -> None:
        self.rows, self.pad_id, self.has_segments, self.labels = rows, pad_id, has_segments, labels
        self.teacher = teacher
        self.has_words = has_words or (teacher is not None and bool(teacher.layers))

    def __call__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return the padded batch; names and shapes as the methods document them."""
        spans = [slice(self.rows.starts[index], self.rows.starts[index + 1]) for index in indices]
        ids = pad([self.rows.ids[span] for span in spans], self.pad_id)
        mask = pad([np.ones(span.stop - span.start, dtype=np.int64) for span in spans], 0)
        batch = {"input_ids": ids, "attention_mask": mask}
        if self.has_segments:
            batch["token_type_ids"] = pad([self.rows.segments[span] for span in spans], 0)
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self.labels[np.asarray(indices)])
        if self.has_words:
            batch["words"] = pad([self.rows.words[span] for span in spans], -1)
        if self.teacher is not None:
            batch["teacher_output"] = torch.from_numpy(self.teacher.outputs(indices))
            if self.teacher.layers:
                states, units = self.teacher.states(indices)
                batch["teacher_states"] = states  # (batch, units, layers, teacher width)
                batch["teacher_units"] = pad(units, -1)
            if self.teacher.first_layers:
                batch["teacher_first"] = self.teacher.first(indices)  # (batch, first layers, teacher width)
        return batch


class LengthSampler(Sampler[int]):
    """Shuffle, then sort by length within windows of ``MEGA_BATCH`` batches, then shuffle the batches.

    Where rows have variations, about ``VARIED`` of them are visited as one, another every time. All depends on the seed
    and the epoch only, so that a resumed run sees the same batches.
    """

    def __init__(self, lengths: npt.NDArray[np.int64], batch_size: int, seed: int, n_variations: int = 0) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0
        self.n_variations, self.n_rows = n_variations, len(lengths) // (1 + n_variations)

    def __len__(self) -> int:
        return self.n_rows

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = self._varied(rng.permutation(self.n_rows))
        window = self.batch_size * MEGA_BATCH
        batches: list[npt.NDArray[np.int64]] = []
        for start in range(0, len(order), window):
            part = order[start : start + window]
            part = part[np.argsort(-self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        full = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]  # at most one: it must come last
        shuffled = [full[index] for index in rng.permutation(len(full))] + rest
        rows = np.concatenate(shuffled).tolist()
        return (Visit.at(row, self.epoch, self.epoch + place / len(rows)) for place, row in enumerate(rows))

    def batches(self, n_rows: int | None = None) -> Iterator[list[int]]:
        """Yield the rows of an epoch, a batch at a time, or ``n_rows``."""
        rows = iter(self)
        while chosen := list(islice(rows, n_rows or self.batch_size)):
            yield chosen

    def _varied(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the rows, or variations in the place of some."""
        if not self.n_variations:
            return rows
        is_varied = np.random.default_rng((self.seed, self.epoch, 1)).random(len(rows)) < VARIED
        turn = 1 + (self.epoch + rows) % self.n_variations
        return np.where(is_varied, rows + turn * self.n_rows, rows)


def pad(arrays: Sequence[npt.NDArray[np.generic]], fill: int) -> Tensor:
    """Return the arrays as rows of one int64 tensor (rows, longest), filled up at the end."""
    width = max(len(array) for array in arrays)
    padded = np.full((len(arrays), width), fill, dtype=np.int64)
    for row, array in enumerate(arrays):
        padded[row, : len(array)] = array
    return torch.from_numpy(padded)
