"""The measures of camouflaged object detection on soft maps, through PySODMetrics, one image at a time.

S-measure (Fan et al. 2017), E-measure (Fan et al. 2018), weighted F (Margolin et al. 2014) and mean absolute error.
Maps are taken as they are: the library's stretching to minimum and maximum, which makes noise of a blank map, is off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.metrics.overlaps import check_pair, mae

_Ssim = Callable[[npt.NDArray[np.float64], BoolArray], float]
THRESHOLD = 0.5
"""Probability above which a pixel is foreground, where a rule about empty masks needs to know."""


def cod(probability: FloatArray, truth: BoolArray) -> dict[str, float]:
    """S-measure, E-measure (mean, max, adaptive), weighted F and MAE of one map against its truth.

    The map is float32 (H, W) in 0..1, the truth bool (H, W).
    `e_max` is this image's own maximum over thresholds, so that its mean over images is at least the published maximum
    E-measure (the maximum of the mean curve, see `cod_dataset`); the means of the others are the published values. The
    E-measure of a perfect map is N / (N - 1) for N pixels by its definition. Where the truth is empty and no pixel of
    the map is above 0.5, all of them but S and MAE are 1, as everywhere in this package; the library would say 0. In
    every other case the values are the library's, so that they compare with published ones.
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


def _measure(probability: FloatArray, truth: BoolArray) -> tuple[dict[str, float], npt.NDArray[np.float64]]:
    """Values of one image that are averaged over images, and its E-measure at 256 thresholds."""
    import py_sod_metrics as sod

    check_pair(probability, truth)
    low, high = float(probability.min()), float(probability.max())
    if not (low >= 0 and high <= 1):
        raise DataError(f"expected foreground probabilities in 0..1, got {low:g}..{high:g}")
    soft = probability.astype(np.float64)
    structure, alignment, weighted = sod.Smeasure(), sod.Emeasure(), sod.WeightedFmeasure()
    structure.ssim = _skipping_empty(structure.ssim)
    structure.step(soft, truth, normalize=False)
    values = {"s_measure": float(structure.get_results()["sm"]), "mae": mae(probability, truth)}
    if not truth.any() and high <= THRESHOLD:
        return {**values, "e_adaptive": 1.0, "weighted_f": 1.0}, np.ones(256)
    alignment.step(soft, truth, normalize=False)
    weighted.step(soft, truth, normalize=False)
    measured = alignment.get_results()["em"]
    values |= {"e_adaptive": float(measured["adp"]), "weighted_f": float(weighted.get_results()["wfm"])}
    return values, np.asarray(measured["curve"], np.float64)


def _skipping_empty(ssim: _Ssim) -> _Ssim:
    """Quadrants without a pixel count 0: an object centred on the last row or column would make the S-measure NaN."""
    return lambda pred, gt: ssim(pred, gt) if pred.size else 0.0
