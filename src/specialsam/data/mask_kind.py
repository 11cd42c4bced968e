"""Tell binary masks from label maps by their values: nobody writes down which of the two a folder of PNGs holds.

Each mask has a vote. A level other than the darkest and the brightest is a label where it fills areas, and a shade
where it only lines edges, as antialiasing and JPEG noise leave it: so of the pixels at such levels, the share counts
that lie in the middle of a 3x3 block of one level. Masks of 0/1, or of 0 alone, fit both kinds and do not vote. The
majority decides, binary where nothing speaks for label maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, LabelArray, PixelArray
from specialsam.core.masks import FOREGROUND
from specialsam.data.images import image_size, is_palette, read_mask_pixels
from specialsam.data.loading import OBJECT_LIMIT, label_map

Vote = Literal["binary", "index", "either", "odd"]

SAMPLE_MASKS = 200
SAMPLE_PIXELS = 60_000_000
"""At most this many masks and pixels are decoded for the decision."""

FLAT_SHARE = 0.2
"""Levels in between are labels from this share of flat pixels on: shades of an edge have almost none."""

MARGIN = 8
"""Levels of 255 this close to the darkest or the brightest count as noise of these."""


@dataclass(frozen=True)
class MaskKindDecision:
    """`kind` of a data set's masks, a `note` that says why, and the sampled masks that contradict it."""

    kind: Literal["binary", "index"]
    note: str
    odd: tuple[Path, ...] = ()


def vote(pixels: PixelArray, palette: bool = False) -> Vote:
    """What the raw pixels (H, W) or (H, W, C) of one mask speak for; "odd" is neither a mask nor a label map.

    `palette` says that the file stores indices into a palette, which no shade ever is.
    """
    if pixels.dtype == np.bool_:
        return "binary"
    labels = label_map(pixels)
    values = np.unique(labels)
    highest = int(values[-1])
    if highest <= 1:
        return "either"
    if labels.dtype == np.uint32 or palette:  # colours that differ between channels, or indices
        few = len(values) <= OBJECT_LIMIT
        return "binary" if palette and set(values.tolist()) <= {0, 255} else "index" if few else "odd"
    unit = 257 if labels.dtype == np.uint16 else 1
    bright = highest > FOREGROUND * unit
    if len(values) <= 2 and (values[0] == 0 or len(values) == 1):
        return "binary" if bright else "index"
    margin = MARGIN * unit
    noisy = bright and bool(((values > highest - margin) & (values < highest)).any())  # JPEG leaves noise at both ends
    between = (labels > margin * noisy) & (labels < (highest - margin * noisy if bright else highest + 1))
    count = int(between.sum())
    if not count:
        return "binary"
    flat = int((between & _flat(labels)).sum()) / count
    if flat >= FLAT_SHARE and len(values) <= OBJECT_LIMIT:
        return "index"
    return "binary" if bright and count <= labels.size // 2 else "odd"


def _flat(labels: LabelArray) -> BoolArray:
    """Pixels (H, W) in the middle of a 3x3 block of one level; beyond the border the last level goes on."""
    block = np.ones((3, 3), np.uint8)
    lowest = cv2.erode(labels, block, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(lowest == cv2.dilate(labels, block, borderType=cv2.BORDER_REPLICATE), np.bool_)


def decide(masks: Sequence[Path]) -> MaskKindDecision:
    """Decide from an even sample of the mask files; unreadable ones have no vote (they are found when loaded)."""
    step = max(1, -(-len(masks) // SAMPLE_MASKS))
    votes: dict[Path, tuple[Vote, int]] = {}
    budget = SAMPLE_PIXELS
    for path in masks[::step]:
        try:
            height, width = image_size(path)
            if height * width > budget and len(votes) >= 3:
                break
            pixels = read_mask_pixels(path)
            votes[path] = vote(pixels, is_palette(path)), int(pixels.max())
        except DataError:
            continue  # Reported by the header check or, for damage further inside, when the mask is loaded.
        budget -= height * width
    counted = [cast for cast, _ in votes.values()]
    binary, index = counted.count("binary"), counted.count("index")
    kind: Literal["binary", "index"] = "index" if index > binary else "binary"
    opposite = "binary" if kind == "index" else "index"
    odd = [path for path, (cast, _) in votes.items() if cast == "odd" or (cast == opposite and not _fits(path, kind))]
    void = sum(1 for cast, highest in votes.values() if cast == "index" and highest == 255)
    note = (
        f"masks are read as {'label maps, one object a value' if kind == 'index' else 'binary, one object an image'}: "
        f"of {len(votes)} masks looked at, {binary} look binary, {index} like label maps, "
        f"{counted.count('either')} fit both, {counted.count('odd')} neither"
    )
    if kind == "index" and void:
        note += f"; {void} hold the value 255, which is kept as an object (Pascal VOC marks void areas with it)"
    return MaskKindDecision(kind, note, tuple(odd))


def _fits(path: Path, kind: str) -> bool:
    """Whether a mask that looks like the other kind can still be read as `kind` without loss."""
    pixels = read_mask_pixels(path)
    if kind == "index":
        return len(np.unique(label_map(pixels))) <= 2
    return False
