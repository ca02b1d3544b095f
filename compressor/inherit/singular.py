"""Sides in the coordinates of the teacher tensor's singular vectors: the same images for a fraction of the products.

    T = U diag(s) V^T,   A' = A U s^1/2,   B' = B V s^1/2,   A T B^T = A' B'^T

where directions with s = 0 are left out: the image has no higher rank than T, as before. The root of s goes to both
sides, so that an optimizer that gives every entry steps of one size moves strong and weak directions of the image
alike. Singular vectors are unique up to sign, and less where values repeat: a checkpoint belongs to the vectors it was
trained with, and ``fingerprint`` tells them apart.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from compressor.inherit.formula import LearnedMap
from compressor.models.slots import Slot

ROUNDING = 1e-6  # of checkpoints in float32, relative: a direction weaker than that is none


class Basis(NamedTuple):
    """The directions of one teacher tensor, in float64; None for a side that there is not."""

    left: Tensor  # (rows, rank)
    right: Tensor | None  # (columns, rank)
    roots: Tensor  # (rank,): root of the singular values, 1 for vectors


def has_singular_basis(slot: Slot, sides: Sequence[str], values: Mapping[str, Tensor]) -> bool:
    """Return whether a tensor can be kept in singular coordinates.

    One teacher matrix with two dense sides of its own, or vectors with one.
    """
    own = [name for name in sides[: len(slot.axes)] if name.startswith(f"{slot.name}/")]  # not shared with others
    is_own = len(own) == len(slot.axes) and all(name in values and values[name].dim() == 2 for name in own)
    return is_own and (len(slot.axes) == 1 or len(slot.sources) == 1)


def find_basis(learned: LearnedMap, sources: Tensor) -> Basis:
    """Return the directions that a matrix (1, rows, columns) or vectors (teacher tensors, rows) span."""
    exact = sources.double()
    if not learned.right:
        left, values, _ = torch.linalg.svd(exact.T, full_matrices=False)
        left = left[:, _is_there(values)]
        return Basis(left, None, left.new_ones(left.shape[1]))
    left, values, right = torch.linalg.svd(exact[0], full_matrices=False)
    is_there = _is_there(values)
    return Basis(left[:, is_there], right.T[:, is_there], values[is_there].sqrt())


def _is_there(values: Tensor) -> Tensor:
    found = values > ROUNDING * values.max()
    found[0] = True  # of nothing the image is nothing, by a root of 0
    return found


def to_singular(learned: LearnedMap, basis: Basis, sources: Tensor, values: dict[str, Tensor]) -> Tensor:
    """Turn the sides in ``values`` and return what is multiplied between them.

    Ones (1, rank) for a matrix, zeros where it is zero; for vectors their coordinates (teacher tensors, rank).
    """
    values[learned.left] = values[learned.left].double() @ (basis.left * basis.roots)
    if basis.right is None:
        return sources.double() @ basis.left
    values[learned.right] = values[learned.right].double() @ (basis.right * basis.roots)
    return (basis.roots > 0).double().unsqueeze(0)


def from_singular(learned: LearnedMap, basis: Basis, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the parts of a map with its sides A and B in the teacher's own coordinates, for its own tensor."""
    inverse = torch.where(basis.roots > 0, 1 / basis.roots, 0.0)
    found = {**named, "left": named["left"] @ (basis.left * inverse).T}
    if basis.right is not None:
        found["right"] = named["right"] @ (basis.right * inverse).T
    return found


def fingerprint(basis: Basis) -> float:
    """Return a number that is another one as soon as one vector is turned, or only has the other sign."""
    vectors = basis.left if basis.right is None else torch.cat([basis.left, basis.right])
    rows, columns = (torch.arange(1, n + 1, dtype=torch.float64) for n in vectors.shape)
    return float(torch.cos(rows) @ vectors.cpu() @ torch.cos(columns))
