"""Image by image: McNemar's test, and what the two intervals ask."""

import numpy as np
import pytest
from scipy.stats import binomtest

from src.statistics.images import compare_classes, compare_images
from src.statistics.resampling import counts


def runs(rate, shape, seed):
    return np.random.default_rng(seed).random(shape) < rate


BASELINE, VARIANT = runs(0.8, (6, 400), 0), runs(0.85, (6, 400), 1)


def width(interval):
    return interval[1] - interval[0]


def test_mcnemar_counts_and_p():
    baseline = np.array([[1, 1, 1, 1, 1, 0, 0, 0, 1, 0]], bool)
    variant = np.array([[1, 0, 0, 0, 0, 1, 0, 0, 0, 0]], bool)
    (one,) = compare_images(baseline, variant).per_seed
    assert (one.both, one.only_baseline, one.only_variant, one.neither) == (1, 5, 1, 3)
    assert one.p == pytest.approx(14 / 64), "of 6 coins, at most one or at least five heads"
    for found, rows in zip(
        compare_images(BASELINE, VARIANT).per_seed, zip(BASELINE, VARIANT, strict=True), strict=True
    ):
        lost, won = (rows[0] & ~rows[1]).sum(), (rows[1] & ~rows[0]).sum()
        assert found.p == pytest.approx(binomtest(won, won + lost).pvalue)


def test_same_predictions():
    found = compare_images(BASELINE, BASELINE)
    assert (found.mean, found.other_images, found.other_seeds_and_images) == (0.0, (0.0, 0.0), (0.0, 0.0))
    assert {one.p for one in found.per_seed} == {1.0}


def test_mean_and_the_interval_of_other_images():
    """The latter has a closed form: the images' mean differences are a sample."""
    found = compare_images(BASELINE, VARIANT)
    per_image = 100 * (VARIANT.mean(axis=0) - BASELINE.mean(axis=0))
    assert (found.seeds, found.images) == (6, 400)
    assert found.mean == pytest.approx(per_image.mean())
    reach = 1.96 * per_image.std() / 20
    assert found.other_images == pytest.approx((found.mean - reach, found.mean + reach), abs=0.15 * reach)


def test_seeds_that_differ_widen_the_interval_of_other_seeds():
    """Every seed gains or loses ten points on all images alike."""
    images = 400
    baseline = np.arange(images) % 2 == 0
    gains = np.array([0.4, 0.6] * 4)[:, None] > (np.arange(images) % 10 + 0.5) / 10
    found = compare_images(np.stack([baseline] * 8), gains)
    per_seed = 100 * (gains.mean(axis=1) - baseline.mean())
    assert width(found.other_seeds_and_images) > 0.9 * 2 * 1.96 * per_seed.std(ddof=1) / 8**0.5
    same = compare_images(baseline[None], gains[:1])
    assert same.other_seeds_and_images is None and width(same.other_images) > 0


def test_images_that_are_common_to_the_seeds_stay_uncertain():
    """Networks that agree on every image: eight seeds know no more than one."""
    one = compare_images(BASELINE[:1], VARIANT[:1])
    eight = compare_images(np.repeat(BASELINE[:1], 8, axis=0), np.repeat(VARIANT[:1], 8, axis=0))
    assert eight.other_images == pytest.approx(one.other_images)
    assert width(eight.other_seeds_and_images) >= 0.95 * width(one.other_images)


def test_spread_of_the_crossed_bootstrap():
    """Only seeds: its variance is the unbiased one of a mean of seeds."""
    rates = np.array([50, 60, 70, 80, 90])
    variant = np.repeat(rates[:, None], 100, axis=1) > np.tile(np.arange(100), (5, 1))
    many = np.tile(variant, (1, 20))
    found = compare_images(np.zeros_like(many), many)
    assert width(found.other_seeds_and_images) == pytest.approx(2 * 1.96 * rates.std(ddof=1) / 5**0.5, rel=0.15)


def test_the_other_way_round_and_twice():
    one, other = compare_images(BASELINE, VARIANT), compare_images(VARIANT, BASELINE)
    assert other.mean == -one.mean
    for name in ("other_images", "other_seeds_and_images"):
        low, high = getattr(one, name)
        assert getattr(other, name) == pytest.approx((-high, -low), abs=1e-9)
    assert compare_images(BASELINE, VARIANT) == one


def test_classes():
    labels = np.arange(400) % 3
    better = VARIANT.copy()
    better[:, labels == 1] = True
    found = compare_classes(BASELINE, better, labels)
    assert [one.label for one in found] == [0, 1, 2]
    assert sum(one.images for one in found) == 400
    assert found[1].other_seeds_and_images[0] > 0
    whole = compare_images(BASELINE, better)
    assert sum(one.mean * one.images for one in found) / 400 == pytest.approx(whole.mean)


def test_resamples():
    first = counts(50, 300, "seeds")
    assert (first.sum(axis=1) == 50).all()
    assert first.mean() == 1 and first.var() == pytest.approx(1 - 1 / 50, abs=0.05)
    assert (first != counts(50, 300, "images")).any(), "seeds and images are drawn independently"
    kept = first.copy()
    counts.cache_clear()
    assert (counts(50, 300, "seeds") == kept).all()


@pytest.mark.parametrize(
    ("baseline", "variant", "complaint"),
    [
        (BASELINE, VARIANT[:, :-1], "same seeds and images"),
        (BASELINE, VARIANT.astype(int), "int64"),
        (BASELINE[0], VARIANT[0], r"\(400,\)"),
        (BASELINE[:, :0], VARIANT[:, :0], r"\(6, 0\)"),
    ],
)
def test_refusals(baseline, variant, complaint):
    with pytest.raises(ValueError, match=complaint):
        compare_images(baseline, variant)


def test_labels_must_fit():
    with pytest.raises(ValueError, match="labels"):
        compare_classes(BASELINE, VARIANT, np.zeros(399, int))
