"""How well the outline of a mask lies on the edges of its image, and where it would have to move to lie better.

The image's gradient is replaced by its rank within the image (0 the flattest pixel, 255 the steepest), so that a dark
photograph and a bright one count alike and a random outline scores 127 whatever the texture.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.core.geometry import BoolArray, FloatArray, ImageArray

WORKING_SIDE = 512
"""Longest side in pixels at which outlines and gradients are compared; smaller images are left as they are."""

REACH = 16
"""Working pixels by which an outline is shifted at most, each way."""

MOST_POINTS = 400
"""Outline points looked up for each shift: 1,089 shifts of 400 points take about 3 ms."""

_SMOOTH = 1.2
_NEUTRAL = 127
_LEVELS = 1024

Bytes = npt.NDArray[np.uint8]
Points = npt.NDArray[np.int64]


def working_scale(size: tuple[int, int]) -> float:
    """Working pixels per original pixel of an image of `size` (height, width), at most 1."""
    return min(1.0, WORKING_SIDE / max(size))


def shrink(array: Bytes, scale: float) -> Bytes:
    """Scale a uint8 (H, W[, 3]) array by `scale` <= 1, averaging over areas; each side keeps at least one pixel."""
    if scale >= 1:
        return array
    height, width = (max(1, round(side * scale)) for side in array.shape[:2])
    return np.asarray(cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def gradient_rank(image: ImageArray) -> Bytes:
    """Rank 0..255 of each pixel's colour gradient (Lab, Sobel after a light blur) within its image, uint8 (H, W).

    `image` is uint8 RGB (H, W, 3).
    """
    lab = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), (0, 0), _SMOOTH)
    along = cv2.Sobel(lab, cv2.CV_32F, 1, 0).reshape(-1, 3)
    across = cv2.Sobel(lab, cv2.CV_32F, 0, 1).reshape(-1, 3)
    steep = np.sqrt(np.einsum("ij,ij->i", along, along) + np.einsum("ij,ij->i", across, across))
    top = float(steep.max())
    if top <= 0:
        return np.full(image.shape[:2], _NEUTRAL, np.uint8)
    level = (np.sqrt(steep / top) * (_LEVELS - 1)).astype(np.int64)  # the root gives weak edges levels of their own
    share = np.cumsum(np.bincount(level, minlength=_LEVELS)) / level.size
    return np.asarray((share * 255).astype(np.uint8)[level].reshape(image.shape[:2]), np.uint8)


def outline_points(mask: BoolArray) -> Points:
    """(x, y) int (N, 2) of the outline pixels of a bool (H, W) mask.

    Pixels where the object is cut off by the image's border say nothing of an edge and are left out.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return np.zeros((0, 2), np.int64)
    points = np.concatenate(contours).reshape(-1, 2).astype(np.int64)
    height, width = mask.shape
    inner = (points > 1).all(1) & (points[:, 0] < width - 2) & (points[:, 1] < height - 2)
    return np.asarray(points[inner], np.int64)


def thinned(points: Points, most: int) -> Points:
    """At most `most` of the points int64 (N, 2), evenly along their order."""
    if len(points) <= most:
        return points
    return np.asarray(points[np.linspace(0, len(points) - 1, most).astype(np.int64)], np.int64)


def agreement(rank: Bytes, points: Points) -> float:
    """Mean gradient rank in 0..1 under outline points int64 (N, 2) as (x, y); .5 for points off the image and for none.

    `rank` uint8 (H, W) is that of `gradient_rank`.
    """
    if not len(points):
        return 0.5
    height, width = rank.shape
    x, y = points[:, 0], points[:, 1]
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    values = np.full(len(points), _NEUTRAL, np.float64)
    values[inside] = rank[y[inside], x[inside]]
    return float(values.mean()) / 255


def shift_map(rank: Bytes, points: Points) -> FloatArray:
    """Agreement for every shift of the outline: float32 (33, 33), entry [dy + 16, dx + 16] for points + (dx, dy).

    `rank` uint8 (H, W) is that of `gradient_rank`, `points` int64 (N, 2) are (x, y) of the outline.
    """
    side = 2 * REACH + 1
    if not len(points):
        return np.full((side, side), 0.5, np.float32)
    padded = np.pad(rank, REACH, constant_values=_NEUTRAL)
    steps = np.arange(-REACH, REACH + 1)
    offsets = (steps[:, None] * padded.shape[1] + steps[None]).ravel()
    start = (points[:, 1] + REACH) * padded.shape[1] + points[:, 0] + REACH
    values = padded.ravel()[start[:, None] + offsets[None]]
    return np.asarray(values.mean(0, dtype=np.float32).reshape(side, side) / 255, np.float32)


def best_shift(shifts: FloatArray) -> tuple[int, int]:
    """(dx, dy) at which a shift map float32 (33, 33) is highest: by how much the outline would have to move."""
    row, column = divmod(int(np.argmax(shifts)), shifts.shape[1])
    return column - REACH, row - REACH
