"""Short pilot runs: the decoder tuned on growing shares of the training images, measured on images kept apart.

What is kept apart is a part of the training split that no pilot learns from; near-duplicates stay on one side. Neither
the validation split nor the test split decides anything here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from specialsam.core.console import Progress
from specialsam.core.settings import Settings
from specialsam.core.types import Record, Row
from specialsam.data.splits import stable_hash
from specialsam.evaluation.evaluate import EvaluateSettings, record_rows
from specialsam.evaluation.results import Results
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import ENCODER_MODES, clone
from specialsam.pipeline.job import Job
from specialsam.training.loop import train
from specialsam.training.settings import TrainSettings
from specialsam.training.state import TrainingData, TrainResult

BASE, PILOT = "base", "pilot"
LEAST = 2
"""Images of the smallest pilot."""


class PilotSettings(Settings):
    """How the pilots are run."""

    shares: tuple[float, ...] = Field(
        (0.05, 0.1, 0.25, 0.5), description="shares of the training images that pilots see"
    )
    kept_apart: float = Field(
        0.5, description="share of the training images that the pilots are measured on", gt=0, lt=1
    )
    most: int = Field(150, description="most images to measure on", ge=5)
    epochs: int = Field(8, description="most epochs of a pilot", ge=1)
    seeds: int = Field(1, description="runs of each pilot, with different images and order", ge=1)
    tail: bool = Field(
        False, description="also a pilot whose encoder's end is tuned: is the frozen encoder in the way?"
    )
    wished: float = Field(0.03, description="gain in IoU (0..1) that would make specialising worth it", gt=0, lt=1)

    @field_validator("shares")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or not all(0 < share <= 1 for share in value):
            raise ValueError(f"expected shares above 0 and at most 1, got {value}")
        return tuple(sorted(set(value)))


@dataclass(frozen=True)
class Ground:
    """What pilots learn from (`pool`, in the order in which images join) and what they are measured on (`apart`)."""

    pool: tuple[Record, ...]
    apart: tuple[Record, ...]


def ground(train: Sequence[Record], groups: Mapping[str, str], settings: PilotSettings, seed: int) -> Ground:
    """Cut the training records by a stable hash of their near-duplicate group."""

    def unit(record: Record) -> float:
        return stable_hash(f"pilot:{seed}:{groups.get(record.id, record.id)}")

    order = sorted(train, key=lambda record: (unit(record), record.id))
    cut = len(order) - round(settings.kept_apart * len(order))
    while 0 < cut < len(order) and unit(order[cut]) == unit(order[cut - 1]):
        cut += 1  # a group of near-duplicates is not cut in two
    apart = sorted(order[cut:], key=lambda record: stable_hash(f"apart:{seed}:{record.id}"))[: settings.most]
    return Ground(tuple(order[:cut]), tuple(apart))


def joined(pool: Sequence[Record], count: int, seed: int) -> list[Record]:
    """The first `count` records of the pool in the order of one seed: a larger pilot holds the smaller ones."""
    return sorted(pool, key=lambda record: stable_hash(f"joins:{seed}:{record.id}"))[:count]


def sizes(total: int, pool: int, settings: PilotSettings) -> list[int]:
    """Images of each pilot, different ones in rising order, none above what the pool holds."""
    return sorted({min(pool, max(LEAST, math.ceil(share * total))) for share in settings.shares})


def limited(data: TrainingData, records: Sequence[Record]) -> TrainingData:
    """The same data with only the training items of `records` (in all their views)."""
    kept = {record.id for record in records}
    return replace(data, train=[item for item in data.train if item.record in kept])


def pilot_training(train: TrainSettings, settings: PilotSettings, seed: int) -> TrainSettings:
    """The real run's settings for a pilot: fewer epochs at most, and the last one kept whatever validation says.

    Kept by validation, every pilot that is no better than the base would be the base, with a gain of exactly 0: the
    learning curve below that point would be hidden.
    """
    epochs = min(settings.epochs, train.epochs)
    return train.model_copy(update={"epochs": epochs, "seed": seed, "keep": "last", "patience": 0})


def tuned_on(
    job: Job, data: TrainingData, settings: TrainSettings, folder: Path, progress: Progress | None = None
) -> tuple[Segmenter, TrainResult]:
    """A tuned clone of the base and its history; `folder` keeps its state: a finished pilot is not trained again."""
    folder.mkdir(parents=True, exist_ok=True)
    tuned = clone(job.segmenter, PILOT, share_encoder=settings.mode not in ENCODER_MODES)
    return tuned, train(tuned, data, settings, folder, job.place, progress)


def measured(
    job: Job,
    tuned: Segmenter,
    records: Sequence[Record],
    settings: EvaluateSettings,
    radius: float | None,
    progress: Progress | None = None,
) -> Results:
    """Results of base and pilot (and with a `radius` of the rivals) on `records`, in every process."""
    models = {BASE: job.segmenter, PILOT: tuned}
    stamp = {"run": "advise", "dataset": job.plan.dataset.name, "split": "train, kept apart"}
    how = job.embedded.measuring(settings, stamp | {"subset": job.plan.mix(records)})

    def work(record: Record) -> list[Row]:
        return record_rows(models, record, how, radius)

    rows = []
    for number, found in enumerate(job.place.spread(work, records), 1):
        rows += found
        if progress:
            progress(number, len(records), "")
    return Results.of(rows)


def gains_of(results: Results, strategy: str) -> npt.NDArray[np.float64]:
    """Gain in IoU an image of the pilot over the base by one strategy's single mask, (N,)."""
    return np.asarray(results.pairs(BASE, PILOT, strategy)["gain"], np.float64)
