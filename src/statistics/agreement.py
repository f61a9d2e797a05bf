"""Do our rows stand in the published order? Kendall's rank correlation (tau-b) of our means and the published values.

It asks for the order alone: our accuracies are another data set's, another network's, and needn't be of the same size.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from src.statistics.paired import Interval
from src.statistics.resampling import counts

RESAMPLES = 2000
FEWEST = 3  # two rows agree or don't: a coin says as much


@dataclass(frozen=True)
class Agreement:
    """How far our order is the published one.

    Attributes:
        rows: with a published value.
        seeds: that all these rows have finished.
        tau: 1 where every two rows stand in the published order, -1 where none does. None with fewer than three rows,
            without a seed that all have, and where all rows of one side are equal.
        p: two-sided; None with `tau`.
        exact: p counts orders of the rows; False where rows are equal on one side and p is the normal approximation,
            which is rough for fewer than ten rows.
        interval: 95 %, seeds drawn anew for all rows together: would other seeds say so? None for one seed. Other rows
            are not its question.
    """

    rows: int
    seeds: int
    tau: float | None
    p: float | None
    exact: bool
    interval: Interval | None


def agreement(ours: np.ndarray, published: np.ndarray) -> Agreement:
    """Kendall's tau-b between the means over seeds and the published values.

    Args:
        ours: (rows, seeds), accuracies in percentage points; NaN where a run is missing. Only seeds that all rows with
            a published value have finished are used.
        published: (rows,); NaN where nothing is published.

    Raises:
        ValueError: shapes don't match.
    """
    ours, published = np.asarray(ours, dtype=float), np.asarray(published, dtype=float)
    if ours.ndim != 2 or published.shape != ours.shape[:1]:
        raise ValueError(f"ours {ours.shape}, published {published.shape}: give (rows, seeds) and (rows,)")
    known = ~np.isnan(published)
    ours, published = ours[known], published[known]
    ours = ours[:, ~np.isnan(ours).any(axis=0)]
    rows, seeds = ours.shape
    nothing = Agreement(rows, seeds, tau=None, p=None, exact=False, interval=None)
    if rows < FEWEST or seeds == 0:
        return nothing
    means = _means(ours, np.ones((1, seeds)))
    if np.ptp(means) == 0 or np.ptp(published) == 0:
        return nothing
    exact = all(len(np.unique(values)) == rows for values in (means, published))
    p = kendalltau(means[0], published, method="exact" if exact else "asymptotic").pvalue
    interval = None
    if seeds > 1:
        taus = tau_b(_means(ours, counts(seeds, RESAMPLES, "seeds")), published)
        low, high = np.percentile(taus, (2.5, 97.5))
        interval = (float(low), float(high))
    return Agreement(rows, seeds, float(tau_b(means, published)[0]), float(p), exact, interval)


def tau_b(drawings: np.ndarray, published: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of each of (drawings, rows) with (rows,): scipy's, for many at once.

    A drawing in which all rows are equal says nothing of the order: 0.
    """
    first, second = np.triu_indices(len(published), k=1)
    of_ours = np.sign(drawings[:, first] - drawings[:, second])
    of_published = np.sign(published[first] - published[second])
    untied = np.sqrt(np.abs(of_ours).sum(axis=1) * np.abs(of_published).sum())
    agreeing = of_ours @ of_published
    return np.divide(agreeing, untied, out=np.zeros(len(drawings)), where=untied > 0)


def _means(ours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(drawings, rows); rounded, so that rows with as many right images are equal in whatever order they are added."""
    return np.round(weights.astype(float) @ ours.T / ours.shape[1], 9)
