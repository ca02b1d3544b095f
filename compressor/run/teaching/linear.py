"""The linear model that a kind of task has, of dense features, as strongly held back as suits rows it has not seen.

Features are centred and brought to one mean length, so that the strength of the penalty means the same for every
encoder. A kind fits with one penalty of its own (``TaskSpec.fit_linear``); features that are ``g`` times as long are
penalised ``g^2`` times less, so what is chosen is ``g``, by the task's metric on a fifth of the training rows. The
coefficients that are returned are those of the features as they were given.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.scoring.contract import Array, Linear, TaskSpec
from compressor.scoring.evaluate import score

SCALES = (0.3, 1.0, 3.0, 10.0)
MOST_CHOSEN_ON = 10_000  # rows that are enough to choose the scale on
FEWEST_CHOSEN_ON = 50  # below, nothing is chosen
HELD_OUT = 0.2
USUAL = 1.0
LEAST_BIAS = -30.0  # of a class without rows: no answer, and no number that training cannot move

Vectors = npt.NDArray[np.float32]


def fit(features: Vectors, targets: list[Any], spec: TaskSpec, seed: int) -> Linear:
    """Return weights (features, outputs) and bias (outputs,), deterministic by seed.

    Args:
        features: of the training rows (rows, features).
        targets: as ``spec.targets`` gives them.
        spec: the task.
        seed: of the rows the penalty is chosen on, and for the solver.
    """
    mean = features.mean(axis=0, dtype=np.float64)  # (features,)
    centred = features - mean  # in float64: solvers stop early in single precision
    length = float(np.sqrt(np.square(centred).sum(axis=1).mean())) or 1.0
    unit = centred / length
    scale = _scale(unit, targets, spec, seed)
    weights, bias = spec.fit_linear(unit * scale, targets, seed)
    weights, bias = np.asarray(weights, np.float64), np.maximum(np.asarray(bias, np.float64), LEAST_BIAS)
    weights = weights * (scale / length)
    if spec.n_linear() < weights.shape[1]:  # (-x, x): the softmax of two logits sees their difference, 2 x
        weights, bias = weights / 2, bias / 2
    return weights, bias - mean @ weights


def _scale(unit: Array, targets: list[Any], spec: TaskSpec, seed: int) -> float:
    """Return the length of the features whose linear model is best on rows that it has not seen."""
    order = np.random.default_rng(seed).permutation(len(unit))[:MOST_CHOSEN_ON]  # (rows,)
    n_held_out = round(HELD_OUT * len(order))
    held_out, seen = order[:n_held_out], order[n_held_out:]
    if len(order) < FEWEST_CHOSEN_ON or spec.n_linear() > len(seen):
        return USUAL
    known = [targets[row] for row in seen]
    if all(np.array_equal(each, known[0]) for each in known):  # nothing to tell apart
        return USUAL
    found = []
    for scale in SCALES:
        weights, bias = spec.fit_linear(unit[seen] * scale, known, seed)
        outputs = unit[held_out] * scale @ weights + bias
        metric = score(outputs, [targets[row] for row in held_out], spec)[spec.metric]
        found.append((round(metric, 6), -abs(np.log(scale)), scale))
    return max(found)[-1]
