"""When to raise an alarm, decided from good images alone, with a promise about how often that is wrong.

An image is alarming where its anomaly score is above a threshold. Split conformal prediction sets that threshold so
that a further good image, one that could as well have been among those it was set on (exchangeable), raises an alarm
with a chance of at most the rate asked for, whatever the scores' distribution and however poor the scores are: Vovk,
Gammerman and Shafer 2005, "Algorithmic Learning in a Random World"; Angelopoulos and Bates 2023, "Conformal Prediction:
A Gentle Introduction"; Bates et al. 2023, "Testing for Outliers with Conformal p-values". The good images must not be
those that the model was fitted on, whose scores are too low.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from specialsam.core.errors import DataError, UsageError

_Values = npt.NDArray[np.float64]

FEWEST_RECENT = 20
"""Recent images below which nothing is said about drift."""

_ROUNDING = 1e-9
"""What (n + 1) * rate may miss a whole number by and still count as that number."""


def conformal_threshold(good_scores: npt.ArrayLike, rate: float) -> float:
    """The score above which an image raises an alarm, so that a good one does so with a chance of at most `rate`.

    Of the n scores (N,) of good images it is the k-th smallest, k = ceil((n + 1)(1 - rate)) (Angelopoulos and Bates
    2023, section 1). The chance is over both the good images and the further one; `false_alarm_interval` tells what it
    may be once the threshold is set. Raises UsageError where n is below 1 / rate - 1, too few for any such threshold.
    """
    values = _finite(good_scores, "scores of good images")
    return float(np.sort(values)[_rank(len(values), rate) - 1])


def false_alarm_interval(n: int, rate: float, confidence: float = 0.95) -> tuple[float, float]:
    """Central interval of the false-alarm rate that a `conformal_threshold` set on `n` good images turns out to have.

    Given these images the rate over all further good ones is Beta(n + 1 - k, k) distributed where scores are continuous
    (Vovk 2012; Angelopoulos and Bates 2023, section 3.2), with k as there, and lower where scores tie. Raises
    UsageError as `conformal_threshold` does.
    """
    if not 0 < confidence < 1:
        raise UsageError(f"expected a confidence between 0 and 1, got {confidence}")
    from scipy import stats

    rank = _rank(n, rate)
    low, high = stats.beta.ppf([(1 - confidence) / 2, (1 + confidence) / 2], n + 1 - rank, rank)
    return float(low), float(high)


def p_value(good_scores: npt.ArrayLike, score: float) -> float:
    """Conformal p-value of one image's score: (1 + number of good scores (N,) that are at least as high) / (n + 1).

    For a good image it is at most any rate with a chance of at most that rate (Bates et al. 2023); it is at
    most `rate` exactly where the score is above the `conformal_threshold` of that rate.
    """
    values = _finite(good_scores, "scores of good images")
    if math.isnan(score):
        raise DataError("expected a score, got NaN")
    return (1 + int((values >= score).sum())) / (len(values) + 1)


def percentile_threshold(good_scores: npt.ArrayLike, rate: float) -> float:
    """The 1 - `rate` quantile of good scores (N,), linear between two of them: the common rule, as a rival.

    It says how many of these very images are above it and promises nothing about others: of further good images more
    than `rate` raise an alarm on average, with 20 scores and a rate of 5 % almost twice as many, and for few images it
    gives a threshold all the same where no score can serve as one that keeps the rate.
    """
    return float(np.quantile(_finite(good_scores, "scores of good images"), 1 - _checked(rate)))


@dataclass(frozen=True)
class Drift:
    """Whether recent images still look like those that a threshold was set on, and that in a sentence.

    `statistic` is the largest gap between the two distributions of scores, in 0..1, `p_value` the chance of one at
    least as large without any change.
    """

    statistic: float
    p_value: float
    drifted: bool
    says: str


def drift(good_scores: npt.ArrayLike, recent_scores: npt.ArrayLike, level: float = 0.01) -> Drift:
    """Compare the scores (N,) that a threshold was set on with recent ones (M,): has what they measure changed?

    Two-sided two-sample Kolmogorov-Smirnov test (Smirnov 1939), drifted where p is below `level`. Each look at images
    that have not changed errs with a chance of `level`, so that many looks err more often. Defects among the recent
    images are a change too. Below 20 recent scores there is no test: the statistic is 0 and p is 1.
    """
    if not 0 < level < 1:
        raise UsageError(f"expected a level between 0 and 1, got {level}")
    good = _finite(good_scores, "scores of good images")
    recent = np.asarray(recent_scores, np.float64).ravel()
    if len(recent) < FEWEST_RECENT:
        return Drift(0.0, 1.0, False, f"{len(recent)} recent images are too few to tell: {FEWEST_RECENT} are needed")
    from scipy import stats

    tested = stats.ks_2samp(good, _finite(recent, "recent scores"))
    gap, chance = float(tested.statistic), float(tested.pvalue)
    verdict = "no longer look like those" if chance < level else "still look like those"
    medians = f"median score {np.median(recent):.3g}, then {np.median(good):.3g}"
    says = (
        f"the last {len(recent)} images {verdict} the threshold was set on ({len(good)}): {medians}, largest gap "
        f"between the distributions {gap:.2f}, p = {chance:.2g}"
    )
    return Drift(gap, chance, chance < level, says)


def _rank(n: int, rate: float) -> int:
    """Place k in 1..n of the threshold among n sorted scores."""
    above = math.floor((n + 1) * _checked(rate) + _ROUNDING)
    if above < 1:
        needed = math.ceil(1 / rate - 1 - _ROUNDING)
        raise UsageError(
            f"expected at least {needed} good images for a false-alarm rate of {rate:.4g}, got {n}; "
            "give more good images or allow a higher rate"
        )
    return max(n + 1 - above, 1)


def _checked(rate: float) -> float:
    if not 0 < rate < 1:
        raise UsageError(f"expected a false-alarm rate between 0 and 1, got {rate}")
    return rate


def _finite(scores: npt.ArrayLike, name: str) -> _Values:
    values = np.asarray(scores, np.float64).ravel()
    if not len(values):
        raise DataError(f"expected {name}, got none")
    wrong = int((~np.isfinite(values)).sum())
    if wrong:
        raise DataError(f"expected finite {name}, got {wrong} of {len(values)} NaN or infinite")
    return values
