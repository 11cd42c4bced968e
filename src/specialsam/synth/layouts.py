"""How a picture is composed: regions, and layouts that lay objects on them from back to front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.synth.animals import animal
from specialsam.synth.light import threefold
from specialsam.synth.materials import GRAIN_SIDE, Material, alike, draw_material, grain, paint
from specialsam.synth.placing import (
    Canvas,
    Look,
    Thing,
    defocus,
    draw_centre,
    draw_look,
    draw_name,
    draw_radius,
    draw_shape,
    lay,
)
from specialsam.synth.shapes import SHAPES, branch, crack, leaf

Layout = Callable[[np.random.Generator, Canvas, float], None]

HIDDEN_SHARE = 0.3
"""Share of scenes with one hidden animal in the mix for pre-training."""
NATURAL = (
    *("grain", "rock", "bark", "fur", "turing", "worley", "pebbles", "scales"),
    *("leaves", "grass", "discs", "spots", "wood", "clouds", "water"),
)

CRACKING = ("rock", "grain", "clouds", "pebbles", "bark", "worley")
"""Textures of what cracks."""


def ground(rng: np.random.Generator, canvas: Canvas, materials: Sequence[Material], blur: float) -> None:
    """Fill the canvas with regions from top to bottom, each bounded by a level, ragged or wandering line."""
    size = canvas.size
    canvas.owner[:] = canvas.enter("region")
    canvas.pixels[:] = paint(materials[0], size, size, canvas.unit)
    levels = np.sort(rng.uniform(0.12, 0.88, len(materials) - 1)) * size
    columns = np.arange(size, dtype=np.float32)
    patchy = rng.random() < 0.12
    for level, material in zip(levels, materials[1:], strict=True):
        at = rng.integers(0, GRAIN_SIDE - 64, 2)
        if patchy:
            crop = int(rng.uniform(30, 64))
            rise = (
                cv2.resize(
                    grain()[2][at[0] : at[0] + crop, at[1] : at[1] + crop], (size, size), interpolation=cv2.INTER_CUBIC
                )
                * 12
            )
            depth = rise * canvas.unit
        else:
            line = cv2.resize(grain()[2][at[0], at[1] : at[1] + 64][None], (size, 1), interpolation=cv2.INTER_CUBIC)[0]
            line = line * np.exp(rng.uniform(0, 3.4)) * canvas.unit
            if rng.random() < 0.3:
                line = line + rng.normal(0, 1, size).astype(np.float32) * rng.uniform(0.5, 3) * canvas.unit
            edge = level + line + (columns - size / 2) * rng.normal(0, 0.15)
            depth = columns[:, None] - edge[None].astype(np.float32)
        softness = np.exp(rng.uniform(np.log(0.7), np.log(6))) * canvas.unit
        alpha = np.clip(depth / softness + 0.5, 0, 1).astype(np.float32)
        canvas.pixels += threefold(alpha) * (paint(material, size, size, canvas.unit) - canvas.pixels)
        np.copyto(canvas.owner, np.int16(canvas.enter("region")), where=alpha > 0.5)
    fade = rng.random()
    if fade < 0.4:  # light falls off over the depth
        canvas.pixels *= np.linspace(1 - fade, 1 + fade * 0.5, size, dtype=np.float32)[
            :: int(rng.choice([1, -1])), None, None
        ]
    defocus(canvas, blur)


def _grounds(rng: np.random.Generator, count: int) -> list[Material]:
    """Materials of regions from the top (sky, far wood, wall) to the bottom (ground that recedes)."""
    materials = []
    for number in range(count):
        if number == 0 and count > 1 and rng.random() < 0.5:
            material = draw_material(
                rng, "clouds", rng.choice(["sky", "sky", "snow", "stone", "shade", "pastel"]), rng.uniform(0.02, 0.35)
            )
        else:
            material = draw_material(rng)
        if number > 0 and rng.random() < 0.6:
            material = _tilted(rng, material)
        materials.append(material)
    return materials


def _tilted(rng: np.random.Generator, material: Material) -> Material:
    return replace(material, tilt=float(rng.uniform(0.4, 2.0)), scale=material.scale * 0.6)


def _blur(rng: np.random.Generator, likely: float) -> float:
    return float(np.exp(rng.uniform(np.log(0.7), np.log(7)))) if rng.random() < likely else 0.0


def scenery(rng: np.random.Generator, canvas: Canvas, share: float) -> None:
    """Sky, ground or water with a few objects and animals on it."""
    grounds = _grounds(rng, int(rng.integers(2, 5)))
    ground(rng, canvas, grounds, _blur(rng, 0.25))
    for _ in range(int(rng.integers(2, 11))):
        below = grounds[int(rng.integers(len(grounds)))]
        material = alike(rng, below, 1.0) if rng.random() < share else draw_material(rng)
        radius = draw_radius(rng, canvas, 15, 110)
        beast = rng.random() < 0.3
        outline = animal(rng, radius) if beast else draw_shape(rng, radius)
        centre = (float(rng.uniform(0, canvas.size)), float(rng.beta(2.2, 1.6) * canvas.size))
        lay(rng, canvas, Thing(outline, centre, material, draw_look(rng), "animal" if beast else "object"))
    _foreground(rng, canvas, 0.3)


def heap(rng: np.random.Generator, canvas: Canvas, share: float) -> None:
    """Dead leaves: many objects over each other, few materials."""
    grounds = _grounds(rng, int(rng.integers(1, 3)))
    ground(rng, canvas, grounds, _blur(rng, 0.2))
    stock = [draw_material(rng) for _ in range(int(rng.integers(3, 8)))]
    favourite = draw_name(rng) if rng.random() < 0.3 else None
    look = draw_look(rng)
    for _ in range(int(rng.integers(8, 26))):
        material = alike(rng, grounds[-1] if rng.random() < share else stock[int(rng.integers(len(stock)))], 0.8)
        radius = draw_radius(rng, canvas, 12, 130)
        outline = SHAPES[favourite][0](rng, radius) if favourite else draw_shape(rng, radius)
        centre = draw_centre(rng, canvas)
        lay(rng, canvas, Thing(outline, centre, material, look if rng.random() < 0.7 else draw_look(rng)))


def portrait(rng: np.random.Generator, canvas: Canvas, share: float) -> None:
    """One or two large things before ground that is often out of focus."""
    grounds = _grounds(rng, int(rng.integers(1, 4)))
    ground(rng, canvas, grounds, 0.0)
    for _ in range(int(rng.integers(0, 7))):  # things behind
        thing = Thing(
            draw_shape(rng, draw_radius(rng, canvas, 18, 100)),
            draw_centre(rng, canvas),
            draw_material(rng),
            draw_look(rng),
        )
        lay(rng, canvas, thing)
    defocus(canvas, _blur(rng, 0.55))
    for _ in range(1 + (rng.random() < 0.4)):
        material = alike(rng, grounds[-1], 1.0) if rng.random() < share else draw_material(rng)
        radius = rng.uniform(48, 140) * canvas.unit
        beast = rng.random() < 0.65
        outline = animal(rng, radius) if beast else draw_shape(rng, radius)
        centre = draw_centre(rng, canvas, 0.25, 0.75)
        lay(rng, canvas, Thing(outline, centre, material, draw_look(rng), "animal" if beast else "object"))
    _foreground(rng, canvas, 0.35)


def herd(rng: np.random.Generator, canvas: Canvas, share: float) -> None:
    """The same kind of thing several times."""
    grounds = _grounds(rng, int(rng.integers(1, 4)))
    ground(rng, canvas, grounds, _blur(rng, 0.3))
    first = alike(rng, grounds[-1], 1.0) if rng.random() < share else draw_material(rng)
    beast, name, look = rng.random() < 0.6, draw_name(rng), draw_look(rng)
    radius, seed = rng.uniform(18, 62) * canvas.unit, int(rng.integers(2**31))
    for _ in range(int(rng.integers(3, 10))):
        own = np.random.default_rng(seed) if rng.random() < 0.6 else rng
        size = radius * np.exp(rng.normal(0, 0.2))
        outline = animal(own, size) if beast else SHAPES[name][0](own, size)
        centre = draw_centre(rng, canvas)
        lay(rng, canvas, Thing(outline, centre, alike(rng, first, 0.35), look, "animal" if beast else "object"))
    _foreground(rng, canvas, 0.3)


def facade(rng: np.random.Generator, canvas: Canvas, share: float) -> None:
    """Walls, boxes, windows and poles: level and upright things with plain surfaces."""
    ground(
        rng,
        canvas,
        [draw_material(rng, contrast=float(rng.uniform(0.05, 0.6))) for _ in range(int(rng.integers(1, 4)))],
        0.0,
    )
    for _ in range(int(rng.integers(3, 13))):
        name = str(rng.choice(["box", "box", "box", "polygon", "ellipse", "branch", "blob"]))
        material = draw_material(rng, contrast=float(rng.uniform(0.03, 0.5)))
        centre = draw_centre(rng, canvas)
        outline = SHAPES[name][0](rng, draw_radius(rng, canvas, 18, 140))
        lay(rng, canvas, Thing(outline, centre, material, draw_look(rng)))
    if rng.random() < 0.4:
        thing = Thing(
            animal(rng, rng.uniform(25, 70) * canvas.unit),
            draw_centre(rng, canvas, 0.2, 0.8),
            draw_material(rng),
            draw_look(rng),
            "animal",
        )
        lay(rng, canvas, thing)


def patchwork(rng: np.random.Generator, canvas: Canvas, share: float) -> None:
    """The whole picture divided into regions that touch, many of one texture: fields, plumage, clothes, rooms."""
    owners = _regions(rng, canvas.size, int(rng.integers(3, 14)))
    stock = [draw_material(rng) for _ in range(int(rng.integers(2, 6)))]
    soft = float(np.exp(rng.uniform(np.log(0.3), np.log(2.5)))) * canvas.unit
    margin = round(3 * soft) + 2
    for number in np.unique(owners):
        first = stock[int(rng.integers(len(stock)))]
        near = rng.random() < 0.7 + share
        material = alike(rng, first, float(rng.uniform(0.4, 1.6))) if near else draw_material(rng)
        inside = (owners == number).astype(np.uint8)
        x, y, wide, high = cv2.boundingRect(inside)
        frame = slice(max(0, y - margin), y + high + margin), slice(max(0, x - margin), x + wide + margin)
        alpha = cv2.GaussianBlur(inside[frame] * np.float32(1), (0, 0), soft)
        surface = paint(material, alpha.shape[0], alpha.shape[1], canvas.unit)
        if rng.random() < 0.5:  # a region's own light
            surface *= threefold(_slope(rng, alpha.shape[0], alpha.shape[1]))
        if canvas.kinds:
            canvas.pixels[frame] += threefold(alpha) * (surface - canvas.pixels[frame])
        else:
            canvas.pixels[:] = paint(material, canvas.size, canvas.size, canvas.unit)
        np.copyto(canvas.owner, np.int16(canvas.enter("region")), where=inside > 0)
    defocus(canvas, _blur(rng, 0.15))
    for _ in range(int(rng.integers(0, 5))):
        beast, radius = rng.random() < 0.4, draw_radius(rng, canvas, 15, 90)
        outline = animal(rng, radius) if beast else draw_shape(rng, radius)
        coat = alike(rng, stock[0], 1.0) if rng.random() < 0.5 else draw_material(rng)
        lay(
            rng, canvas, Thing(outline, draw_centre(rng, canvas), coat, draw_look(rng), "animal" if beast else "object")
        )


def _regions(rng: np.random.Generator, size: int, count: int) -> npt.NDArray[np.int64]:
    """At most `count` regions that fill (size, size), as numbers: unions of warped Voronoi cells, so that most are
    neither round nor convex."""
    cells = count * int(rng.integers(1, 7))
    points = rng.uniform(-0.1, 1.1, (cells, 2)).astype(np.float32) * size
    stretch = np.exp(rng.normal(0, 0.3, 2)).astype(np.float32)  # regions are longer one way than the other
    region = np.argmin((((points[:, None] - points[:count]) * stretch) ** 2).sum(-1), 1)
    weights = rng.uniform(0, size**2 / cells, cells).astype(np.float32)
    y, x = np.indices((size, size), np.float32)
    reach = float(np.exp(rng.uniform(np.log(0.005), np.log(0.06)))) * size
    for plane in (x, y):
        at, crop = rng.integers(0, GRAIN_SIDE - 128, 2), int(rng.uniform(6, 96))
        bend = grain()[2][at[0] : at[0] + crop, at[1] : at[1] + crop]
        plane += reach * cv2.resize(bend, (size, size), interpolation=cv2.INTER_CUBIC)
    nearest, owners = np.full((size, size), np.inf, np.float32), np.zeros((size, size), np.int64)
    for (px, py), weight, number in zip(points, weights, region, strict=True):
        away = (x - px) ** 2 + (y - py) ** 2 - weight
        np.copyto(owners, number, where=away < nearest)
        np.minimum(nearest, away, out=nearest)
    return owners


def _slope(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """Light that rises across a patch, (height, width) about 1."""
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.5)
    across = depth * np.cos(angle) * np.linspace(-0.5, 0.5, width)
    down = depth * np.sin(angle) * np.linspace(-0.5, 0.5, height)
    return np.asarray(1 + across + down[:, None], np.float32)


def hidden(rng: np.random.Generator, canvas: Canvas) -> None:
    """One animal on ground of its own texture family, among clutter of the same kind."""
    base = draw_material(rng, str(rng.choice(NATURAL)), contrast=float(rng.uniform(0.15, 1.0)))
    grounds = [base]
    if rng.random() < 0.45:
        grounds.insert(int(rng.integers(2)), alike(rng, base, 1.5) if rng.random() < 0.6 else draw_material(rng))
    if rng.random() < 0.3:
        grounds[-1] = _tilted(rng, grounds[-1])
    ground(rng, canvas, grounds, 0.0)
    for _ in range(int(rng.integers(0, 9))):
        material = alike(rng, base, 1.2) if rng.random() < 0.8 else draw_material(rng)
        outline, centre = draw_shape(rng, draw_radius(rng, canvas, 11, 80)), draw_centre(rng, canvas)
        lay(rng, canvas, Thing(outline, centre, material, draw_look(rng)))
    defocus(canvas, _blur(rng, 0.25) * 0.4)
    seen = draw_look(rng)
    look = Look(
        max(seen.relief, float(rng.uniform(0.1, 0.6))),
        seen.shadow * 0.8,
        seen.softness,
        seen.ragged,
        float(rng.uniform(0.3, 0.9)),
    )
    radius = float(rng.uniform(34, 115)) * canvas.unit
    centre = draw_centre(rng, canvas, 0.3, 0.7)
    coat = alike(rng, base, float(rng.uniform(0.5, 1.6)))
    lay(rng, canvas, Thing(animal(rng, radius), centre, coat, look, "animal", base))
    _foreground(rng, canvas, 0.4, base, 2)


def cracked(rng: np.random.Generator, canvas: Canvas) -> None:
    """A wall or a road, stained here and there, with one crack of 2 to 5 pixels, whatever the size of the picture."""
    base = draw_material(rng, str(rng.choice(CRACKING)), contrast=float(rng.uniform(0.05, 0.5)))
    ground(rng, canvas, [base], 0.0)
    for _ in range(int(rng.integers(0, 5))):
        stain = Thing(
            draw_shape(rng, draw_radius(rng, canvas, 11, 60), solid=True),
            draw_centre(rng, canvas),
            alike(rng, base, 0.8),
            Look(0, 0, float(rng.uniform(1, 3)), 0),
        )
        lay(rng, canvas, stain)
    outline = crack(rng, float(rng.uniform(0.2, 0.45)) * canvas.size, float(rng.uniform(2, 5)))
    dark = draw_material(rng, theme="shade", contrast=float(rng.uniform(0.02, 0.3)))
    look = Look(0, 0, 0.3 / canvas.unit, 0)
    lay(rng, canvas, Thing(outline, draw_centre(rng, canvas, 0.35, 0.65), dark, look))


def _foreground(
    rng: np.random.Generator, canvas: Canvas, likely: float, base: Material | None = None, most: int = 5
) -> None:
    """Branches, stalks and leaves before everything else, now and then out of focus."""
    if rng.random() > likely:
        return
    blurred = rng.random() < 0.3
    for _ in range(int(rng.integers(1, most + 1))):
        material = draw_material(rng) if base is None else alike(rng, base, 1.2)
        shape = leaf if rng.random() < 0.4 else branch
        radius = float(rng.uniform(20, 60) if shape is leaf else rng.uniform(60, 190)) * canvas.unit
        look = draw_look(rng)
        if blurred:
            look = Look(look.relief, 0, float(rng.uniform(1.5, 4)), 0)
        thing = Thing(shape(rng, radius * (0.5 if base else 1)), draw_centre(rng, canvas), material, look)
        lay(rng, canvas, thing)


LAYOUTS: dict[str, tuple[Layout, float]] = {
    "scenery": (scenery, 3.0),
    "heap": (heap, 2.0),
    "portrait": (portrait, 3.0),
    "herd": (herd, 1.3),
    "facade": (facade, 1.5),
    "patchwork": (patchwork, 3.5),
}


def draw_layout(rng: np.random.Generator) -> Layout:
    """A layout by its weight."""
    weights = np.array([weight for _, weight in LAYOUTS.values()])
    return list(LAYOUTS.values())[int(rng.choice(len(weights), p=weights / weights.sum()))][0]
