"""From the pixels of one mask file to label numbers: palettes, alpha, lossy files and their flat levels, pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.core.geometry import BoolArray, ImageArray, LabelArray, PixelArray
from specialsam.core.types import MaskReading
from specialsam.data.headers import PIXEL_LIMIT, is_lossy, page_count, read_palette
from specialsam.data.images import narrowed, read_alpha, read_mask_pixels
from specialsam.data.tiffs import tiff_pages

TIGHT = 16
"""Levels of 255 within which a lossy file keeps a flat colour, in each channel, once noise is filtered."""
SPREAD = 40
"""The same for colours, of which JPEG keeps less."""
CALM = 10
"""Levels in which a 3x3 block of a flat area varies in a lossy file, once noise is filtered."""
MEDIAN = 5
"""Side of the median filter that takes the noise of lossy files away and leaves edges where they are."""
LEAST_FLAT = 9
"""Pixels of such blocks that make a level, and the share of the pixels near it that must lie in them."""
FLAT_SHARE = 0.2
BLEED = {True: 8, False: 2}
"""Pixels over which a level's colours run into others, in lossy files and in antialiased ones."""
SHADES = 8
"""A file without loss has shades, not labels, where it holds more values than three a level and these."""
MANY_SHARE = 0.05
"""The same share for thousands of labels: small cells have little inside, noise has nothing."""
MOST_LEVELS = 64
FEW_COLOURS = 32
BLOCK = np.ones((3, 3), np.uint8)


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


def flat(labels: LabelArray) -> BoolArray:
    """Pixels (H, W) in the middle of a 3x3 block of one level; beyond the border the last level goes on."""
    planes = [labels] if labels.dtype != np.uint32 else [labels >> 16, labels & 0xFFFF]
    out = np.ones(labels.shape, np.bool_)
    for plane in planes:
        narrow = plane if plane.dtype in (np.uint8, np.uint16) else plane.astype(np.uint16)
        lowest = cv2.erode(narrow, BLOCK, borderType=cv2.BORDER_REPLICATE)
        out &= lowest == cv2.dilate(narrow, BLOCK, borderType=cv2.BORDER_REPLICATE)
    return out


def fills_areas(labels: LabelArray, share: float = FLAT_SHARE) -> bool:
    """Whether the values of a map (H, W) beside the smallest lie as labels do, in areas, and not as shades of edges."""
    inside = labels != labels.min()
    count = int(inside.sum())
    return bool(count) and int((inside & flat(labels)).sum()) / count >= share


def mask_values(path: Path, *, pixel_limit: int = PIXEL_LIMIT) -> tuple[PixelArray, bool]:
    """The pixels (H, W[, C]) of a mask file, and whether they are indices.

    A palette of greys, or of many shades, gives its colours.

    Errors as in `read_image`.
    """
    pixels = read_mask_pixels(path, pixel_limit=pixel_limit)
    palette = read_palette(path)
    if palette is None:
        return pixels, False
    used = np.unique(pixels)
    colours = palette[used]
    distinct = len(np.unique(colours, axis=0)) == len(used)
    grey = bool((colours[:, 0] == colours[:, 1]).all() and (colours[:, 1] == colours[:, 2]).all())
    if distinct and grey:
        return palette[pixels][..., 0], False
    moved = used[0] == 0 and len(used) > 1 and bool(colours[0].any()) and not colours[1:].any(axis=1).all()
    if distinct and (moved or len(used) > FEW_COLOURS):
        return palette[pixels], False  # black is not the first index, or shades: a picture that was quantised
    return pixels, True


def shape_in_alpha(path: Path) -> bool | None:
    """Whether a mask's shape is in its alpha channel: one colour everywhere, transparency that varies.

    Also a picture cut out along the shape. None where there is no alpha, or no shape in either.
    """
    alpha = read_alpha(path)
    if alpha is None:
        return None
    if alpha.min() == alpha.max():
        return False
    pixels = read_mask_pixels(path)
    colours = pixels[..., :-1] if pixels.ndim == 3 else pixels[..., None]
    seen = colours[alpha > 0]
    if not len(seen):
        return None
    if bool((seen == seen[0]).all()):  # one paint, whatever is stored under full transparency
        shown = colours.reshape(-1, colours.shape[-1])
        return bool((shown == shown[0]).all()) or bool((alpha == 0).any())
    many = len(np.unique(label_map(np.ascontiguousarray(colours)))) > FEW_COLOURS**2
    return many and bool(np.isin(alpha, (0, 255)).mean() > 0.9)


def needs_levels(values: int, levels: int, lossy: bool) -> bool:
    """Whether a file of so many values is to be read by its flat levels."""
    return values > levels if lossy else values > 3 * levels + SHADES


def flat_levels(pixels: PixelArray, lossy: bool) -> dict[int, int]:
    """Colours (0xRRGGBB) of the flat areas of a mask of bytes (H, W[, C]), with how many pixels they have."""
    colours = np.asarray(cv2.medianBlur(_rgb(pixels), MEDIAN) if lossy else _rgb(pixels), np.uint8)
    tolerance = CALM if lossy else 0
    lowest = cv2.erode(colours, BLOCK, borderType=cv2.BORDER_REPLICATE)
    highest = cv2.dilate(colours, BLOCK, borderType=cv2.BORDER_REPLICATE)
    calm = ((highest - lowest) <= tolerance).all(2)
    found: dict[int, int] = {}
    numbers, counts = np.unique(_packed(colours[calm]), return_counts=True)
    for number in numbers[np.argsort(-counts, kind="stable")][:4096].tolist():
        if any(_alike(number, level, lossy) for level in found):
            continue
        near = (np.abs(colours.astype(np.int16) - _colour(number)) <= TIGHT).all(2)
        inside = int((near & calm).sum())
        if inside >= LEAST_FLAT and inside >= FLAT_SHARE * int(near.sum()):
            found[_rounded(number)] = inside
        if len(found) > MOST_LEVELS:
            break
    return found


def merged_levels(every: Sequence[Mapping[int, int]], lossy: bool) -> tuple[int, ...]:
    """The levels of a whole data set from those of its masks, rising; near ones are one in lossy files."""
    weights: dict[int, int] = {}
    for levels in every:
        for level, count in levels.items():
            weights[level] = weights.get(level, 0) + count
    kept: list[int] = []
    for level in sorted(weights, key=lambda level: (-weights[level], level)):
        if not any(_alike(level, other, lossy) for other in kept):
            kept.append(level)
    return tuple(sorted(kept))


def snapped(pixels: PixelArray, levels: Sequence[int], lossy: bool) -> ImageArray:
    """Each pixel (H, W[, C]) as one of the levels, uint8 (H, W, 3): the nearest colour of those that begin near by."""
    colours = (cv2.medianBlur(_rgb(pixels), 3) if lossy and len(levels) > 2 else _rgb(pixels)).astype(np.int32)
    palette = np.array([_colour(level) for level in levels])
    far = np.stack([np.square(colours - colour).sum(2) for colour in palette]).astype(np.float32)
    near = far.argmin(0)
    if len(levels) > 2:
        close = far.min(0) <= 3 * TIGHT**2 if lossy else far.min(0) == 0
        for index in range(len(levels)):
            seeds = cv2.erode((close & (near == index)).astype(np.uint8), BLOCK, borderType=cv2.BORDER_REPLICATE)
            away = cv2.distanceTransform(1 - seeds, cv2.DIST_L2, 3) if seeds.any() else np.float32(1e6)
            far[index] += np.where(away > BLEED[lossy], np.float32(1e6) + away, np.float32(0))
        near = far.argmin(0)
    return np.asarray(palette[near], np.uint8)


def planes(path: Path, reading: MaskReading | None, *, pixel_limit: int = PIXEL_LIMIT) -> list[PixelArray]:
    """The pixels (H, W[, C]) of a mask file as `reading` says: alpha, flat levels, or a plane a page; else one."""
    if reading is not None and reading.alpha:
        alpha = read_alpha(path, pixel_limit=pixel_limit)
        if alpha is not None:
            return [alpha]
    if reading is not None and reading.pages and page_count(path) > 1:
        return [narrowed(path, page) for page in tiff_pages(path)]
    pixels, _ = mask_values(path, pixel_limit=pixel_limit)
    if reading is not None and reading.levels and pixels.dtype == np.uint8:
        lossy = is_lossy(path)
        if needs_levels(len(np.unique(label_map(pixels))), len(reading.levels), lossy):
            return [snapped(pixels, reading.levels, lossy)]
    return [pixels]


def _rgb(pixels: PixelArray) -> ImageArray:
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    three = planes[..., :3] if planes.shape[2] >= 3 else np.repeat(planes[..., :1], 3, axis=2)
    return np.ascontiguousarray(three, np.uint8)


def _packed(colours: ImageArray) -> npt.NDArray[np.uint32]:
    wide = colours.astype(np.uint32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], np.uint32)


def _colour(level: int) -> npt.NDArray[np.int16]:
    return np.array([level >> 16 & 255, level >> 8 & 255, level & 255], np.int16)


def _alike(one: int, other: int, lossy: bool) -> bool:
    """Whether two levels are one that noise has spread: colours spread farther than greys."""
    colourful = any(
        max(channels) - min(channels) > TIGHT for channels in (_colour(one).tolist(), _colour(other).tolist())
    )
    return _apart(one, other) <= (SPREAD if colourful else TIGHT) if lossy else one == other


def _apart(one: int, other: int) -> int:
    return int(np.abs(_colour(one) - _colour(other)).max())


def _rounded(level: int) -> int:
    """A level with channels that are all but black or white made so."""
    channels = [0 if value <= CALM else 255 if value >= 255 - CALM else value for value in _colour(level).tolist()]
    return channels[0] << 16 | channels[1] << 8 | channels[2]
