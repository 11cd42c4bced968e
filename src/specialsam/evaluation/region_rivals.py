"""Classical rivals that do look at pixels: graph-based regions under a click, and GrabCut from a box."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.core.errors import UsageError
from specialsam.core.geometry import BoolArray, FloatArray, ImageArray

FELZENSZWALB_SCALES = (100, 200, 400, 700, 1000)
GRABCUT_ROUNDS = 5


def felzenszwalb_maps(image: ImageArray) -> npt.NDArray[np.int64]:
    """Label maps int64 (S, H, W) of Felzenszwalb and Huttenlocher 2004 at the usual range of scales."""
    try:
        from skimage.segmentation import felzenszwalb
    except ImportError as error:
        raise UsageError('the Felzenszwalb rival needs scikit-image: pip install "specialsam[test]"') from error
    maps = [felzenszwalb(image, scale=scale, sigma=0.8, min_size=50) for scale in FELZENSZWALB_SCALES]
    return np.stack(maps).astype(np.int64)


def regions_under(maps: npt.NDArray[np.int64], point: FloatArray) -> BoolArray:
    """The region that contains a point (x, y), bool (S, H, W), one of each of the S label maps."""
    x, y = (int(value) for value in point)
    return np.asarray(maps == maps[:, y, x][:, None, None], np.bool_)


def grabcuts(image: ImageArray, boxes: FloatArray, workers: int | None = None) -> BoolArray:
    """GrabCut from each of `boxes` (P, 4): bool (P, H, W). Boxes of the same pixels are cut once.

    Several at a time in `workers` threads (None: one a core), which OpenCV leaves Python's lock for; each cut sows its
    thread's random numbers anew, so that the masks do not depend on the number of threads.
    """
    distinct, places = np.unique(np.rint(boxes.reshape(-1, 4)), axis=0, return_inverse=True)
    if not len(distinct):
        return np.zeros((0, *image.shape[:2]), np.bool_)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        masks = list(pool.map(lambda box: grabcut(image, box), distinct))
    return np.stack([masks[place] for place in places.ravel()])


def grabcut(image: ImageArray, box: FloatArray) -> BoolArray:
    """GrabCut (Rother et al. 2004) started from a box (x0, y0, x1, y1): bool (H, W), the box itself where it fails."""
    x0, y0, x1, y1 = (round(float(side)) for side in box)
    inside = np.zeros(image.shape[:2], np.bool_)
    inside[y0 : y1 + 1, x0 : x1 + 1] = True
    labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    if inside.all() or not inside.any():
        return inside
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(
            cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
            labels,
            (0, 0, 1, 1),  # not read: the labels say where to start
            background,
            foreground,
            GRABCUT_ROUNDS,
            cv2.GC_INIT_WITH_MASK,
        )
    except cv2.error:
        return inside
    mask = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    return mask if mask.any() else inside
