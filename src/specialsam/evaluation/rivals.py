"""Rivals that look at no pixel: a specialist that does not beat them has learned nothing about the image."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.core.types import Prompts


def relative_area(mask: BoolArray) -> float:
    """Foreground pixels of a bool (H, W) mask over the square of the image's shorter side."""
    return int(np.count_nonzero(mask)) / float(min(mask.shape)) ** 2


def disc_radius(areas: npt.ArrayLike) -> float:
    """Radius of the disc of the median object's area, as a fraction of the image's shorter side.

    `areas` (N,) are the relative areas of the training set's objects (`relative_area`), all positive.
    """
    values = np.asarray(areas, np.float64).ravel()
    if not len(values) or not (np.isfinite(values) & (values > 0)).all():
        raise DataError(f"expected the positive areas of at least one object, got {values.tolist()[:5]}")
    return math.sqrt(float(np.median(values)) / math.pi)


def disc(prompts: Prompts, size: tuple[int, int], radius_fraction: float) -> BoolArray:
    """A disc an object, bool (P, H, W), at the mean of its foreground points or else at its box's centre.

    `size` is (height, width); the radius is `radius_fraction` of the shorter of them, and never under half a pixel.
    """
    height, width = size
    if not 0 < radius_fraction < math.inf:
        raise DataError(f"expected a positive disc radius, got {radius_fraction}")
    radius = max(radius_fraction * min(size), 0.5)
    centres = np.stack([_centre(prompts, index) for index in range(len(prompts))]) if len(prompts) else np.zeros((0, 2))
    columns = np.arange(width)[None, None] - centres[:, 0, None, None]
    rows = np.arange(height)[None, :, None] - centres[:, 1, None, None]
    return np.asarray(columns**2 + rows**2 <= radius**2 + 1e-9, np.bool_)


def filled_box(prompts: Prompts, size: tuple[int, int]) -> BoolArray | None:
    """The filled box of each object, bool (P, H, W), its outermost pixels included; None when there are no boxes."""
    if prompts.boxes is None:
        return None
    height, width = size
    x0, y0, x1, y1 = (np.floor(side + 0.5)[:, None, None] for side in prompts.boxes.T)
    columns, rows = np.arange(width)[None, None], np.arange(height)[None, :, None]
    return np.asarray((columns >= x0) & (columns <= x1) & (rows >= y0) & (rows <= y1), np.bool_)


def _centre(prompts: Prompts, index: int) -> FloatArray:
    if prompts.points is not None and prompts.labels is not None:
        points = prompts.points[index][prompts.labels[index] == 1]
        if len(points):
            return np.asarray(points.mean(0), np.float32)
    if prompts.boxes is not None:
        return np.asarray(prompts.boxes[index].reshape(2, 2).mean(0), np.float32)
    raise DataError(f"expected a foreground point or a box to centre a disc on, got neither (object {index})")
