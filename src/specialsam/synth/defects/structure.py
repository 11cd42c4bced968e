"""Defects of the structure itself: bent wires or a distorted weave, and broken ones."""

from __future__ import annotations

import cv2
import numpy as np

from specialsam.core.geometry import FloatArray, ImageArray
from specialsam.synth.defects.canvas import Canvas, Defect, Points
from specialsam.synth.defects.forms import hairs, log_uniform, noise, on_wire, ripple, somewhere, tube, wander
from specialsam.synth.defects.ground import Ground

SEEN_MOVED = 7.0
"""Levels by which a moved place must differ: a background that moves with the wire looks as it did."""


def bent(image: ImageArray, rng: np.random.Generator, ground: Ground) -> Defect:
    """A wire pushed aside and back, its crease catching the light; without wires, a dent in the cloth."""
    return _bent_wire(image, rng, ground) if ground.wires is not None else _dent(image, rng, ground)


def _bent_wire(image: ImageArray, rng: np.random.Generator, ground: Ground) -> Defect:
    """The picture is drawn across a wire in an S or an arc; only where that can be seen, which is at the wire."""
    reach = float(np.clip(ground.period * rng.uniform(0.35, 0.8), 6, min(image.shape[:2]) / 5))
    place = on_wire(image, ground, rng, 1.2 * reach)
    canvas = Canvas(image, ground, rng, place[None], 1.2 * reach + 3, flat=True)
    centre = place - canvas.origin
    across = _across(canvas, centre, reach)
    u, v = _turned(canvas, centre, across)
    near = np.clip(1 - (u / (0.8 * reach)) ** 2 - (v / reach) ** 2, 0, 1) ** 2
    wave = np.sin(np.pi * v / reach * rng.uniform(0.4, 1.5) + rng.uniform(0, 2 * np.pi))
    wave /= max(float((near * np.abs(wave)).max()), 0.3)
    push = max(2.5, reach * rng.uniform(0.28, 0.5))
    move = np.asarray(push * near * wave, np.float32)
    wires = np.asarray(canvas.wires)
    fetch = -move * np.cos(across), -move * np.sin(across)
    canvas.move(*fetch)
    x, y = canvas.grid()
    moved = cv2.remap(wires, (x + fetch[0]).astype(np.float32), (y + fetch[1]).astype(np.float32), cv2.INTER_LINEAR)
    crease = (cv2.Sobel(move, cv2.CV_32F, 1, 0) * canvas.sun[0] + cv2.Sobel(move, cv2.CV_32F, 0, 1) * canvas.sun[1]) / 8
    crease /= max(float(np.abs(crease).max()), 1e-6)
    canvas.shade(1 + rng.uniform(0, 0.25) * crease * moved)
    glint = np.clip(crease - 0.45, 0, 1) * cv2.erode(moved, np.ones((3, 3), np.uint8)) * rng.uniform(0, 1.5)
    canvas.lay(np.full(3, rng.uniform(170, 240)), np.asarray(cv2.GaussianBlur(glint, (0, 0), 0.8), np.float32))
    return canvas.finish("bent", seen=SEEN_MOVED)


def _dent(image: ImageArray, rng: np.random.Generator, ground: Ground) -> Defect:
    """Cloth that is drawn out of line: the texture moves, one flank is lit and the other in shadow."""
    side = min(image.shape[:2])
    reach = float(np.clip(side * log_uniform(rng, 0.025, 0.09), 6, side / 5))
    place = somewhere(image, rng, 1.2 * reach)
    canvas = Canvas(image, ground, rng, place[None], 2.2 * reach + 3, flat=True)
    angle = ground.angle + rng.choice([0, np.pi / 2]) + rng.normal(0, 0.3)
    u, v = _turned(canvas, place - canvas.origin, angle)
    u += reach * 0.25 * noise(canvas.shape, 1.2 * reach, rng)
    distance = np.minimum(np.hypot(u / rng.uniform(0.35, 0.8), v / rng.uniform(1.0, 1.8)) / reach, 1)
    bump = (1 - distance**2) ** 2
    move = np.asarray(reach * rng.uniform(0.12, 0.25) * bump * rng.choice([-1, 1]), np.float32)
    canvas.move(-move * np.cos(angle), -move * np.sin(angle))
    flank = (cv2.Sobel(bump, cv2.CV_64F, 1, 0) * canvas.sun[0] + cv2.Sobel(bump, cv2.CV_64F, 0, 1) * canvas.sun[1]) / 8
    flank /= max(float(np.abs(flank).max()), 1e-6)
    canvas.shade(1 - rng.uniform(0.12, 0.35) * flank - rng.uniform(0, 0.06) * bump)
    return canvas.finish("bent", np.asarray(bump >= 0.12, np.bool_))


def _turned(canvas: Canvas, centre: Points, angle: float) -> tuple[FloatArray, FloatArray]:
    """Pixels along `angle` from a place, and across it, each (h, w)."""
    x, y = canvas.grid()
    x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.asarray(u, np.float32), np.asarray(v, np.float32)


def _across(canvas: Canvas, centre: Points, reach: float) -> float:
    """The angle across the wire at a place, by the structure tensor about it."""
    grey = cv2.GaussianBlur(canvas.clean.mean(2), (0, 0), 1.0)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    x, y = canvas.grid()
    weight = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (0.35 * reach) ** 2)
    both, difference = float((weight * dx * dy).sum()), float((weight * (dx**2 - dy**2)).sum())
    return float(0.5 * np.arctan2(2 * both, difference))


def broken(image: ImageArray, rng: np.random.Generator, ground: Ground) -> Defect:
    """A gap in a wire that shows the background, with torn bright ends and stubs; in cloth a missing thread."""
    if ground.wires is None:
        return _missing(image, rng, ground)
    half = float(max(3.0, ground.period * rng.uniform(0.12, 0.28)))
    place = on_wire(image, ground, rng, 2 * half)
    canvas = Canvas(image, ground, rng, place[None], 1.2 * ground.period + 4, flat=True)
    centre, wires = place - canvas.origin, np.asarray(canvas.wires)
    across = _across(canvas, centre, ground.period / 3)
    u, v = _turned(canvas, centre, across)
    thick = 2 * _depth(wires, centre) + 2
    torn = v + 0.12 * half * noise(canvas.shape, 3, rng) + u * rng.uniform(-0.4, 0.4)
    gap = np.clip(half - np.abs(torn) + 0.5, 0, 1) * np.clip(0.75 * thick + 2 - np.abs(u), 0, 1)
    wide = np.asarray(cv2.dilate(wires, np.ones((5, 5), np.uint8)), np.float32)
    canvas.lay(_behind(canvas, wide), np.asarray(gap * cv2.GaussianBlur(wide, (0, 0), 0.7), np.float32))
    for end in (-1, 1):
        if rng.random() < 0.6:
            _stub(canvas, wires * (np.abs(u) < thick) * (v * end > 0), centre, across + np.pi / 2, half * end)
        lip = np.clip(1.3 - np.abs(torn - end * half), 0, 1) * wires * (np.abs(u) < 0.75 * thick)
        spots = np.clip(0.6 + noise(canvas.shape, 2.5, rng), 0, 1) * rng.uniform(0.1, 0.9)
        canvas.lay(np.full(3, rng.uniform(150, 245)), np.asarray(lip * spots, np.float32))
    return canvas.finish("broken")


def _depth(wires: FloatArray, centre: Points) -> float:
    """Pixels from a place in a wire to the wire's edge."""
    depth = cv2.distanceTransform((wires > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    x, y = np.rint(centre).astype(int)
    return float(depth[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].max())


def _behind(canvas: Canvas, wires: FloatArray) -> FloatArray:
    """What lies behind the wires (h, w, 3): the mean of the pixels about that belong to none, faintly uneven."""
    free, blur = 1 - wires + np.float32(1e-3), max(2.0, 0.25 * canvas.ground.period)
    sums = np.asarray(cv2.GaussianBlur(canvas.clean * free[..., None], (0, 0), blur), np.float32)
    mean = sums / np.asarray(cv2.GaussianBlur(free, (0, 0), blur), np.float32)[..., None]
    return np.asarray(mean * (1 + 0.02 * noise(canvas.shape, 4, canvas.rng))[..., None], np.float32)


def _stub(canvas: Canvas, piece: FloatArray, centre: Points, along: float, half: float) -> None:
    """A piece of wire that hangs on at the end of a gap (`half` pixels from its middle), turned out of its place."""
    hinge = centre + half * np.array([np.cos(along), np.sin(along)])
    x, y = canvas.grid()
    inner = ((x - hinge[0]) * np.cos(along) + (y - hinge[1]) * np.sin(along)) * np.sign(half) < 1
    near = np.hypot(x - hinge[0], y - hinge[1]) < abs(half) * canvas.rng.uniform(0.5, 1.3)
    turn = float(canvas.rng.choice([-1, 1]) * canvas.rng.uniform(20, 75))
    matrix, size = cv2.getRotationMatrix2D((float(hinge[0]), float(hinge[1])), turn, 1.0), canvas.shape[::-1]
    cover = cv2.warpAffine(np.asarray(piece * inner * near, np.float32), matrix, size, flags=cv2.INTER_LINEAR)
    turned = cv2.warpAffine(canvas.clean, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    canvas.cast(np.asarray(cover, np.float32), 2.0, 0.2)
    canvas.lay(np.asarray(turned, np.float32), np.asarray(cover, np.float32))


def _missing(image: ImageArray, rng: np.random.Generator, ground: Ground) -> Defect:
    """A thread of the weave that is missing or torn: a thin straight flaw along it, ends frayed."""
    side = min(image.shape[:2])
    heading = ground.angle + rng.choice([0.0, np.pi / 2], p=[0.7, 0.3]) + rng.normal(0, 0.02)
    curve = wander(rng, max(8.0, side * log_uniform(rng, 0.05, 0.3)), 0.05, heading)
    curve += somewhere(image, rng, 0.08 * side) - curve[len(curve) // 2]
    half = float(np.clip(0.12 * ground.period, 0.9, 0.008 * side + 0.9))
    canvas = Canvas(image, ground, rng, curve, 6 * half + 6, flat=True)
    curve = curve - canvas.origin
    about = tube(curve, canvas.shape, 3 * half + 3)
    count = len(curve)
    steps = np.arange(count)
    wide = half * np.clip(1 + 0.25 * ripple(count, 4, rng), 0.4, 1.6)
    wide *= np.clip(np.minimum(steps, steps[::-1]) / (3 * half) + 0.3, 0, 1)
    cover = about.cover(wide)
    contrast = np.maximum(ground.bright - ground.dark, 25)
    level = ground.mean + contrast * (rng.uniform(0.3, 0.6) * rng.choice([-1, 1], p=[0.7, 0.3]))
    behind = cv2.GaussianBlur(canvas.work, (0, 0), 2 * half) + (level - ground.mean)
    canvas.lay(behind, cover)
    side_light = np.exp(-((np.abs(about.across) - 1.6 * half) ** 2) / half**2) * (about.beyond < half)
    canvas.shade(1 + 0.1 * side_light * np.sign(about.across))
    number = int(rng.integers(2, 6))
    starts = np.repeat(curve[[0, -1]], number, 0)
    way = np.repeat([heading + np.pi, heading], number) + rng.normal(0, 0.7, 2 * number)
    canvas.lay(ground.bright, hairs(canvas, starts, way, 5 * half, 1.5, 0.5))
    return canvas.finish("broken")
