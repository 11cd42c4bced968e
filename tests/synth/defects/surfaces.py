"""Clean pictures to make defects on: a weave, a net of wires, plain levels, noise, slopes and hard edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


def weave(height: int, width: int, seed: int, colour: bool, period: float = 12) -> Image:
    """A weave with grain: crossed waves of one period."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    level = 120 + 35 * np.sin(2 * np.pi * columns / period) + 25 * np.sin(2 * np.pi * rows / period)
    tint = np.array([1.0, 0.8, 0.6]) if colour else np.ones(3)
    noise = rng.normal(0, 3, (height, width, 1))
    return np.clip((level[..., None] + noise) * tint, 0, 255).astype(np.uint8)


def net(height: int, width: int, seed: int, colour: bool, period: float = 32) -> Image:
    """Dark wires in a diamond pattern before a bright background, with grain."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = [np.abs(np.sin(np.pi * (columns + way * rows) / period)) for way in (-1, 1)]
    level = 60 + 110 * np.clip((np.minimum(*waves) - 0.3) * 6, 0, 1)
    tint = np.array([1.0, 0.9, 0.7]) if colour else np.ones(3)
    return np.clip((level[..., None] + rng.normal(0, 2, (height, width, 1))) * tint, 0, 255).astype(np.uint8)


def plain(height: int, width: int, seed: int, colour: bool) -> Image:
    """One level without grain: black, white or in between."""
    level = (0, 255, 128)[seed % 3]
    return np.full((height, width, 3), (level, level // 2, level) if colour else level, np.uint8)


def speckled(height: int, width: int, seed: int, colour: bool) -> Image:
    """Independent pixels over all levels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return pixels if colour else np.repeat(pixels[..., :1], 3, 2)


def sloped(height: int, width: int, seed: int, colour: bool) -> Image:
    """Light that falls off from one corner to the other."""
    rows, columns = np.mgrid[:height, :width]
    level = 255 * (rows + columns) / (height + width)
    return np.stack([level, level if not colour else 255 - level, level], 2).astype(np.uint8)


def halved(height: int, width: int, seed: int, colour: bool) -> Image:
    """A dark and a bright half."""
    out = np.full((height, width, 3), 50, np.uint8)
    out[:, width // 2 :] = (210, 150, 120) if colour else 210
    return out


GROUNDS: dict[str, Callable[[int, int, int, bool], Image]] = {
    "weave": weave,
    "net": net,
    "plain": plain,
    "speckled": speckled,
    "sloped": sloped,
    "halved": halved,
}
