"""Training images from generated scenes: crops at every scale with targets, clicks and boxes, made by workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from specialsam.core.geometry import BoolArray, FloatArray, Geometry, ImageArray
from specialsam.models.segmenter import PIXEL_MEAN, PIXEL_STD

AUX_CLICKS = 16
"""Clicks an image for the auxiliary head."""

BLOCK = 48
"""Scenes that are alive at once: crops of one scene are spread over a block of so many."""


CROP = (0.35, 1.0)
"""Smallest and largest crop as a share of the scene's side: teaches every scale from coarse to magnified."""


def _resized(image: ImageArray, masks: BoolArray, side: int) -> tuple[ImageArray, BoolArray]:
    """Image and masks scaled to `side`, masks by nearest neighbour."""
    mode = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_LINEAR
    scaled = cv2.resize(np.ascontiguousarray(image), (side, side), interpolation=mode)
    planes = [cv2.resize(m.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST_EXACT) for m in masks]
    return np.asarray(scaled, np.uint8), np.stack(planes).astype(np.bool_)


@lru_cache(maxsize=BLOCK + 8)
def _rendered(seed: int, side: int) -> tuple[ImageArray, BoolArray]:
    from specialsam.synth.scenes import scene

    made = scene(seed, side)
    return made.image, made.masks


@dataclass(frozen=True)
class Scenes(Dataset[dict[str, Tensor]]):
    """Image number i as tensors: pixels, low-res targets and prompts of a few objects, clicks of the auxiliary head.

    Image i is a crop of scene `first_seed` + s, where s runs through blocks of scenes `reuse` times in changing order.
    """

    first_seed: int
    count: int
    side: int
    objects: int
    render: int = 0
    reuse: int = 1

    def __len__(self) -> int:
        return self.count

    def _crop(self, number: int, rng: np.random.Generator) -> tuple[ImageArray, BoolArray]:
        block, place = divmod(number, BLOCK * self.reuse)
        turn, place = divmod(place, BLOCK)
        order = np.random.default_rng([self.first_seed, block, turn]).permutation(BLOCK)
        image, masks = _rendered(self.first_seed + block * BLOCK + int(order[place]), max(self.render, self.side))
        extent = round(image.shape[0] * rng.uniform(*CROP))
        y, x = (int(v) for v in rng.integers(0, image.shape[0] - extent + 1, 2))
        window = slice(y, y + extent), slice(x, x + extent)
        image, masks = _resized(image[window], masks[(slice(None), *window)], self.side)
        if rng.random() < 0.5:
            image, masks = image[:, ::-1], masks[:, :, ::-1]
        kept = masks.sum((1, 2)) >= max(16, 0.001 * self.side**2)
        return image, masks[kept] if kept.any() else np.ones((1, self.side, self.side), np.bool_)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.first_seed, number])
        picture, masks = self._crop(number, rng)
        targets = Geometry(self.side, self.side, self.side).masks_to_logits(masks)
        chosen = rng.choice(len(masks), self.objects, replace=len(masks) < self.objects)
        clicks, boxes = zip(*(_click_and_box(masks[i], rng) for i in chosen), strict=True)
        several = rng.choice(len(masks), AUX_CLICKS)
        cells = [_low_res_click(targets[i], rng) for i in several]
        image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float()
        return {
            "pixels": (image - torch.tensor(PIXEL_MEAN)[:, None, None]) / torch.tensor(PIXEL_STD)[:, None, None],
            "targets": torch.from_numpy(targets[chosen]),
            "clicks": torch.from_numpy(np.stack(clicks)),
            "boxes": torch.from_numpy(np.stack(boxes)),
            "cells": torch.tensor(cells),
            "aux_targets": torch.from_numpy(targets[several]),
            "edge": torch.from_numpy(_edges(targets)),
        }


def _edges(targets: FloatArray) -> FloatArray:
    """Where any mask begins or ends, float32 (L, L) of 0 and 1."""
    down = np.abs(np.diff(targets, axis=1, append=targets[:, -1:]))
    across = np.abs(np.diff(targets, axis=2, append=targets[:, :, -1:]))
    return np.asarray(np.maximum(down, across).max(0) > 0.25, np.float32)


def _click_and_box(mask: BoolArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """One random foreground pixel (1, 2) and one jittered tight box (4,), float32 pixels."""
    rows, columns = np.nonzero(mask)
    pick = rng.integers(len(rows))
    box = np.array([columns.min(), rows.min(), columns.max(), rows.max()], np.float32)
    size = np.array([box[2] - box[0], box[3] - box[1]] * 2, np.float32)
    jitter = np.clip(rng.normal(0, 0.1 * rng.random(), 4) * size, -20, 20)
    box = np.clip(box + jitter, 0, mask.shape[0] - 1).astype(np.float32)
    return np.array([[columns[pick], rows[pick]]], np.float32), box


def _low_res_click(target: FloatArray, rng: np.random.Generator) -> int:
    inside = np.flatnonzero(target > 0.5)
    return int(rng.choice(inside)) if len(inside) else int(target.argmax())


def batches(scenes: Scenes, batch: int, first: int, last: int, workers: int) -> Iterator[dict[str, Tensor]]:
    """Batches number `first` to `last` - 1, arrays (B, ...) by name, always the same ones for the same scenes."""
    loader = DataLoader(
        scenes,
        batch_size=batch,
        sampler=range(first * batch, last * batch),
        num_workers=workers,
        drop_last=True,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_quiet_worker,
        multiprocessing_context="spawn" if workers else None,  # a fork inherits locks that nobody will open again
    )
    yield from loader


def _quiet_worker(number: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
