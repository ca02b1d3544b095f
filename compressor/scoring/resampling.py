"""Metrics of many draws of the same rows at once, as pure functions of how often each row was drawn.

A draw is n rows out of n, with replacement. All that a metric needs of it are the counts, (draws, rows), and with them
sums, and ranks too, of a thousand draws cost what a few calls of scikit-learn and SciPy would. The numbers are theirs:
F1 with ``zero_division=0``, Spearman's correlation with average ranks.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]  # outputs come in any float type

BINS = 128  # of each similarity: Spearman's correlation of so many steps is the exact one within a few 0.0001
CONSTANT = 1e-14  # share of its size below which the spread of a row of numbers is rounding


def means(values: Array, counts: Array) -> Array:
    """Return the mean of values (rows,) in each draw (draws,)."""
    result: Array = counts @ values / counts.sum(axis=1)
    return result


def class_sums(labels: Array, answers: Array, n_classes: int, counts: Array) -> tuple[Array, Array]:
    """Return of each class how often it was answered rightly, and answered plus right: both (draws, classes)."""
    from scipy.sparse import csr_array

    def summed(classes: Array, weights: Array) -> Array:
        places = np.arange(len(classes)), classes
        one_hot = csr_array((weights.astype(np.float64), places), shape=(len(classes), n_classes))
        result: Array = (one_hot.T @ counts.T).T  # (classes, rows) @ (rows, draws)
        return result

    always = np.ones(len(labels))
    return summed(labels, labels == answers), summed(labels, always) + summed(answers, always)


def f1(hits: Array, asked: Array) -> Array:
    """Return F1 of what was answered rightly, and answered plus right; 0 where there is neither."""
    result: Array = 2 * hits / np.maximum(asked, 1)
    return result


def pearson(first: Array, second: Array, counts: Array) -> Array:
    """Return the correlation in each draw (draws,) of numbers (rows,) or (draws, rows); 0 where one is constant."""
    total = counts.sum(axis=1, keepdims=True)
    sides, spreads, are_constant = [], [], []
    for side in (first, second):
        near = side - side.mean(axis=-1, keepdims=True)  # before anything is squared
        centred = near - (counts * near).sum(axis=1, keepdims=True) / total
        spread = (counts * centred**2).sum(axis=1)
        are_constant.append(spread <= CONSTANT * (counts * near**2).sum(axis=1))
        sides.append(centred)
        spreads.append(spread)
    together = (counts * sides[0] * sides[1]).sum(axis=1)
    is_constant = are_constant[0] | are_constant[1]
    result: Array = np.where(is_constant, 0.0, together / np.sqrt(np.where(is_constant, 1.0, spreads[0] * spreads[1])))
    return result


def ranker(values: Array) -> Callable[[Array], Array]:
    """Return the function from counts to the average rank of each of the values (rows,) in each draw (draws, rows)."""
    order = np.argsort(values, kind="stable")
    is_first = np.append(True, np.diff(values[order]) != 0)  # of its equals
    starts, place = np.flatnonzero(is_first), np.empty(len(values), dtype=np.int64)
    place[order] = np.cumsum(is_first) - 1

    def ranks(counts: Array) -> Array:
        equals = np.add.reduceat(counts[:, order], starts, axis=1)  # (draws, different values)
        result: Array = (np.cumsum(equals, axis=1) - (equals - 1) / 2)[:, place]
        return result

    return ranks


def correlation(name: str, first: Array, second: Array) -> Callable[[Array], Array]:
    """Return the function from counts to the correlation "spearman" or "pearson" of two rows of numbers (draws,)."""
    if name == "pearson":
        return lambda counts: pearson(first, second, counts)
    ranks_of = ranker(first), ranker(second)
    return lambda counts: pearson(ranks_of[0](counts), ranks_of[1](counts), counts)


def similarity_spearman(first: Array, second: Array, row_of: Array) -> Callable[[Array], Array]:
    """Return the function from counts to Spearman's correlation of two similarity structures in each draw (draws,).

    A text that is drawn twice is not compared with itself: it would be as similar as can be to both models, and the
    drawn rows would agree better than all rows do.

    Args:
        first: cosines of all texts with all, (texts, texts).
        second: those of the other model.
        row_of: the row of each text (texts,): both texts of a pair are drawn together.
    """
    above, below = np.triu_indices(len(first), k=1)
    cell = _binned(first[above, below]) * BINS + _binned(second[above, below])
    one, other = row_of[above], row_of[below]
    of_one_row = np.flatnonzero(one == other)

    def correlations(counts: Array) -> Array:
        found = np.empty(len(counts))
        for number, drawn in enumerate(counts):
            pairs = drawn[one] * drawn[other]
            pairs[of_one_row] = drawn[one[of_one_row]]
            table = np.bincount(cell, weights=pairs, minlength=BINS * BINS)  # (bins * bins,)
            ranks = [_mid_ranks(table.reshape(BINS, BINS).sum(axis=axis)) for axis in (1, 0)]
            both = np.repeat(ranks[0], BINS), np.tile(ranks[1], BINS)
            found[number] = pearson(*both, table[None])[0] if table.any() else 0.0
        return found

    return correlations


def _binned(values: Array) -> Array:
    """Return the bin of each value: as many values in each as equal values allow."""
    from scipy.stats import rankdata

    share = (rankdata(values, method="average") - 0.5) / len(values)
    return np.minimum((share * BINS).astype(np.int64), BINS - 1)


def _mid_ranks(sizes: Array) -> Array:
    result: Array = np.cumsum(sizes) - (sizes - 1) / 2
    return result
