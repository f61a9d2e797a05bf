"""The rule, its sentences, and agreement with published orders."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from src.statistics.agreement import agreement, tau_b
from src.statistics.paired import compare
from src.statistics.sign_flip import sign_flip
from src.statistics.verdict import bound, decide, judge
from src.studies.power import detectable

EIGHT = np.array([1.0, -1.0, 0.5, -0.5, 0.8, -0.8, 0.2, -0.2])


def verdicts(*rows, **options):
    return judge(compare(np.array(rows)), **options)


def test_better_and_worse_by_as_much():
    better, worse = verdicts(2 + EIGHT / 2, -2 - EIGHT / 2)
    assert (better.word, worse.word) == ("better", "worse")
    assert better.text == "better by 2.0 points (95 % interval 1.7 to 2.3, p = 0.016 after Holm, 8 seeds)"
    assert worse.text == "worse by 2.0 points (95 % interval -2.3 to -1.7, p = 0.016 after Holm, 8 seeds)"
    assert better.p == worse.p == 2 * 2 / 2**8 and better.within is None


def test_holm_counts_the_family():
    """Eight differences of one sign: p is 2 / 256, which six comparisons can bear and seven cannot."""
    found = 2 + EIGHT
    assert verdicts(found, *[EIGHT] * 5)[0].word == "better"
    assert verdicts(found, *[EIGHT] * 6)[0].word == "cannot_tell"
    assert "after Holm" not in verdicts(found)[0].text


def test_no_difference_says_how_large_it_may_be():
    (one,) = verdicts(EIGHT)
    assert one.word == "no_difference" and one.within == 0.7
    assert one.text == "no difference larger than 0.7 points (95 % interval -0.6 to 0.6, 8 seeds)"
    assert verdicts(EIGHT, margin=0.5)[0].word == "cannot_tell"


def test_cannot_tell_says_what_is_missing():
    few, enough = verdicts(2 + EIGHT[:6], *[EIGHT[:6]] * 5)[0], verdicts(*[3 * EIGHT] * 6)[0]
    assert few.text == (
        "cannot tell with 6 seeds (difference 2.0 points, 95 % interval 1.1 to 2.9): "
        "6 comparisons need 8 seeds or more to reach p = 0.05"
    )
    found = detectable(8, alpha=0.05 / 6) * np.std(3 * EIGHT, ddof=1)
    assert enough.text == (
        "cannot tell with 8 seeds (difference 0.0 points, 95 % interval -1.9 to 1.9): "
        f"8 seeds find a difference of {found:.1f} points at least 3 times out of 5"
    )


@pytest.mark.parametrize(("seeds", "rows"), [(6, 1), (8, 6), (12, 50)])
def test_what_is_promised_is_found(seeds, rows):
    """At least 3 times out of 5, with normal differences and the smallest p against all rows."""
    rng = np.random.default_rng(seeds)
    differences = rng.normal(detectable(seeds, alpha=0.05 / rows), 1, (2000, seeds))
    assert np.mean(rows * sign_flip(differences) <= 0.05) >= 0.6


def test_one_and_two_seeds_tell_nothing():
    (one,) = verdicts([0.3])
    assert one.word == "cannot_tell"
    assert (
        one.text
        == "cannot tell with 1 seed (difference 0.3 points): one comparison needs 6 seeds or more to reach p = 0.05"
    )
    assert verdicts([0.3, 0.3])[0].word == "cannot_tell", "two may be equal by chance"
    assert verdicts([0.0, 0.0, 0.0])[0].text.startswith("no difference larger than 0.1 points")


def test_the_rule_at_its_edges():
    assert decide(0.2, (0.1, 0.3), 0.05, 8) == "better", "a small difference that is real is better"
    assert decide(0.2, (-1.0, 1.0), 0.051, 8) == "no_difference"
    assert decide(0.2, (-1.0, 1.01), 0.051, 8) == decide(0.2, (-1.01, 1.0), 0.051, 8) == "cannot_tell"
    assert decide(0.2, None, 1.0, 1) == "cannot_tell"


@pytest.mark.parametrize(("interval", "expected"), [((-0.2, 0.31), 0.4), ((-0.72, 0.3), 0.8), ((-0.1, 0.1 + 0.2), 0.3)])
def test_bound_is_rounded_up(interval, expected):
    assert bound(interval) == expected


def test_margin_must_be_positive():
    with pytest.raises(ValueError, match="margin 0"):
        verdicts(EIGHT, margin=0)


def test_no_family():
    assert judge([]) == []


# --- agreement with published orders

PUBLISHED = np.array([82.0, 81.7, 81.4, 81.3, 80.9])


def test_the_same_order_and_the_opposite():
    ours = PUBLISHED[:, None] - 10 + np.zeros(4)
    same, opposite = agreement(ours, PUBLISHED), agreement(-ours, PUBLISHED)
    assert (same.rows, same.seeds, same.tau, same.interval) == (5, 4, 1.0, (1.0, 1.0))
    assert opposite.tau == -1.0
    assert same.exact and same.p == pytest.approx(2 / 120), "two of the 120 orders"


def test_seeds_that_disagree_give_an_interval():
    ours = PUBLISHED[:, None] + np.random.default_rng(0).normal(0, 0.5, (5, 6))
    found = agreement(ours, PUBLISHED)
    assert found.tau == pytest.approx(kendalltau(ours.mean(axis=1), PUBLISHED).statistic)
    assert found.interval[0] < found.tau <= found.interval[1] <= 1
    assert agreement(ours[::-1], PUBLISHED[::-1]).interval == found.interval
    assert agreement(ours[:, :1], PUBLISHED).interval is None


def test_ties_are_counted_and_said():
    ours, published = np.array([[3.0], [2.0], [2.0], [1.0]]), np.array([4.0, 3.0, 2.0, 2.0])
    found = agreement(ours, published)
    assert found.tau == pytest.approx(4 / 5), "four pairs agree, none disagrees; each side has one tie among six pairs"
    assert not found.exact


def test_tau_b_is_scipys():
    rng = np.random.default_rng(0)
    drawings, published = rng.integers(0, 4, (40, 6)).astype(float), rng.integers(0, 4, 6).astype(float)
    expected = [kendalltau(drawing, published).statistic for drawing in drawings]
    assert tau_b(drawings, published) == pytest.approx(np.nan_to_num(expected))


def test_rows_without_a_published_value_and_missing_runs_are_left_out():
    ours = np.array([[3.0, 3.1, np.nan], [2.0, 2.1, 2.2], [1.0, 1.1, 1.2], [np.nan, 9.0, 9.0]])
    found = agreement(ours, np.array([82.0, 81.0, 80.0, np.nan]))
    assert (found.rows, found.seeds, found.tau) == (3, 2, 1.0)


@pytest.mark.parametrize(
    ("ours", "published", "rows"),
    [
        ([[1.0, 2.0], [2.0, 3.0]], [80.0, 81.0], 2),
        ([[1.0], [2.0], [3.0]], [80.0, np.nan, np.nan], 1),
        ([[1.0], [1.0], [1.0]], [80.0, 81.0, 82.0], 3),
        ([[1.0], [2.0], [3.0]], [80.0, 80.0, 80.0], 3),
        ([[1.0, np.nan], [np.nan, 2.0], [1.0, 2.0]], [80.0, 81.0, 82.0], 3),
    ],
)
def test_too_little_for_an_order(ours, published, rows):
    found = agreement(np.array(ours), np.array(published))
    assert found.rows == rows
    assert found.tau is found.p is found.interval is None


def test_shapes_must_fit():
    with pytest.raises(ValueError, match=r"\(3,\)"):
        agreement(np.zeros((4, 2)), np.zeros(3))
