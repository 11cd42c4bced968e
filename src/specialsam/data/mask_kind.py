"""Tell what mask files hold by their values: nobody writes down whether PNGs are binary or label maps, and of what.

Each mask has a vote. A level other than the darkest and the brightest is a label where it fills areas, and a shade
where it only lines edges, as antialiasing and JPEG noise leave it: so of the pixels at such levels, the share counts
that lie in the middle of a 3x3 block of one level. Masks of 0/1, or of 0 alone, fit both kinds and do not vote. The
majority decides, binary where nothing speaks for label maps. Then what the values mean is asked of the whole set:
is the shape in the alpha channel, do lossy files have flat levels, which label surrounds everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, LabelArray, PixelArray
from specialsam.core.masks import FOREGROUND
from specialsam.core.sampling import evenly
from specialsam.core.types import MaskReading
from specialsam.data.headers import image_size, is_lossy
from specialsam.data.label_meaning import LabelFacts, facts_of_labels, meaning
from specialsam.data.loading import OBJECT_LIMIT
from specialsam.data.mask_values import (
    MANY_SHARE,
    MOST_LEVELS,
    flat,
    flat_levels,
    label_map,
    mask_values,
    merged_levels,
    needs_levels,
    shape_in_alpha,
    snapped,
)
from specialsam.data.read_settings import READ, ReadSettings

Vote = Literal["binary", "index", "either", "odd"]

SAMPLE_MASKS = 200
SAMPLE_PIXELS = 60_000_000
"""At most this many masks and pixels are decoded for the decision."""

FLAT_SHARE = 0.2
"""Levels in between are labels from this share of flat pixels on: shades of an edge have almost none."""

MARGIN = 8
"""Levels of 255 this close to the darkest or the brightest count as noise of these."""

DIM, BRIGHT = 40, 190
"""Levels between which a flat area of a lossy file is neither black nor white."""

MOSTLY_FLAT = 0.5
"""Share of a mask that its flat levels must fill: a photograph has few such areas."""


@dataclass(frozen=True)
class MaskKindDecision:
    """`kind` of a data set's masks, how their values are `read`, a `note` that says why, and what contradicts it."""

    kind: Literal["binary", "index"]
    note: str
    odd: tuple[Path, ...] = ()
    read: MaskReading | None = None


@dataclass
class _Looked:
    """What one mask file of the sample shows."""

    path: Path
    vote: Vote
    highest: int
    values: int
    alpha: bool | None = None
    lossy: bool = False
    levels: dict[int, int] = field(default_factory=dict)
    labels: LabelFacts | None = None

    @property
    def shaded(self) -> bool:
        """Whether its values are those of few flat levels and their shades."""
        return bool(self.levels) and needs_levels(self.values, len(self.levels), self.lossy)


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
    if labels.dtype == np.uint32 or palette:  # colours that differ between channels, indices, or ids of 32 bits
        few = len(values) <= OBJECT_LIMIT or _filled(labels, labels > 0, MANY_SHARE)
        return "binary" if palette and set(values.tolist()) <= {0, 255} else "index" if few else "odd"
    unit = 257 if labels.dtype == np.uint16 else 1
    bright = highest > FOREGROUND * unit
    if len(values) <= 2 and (values[0] == 0 or len(values) == 1):
        return "binary" if bright else "index"
    margin = MARGIN * unit
    noisy = bright and bool(((values > highest - margin) & (values < highest)).any())  # JPEG leaves noise at both ends
    between = (labels > margin * noisy) & (labels < (highest - margin * noisy if bright else highest + 1))
    if not between.any():
        return "binary"
    many = len(values) > OBJECT_LIMIT
    if _filled(labels, between, MANY_SHARE if many else FLAT_SHARE) and (not many or labels.dtype == np.uint16):
        return "index"
    return "binary" if bright and int(between.sum()) <= labels.size // 2 else "odd"


def _filled(labels: LabelArray, where: BoolArray, share: float) -> bool:
    count = int(where.sum())
    return bool(count) and int((where & flat(labels)).sum()) / count >= share


def decide(masks: Sequence[Path], how: ReadSettings = READ) -> MaskKindDecision:
    """Decide from an even sample of the mask files; unreadable ones have no vote (they are found when loaded)."""
    looked = _sample(masks)
    read, notes = MaskReading(), []
    alphas = [one.alpha for one in looked if one.alpha is not None]
    if alphas and 2 * sum(alphas) > len(looked):
        read = MaskReading(alpha=True)
        notes.append("the shape is in the alpha channel, their colour is the same everywhere or a picture")
        for one in looked:
            one.vote, one.highest = "binary", 255
    elif levels := _levels(looked):
        read = MaskReading(levels=levels)
        told = ", ".join(f"#{level:06x}" for level in levels[:8]) + (", ..." if len(levels) > 8 else "")
        notes.append(f"they hold shades (saved with loss, or antialiased): each pixel counts as one of {told}")
    kind, odd = _decided(looked)
    if kind == "index":
        ground, said = meaning([one.labels for one in looked if one.labels is not None and one.vote != "odd"], how)
        read = MaskReading(ground.background, ground.void, read.levels)
        notes += said
    note = "; ".join([_note(looked, kind), *notes])
    return MaskKindDecision(kind, note, odd, None if read == MaskReading() else read)


def _sample(masks: Sequence[Path]) -> list[_Looked]:
    looked: list[_Looked] = []
    budget = SAMPLE_PIXELS
    for path in evenly(masks, SAMPLE_MASKS):
        try:
            height, width = image_size(path)
            if height * width > budget and len(looked) >= 3:
                break
            looked.append(_look(path))
        except DataError:
            continue  # Reported by the header check or, for damage further inside, when the mask is loaded.
        budget -= height * width
    return looked


def _look(path: Path) -> _Looked:
    pixels, palette = mask_values(path)
    labels = label_map(pixels)
    one = _Looked(path, vote(pixels, palette), int(pixels.max()), len(np.unique(labels)), shape_in_alpha(path))
    one.lossy = is_lossy(path)
    if (one.lossy or one.vote in ("index", "odd")) and not palette and pixels.dtype == np.uint8:
        levels = flat_levels(pixels, one.lossy)
        if one.vote in ("binary", "either") and not _grey_labels(levels):
            return one
        if sum(levels.values()) >= MOSTLY_FLAT * labels.size and 2 <= len(levels) <= MOST_LEVELS:
            one.levels = levels
            if one.shaded:
                one.vote, labels = "index", label_map(snapped(pixels, sorted(levels), one.lossy))
        if one.lossy and not one.levels:
            one.vote = "odd"
    if one.vote in ("index", "either"):
        one.labels = facts_of_labels(labels)
    return one


def _grey_labels(levels: dict[int, int]) -> bool:
    """Whether the flat levels of a lossy file that looks black and white are labels: one of them is clearly grey."""
    return any(DIM < (level & 255) < BRIGHT for level in levels)


def _levels(looked: Sequence[_Looked]) -> tuple[int, ...]:
    """The levels of the data set where most of its label maps are shaded, else none."""
    shaded = [one for one in looked if one.shaded]
    if 2 * len(shaded) <= sum(1 for one in looked if one.vote in ("index", "odd")):
        return ()
    levels = merged_levels([one.levels for one in shaded], any(one.lossy for one in shaded))
    return levels if len(levels) <= MOST_LEVELS else ()


def _decided(looked: Sequence[_Looked]) -> tuple[Literal["binary", "index"], tuple[Path, ...]]:
    votes = [one.vote for one in looked]
    kind: Literal["binary", "index"] = "index" if votes.count("index") > votes.count("binary") else "binary"
    opposite = "binary" if kind == "index" else "index"
    odd = [one.path for one in looked if one.vote == "odd" or (one.vote == opposite and not _fits(one, kind))]
    return kind, tuple(odd)


def _fits(one: _Looked, kind: str) -> bool:
    """Whether a mask that looks like the other kind can still be read as `kind` without loss."""
    return kind == "index" and one.values <= 2


def _note(looked: Sequence[_Looked], kind: str) -> str:
    votes = [one.vote for one in looked]
    note = (
        f"masks are read as {'label maps, one object a value' if kind == 'index' else 'binary, one object an image'}: "
        f"of {len(looked)} masks looked at, {votes.count('binary')} look binary, {votes.count('index')} like label "
        f"maps, {votes.count('either')} fit both, {votes.count('odd')} neither"
    )
    void = sum(1 for one in looked if one.vote == "index" and one.highest == 255 and not one.shaded)
    if kind == "index" and void:
        note += f"; {void} hold the value 255, which is kept as an object (Pascal VOC marks void areas with it)"
    lossy = sum(1 for one in looked if one.vote == "odd" and one.lossy)
    if lossy:
        note += f"; {lossy} were saved with loss (JPEG) and their labels cannot be told apart: save them as PNG"
    return note
