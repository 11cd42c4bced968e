"""The promise of conformal thresholds: counted exactly over all ways to leave one image out, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.core.errors import DataError, UsageError
from specialsam.metrics.conformal import (
    conformal_threshold,
    drift,
    false_alarm_interval,
    p_value,
    percentile_threshold,
)

SPLITS, GOOD, RATE = 1000, 99, 0.05
rates = st.sampled_from([0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.9])
pools = st.lists(st.integers(0, 6), min_size=2, max_size=40)


@pytest.fixture(scope="module")
def false_alarms() -> np.ndarray:
    """Share of false alarms of 1000 splits of one pool of continuous scores into 99 good images and the rest."""
    rng = np.random.default_rng(11)
    pool = rng.gamma(2.0, 1.0, 4000)
    out = []
    for _ in range(SPLITS):
        shuffled = rng.permutation(pool)
        out.append(float((shuffled[GOOD:] > conformal_threshold(shuffled[:GOOD], RATE)).mean()))
    return np.array(out)


def test_the_mean_false_alarm_rate_is_at_most_the_rate(false_alarms: np.ndarray) -> None:
    """Oracle: exchangeability, which makes the mean over splits 5 / 100 exactly; four standard errors are allowed."""
    error = false_alarms.std() / math.sqrt(SPLITS)
    assert false_alarms.mean() == pytest.approx(RATE, abs=4 * error)
    assert error < 0.001


def test_the_rates_of_single_splits_lie_in_the_interval(false_alarms: np.ndarray) -> None:
    """Oracle: the share of 1000 splits within the 95 % interval; a binomial standard error is 0.7 points."""
    low, high = false_alarm_interval(GOOD, RATE)
    assert ((false_alarms >= low) & (false_alarms <= high)).mean() == pytest.approx(0.95, abs=0.025)
    low, high = false_alarm_interval(GOOD, RATE, confidence=0.5)
    assert ((false_alarms >= low) & (false_alarms <= high)).mean() == pytest.approx(0.5, abs=0.06)


@settings(max_examples=200)
@given(pools, rates)
def test_the_promise_holds_exactly_and_with_ties(pool: list[int], rate: float) -> None:
    """Of any n + 1 scores, each left out in turn, at most (n + 1) * rate are above the threshold set on the others."""
    if len(pool) * rate < 1 - 1e-9:
        with pytest.raises(UsageError, match="good images"):
            conformal_threshold(pool[1:], rate)
        return
    others = [pool[:left] + pool[left + 1 :] for left in range(len(pool))]
    alarms = [score > conformal_threshold(good, rate) for score, good in zip(pool, others, strict=True)]
    assert sum(alarms) <= len(pool) * rate + 1e-9
    small = [p_value(good, score) <= rate + 1e-9 for score, good in zip(pool, others, strict=True)]
    assert alarms == small


@settings(max_examples=100)
@given(st.lists(st.floats(-10, 10), min_size=19, max_size=60, unique=True), st.sampled_from([0.05, 0.1, 0.25]))
def test_the_threshold_is_one_of_the_scores(good: list[float], rate: float) -> None:
    """Oracle: the formula in whole numbers: k - 1 scores are below it; the order of images plays no part."""
    threshold = conformal_threshold(good, rate)
    percent = round(100 * rate)
    rank = -(-(len(good) + 1) * (100 - percent) // 100)
    assert sorted(good).index(threshold) == rank - 1
    assert conformal_threshold(good[::-1], rate) == threshold
    low, high = false_alarm_interval(len(good), rate)
    assert 0 <= low < (len(good) + 1 - rank) / (len(good) + 1) < high <= 1


def test_by_hand() -> None:
    """Of 19 scores at 5 % the threshold is the largest, of 39 the second largest; p-values count the scores above."""
    assert conformal_threshold(range(19), 0.05) == 18
    assert conformal_threshold(range(39), 0.05) == 37
    assert p_value(range(19), 18.5) == 1 / 20
    assert p_value(range(19), 18) == 2 / 20
    assert p_value(range(19), -1) == 1


def test_too_few_good_images_are_refused_with_the_number_needed() -> None:
    with pytest.raises(UsageError, match=r"at least 99 good images for a false-alarm rate of 0\.01, got 98; give more"):
        conformal_threshold(range(98), 0.01)
    assert conformal_threshold(range(99), 0.01) == 98
    with pytest.raises(UsageError, match="at least 19 good images"):
        false_alarm_interval(18, 0.05)
    for wrong in (0, 1, -0.1, math.nan):
        for rule in (conformal_threshold, percentile_threshold):
            with pytest.raises(UsageError, match="rate between 0 and 1"):
                rule([1.0, 2.0], wrong)
    with pytest.raises(UsageError, match=r"confidence between 0 and 1, got 1$"):
        false_alarm_interval(99, 0.05, 1)


def test_scores_that_are_none_are_refused() -> None:
    with pytest.raises(DataError, match=r"scores of good images, got none$"):
        conformal_threshold([], 0.1)
    with pytest.raises(DataError, match="finite scores of good images, got 1 of 20 NaN"):
        percentile_threshold([math.nan, *range(19)], 0.05)
    with pytest.raises(DataError, match=r"expected a score, got NaN$"):
        p_value([1.0], math.nan)


def test_the_percentile_rule_keeps_no_promise() -> None:
    """Oracle: NumPy's quantile; of 20 uniform scores at 5 % the mean rate of further ones is 1 - 19.05 / 21."""
    rng = np.random.default_rng(2)
    assert percentile_threshold(range(101), 0.05) == pytest.approx(95)
    rates = [1 - percentile_threshold(rng.random(20), 0.05) for _ in range(4000)]
    assert np.mean(rates) == pytest.approx(1 - 19.05 / 21, abs=0.004)
    promised = [1 - conformal_threshold(rng.random(20), 0.05) for _ in range(4000)]
    assert np.mean(promised) == pytest.approx(1 / 21, abs=0.004)


@settings(max_examples=60)
@given(st.integers(0, 1000), st.integers(20, 60), st.floats(0, 2))
def test_the_statistic_of_drift_is_the_largest_gap(seed: int, count: int, shift: float) -> None:
    """Oracle: both empirical distributions at every score."""
    rng = np.random.default_rng(seed)
    good, recent = rng.normal(size=50).round(1), rng.normal(shift, size=count).round(1)
    places = np.concatenate([good, recent])
    gaps = [abs((good <= place).mean() - (recent <= place).mean()) for place in places]
    found = drift(good, recent)
    assert found.statistic == pytest.approx(max(gaps))
    assert found.drifted == (found.p_value < 0.01)
    assert drift(recent, good).statistic == pytest.approx(found.statistic)


def test_drift_is_seldom_claimed_of_the_same_and_always_of_others() -> None:
    """Oracle: 400 pairs of samples of one distribution, of which a test of level 0.1 rejects a tenth at most."""
    rng = np.random.default_rng(8)
    same = [drift(rng.normal(size=80), rng.normal(size=40), level=0.1).drifted for _ in range(400)]
    assert np.mean(same) < 0.1 + 4 * math.sqrt(0.09 / 400)
    assert all(drift(rng.normal(size=80), rng.normal(1.5, size=40)).drifted for _ in range(50))
    # a change of spread or downwards is one too
    assert drift(rng.normal(size=300), rng.normal(0, 4, size=100)).drifted
    assert drift(rng.normal(size=80), rng.normal(-2, size=40)).drifted


def test_drift_says_in_one_line_what_it_saw() -> None:
    good, recent = np.arange(100) / 100, np.arange(25) / 25 + 0.5
    changed, kept = drift(good, recent), drift(good, good[::4])
    assert changed.says.startswith("the last 25 images no longer look like those the threshold was set on (100)")
    assert f"gap between the distributions {changed.statistic:.2f}, p = {changed.p_value:.2g}" in changed.says
    assert "median score 0.98, then 0.495" in changed.says
    assert "still look like those" in kept.says
    assert not kept.drifted
    assert "\n" not in changed.says + kept.says


def test_too_few_recent_images_say_nothing() -> None:
    few = drift(np.zeros(100), np.full(19, 9.0))
    assert (few.statistic, few.p_value, few.drifted) == (0, 1, False)
    assert few.says == "19 recent images are too few to tell: 20 are needed"
    assert drift(np.zeros(100), np.full(20, 9.0)).drifted
    with pytest.raises(DataError, match="finite recent scores"):
        drift([1.0], [math.nan] * 20)
    with pytest.raises(DataError, match=r"scores of good images, got none"):
        drift([], [1.0] * 20)
    with pytest.raises(UsageError, match=r"level between 0 and 1, got 1$"):
        drift([1.0], [1.0] * 20, level=1)
