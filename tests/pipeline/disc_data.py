"""What the tests of jobs share: a tiny data set in the plain folder layout, settings that are over in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from specialsam.pipeline.settings import SpecializeSettings


def discs(folder: Path, count: int, size: tuple[int, int] = (72, 96), first: int = 0) -> Path:
    """A plain folder data set: `count` bright discs on noise, images/000.png and masks/000.png."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows, columns = np.mgrid[: size[0], : size[1]]
    for number in range(count):
        rng = np.random.default_rng(first + number)
        image = rng.integers(60, 120, (*size, 3)).astype(np.uint8)
        x, y, radius = rng.uniform(0.35, 0.65) * size[1], rng.uniform(0.35, 0.65) * size[0], rng.uniform(10, 20)
        mask = (columns - x) ** 2 + (rows - y) ** 2 < radius**2
        image[mask] += 100
        Image.fromarray(image).save(folder / f"images/{number:03d}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"masks/{number:03d}.png")
    return folder


def small(**more: Any) -> SpecializeSettings:
    """Settings that are over in seconds; `more` replaces fields, with a dictionary only those fields of a group."""
    values: dict[str, Any] = {
        "train": {"epochs": 2, "batch": 4, "lr": 1e-4, "corrections": 0, "replay": 0},
        "evaluate": {"strategies": ["interior", "box"], "groups": ["overlap"]},
        "duplicates": False,
        "finder": {"epochs": 2, "grid": 1},
        "guard": {"retention": "none"},
        "probes": 0,
    }
    for name, value in more.items():
        values[name] = values.get(name, {}) | value if isinstance(value, dict) else value
    return SpecializeSettings.parse(values)
