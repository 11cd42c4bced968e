"""A canvas that keeps the owner of every pixel, and how objects, their parts, edges and shadows are laid on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.synth.light import shading, threefold
from specialsam.synth.materials import GRAIN_SIDE, Material, alike, draw_material, grain, paint
from specialsam.synth.shapes import SHAPES, Silhouette

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
_SHARES = np.cumsum([weight for _, weight in SHAPES.values()]) / sum(weight for _, weight in SHAPES.values())


@dataclass
class Canvas:
    """Pixels float32 RGB (H, W, 3) about 0..1, each pixel's owner, and each owner's kind and parent (-1: none)."""

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


@dataclass(frozen=True)
class Thing:
    """An object to be laid down, centred at `centre` (x, y) pixels.

    `ground` is the surface that its markings take up; without it they are like the object's own or of any kind.
    """

    outline: Silhouette
    centre: tuple[float, float]
    material: Material
    look: Look
    kind: str = "object"
    ground: Material | None = None


def draw_look(rng: np.random.Generator) -> Look:
    """A look as in photographs: most objects are shaded, half cast a shadow, some edges are soft or furry."""
    return Look(
        relief=float(rng.uniform(0.2, 1.0) if rng.random() < 0.8 else 0),
        shadow=float(rng.uniform(0.2, 0.75) if rng.random() < 0.55 else 0),
        softness=float(rng.uniform(0.4, 0.9) if rng.random() < 0.8 else rng.uniform(0.9, 2.2)),
        ragged=float(rng.uniform(0.5, 2.5) if rng.random() < 0.35 else 0),
    )


def lay(rng: np.random.Generator, canvas: Canvas, thing: Thing) -> bool:
    """Lay an object with its parts on the canvas; False if out of sight."""
    outline, look, kind = thing.outline, thing.look, thing.kind
    height, width = outline.mask.shape
    left, top = round(thing.centre[0] - width / 2), round(thing.centre[1] - height / 2)
    here, there = _overlap(left, top, height, width, canvas.size)
    if here is None or there is None or not (outline.mask[there] > 127).any():
        return False
    if look.shadow:
        _cast(rng, canvas, outline.mask, left, top, look.shadow)
    alpha = _edge(rng, outline.mask[there], look, canvas.unit)
    solid = alpha > 0.5
    if not solid.any():
        return False
    number = canvas.enter("thin" if outline.thin else kind)
    pixels = paint(thing.material, alpha.shape[0], alpha.shape[1], canvas.unit)
    owners = np.full(alpha.shape, number, np.int16)
    for part_kind, part in [*outline.parts, *_patches(rng, outline, kind)]:
        seen = part[there]
        x, y, wide, high = cv2.boundingRect(seen)
        if wide * high < 12:
            continue
        surface = _part_material(rng, thing.material, part_kind, thing.ground)
        if surface is not None or rng.random() < 0.5:
            frame = (slice(y, y + high), slice(x, x + wide))
            blur = float(rng.uniform(0.5, 1.5)) * canvas.unit
            soft = threefold(cv2.GaussianBlur(seen[frame], (0, 0), blur).astype(np.float32) * np.float32(1 / 255))
            if surface is not None:
                pixels[frame] += soft * (paint(surface, high, wide, canvas.unit) - pixels[frame])
            else:
                tint = np.exp(rng.normal(0, 0.2) + rng.normal(0, 0.05, 3)).astype(np.float32)
                pixels[frame] *= 1 + soft * (tint - 1)
        part_number = canvas.enter("part" if part_kind == "patch" else part_kind, number)
        np.copyto(owners, np.int16(part_number), where=seen > 127)
    if kind == "animal" and outline.parts and rng.random() < 0.6:
        _eye(rng, pixels, outline.parts[-1][1][there], canvas.unit)
    if look.relief:
        pixels *= threefold(shading(rng, outline.mask, canvas.light, look.relief)[there])
    below = canvas.pixels[here]
    if look.blend_in:
        inside = solid.astype(np.uint8)
        apart = np.subtract(cv2.mean(below, inside), cv2.mean(pixels, inside))[:3]
        pixels += (look.blend_in * apart).astype(np.float32)
    below += threefold(alpha) * (pixels - below)
    np.copyto(canvas.owner[here], owners, where=solid)
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
    border = int(blur * 2) + 2
    padded = cv2.copyMakeBorder(mask, border, border, border, border, cv2.BORDER_CONSTANT)
    x, y = left - border - round(np.cos(canvas.light) * reach), top - border - round(np.sin(canvas.light) * reach)
    here, there = _overlap(x, y, padded.shape[0], padded.shape[1], canvas.size)
    if here is None or there is None:
        return
    size = padded[there].shape[::-1]
    shrink = max(1, int(blur / 1.5))
    small = cv2.resize(padded[there], (-(-size[0] // shrink), -(-size[1] // shrink)), interpolation=cv2.INTER_AREA)
    shade = cv2.resize(cv2.GaussianBlur(small, (0, 0), blur / shrink), size, interpolation=cv2.INTER_LINEAR)
    canvas.pixels[here] *= threefold(1 - shade.astype(np.float32) * np.float32(darkness / 255))


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
            shape = draw_shape(rng, float(rng.uniform(0.12, 0.4) * min(height, width)), solid=True).mask
            x, y = (int(v) for v in rng.uniform(0.15, 0.85, 2) * (width, height) - np.array(shape.shape[::-1]) / 2)
            x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + shape.shape[1], width), min(y + shape.shape[0], height)
            if x1 > x0 and y1 > y0:
                patch[y0:y1, x0:x1] = shape[y0 - y : y1 - y, x0 - x : x1 - x]
        patches.append(("patch", np.minimum(patch, outline.mask)))
    return patches


def _part_material(rng: np.random.Generator, material: Material, kind: str, ground: Material | None) -> Material | None:
    """The surface of a part, or None where it shares that of its object."""
    if kind == "hole":
        return draw_material(rng, theme="shade") if rng.random() < 0.6 else draw_material(rng)
    if kind == "patch" or rng.random() < 0.25:
        if ground is not None:
            return alike(rng, ground, 0.8)
        return alike(rng, material, 1.8) if rng.random() < 0.5 else draw_material(rng)
    return alike(rng, material, 0.7) if rng.random() < 0.25 else None


def _eye(rng: np.random.Generator, pixels: FloatArray, head: ByteArray, unit: float) -> None:
    inside = np.argwhere(head > 127)
    if len(inside) > 40 * unit * unit:
        y, x = inside.mean(0) + rng.normal(0, 0.1, 2) * inside.std(0)
        radius = max(1.0, np.sqrt(len(inside)) * rng.uniform(0.05, 0.12))
        at = (int(x * 8), int(y * 8))
        if rng.random() < 0.4:
            cv2.circle(pixels, at, int(radius * 12), tuple(rng.uniform(0.3, 0.9, 3).tolist()), -1, cv2.LINE_AA, 3)
        cv2.circle(pixels, at, int(radius * 8), (0.03, 0.03, 0.03), -1, cv2.LINE_AA, 3)
        glint = (at[0] - int(radius * 2), at[1] - int(radius * 3))
        cv2.circle(pixels, glint, int(radius * 2.5), (0.9, 0.9, 0.9), -1, cv2.LINE_AA, 3)


def draw_name(rng: np.random.Generator) -> str:
    """The name of an outline, by its weight."""
    return list(SHAPES)[int(np.searchsorted(_SHARES, rng.random() * 0.999999))]


def draw_shape(rng: np.random.Generator, radius: float, solid: bool = False) -> Silhouette:
    """An outline of any kind, or of any compact kind; `radius` in pixels."""
    while True:
        name = draw_name(rng)
        if not (solid and name in ("branch", "crack", "ring", "tree")):
            return SHAPES[name][0](rng, max(radius, 3.0))


def draw_centre(rng: np.random.Generator, canvas: Canvas, low: float = 0.0, high: float = 1.0) -> tuple[float, float]:
    """A place (x, y) in pixels, between shares `low` and `high` of the side."""
    x, y = rng.uniform(low, high, 2) * canvas.size
    return float(x), float(y)


def draw_radius(rng: np.random.Generator, canvas: Canvas, smallest: float, largest: float) -> float:
    """A radius in pixels by the power law r^-2, as nearby scenes have; limits in pixels of 256."""
    return float(smallest / (1 - rng.random() * (1 - smallest / largest)) * canvas.unit)


def defocus(canvas: Canvas, blur: float) -> None:
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
