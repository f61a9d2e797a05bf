"""What a number of paired seeds can show: the smallest p it can reach, and the smallest difference it will find.

Two variants are compared seed by seed. With few seeds two bounds are known before anything is computed: the test of
sign flips has only 2**seeds cases, and a t test sees no difference that is small against the seeds' own spread.
"""

import math

from scipy.optimize import brentq
from scipy.stats import f, ncf

ALPHA, POWER = 0.05, 0.8


def smallest_p(seeds: int, rows: int = 1) -> float:
    """The smallest p that the two-sided sign-flip test of `seeds` paired differences can give.

    Reached when all differences have one sign: of the 2**seeds ways to flip them, two are as extreme.

    Args:
        rows: comparisons in the same table; Holm's correction multiplies the smallest p by their number.
    """
    return min(1.0, rows * 2.0 / 2**seeds)


def seeds_needed(alpha: float, rows: int) -> int:
    """The fewest seeds with which the smallest p of `rows` comparisons, corrected after Holm, is below `alpha`."""
    seeds = 1
    while smallest_p(seeds, rows) >= alpha:
        seeds += 1
    return seeds


def detectable(seeds: int, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest true difference that a two-sided paired t test at `alpha` finds with probability `power`.

    Returns:
        Standard deviations of the per-seed difference; infinity for a single seed, which has no spread.

    Raises:
        ValueError: not 0 < alpha < power < 1; a test finds nothing less often than it errs.
    """
    if not 0 < alpha < power < 1:
        raise ValueError(
            f"alpha {alpha} and power {power} must lie in this order between 0 and 1; 0.05 and 0.8 are usual"
        )
    if seeds < 2:
        return math.inf
    # t**2 follows F, noncentral where there is a difference: both tails in one, and stable where scipy's nct is NaN.
    critical = f.isf(alpha, 1, seeds - 1)

    def missing(difference: float) -> float:
        return power - ncf.sf(critical, 1, seeds - 1, seeds * difference**2)

    largest = 1.0
    while missing(largest) > 0:
        largest *= 2
    return float(brentq(missing, 0.0, largest))


def sentence(seeds: int, rows: int, spread: float | None, *, pairs: int | None = None) -> str:
    """What people should know before they read a table of `rows` comparisons over `seeds` paired seeds.

    Args:
        spread: standard deviation of the per-seed differences in percentage points; None while it isn't known.
        pairs: of how many differences `spread` is the standard deviation, where that should be said.
    """
    return f"{_reach(seeds, rows)}; {_difference(seeds, spread, pairs)}"


def _reach(seeds: int, rows: int) -> str:
    counted = f"{seeds} paired seed{'' if seeds == 1 else 's'}"
    corrected, needed = smallest_p(seeds, rows), seeds_needed(ALPHA, rows)
    holm = f"{corrected:.2g} after Holm's correction over {rows} rows" if rows > 1 else ""
    more = f"{needed} seeds would reach below {ALPHA}" if corrected >= ALPHA else ""
    aside = "; ".join(part for part in (holm, more) if part)
    aside = f" ({aside})" if aside else ""
    if smallest_p(seeds) >= ALPHA:
        return f"{counted} can't reach p < {ALPHA}: smallest reachable p {smallest_p(seeds):.2g}{aside}"
    return f"{counted}: smallest reachable p {smallest_p(seeds):.2g}{aside}"


def _difference(seeds: int, spread: float | None, pairs: int | None) -> str:
    if seeds < 2:
        return "no difference can be told from the spread of seeds"
    found = detectable(seeds)
    said = f"smallest difference found 4 times out of 5: {found:.1f} standard deviations of the per-seed difference"
    if spread is None:
        return f"{said}; in points once two seeds of two variants are finished"
    return f"{said}, here {found * spread:.1f} points (sd {spread:.2f}{f' of {pairs} pairs' if pairs else ''})"
