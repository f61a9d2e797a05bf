"""Two variants compared image by image: which test images each run was right about.

Two questions, two intervals. Would *these networks* differ as much on other images? And would *networks of other
seeds*, on other images? All runs see the same test images, so an image is drawn, or not, for all of them at once; the
second draws seeds and images crosswise (Owen's pigeonhole bootstrap, Annals of Applied Statistics, 2007). The intervals
of paired.py ask a third: networks of other seeds, on these images.
"""

from dataclasses import dataclass

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar

from src.statistics.paired import Interval
from src.statistics.resampling import counts

RESAMPLES = 2000


@dataclass(frozen=True)
class McNemar:
    """The images of one seed, and the exact two-sided p of the hypothesis that both networks err equally often.

    It is about these two networks, not about the variants: another seed gives two others.
    """

    both: int
    only_baseline: int
    only_variant: int
    neither: int
    p: float


@dataclass(frozen=True)
class Images:
    """The difference of two variants, variant minus baseline, in percentage points.

    Attributes:
        other_images: 95 % interval for these networks on other images of the same kind.
        other_seeds_and_images: the same for networks of other seeds on other images; None for one seed.
        per_seed: McNemar's test of each seed's two networks.
    """

    seeds: int
    images: int
    mean: float
    other_images: Interval
    other_seeds_and_images: Interval | None
    per_seed: tuple[McNemar, ...]


def compare_images(baseline: np.ndarray, variant: np.ndarray) -> Images:
    """What two variants got right, each (seeds, images) and boolean; rows and columns are the same seeds and images.

    Raises:
        ValueError: the two don't match, aren't boolean, or hold nothing.
    """
    baseline, variant = _checked(baseline), _checked(variant)
    if baseline.shape != variant.shape:
        raise ValueError(f"baseline {baseline.shape} and variant {variant.shape}: give the same seeds and images")
    mean, other_images, other_seeds_and_images = _intervals(baseline, variant)
    per_seed = tuple(_mcnemar(*rows) for rows in zip(baseline, variant, strict=True))
    seeds, images = baseline.shape
    return Images(seeds, images, mean, other_images, other_seeds_and_images, per_seed)


@dataclass(frozen=True)
class ClassDifference:
    """As `Images`, for the images of one class: `label`. With many classes, some intervals miss by chance."""

    label: int
    images: int
    mean: float
    other_images: Interval
    other_seeds_and_images: Interval | None


def compare_classes(baseline: np.ndarray, variant: np.ndarray, labels: np.ndarray) -> list[ClassDifference]:
    """A row for each class that has images.

    Args:
        labels: (images,), whole numbers.

    Raises:
        ValueError: as `compare_images`, or there isn't one label for each image.
    """
    baseline, variant, labels = _checked(baseline), _checked(variant), np.asarray(labels)
    if not baseline.shape == variant.shape == (len(baseline), *labels.shape):
        raise ValueError(
            f"baseline {baseline.shape}, variant {variant.shape}, labels {labels.shape}: "
            "give (seeds, images) twice and (images,)"
        )
    found = []
    for label in np.unique(labels).tolist():
        of_class = labels == label
        of_both = baseline[:, of_class], variant[:, of_class]
        found.append(ClassDifference(label, int(of_class.sum()), *_intervals(*of_both)))
    return found


def _checked(right: np.ndarray) -> np.ndarray:
    right = np.asarray(right)
    if right.ndim != 2 or right.dtype != bool or right.size == 0:
        raise ValueError(f"{right.dtype} {right.shape} doesn't say what was right: give a boolean (seeds, images)")
    return right


def _mcnemar(baseline: np.ndarray, variant: np.ndarray) -> McNemar:
    only_baseline, only_variant = int(np.sum(baseline & ~variant)), int(np.sum(~baseline & variant))
    both, neither = int(np.sum(baseline & variant)), int(np.sum(~baseline & ~variant))
    p = mcnemar([[both, only_baseline], [only_variant, neither]], exact=True).pvalue
    return McNemar(both, only_baseline, only_variant, neither, float(p))


def _intervals(baseline: np.ndarray, variant: np.ndarray) -> tuple[float, Interval, Interval | None]:
    """Mean difference, and its intervals for other images, and for other seeds and images."""
    return crosswise(variant.astype(np.float32) - baseline.astype(np.float32), unit=100)


def crosswise(values: np.ndarray, *, unit: float = 1) -> tuple[float, Interval, Interval | None]:
    """Mean of values (seeds, images) times `unit`, and its 95 % intervals for other images, and for other seeds too.

    The second is None for one seed.
    """
    seeds, images = values.shape
    mean = unit * float(values.sum()) / values.size
    # (resamples, seeds): mean of each seed on each drawing of images. Of what was right, sums below 2**24 are exact in
    # float32.
    of_seeds = (unit / images) * (counts(images, RESAMPLES, "images") @ values.T).astype(float)
    other_images = _middle(of_seeds.mean(axis=1))
    if seeds == 1:
        return mean, other_images, None
    # A drawing of n seeds has (n - 1) / n of their variance; stretching it makes up for that (Rao and Wu, JASA, 1988).
    weights = 1 + np.sqrt(seeds / (seeds - 1)) * (counts(seeds, RESAMPLES, "seeds") - 1)
    return mean, other_images, _middle((of_seeds * weights).mean(axis=1))


def _middle(resampled: np.ndarray) -> Interval:
    low, high = np.percentile(resampled, (2.5, 97.5))
    return float(low), float(high)
