"""Defects of the structure itself: bent threads or wires, and broken ones."""

from __future__ import annotations

import cv2
import numpy as np

from specialsam.core.geometry import ImageArray
from specialsam.synth.defects.layer import Defect, Ground, blob, finish, place

SMALLEST_SHIFT = 1.0
"""Pixels of displacement below which nothing counts as bent."""


def bent(image: ImageArray, ground: Ground, rng: np.random.Generator) -> Defect:
    """A place where the structure is pushed aside by up to a repeat, smoothly and without a seam."""
    height, width = shape = image.shape[:2]
    reach = float(np.clip(ground.period * rng.uniform(0.5, 1.2), 5, min(shape) / 9))
    x, y = place(shape, 2.2 * reach, rng)
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    turn, squeeze = rng.uniform(0, np.pi), rng.uniform(0.5, 1)
    u = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
    v = ((rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)) / squeeze
    distance = np.hypot(u, v) / (2.2 * reach)
    bump = np.where(distance < 1, (1 - np.minimum(distance, 1) ** 2) ** 2, 0).astype(np.float32)
    push = max(3.0, rng.uniform(0.5, 0.9) * min(ground.period, reach))
    heading = rng.uniform(0, 2 * np.pi)
    moved_x = columns - np.float32(push * np.cos(heading)) * bump
    moved_y = rows - np.float32(push * np.sin(heading)) * bump
    warped = cv2.remap(image, moved_x, moved_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    opacity = np.clip((push * bump - SMALLEST_SHIFT) * 2, 0, 1)
    still = Ground(ground.dark, ground.bright, ground.mean, 0.0, ground.period, ground.angle, ground.grey)
    return finish(image, warped, opacity, still, "bent", rng)


def broken(image: ImageArray, ground: Ground, rng: np.random.Generator) -> Defect:
    """A gap: a piece of thread or wire is missing, and what lies behind it, the commonest level, shows."""
    shape = image.shape[:2]
    radius = float(np.clip(ground.period * rng.uniform(0.3, 0.7), 4, min(shape) / 12))
    depth = blob(shape, place(shape, 2 * radius, rng), radius, rng, 0.15, rng.uniform(0.3, 0.7), ground.angle)
    inside = np.asarray(np.clip(depth / max(1.0, 0.12 * radius) + 0.5, 0, 1), np.float32)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    counts = cv2.GaussianBlur(np.bincount(grey.ravel(), minlength=256).astype(np.float32)[None], (0, 0), 4)[0]
    common = np.abs(grey.astype(np.int32) - int(counts.argmax())) < 10
    near = max(3, round(2 * ground.period)) | 1
    weight = cv2.blur(common.astype(np.float32), (near, near))
    sums = cv2.blur(np.where(common[..., None], image, 0).astype(np.float32), (near, near))
    paint = np.where(weight[..., None] > 0.02, sums / np.maximum(weight, 0.02)[..., None], image[common].mean(0))
    return finish(image, np.asarray(paint, np.float32), inside, ground, "broken", rng)
