"""How well the outlines of two masks match within a tolerance in pixels.

Precision is the share of predicted boundary pixels with a true boundary pixel within the tolerance (Euclidean), recall
the reverse, F1 their harmonic mean: Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?";
Perazzi et al. 2016 (DAVIS) use the same F. Empty masks follow the convention of `overlap`.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray
from specialsam.metrics.overlaps import check_pair, empty_agreement

CANNY_LOW, CANNY_HIGH = 100, 200
"""Thresholds of the original study's edge detector."""

CANNY_MARGIN = 4
"""Pixels around the masks beyond which Canny (3x3 Sobel, 3x3 suppression) can find no edge of them."""

FEW = 12
"""Tolerance in pixels up to which a disc drawn about each target is faster than distances from all pixels."""

SLACK = 1e-3
"""Pixels that rounding may cost a distance."""

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
_Bytes = npt.NDArray[np.uint8]


def outline(mask: BoolArray) -> BoolArray:
    """Foreground pixels, bool (H, W), of a bool (H, W) mask with a 4-neighbour that is background or off the image."""
    pixels = mask.astype(np.uint8)
    inner = cv2.erode(pixels, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(pixels > inner, np.bool_)


def boundary(mask: BoolArray, truth: BoolArray, tolerance_px: float) -> dict[str, float]:
    """Precision, recall and F1 of the exact outlines of bool (H, W) masks, in 0..1, higher is better.

    `tolerance_px` is how far outlines may miss each other. The image's border counts as outline where an object touches
    it, so that a mask that is not empty always has one.
    """
    same = _checked(mask, truth, tolerance_px)
    if same is not None:
        return _named("boundary", same, same)
    rows, columns = _union_box(mask, truth, margin=0)
    return _matched("boundary", outline(mask[rows, columns]), outline(truth[rows, columns]), tolerance_px)


def boundary_canny(mask: BoolArray, truth: BoolArray, tolerance: float = 5) -> dict[str, float]:
    """Precision, recall and F1 of the Canny edges (100/200) of bool (H, W) masks as 0/255 images, in 0..1.

    As in the original study; `tolerance` in pixels.
    The image's border is no edge here, so a mask that is not empty may have none (one that fills the image). Where
    neither has an edge the answer is 1, where one of them has none 0; empty masks are decided before that.
    """
    same = _checked(mask, truth, tolerance)
    if same is not None:
        return _named("canny", same, same)
    rows, columns = _union_box(mask, truth, CANNY_MARGIN)
    found = [cv2.Canny(part[rows, columns].astype(np.uint8) * 255, CANNY_LOW, CANNY_HIGH) > 0 for part in (mask, truth)]
    same = empty_agreement(found[0], found[1])
    if same is not None:
        return _named("canny", same, same)
    return _matched("canny", found[0], found[1], tolerance)


def _checked(mask: BoolArray, truth: BoolArray, tolerance: float) -> float | None:
    check_pair(mask, truth)
    if not 0 <= tolerance < float("inf"):
        raise DataError(f"expected a tolerance of at least 0 pixels, got {tolerance}")
    return empty_agreement(mask, truth)


def _union_box(mask: BoolArray, truth: BoolArray, margin: int) -> tuple[slice, slice]:
    union = mask | truth
    rows, columns = np.flatnonzero(union.any(1)), np.flatnonzero(union.any(0))
    return (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + margin + 1),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + margin + 1),
    )


def _matched(prefix: str, predicted: BoolArray, true: BoolArray, tolerance: float) -> dict[str, float]:
    return _named(prefix, _share_near(predicted, true, tolerance), _share_near(true, predicted, tolerance))


def _share_near(edges: BoolArray, targets: BoolArray, tolerance: float) -> float:
    """Share of the edge pixels that have a target pixel within the tolerance; both have at least one pixel."""
    if tolerance <= FEW:
        return float(np.mean(cv2.dilate(targets.astype(np.uint8), _disc(tolerance))[edges]))
    away: _Bytes = (~targets).astype(np.uint8)
    distance = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(np.mean(distance[edges] <= tolerance + SLACK))


@lru_cache(maxsize=64)
def _disc(radius: float) -> _Bytes:
    """The pixels within `radius` of the middle one, uint8 (2 R + 1, 2 R + 1)."""
    reach = np.arange(-int(radius), int(radius) + 1)
    away = np.hypot(reach[:, None], reach[None])
    return np.asarray(away <= radius + SLACK, np.uint8)


def _named(prefix: str, precision: float, recall: float) -> dict[str, float]:
    total = precision + recall
    f1 = 2 * precision * recall / total if total else 0.0
    return {f"{prefix}_precision": precision, f"{prefix}_recall": recall, f"{prefix}_f1": f1}
