"""What the numbers of a data set's label maps mean: which of them is the background, which is neither."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from specialsam.core.geometry import BoolArray, LabelArray
from specialsam.core.types import MaskReading
from specialsam.data.read_settings import READ, ReadSettings

BORDER = 0.5
"""A label holds a mask's border from this share of it on."""
EVERYWHERE = 0.8
"""In this share of the masks the same label must hold the border to be the background."""
LEAST_MASKS = 3
APART = 0.02
"""Two labels do not touch where no more than this share of the smaller outline does."""
THIN = 0.4
"""A band is thin where its deepest pixel is no deeper than this share of the object's."""
MATTE = ({0, 127, 255}, {0, 128, 255})
"""Values of a matting trimap: background, uncertain, object."""


@dataclass(frozen=True)
class LabelFacts:
    """One label map: its labels, whether 0 is among them, which one holds the border, and which one is a thin band
    between two others (object, band, ground)."""

    values: frozenset[int]
    border: int | None
    band: tuple[int, int, int] | None = None


def facts_of_labels(labels: LabelArray) -> LabelFacts:
    """The facts of one label map (H, W)."""
    values = np.unique(labels)
    edge = np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]])
    seen, counts = np.unique(edge, return_counts=True)
    most = int(np.argmax(counts))
    border = int(seen[most]) if counts[most] > BORDER * edge.size else None
    band = _band(labels, [int(value) for value in values], border) if len(values) == 3 and border is not None else None
    return LabelFacts(frozenset(int(value) for value in values[:1001]), border, band)


def _band(labels: LabelArray, values: Sequence[int], ground: int) -> tuple[int, int, int] | None:
    """(object, band, ground) where one of the two others lies thinly between the other one and the ground."""
    for thing, band in (values_of(values, ground), values_of(values, ground)[::-1]):
        inside, between, outside = labels == thing, labels == band, labels == ground
        touching, outline = _contact(inside, outside)
        if touching <= APART * outline and _depth(between) <= THIN * _depth(inside):
            return thing, band, ground
    return None


def values_of(values: Sequence[int], ground: int) -> tuple[int, int]:
    """The two labels beside the ground."""
    one, other = (value for value in values if value != ground)
    return one, other


def _contact(one: BoolArray, other: BoolArray) -> tuple[int, int]:
    """Pixels of `one` beside `other`, and pixels of its outline."""
    block = np.ones((3, 3), np.uint8)
    touching = one & (cv2.dilate(other.astype(np.uint8), block) > 0)
    outline = one & (cv2.erode(one.astype(np.uint8), block) == 0)
    return int(touching.sum()), max(int(outline.sum()), 1)


def _depth(mask: BoolArray) -> float:
    padded = np.pad(mask.astype(np.uint8), 1)
    return float(cv2.distanceTransform(padded, cv2.DIST_L2, 3).max())


def meaning(facts: Sequence[LabelFacts], how: ReadSettings = READ) -> tuple[MaskReading, list[str]]:
    """Background and void of a data set's label maps, and what to say where they are not 0 and none.

    Where no map holds 0 and one label holds the border of nearly all of them, that is the background. A third label
    that always lies thinly between object and background is a trimap's uncertain border, and no object.
    """
    notes: list[str] = []
    background, void = 0, tuple(how.void)
    if how.background is not None:
        background = how.background
        notes.append(f"the value {background} is the background, as data.background says")
    elif len(facts) >= LEAST_MASKS and not any(0 in one.values for one in facts):
        held = Counter(one.border for one in facts if one.border is not None)
        value, count = held.most_common(1)[0] if held else (0, 0)
        if count >= EVERYWHERE * len(facts):
            background = value
            notes.append(
                f"no mask holds 0 and the value {value} surrounds everything in {count} of {len(facts)}: it is the "
                "background (else set data.background)"
            )
    values = set().union(*(one.values for one in facts)) if facts else set()
    if not void and len(values) == 3 and (background or values in MATTE):
        bands = Counter(one.band for one in facts if len(one.values) == 3)
        band, count = bands.most_common(1)[0] if bands else (None, 0)
        if band is not None and band[2] == background and count >= EVERYWHERE * sum(bands.values()):
            void = (band[1],)
            notes.append(f"the value {band[1]} is a thin border between object and background: it is neither")
    elif seen := [f"#{value:06x}" if value > 65535 else str(value) for value in void if value in values]:
        notes.append(f"the values {', '.join(seen)} are neither object nor background")
    return MaskReading(background=background, void=void), notes
