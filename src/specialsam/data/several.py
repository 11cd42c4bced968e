"""Several masks of one image: further objects, or the same objects by several annotators? Measured on the masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, PixelArray
from specialsam.core.masks import from_binary
from specialsam.core.sampling import evenly
from specialsam.core.types import MaskReading
from specialsam.data.headers import page_count
from specialsam.data.mask_values import label_map, planes
from specialsam.data.read_settings import READ, ReadSettings

Kind = Literal["binary", "index"]
Meaning = Literal["objects", "annotators"]

LOOKED = 30
"""Images whose masks are compared, evenly chosen."""
MASKS = 12
"""Masks of one image that are compared with each other."""
AGREE = 0.5
"""Masks of one image are those of annotators where they overlap by this IoU in the median."""


def foreground(pixels: PixelArray, kind: Kind, reading: MaskReading | None) -> BoolArray:
    """What one plane of a mask file shows, bool (H, W)."""
    if kind == "binary":
        masks = from_binary(pixels)
        return np.asarray(masks.any(0), np.bool_)
    ground = (0,) if reading is None else (reading.background, *reading.void)
    return ~np.isin(label_map(pixels), ground)


def meaning_of_several(
    groups: Iterable[Sequence[Path]], kind: Kind, reading: MaskReading | None, how: ReadSettings = READ
) -> tuple[Meaning, str]:
    """What the several mask files of each image are, and how far they overlap, in words."""
    many = [group for group in groups if len(group) > 1]
    return _meaning((lambda group=group: _files(group, kind, reading) for group in evenly(many, LOOKED)), how)


def meaning_of_pages(paths: Sequence[Path], kind: Kind, how: ReadSettings = READ) -> tuple[Meaning, str]:
    """The same for the pages of TIFF files."""
    reading = MaskReading(pages=True)
    return _meaning((lambda path=path: _files([path], kind, reading) for path in evenly(paths, LOOKED)), how)


def many_paged(paths: Sequence[Path]) -> list[Path]:
    """The TIFF files that have several pages."""
    out = []
    for path in paths:
        try:
            if path.suffix.lower() in (".tif", ".tiff") and page_count(path) > 1:
                out.append(path)
        except DataError:
            continue  # Reported by the header check.
    return out


def _files(group: Sequence[Path], kind: Kind, reading: MaskReading | None) -> list[BoolArray]:
    return [foreground(plane, kind, reading) for path in group[:MASKS] for plane in planes(path, reading)][:MASKS]


def _meaning(groups: Iterable, how: ReadSettings) -> tuple[Meaning, str]:  # type: ignore[type-arg]
    shared = []
    for take in groups:
        try:
            masks = [mask for mask in take() if mask.any()]
        except DataError:
            continue
        for one, other in combinations(masks, 2):
            if one.shape == other.shape:
                shared.append(int((one & other).sum()) / int((one | other).sum()))
    middle = float(np.median(shared)) if shared else 0.0
    told = f"they overlap by an IoU of {middle:.2f} in the median"
    if how.several != "auto":
        return how.several, f"as asked for; {told}"
    return ("annotators" if middle >= AGREE else "objects"), told
