"""One rule for what a comparison says, fixed before anything is seen.

`better`, `worse`: p of the sign-flip test is at most 0.05 after Holm's correction over the family.
`no_difference`:   otherwise, if the 95 % t interval lies within the margin; the sentence says within what.
`cannot_tell`:     otherwise; the sentence says what would be needed.

"No difference larger than x" is a finding, "not significant" is not: few seeds, or a large spread, give no p either.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from src.statistics.paired import Interval, Paired, holm
from src.studies.power import ALPHA, detectable, seeds_needed, smallest_p

Word = Literal["better", "worse", "no_difference", "cannot_tell"]

MARGIN = 1.0
FEWEST = 3  # seeds for "no difference": the differences of two may be equal by chance


@dataclass(frozen=True)
class Verdict:
    """What may be said of one comparison.

    Attributes:
        text: what the variant is, as the end of a sentence that begins with its name.
        p: after Holm's correction over the family.
        within: the x of "no difference larger than x points"; None for other words.
    """

    word: Word
    text: str
    p: float
    within: float | None


def judge(family: Sequence[Paired], *, margin: float = MARGIN) -> list[Verdict]:
    """A verdict for each comparison of a family, which is all that is compared with the same baseline.

    Args:
        margin: percentage points; what is smaller than this in both directions is called no difference.

    Raises:
        ValueError: the margin isn't positive.
    """
    if margin <= 0:
        raise ValueError(f"margin {margin} must be more than 0 points: {MARGIN} is usual")
    corrected = holm(np.array([one.p for one in family])).tolist()
    return [_verdict(one, p, len(family), margin) for one, p in zip(family, corrected, strict=True)]


def decide(mean: float, interval: Interval | None, p: float, seeds: int, *, margin: float = MARGIN) -> Word:
    """The rule.

    Args:
        interval: 95 %, Student's t; None for one seed.
        p: of the sign-flip test, after Holm's correction.
    """
    if p <= ALPHA:
        return "better" if mean > 0 else "worse"
    if interval is not None and seeds >= FEWEST and -margin <= interval[0] and interval[1] <= margin:
        return "no_difference"
    return "cannot_tell"


def bound(interval: Interval) -> float:
    """The x of "no difference larger than x points": the far end of the interval, rounded up to 0.1."""
    # The small number keeps 0.3, written as 0.30000000000000004, from becoming 0.4.
    return max(0.1, math.ceil(10 * max(-interval[0], interval[1]) - 1e-9) / 10)


def _verdict(one: Paired, p: float, rows: int, margin: float) -> Verdict:
    word = decide(one.mean, one.t, p, one.seeds, margin=margin)
    seeds = f"{one.seeds} seed{'' if one.seeds == 1 else 's'}"
    interval = "" if one.t is None else f"95 % interval {_points(one.t[0])} to {_points(one.t[1])}"
    if word in ("better", "worse"):
        corrected = " after Holm" if rows > 1 else ""
        text = f"{word} by {abs(one.mean):.1f} points ({interval}, p = {p:.2g}{corrected}, {seeds})"
        return Verdict(word, text, p, None)
    if word == "no_difference" and one.t is not None:
        text = f"no difference larger than {bound(one.t):.1f} points ({interval}, {seeds})"
        return Verdict(word, text, p, bound(one.t))
    seen = f"difference {_points(one.mean)} points" + (f", {interval}" if interval else "")
    return Verdict("cannot_tell", f"cannot tell with {seeds} ({seen}): {_needed(one, rows)}", p, None)


def _needed(one: Paired, rows: int) -> str:
    """What it would take: more seeds where no difference could have been found, or a larger difference."""
    if smallest_p(one.seeds, rows) > ALPHA:
        comparisons = "one comparison needs" if rows == 1 else f"{rows} comparisons need"
        return f"{comparisons} {seeds_needed(ALPHA, rows)} seeds or more to reach p = {ALPHA}"
    # What a t test finds 4 times out of 5, sign flips find 64 to 79 times out of 100 with the seeds that come here.
    found = _detectable(one.seeds, rows) * (one.sd or 0.0)
    return f"{one.seeds} seeds find a difference of {_points(found)} points at least 3 times out of 5"


@cache
def _detectable(seeds: int, rows: int) -> float:
    return detectable(seeds, alpha=ALPHA / rows)


def _points(value: float) -> str:
    """One decimal, and 0.0 without a sign."""
    return f"{round(value, 1) + 0.0:.1f}"
