"""95 % intervals for the mean of paired differences, for many comparisons at once.

Student's t supposes that differences are about normal. The BCa bootstrap (Efron, JASA 1987) supposes no shape, but sees
no more than the seeds there are: with few it is too narrow (measured in experiments/statistics).
"""

from types import SimpleNamespace

import numpy as np
from scipy import stats

from src.statistics.exact import PER_POINT, whole
from src.statistics.resampling import counts

LEVEL = 0.95
RESAMPLES = 9999
BLOCK = 128  # comparisons at a time: their resamples take 10 MB


def student_t(differences: np.ndarray) -> np.ndarray:
    """Differences (comparisons, seeds), two seeds or more, to (comparisons, [low, high]), in their unit."""
    units = whole(differences)
    seeds = units.shape[1]
    reach = stats.t.isf((1 - LEVEL) / 2, seeds - 1) * units.std(axis=1, ddof=1) / np.sqrt(seeds)
    return np.stack([units.mean(axis=1) - reach, units.mean(axis=1) + reach], axis=1) / PER_POINT


def bca(differences: np.ndarray) -> np.ndarray:
    """As `student_t`, by the bias-corrected and accelerated bootstrap.

    A comparison whose differences are all equal gets that value twice. Neither the order of the seeds nor which of the
    two variants is subtracted matters.
    """
    units = whole(differences)
    # Resamples are drawn by position: a row is turned to a positive mean and sorted, so that positions mean the same.
    turn = np.where(units.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    units = np.sort(turn * units, axis=1)
    found = np.stack([units[:, 0], units[:, -1]], axis=1)
    spread = np.flatnonzero(units[:, 0] < units[:, -1])
    for start in range(0, len(spread), BLOCK):
        rows = spread[start : start + BLOCK]
        found[rows] = _bca(units[rows])
    return np.sort(turn * found, axis=1) / PER_POINT


def _bca(units: np.ndarray) -> np.ndarray:
    seeds = units.shape[1]
    # The resamples are ours, as one matrix product, because scipy's own take four times as long; the rest is scipy's.
    # Sums in place of means: they are whole, so that a resample with the mean of the sample is seen to have it.
    resampled = SimpleNamespace(bootstrap_distribution=units @ counts(seeds, RESAMPLES, "seeds").T.astype(float))
    result = stats.bootstrap(
        (units,),
        np.sum,
        n_resamples=0,
        bootstrap_result=resampled,
        vectorized=True,
        axis=-1,
        confidence_level=LEVEL,
        method="BCa",
    )
    return np.stack(result.confidence_interval, axis=1) / seeds
