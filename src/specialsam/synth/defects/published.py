"""The published generators, with their parameters: patches, scars and stains on pictures of 1024 px.

`scale` is the picture's side over 1024, so that smaller pictures get defects of the same relative size; 1 keeps the
published pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

from specialsam.core.geometry import ImageArray
from specialsam.synth.defects.canvas import Defect, exact


def patch(image: ImageArray, rng: np.random.Generator, scale: float = 1.0) -> Defect:
    """A patch of 20 to 60 px a side from elsewhere, darkened to 40 to 70 % or with noise of 30 levels."""
    height, width = image.shape[:2]
    tall, wide = (min(_pixels(int(rng.integers(20, 61)), scale), side - 1) for side in (height, width))
    y, x = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
    top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
    piece = image[top : top + tall, left : left + wide].astype(np.float32)
    dark = rng.random() < 0.5
    pasted = piece * rng.uniform(0.4, 0.7) if dark else piece + rng.normal(0, 30, piece.shape)
    out = image.copy()
    out[y : y + tall, x : x + wide] = np.clip(pasted, 0, 255).astype(np.uint8)
    region = np.zeros((height, width), np.bool_)
    region[y : y + tall, x : x + wide] = True
    return exact(image, out, region, "patch")


def scar(image: ImageArray, rng: np.random.Generator, scale: float = 1.0) -> Defect:
    """A straight line of 2 to 5 px between two random points, each channel of its colour 0 to 50."""
    height, width = image.shape[:2]
    ends = [(int(rng.integers(0, width)), int(rng.integers(0, height))) for _ in range(2)]
    thickness = max(1, _pixels(int(rng.integers(2, 6)), scale))
    colour = tuple(int(value) for value in rng.integers(0, 51, 3))
    out, region = image.copy(), np.zeros((height, width), np.uint8)
    cv2.line(out, ends[0], ends[1], colour, thickness)
    cv2.line(region, ends[0], ends[1], 1, thickness)
    return exact(image, out, region.astype(np.bool_), "scar")


def stain(image: ImageArray, rng: np.random.Generator, scale: float = 1.0) -> Defect:
    """A disc of 40 to 100 px radius whose hue moves by 20 to 50 (of 180), blended at 40 %.

    A grey picture has no hue to move: there the published stain changes nothing, and the disc is darkened by 40 % of
    its own brightness times the same blend, so that there is something to find.
    """
    height, width = image.shape[:2]
    radius = _pixels(int(rng.integers(40, 101)), scale)
    centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
    region = np.zeros((height, width), np.uint8)
    cv2.circle(region, centre, radius, 1, -1)
    moved = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    moved[..., 0] = (moved[..., 0].astype(np.int32) + int(rng.integers(20, 51))) % 180
    other = cv2.cvtColor(moved, cv2.COLOR_HSV2RGB).astype(np.float32)
    if (image == image[..., :1]).all():
        other = image * np.float32(0.6)
    mixed = np.rint(image * np.float32(0.6) + other * np.float32(0.4))
    out = np.where(region[..., None] > 0, mixed, image).astype(np.uint8)
    return exact(image, out, region.astype(np.bool_), "stain_seed")


def _pixels(value: int, scale: float) -> int:
    return max(1, round(value * scale))
