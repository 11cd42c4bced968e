"""Masks between memory (bool (P, H, W)) and disk or wire (PNG, COCO run-length), and small facts about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import cv2
import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, FloatArray, PixelArray, bounding_slices

FOREGROUND = 127
"""A binary mask's pixel is foreground when above this (COD10K, CAMO and MVTec AD agree on it)."""


class RunLength(TypedDict):
    """One mask as COCO writes it: [height, width], and the runs as a string or as plain numbers."""

    size: list[int]
    counts: str | list[int]


def from_binary(pixels: PixelArray) -> BoolArray:
    """Pixels (H, W[, C]) of a binary mask file to bool (P, H, W): one object, or none where all is background.

    Channel 0 counts. A mask of 0/1 values is read as such, any other by half of the range that its values need: 8 bits,
    or 16 where one of them is above 255.
    """
    plane = pixels[..., 0] if pixels.ndim == 3 else pixels
    if plane.ndim != 2:
        raise DataError(f"expected a (H, W) or (H, W, C) mask, got {pixels.shape}")
    if plane.dtype == np.bool_:
        mask = plane
    elif plane.size and plane.max() == 1:
        mask = plane == 1
    else:
        wide = plane.size and plane.max() > 255
        mask = plane > (FOREGROUND * 257 if wide else FOREGROUND)
    return mask[None].astype(np.bool_) if mask.any() else np.zeros((0, *plane.shape), np.bool_)


def from_index(pixels: PixelArray) -> BoolArray:
    """Label map (H, W) to bool (P, H, W), one object a value other than 0, in rising order of value."""
    if pixels.ndim != 2:
        raise DataError(f"expected a (H, W) label map, got {pixels.shape}")
    values = np.unique(pixels)
    values = values[values != 0]
    return np.asarray(pixels[None] == values[:, None, None], np.bool_)


def from_rles(rles: Sequence[RunLength], height: int, width: int) -> BoolArray:
    """COCO run-length dictionaries to bool (P, height, width)."""
    from pycocotools import mask as coco

    out = np.zeros((len(rles), height, width), np.bool_)
    for index, rle in enumerate(rles):
        if tuple(rle["size"]) != (height, width):
            raise DataError(f"expected a run-length mask of {height}x{width}, got {rle['size'][0]}x{rle['size'][1]}")
        counts = rle["counts"]
        packed = coco.frPyObjects(rle, height, width) if isinstance(counts, list) else rle
        out[index] = coco.decode(packed).astype(np.bool_)
    return out


def to_rle(mask: BoolArray) -> RunLength:
    """Bool (H, W) to a COCO run-length dictionary whose counts are a str, ready for JSON."""
    from pycocotools import mask as coco

    # column by column as COCO reads them; numpy's own copy in that order takes ten times as long on large pictures
    turned = cv2.transpose(np.ascontiguousarray(mask, np.bool_).view(np.uint8))
    rle = coco.encode(turned.T)
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def tight_boxes(masks: BoolArray) -> FloatArray:
    """Tight boxes float32 (P, 4) of non-empty masks: (x0, y0, x1, y1) of the outermost foreground pixels, inclusive."""
    out = np.zeros((len(masks), 4), np.float32)
    for index, mask in enumerate(masks):
        where = bounding_slices(mask)
        if where is None:
            raise DataError(f"expected a non-empty mask for a box, got an empty one (object {index})")
        rows, columns = where
        out[index] = columns.start, rows.start, columns.stop - 1, rows.stop - 1
    return out


def deepest_pixel(mask: BoolArray) -> tuple[int, int]:
    """(x, y) of the pixel of a bool (H, W) mask that is farthest from its border; the image's border counts as one.

    Among equally far pixels it is the one nearest to the mask's centre.
    """
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if not width:
        raise DataError("expected a non-empty mask for a point, got an empty one")
    own = mask[y : y + height, x : x + width]
    rows, columns = np.nonzero(own)
    centre = (columns + x).mean(), (rows + y).mean()
    padded = np.pad(own.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    rows, columns = np.nonzero(distance >= distance.max() - 1e-4)
    nearest = int(np.argmin((columns + x - centre[0]) ** 2 + (rows + y - centre[1]) ** 2))
    return int(columns[nearest]) + x, int(rows[nearest]) + y


def interior_point(mask: BoolArray) -> tuple[int, int]:
    """(x, y) of the deepest pixel of the largest 8-connected component of a bool (H, W) mask."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if not width:
        raise DataError("expected a non-empty mask for a point, got an empty one")
    x0, y0 = left - left % 2, top - top % 2  # components are numbered by blocks of 2 x 2, which decides between equals
    own = mask[y0 : top + height, x0 : left + width].astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(own, connectivity=8)
    x, y = deepest_pixel(np.asarray(labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))))
    return x + x0, y + y0
