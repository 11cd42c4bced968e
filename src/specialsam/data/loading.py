"""From a record on disk to a sample in memory."""

from __future__ import annotations

from typing import cast

import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, ImageArray, LabelArray, PixelArray
from specialsam.core.masks import FOREGROUND, from_binary, from_index, from_rles
from specialsam.core.types import Record, Sample
from specialsam.data.images import PIXEL_LIMIT, image_size, read_image, read_mask_pixels
from specialsam.data.pairs import size_hint

OBJECT_LIMIT = 1000
"""A label map with more values than this is taken for a picture that is no label map."""

BYTE_LIMIT = 8_000_000_000
"""Masks (P, H, W) of one image that would take more memory than this are refused."""


def load_image_only(record: Record, *, pixel_limit: int = PIXEL_LIMIT) -> ImageArray:
    """The record's image, uint8 (H, W, 3) RGB upright; errors as in `read_image`."""
    return read_image(record.image, pixel_limit=pixel_limit)


def label_map(pixels: PixelArray) -> LabelArray:
    """Raw mask pixels (H, W[, C]) to one integer a pixel (H, W): channel 0 of grey ones, else a number a colour."""
    labels = cast(LabelArray, pixels.astype(np.uint8) if pixels.dtype == np.bool_ else pixels)
    if labels.ndim == 2:
        return labels
    if labels.shape[2] < 3:
        return labels[..., 0]
    red, green, blue = (labels[..., channel] for channel in range(3))
    if (red == green).all() and (green == blue).all():
        return red
    return np.asarray(red.astype(np.uint32) << 16 | green.astype(np.uint32) << 8 | blue, np.uint32)


def load_masks(record: Record, *, pixel_limit: int = PIXEL_LIMIT) -> BoolArray:
    """The record's masks, bool (P, H, W), without decoding its image; P = 0 where it is unlabelled or empty.

    Raises DataError for an unreadable mask, a binary one whose values are neither 0/1 nor reach above 127 (it would
    read as empty without being so), and a label map of more than 1,000 values.
    """
    if record.mask_kind == "none":
        return np.zeros((0, *image_size(record.image)), np.bool_)
    if record.mask_kind == "rle":
        if record.rles:
            height, width = (int(side) for side in record.rles[0]["size"])
            _check_memory(record, len(record.rles), height * width)
            return from_rles(record.rles, height, width)
        return np.zeros((0, *image_size(record.image)), np.bool_)
    if record.mask is None:
        raise DataError(f"{record.id}: expected a mask file, got none")
    pixels = read_mask_pixels(record.mask, pixel_limit=pixel_limit)
    if record.mask_kind == "binary":
        masks = from_binary(pixels)
        highest = int(pixels[..., 0].max() if pixels.ndim == 3 else pixels.max())
        if not len(masks) and highest:
            raise DataError(
                f"{record.mask}: expected a binary mask (0/1, or foreground above {FOREGROUND} of 255), "
                f"got values up to {highest} of {pixels.dtype}; a label map belongs in a data set of label maps"
            )
        return masks
    labels = label_map(pixels)
    values = len(np.unique(labels))
    if values > OBJECT_LIMIT:
        raise DataError(f"{record.mask}: expected a label map of at most {OBJECT_LIMIT} values, got {values}")
    _check_memory(record, values, labels.size)
    return from_index(labels)


def _check_memory(record: Record, objects: int, pixels: int) -> None:
    if objects * pixels > BYTE_LIMIT:
        raise DataError(
            f"{record.id}: {objects} masks of {pixels / 1e6:.0f} megapixels take {objects * pixels / 1e9:.0f} GB, "
            f"the limit is {BYTE_LIMIT / 1e9:.0f}; scale the image down or cut it into tiles"
        )


def load(record: Record, *, pixel_limit: int = PIXEL_LIMIT) -> Sample:
    """Image and masks of one record, checked against each other.

    Labels are kept where there are masks to carry them. Raises DataError, one line that names the file, for anything
    unreadable and for a mask of another size than its image.
    """
    image = load_image_only(record, pixel_limit=pixel_limit)
    size = (image.shape[0], image.shape[1])
    if record.mask_kind == "none" or (record.mask_kind == "rle" and not record.rles):
        return Sample(record, image, np.zeros((0, *size), np.bool_))
    masks = load_masks(record, pixel_limit=pixel_limit)
    got = (masks.shape[1], masks.shape[2])
    if got != size:
        message = f"{record.id}: expected mask of {size[0]}x{size[1]} (height x width), got {got[0]}x{got[1]}"
        raise DataError(message + size_hint(record.image, size, got))
    return Sample(record, image, masks, record.labels if len(masks) else ())
