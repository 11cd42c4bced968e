"""The measures of camouflaged object detection on soft maps, one image at a time.

S-measure (Fan et al. 2017), E-measure (Fan et al. 2018), weighted F (Margolin et al. 2014) and mean absolute error.
They are those of PySODMetrics to 1e-6 (`tests/metrics/test_cod.py`), by fewer passes over the pixels. Maps are taken as
they are: the stretching to minimum and maximum that is usual there, which makes noise of a blank map, is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.metrics.overlaps import check_pair, mae

_Float64 = npt.NDArray[np.float64]
_Counts = int | npt.NDArray[np.integer]
_TINY = float(np.spacing(1))
_GAUSSIAN = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 5**2))
_GAUSSIAN /= _GAUSSIAN.sum()
"""7 pixels of a Gaussian of 5 pixels, as the weighted F's definition has it."""
THRESHOLD = 0.5
"""Probability above which a pixel is foreground, where a rule about empty masks needs to know."""


def cod(probability: FloatArray, truth: BoolArray) -> dict[str, float]:
    """S-measure, E-measure (mean, max, adaptive), weighted F and MAE of one map against its truth.

    The map is float32 (H, W) in 0..1, the truth bool (H, W).
    `e_max` is this image's own maximum over thresholds, so that its mean over images is at least the published maximum
    E-measure (the maximum of the mean curve, see `cod_dataset`); the means of the others are the published values. The
    E-measure of a perfect map is N / (N - 1) for N pixels by its definition. Where the truth is empty and no pixel of
    the map is above 0.5, all of them but S and MAE are 1, as everywhere in this package; PySODMetrics would say 0. In
    every other case the values are as there, so that they compare with published ones.
    """
    values, curve = _measure(probability, truth)
    return {**values, "e_mean": float(curve.mean()), "e_max": float(curve.max())}


def cod_dataset(pairs: Iterable[tuple[FloatArray, BoolArray]]) -> dict[str, float]:
    """The same measures of many pairs as papers publish them: `e_max` is the maximum of the mean curve.

    A pair is a map float32 (H, W) in 0..1 and its truth bool (H, W). Raises DataError for none.
    """
    measured = [_measure(probability, truth) for probability, truth in pairs]
    if not measured:
        raise DataError("expected at least one map to measure, got none")
    mean = {name: float(np.mean([values[name] for values, _ in measured])) for name in measured[0][0]}
    curve = np.mean([curve for _, curve in measured], axis=0)
    return {**mean, "e_mean": float(curve.mean()), "e_max": float(curve.max())}


def _measure(probability: FloatArray, truth: BoolArray) -> tuple[dict[str, float], _Float64]:
    """Values of one image that are averaged over images, and its E-measure at 256 thresholds."""
    check_pair(probability, truth)
    low, high = float(probability.min()), float(probability.max())
    if not (low >= 0 and high <= 1):
        raise DataError(f"expected foreground probabilities in 0..1, got {low:g}..{high:g}")
    soft = probability.astype(np.float64)
    values = {"s_measure": s_measure(soft, truth), "mae": mae(probability, truth)}
    if not truth.any() and high <= THRESHOLD:
        return {**values, "e_adaptive": 1.0, "weighted_f": 1.0}, np.ones(256)
    adaptive = soft >= min(2 * soft.mean(), 1)
    at = _alignment(int(np.count_nonzero(adaptive & truth)), int(np.count_nonzero(adaptive & ~truth)), truth)
    values |= {"e_adaptive": float(at), "weighted_f": weighted_f(soft, truth)}
    return values, e_curve(soft, truth)


def s_measure(soft: _Float64, truth: BoolArray) -> float:
    """S-measure of a map float64 (H, W) in 0..1: half likeness of object and ground, half that of four regions.

    The regions meet at the object's centre of mass. One without a pixel counts 0: an object centred on the last row or
    column has such.
    """
    share = float(truth.mean())
    if share in (0, 1):
        return float(soft.mean() if share else 1 - soft.mean())
    objects = share * _likeness(soft[truth]) + (1 - share) * _likeness(1 - soft[~truth])
    row, column = (int(place) + 1 for place in np.argwhere(truth).mean(0).round())
    regions = 0.0
    for rows in (slice(None, row), slice(row, None)):
        for columns in (slice(None, column), slice(column, None)):
            part = soft[rows, columns]
            if part.size:
                regions += part.size / soft.size * _structure(part, truth[rows, columns])
    return max(0.0, (objects + regions) / 2)


def _likeness(values: _Float64) -> float:
    """How near values that should be 1 are to it, the less the more they differ among themselves."""
    mean, spread = float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + spread + _TINY)


def _structure(soft: _Float64, truth: BoolArray) -> float:
    """Structural similarity of a region as a whole: its means, variances and covariance."""
    x, y, count = float(soft.mean()), float(truth.mean()), soft.size - 1 + _TINY
    apart, mask = soft - x, truth - y
    both = 4 * x * y * float((apart * mask).sum()) / count
    alone = (x**2 + y**2) * (float((apart**2).sum()) + float((mask**2).sum())) / count
    if both == 0:
        return 1.0 if alone == 0 else 0.0
    return both / (alone + _TINY)


def e_curve(soft: _Float64, truth: BoolArray) -> _Float64:
    """E-measure (256,) of a map float64 (H, W) in 0..1 at the thresholds 255, 254, ... 0 of 255."""
    levels = (soft * 255).astype(np.uint8)
    inside, outside = (np.bincount(levels[part], minlength=256)[::-1].cumsum() for part in (truth, ~truth))
    return _alignment(inside, outside, truth)


def _alignment(hits: _Counts, false: _Counts, truth: BoolArray) -> _Float64:
    """E-measure of masks that have so many pixels within the truth and so many beside it.

    All pixels of one kind (hit, false alarm, miss, rightly left out) are aligned alike, so that counts suffice.
    """
    size, there = truth.size, int(np.count_nonzero(truth))
    shown = np.asarray(hits + false, np.float64)
    if there in (0, size):
        return (shown if there else size - shown) / (size - 1 + _TINY)
    share, seen = there / size, shown / size
    kinds = (
        (hits, 1 - seen, 1 - share),
        (false, 1 - seen, -share),
        (there - hits, -seen, 1 - share),
        (size - shown - (there - hits), -seen, -share),
    )
    total = np.zeros_like(shown)
    for count, mask, wanted in kinds:
        aligned = 2 * mask * wanted / (mask**2 + wanted**2 + _TINY)
        total += count * (aligned + 1) ** 2 / 4
    return np.asarray(total / (size - 1 + _TINY))


def weighted_f(soft: _Float64, truth: BoolArray) -> float:
    """Weighted F of a map float64 (H, W) in 0..1; 0 where the truth is empty.

    An error beside the object counts the more the farther it lies; one within counts as the mean around it where that
    is less, its surroundings beyond the object taken from the nearest pixel of the object.
    """
    import cv2

    if not truth.any():
        return 0.0
    nearest, weight = _beside(truth.tobytes(), truth.shape)
    error = np.abs(soft - truth)
    spread = error.ravel()[nearest]
    around = cv2.sepFilter2D(spread, cv2.CV_64F, _GAUSSIAN, _GAUSSIAN, borderType=cv2.BORDER_CONSTANT)
    within = np.minimum(error, around)[truth]
    beside = (error * weight)[~truth].sum()
    right = within.size - within.sum()
    recall, precision = 1 - within.mean(), right / (right + beside + _TINY)
    return float(2 * recall * precision / (recall + precision + _TINY))


@lru_cache(maxsize=2)
def _beside(truth: bytes, shape: tuple[int, int]) -> tuple[npt.NDArray[np.intp], _Float64]:
    """For each pixel (H, W) the place of the nearest pixel of the object, and the weight of an error there.

    Of the bytes of a bool (H, W) mask, which several maps are held against one after the other.
    """
    from scipy import ndimage

    mask = np.frombuffer(truth, np.bool_).reshape(shape)
    distance, (rows, columns) = ndimage.distance_transform_edt(~mask, return_indices=True)
    return np.asarray(rows * np.intp(shape[1]) + columns, np.intp), np.asarray(2 - 0.5 ** (distance / 5))
