"""A picture with a disc, its mask and its outline, for tests of people's files. Oracle: drawn by formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

HIGH, WIDE = 48, 64
Pixels = npt.NDArray[Any]


def disc(seed: int, radius: float = 9.0) -> tuple[Pixels, Pixels, tuple[float, float]]:
    """(image uint8 RGB, mask bool, centre) with a disc that is brighter than its noisy ground."""
    rng = np.random.default_rng(seed)
    x, y = float(rng.uniform(22, WIDE - 22)), float(rng.uniform(18, HIGH - 18))
    rows, columns = np.mgrid[:HIGH, :WIDE]
    mask = (columns - x) ** 2 + (rows - y) ** 2 < radius**2
    image = rng.integers(40, 110, (HIGH, WIDE, 3))
    image[mask] += 100
    return image.astype(np.uint8), mask, (x, y)


def ring(centre: tuple[float, float], radius: float = 9.0, corners: int = 24) -> list[float]:
    """The disc's outline as x, y, x, y, ..."""
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    points = np.stack([centre[0] + radius * np.cos(turn), centre[1] + radius * np.sin(turn)], 1)
    return [round(float(value), 2) for value in points.ravel()]


def put(path: Path, pixels: Pixels, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def iou(one: Pixels, other: Pixels) -> float:
    return float((one & other).sum() / (one | other).sum())
