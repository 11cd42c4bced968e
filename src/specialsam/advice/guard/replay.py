"""What tuning replays so that it is not forgotten: general images, and what else is in the domain's own images.

Rehearsal (Robins 1995, "Catastrophic forgetting, rehearsal and pseudorehearsal") with the base's answers as the truth
is distillation (Li and Hoiem 2016, "Learning without forgetting").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from specialsam.advice.guard.retention import OBJECTS, RetentionSet
from specialsam.core.geometry import BoolArray, Geometry
from specialsam.core.ledger import digest
from specialsam.core.types import Embedding
from specialsam.models.grid import find_on_grid
from specialsam.models.segmenter import Segmenter
from specialsam.synth.scenes import SMALLEST
from specialsam.training.state import Item, TrainingData
from specialsam.training.targets import Packed

GRID = 8
"""Points on a side of the grid by which the base finds what else is in an image."""
LARGEST = 0.5
"""Share of the image above which a mask is ground and no object."""
SHARED = 0.2
"""Share of a found mask that may lie on the domain's objects."""


def to_replay(general: RetentionSet, segmenter: Segmenter) -> TrainingData:
    """General images as `training.loop.train` replays them: their objects, embeddings, and pixels for `segmenter`."""
    by_name = {item.name: item for item in general.items}
    packed = {name: Packed.of(item.masks) for name, item in by_name.items()}

    def pixels(item: Item) -> tuple[torch.Tensor, Geometry]:
        image = by_name[item.id].image()
        return segmenter.pixels(image), segmenter.geometry(image.shape)

    def embeddings(items: Sequence[Item]) -> list[Embedding]:
        return [by_name[item.id].embedding() for item in items]

    items = [Item(name, name, general.encoder_id, _named(packed[name])) for name in by_name]
    return TrainingData(items, [], embeddings, lambda item: packed[item.id].masks(), pixels)


def besides(
    segmenter: Segmenter,
    data: TrainingData,
    items: Sequence[Item],
    embed: Callable[[Item], Embedding],
    progress: Callable[[int, int, str], None] | None = None,
) -> TrainingData:
    """What the base finds on a grid of points in the domain's own images beside their true objects.

    `embed` gives the base's embedding of an item, `data` what tuning reads of it. Without any other photograph it keeps
    what a click beside an object used to answer. Images in which nothing is found are left out; there may be none at
    all, as where objects cover their images whole.
    """
    packed, origin = dict[str, Packed](), dict[str, Item]()
    for number, item in enumerate(items, 1):
        found, _, _ = find_on_grid(segmenter, embed(item), side=GRID)
        masks = found.masks()[:, 0]
        truth = np.asarray(data.masks(item).any(0), np.bool_)
        kept = masks[_apart(masks, truth)][:OBJECTS]
        if len(kept):
            packed[f"beside {item.id}"], origin[f"beside {item.id}"] = Packed.of(kept), item
        if progress:
            progress(number, len(items), item.id)
    made = [Item(name, item.record, item.key, _named(packed[name])) for name, item in origin.items()]

    def embeddings(chosen: Sequence[Item]) -> list[Embedding]:
        return data.embeddings([origin[item.id] for item in chosen])

    def pixels(item: Item) -> tuple[torch.Tensor, Geometry]:
        assert data.pixels is not None
        return data.pixels(origin[item.id])

    return TrainingData(made, [], embeddings, lambda item: packed[item.id].masks(), data.pixels and pixels)


def together(first: TrainingData, second: TrainingData) -> TrainingData:
    """The training items of both, each read by its own; ids must differ."""
    own = {item.id for item in first.train}

    def part(item: Item) -> TrainingData:
        return first if item.id in own else second

    def embeddings(items: Sequence[Item]) -> list[Embedding]:
        return [part(item).embeddings([item])[0] for item in items]

    def pixels(item: Item) -> tuple[torch.Tensor, Geometry]:
        read = part(item).pixels
        assert read is not None
        return read(item)

    both = [*first.train, *second.train]
    return TrainingData(both, [], embeddings, lambda item: part(item).masks(item), first.pixels and pixels)


def _apart(masks: BoolArray, truth: BoolArray) -> list[int]:
    """Which of masks (P, H, W) are objects by their size and lie beside the true ones, bool (H, W)."""
    areas = masks.sum((1, 2))
    on_truth = (masks & truth).sum((1, 2))
    kept = (areas >= SMALLEST * truth.size) & (areas <= LARGEST * truth.size) & (on_truth <= SHARED * areas)
    return [int(index) for index in np.flatnonzero(kept)]


def _named(packed: Packed) -> str:
    return digest(packed.bits.hex())
