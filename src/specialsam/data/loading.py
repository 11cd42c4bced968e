"""From a record on disk to a sample in memory."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, ImageArray, LabelArray, PixelArray
from specialsam.core.masks import FOREGROUND, from_binary, from_index, from_rles
from specialsam.core.types import Record, Sample
from specialsam.data.headers import PIXEL_LIMIT, image_size
from specialsam.data.images import read_image
from specialsam.data.mask_values import MANY_SHARE, fills_areas, label_map, planes
from specialsam.data.pairs import size_hint

OBJECT_LIMIT = 1000
"""A label map with more values than this is taken for a picture that is no label map."""

BYTE_LIMIT = 8_000_000_000
"""Masks (P, H, W) of one image that would take more memory than this are refused."""


def load_image_only(record: Record, *, pixel_limit: int = PIXEL_LIMIT) -> ImageArray:
    """The record's image, uint8 (H, W, 3) RGB upright; errors as in `read_image`."""
    return read_image(record.image, record.reading, pixel_limit=pixel_limit)


def load_masks(record: Record, *, pixel_limit: int = PIXEL_LIMIT) -> BoolArray:
    """The record's masks, bool (P, H, W), without decoding its image; P = 0 where it is unlabelled or empty.

    Raises DataError for an unreadable mask, a binary one whose values are neither 0/1 nor reach above 127 (it would
    read as empty without being so), and a picture of more than 1,000 values that is no label map.
    """
    if record.mask_kind == "none":
        return np.zeros((0, *image_size(record.image)), np.bool_)
    masks = _from_rles(record) if record.mask_kind == "rle" else _from_files(record, pixel_limit)
    return parts_of(record, masks) if record.masks_as is not None and record.masks_as.parts else masks


def _from_rles(record: Record) -> BoolArray:
    if not record.rles:
        return np.zeros((0, *image_size(record.image)), np.bool_)
    height, width = (int(side) for side in record.rles[0]["size"])
    _check_memory(record, len(record.rles), height * width)
    return from_rles(record.rles, height, width)


def _from_files(record: Record, pixel_limit: int) -> BoolArray:
    if record.mask is None:
        raise DataError(f"{record.id}: expected a mask file, got none")
    found = [
        _from_plane(record, path, pixels)
        for path in (record.mask, *record.more)
        for pixels in planes(path, record.masks_as, pixel_limit=pixel_limit)
    ]
    sizes = {masks.shape[1:] for masks in found}
    if len(sizes) > 1:
        told = " and ".join(f"{height}x{width}" for height, width in sorted(sizes))
        raise DataError(f"{record.id}: expected masks of one size in its {1 + len(record.more)} files, got {told}")
    return found[0] if len(found) == 1 else np.concatenate(found)


def _from_plane(record: Record, path: Path, pixels: PixelArray) -> BoolArray:
    if record.mask_kind == "binary":
        masks = from_binary(pixels)
        highest = int(pixels[..., 0].max() if pixels.ndim == 3 else pixels.max())
        if not len(masks) and highest:
            raise DataError(
                f"{path}: expected a binary mask (0/1, or foreground above {FOREGROUND} of 255), "
                f"got values up to {highest} of {pixels.dtype}; a label map belongs in a data set of label maps"
            )
        return masks
    labels = without_ground(label_map(pixels), record)
    values = len(np.unique(labels))
    if values > OBJECT_LIMIT and not fills_areas(labels, MANY_SHARE):
        raise DataError(
            f"{path}: expected a label map, whose values fill areas, or one of at most {OBJECT_LIMIT} values, "
            f"got {values} that do not"
        )
    _check_memory(record, values, labels.size)
    return from_index(labels)


def without_ground(labels: LabelArray, record: Record) -> LabelArray:
    """A label map (H, W) in which 0 is what is no object, whatever number that has in the record's file."""
    known = record.masks_as
    if known is None or not (known.background or known.void):
        return labels
    out = labels.astype(np.uint32)
    if known.background:
        out[labels == 0] = int(labels.max()) + 1
    out[np.isin(labels, (known.background, *known.void))] = 0
    return out


def parts_of(record: Record, masks: BoolArray) -> BoolArray:
    """Each connected part (8 neighbours) of each mask bool (P, H, W) as a mask of its own, in their order."""
    out: list[BoolArray] = []
    for mask in masks:
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        _check_memory(record, len(out) + count, mask.size)
        out += [np.asarray(labels == number) for number in range(1, count)]
    return np.stack(out) if out else np.zeros((0, *masks.shape[1:]), np.bool_)


def labels_of(record: Record, objects: int) -> tuple[str, ...]:
    """The labels of so many objects of a record: its own, one for all of them, or none where they do not fit."""
    if len(record.labels) == objects:
        return record.labels
    return record.labels[:1] * objects if len(set(record.labels)) == 1 else ()


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
    return Sample(record, image, masks, labels_of(record, len(masks)))
