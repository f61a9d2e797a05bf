"""Paired differences: known values, what must not matter, and what is left where there is nothing to say."""

import warnings
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from statsmodels.stats.multitest import multipletests

from src.statistics.intervals import RESAMPLES, bca, student_t
from src.statistics.paired import compare, hedges, holm
from src.statistics.sign_flip import EXACT, sign_flip
from src.studies.power import detectable, smallest_p

SOME = np.array([0.4, 1.1, -0.2, 0.9, 2.3, 0.05, 0.7, 1.25])


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def numbers(one):
    """Everything of a `Paired`, flat."""
    return np.hstack([np.nan if value is None else value for value in astuple(one)])


# --- known values


def test_mean_and_t_are_those_of_a_paired_t_test():
    (one,) = compare(SOME[None])
    expected = stats.ttest_rel(SOME + 80, np.full(8, 80.0))
    assert one.seeds == 8
    assert one.mean == pytest.approx(0.8125)
    assert one.sd == pytest.approx(np.std(SOME, ddof=1))
    assert one.t == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert one.detectable == pytest.approx(detectable(8) * one.sd)


def test_t_interval_by_hand():
    """Differences 1, 2, 3: mean 2, sd 1, and the 97.5 % point of t with two degrees of freedom is 4.3027."""
    assert student_t(np.array([[1.0, 2.0, 3.0]]))[0] == pytest.approx(
        [2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5], abs=1e-4
    )


@pytest.mark.parametrize("differences", [SOME, -(SOME**2), SOME[:3], SOME[:2]])
def test_bca_is_scipys_but_for_chance(differences):
    expected = stats.bootstrap((differences,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=1).confidence_interval
    assert bca(differences[None])[0] == pytest.approx(list(expected), abs=0.06 * np.ptp(differences))


def test_sign_flip_is_scipys():
    for differences in (SOME, SOME[:5], np.array([3.0, -1.0, 2.0])):
        expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip(differences[None])[0] == expected.pvalue


def test_sign_flip_by_hand():
    """1, 2, 3, -4 add up to 2; as far from zero are all of the 16 sums but those that are 0."""
    sums = [abs(a * 1 + b * 2 + c * 3 + d * 4) for a in (1, -1) for b in (1, -1) for c in (1, -1) for d in (1, -1)]
    assert sign_flip(np.array([[1.0, 2.0, 3.0, -4.0]]))[0] == sum(s >= 2 for s in sums) / 16


def test_sign_flip_sees_ties_that_floating_point_hides():
    """0.1 + 0.2 - 0.3 is not 0 in floating point: all flips of sums that are equal on paper count."""
    assert sign_flip(np.array([[0.1, 0.2, -0.3]]))[0] == 1.0
    assert sign_flip(np.array([[0.3, 0.3, -0.1, -0.2]]))[0] == sign_flip(np.array([[3.0, 3.0, -1.0, -2.0]]))[0]


@pytest.mark.parametrize("seeds", range(1, 11))
def test_one_sign_gives_the_smallest_p(seeds):
    assert sign_flip(np.arange(1.0, seeds + 1)[None])[0] == smallest_p(seeds)


def test_many_seeds_are_flipped_at_random_and_never_give_zero():
    rng = np.random.default_rng(0)
    close, far = rng.normal(0.3, 1, EXACT + 4), np.full(EXACT + 4, 1.0)
    p = sign_flip(np.stack([close, far]))
    assert p[0] == pytest.approx(stats.ttest_1samp(close, 0).pvalue, abs=0.02)
    assert 0 < p[1] < 1e-4
    assert (sign_flip(np.stack([close, far])) == p).all()


def test_holm_by_hand_and_as_statsmodels():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    families = np.random.default_rng(0).random((3, 6)) ** 3
    families[0, 2] = families[0, 4]
    expected = [multipletests(family, method="holm")[1] for family in families]
    assert holm(families) == pytest.approx(np.array(expected))
    assert holm([]).shape == (0,)


def test_hedges_correction():
    """Table values: 0.7979 for 4 degrees of freedom, about 1 - 3 / (4 * 9 - 1) for 9; right on average."""
    assert hedges(5) == pytest.approx(0.7979, abs=1e-4)
    assert hedges(10) == pytest.approx(1 - 3 / 35, abs=1e-3)
    differences = np.random.default_rng(0).normal(0.5, 1, (20000, 5))
    sizes = hedges(5) * differences.mean(axis=1) / differences.std(axis=1, ddof=1)
    assert sizes.mean() == pytest.approx(0.5, abs=0.02)
    assert compare(SOME[None])[0].effect_size == pytest.approx(hedges(8) * SOME.mean() / SOME.std(ddof=1))


# --- what must not matter

matrices = arrays(float, (3, 6), elements=st.integers(-60, 60).map(lambda images: images / 20))


@settings(max_examples=20, deadline=None)
@given(matrices)
def test_the_other_way_round_everything_is_mirrored(differences):
    differences = differences[differences.sum(axis=1).round(6) != 0]
    for one, other in zip(compare(differences), compare(-differences), strict=True):
        assert other.mean == -one.mean and other.p == one.p and other.sd == pytest.approx(one.sd)
        assert other.t == pytest.approx((-one.t[1], -one.t[0]))
        assert other.bca == pytest.approx((-one.bca[1], -one.bca[0]), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(matrices, st.permutations(range(6)))
def test_the_order_of_seeds_does_not_matter(differences, order):
    for one, other in zip(compare(differences), compare(differences[:, order]), strict=True):
        assert (other.mean, other.p, other.bca) == (one.mean, one.p, one.bca)
        assert numbers(other) == pytest.approx(numbers(one), rel=1e-12, nan_ok=True)


def test_nor_does_the_unit():
    for one, other in zip(compare(SOME[None]), compare(10 * SOME[None]), strict=True):
        assert other.p == one.p and other.effect_size == pytest.approx(one.effect_size)
        assert numbers(other)[1:7] == pytest.approx(10 * numbers(one)[1:7])


def test_nor_do_the_other_comparisons():
    """The same row gives the same bytes, alone and among many."""
    differences = np.random.default_rng(0).normal(size=(300, 8))
    together = compare(differences)
    assert [together[0], together[200]] == compare(differences[[0, 200]])


# --- little to say


def test_one_seed_has_no_spread():
    (one,) = compare(np.array([[1.5]]))
    assert (one.seeds, one.mean, one.p) == (1, 1.5, 1.0)
    assert one.sd is one.t is one.bca is one.effect_size is one.detectable is None


def test_two_seeds_have_no_effect_size():
    (one,) = compare(np.array([[1.0, 2.0]]))
    assert one.effect_size is None and one.bca == (1.0, 2.0) and one.p == 0.5


@pytest.mark.parametrize("value", [0.0, 1.3, -0.1])
def test_equal_differences(value):
    """As they are left by subtraction: 80.1 - 78.8 and 80.2 - 78.9 are not equal in floating point."""
    baselines = np.array([78.8, 78.9, 79.3, 80.7])
    (one,) = compare((baselines + value - baselines)[None])
    assert (one.mean, one.sd, one.t, one.bca) == (value, 0.0, (value, value), (value, value))
    assert one.effect_size is None and one.detectable == 0.0
    assert one.p == (1.0 if value == 0 else 2 / 16)


def test_missing_runs_are_left_out_row_by_row():
    holes = np.stack([SOME, SOME, SOME])
    holes[1, 3] = holes[2, :7] = np.nan
    found = compare(holes)
    assert found[0] == compare(SOME[None])[0]
    assert found[1] == compare(np.delete(SOME, 3)[None])[0]
    assert found[2].seeds == 1


@pytest.mark.parametrize(
    ("differences", "complaint"),
    [
        (SOME, r"\(8,\)"),
        (np.array([[1.0], [np.nan]]), "comparison 1 has no seed"),
        (np.array([[1.0, np.inf]]), "difference inf"),
        (np.array([[1.0, 820.0]]), "difference 820"),
    ],
)
def test_refusals(differences, complaint):
    with pytest.raises(ValueError, match=complaint):
        compare(differences)


def test_no_comparisons():
    assert compare(np.empty((0, 8))) == []
