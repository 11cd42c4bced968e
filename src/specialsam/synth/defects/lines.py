"""Long thin defects: loose threads, foreign fibres, cuts."""

from __future__ import annotations

import numpy as np

from specialsam.core.geometry import FloatArray, ImageArray
from specialsam.synth.defects.layer import Defect, Ground, finish, noise, path, relief, shadow, stroke


def thread(image: ImageArray, ground: Ground, rng: np.random.Generator) -> Defect:
    """A loose thread: curved, twisted, of uneven width, with frayed ends and a cast shadow."""
    shape = image.shape[:2]
    side, light = min(shape), rng.uniform(0, 2 * np.pi)
    width = float(np.clip(rng.uniform(0.25, 0.6) * ground.period, 2, side / 24))
    points = path(shape, rng.uniform(0.25, 0.9) * side, rng, bend=rng.uniform(0.01, 0.05))
    count = len(points)
    uneven = 1 + 0.2 * np.interp(np.arange(count), np.linspace(0, count, 8), rng.standard_normal(8))
    taper = np.minimum(1, np.minimum(np.arange(count), np.arange(count)[::-1]) / (2 * width) + 0.4)
    cover, along = stroke(shape, points, np.asarray(width * np.clip(uneven, 0.6, 1.4) * taper, np.float32))
    for end, ahead in ((points[0], points[0] - points[3]), (points[-1], points[-1] - points[-4])):
        cover = np.maximum(cover, _fray(shape, end, float(np.arctan2(ahead[1], ahead[0])), width, rng))
    tone = _tone(ground, rng)
    twist = np.sin(along * 2 * np.pi / (2.2 * width) + rng.uniform(0, 6.28)) * 0.12
    shade = 1 + 0.45 * relief(cover, width / 2, light) + twist
    dark = shadow(cover, 0.5 * width, light, 0.35 * width) * rng.uniform(0.35, 0.6)
    paint = np.where((cover > 0.02)[..., None], tone * shade[..., None], image * 0.35)
    return finish(image, np.asarray(paint, np.float32), np.maximum(cover, dark), ground, "thread", rng)


def fibre(image: ImageArray, ground: Ground, rng: np.random.Generator) -> Defect:
    """A foreign fibre or hair: thin, strongly curved, of another colour, hardly any shadow."""
    shape = image.shape[:2]
    side, light = min(shape), rng.uniform(0, 2 * np.pi)
    width = float(np.clip(side / 300 * rng.uniform(0.8, 2), 1.2, 4))
    points = path(shape, rng.uniform(0.15, 0.6) * side, rng, bend=rng.uniform(0.04, 0.12))
    cover, _ = stroke(shape, points, np.full(len(points), width, np.float32))
    tone = rng.uniform(0, 255, 3).astype(np.float32) if not ground.grey else _tone(ground, rng)
    dark = shadow(cover, width, light, width) * 0.25
    shade = 1 + 0.2 * relief(cover, width / 2, light)[..., None]
    paint = np.where((cover > 0.02)[..., None], tone * shade, image * 0.4)
    return finish(image, np.asarray(paint, np.float32), np.maximum(cover * 0.9, dark), ground, "fibre", rng)


def cut(image: ImageArray, ground: Ground, rng: np.random.Generator) -> Defect:
    """A cut: a dark slit, widest in its middle, one lip lit and the other in shadow, loose fibres across it."""
    shape = image.shape[:2]
    side, light = min(shape), rng.uniform(0, 2 * np.pi)
    points = path(shape, rng.uniform(0.08, 0.3) * side, rng, bend=0.015)
    widest = float(np.clip(rng.uniform(0.2, 0.7) * ground.period, 2.5, side / 20))
    swell = np.sin(np.linspace(0, np.pi, len(points))) ** 0.6
    slit, _ = stroke(shape, points, np.asarray(widest * np.clip(swell, 0.15, 1), np.float32))
    lips, _ = stroke(shape, points, np.asarray(widest * np.clip(swell, 0.15, 1) * 1.9 + 1, np.float32))
    raised = relief(lips, widest, light) * (1 - slit)
    depth = ground.dark * rng.uniform(0.25, 0.6) * (1 + 0.2 * noise(shape, 3, rng)[..., None])
    paint = image * (1 + 0.5 * raised[..., None]) * (1 - slit[..., None]) + depth * slit[..., None]
    opacity = np.maximum(slit, lips * np.clip(np.abs(raised) * 1.6, 0, 0.9))
    for _ in range(int(rng.integers(1, 5))):
        loose = path(shape, widest * rng.uniform(1, 2.5), rng, bend=0.1)
        loose += points[int(rng.integers(len(points)))] - loose.mean(0)
        hair, _ = stroke(shape, loose, np.full(len(loose), 1.2, np.float32))
        paint = paint * (1 - hair[..., None]) + ground.bright * hair[..., None]
        opacity = np.maximum(opacity, hair * 0.9)
    return finish(image, np.asarray(paint, np.float32), opacity, ground, "cut", rng)


def _fray(
    shape: tuple[int, int], end: FloatArray, heading: float, width: float, rng: np.random.Generator
) -> FloatArray:
    """Coverage of a few thin hairs that leave a thread's end."""
    cover = np.zeros(shape, np.float32)
    for _ in range(int(rng.integers(3, 7))):
        hair = path((10_000, 10_000), width * rng.uniform(1.5, 4), rng, 0.08, heading + rng.normal(0, 0.4))
        hair = hair - hair[0] + end
        found, _ = stroke(shape, hair, np.full(len(hair), max(1.0, width / 5), np.float32))
        cover = np.maximum(cover, found)
    return cover


def _tone(ground: Ground, rng: np.random.Generator) -> FloatArray:
    """A colour that differs from the ground's mean by at least 30 levels where that is possible."""
    darker = rng.random() < 0.5
    share = rng.uniform(0.25, 0.7) if darker else rng.uniform(0.3, 0.65)
    level = ground.mean * share if darker else ground.mean + (255 - ground.mean) * share
    if float(np.abs(level - ground.mean).mean()) < 30:
        level = ground.mean + (90 if ground.mean.mean() < 128 else -90)
    tint = np.ones(3) if ground.grey else rng.uniform(0.85, 1.15, 3)
    return np.asarray(np.clip(level * tint, 0, 255), np.float32)
