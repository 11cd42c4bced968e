"""Which synthetic kind helps which real type: the decoder tuned on one kind alone, measured on every real defect.

Each row of the matrix is a decoder tuned alike on equally many pictures: of one kind, of all kinds together, and of all
together without seeing any image (the blind decoder: what place and size of masks give away by themselves). The real
defects take no part in training, nor in choosing an epoch: the last one is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from specialsam.advice.guard.mixtures import per_image_iou
from specialsam.core.console import stage
from specialsam.core.geometry import BoolArray
from specialsam.core.types import Embedding
from specialsam.evaluation.statistics import paired_bootstrap
from specialsam.models.segmenter import Segmenter
from specialsam.studies.carpet.realism import ALL
from specialsam.studies.carpet.realism_data import Encoded, Seen
from specialsam.studies.cells import cell_iou
from specialsam.studies.recipe import load_recipe
from specialsam.training.settings import TrainSettings
from specialsam.training.state import Item, TrainingData

BLIND = "blind decoder"
CLICK = "center_of_mass"
BATCH = 4
"""Images a step: half the revised study's, because there are few pictures."""


def transfer_settings(epochs: int, seed: int = 0) -> TrainSettings:
    """The carpet study's revised settings for few pictures: small batches, the last epoch kept, measured by a click."""
    revised = load_recipe("carpet", "revised").specialize.train
    fixed = {"epochs": epochs, "batch": BATCH, "validation": (CLICK,), "patience": 0, "keep": "last", "seed": seed}
    return revised.model_copy(update=fixed)


def transfer(encoded: Encoded, segmenter: Segmenter, folder: Path, epochs: int, seed: int = 0) -> pd.DataFrame:
    """Gains by one click: a line a row and real type (and all): trained_on, type, base, tuned, gain, low, high, n.

    Rows are the synthetic kinds, all of them together with no more pictures in total, and the blind decoder tuned on
    those. Intervals are over real pictures; how another seed would train is not in them. Finished rows lie in
    `folder/cells` and are not trained again.
    """
    settings = transfer_settings(epochs, seed)
    real, kinds = encoded.of("real"), encoded.kinds("synthetic")
    mixed = _mixed([encoded.of("synthetic", kind) for kind in kinds])
    rows = {kind: encoded.of("synthetic", kind) for kind in kinds} | ({ALL: mixed} if len(kinds) > 1 else {})
    rows |= {BLIND: mixed}
    base = per_image_iou(segmenter, _data(encoded, [], real), settings)
    lines: list[dict[str, Any]] = []
    with stage("transfer") as progress:
        for number, (name, pictures) in enumerate(rows.items(), 1):
            tuned = _cell(name, pictures, encoded, segmenter, folder / "cells", settings)
            for kind in (*encoded.kinds("real"), ALL):
                chosen = [index for index, one in enumerate(real) if kind in (one.kind, ALL)]
                lines.append({"trained_on": name, "type": kind} | _gain(base, tuned, chosen))
            progress(number, len(rows), f"{name}: {100 * lines[-1]['gain']:+.1f}")
    return pd.DataFrame(lines)


def _mixed(parts: Sequence[Sequence[Seen]]) -> list[Seen]:
    """As many pictures as the first kind has, taken from all kinds in turn."""
    turns = [part[index] for index in range(max(map(len, parts))) for part in parts if index < len(part)]
    return turns[: len(parts[0])]


def _gain(base: Sequence[float], tuned: Sequence[float], chosen: Sequence[int]) -> dict[str, float | int]:
    before, after = ([values[index] for index in chosen] for values in (base, tuned))
    found = paired_bootstrap(before, after)
    means = {"base": sum(before) / len(before), "tuned": sum(after) / len(after)}
    return means | {"gain": found.mean, "low": found.low, "high": found.high, "n": found.n}


def _data(encoded: Encoded, learned: Sequence[Seen], measured: Sequence[Seen]) -> TrainingData:
    """Stored embeddings and masks of the pictures to learn from and of those to measure on."""
    by_id = {one.picture.id: one for one in (*learned, *measured)}

    def items(part: Sequence[Seen]) -> list[Item]:
        return [Item(one.picture.id, one.picture.id, encoded.keys[one.picture.id]) for one in part]

    def embeddings(asked: Sequence[Item]) -> list[Embedding]:
        return encoded.store.get_many([item.key for item in asked])

    @cache
    def mask_of(name: str) -> BoolArray:
        return by_id[name].mask()[None]

    return TrainingData(items(learned), items(measured), embeddings, lambda item: mask_of(item.id))


def _cell(
    name: str, pictures: Sequence[Seen], encoded: Encoded, segmenter: Segmenter, cells: Path, settings: TrainSettings
) -> list[float]:
    """IoU of each real defect after tuning on `pictures`; a finished cell made of the same things is read."""
    real = encoded.of("real")
    made_by = {
        "settings": settings.model_dump(mode="json"),
        "trained on": _digest(encoded, pictures),
        "measured on": _digest(encoded, real),
    }
    learned, measured = _data(encoded, pictures, []), _data(encoded, pictures, real)
    path = cells / f"{name.replace(' ', '-')}.json"
    return cell_iou(path, made_by, segmenter, learned, measured, settings, blinded=name == BLIND)


def _digest(encoded: Encoded, pictures: Sequence[Seen]) -> str:
    """Hash of pictures by name and content."""
    lines = [f"{one.picture.id} {encoded.keys[one.picture.id]}" for one in pictures]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
