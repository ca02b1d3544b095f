"""Round float matrices to 8 or 4 bits: pure numpy, no ONNX, no calibration data.

8 bits: one float16 scale per row, ``w ~ q * scale``, the largest magnitude of the row on 127.

4 bits: two levels. A float16 scale per line (row or column) and a small whole number, the *multiplier*, per block:
``w ~ q * multiplier * scale`` with q in -8..7. The multiplier (either sign, so that the largest value may sit on -8) is
the one with the least squared error over a grid. It costs one byte per block where a float16 scale costs two, and
``q * multiplier`` is a whole number that fits in 8 bits, so a runtime can unpack 4-bit weights to int8 (``fold4``).

Scales are rounded to float16 *before* the values are rounded, so the values make up for it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporters.refused import Refused

Floats = NDArray[np.float32]
SMALLEST_SCALE = 2.0**-20  # float16 still has four bits of precision here; lines this small are noise
GRID = (1.15, 1.05, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6)  # reach of the 16 levels as a share of the largest value
CHUNK = 1 << 20  # values rounded at a time, so that the grid search needs little memory


class Rounded8(NamedTuple):
    """``matrix ~ values * scales[:, None]``."""

    values: NDArray[np.int8]  # (rows, columns)
    scales: NDArray[np.float16]  # (rows,)


class Rounded4(NamedTuple):
    """``matrix ~ values * (multipliers, one per block of consecutive values) * scales (one per line)``."""

    values: NDArray[np.int8]  # (rows, columns), -8..7
    multipliers: NDArray[np.int8]  # (blocks,), row by row
    scales: NDArray[np.float16]  # (rows,) or (columns,)


class Folded4(NamedTuple):
    """Two matrices in the halves of one byte tensor (``fold4``); each is ``~ unpacked * scales``."""

    packed: NDArray[np.int8]  # (blocks, block_size)
    high_multipliers: NDArray[np.int8]  # (blocks,), -15..15
    low_multipliers: NDArray[np.int8]  # (blocks,)
    high_scales: NDArray[np.float16]  # (columns,)
    low_scales: NDArray[np.float16]  # (columns,)


def round8(matrix: Floats) -> Rounded8:
    """Round each row to 8 bits, symmetric around zero: ``round8([[2, -1]])`` is ``[[127, -64]]`` at about 2 / 127."""
    scales = _to_scales(np.abs(matrix).max(axis=1) / 127)
    values = np.rint(matrix / scales[:, None].astype(np.float32)).clip(-127, 127).astype(np.int8)
    return Rounded8(values, scales)


def round4(matrix: Floats, block_size: int, *, scale_rows: bool) -> Rounded4:
    """Round to 4 bits in blocks of consecutive values (row by row), with a scale per row or else per column.

    Raises:
        ValueError: if the number of values is not a multiple of the block size.
    """
    groups, multipliers, scales = _fit(matrix, block_size, 127, 1 if scale_rows else 0)
    values = _nearest(groups, multipliers).astype(np.int8).reshape(matrix.shape)
    return Rounded4(values, multipliers.astype(np.int8), scales)


def fold4(high: Floats, low: Floats, block_size: int) -> Folded4:
    """Round two matrices with equally many values to 4 bits, so that few simple operations unpack each to int8.

    A byte is ``16 * h + l + 8``. l is cut out with a mask; h is read as byte / 16, that is as ``h + l / 16``: l is
    known here, so h is chosen to make up for it, and one mask less means half a byte less per value while unpacking.

    Raises:
        ValueError: if the values do not fill blocks, or the matrices differ in size.
    """
    if high.size != low.size:
        raise Refused(f"quantize: matrices of {high.shape} and {low.shape} do not share bytes. Pair equal sizes.")
    # 15: |(h + l / 16) * multiplier| <= 8.5 * 15, which still is an int8
    high_groups, high_multipliers, high_scales = _fit(high, block_size, 15, 0)
    low_groups, low_multipliers, low_scales = _fit(low, block_size, 15, 0)
    low_values = _nearest(low_groups, low_multipliers)
    high_values = np.rint(high_groups / high_multipliers[:, None] - low_values / 16).clip(-8, 7)
    packed = (16 * high_values + low_values + 8).astype(np.int8)  # (blocks, block)
    multipliers = high_multipliers.astype(np.int8), low_multipliers.astype(np.int8)
    return Folded4(packed, *multipliers, high_scales, low_scales)


def _fit(matrix: Floats, block_size: int, largest: int, axis: int) -> tuple[Floats, Floats, NDArray[np.float16]]:
    """Return the values in units of their line's scale, ``(blocks, block)``, the multipliers, and the scales."""
    if matrix.size % block_size:
        raise Refused(f"quantize: {matrix.shape} values do not fill blocks of {block_size}. Use smaller blocks.")
    scales = _to_scales(np.abs(matrix).max(axis=axis) / (8 * largest))
    spread = np.broadcast_to(np.expand_dims(scales.astype(np.float32), axis), matrix.shape)
    groups = (matrix / spread).reshape(-1, block_size)  # (blocks, block)
    weights = (spread / spread.max()).reshape(-1, block_size) ** 2  # what an error in such a unit costs
    step = max(1, CHUNK // block_size)
    parts = [
        _multipliers(groups[start : start + step], weights[start : start + step], largest)
        for start in range(0, len(groups), step)
    ]
    return groups, np.concatenate(parts), scales


def _multipliers(groups: Floats, weights: Floats, largest_multiplier: int) -> Floats:
    """Return the best whole multiplier of each block: ``(blocks,)``."""
    position = np.abs(groups).argmax(axis=1)[:, None]
    peak = np.take_along_axis(groups, position, axis=1)[:, 0]  # (blocks,), signed
    best = np.ones(len(groups), dtype=np.float32)
    best_error = np.full(len(groups), np.inf, dtype=np.float32)
    for share in GRID:
        for sign in (-1, 1):  # the peak on -8 (one step more), or on the positive side
            wanted = np.rint(sign * peak * share / 8).clip(-largest_multiplier, largest_multiplier)
            candidate = np.where(wanted == 0, np.float32(1), wanted).astype(np.float32)
            difference = groups - _nearest(groups, candidate) * candidate[:, None]
            error = np.einsum("bi,bi,bi->b", difference, difference, weights)
            is_better = error < best_error
            best[is_better], best_error[is_better] = candidate[is_better], error[is_better]
    return best


def _nearest(groups: Floats, multipliers: Floats) -> Floats:
    rounded: Floats = np.rint(groups / multipliers[:, None]).clip(-8, 7)
    return rounded


def _to_scales(wanted: Floats) -> NDArray[np.float16]:
    return np.maximum(wanted, SMALLEST_SCALE).astype(np.float16)
