"""What can be said about a mean over images, or about the difference of two models on the same images.

Pure functions on arrays of one value an image. A NaN is a failure that someone forgot to count: it raises DataError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from specialsam.core.errors import DataError

_Values = npt.NDArray[np.float64]

CHUNK = 4_000_000
"""Resampled values held in memory at a time."""


@dataclass(frozen=True)
class Interval:
    """A mean over `n` images with its confidence limits; they are NaN for one image, which says nothing of spread."""

    mean: float
    low: float
    high: float
    n: int


def points(interval: Interval, sign: str = "+") -> str:
    """A difference of IoU in points with its interval: "+3.1 [+1.0, +5.2]"; one image has no interval.

    `sign` is "+" for a gain and "-" for a loss, whose plus would read as a gain.
    """
    mean, low, high = (f"{100 * value:{sign}.1f}" for value in (interval.mean, interval.low, interval.high))
    return f"{mean} (no interval: {interval.n} image)" if interval.n == 1 else f"{mean} [{low}, {high}]"


def flat(name: str, interval: Interval) -> dict[str, float]:
    """A mean and its limits as `name`, `name`_low and `name`_high; limits that are not known are left out."""
    values = {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return {key: value for key, value in values.items() if np.isfinite(value)}


def bootstrap_mean(values: npt.ArrayLike, seed: int = 0, repeats: int = 2000, level: float = 0.95) -> Interval:
    """Mean and percentile bootstrap interval of values (N,), one an image (Efron 1979), resampled with replacement.

    The percentile interval is defined for any values, constant ones included; it covers a little less than `level` for
    fewer than about 20 images. The same values and seed give the same interval, whatever the values' order.
    """
    array = np.sort(_finite(values, "values"))
    if not 0 < level < 1:
        raise DataError(f"expected a confidence level between 0 and 1, got {level}")
    if repeats < 1:
        raise DataError(f"expected at least one bootstrap repeat, got {repeats}")
    mean, n = float(array.mean()), len(array)
    if n == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // n)
    means = np.concatenate(
        [
            array[rng.integers(0, n, (min(rows, repeats - start), n))].mean(1, dtype=np.float64)
            for start in range(0, repeats, rows)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), n)


def paired_bootstrap(
    base: npt.ArrayLike, tuned: npt.ArrayLike, seed: int = 0, repeats: int = 2000, level: float = 0.95
) -> Interval:
    """Mean of tuned - base, both (N,) over the same images, and its interval: `bootstrap_mean` of the differences."""
    first, second = _pair(base, tuned)
    return bootstrap_mean(second - first, seed, repeats, level)


def two_way_mean(values: npt.ArrayLike, images: npt.ArrayLike, parts: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Mean over images of `values` (N,), one an object, and its interval over other images *and* other parts.

    `images` and `parts` (N,) name the image that each object lies in and what it is made of, which other images share
    (the texture of a mosaic's cell): an interval over images alone knows nothing of the luck of those few. The variance
    is that of sums by image and by part less what both count ("Robust Inference With Multiway Clustering", Cameron,
    Gelbach and Miller 2011), but no less than either; the limits are Student's t with the smaller number of images or
    parts. Every image weighs alike, whatever its number of objects. NaN limits for one image or one part. DataError for
    arrays of unlike lengths.
    """
    array, image, part = _finite(values, "values"), np.asarray(images).ravel(), np.asarray(parts).ravel()
    if not len(array) == len(image) == len(part):
        raise DataError(f"expected values, images and parts alike, got {len(array)}, {len(image)} and {len(part)}")
    (n, image), (kinds, part) = _numbered(image), _numbered(part)
    weights = 1 / (n * np.bincount(image)[image])
    mean = float(weights @ array)
    if min(n, kinds) == 1:
        return Interval(mean, float("nan"), float("nan"), n)
    from scipy import stats

    _, both = _numbered(image * kinds + part)
    apart = weights * (array - mean)
    by_image, by_part, by_both = (float((np.bincount(of, apart) ** 2).sum()) for of in (image, part, both))
    few = min(n, kinds)
    variance = max(by_image + by_part - by_both, by_image, by_part) * few / (few - 1)
    reach = float(stats.t.ppf((1 + level) / 2, few - 1)) * variance**0.5
    return Interval(mean, mean - reach, mean + reach, n)


def wilcoxon(base: npt.ArrayLike, tuned: npt.ArrayLike) -> float:
    """Two-sided p of the Wilcoxon signed-rank test on values (N,) of the same images; 1 when no image differs."""
    from scipy import stats

    first, second = _pair(base, tuned)
    difference = second - first
    difference = difference[difference != 0]
    return float(stats.wilcoxon(difference).pvalue) if len(difference) else 1.0


def wins(base: npt.ArrayLike, tuned: npt.ArrayLike, tie: float = 0.001) -> tuple[int, int, int]:
    """(wins, losses, ties) of tuned over base, both (N,) over the same images; a tie differs by at most `tie`."""
    first, second = _pair(base, tuned)
    difference, limit = second - first, tie + 1e-12
    won, lost = int((difference > limit).sum()), int((difference < -limit).sum())
    return won, lost, len(difference) - won - lost


def holm(pvalues: Mapping[str, float]) -> dict[str, float]:
    """p-values adjusted for their number (Holm 1979), by the same names and in the same order."""
    array = np.array(list(pvalues.values()), np.float64)
    if not ((array >= 0) & (array <= 1)).all():
        raise DataError(f"expected p-values in 0..1, got {dict(pvalues)}")
    order = np.argsort(array, kind="stable")
    scaled = array[order] * np.arange(len(array), 0, -1)
    adjusted = np.empty_like(array)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1) if len(array) else scaled
    return dict(zip(pvalues, adjusted.tolist(), strict=True))


def _finite(values: npt.ArrayLike, name: str) -> _Values:
    array = np.asarray(values, np.float64).ravel()
    if not len(array):
        raise DataError(f"expected {name} of at least one image, got none")
    wrong = int((~np.isfinite(array)).sum())
    if wrong:
        raise DataError(f"expected finite {name}, got {wrong} of {len(array)} NaN or infinite: count failures first")
    return array


def _numbered(names: npt.NDArray[np.generic]) -> tuple[int, npt.NDArray[np.intp]]:
    """(how many different names, the number of each)."""
    known, numbers = np.unique(names, return_inverse=True)
    return len(known), numbers


def _pair(base: npt.ArrayLike, tuned: npt.ArrayLike) -> tuple[_Values, _Values]:
    first, second = _finite(base, "base values"), _finite(tuned, "tuned values")
    if len(first) != len(second):
        raise DataError(f"expected values of the same images, got {len(first)} and {len(second)}")
    return first, second
