"""How well objects are found that nobody pointed at: as boxes of a detector are judged, and as anomaly maps are.

Objects are judged as COCO judges them (Lin et al. 2014, "Microsoft COCO: Common Objects in Context"; the details are
those of pycocotools' COCOeval without crowds, area limits and a limit of detections). Soft maps are judged by pixels
and by connected regions as anomaly detection does (Bergmann et al. 2021, "The MVTec Anomaly Detection Dataset"). Of a
map these need no more than how many pixels have which level: a whole test set is judged from small histograms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.core.errors import DataError, UsageError
from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.metrics.overlaps import check_pair

IntArray = npt.NDArray[np.int64]
_Values = npt.NDArray[np.float64]

BINS = 1024
"""Levels of a score in 0..1: a score s has level floor(BINS * s), and 1 the last one."""

RECALLS = np.linspace(0, 1, 101)
"""Recalls (101,) at which COCO reads the precision."""


def match(ious: npt.NDArray[np.floating], scores: npt.ArrayLike, threshold: float) -> IntArray:
    """Index int64 (P,) of the true object that each found one is matched to, or -1.

    `ious` (P, T) are the IoU of P found and T true objects of one image, `scores` (P,) how sure each find is. Greedy as
    in COCO: by falling score (of equals the first) each find takes the true object of highest IoU (of equals the last)
    that is still free, if that is at least `threshold`. Raises DataError for shapes that do not fit.
    """
    order = _falling(scores)
    if ious.ndim != 2 or len(ious) != len(order):
        raise DataError(f"expected (P, T) IoUs of the {len(order)} found objects that have a score, got {ious.shape}")
    matched = np.full(len(ious), -1, np.int64)
    free, least = np.ones(ious.shape[1], np.bool_), min(threshold, 1 - 1e-10)
    for found in order if len(free) else ():
        left = np.where(free, ious[found], -1)
        best = len(left) - 1 - int(np.argmax(left[::-1]))
        if left[best] >= least:
            matched[found], free[best] = best, False
    return matched


def average_precision(images: Sequence[tuple[npt.ArrayLike, npt.ArrayLike, int]]) -> float:
    """COCO's average precision of one class at one IoU threshold, in 0..1; NaN where no image has a true object.

    An image is the scores (P,) of what was found, whether each is a hit, bool (P,) (`match` >= 0), and the number of
    true objects. All finds are pooled and sorted by falling score, equals in the order given; the precision, made to
    fall with recall, is read at 101 recalls and averaged.
    """
    total = sum(truths for _, _, truths in images)
    if not total:
        return math.nan
    hits = np.concatenate([np.asarray(hit, np.bool_).ravel() for _, hit, _ in images])
    order = _falling(np.concatenate([np.asarray(scores, np.float64).ravel() for scores, _, _ in images]))
    if len(order) != len(hits):
        raise DataError(f"expected a score and a hit of each found object, got {len(order)} scores, {len(hits)} hits")
    true = np.cumsum(hits[order])
    precision = true / np.arange(1, len(true) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(true / total, RECALLS, side="left")
    return float(np.append(falling, 0.0)[at].mean())


def recall_at(images: Sequence[npt.NDArray[np.floating]], count: int, threshold: float = 0.5) -> float:
    """Share of all true objects that one of the first `count` finds of their image matches; NaN without true objects.

    An image is its IoUs (P, T), the P found objects in falling order of score. One find matches one true object at
    most, by the rule of `match`: COCO's recall with `count` as the limit of detections.
    """
    return share_recalled([recalled(ious, count, threshold) for ious in images])


def recalled(ious: npt.NDArray[np.floating], count: int, threshold: float = 0.5) -> tuple[int, int]:
    """How many true objects of one image with IoUs (P, T) are matched as in `recall_at`, and how many there are."""
    if count < 1:
        raise UsageError(f"expected to look at the first 1 or more found objects, got {count}")
    firsts = ious[:count]
    return int((match(firsts, -np.arange(len(firsts)), threshold) >= 0).sum()), ious.shape[1]


def share_recalled(images: Sequence[tuple[int, int]]) -> float:
    """Share of the true objects of all images that are matched, by what `recalled` says of each; NaN without any."""
    total = sum(truths for _, truths in images)
    return sum(matched for matched, _ in images) / total if total else math.nan


def auroc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """Chance that a positive scores higher than a negative, ties half: the area under the ROC curve, in 0..1.

    `scores` (N,) and `positive` bool (N,). NaN where there is no positive or no negative (Hanley and McNeil 1982).
    """
    values, chosen = _finite(scores), np.asarray(positive, np.bool_).ravel()
    if len(values) != len(chosen):
        raise DataError(f"expected one label a score, got {len(values)} scores and {len(chosen)} labels")
    high, low = values[chosen], np.sort(values[~chosen])
    if not len(high) or not len(low):
        return math.nan
    below, up_to = (np.searchsorted(low, high, side=side) for side in ("left", "right"))
    return float((below + up_to).mean(dtype=np.float64) / (2 * len(low)))


@dataclass(frozen=True)
class PixelCounts:
    """How many pixels of one image's map have which level: all that pixel measures need to know of it.

    `inside` int64 (BINS,) counts the true pixels, `outside` int64 (BINS,) the others, `regions` the pixels of each
    8-connected true region, int64 (BINS,) each; `inside` is their sum.
    """

    inside: IntArray
    outside: IntArray
    regions: tuple[IntArray, ...]

    @classmethod
    def of(cls, score_map: FloatArray, truth: BoolArray) -> PixelCounts:
        """Counts of a map float32 (H, W) in 0..1 against its truth bool (H, W); DataError for other shapes or values.

        A pixel of level i or above is one of at least i / BINS, exactly.
        """
        check_pair(score_map, truth)
        low, high = float(score_map.min()), float(score_map.max())
        if not (low >= 0 and high <= 1):
            raise DataError(f"expected a map of scores in 0..1, got {low:g}..{high:g}")
        levels = np.minimum((score_map * BINS).astype(np.int64), BINS - 1)
        count, labels = cv2.connectedComponents(truth.astype(np.uint8), connectivity=8)
        places = (labels.astype(np.int64) * BINS + levels).ravel()
        table = np.bincount(places, minlength=count * BINS).astype(np.int64).reshape(count, BINS)
        return cls(table[1:].sum(0), table[0], tuple(table[1:]))

    def as_json(self) -> dict[str, Any]:
        """Plain lists for a journal: of `outside` and of each region its levels that occur and their counts."""
        return {"outside": _sparse(self.outside), "regions": [_sparse(region) for region in self.regions]}

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> PixelCounts:
        """What `as_json` wrote; DataError in one line for anything else."""
        try:
            regions = tuple(_dense(region) for region in fields["regions"])
            outside = _dense(fields["outside"])
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            kind = type(error).__name__
            raise DataError(f"expected pixel counts as written, got others ({kind}); measure the image anew") from error
        return cls(np.sum([np.zeros(BINS, np.int64), *regions], axis=0), outside, regions)


def pixel_f1max(counts: Sequence[PixelCounts]) -> tuple[float, float]:
    """Best F1 in 0..1 of the pooled pixels of all images over the thresholds i / BINS, and that threshold.

    A pixel is found where its score is at least the threshold. Of several best thresholds it is the middle one, which
    keeps away from the scores on either side. Both are NaN where no pixel is true.
    """
    inside, outside = _pooled(counts)
    if not inside.any():
        return math.nan, math.nan
    true = _at_least(inside)
    f1 = 2 * true / (true + _at_least(outside) + inside.sum())
    best = np.flatnonzero(f1 == f1.max())
    middle = int(best[len(best) // 2])
    return float(f1[middle]), middle / BINS


def pixel_auroc(counts: Sequence[PixelCounts]) -> float:
    """Area under the ROC curve of the pooled pixels of all images, in 0..1; NaN where all are true, or none.

    Pixels of the same level tie.
    """
    inside, outside = _pooled(counts)
    if not inside.any() or not outside.any():
        return math.nan
    below = np.cumsum(outside) - outside / 2
    return float((inside / inside.sum()) @ (below / outside.sum()))


def aupro(counts: Sequence[PixelCounts], limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false-positive rate of `limit`, over `limit`: in 0..1.

    At each threshold the overlap is the share of a true region's pixels that are found, averaged over the regions of
    all images whatever their size; the false-positive rate is the share of all pixels that are not true (Bergmann et
    al. 2021; like in their code the curve starts at 0 and is linear between thresholds). NaN where there is
    no true region, or nothing else.
    """
    if not 0 < limit <= 1:
        raise UsageError(f"expected a largest false-positive rate above 0 and up to 1, got {limit}")
    _, outside = _pooled(counts)
    regions = [region for count in counts for region in count.regions]
    if not regions or not outside.any():
        return math.nan
    overlaps = np.zeros(BINS)
    for region in regions:
        overlaps += _at_least(region) / region.sum()
    rates = np.append(0.0, _at_least(outside)[::-1] / outside.sum())
    shares = np.append(0.0, overlaps[::-1] / len(regions))
    within = rates <= limit
    across = np.append(rates[within], limit)
    up = np.append(shares[within], np.interp(limit, rates, shares))
    return float(np.trapezoid(up, across) / limit)


def iou_at(count: PixelCounts, threshold: float) -> float:
    """IoU in 0..1 of one image's pixels of at least `threshold` and its true ones; 1 where both are none.

    `threshold` in 0..1 counts as the next i / BINS from there on, and 1 as more than any pixel has.
    """
    if not 0 <= threshold <= 1:
        raise UsageError(f"expected a threshold in 0..1, got {threshold}")
    level = math.ceil(threshold * BINS)
    union = int(count.inside.sum() + count.outside[level:].sum())
    return int(count.inside[level:].sum()) / union if union else 1.0


def _falling(scores: npt.ArrayLike) -> npt.NDArray[np.intp]:
    return np.argsort(-_finite(scores), kind="stable")


def _finite(scores: npt.ArrayLike) -> _Values:
    values = np.asarray(scores, np.float64).ravel()
    wrong = int((~np.isfinite(values)).sum())
    if wrong:
        raise DataError(f"expected finite scores, got {wrong} of {len(values)} NaN or infinite")
    return values


def _pooled(counts: Iterable[PixelCounts]) -> tuple[IntArray, IntArray]:
    """Counts inside and outside over all images, int64 (BINS,) each."""
    inside, outside = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    for count in counts:
        inside += count.inside
        outside += count.outside
    return inside, outside


def _at_least(histogram: IntArray) -> IntArray:
    """How many pixels have each level or a higher one."""
    return np.cumsum(histogram[::-1])[::-1]


def _sparse(histogram: IntArray) -> list[list[int]]:
    levels = np.flatnonzero(histogram)
    return [levels.tolist(), histogram[levels].tolist()]


def _dense(pair: Sequence[Sequence[int]]) -> IntArray:
    levels, counts = (np.array(part, np.int64) for part in pair)
    if levels.shape != counts.shape or levels.ndim != 1 or (levels < 0).any() or (counts < 1).any():
        raise ValueError("levels and counts do not fit")
    histogram = np.zeros(BINS, np.int64)
    histogram[levels] = counts
    return histogram
