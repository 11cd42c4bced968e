"""Forms of defects: smooth noise, wandering curves and the tubes about them, hairs, irregular blobs."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from specialsam.core.geometry import FloatArray, ImageArray
from specialsam.synth.defects.canvas import Canvas, Points
from specialsam.synth.defects.ground import Ground

FAR = 1e4


def noise(shape: tuple[int, int], scale: float, rng: np.random.Generator) -> FloatArray:
    """Smooth noise (h, w) of deviation about 1 with features of `scale` pixels."""
    rows, columns = (max(2, int(np.ceil(n / max(scale, 1.0)))) + 3 for n in shape)
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    size = round(columns * max(scale, 1.0)), round(rows * max(scale, 1.0))
    return np.asarray(
        cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)[: shape[0], : shape[1]] * 1.25, np.float32
    )


def ripple(count: int, scale: float, rng: np.random.Generator) -> Points:
    """Smooth noise (count,) along a line, of deviation about 1 with features of `scale` steps."""
    knots = rng.standard_normal(max(4, int(count / max(scale, 1.0)) + 3))
    return np.interp(np.linspace(0, len(knots) - 1, count), np.arange(len(knots)), knots)


def log_uniform(rng: np.random.Generator, least: float, most: float) -> float:
    """A number whose logarithm is uniform: sizes have no favourite."""
    return float(np.exp(rng.uniform(np.log(least), np.log(most))))


def somewhere(image: ImageArray, rng: np.random.Generator, margin: float = 0.0) -> Points:
    """A random place (x, y) in a picture, `margin` pixels from its border where there is room."""
    sides = np.array(image.shape[1::-1], np.float64)
    margin = min(margin, 0.45 * float(sides.min()))
    return rng.uniform(margin, sides - 1 - margin)


def on_wire(image: ImageArray, ground: Ground, rng: np.random.Generator, margin: float) -> Points:
    """A random place (x, y) in the middle of a wire, away from knots; anywhere in a picture without wires."""
    if ground.wires is None:
        return somewhere(image, rng, margin)
    depth = cv2.distanceTransform((ground.wires > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    ridge = (depth > 0.9) & (depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8)))
    edge = int(min(margin, min(depth.shape) / 3)) + 1
    ridge[:edge], ridge[-edge:], ridge[:, :edge], ridge[:, -edge:] = False, False, False, False
    rows, columns = np.nonzero(ridge)
    if not len(rows):
        return somewhere(image, rng, margin)
    deep = depth[rows, columns]
    chosen = int(rng.choice(np.flatnonzero(deep <= np.median(deep))))
    return np.array([columns[chosen], rows[chosen]], np.float64)


def wander(rng: np.random.Generator, length: float, bend: float, heading: float | None = None) -> Points:
    """A curve (N, 2) about a pixel a step from (0, 0), whose direction drifts by some `bend` radians along it."""
    steps = max(4, int(length))
    turn = ripple(steps, steps / 5, rng) * bend / steps * 2.5 + rng.normal(0, 0.5 * bend) / steps
    angle = (rng.uniform(0, 2 * np.pi) if heading is None else heading) + np.cumsum(turn)
    return np.cumsum(np.stack([np.cos(angle), np.sin(angle)], 1), 0)


@dataclass(frozen=True)
class Tube:
    """Every pixel of a window as a curve sees it, each (h, w): `across` signed pixels to its side (FAR where it is not
    near), `along` pixels from its start, `beyond` pixels past its ends, `normal` the angle of its left side."""

    across: FloatArray
    along: FloatArray
    beyond: FloatArray
    normal: FloatArray

    def cover(self, half: Points) -> FloatArray:
        """Coverage 0..1 (H, W) of a line whose half width in pixels, (N,), is given at each of the curve's N steps."""
        wide = np.interp(self.along, np.arange(len(half)), half).astype(np.float32)
        return np.asarray(
            np.clip(wide - np.abs(self.across) + 0.5, 0, 1) * np.clip(1 - self.beyond, 0, 1) * np.clip(wide * 2, 0, 1),
            np.float32,
        )


def tube(curve: Points, shape: tuple[int, int], reach: float) -> Tube:
    """Coordinates about a curve (N, 2) in pixels of a window, as far as `reach` pixels from it; exact to subpixels."""
    across, along = np.full(shape, FAR, np.float32), np.zeros(shape, np.float32)
    beyond, normal = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    cells = np.rint(curve).astype(int)
    inside = np.flatnonzero((cells >= 0).all(1) & (cells[:, 0] < shape[1]) & (cells[:, 1] < shape[0]))
    if not len(inside):
        return Tube(across, along, beyond, normal)
    free = np.ones(shape, np.uint8)
    free[cells[inside, 1], cells[inside, 0]] = 0
    distance, labels = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    step = np.zeros(int(labels.max()) + 1, int)
    step[labels[cells[inside, 1], cells[inside, 0]]] = inside
    rows, columns = np.nonzero(distance <= reach)
    nearest = step[labels[rows, columns]]
    tangent = np.gradient(curve, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-6)
    offset = np.stack([columns, rows], 1) - curve[nearest]
    t = tangent[nearest]
    forward = (offset * t).sum(1)
    across[rows, columns] = offset[:, 1] * t[:, 0] - offset[:, 0] * t[:, 1]
    along[rows, columns] = nearest + forward
    beyond[rows, columns] = np.maximum(0, np.maximum(-(nearest + forward), nearest + forward - (len(curve) - 1)))
    normal[rows, columns] = np.arctan2(t[:, 0], -t[:, 1])
    return Tube(across, along, beyond, normal)


def hairs(
    canvas: Canvas, starts: Points, headings: Points, length: float, bend: float = 1.5, strength: float = 0.8
) -> FloatArray:
    """Coverage 0..1 (h, w) of fine hairs, one a start (x, y) and heading, about `length` pixels long."""
    cover = np.zeros(canvas.shape, np.uint8)
    for start, heading in zip(starts, headings, strict=True):
        line = wander(canvas.rng, max(4.0, length * canvas.rng.uniform(0.4, 1.3)), bend, float(heading)) + start
        level = int(255 * strength * canvas.rng.uniform(0.5, 1))
        cv2.polylines(cover, [np.rint(line * 16).astype(np.int32)], False, level, 1, cv2.LINE_AA, 4)
    return np.asarray(cover, np.float32) / np.float32(255)


def blob(
    canvas: Canvas, centre: Points, radius: float, ragged: float, squeeze: float = 1.0, angle: float | None = None
) -> FloatArray:
    """Signed depth (h, w) in pixels of an irregular blob, positive inside; exact only near its border.

    `ragged` is the unevenness of its border as a share of the radius, `squeeze` its width by its length, which lies at
    `angle` (random where left out).
    """
    rng = canvas.rng
    turn = rng.uniform(0, np.pi) if angle is None else angle
    x, y = canvas.grid()
    x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
    u, v = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / squeeze
    uneven = 0.65 * noise(canvas.shape, 0.9 * radius, rng) + 0.35 * noise(canvas.shape, max(2.0, 0.3 * radius), rng)
    return np.asarray((radius * (1 + ragged * np.clip(uneven, -1.6, 1.6)) - np.hypot(u, v)) * squeeze**0.5, np.float32)


def tone(ground: Ground, rng: np.random.Generator, darker: float = 0.6) -> FloatArray:
    """A colour (3,) that stands out from the ground by 30 levels or more; any hue unless the ground is grey."""
    mean = float(ground.mean.mean())
    down = rng.random() < darker if 55 < mean < 190 else mean >= 190
    level = mean * rng.uniform(0.2, 0.65) if down else mean + (240 - mean) * rng.uniform(0.35, 0.9)
    if abs(level - mean) < 30:
        level = mean + (-35 if down else 35)
    if ground.grey:
        return np.full(3, np.clip(level, 6, 246), np.float32)
    hue = np.array([[[rng.uniform(0, 360), rng.uniform(0.05, 0.75), 1.0]]], np.float32)
    colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0]
    return np.asarray(np.clip(colour / max(float(colour.mean()), 1e-3) * level, 4, 250), np.float32)


def under(canvas: Canvas, share: float = 1.0) -> FloatArray:
    """What of a layer stays visible (h, w) 0..1 if it lies behind the wires, in `share` of the window's places."""
    if canvas.wires is None:
        return np.ones(canvas.shape, np.float32)
    if share >= 1:
        return 1 - canvas.wires
    place = noise(canvas.shape, 1.5 * canvas.ground.period, canvas.rng)
    behind = np.clip((place + np.float32(2.6 * share - 1.3)) * 4 + 0.5, 0, 1)
    return np.asarray(1 - canvas.wires * behind, np.float32)
