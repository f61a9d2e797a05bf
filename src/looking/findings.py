"""What may be said about points and objects: one rule, fixed before anything was measured.

The papers' pictures are read as claims about a deformable block, each made of statistics above 0 if it is true:

farther    points that start on objects move farther than those that start on the background.
still      points on the background hardly move: less than half as far as those on objects.
gather     points are on objects more often than their reference points, and than the points of other images are there.
attend     attention goes to keys on objects more than equal weights would, and than that of other images does.

A claim *holds* if both 95 % intervals of all its statistics lie above 0: Student's t over seeds, for networks of other
seeds on these images; and the bootstrap over seeds and images crosswise. It is *reversed* if all lie below. Otherwise
it is *not shown*, as with fewer than three seeds whatever the intervals are. The papers' observation holds in a block
if `still` and `gather` do, and in its direction alone if `farther` and `gather` do. Nothing is corrected for the number
of claims and blocks: of twenty intervals about nothing, one would miss 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from src.looking.quantities import STATISTICS
from src.statistics.images import crosswise
from src.statistics.intervals import student_t
from src.statistics.paired import Interval
from src.statistics.verdict import FEWEST

Word = Literal["holds", "reversed", "not shown"]

CLAIMS: Mapping[str, tuple[str, ...]] = {
    "farther": ("farther",),
    "still": ("still",),
    "gather": ("points above reference", "points above other images"),
    "attend": ("mass above equal weights", "mass above other images"),
}


@dataclass(frozen=True)
class Finding:
    """A statistic over runs of several seeds.

    Attributes:
        images: those on which it is defined.
        mean: in the statistic's unit, as are the intervals.
        values: of the seeds.
        over_seeds: 95 %, Student's t; None for one seed.
        over_both: 95 %, the bootstrap over seeds and images crosswise; over images alone for one seed.
    """

    seeds: int
    images: int
    mean: float
    values: tuple[float, ...]
    over_seeds: Interval | None
    over_both: Interval


def find(values: np.ndarray) -> Finding | None:
    """A statistic (seeds, images); NaN where it isn't defined, as for an image without a point on its object.

    None where it is defined on fewer than two images.
    """
    known = values[:, ~np.isnan(values).any(axis=0)].astype(float)
    seeds, images = known.shape
    if images < 2:
        return None
    mean, of_images, of_both = crosswise(known)
    over_seeds = None
    if seeds > 1:
        scale = max(1.0, np.abs(known).max() / 100)  # `student_t` takes percentage points, and pixels may be more
        low, high = (scale * student_t(known.mean(axis=1)[None] / scale)[0]).tolist()
        over_seeds = (low, high)
    return Finding(seeds, images, mean, tuple(known.mean(axis=1).tolist()), over_seeds, of_both or of_images)


def findings(values: np.ndarray) -> dict[str, Finding]:
    """(seeds, images, statistics) of one block to what is defined of `STATISTICS`."""
    found = {name: find(values[..., at]) for at, name in enumerate(STATISTICS)}
    return {name: one for name, one in found.items() if one is not None}


def judge(claim: str, found: Mapping[str, Finding]) -> Word:
    """The rule, for one claim and block."""
    parts = [found.get(name) for name in CLAIMS[claim]]
    ends = [end for part in parts if part for end in (*(part.over_seeds or ()), *part.over_both)]
    if not all(part and part.seeds >= FEWEST for part in parts):
        return "not shown"
    if min(ends) > 0:
        return "holds"
    return "reversed" if max(ends) < 0 else "not shown"


def observation(words: Mapping[str, Word]) -> str:
    """Of the papers' observation in one block, by the words of its claims."""
    if words["gather"] == "holds":
        if words["still"] == "holds":
            return "it holds"
        if words["farther"] == "holds":
            return "it holds in its direction"
        return "half of it holds: points gather on objects, but those on the background move as well"
    if words["still"] == "holds":
        return "half of it holds: points on the background hardly move, but points don't gather on objects"
    if "reversed" in (words["gather"], words["farther"]):
        return "it is contradicted"
    return "it isn't seen"


def judge_all(found: Mapping[str, Finding], claims: Sequence[str] = tuple(CLAIMS)) -> dict[str, Word]:
    return {claim: judge(claim, found) for claim in claims}
