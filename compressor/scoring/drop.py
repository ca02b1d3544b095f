"""How sure a drop is: its 95 % confidence interval, by a paired bootstrap over the evaluation rows.

Rows are drawn with replacement, as many as there are, and teacher and package are scored on the same draw: what is hard
for both cancels out. The interval lies between the percentiles of the drops of a thousand draws (Efron & Tibshirani,
An Introduction to the Bootstrap, 1993, chapter 13). It speaks of other rows of the same sort, not of another seed of
the training, and where both answer all rows alike it has no width, however few rows there are.
"""

import numpy as np

from compressor.scoring.contract import Array, Resampled

LEVEL = 0.95
N_DRAWS = 1000
SEED = 0  # of the draws: two runs of one recipe say the same
CELLS = 1_000_000  # counts that are held at a time


def drop_of(points: float, theirs: Resampled, ours: Resampled, n_rows: int) -> dict[str, float]:
    """Return a drop with its interval: "points", "low", "high", "level", "rows"; a single row has no interval.

    Args:
        points: by which the package is below its teacher, on all rows.
        theirs: the teacher's score on draws.
        ours: the package's, on draws of the same.
        n_rows: that both were scored on.
    """
    assert theirs.n_units == ours.n_units, "both are scored on the same rows"
    found = {"points": round(points, 6) + 0.0, "rows": n_rows}
    if ours.n_units < 2:
        return found
    from scipy.stats import bootstrap

    def drops(places: Array, axis: int = -1) -> Array:
        counts = _counts(places, ours.n_units)
        return 100 * (theirs.score(counts) - ours.score(counts))

    interval = bootstrap(
        (np.arange(ours.n_units),),
        drops,
        n_resamples=N_DRAWS,
        batch=max(1, CELLS // ours.n_units),
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        random_state=np.random.default_rng(SEED),  # called rng from SciPy 1.15 on, which takes both
    ).confidence_interval
    low, high = (round(float(side), 6) + 0.0 for side in (interval.low, interval.high))  # + 0.0: never -0.0
    return {**found, "low": low, "high": high, "level": LEVEL}


def _counts(places: Array, n_units: int) -> Array:
    """Return how often each was drawn (draws, units), of the places that were (draws, units)."""
    n_draws = len(places)
    cells = places + n_units * np.arange(n_draws)[:, None]
    return np.bincount(cells.ravel(), minlength=n_draws * n_units).reshape(n_draws, n_units).astype(np.float64)
