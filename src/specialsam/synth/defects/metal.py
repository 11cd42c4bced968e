"""Metal on a surface: curled shavings, shards, drops and small screws, with hard highlights and cast shadows."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from specialsam.core.geometry import FloatArray, ImageArray
from specialsam.synth.defects.canvas import Canvas, Defect, Points
from specialsam.synth.defects.forms import blob, log_uniform, noise, on_wire, somewhere, tube, under, wander
from specialsam.synth.defects.ground import Ground

Piece = tuple[FloatArray, FloatArray]
"""Coverage 0..1 and reflected light 0..1, each (h, w)."""


def metal(image: ImageArray, rng: np.random.Generator, ground: Ground) -> Defect:
    """One to four pieces of metal beside each other, in part behind the wires."""
    side = min(image.shape[:2])
    size = max(4.0, side * log_uniform(rng, 0.018, 0.05))
    near = rng.random() < 0.6
    place = on_wire(image, ground, rng, 2 * size) if near else somewhere(image, rng, 2 * size)
    canvas = Canvas(image, ground, rng, place[None], 5 * size + 4)
    kind = str(rng.choice(list(_PIECES), p=[0.4, 0.35, 0.15, 0.1]))
    number = 1 if kind == "screw" else int(rng.choice([1, 2, 3, 4], p=[0.5, 0.25, 0.15, 0.1]))
    visible = under(canvas, rng.choice([0.0, 0.5, 1.0], p=[0.5, 0.25, 0.25]))
    tint = np.array([1.0, rng.uniform(0.95, 1.0), rng.uniform(0.85, 1.05)])
    low, high = float(ground.dark.mean()) * rng.uniform(0.5, 0.9), rng.uniform(215, 255)
    for _ in range(number):
        centre = place - canvas.origin + (rng.normal(0, 1.0 * size, 2) if number > 1 else 0)
        cover, light = _PIECES[kind](canvas, centre, size)
        canvas.cast(cover * visible, rng.uniform(0.12, 0.3) * size, rng.uniform(0.35, 0.6))
        level = low + (high - low) * np.clip(light, 0, 1)
        canvas.lay(level[..., None] * tint, cover * visible)
    return canvas.finish("metal")


def _mirror(angle: FloatArray, rng: np.random.Generator) -> FloatArray:
    """What a metal surface whose normal points at `angle` to the light reflects, 0..1: a lamp, a window, the dark."""
    lamp = np.maximum(np.cos(angle), 0) ** 14
    window = np.maximum(np.cos(2 * angle + rng.uniform(0.5, 1.5)), 0) ** 4
    return np.asarray(0.12 + 0.85 * lamp + 0.28 * window, np.float32)


def _curl(canvas: Canvas, centre: Points, size: float) -> Piece:
    """A shaving: a strip that curls, so that the light runs along it."""
    rng = canvas.rng
    curve = wander(rng, size * rng.uniform(1.5, 4), rng.choice([1.5, 3.5, 6.0]))
    curve += centre - curve.mean(0)
    half = max(1.0, size * rng.uniform(0.1, 0.28))
    about = tube(curve, canvas.shape, 2 * half + 3)
    steps = np.linspace(0, 1, len(curve))
    cover = about.cover(half * np.clip(np.minimum(steps, 1 - steps) * 6 + 0.15, 0, 1))
    u = np.clip(about.across / half, -1, 1)
    roll = about.along / (size * rng.uniform(0.4, 1.2)) + rng.uniform(0, 6.3)
    light = _mirror(np.asarray(about.normal * 0.5 + roll + 0.9 * u - canvas.light, np.float32), rng)
    return cover, light * (1 - 0.5 * np.abs(u) ** 4) + 0.04 * noise(canvas.shape, 1.5, rng)


def _shard(canvas: Canvas, centre: Points, size: float) -> Piece:
    """A splinter: two or three flat faces of different light, a bright edge towards the lamp."""
    rng = canvas.rng
    corners = int(rng.integers(4, 8))
    turns = np.sort(rng.uniform(0, 2 * np.pi, corners))
    points = np.stack([np.cos(turns), rng.uniform(0.2, 0.8) * np.sin(turns)], 1) * size * rng.uniform(0.7, 1.2)
    points *= rng.uniform(0.7, 1.2, (corners, 1))
    spin = rng.uniform(0, np.pi)
    points = points @ np.array([[np.cos(spin), np.sin(spin)], [-np.sin(spin), np.cos(spin)]]) + centre
    filled = np.zeros(canvas.shape, np.uint8)
    cv2.fillPoly(filled, [np.rint(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    cover = filled.astype(np.float32) / np.float32(255)
    x, y = canvas.grid()
    fold = (x - centre[0]) * np.cos(spin + 1.4) + (y - centre[1]) * np.sin(spin + 1.4)
    slope = ((x - centre[0]) * np.cos(spin) + (y - centre[1]) * np.sin(spin)) / size
    faces = np.where(fold > rng.normal(0, 0.15 * size), rng.uniform(0.05, 0.4), rng.uniform(0.2, 0.7))
    brushed = cv2.blur(noise(canvas.shape, 1.2, rng), (5, 1))
    soft = cv2.GaussianBlur(cover, (0, 0), 0.9)
    dx, dy = cv2.Sobel(soft, cv2.CV_32F, 1, 0) / 4, cv2.Sobel(soft, cv2.CV_32F, 0, 1) / 4
    edge = -(dx * canvas.sun[0] + dy * canvas.sun[1])
    return cover, np.asarray(faces + 0.15 * slope + 0.06 * brushed + 1.3 * edge, np.float32)


def _drop(canvas: Canvas, centre: Points, size: float) -> Piece:
    """A drop of solder or weld: round, dark at its foot, a small hot highlight."""
    rng = canvas.rng
    radius = 0.55 * size
    depth = blob(canvas, centre, radius, 0.1, rng.uniform(0.6, 1))
    inside = np.asarray(np.clip(depth + 0.5, 0, 1), np.float32)
    height = np.sqrt(np.clip(1 - (1 - np.clip(depth / radius, 0, 1)) ** 2, 0, 1))
    height = cv2.GaussianBlur(height.astype(np.float32), (0, 0), max(0.7, 0.12 * radius))
    dx, dy = cv2.Sobel(height, cv2.CV_32F, 1, 0) / 8 * radius, cv2.Sobel(height, cv2.CV_32F, 0, 1) / 8 * radius
    steep = np.hypot(dx, dy)
    towards = -(dx * canvas.sun[0] + dy * canvas.sun[1])
    glow = np.exp(-((towards - 0.55) ** 2 + (steep - 0.55) ** 2) / 0.03)
    return inside, np.asarray(0.3 + 0.25 * towards - 0.15 * steep + 0.9 * glow, np.float32)


def _screw(canvas: Canvas, centre: Points, size: float) -> Piece:
    """A small screw that lies on its side: a threaded shaft and a wider head."""
    rng = canvas.rng
    curve = wander(rng, 2.6 * size, 0.0)
    curve += centre - curve.mean(0)
    half = max(1.2, 0.28 * size)
    about = tube(curve, canvas.shape, 3 * half + 3)
    head = np.arange(len(curve)) > 0.84 * len(curve)
    tip = np.clip(np.arange(len(curve)) / (1.5 * half), 0.15, 1)
    cover = about.cover(np.where(head, 2 * half, half * tip))
    u = np.clip(about.across / half, -1.9, 1.9)
    grooves = np.sin(2 * np.pi * about.along / max(2.2, 0.5 * half) + 0.9 * u) * (about.along < 0.84 * len(curve))
    bright = np.exp(-((u - 0.5 * np.cos(about.normal - canvas.light)) ** 2) / 0.12)
    return cover, np.asarray(0.18 + 0.6 * bright + 0.2 * grooves * (0.4 + bright), np.float32)


_PIECES: dict[str, Callable[[Canvas, Points, float], Piece]] = {
    "curl": _curl,
    "shard": _shard,
    "drop": _drop,
    "screw": _screw,
}
