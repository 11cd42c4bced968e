"""Whether a model knows how good its masks are: predicted against actual IoU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from specialsam.core.errors import DataError, UsageError


@dataclass(frozen=True)
class Reliability:
    """`bins`: bin (from 0), low, high, predicted, actual (means, NaN in an empty bin) and n, one line a bin.

    `error` is the expected calibration error, the mean distance of predicted from actual weighted by n, in 0..1;
    `correlation` is Spearman's, NaN where one side is constant; `bias` is the mean of predicted - actual (positive: the
    model thinks too well of itself).
    """

    bins: pd.DataFrame
    error: float
    correlation: float
    bias: float


def reliability(predicted: npt.ArrayLike, actual: npt.ArrayLike, bins: int = 10) -> Reliability:
    """Reliability of predicted IoU (N,) against actual IoU (N,) in `bins` of equal width over 0..1.

    The bins and the error are those of Guo et al. 2017, "On calibration of modern neural networks", with IoU in the
    place of accuracy. A predicted IoU outside of 0..1 (SAM's head is not bounded) falls in the first or last bin and
    keeps its value in the means. Raises DataError for none, different numbers, NaN, or an actual IoU outside of 0..1.
    """
    first, second = np.asarray(predicted, np.float64).ravel(), np.asarray(actual, np.float64).ravel()
    if bins < 1:
        raise UsageError(f"expected at least one bin, got {bins}")
    if not len(first) or len(first) != len(second):
        raise DataError(f"expected predicted and actual IoU of the same masks, got {len(first)} and {len(second)}")
    if not np.isfinite(first).all() or not ((second >= 0) & (second <= 1)).all():
        raise DataError("expected finite predicted IoU and actual IoU in 0..1, got others: leave failures out first")
    place = np.clip((first * bins).astype(np.int64), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, values, minlength=bins) for values in (first, second)]
    means = [np.where(counts > 0, total / np.maximum(counts, 1), np.nan) for total in sums]
    edges = np.linspace(0, 1, bins + 1)
    table = pd.DataFrame(
        {"bin": range(bins), "low": edges[:-1], "high": edges[1:], "predicted": means[0], "actual": means[1]}
    ).assign(n=counts)
    error = float(np.abs(sums[0] - sums[1]).sum() / len(first))
    return Reliability(table, error, _spearman(first, second), float((first - second).mean()))


def _spearman(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(pd.Series(first).rank(), pd.Series(second).rank())[0, 1])
