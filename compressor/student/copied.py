"""Student tensors as maps of frozen teacher tensors.

A :class:`TensorMap` says, for one student tensor, which teacher tensor it is made of and how: rows and columns kept,
a sparse mixture over the vocabulary, a per-row factor, a constant added. ``fold`` evaluates it once, in float64, and
returns the plain tensor of an ordinary Hugging Face model; ``describe`` is its line in ``inherit.json``, so that every
tensor of a student has a stated origin. Maps that are *trained* are made of the same record and evaluated in the
forward pass before they are folded.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vocab.mapping import VocabMap

Index = npt.NDArray[np.int64]
NEW = -1  # an index without a teacher row: the student's own initial value stays


@dataclass(frozen=True)
class TensorMap:
    """One student tensor from one teacher tensor.

    ``rows``/``columns`` index the teacher's axes 0 and 1 (``None``: all of them; ``NEW``: no source). ``mixture``
    replaces ``rows`` for embedding tables: ``(indptr, indices, weights)`` of a CSR matrix (student tokens x teacher
    tokens). ``scale`` multiplies rows, ``shift`` is added afterwards; both have the student's number of rows.
    """

    source: str
    rows: Index | None = None
    columns: Index | None = None
    mixture: tuple[Index, Index, npt.NDArray[np.float32]] | None = None
    scale: npt.NDArray[np.float64] | None = None
    shift: npt.NDArray[np.float64] | None = None
    reason: str = "copied"

    def fold(self, teacher: dict[str, torch.Tensor], initial: torch.Tensor) -> torch.Tensor:
        """Return the student tensor; ``initial`` (same shape) supplies what has no source."""
        value = teacher[self.source].double()
        kept = torch.ones(initial.shape, dtype=torch.bool)
        if self.mixture is not None:
            value, has_source = mix(self.mixture, value)
            kept &= has_source.view(-1, *[1] * (initial.dim() - 1))
        if self.rows is not None:
            value, has_source = _take(value, self.rows, axis=0)
            kept &= has_source.view(-1, *[1] * (initial.dim() - 1))
        if self.columns is not None:
            value, has_source = _take(value, self.columns, axis=1)
            kept &= has_source.view(1, -1)
        if self.scale is not None:
            value = value * torch.from_numpy(self.scale).view(-1, *[1] * (value.dim() - 1))
        if self.shift is not None:
            value = value + torch.from_numpy(self.shift).view(-1, *[1] * (value.dim() - 1))
        if value.shape != initial.shape:
            raise AssertionError(f"map of {self.source}: {tuple(value.shape)} instead of {tuple(initial.shape)}")
        return torch.where(kept, value, initial.double()).to(initial.dtype)

    def describe(self) -> dict[str, Any]:  # JSON
        """Return the origin as JSON: source, how many rows and columns of it, and why these."""
        line: dict[str, Any] = {"source": self.source, "how": self.reason}
        for name, index in (("rows", self.rows), ("columns", self.columns)):
            if index is not None:
                line[name] = {"kept": int((index != NEW).sum()), "new": int((index == NEW).sum())}
        if self.mixture is not None:
            per_row = np.diff(self.mixture[0])
            line["mixture"] = {
                "copied": int((per_row == 1).sum()),
                "mixed": int((per_row > 1).sum()),
                "new": int((per_row == 0).sum()),
            }
        if self.shift is not None or self.scale is not None:
            line["compensated"] = True
        return line


def _take(value: torch.Tensor, index: Index, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    positions = torch.from_numpy(index)
    return value.index_select(axis, positions.clamp(min=0)), positions != NEW


def mix(
    mixture: tuple[Index, Index, npt.NDArray[np.float32]], table: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a CSR matrix (student tokens x teacher tokens) times a float64 table, and which rows are not empty."""
    indptr, indices, weights = (torch.from_numpy(np.asarray(part)) for part in mixture)
    per_row = indptr.diff()
    rows = torch.repeat_interleave(torch.arange(len(per_row)), per_row)
    mixed = torch.zeros(len(per_row), table.shape[1], dtype=table.dtype)
    mixed.index_add_(0, rows, weights.double().unsqueeze(1) * table[indices.long()])
    return mixed, per_row > 0  # (student tokens, width)


def mapped_table(vocab_map: VocabMap, table: Tensor) -> Tensor:
    """Return the teacher's rows mixed for every student token (student tokens, width); rows without a source: the mean.

    In float64, as every map of teacher tensors (``compressor.student.copied``).
    """
    wide = table.detach().double()
    mixed, has_source = mix((vocab_map.indptr, vocab_map.indices, vocab_map.weights), wide)
    return torch.where(has_source.unsqueeze(1), mixed, wide.mean(dim=0)).to(table.dtype)


def principal_rows(table: Tensor, width: int) -> Tensor:
    """Return rows of ``width`` whose best linear map up gives ``table`` with the least squared error (its SVD)."""
    left, values, _ = torch.linalg.svd(table.double(), full_matrices=False)
    rows = left[:, :width] * values[:width]
    return F.pad(rows, (0, width - rows.shape[1])).to(table.dtype).contiguous()  # fewer tokens than columns: zeros
