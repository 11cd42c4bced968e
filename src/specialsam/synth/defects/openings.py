"""Where a surface is opened: cuts and holes, with pushed edges, a dark floor, the rim's shadow and loose fibres."""

from __future__ import annotations

import cv2
import numpy as np

from specialsam.core.geometry import FloatArray, ImageArray
from specialsam.synth.defects.canvas import Canvas, Defect
from specialsam.synth.defects.forms import blob, hairs, log_uniform, noise, ripple, somewhere, tube, wander
from specialsam.synth.defects.ground import Ground

LEAST_PUSH = 0.4
"""Pixels that the surface beside an opening is pushed at least; less than that stays where it was."""


def cut(image: ImageArray, rng: np.random.Generator, ground: Ground) -> Defect:
    """A cut: a torn slit, widest in its middle, whose lips are pushed apart, one lit and one in shadow."""
    side = min(image.shape[:2])
    length = side * log_uniform(rng, 0.07, 0.3)
    along_weave = rng.random() < 0.5 * ground.order
    heading = ground.angle + rng.normal(0, 0.1) if along_weave else None
    curve = wander(rng, max(8.0, length), rng.choice([0.2, 0.8]), heading)
    half = max(1.0, min(length * rng.uniform(0.02, 0.06), 0.012 * side))
    curve += somewhere(image, rng, 0.1 * side + 2) - curve[len(curve) // 2]
    canvas = Canvas(image, ground, rng, curve, 8 * half + 6)
    curve = curve - canvas.origin
    count = len(curve)
    about = tube(curve, canvas.shape, 8 * half + 5)
    swell = np.sin(np.linspace(0.04, np.pi - 0.04, count)) ** rng.uniform(0.5, 1.1)
    wide = half * np.maximum(swell, 0.1) * np.clip(1 + 0.3 * ripple(count, 3, rng), 0.4, 1.6)
    here = np.interp(about.along, np.arange(count), wide).astype(np.float32)
    gap = np.abs(about.across) + about.beyond - here + 0.5 * noise(canvas.shape, 1.5, rng)
    push = here * np.exp(-np.clip(gap, 0, None) / (1.2 * half)) * np.sign(about.across) * (about.beyond == 0)
    push *= np.abs(push) >= LEAST_PUSH
    canvas.move(-push * np.cos(about.normal), -push * np.sin(about.normal))
    facing = np.sign(about.across) * np.cos(about.normal - canvas.light)
    lip = np.exp(-((np.clip(gap, 0, None) / (1.1 * half + 0.5)) ** 2)) * (about.across < 1e3)
    canvas.shade(1 - rng.uniform(0.15, 0.3) * lip * facing - 0.12 * lip)
    inside = np.clip(0.5 - gap, 0, 1) * (about.across < 1e3)
    u = np.clip(about.across / np.maximum(here, 0.5), -1, 1)
    floor = _floor(canvas) * (0.85 - 0.35 * u * np.cos(about.normal - canvas.light))[..., None]
    canvas.lay(floor, np.asarray(inside, np.float32))
    number = int(rng.integers(3, 6 + int(length / (6 * half))))
    chosen = rng.integers(count // 8, max(count // 8 + 1, count - count // 8), number)
    ahead = np.gradient(curve, axis=0)[chosen]
    edge = rng.choice([-1.0, 1.0], number)
    normal = np.stack([-ahead[:, 1], ahead[:, 0]], 1)
    starts = curve[chosen] + normal * (edge * wide[chosen])[:, None]
    way = np.arctan2(normal[:, 1], normal[:, 0]) + np.where(edge > 0, np.pi, 0) + rng.normal(0, 0.8, number)
    _loose(canvas, hairs(canvas, starts, way, 2.2 * half + 2, 1.5, 0.75))
    return canvas.finish("cut")


def hole(image: ImageArray, rng: np.random.Generator, ground: Ground) -> Defect:
    """A hole: a torn rim, pushed outwards, a dark floor in the rim's shadow, loose fibres that reach in."""
    side = min(image.shape[:2])
    radius = max(3.0, side * log_uniform(rng, 0.01, 0.04))
    place = somewhere(image, rng, 1.5 * radius)
    canvas = Canvas(image, ground, rng, place[None], 3.2 * radius + 4)
    centre = place - canvas.origin
    depth = blob(canvas, centre, radius, 0.18, rng.uniform(0.5, 1))
    depth += 0.05 * radius * noise(canvas.shape, max(1.5, 0.12 * radius), rng)
    x, y = canvas.grid()
    turn = np.arctan2(y - centre[1], x - centre[0]).astype(np.float32)
    push = 0.3 * radius * np.exp(-np.clip(-depth, 0, None) / (0.22 * radius))
    push *= push >= LEAST_PUSH
    canvas.move(-push * np.cos(turn), -push * np.sin(turn))
    rim = np.exp(-((np.clip(-depth, 0, None) / (0.16 * radius + 0.8)) ** 2))
    canvas.shade(1 - rim * (0.18 + rng.uniform(0.1, 0.25) * np.cos(turn - canvas.light)))
    inside = np.asarray(np.clip(depth + 0.5, 0, 1), np.float32)
    away = -canvas.sun * radius * rng.uniform(0.3, 0.6)
    moved = cv2.warpAffine(inside, np.array([[1, 0, away[0]], [0, 1, away[1]]], np.float32), canvas.shape[::-1])
    lit = cv2.GaussianBlur(moved, (0, 0), max(0.8, 0.2 * radius))
    canvas.lay(_floor(canvas) * (0.55 + 0.7 * lit)[..., None], inside)
    number = int(rng.integers(6, 16))
    angles = rng.uniform(0, 2 * np.pi, number)
    rays = np.stack([np.cos(angles), np.sin(angles)], 1)
    starts = centre + rays * _reach(inside, centre, rays)[:, None]
    way = angles + np.pi + rng.normal(0, 0.7, number)
    _loose(canvas, hairs(canvas, starts, way, 0.7 * radius, 2.0, 0.8))
    return canvas.finish("hole")


def _floor(canvas: Canvas) -> FloatArray:
    """What is seen at the ground of an opening, (h, w, 3): darker than anything on the surface, faintly uneven."""
    level = canvas.ground.dark * canvas.rng.uniform(0.25, 0.75)
    return np.asarray(level * (1 + 0.12 * noise(canvas.shape, 3, canvas.rng))[..., None], np.float32)


def _loose(canvas: Canvas, cover: FloatArray) -> None:
    """Torn fibres in the surface's own colour."""
    colour = canvas.ground.mean + (canvas.ground.bright - canvas.ground.mean) * canvas.rng.uniform(-0.3, 0.9)
    canvas.lay(colour, cover)


def _reach(inside: FloatArray, centre: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Pixels from the centre to the rim along each ray (N, 2)."""
    steps = np.arange(0, max(inside.shape), 0.5)
    places = np.rint(centre + rays[:, None] * steps[:, None]).astype(int)
    x, y = np.clip(places[..., 0], 0, inside.shape[1] - 1), np.clip(places[..., 1], 0, inside.shape[0] - 1)
    return np.asarray(steps[(inside[y, x] < 0.5).argmax(1)])
