"""Means over seeds with their intervals, and axes that hold them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from matplotlib.axes import Axes

from src.reports.figures.labels import Label
from src.reports.figures.theme import Look
from src.statistics.intervals import student_t

Interval = tuple[float, float]

INTERVAL = "Student t 95 % interval over seeds"
FAR, NEAR = 5, 2  # times; percentage points


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        values: of the seeds.
        interval: Student's t, 95 %; None for one seed.
    """

    value: float
    interval: Interval | None
    values: tuple[float, ...]


def mean_of(values: Iterable[float]) -> Mean | None:
    """Of percentages, at most one a seed; None if there are none."""
    values = tuple(values)
    if not values:
        return None
    interval = None
    if len(values) > 1:
        low, high = student_t(np.array([values]))[0].tolist()
        interval = (low, high)
    return Mean(math.fsum(values) / len(values), interval, values)


def far_off(values: Mapping[str, float], centre: float) -> set[str]:
    """Those that don't share an axis with the others, which would be a single spot on it: runs that learnt nothing.

    More than `FAR` times as far from `centre` as the next one inwards, or as `NEAR` points; never more than half.
    """
    inwards = sorted(values, key=lambda name: abs(values[name] - centre))
    for place in range((len(inwards) + 1) // 2, len(inwards)):
        inner, outer = (abs(values[inwards[at]] - centre) for at in (place - 1, place))
        if outer > FAR * max(inner, NEAR):
            return set(inwards[place:])
    return set()


def limits(values: Iterable[float], intervals: Iterable[Interval | None], least: float = 0.5) -> Interval:
    """An axis that holds all `values`, and of `intervals` what isn't farther out than values spread.

    With two seeds an interval is twelve times as wide as the difference of the seeds: whole, it would leave of the
    values a single spot.

    Args:
        least: the axis is at least as long.
    """
    values = list(values)
    low, high = min(values), max(values)
    reach = max(high - low, least)
    ends = [interval for interval in intervals if interval is not None]
    low, high = (
        max(low - reach, min([low, *(end[0] for end in ends)])),
        min(high + reach, max([high, *(end[1] for end in ends)])),
    )
    room = max(0.05 * (high - low), (least - (high - low)) / 2)
    return low - room, high + room


@dataclass(frozen=True)
class Scores:
    """Test accuracies of variants on a vertical axis.

    Attributes:
        far: those that don't fit on it: they stand at its end, and their label says how much they have.
        low, high: the axis.
    """

    means: Mapping[str, Mean]
    far: frozenset[str]
    low: float
    high: float

    @classmethod
    def of(cls, means: Mapping[str, Mean]) -> "Scores | None":
        """None if there are none."""
        if not means:
            return None
        values = {name: mean.value for name, mean in means.items()}
        far = far_off(values, median(values.values()))
        near = [mean for name, mean in means.items() if name not in far]
        return cls(means, frozenset(far), *limits([m.value for m in near], [m.interval for m in near]))

    @property
    def labels(self) -> dict[str, str]:
        """Names, with what they have where the axis can't show it."""
        beyond = {name: "below" if self.means[name].value < self.low else "above" for name in self.far}
        return {
            name: f"{name} ({beyond[name]}: {mean.value:.1f}\N{NO-BREAK SPACE}%)" if name in beyond else name
            for name, mean in self.means.items()
        }

    def draw(self, axes: Axes, xs: Mapping[str, float], look: Mapping[str, Look], *, alpha: float) -> list[Label]:
        """Points with their intervals, which have the opacity `alpha`; the labels that go with them."""
        axes.set_ylim(self.low, self.high)
        labels = []
        for name, mean in self.means.items():
            y, colour = min(max(mean.value, self.low), self.high), look[name].colour
            if mean.interval:
                axes.plot([xs[name]] * 2, mean.interval, color=colour, lw=1, alpha=alpha, gid="interval")
            axes.plot(xs[name], y, look[name].marker, color=colour, clip_on=False, gid=name)
            labels.append(Label(self.labels[name], xs[name], y, look[name]))
        return labels
