"""Variants compared with a baseline, seed by seed.

Runs of one seed start from the same weights, where layers agree, and see the same batches, so the differences per seed
vary less than the accuracies do, and they are what all of this is about.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from src.statistics.exact import PER_POINT, whole
from src.statistics.intervals import bca, student_t
from src.statistics.sign_flip import sign_flip
from src.studies import power

Interval = tuple[float, float]


@dataclass(frozen=True)
class Paired:
    """What the differences of one comparison say, in percentage points.

    Attributes:
        seeds: in which both variants have finished.
        sd: standard deviation of the differences (n - 1); None for one seed.
        t, bca: 95 % intervals of the mean, by Student's t and by the BCa bootstrap; None for one seed.
        p: two-sided, by sign flips, not corrected for other comparisons.
        effect_size: mean / sd of the differences, Cohen's d_z, with Hedges' correction for few seeds; None for fewer
            than three, where the correction isn't defined, and where all differences are equal.
        detectable: the true difference that a paired t test at 0.05 would find 4 times out of 5; None for one seed.
    """

    seeds: int
    mean: float
    sd: float | None
    t: Interval | None
    bca: Interval | None
    p: float
    effect_size: float | None
    detectable: float | None


def compare(differences: np.ndarray) -> list[Paired]:
    """A `Paired` for each row of differences, variant minus baseline.

    Args:
        differences: (comparisons, seeds), in percentage points; NaN where one of the two runs is missing.

    Raises:
        ValueError: no matrix, a row without a single number, or a number that isn't from -100 to 100.
    """
    differences = np.asarray(differences, dtype=float)
    if differences.ndim != 2:
        raise ValueError(f"differences have the shape {differences.shape}: give (comparisons, seeds)")
    present = ~np.isnan(differences)
    seeds = present.sum(axis=1)
    if (seeds == 0).any():
        raise ValueError(f"comparison {np.argmin(seeds)} has no seed that both runs have finished: leave it out")
    found: dict[int, Paired] = {}
    # Rows with as many seeds go together; which seeds they are doesn't matter.
    for count in np.unique(seeds).tolist():
        rows = np.flatnonzero(seeds == count)
        found |= zip(rows.tolist(), _compare(differences[rows][present[rows]].reshape(-1, count)), strict=True)
    return [found[row] for row in range(len(differences))]


def _compare(differences: np.ndarray) -> list[Paired]:
    units = whole(differences)
    seeds = units.shape[1]
    means, ps = (units.mean(axis=1) / PER_POINT).tolist(), sign_flip(differences).tolist()
    if seeds == 1:
        return [Paired(1, mean, None, None, None, p, None, None) for mean, p in zip(means, ps, strict=True)]
    sds = (units.std(axis=1, ddof=1) / PER_POINT).tolist()
    columns = zip(means, sds, student_t(differences).tolist(), bca(differences).tolist(), ps, strict=True)
    correction, detectable = hedges(seeds), power.detectable(seeds)
    return [
        Paired(
            seeds,
            mean,
            sd,
            t=(t[0], t[1]),
            bca=(boot[0], boot[1]),
            p=p,
            effect_size=correction * mean / sd if seeds > 2 and sd > 0 else None,
            detectable=detectable * sd,
        )
        for mean, sd, t, boot, p in columns
    ]


def hedges(seeds: int) -> float:
    """What mean / sd of few differences is multiplied with to be right on average (Hedges, 1981, Eq. 6e)."""
    freedom = seeds - 1
    return float(np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2))


def holm(p: np.ndarray) -> np.ndarray:
    """p of each comparison of a family, adjusted after Holm (1979).

    Whoever calls those up to 0.05 real errs in no more than one family of twenty, also where comparisons depend on each
    other. statsmodels' `multipletests` gives the same, for one family at a time, and collects garbage in every call.

    Args:
        p: (..., comparisons): many families at once.
    """
    p = np.asarray(p, dtype=float)
    order = p.argsort(axis=-1)
    # The smallest p counts for all comparisons, the next for all but one ...; none is below the one before.
    scaled = np.take_along_axis(p, order, axis=-1) * np.arange(p.shape[-1], 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(scaled, axis=-1), 1.0)
    return np.take_along_axis(adjusted, order.argsort(axis=-1), axis=-1)
