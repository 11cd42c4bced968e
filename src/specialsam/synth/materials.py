"""What a surface looks like: a texture tile, how it lies, and the colours its grey values stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.synth.textures import FAMILIES, PER_FAMILY, TILE_SIDE, FloatArray, noise, tile, tiles_of

Range = tuple[float, float]
_Values = npt.NDArray[np.floating]

THEMES: dict[str, tuple[Range, Range, Range, float]] = {
    # hue in turns, saturation, value, weight
    "bark": ((0.04, 0.10), (0.15, 0.55), (0.2, 0.6), 3.0),
    "earth": ((0.03, 0.09), (0.3, 0.7), (0.25, 0.65), 3.0),
    "sand": ((0.08, 0.13), (0.12, 0.5), (0.55, 0.9), 2.5),
    "moss": ((0.16, 0.30), (0.3, 0.7), (0.2, 0.6), 3.0),
    "leaf": ((0.22, 0.36), (0.35, 0.8), (0.25, 0.75), 3.0),
    "straw": ((0.10, 0.15), (0.3, 0.7), (0.5, 0.85), 2.0),
    "stone": ((0.0, 1.0), (0.0, 0.15), (0.25, 0.8), 4.0),
    "snow": ((0.5, 0.7), (0.0, 0.15), (0.75, 1.0), 1.3),
    "shade": ((0.0, 1.0), (0.0, 0.5), (0.03, 0.22), 2.0),
    "sky": ((0.52, 0.64), (0.1, 0.7), (0.5, 0.95), 1.5),
    "sea": ((0.46, 0.64), (0.25, 0.8), (0.2, 0.7), 1.5),
    "rust": ((0.0, 0.07), (0.5, 0.85), (0.35, 0.8), 1.2),
    "skin": ((0.02, 0.08), (0.25, 0.55), (0.45, 0.95), 1.0),
    "vivid": ((0.0, 1.0), (0.6, 1.0), (0.5, 1.0), 1.2),
    "pastel": ((0.0, 1.0), (0.1, 0.35), (0.6, 0.95), 1.0),
    "violet": ((0.7, 0.95), (0.2, 0.6), (0.3, 0.8), 0.5),
}
_THEME_WEIGHTS = np.array([theme[3] for theme in THEMES.values()])
_THEME_SHARES = np.cumsum(_THEME_WEIGHTS / _THEME_WEIGHTS.sum())
FEW_PIXELS = 8000
"""On smaller patches four steps of variety between the two palettes do; on larger ones sixteen."""
GRAIN_SIDE = 640

_THIRDS = np.array([0, 2, 1]) / 3


@dataclass(frozen=True, eq=False)
class Material:
    """A surface. Lengths are in pixels of a 256-pixel image; palettes are RGB (K, 3) in 0..1, dark to light."""

    tile: int
    scale: float
    stretch: float
    angle: float
    origin: tuple[float, float]
    dark_to_light: FloatArray
    other: FloatArray
    contrast: float
    second: int | None = None
    blend: float = 0.0
    bend: float = 0.0
    tilt: float = 0.0


def draw_theme(rng: np.random.Generator) -> str:
    """A colour theme, by its weight in natural pictures."""
    return list(THEMES)[int(np.searchsorted(_THEME_SHARES, rng.random() * 0.999999))]


def draw_palette(rng: np.random.Generator, theme: str, contrast: float) -> FloatArray:
    """Two to five RGB colours (N, 3), shadow to light, around one of `theme`; `contrast` 0..1 sets their distance."""
    spans, count = np.array(THEMES[theme][:3]), int(rng.integers(2, 6))
    hue, saturation, value = spans[:, 0] + (spans[:, 1] - spans[:, 0]) * rng.random(3)
    step, drift, fade = 2 * _even(count) - 1, rng.normal(0, 0.025), rng.uniform(-0.1, 0.5)
    palette = _rgb(
        hue + drift * step + rng.normal(0, 0.01, count),
        saturation * (1 - fade * contrast * step) * rng.uniform(0.85, 1.15, count),
        value * 2 ** (step * contrast * 1.5),
    )
    if rng.random() < 0.15 and count > 2:  # a foreign colour among them: flowers, fallen leaves, markings
        low, high = np.array(THEMES[draw_theme(rng)][:3]).T
        palette[rng.integers(count)] = _rgb(*(low + (high - low) * rng.random(3)))
    return palette


def _rgb(hue: _Values, saturation: _Values, value: _Values) -> FloatArray:
    """Hue in turns, saturation and value as RGB float32 (..., 3)."""
    ramp = np.abs((np.asarray(hue)[..., None] + _THIRDS) % 1 * 6 - 3).clip(1, 2) - 2
    strength, light = np.clip(saturation, 0, 1)[..., None], np.clip(value, 0.01, 1)[..., None]
    return np.asarray(light * (1 + strength * ramp), np.float32)


def draw_material(
    rng: np.random.Generator, family: str | None = None, theme: str | None = None, contrast: float | None = None
) -> Material:
    """A surface of `family` and `theme`, both at random if not named; `contrast` 0 is smooth, 1 strongly textured."""
    if contrast is None:
        contrast = rng.uniform(0.02, 0.2) if rng.random() < 0.35 else rng.uniform(0.2, 1.0)
    theme = theme or draw_theme(rng)
    number = int(rng.choice(tiles_of(family)) if family else rng.integers(PER_FAMILY * len(FAMILIES)))
    near = theme if rng.random() < 0.7 else draw_theme(rng)
    return Material(
        tile=number,
        scale=float(np.exp(rng.uniform(np.log(0.45), np.log(1.7)))),
        stretch=float(np.exp(rng.normal(0, 0.25))),
        angle=float(rng.uniform(0, 2 * np.pi) if rng.random() < 0.6 else rng.normal(0, 0.15)),
        origin=(float(rng.uniform(0, TILE_SIDE)), float(rng.uniform(0, TILE_SIDE))),
        dark_to_light=draw_palette(rng, theme, contrast),
        other=draw_palette(rng, near, contrast),
        contrast=contrast,
        second=int(rng.integers(PER_FAMILY * len(FAMILIES))) if rng.random() < 0.3 else None,
        blend=float(rng.uniform(0.2, 0.6)),
        bend=float(rng.uniform(1, 9) if rng.random() < 0.2 else 0),
    )


def alike(rng: np.random.Generator, material: Material, difference: float) -> Material:
    """A surface of the same family that lies elsewhere; at `difference` 1 also turned, rescaled, recoloured."""
    family = list(FAMILIES)[material.tile // PER_FAMILY]
    shift = (rng.normal(0, 0.035 * difference, 3) + rng.normal(0, 0.07 * difference)).astype(np.float32)
    gain = np.float32(2 ** rng.normal(0, 0.3 * difference))
    return replace(
        material,
        tile=material.tile if rng.random() < 0.7 else int(rng.choice(tiles_of(family))),
        scale=float(np.clip(material.scale * np.exp(rng.normal(0, 0.35 * difference)), 0.4, 1.8)),
        angle=float(material.angle + rng.normal(0, 0.9 * difference)),
        origin=(float(rng.uniform(0, TILE_SIDE)), float(rng.uniform(0, TILE_SIDE))),
        dark_to_light=(material.dark_to_light * gain + shift).clip(0.01, 1),
        other=(material.other * gain + shift).clip(0.01, 1),
        tilt=0.0,
    )


def paint(material: Material, height: int, width: int, unit: float) -> FloatArray:
    """The surface seen on a (height, width) patch: float32 RGB (height, width, 3) in 0..1.

    `unit` is the number of pixels that one pixel of a 256-pixel image covers.
    """
    values, varieties = tile(material.tile)
    value = _laid(values, material, height, width, unit)
    if material.second is not None:
        turned = replace(material, angle=material.angle + 1.0, scale=material.scale * 0.8, bend=0.0)
        second = _laid(tile(material.second)[0], turned, height, width, unit)
        value = np.asarray(cv2.addWeighted(value, 1.25 * (1 - material.blend), second, 1.25 * material.blend, -32))
    variety = _laid(varieties, material, (height + 1) // 2, (width + 1) // 2, unit / 2)
    variety = np.asarray(cv2.resize(variety, (width, height), interpolation=cv2.INTER_LINEAR))
    shift = 4 if height * width > FEW_PIXELS else 6
    entry = np.asarray(variety, np.intp) >> shift
    entry <<= 8
    entry += value
    return np.asarray(_ramp(material.dark_to_light, material.other, 256 >> shift).take(entry, 0, mode="clip"))


def _laid(
    pattern: npt.NDArray[np.uint8], material: Material, height: int, width: int, unit: float
) -> npt.NDArray[np.uint8]:
    """A plane of a tile as uint8 (height, width), turned, scaled, tilted and bent as the material lies."""
    scale, cos, sin = material.scale / unit, math.cos(material.angle), math.sin(material.angle)
    long = scale * material.stretch
    x, y = material.origin
    flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_WRAP
    if material.tilt:  # ground that recedes towards the top edge
        horizon = -material.tilt * height
        depth = height - horizon
        turn = np.array([[cos * long, -sin * scale, x], [sin * long, cos * scale, y], [0, 0, 1]])
        matrix = turn @ np.array([[1, 0, -width / 2], [0, 0, depth * 0.9], [0, 1 / depth, -horizon / depth]])
        laid = cv2.warpPerspective(pattern, matrix, (width, height), flags=flags, borderMode=border)
    else:
        first, second = (cos * long, -sin * scale), (sin * long, cos * scale)
        x0, y0 = (start - (a * width + b * height) / 2 for start, (a, b) in ((x, first), (y, second)))
        matrix = np.array([[*first, x0], [*second, y0]])
        laid = cv2.warpAffine(pattern, matrix, (width, height), flags=flags, borderMode=border)
    if material.bend and min(height, width) > 24:
        grid = grain()[0][int(x) :, int(y) :]
        shift = [
            cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC) * (material.bend * unit)
            for part in (grid[:7, :7], grid[7:14, 7:14])
        ]
        rows, columns = np.indices((height, width), np.float32)
        laid = cv2.remap(laid, columns + shift[0], rows + shift[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(laid, np.uint8)


@lru_cache(maxsize=32)
def _even(count: int) -> FloatArray:
    return np.linspace(0, 1, count, dtype=np.float32)


@lru_cache(maxsize=8)
def _spread(count: int) -> FloatArray:
    """Shares (256, count) of `count` evenly spaced colours in each grey value."""
    knots, values = np.linspace(0.1, 0.9, count), np.linspace(0, 1, 256)
    return np.stack([np.interp(values, knots, row) for row in np.eye(count)], -1).astype(np.float32)


def _ramp(first: FloatArray, second: FloatArray, steps: int) -> FloatArray:
    """Look-up table (`steps` * 256, 3): a grey value to a colour, one row of 256 for each step of variety."""
    low, high = (_spread(len(palette)) @ palette for palette in (first, second))
    share = _even(steps)[:, None, None]
    return np.asarray((low + share * (high - low)).reshape(-1, 3))


@lru_cache(maxsize=1)
def grain() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Three planes (GRAIN_SIDE, GRAIN_SIDE) of unit deviation: white noise, film grain, natural 1/f noise."""
    rng = np.random.default_rng(77)
    white = rng.standard_normal((GRAIN_SIDE, GRAIN_SIDE), np.float32)
    soft = cv2.GaussianBlur(rng.standard_normal((GRAIN_SIDE, GRAIN_SIDE), np.float32), (0, 0), 0.8)
    return white, np.asarray(soft / soft.std(), np.float32), noise(rng, GRAIN_SIDE, 1.3)
