"""What pictures look like as a whole: with or without colour, how large. Tells a specialist of another domain early."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.geometry import ImageArray
from specialsam.core.sampling import evenly
from specialsam.core.types import Look
from specialsam.data.images import read_image

SAMPLED = 24
"""Pictures that are read for a look, spread evenly over those that there are."""
COLOURLESS = 4.0
"""Mean difference of a pixel's largest and smallest channel, in levels, below which a picture has no colour."""
MOST = 0.9
"""Share of pictures that makes them all of a kind."""
FACTOR = 3.0
"""How much larger or smaller pictures may be than those that were learned from."""


def has_colour(image: ImageArray) -> bool:
    """Whether a picture uint8 (H, W, 3) shows colour: a camera's night pictures and grey scans do not."""
    some = image[:: max(1, image.shape[0] // 128), :: max(1, image.shape[1] // 128)].astype(np.int16)
    return bool((some.max(2) - some.min(2)).mean() >= COLOURLESS)


def readable(files: Sequence[Path]) -> list[ImageArray]:
    """Those of the files that can be read, uint8 (H, W, 3); what is wrong with the others is said where they count."""
    out = []
    for path in files:
        try:
            out.append(read_image(path))
        except DataError:
            continue
    return out


def look_at(files: Sequence[Path]) -> Look | None:
    """How some of the files look; None where none of them can be read."""
    seen = [(has_colour(image), max(image.shape[:2])) for path in evenly(files, SAMPLED) for image in readable([path])]
    if not seen:
        return None
    sides = [side for _, side in seen]
    return Look(len(seen), float(np.mean([not colour for colour, _ in seen])), min(sides), max(sides))


def unlike(known: Look, seen: Look) -> list[str]:
    """In which ways pictures are unlike those that were learned from, a line each; empty where they are alike."""
    lines = []
    colour, grey = "in colour", "without colour"
    if known.grey >= MOST and seen.grey <= 1 - MOST:
        lines.append(f"these pictures are {colour}, this specialist learned from pictures {grey}")
    elif known.grey <= 1 - MOST and seen.grey >= MOST:
        lines.append(f"these pictures are {grey}, this specialist learned from pictures {colour}")
    learned = f"this specialist learned from {known.smallest} to {known.largest} px"
    if seen.smallest > FACTOR * known.largest:
        lines.append(f"these pictures are {seen.smallest} px and more on their longest side, {learned}; try --tiles")
    elif FACTOR * seen.largest < known.smallest:
        lines.append(f"these pictures are {seen.largest} px and less on their longest side, {learned}")
    return lines
