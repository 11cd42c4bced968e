"""Which synthetic kind helps which real type: the decoder tuned on one kind alone, measured on every real defect.

Each row of the matrix is a decoder tuned alike on equally many pictures: of one kind, of all kinds together, and of all
together without seeing any image (the blind decoder: what place and size of masks give away by themselves). The real
defects take no part in training, nor in choosing an epoch: the last one is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from specialsam.core.console import stage
from specialsam.core.geometry import BoolArray
from specialsam.core.types import Embedding
from specialsam.evaluation.statistics import paired_bootstrap
from specialsam.studies.carpet.realism import ALL
from specialsam.studies.carpet.realism_data import Encoded, Seen
from specialsam.studies.cells import Bench, cell_iou
from specialsam.studies.recipe import load_recipe
from specialsam.training.loop import per_image_iou
from specialsam.training.settings import TrainSettings
from specialsam.training.state import Item, TrainingData

BLIND = "blind decoder"
CLICK = "center_of_mass"
BATCH = 4
"""Images a step: half the revised study's, because there are few pictures."""


@dataclass(frozen=True)
class Gain:
    """IoU by one click on the `n` real pictures of a type (or all), before and after tuning on one kind; the gain's
    interval is over pictures."""

    trained_on: str
    type: str
    base: float
    tuned: float
    gain: float
    low: float
    high: float
    n: int


def transfer_settings(epochs: int, seed: int = 0) -> TrainSettings:
    """The carpet study's revised settings for few pictures: small batches, the last epoch kept, measured by a click."""
    revised = load_recipe("carpet", "revised").specialize.train
    fixed = {"epochs": epochs, "batch": BATCH, "validation": (CLICK,), "patience": 0, "keep": "last", "seed": seed}
    return revised.model_copy(update=fixed)


def transfer(encoded: Encoded, bench: Bench, epochs: int, seed: int = 0) -> tuple[Gain, ...]:
    """Gains by one click of each row on each real type and on all.

    Rows are the synthetic kinds, all of them together with no more pictures in total, and the blind decoder tuned on
    those. Intervals are over real pictures; how another seed would train is not in them. Finished rows lie in the
    bench's journal and are not trained again.
    """
    settings = transfer_settings(epochs, seed)
    real, kinds = encoded.of("real"), encoded.kinds("synthetic")
    mixed = _mixed([encoded.of("synthetic", kind) for kind in kinds])
    rows = {kind: encoded.of("synthetic", kind) for kind in kinds} | ({ALL: mixed} if len(kinds) > 1 else {})
    rows |= {BLIND: mixed}
    base = per_image_iou(bench.segmenter, _data(encoded, [], real), settings, bench.place.spread)
    gains = []
    with stage("transfer") as progress:
        for number, (name, pictures) in enumerate(rows.items(), 1):
            learned, measured = _data(encoded, pictures, []), _data(encoded, pictures, real)
            tuned = cell_iou(bench, name, learned, measured, settings, blinded=name == BLIND)
            for kind in (*encoded.kinds("real"), ALL):
                chosen = [index for index, one in enumerate(real) if kind in (one.kind, ALL)]
                gains.append(_gain(name, kind, [base[index] for index in chosen], [tuned[index] for index in chosen]))
            progress(number, len(rows), f"{name}: {100 * gains[-1].gain:+.1f}")
    return tuple(gains)


def _mixed(parts: Sequence[Sequence[Seen]]) -> list[Seen]:
    """As many pictures as the first kind has, taken from all kinds in turn.

    The picture of a number lies on the same clean picture in every kind, so each turn takes the next number: as many
    grounds are seen as in one kind.
    """
    return [parts[index % len(parts)][index] for index in range(min(map(len, parts)))]


def _gain(name: str, kind: str, before: Sequence[float], after: Sequence[float]) -> Gain:
    found = paired_bootstrap(before, after)
    base, tuned = sum(before) / len(before), sum(after) / len(after)
    return Gain(name, kind, base, tuned, found.mean, found.low, found.high, found.n)


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
