"""What a surface soaks up or what sticks to it: stains, wrong dye, glue."""

from __future__ import annotations

import cv2
import numpy as np

from specialsam.core.geometry import FloatArray, ImageArray
from specialsam.synth.defects.canvas import Canvas, Defect
from specialsam.synth.defects.forms import blob, log_uniform, noise, on_wire, somewhere, tone
from specialsam.synth.defects.ground import Ground

BLACK = 40.0
"""Level under which nothing gets darker by soaking: there a stain leaves a paler crust."""


def stain(image: ImageArray, rng: np.random.Generator, ground: Ground) -> Defect:
    """A wet or oily stain: an irregular front that bleeds along the weave, a darker rim, splashes beside it."""
    side = min(image.shape[:2])
    radius = max(4.0, side * log_uniform(rng, 0.02, 0.1))
    canvas, depth = _front(image, rng, ground, radius)
    soaked, rim = _soaked(canvas, depth, radius)
    strength = rng.uniform(0.25, 0.6)
    taken = strength * soaked * (1 - rng.uniform(0, 0.5) * (1 - rim)) + rng.uniform(0, 0.2) * rim * soaked
    dye = np.ones(3) if ground.grey else 1 - rng.uniform(0, 0.5, 3)
    canvas.shade(1 - np.clip(taken, 0, 0.9)[..., None] * dye / dye.max())
    if float(ground.mean.mean()) < BLACK:
        canvas.work += (taken * rng.uniform(60, 160))[..., None]
    return canvas.finish("stain")


def colour(image: ImageArray, rng: np.random.Generator, ground: Ground) -> Defect:
    """Wrong dye: a patch of another colour with the texture showing through; a grey picture gets another level."""
    side = min(image.shape[:2])
    radius = max(4.0, side * log_uniform(rng, 0.025, 0.11))
    canvas, depth = _front(image, rng, ground, radius)
    soaked, _ = _soaked(canvas, depth, radius)
    target = tone(ground, rng, 0.5)
    ratio = np.clip(target / np.maximum(ground.mean, 8), 0.3, 2.2)
    share = (soaked * rng.uniform(0.35, 0.85))[..., None]
    canvas.shade(1 + share * (ratio - 1))
    canvas.work += share * (target - ground.mean * ratio)
    return canvas.finish("colour")


def _front(image: ImageArray, rng: np.random.Generator, ground: Ground, radius: float) -> tuple[Canvas, FloatArray]:
    """The window about a stain and the signed depth of its front, longer along the weave, with splashes beside."""
    place = somewhere(image, rng, 0.6 * radius)
    canvas = Canvas(image, ground, rng, place[None], 3.2 * radius + 6, flat=True)
    centre = place - canvas.origin
    squeeze = rng.uniform(0.55, 1.0) * (1 - 0.35 * ground.order)
    along = ground.angle + rng.normal(0, 0.15) if rng.random() < 0.3 + ground.order else None
    depth = blob(canvas, centre, radius, rng.uniform(0.15, 0.35), squeeze, along)
    for _ in range(int(rng.choice([0, 1, 2, 4], p=[0.45, 0.25, 0.2, 0.1]))):
        small = radius * rng.uniform(0.1, 0.35)
        beside = centre + rng.normal(0, 0.8 * radius, 2)
        depth = np.maximum(depth, blob(canvas, beside, small, 0.2, rng.uniform(0.6, 1), along))
    fringe = noise(canvas.shape, max(1.5, 0.35 * ground.period), rng)
    reach = int(max(3, 0.8 * ground.period)) | 1
    kernel = np.zeros((reach, reach), np.float32)
    step = (reach // 2) * np.array([np.cos(ground.angle), np.sin(ground.angle)])
    middle = reach // 2
    ends = [(round(middle + way * step[0]), round(middle + way * step[1])) for way in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1)
    drawn = cv2.filter2D(fringe, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
    return canvas, np.asarray(depth + min(0.1 * radius, 0.5 * ground.period) * drawn, np.float32)


def _soaked(canvas: Canvas, depth: FloatArray, radius: float) -> tuple[FloatArray, FloatArray]:
    """How much each place has taken up, 0..1.3, and the rim where dye gathers as it dries, 0..1; each (h, w)."""
    rng = canvas.rng
    soft = max(1.0, radius * log_uniform(rng, 0.08, 0.5))
    inside = np.clip(depth / soft + 0.5, 0, 1)
    inside = inside * inside * (3 - 2 * inside)
    ring = np.exp(-(((depth - 0.6 * soft) / (0.12 * radius + 0.8)) ** 2))
    grey = canvas.clean.mean(2)
    relief = grey - cv2.GaussianBlur(grey, (0, 0), max(1.5, 0.5 * canvas.ground.period))
    thirst = 1 - 0.25 * np.clip(relief / max(float(relief.std()), 1.0), -1.5, 1.5)
    uneven = 1 + 0.2 * noise(canvas.shape, max(3.0, 0.5 * radius), rng)
    return np.asarray(np.clip(inside * thirst * uneven, 0, 1.3), np.float32), np.asarray(ring, np.float32)


def glue(image: ImageArray, rng: np.random.Generator, ground: Ground) -> Defect:
    """A drop of glue: clear, it bends the light from below, has a dark outline and small hard highlights."""
    side = min(image.shape[:2])
    most = 0.05 * side if ground.wires is None else min(0.06 * side, 0.6 * ground.period)
    radius = max(5.0, log_uniform(rng, 0.45, 1.0) * most)
    place = on_wire(image, ground, rng, 1.4 * radius)
    canvas = Canvas(image, ground, rng, place[None], 2.4 * radius + 6, flat=True)
    centre = place - canvas.origin
    depth = blob(canvas, centre, radius, 0.14, rng.uniform(0.55, 1))
    inside = np.asarray(np.clip(depth + 0.5, 0, 1), np.float32)
    body = np.clip(depth / (0.7 * radius), 0, 1)
    height = cv2.GaussianBlur(np.sqrt(1 - (1 - body) ** 2).astype(np.float32), (0, 0), max(0.8, 0.1 * radius))
    height += 0.06 * noise(canvas.shape, max(2.0, 0.35 * radius), rng) * inside
    dx, dy = cv2.Sobel(height, cv2.CV_32F, 1, 0) / 8 * radius, cv2.Sobel(height, cv2.CV_32F, 0, 1) / 8 * radius
    bend = 0.35 * radius
    canvas.move(np.clip(dx, -1, 1) * bend * inside, np.clip(dy, -1, 1) * bend * inside)
    under = cv2.GaussianBlur(canvas.work, (0, 0), max(0.7, 0.04 * radius))
    milk = ground.mean + (ground.bright - ground.mean) * rng.uniform(0.0, 0.8)
    clear = rng.uniform(0.55, 0.85)
    outline = np.exp(-((depth / (0.06 * radius + 0.8)) ** 2))
    towards = -(dx * canvas.sun[0] + dy * canvas.sun[1])
    body_light = 1 + 0.16 * np.clip(towards, -1, 1) - rng.uniform(0.15, 0.4) * outline
    paint = (under * clear + milk * (1 - clear)) * body_light[..., None]
    paint += 0.35 * (ground.bright - ground.mean) * np.clip(-towards - 0.35, 0, 1)[..., None]
    sharp = np.exp(-((towards - 0.62) ** 2 + (np.hypot(dx, dy) - 0.62) ** 2) / rng.uniform(0.008, 0.03))
    gleam = np.clip(sharp * (0.5 + 0.9 * noise(canvas.shape, max(2.0, 0.3 * radius), rng)), 0, 1) * inside
    canvas.lay(paint, inside)
    canvas.lay(np.full(3, rng.uniform(225, 255)), np.asarray(gleam, np.float32))
    return canvas.finish("glue")
