import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import t

from src.studies.power import detectable, seeds_needed, sentence, smallest_p


def permutation_p(differences):
    """By enumeration: how many ways to flip the signs give a mean at least as far from zero."""
    flips = np.array(list(product((-1, 1), repeat=len(differences))))
    means = np.abs((flips * differences).mean(axis=1))
    return (means >= abs(np.mean(differences)) - 1e-12).mean()


@pytest.mark.parametrize("seeds", range(1, 11))
def test_smallest_p_is_that_of_differences_of_one_sign(seeds):
    differences = np.random.default_rng(seeds).uniform(0.1, 1.0, seeds)
    assert smallest_p(seeds) == permutation_p(differences)
    differences[0] = -differences[0]
    assert seeds == 1 or permutation_p(differences) > smallest_p(seeds), "any other signs give a larger one"


def test_smallest_p_after_holm():
    assert smallest_p(6, rows=6) == 6 * 2 / 64
    assert smallest_p(3, rows=6) == 1.0, "a probability"


@pytest.mark.parametrize(("rows", "seeds"), [(1, 6), (2, 7), (6, 8), (100, 12)])
def test_seeds_needed(rows, seeds):
    assert seeds_needed(0.05, rows) == seeds
    assert smallest_p(seeds, rows) < 0.05 <= smallest_p(seeds - 1, rows)


def test_seeds_needed_is_below_alpha_not_at_it():
    assert seeds_needed(0.25, 1) == 4


@pytest.mark.parametrize(("seeds", "tabled"), [(2, 11.55), (3, 3.26), (5, 1.68), (6, 1.43), (8, 1.16), (10, 1.00)])
def test_detectable_differences(seeds, tabled):
    assert detectable(seeds) == pytest.approx(tabled, abs=0.006)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize(("alpha", "power"), [(0.05, 0.8), (0.01, 0.5)])
def test_detectable_agrees_with_simulated_studies(seeds, alpha, power):
    shape = (20_000, seeds)
    draws = np.random.default_rng(0).normal(detectable(seeds, alpha=alpha, power=power), 1.0, shape)
    statistic = draws.mean(axis=1) / (draws.std(axis=1, ddof=1) / math.sqrt(seeds))
    found = (np.abs(statistic) > t.isf(alpha / 2, seeds - 1)).mean()
    assert found == pytest.approx(power, abs=0.02)


def test_one_seed_detects_nothing():
    assert detectable(1) == math.inf


@pytest.mark.parametrize(("alpha", "power"), [(0.0, 0.8), (0.05, 1.0), (0.8, 0.05)])
def test_refuses_what_is_no_test(alpha, power):
    with pytest.raises(ValueError, match="between 0 and 1") as refusal:
        detectable(5, alpha=alpha, power=power)
    assert "\n" not in str(refusal.value)


def test_what_people_read():
    assert sentence(6, 6, 0.64, pairs=5) == (
        "6 paired seeds: smallest reachable p 0.031 (0.19 after Holm's correction over 6 rows; 8 seeds would reach "
        "below 0.05); smallest difference found 4 times out of 5: 1.4 standard deviations of the per-seed difference, "
        "here 0.9 points (sd 0.64 of 5 pairs)"
    )


def test_what_is_not_known_yet_is_not_said():
    assert sentence(6, 6, None).endswith("; in points once two seeds of two variants are finished")
    assert sentence(6, 6, 0.64).endswith("here 0.9 points (sd 0.64)")


def test_too_few_seeds_are_called_so():
    assert sentence(3, 6, None).startswith(
        "3 paired seeds can't reach p < 0.05: smallest reachable p 0.25 (1 after Holm's correction over 6 rows; "
        "8 seeds would reach below 0.05)"
    )
    assert sentence(1, 1, None) == (
        "1 paired seed can't reach p < 0.05: smallest reachable p 1 (6 seeds would reach below 0.05); "
        "no difference can be told from the spread of seeds"
    )


def test_enough_seeds_need_no_more():
    assert "would reach" not in sentence(8, 6, 0.5) and "Holm" not in sentence(8, 1, 0.5)
