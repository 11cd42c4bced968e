"""Threads that lie on a surface or run behind its wires, tangles of them, and foreign fibres."""

from __future__ import annotations

import numpy as np

from specialsam.core.geometry import FloatArray, ImageArray
from specialsam.synth.defects.canvas import Canvas, Defect, Points
from specialsam.synth.defects.forms import hairs, log_uniform, noise, ripple, somewhere, tone, tube, under, wander
from specialsam.synth.defects.ground import Ground


def thread(image: ImageArray, rng: np.random.Generator, ground: Ground) -> Defect:
    """A loose thread: curved, uneven, twisted, fuzzy, frayed at its ends, with a shadow; sometimes a ball of lint."""
    if rng.random() < 0.15:
        return _tangle(image, rng, ground)
    side = min(image.shape[:2])
    half = max(1.1, min(side * log_uniform(rng, 0.0035, 0.008), 0.4 * ground.period + 1))
    length = side * log_uniform(rng, 0.2, 1.5)
    curve = wander(rng, length, rng.choice([0.6, 2.0, 6.0], p=[0.45, 0.35, 0.2]))
    curve += somewhere(image, rng, 0.1 * side) - curve[int(rng.integers(len(curve)))]
    canvas = Canvas(image, ground, rng, curve, 6 * half + 6)
    curve = curve - canvas.origin
    count = len(curve)
    ends = np.minimum(np.arange(count), np.arange(count)[::-1]) / (4 * half)
    wide = half * np.clip(1 + 0.2 * ripple(count, 5 * half, rng), 0.5, 1.5) * np.clip(0.45 + ends, 0, 1)
    about = tube(curve, canvas.shape, 2 * half + 3)
    visible = under(canvas, rng.choice([0.0, 0.4, 1.0])) if canvas.wires is not None else 1.0
    cover = np.asarray(about.cover(wide) * visible, np.float32)
    canvas.cast(cover, half * rng.uniform(0.6, 1.3), rng.uniform(0.25, 0.5))
    colour = tone(ground, rng)
    fuzz = _fuzz(canvas, curve, half) * visible
    canvas.lay(colour * 0.9, np.asarray(fuzz * rng.uniform(0.4, 0.7), np.float32))
    u = np.clip(about.across / np.maximum(np.interp(about.along, np.arange(count), wide), 0.5), -1, 1)
    round_ = np.sqrt(1 - 0.9 * u**2)
    lit = 0.22 * u * np.cos(about.normal - canvas.light)
    pitch = half * rng.uniform(2.5, 4.5)
    ply = np.abs(np.sin(np.pi * about.along / pitch + rng.choice([-1.3, 1.3]) * u)) ** 0.6
    streaks = noise(canvas.shape, 1.6, rng)
    relief = 0.3 * min(1.0, (half / 3.5) ** 2)
    shade = 0.5 + 0.4 * round_ + lit + relief * (ply - 0.75) + 0.07 * streaks
    canvas.lay(colour * np.asarray(shade)[..., None], cover)
    return canvas.finish("thread")


def _fuzz(canvas: Canvas, curve: Points, half: float) -> FloatArray:
    """Short fibres that stand off a thread, and longer ones at its two ends."""
    rng, count = canvas.rng, len(curve)
    chosen = rng.integers(0, count, max(4, int(count / (3 * half))))
    ahead = np.gradient(curve, axis=0)
    heading = np.arctan2(ahead[:, 1], ahead[:, 0])
    sides = rng.choice([-1, 1], len(chosen)) * rng.uniform(0.2, 1.3, len(chosen))
    short = hairs(canvas, curve[chosen], heading[chosen] + sides, 3.0 * half, 2.0, 0.7)
    number = int(rng.integers(3, 8))
    starts = np.repeat(curve[[0, -1]], number, 0) + rng.normal(0, 0.4 * half, (2 * number, 2))
    way = np.repeat([heading[0] + np.pi, heading[-1]], number) + rng.normal(0, 0.45, 2 * number)
    return np.maximum(short, hairs(canvas, starts, way, 5.0 * half, 1.5, 1.0))


def _tangle(image: ImageArray, rng: np.random.Generator, ground: Ground) -> Defect:
    """A ball of lint: many fine fibres about a denser middle, in part behind the wires."""
    side = min(image.shape[:2])
    radius = max(4.0, side * log_uniform(rng, 0.012, 0.035))
    place = somewhere(image, rng, 1.5 * radius)
    canvas = Canvas(image, ground, rng, place[None], 4 * radius + 4)
    centre = place - canvas.origin
    stretch = np.array([1.0, rng.uniform(0.4, 0.9)])
    turn = rng.uniform(0, np.pi)
    spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    visible = under(canvas, rng.choice([0.0, 0.4, 1.0]))
    colour = tone(ground, rng, 0.85)
    canvas.cast(_soft(canvas, centre, radius), 0.3 * radius, 0.25)
    layers = int(rng.integers(4, 8))
    for layer in range(layers):
        number = int(rng.integers(6, 14))
        starts = centre + (rng.normal(0, 0.33 * radius, (number, 2)) * stretch) @ spin
        cover = hairs(canvas, starts, rng.uniform(0, 2 * np.pi, number), 2.2 * radius, 7.0, 0.65)
        canvas.lay(colour * (0.75 + 0.5 * layer / layers), cover * visible)
    return canvas.finish("thread")


def _soft(canvas: Canvas, centre: Points, radius: float) -> FloatArray:
    x, y = canvas.grid()
    return np.asarray(np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (0.8 * radius) ** 2), np.float32)


def fibre(image: ImageArray, rng: np.random.Generator, ground: Ground) -> Defect:
    """One to three foreign fibres or hairs: thin, curly, of another colour, close to the surface."""
    side = min(image.shape[:2])
    count = int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))
    half = max(0.55, side * log_uniform(rng, 0.0011, 0.0024))
    place = somewhere(image, rng, 0.12 * side)
    curves = []
    for _ in range(count):
        curve = wander(rng, side * log_uniform(rng, 0.08, 0.5), rng.choice([0.8, 2.0, 4.0]))
        curves.append(curve - curve[int(rng.integers(len(curve)))] + place + rng.normal(0, 0.03 * side, 2))
    canvas = Canvas(image, ground, rng, np.concatenate(curves), 4 * half + 5)
    colour = tone(ground, rng)
    for curve in curves:
        about = tube(curve - canvas.origin, canvas.shape, 2 * half + 3)
        steps = np.arange(len(curve))
        wide = half * np.clip(1 + 0.15 * ripple(len(curve), 12, rng), 0.6, 1.4)
        wide *= np.clip(np.minimum(steps, steps[::-1]) / (8 * half) + 0.35, 0, 1)
        cover = about.cover(wide)
        canvas.cast(cover, 1.2 * half, rng.uniform(0.15, 0.35))
        gloss = 1 + 0.25 * np.cos(about.normal - canvas.light) ** 4 + 0.1 * ripple(len(curve), 9, rng).mean()
        canvas.lay(colour * gloss[..., None], cover * rng.uniform(0.75, 1.0))
    return canvas.finish("fibre")
