"""Tables of what was found without a prompt, with bootstrap intervals over images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from specialsam.core.randomness import generator
from specialsam.evaluation.finding import MAP_METRICS, ImageFinds
from specialsam.evaluation.statistics import bootstrap_mean
from specialsam.metrics.detection import (
    PixelCounts,
    aupro,
    auroc,
    average_precision,
    iou_at,
    match,
    pixel_f1max,
    recalled,
    share_recalled,
)

TITLES = {
    "iou": "IoU of all that is found",
    "s_measure": "S-measure",
    "e_mean": "E-measure (mean)",
    "weighted_f": "Weighted F",
    "mae": "MAE",
    "ap50": "AP at IoU .5",
    "ap75": "AP at IoU .75",
    "recall10": "Recall at 10 proposals",
    "image_auroc": "Image AUROC",
    "false_images": "Images of nothing where something is found",
    "pixel_f1max": "Pixel F1, best threshold",
    "aupro": "AUPRO",
    "iou_good": "IoU at a threshold of good images",
    "seconds": "Seconds an image beside the encoder",
}
"""Every number of the table, in its order."""
REPEATS = 200
"""Resamples of a number that belongs to all images together."""
_Set = Callable[[Sequence[Any]], float]


def found_table(
    finds: Mapping[str, Sequence[ImageFinds]], thresholds: Mapping[str, float] | None = None, seed: int = 0
) -> pd.DataFrame:
    """One line a finder and metric: model, metric, mean, low, high (95 %), n, failed; numbers that mean nothing miss.

    A failed image counts as one with objects where nothing was found; what counts pixels of all images together (pixel
    F1, AUPRO) leaves it out, as its `n` shows. `thresholds` by finder are those of a map's levels that were set on good
    images.
    """
    lines = []
    for name, every in finds.items():
        with_objects = [one for one in every if one.objects or one.error]
        blank = [one for one in every if not one.objects and not one.error]
        failed = sum(bool(one.error) for one in every)
        for metric in MAP_METRICS:
            worst = 1.0 if metric == "mae" else 0.0
            values = [one.values.get(metric, worst) for one in with_objects]
            lines += _line(name, metric, *_mean(values, seed), len(values), failed)
        sets: dict[str, tuple[_Set, Sequence[Any]]] = {
            "ap50": (average_precision, [_hits(one, 0.5) for one in every]),
            "ap75": (average_precision, [_hits(one, 0.75) for one in every]),
            "recall10": (share_recalled, [_recalled(one) for one in with_objects]),
        }
        if blank:
            sets["image_auroc"] = (
                lambda images: auroc([i.score for i in images], [i.objects > 0 or bool(i.error) for i in images]),
                every,
            )
            false = [float(one.found > 0) for one in blank]
            lines += _line(name, "false_images", *_mean(false, seed), len(blank), failed)
        counts = {one.record: PixelCounts.read(one.pixels) for one in every if one.pixels}
        if counts:
            sets["pixel_f1max"] = (lambda images: pixel_f1max(images)[0], list(counts.values()))
            sets["aupro"] = (aupro, list(counts.values()))
        if counts and thresholds and name in thresholds:
            asked = [one for one in with_objects if one.record in counts or one.error]
            each = [0.0 if one.error else iou_at(counts[one.record], thresholds[name]) for one in asked]
            lines += _line(name, "iou_good", *_mean(each, seed), len(each), failed)
        for metric, (of, images) in sets.items():
            lines += _line(name, metric, *_together(of, images, seed), len(images), failed)
        spent = [one.seconds for one in every if not one.error]
        lines += _line(name, "seconds", *_mean(spent, seed), len(spent), failed)
    order = {metric: place for place, metric in enumerate(TITLES)}
    table = pd.DataFrame(lines, columns=["model", "metric", "mean", "low", "high", "n", "failed"])
    return table.sort_values("metric", key=lambda column: column.map(order), kind="stable").reset_index(drop=True)


def good_level(finds: Sequence[ImageFinds], share: float = 0.001) -> float:
    """The level of a map above which at most `share` of all pixels of good images lie: a threshold without defects.

    NaN where no image has counts of its pixels: all of them failed.
    """
    if not any(one.pixels for one in finds):
        return float("nan")
    counts = np.sum([PixelCounts.read(one.pixels).outside for one in finds if one.pixels], axis=0)
    above = np.cumsum(counts[::-1])[::-1]
    enough = np.flatnonzero(above <= share * counts.sum())
    return float(enough[0]) / len(counts) if len(enough) else 1.0


def _line(name: str, metric: str, mean: float, low: float, high: float, n: int, failed: int) -> list[dict[str, object]]:
    if not np.isfinite(mean):
        return []
    return [{"model": name, "metric": metric, "mean": mean, "low": low, "high": high, "n": n, "failed": failed}]


def _mean(values: Sequence[float], seed: int) -> tuple[float, float, float]:
    if not values:
        return float("nan"), float("nan"), float("nan")
    found = bootstrap_mean(values, seed)
    return found.mean, found.low, found.high


def _together(of: _Set, images: Sequence[Any], seed: int) -> tuple[float, float, float]:
    """A number of all images, and the 2.5 and 97.5 % quantiles of it over images drawn with replacement."""
    value = of(images) if images else float("nan")
    rng = generator(seed, "found")
    drawn = (
        [of([images[i] for i in rng.integers(len(images), size=len(images))]) for _ in range(REPEATS)] if images else []
    )
    known = [one for one in drawn if np.isfinite(one)]
    if not np.isfinite(value) or not known:
        return value, float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(value), float(low), float(high)


def _ious(one: ImageFinds) -> npt.NDArray[np.float64]:
    return np.array(one.ious, np.float64).reshape(len(one.scores), one.objects)


def _hits(one: ImageFinds, threshold: float) -> tuple[Sequence[float], npt.NDArray[np.bool_], int]:
    """An image as `average_precision` asks for it; of a failed one an object was missed."""
    return one.scores, match(_ious(one), one.scores, threshold) >= 0, max(one.objects, bool(one.error))


def _recalled(one: ImageFinds) -> tuple[int, int]:
    """An image as `share_recalled` asks for it; of a failed one an object was missed."""
    return recalled(np.zeros((0, 1)) if one.error else _ious(one), 10)
