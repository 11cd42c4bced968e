"""Tiny training data for the tests of tuning: bright squares on noise, encoded once by a random nano."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from specialsam.core.geometry import Geometry
from specialsam.core.types import Embedding, Record, Sample
from specialsam.models.nano import FrozenBatchNorm, build_nano
from specialsam.models.segmenter import Segmenter
from specialsam.training.state import Item, TrainingData

SIDE = 128


class Patches(nn.Module):
    """An encoder that sees brightness: random features of the colours of each 4 px cell of a 16 px patch."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(4)
        self.project = nn.Conv2d(3, 128, 4, 4)
        self.norm = FrozenBatchNorm(128)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.project(self.pool(pixels)))
        return out


def random_nano() -> Segmenter:
    """nano's decoder on a simple encoder; the same random weights every time, in every process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sam = build_nano("conv", SIDE)
    sam.vision_encoder = Patches().requires_grad_(False).eval()
    return Segmenter("nano", sam, SIDE)


def square_sample(number: int, objects: int = 1) -> Sample:
    """Bright squares (and a ring, whose middle is background) on noise; sizes and places follow the number."""
    rng = np.random.default_rng(number)
    height, width = (96, 128) if number % 3 else (128, 96)
    image = rng.integers(0, 100, (height, width, 3), dtype=np.uint8)
    masks = np.zeros((objects, height, width), np.bool_)
    for index in range(objects):
        size = int(rng.integers(24, 48))
        y, x = int(rng.integers(0, height - size)), int(rng.integers(0, width - size))
        masks[index, y : y + size, x : x + size] = True
        if index % 2:
            masks[index, y + size // 4 : y + size * 3 // 4, x + size // 4 : x + size] = False
        image[masks[index]] = rng.integers(180, 256, 3, dtype=np.uint8)
    return Sample(Record(f"r{number}", Path(f"{number}.png")), image, masks)


class SquareData:
    """`data` for `train`, and a count of what was read from it."""

    def __init__(self, segmenter: Segmenter, train: int = 8, val: int = 3, objects: int = 1):
        self.samples = {f"r{i}": square_sample(i, 1 + i % objects) for i in range(train + val)}
        self.stored = dict(
            zip(self.samples, segmenter.encode_batch([s.image for s in self.samples.values()]), strict=True)
        )
        self.reads = 0
        self.segmenter = segmenter
        items = [Item(name, name, f"key-{name}") for name in self.samples]
        self.data = TrainingData(items[:train], items[train:], self.embeddings, self.masks, self.pixels)

    def embeddings(self, items: Sequence[Item]) -> list[Embedding]:
        self.reads += len(items)
        return [self.stored[item.id] for item in items]

    def masks(self, item: Item) -> npt.NDArray[np.bool_]:
        return self.samples[item.id].masks

    def pixels(self, item: Item) -> tuple[torch.Tensor, Geometry]:
        sample = self.samples[item.id]
        return self.segmenter.pixels(sample.image), self.segmenter.geometry(sample.size)


def weights(segmenter: Segmenter) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in segmenter.sam.state_dict().items()}
