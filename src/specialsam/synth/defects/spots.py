"""Defects of some width: holes, stains, glue, metal."""

from __future__ import annotations

import cv2
import numpy as np

from specialsam.core.geometry import ImageArray
from specialsam.synth.defects.layer import Defect, Ground, blob, finish, noise, path, place, relief, shadow, stroke


def hole(image: ImageArray, ground: Ground, rng: np.random.Generator) -> Defect:
    """A hole: torn edge, dark inside with the shadow of its rim, loose fibres that reach in."""
    shape = image.shape[:2]
    light = rng.uniform(0, 2 * np.pi)
    radius = _radius(shape, rng, 0.015, 0.06)
    centre = place(shape, 1.5 * radius, rng)
    depth = blob(shape, centre, radius, rng, 0.22, rng.uniform(0.5, 1))
    inside = np.clip(depth + 0.5, 0, 1)
    rim = np.clip(1 - np.abs(depth + 0.12 * radius) / (0.22 * radius), 0, 1)
    sunk = np.clip(depth / (0.5 * radius), 0, 1)
    floor = ground.dark * rng.uniform(0.2, 0.55) * (1.15 - 0.5 * sunk[..., None])
    floor = floor * (1 + 0.15 * noise(shape, 4, rng)[..., None])
    lit = relief(np.asarray(inside, np.float32), radius / 2, light + np.pi)
    paint = image * (1 + 0.5 * lit[..., None]) * (1 - inside[..., None]) + floor * inside[..., None]
    opacity = np.maximum(inside, rim * np.clip(np.abs(lit) * 2, 0, 0.8))
    for _ in range(int(rng.integers(4, 10))):
        turn = rng.uniform(0, 2 * np.pi)
        hair = path((10_000, 10_000), radius * rng.uniform(0.3, 0.8), rng, 0.06, turn + np.pi + rng.normal(0, 0.4))
        hair = hair - hair[0] + np.array([centre[0] + radius * np.cos(turn), centre[1] + radius * np.sin(turn)])
        found, _ = stroke(shape, np.asarray(hair, np.float32), np.full(len(hair), max(1.0, radius / 14), np.float32))
        found = found * inside
        paint = paint * (1 - found[..., None]) + ground.mean * rng.uniform(0.7, 1.2) * found[..., None]
    return finish(image, np.asarray(paint, np.float32), opacity, ground, "hole", rng)


def stain(image: ImageArray, ground: Ground, rng: np.random.Generator) -> Defect:
    """A dye or oil stain: a ragged front that bleeds along the weave, a darker rim, the texture showing through."""
    shape = image.shape[:2]
    radius = _radius(shape, rng, 0.03, 0.12)
    depth = blob(shape, place(shape, radius, rng), radius, rng, 0.3, rng.uniform(0.55, 1), ground.angle)
    depth += 0.18 * radius * noise(shape, max(3, ground.period), rng, ground.angle)
    inside = np.clip(depth / max(2.0, 0.2 * radius) + 0.5, 0, 1)
    rim = np.clip(1 - np.abs(depth - 0.08 * radius) / (0.12 * radius), 0, 1)
    thirst = np.clip(1 + 0.25 * noise(shape, max(3, ground.period / 2), rng, ground.angle), 0.4, 1.6)
    strength = rng.uniform(0.35, 0.75) * inside * thirst + 0.2 * rim * inside
    dye = rng.uniform(0.25, 0.95, 3) if not ground.grey else np.full(3, rng.uniform(0.3, 0.65))
    lighter = rng.random() < 0.2
    paint = image + (255 - image.astype(np.float32)) * 0.5 if lighter else image * dye.astype(np.float32)
    return finish(image, np.asarray(paint, np.float32), strength, ground, "stain", rng)


def glue(image: ImageArray, ground: Ground, rng: np.random.Generator) -> Defect:
    """A drop of glue: translucent, smooths what lies under it, glossy towards the light, dark at its foot."""
    shape = image.shape[:2]
    light, radius = rng.uniform(0, 2 * np.pi), _radius(shape, rng, 0.03, 0.09)
    depth = blob(shape, place(shape, radius, rng), radius, rng, 0.3, rng.uniform(0.4, 1))
    inside = np.asarray(np.clip(depth + 0.5, 0, 1), np.float32)
    body = relief(inside, 0.6 * radius, light)
    under = cv2.GaussianBlur(image, (0, 0), max(1.0, radius / 10)).astype(np.float32)
    milk = ground.mean + (255 - ground.mean) * rng.uniform(0.1, 0.5)
    gloss = np.clip(body - 0.3, 0, 1) * 200 * (0.5 + 0.5 * np.clip(noise(shape, radius / 3, rng), -1, 1))
    clear = rng.uniform(0.45, 0.8)
    paint = under * clear + milk * (1 - clear) + 18 * body[..., None] + np.clip(gloss, 0, 80)[..., None]
    foot = shadow(inside, 0.06 * radius, light, 0.06 * radius) * 0.5
    paint = np.where((inside > 0.02)[..., None], paint, image * 0.4)
    return finish(image, np.asarray(paint, np.float32), np.maximum(inside * 0.95, foot), ground, "glue", rng)


def metal(image: ImageArray, ground: Ground, rng: np.random.Generator) -> Defect:
    """One to three metal shavings: hard edges, highlights that burn out, dark flanks, a cast shadow."""
    shape = image.shape[:2]
    light = rng.uniform(0, 2 * np.pi)
    cover = np.zeros(shape, np.float32)
    centre = np.array(place(shape, 0.1 * min(shape), rng))
    size = _radius(shape, rng, 0.012, 0.045)
    for _ in range(int(rng.integers(1, 4))):
        corners = int(rng.integers(4, 8))
        turns = np.sort(rng.uniform(0, 2 * np.pi, corners))
        reach = size * rng.uniform(0.5, 1.4, corners)
        stretch = np.array([1.0, rng.uniform(0.25, 0.8)])
        points = np.stack([np.cos(turns) * reach, np.sin(turns) * reach], 1) * stretch
        spin = rng.uniform(0, np.pi)
        points = points @ np.array([[np.cos(spin), np.sin(spin)], [-np.sin(spin), np.cos(spin)]])
        points += centre + rng.normal(0, 1.5 * size, 2)
        points = np.clip(points, 1, (shape[1] - 2, shape[0] - 2))
        cv2.fillPoly(cover, [np.rint(points * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    body = relief(cover, 0.5 * size, light)
    brushed = 1 + 0.08 * noise(shape, 3, rng, rng.uniform(0, np.pi))
    glint = np.clip(body - 0.25, 0, 1) ** 1.5 * 420
    paint = rng.uniform(70, 150) * brushed + 70 * body + np.clip(glint, 0, 160)
    dark = shadow(cover, 0.35 * size, light, 0.15 * size) * rng.uniform(0.4, 0.7)
    tint = np.array([1.0, 1.0, 1.0]) if ground.grey else np.array([1.0, rng.uniform(0.93, 1), rng.uniform(0.85, 1.05)])
    laid = np.where((cover > 0.02)[..., None], paint[..., None] * tint, image * 0.3)
    return finish(image, np.asarray(laid, np.float32), np.maximum(cover, dark), ground, "metal", rng)


def _radius(shape: tuple[int, int], rng: np.random.Generator, least: float, most: float) -> float:
    """A radius in pixels, log-uniform between shares of the shorter side, never under 3 pixels."""
    return float(max(3.0, min(shape) * np.exp(rng.uniform(np.log(least), np.log(most)))))
