"""Defects painted into clean pictures, each with a mask of exactly the pixels that it changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from specialsam.core.errors import DataError, UsageError
from specialsam.core.geometry import ImageArray
from specialsam.synth.defects import metal, openings, published, stains, structure, threads
from specialsam.synth.defects.canvas import Defect
from specialsam.synth.defects.ground import Ground, survey

PUBLISHED: dict[str, Callable[[ImageArray, np.random.Generator, float], Defect]] = {
    "patch": published.patch,
    "scar": published.scar,
    "stain_seed": published.stain,
}
"""The three generators of the study, by name."""
REALISTIC: dict[str, Callable[[ImageArray, np.random.Generator, Ground], Defect]] = {
    "thread": threads.thread,
    "fibre": threads.fibre,
    "cut": openings.cut,
    "hole": openings.hole,
    "stain": stains.stain,
    "colour": stains.colour,
    "glue": stains.glue,
    "metal": metal.metal,
    "bent": structure.bent,
    "broken": structure.broken,
}
"""What real defects look like, by name."""
COMPOSITE = "composite"
KINDS = (*PUBLISHED, *REALISTIC, COMPOSITE)
SMALLEST_SIDE = 48
PUBLISHED_SIDE = 1024
ATTEMPTS = 8
LEAST = 8
"""Pixels that a realistic defect has at least."""
VISIBLE = 3.0
"""Levels by which a realistic defect differs at least from what it lies on, in the mean and as a lens sees it."""


class Unseen(DataError):
    """A clean picture on which a kind of defect cannot be seen, whatever is drawn."""


def make(kind: str, image: ImageArray, rng: np.random.Generator, absolute: bool = False) -> Defect:
    """The picture uint8 (H, W, 3) with one defect of `kind`; a composite holds two different realistic ones.

    `absolute` keeps the published generators' pixels whatever the picture's size; otherwise they are scaled from 1024.
    Raises UsageError for an unknown kind, DataError for a picture under 48 px, and Unseen for one (black, say) on which
    no realistic defect of the kind can be seen.
    """
    if kind not in KINDS:
        raise UsageError(f"expected a defect of {', '.join(KINDS)}, got {kind!r}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or min(image.shape[:2]) < SMALLEST_SIDE:
        raise DataError(
            f"expected a uint8 (H, W, 3) image of {SMALLEST_SIDE} px or more, got {image.dtype} {image.shape}"
        )
    if kind in PUBLISHED:
        return PUBLISHED[kind](image, rng, 1.0 if absolute else min(image.shape[:2]) / PUBLISHED_SIDE)
    ground = survey(image)
    for _ in range(ATTEMPTS):  # behind the wires, or on ground as dark as itself, a defect cannot be seen: draw another
        layers = [image]
        parts = rng.choice(list(REALISTIC), 2, replace=False).tolist() if kind == COMPOSITE else [kind]
        for part in parts:  # the second of a composite is painted over the picture with the first
            found = REALISTIC[part](layers[-1], rng, ground)
            if not _visible(layers[-1], found):
                break
            layers.append(found.image)
        else:
            return Defect(layers[-1], np.asarray((layers[-1] != image).any(2), np.bool_), kind)
    raise Unseen(
        f"{kind}: expected a clean picture on which it can be seen, got none that shows in {ATTEMPTS} attempts; use "
        "other kinds, or leave out pictures that are black or flat"
    )


def _visible(before: ImageArray, found: Defect) -> bool:
    """Whether the defect has pixels enough, and differs from what it lies on by more than grain does."""
    if found.mask.sum() < LEAST:
        return False
    clean, painted = (cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 1.0) for picture in (before, found.image))
    return float(np.abs(painted - clean).max(2)[found.mask].mean()) >= VISIBLE


def gallery(
    images: Sequence[ImageArray], kinds: Sequence[str], seed: int, columns: int = 3, side: int = 200
) -> ImageArray:
    """A sheet uint8 (H, W, 3), a row a kind: `columns` times the clean picture, the defect, and its mask's outline.

    Each is a window around the defect, `side` px large.
    """
    rows = []
    for kind in kinds:
        tiles = []
        for column in range(columns):
            rng = np.random.default_rng([seed, KINDS.index(kind), column])
            clean, found = _first_seen(kind, images, int(rng.integers(len(images))), rng)
            tiles += [_window(picture, found, side) for picture in (clean, found.image, _outlined(found))]
        row = np.hstack(tiles)
        cv2.putText(row, kind, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 4, cv2.LINE_AA)
        cv2.putText(row, kind, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
        rows.append(row)
    return np.asarray(np.vstack(rows), np.uint8)


def _first_seen(
    kind: str, images: Sequence[ImageArray], start: int, rng: np.random.Generator
) -> tuple[ImageArray, Defect]:
    """A picture, the first from `start` on on which the defect can be seen, and the defect on it."""
    for clean in [*images[start:], *images[:start]]:
        try:
            return clean, make(kind, clean, rng)
        except Unseen as error:
            unseen = error
    raise unseen


def _outlined(found: Defect) -> ImageArray:
    out = found.image.copy()
    contours, _ = cv2.findContours(found.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, contours, -1, (255, 60, 0), 1)
    return out


def _window(picture: ImageArray, found: Defect, side: int) -> ImageArray:
    """The part of the picture around the defect, twice its size and at least a quarter of the picture."""
    rows, columns = np.nonzero(found.mask)
    size = int(max(np.ptp(rows), np.ptp(columns)) * 1.6) + 8
    size = min(max(size, min(picture.shape[:2]) // 4), min(picture.shape[:2]))
    top = int(np.clip((rows.min() + rows.max()) // 2 - size // 2, 0, picture.shape[0] - size))
    left = int(np.clip((columns.min() + columns.max()) // 2 - size // 2, 0, picture.shape[1] - size))
    cut = picture[top : top + size, left : left + size]
    return np.asarray(
        cv2.resize(cut, (side, side), interpolation=cv2.INTER_AREA if size > side else cv2.INTER_CUBIC), np.uint8
    )


__all__ = ["COMPOSITE", "KINDS", "PUBLISHED", "REALISTIC", "Defect", "Unseen", "gallery", "make", "survey"]
