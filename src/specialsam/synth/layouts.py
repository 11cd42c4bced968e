"""How a picture is composed: a canvas that things are laid on from back to front, and the layouts that do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.synth.animals import animal
from specialsam.synth.light import shading
from specialsam.synth.materials import GRAIN_SIDE, Material, alike, draw_material, grain, paint
from specialsam.synth.shapes import SHAPES, Silhouette, branch, leaf

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
Layout = Callable[[np.random.Generator, "Canvas", float], None]

HIDDEN_SHARE = 0.3
_SHAPE_SHARES = np.cumsum([weight for _, weight in SHAPES.values()]) / sum(weight for _, weight in SHAPES.values())
NATURAL = (
    "grain",
    "rock",
    "bark",
    "fur",
    "turing",
    "worley",
    "pebbles",
    "scales",
    "leaves",
    "grass",
    "discs",
    "spots",
    "wood",
    "clouds",
    "water",
)


@dataclass
class Canvas:
    """Pixels float32 RGB (H, W, 3) about 0..1, the owner of each pixel, and the kind and parent (-1: none) of each owner."""

    pixels: FloatArray
    owner: npt.NDArray[np.int16]
    light: float
    unit: float
    kinds: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)

    @classmethod
    def blank(cls, size: int, light: float) -> Canvas:
        return cls(np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.int16), light, size / 256)

    @property
    def size(self) -> int:
        return int(self.owner.shape[0])

    def enter(self, kind: str, parent: int = -1) -> int:
        """A new owner; its number."""
        self.kinds.append(kind)
        self.parents.append(parent)
        return len(self.kinds) - 1


@dataclass(frozen=True)
class Look:
    """How an object is laid down: shading 0..1, shadow darkness 0..1, edge softness and raggedness in pixels of 256."""

    relief: float
    shadow: float
    softness: float
    ragged: float
    blend_in: float = 0.0


def draw_look(rng: np.random.Generator) -> Look:
    """A look as in photographs: most objects are shaded, half cast a shadow, some edges are soft or furry."""
    return Look(
        relief=float(rng.uniform(0.2, 1.0) if rng.random() < 0.8 else 0),
        shadow=float(rng.uniform(0.2, 0.75) if rng.random() < 0.55 else 0),
        softness=float(rng.uniform(0.4, 0.9) if rng.random() < 0.8 else rng.uniform(0.9, 2.2)),
        ragged=float(rng.uniform(0.5, 2.5) if rng.random() < 0.35 else 0),
    )


def lay(
    rng: np.random.Generator,
    canvas: Canvas,
    outline: Silhouette,
    centre: tuple[float, float],
    material: Material,
    look: Look,
    kind: str = "object",
    ground: Material | None = None,
) -> bool:
    """Lay an object with its parts on the canvas, its frame's centre at `centre` (x, y) pixels; False if out of sight."""
    height, width = outline.mask.shape
    left, top = round(centre[0] - width / 2), round(centre[1] - height / 2)
    here, there = _overlap(left, top, height, width, canvas.size)
    if here is None or there is None or not (outline.mask[there] > 127).any():
        return False
    if look.shadow:
        _cast(rng, canvas, outline.mask, left, top, look.shadow)
    alpha = _edge(rng, outline.mask[there], look, canvas.unit)
    solid = alpha > 0.5
    if not solid.any():
        return False
    number = canvas.enter(kind)
    pixels = paint(material, alpha.shape[0], alpha.shape[1], canvas.unit)
    owners = np.full(alpha.shape, number, np.int16)
    for part_kind, part in [*outline.parts, *_patches(rng, outline, kind)]:
        seen = part[there]
        x, y, wide, high = cv2.boundingRect(seen)
        if wide * high < 12:
            continue
        surface = _part_material(rng, material, part_kind, ground)
        if surface is not material:
            frame = (slice(y, y + high), slice(x, x + wide))
            soft = cv2.GaussianBlur(
                seen[frame].astype(np.float32) / 255, (0, 0), float(rng.uniform(0.5, 1.5)) * canvas.unit
            )
            pixels[frame] += soft[..., None] * (paint(surface, high, wide, canvas.unit) - pixels[frame])
        owners[seen > 127] = canvas.enter("part" if part_kind == "patch" else part_kind, number)
    if kind == "animal" and outline.parts and rng.random() < 0.6:
        _eye(rng, pixels, outline.parts[-1][1][there], canvas.unit)
    if look.relief:
        pixels *= shading(rng, outline.mask, canvas.light, look.relief)[there][..., None]
    below = canvas.pixels[here]
    if look.blend_in:
        pixels += np.float32(look.blend_in) * (below[solid].mean(0) - pixels[solid].mean(0))
    below += alpha[..., None] * (pixels - below)
    canvas.owner[here][solid] = owners[solid]
    return True


def _overlap(
    left: int, top: int, height: int, width: int, size: int
) -> tuple[tuple[slice, slice] | None, tuple[slice, slice] | None]:
    """Where a frame meets the canvas: slices of the canvas and of the frame, or None twice."""
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, size), min(top + height, size)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return None, None
    return (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))


def _edge(rng: np.random.Generator, mask: ByteArray, look: Look, unit: float) -> FloatArray:
    """Opacity (h, w) of an outline: blurred, and ragged like fur or grass if the look says so."""
    alpha = mask.astype(np.float32) / 255
    if look.ragged and min(mask.shape) > 16 * unit:
        reach = look.ragged * unit
        at = rng.integers(0, GRAIN_SIDE // 2, 2)
        crop = grain()[1][at[0] : at[0] + int(mask.shape[0] / unit) + 1, at[1] : at[1] + int(mask.shape[1] / unit) + 1]
        rough = cv2.resize(crop[: GRAIN_SIDE // 2, : GRAIN_SIDE // 2], mask.shape[::-1])
        soft = cv2.GaussianBlur(alpha, (0, 0), reach)
        alpha = np.clip((soft + rough * 0.16 * (soft > 0.03) - 0.5) * 3 + 0.5, 0, 1)
    return np.asarray(cv2.GaussianBlur(alpha, (0, 0), look.softness * unit), np.float32)


def _cast(rng: np.random.Generator, canvas: Canvas, mask: ByteArray, left: int, top: int, darkness: float) -> None:
    """Darken what lies behind: a cast shadow away from the light, or a tight contact shadow."""
    blur = float(rng.uniform(1, 6)) * canvas.unit
    reach = rng.choice([1.5, rng.uniform(2, 14)]) * canvas.unit
    border = int(blur * 2) + 1
    padded = cv2.copyMakeBorder(mask, border, border, border, border, cv2.BORDER_CONSTANT)
    x, y = left - border - round(np.cos(canvas.light) * reach), top - border - round(np.sin(canvas.light) * reach)
    here, there = _overlap(x, y, padded.shape[0], padded.shape[1], canvas.size)
    if here is not None and there is not None:
        shade = cv2.GaussianBlur(padded[there], (0, 0), blur).astype(np.float32)
        canvas.pixels[here] *= (1 - shade * np.float32(darkness / 255))[..., None]


def _patches(rng: np.random.Generator, outline: Silhouette, kind: str) -> list[tuple[str, ByteArray]]:
    """Up to three blotches or bands of another surface on an object large enough to show them."""
    height, width = outline.mask.shape
    if outline.thin or min(height, width) < 30 or rng.random() > (0.25 if kind == "animal" else 0.3):
        return []
    patches = []
    for _ in range(int(rng.integers(1, 4))):
        patch = np.zeros_like(outline.mask)
        if rng.random() < 0.4:
            band, angle = rng.uniform(0.06, 0.25) * max(height, width), rng.uniform(0, np.pi)
            reach = np.array([np.cos(angle), np.sin(angle)]) * (height + width)
            middle = rng.uniform(0.25, 0.75, 2) * (width, height)
            ends = [(middle + way * reach).astype(int).tolist() for way in (-1, 1)]
            cv2.line(patch, ends[0], ends[1], 255, max(2, int(band)), cv2.LINE_AA)
        else:
            shape = _draw_shape(rng, float(rng.uniform(0.12, 0.4) * min(height, width)), solid=True).mask
            x, y = (int(v) for v in rng.uniform(0.15, 0.85, 2) * (width, height) - np.array(shape.shape[::-1]) / 2)
            x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + shape.shape[1], width), min(y + shape.shape[0], height)
            if x1 > x0 and y1 > y0:
                patch[y0:y1, x0:x1] = shape[y0 - y : y1 - y, x0 - x : x1 - x]
        patches.append(("patch", np.minimum(patch, outline.mask)))
    return patches


def _part_material(rng: np.random.Generator, material: Material, kind: str, ground: Material | None) -> Material:
    if kind == "hole":
        return draw_material(rng, theme="shade") if rng.random() < 0.6 else draw_material(rng)
    if kind == "patch" or rng.random() < 0.3:
        if ground is not None:
            return alike(rng, ground, 0.8)
        return alike(rng, material, 1.8) if rng.random() < 0.5 else draw_material(rng)
    return material if rng.random() < 0.3 else alike(rng, material, 0.7)


def _eye(rng: np.random.Generator, pixels: FloatArray, head: ByteArray, unit: float) -> None:
    inside = np.argwhere(head > 127)
    if len(inside) > 40 * unit * unit:
        y, x = inside.mean(0) + rng.normal(0, 0.1, 2) * inside.std(0)
        radius = max(1.0, np.sqrt(len(inside)) * rng.uniform(0.05, 0.12))
        at = (int(x * 8), int(y * 8))
        if rng.random() < 0.4:
            cv2.circle(pixels, at, int(radius * 12), tuple(rng.uniform(0.3, 0.9, 3).tolist()), -1, cv2.LINE_AA, 3)
        cv2.circle(pixels, at, int(radius * 8), (0.03, 0.03, 0.03), -1, cv2.LINE_AA, 3)
        cv2.circle(
            pixels,
            (at[0] - int(radius * 2), at[1] - int(radius * 3)),
            int(radius * 2.5),
            (0.9, 0.9, 0.9),
            -1,
            cv2.LINE_AA,
            3,
        )


def _draw_shape(rng: np.random.Generator, radius: float, solid: bool = False) -> Silhouette:
    while True:
        name = list(SHAPES)[int(np.searchsorted(_SHAPE_SHARES, rng.random() * 0.999999))]
        if not (solid and name in ("branch", "ring", "tree")):
            return SHAPES[name][0](rng, max(radius, 3.0))


def _radius(rng: np.random.Generator, canvas: Canvas, smallest: float, largest: float) -> float:
    """A radius in pixels by the power law r^-3 of natural scenes; limits in pixels of 256."""
    u = rng.random()
    return float(smallest / np.sqrt(1 - u * (1 - (smallest / largest) ** 2)) * canvas.unit)


def ground(rng: np.random.Generator, canvas: Canvas, materials: Sequence[Material], blur: float) -> None:
    """Fill the canvas with regions from top to bottom, each bounded by a level, ragged or wandering line."""
    size = canvas.size
    canvas.owner[:] = canvas.enter("region")
    canvas.pixels[:] = paint(materials[0], size, size, canvas.unit)
    levels = np.sort(rng.uniform(0.12, 0.88, len(materials) - 1)) * size
    columns = np.arange(size, dtype=np.float32)
    patchy = rng.random() < 0.25
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
        canvas.pixels += alpha[..., None] * (paint(material, size, size, canvas.unit) - canvas.pixels)
        canvas.owner[alpha > 0.5] = canvas.enter("region")
    fade = rng.random()
    if fade < 0.4:  # light falls off over the depth
        canvas.pixels *= np.linspace(1 - fade, 1 + fade * 0.5, size, dtype=np.float32)[
            :: int(rng.choice([1, -1])), None, None
        ]
    _defocus(canvas, blur)


def _defocus(canvas: Canvas, blur: float) -> None:
    """Blur all that lies on the canvas by `blur` pixels of 256; strong blur is made at half the resolution."""
    sigma, size = blur * canvas.unit, canvas.size
    if sigma < 0.3:
        return
    if sigma < 2.5:
        canvas.pixels = np.asarray(cv2.GaussianBlur(canvas.pixels, (0, 0), sigma), np.float32)
    else:
        half = cv2.resize(canvas.pixels, (size // 2, size // 2), interpolation=cv2.INTER_AREA)
        half = cv2.GaussianBlur(half, (0, 0), sigma / 2)
        canvas.pixels = np.asarray(cv2.resize(half, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


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
        radius = _radius(rng, canvas, 15, 110)
        beast = rng.random() < 0.3
        outline = animal(rng, radius) if beast else _draw_shape(rng, radius)
        centre = (float(rng.uniform(0, canvas.size)), float(rng.beta(2.2, 1.6) * canvas.size))
        _lay_any(rng, canvas, outline, centre, material, draw_look(rng), "animal" if beast else "object")
    _foreground(rng, canvas, 0.3)


def heap(rng: np.random.Generator, canvas: Canvas, share: float) -> None:
    """Dead leaves: many objects over each other, few materials."""
    grounds = _grounds(rng, int(rng.integers(1, 3)))
    ground(rng, canvas, grounds, _blur(rng, 0.2))
    stock = [draw_material(rng) for _ in range(int(rng.integers(3, 8)))]
    favourite = _draw_name(rng) if rng.random() < 0.3 else None
    look = draw_look(rng)
    for _ in range(int(rng.integers(10, 32))):
        material = alike(rng, grounds[-1] if rng.random() < share else stock[int(rng.integers(len(stock)))], 0.8)
        radius = _radius(rng, canvas, 12, 130)
        outline = SHAPES[favourite][0](rng, radius) if favourite else _draw_shape(rng, radius)
        centre = tuple(rng.uniform(0, canvas.size, 2).tolist())
        _lay_any(rng, canvas, outline, centre, material, look if rng.random() < 0.7 else draw_look(rng))


def portrait(rng: np.random.Generator, canvas: Canvas, share: float) -> None:
    """One or two large things before ground that is often out of focus."""
    grounds = _grounds(rng, int(rng.integers(1, 4)))
    ground(rng, canvas, grounds, 0.0)
    for _ in range(int(rng.integers(0, 7))):  # things behind
        _lay_any(
            rng,
            canvas,
            _draw_shape(rng, _radius(rng, canvas, 18, 100)),
            tuple(rng.uniform(0, canvas.size, 2).tolist()),
            draw_material(rng),
            draw_look(rng),
        )
    _defocus(canvas, _blur(rng, 0.55))
    for _ in range(1 + (rng.random() < 0.4)):
        material = alike(rng, grounds[-1], 1.0) if rng.random() < share else draw_material(rng)
        radius = rng.uniform(48, 140) * canvas.unit
        beast = rng.random() < 0.65
        outline = animal(rng, radius) if beast else _draw_shape(rng, radius)
        centre = tuple((rng.normal(0.5, 0.15, 2) * canvas.size).tolist())
        _lay_any(rng, canvas, outline, centre, material, draw_look(rng), "animal" if beast else "object")
    _foreground(rng, canvas, 0.35)


def herd(rng: np.random.Generator, canvas: Canvas, share: float) -> None:
    """The same kind of thing several times."""
    grounds = _grounds(rng, int(rng.integers(1, 4)))
    ground(rng, canvas, grounds, _blur(rng, 0.3))
    first = alike(rng, grounds[-1], 1.0) if rng.random() < share else draw_material(rng)
    beast, name, look = rng.random() < 0.6, _draw_name(rng), draw_look(rng)
    radius, seed = rng.uniform(18, 62) * canvas.unit, int(rng.integers(2**31))
    for _ in range(int(rng.integers(3, 10))):
        own = np.random.default_rng(seed) if rng.random() < 0.6 else rng
        size = radius * np.exp(rng.normal(0, 0.2))
        outline = animal(own, size) if beast else SHAPES[name][0](own, size)
        centre = tuple(rng.uniform(0, canvas.size, 2).tolist())
        _lay_any(rng, canvas, outline, centre, alike(rng, first, 0.35), look, "animal" if beast else "object")
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
        centre = tuple(rng.uniform(0, canvas.size, 2).tolist())
        _lay_any(rng, canvas, SHAPES[name][0](rng, _radius(rng, canvas, 18, 140)), centre, material, draw_look(rng))
    if rng.random() < 0.4:
        _lay_any(
            rng,
            canvas,
            animal(rng, rng.uniform(25, 70) * canvas.unit),
            tuple(rng.uniform(0.2, 0.8, 2) * canvas.size),
            draw_material(rng),
            draw_look(rng),
            "animal",
        )


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
        _lay_any(
            rng,
            canvas,
            _draw_shape(rng, _radius(rng, canvas, 11, 80)),
            tuple(rng.uniform(0, canvas.size, 2).tolist()),
            material,
            draw_look(rng),
        )
    _defocus(canvas, _blur(rng, 0.25) * 0.4)
    seen = draw_look(rng)
    look = Look(seen.relief * 0.8, seen.shadow * 0.6, seen.softness, seen.ragged, float(rng.uniform(0.55, 0.95)))
    radius = float(rng.uniform(34, 115)) * canvas.unit
    centre = tuple((rng.uniform(0.3, 0.7, 2) * canvas.size).tolist())
    coat = alike(rng, base, float(rng.uniform(0.25, 1.1)))
    lay(rng, canvas, animal(rng, radius), centre, coat, look, "animal", base)
    _foreground(rng, canvas, 0.4, base, 2)


def _lay_any(
    rng: np.random.Generator,
    canvas: Canvas,
    outline: Silhouette,
    centre: tuple[float, ...],
    material: Material,
    look: Look,
    kind: str = "object",
) -> None:
    lay(rng, canvas, outline, (centre[0], centre[1]), material, look, "thin" if outline.thin else kind)


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
        _lay_any(
            rng,
            canvas,
            shape(rng, radius * (0.5 if base else 1)),
            tuple(rng.uniform(0, canvas.size, 2).tolist()),
            material,
            look,
        )


def _draw_name(rng: np.random.Generator) -> str:
    return list(SHAPES)[int(np.searchsorted(_SHAPE_SHARES, rng.random() * 0.999999))]


LAYOUTS: dict[str, tuple[Layout, float]] = {
    "scenery": (scenery, 3.0),
    "heap": (heap, 2.0),
    "portrait": (portrait, 3.0),
    "herd": (herd, 1.3),
    "facade": (facade, 1.5),
}


def draw_layout(rng: np.random.Generator) -> Layout:
    """A layout by its weight."""
    weights = np.array([weight for _, weight in LAYOUTS.values()])
    return list(LAYOUTS.values())[int(rng.choice(len(weights), p=weights / weights.sum()))][0]
