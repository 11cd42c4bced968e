"""General images in a job: those replayed in tuning, and those that the guard measures what is forgotten on."""

from __future__ import annotations

from dataclasses import replace

from specialsam.advice.guard.mixtures import Measure, retention_measure
from specialsam.advice.guard.retention import Part, RetentionSet, retention_set, to_replay
from specialsam.core.console import stage
from specialsam.core.errors import UsageError
from specialsam.pipeline.job import Job
from specialsam.training.state import TrainingData


def training_data(job: Job) -> TrainingData:
    """What a job learns from: the domain's images, and general ones to replay where its settings ask for it.

    They come from `guard.retention`, are never those that the guard measures, and lie in the job's own store.
    """
    data, train, source = job.embedded.training_data(), job.settings.train, job.settings.guard.retention
    if not train.replay:
        return data
    if source == "none":
        raise UsageError(
            "expected general images to replay, got guard.retention none; name some, or set train.replay=0"
        )
    store, seed, made = job.embedded.store, job.settings.seed, list[RetentionSet]()

    def make() -> None:
        with stage("general images to replay") as progress:
            made.append(
                retention_set(job.segmenter, source, train.replay_pool, seed, store, part="replayed", progress=progress)
            )

    job.place.first(make)
    if not made:
        store.refresh()
        make()
    return replace(data, general=to_replay(made[0], job.segmenter))


def retention(job: Job) -> Measure | None:
    """What the guard asks about general images: none of those that tuning has replayed."""
    settings = job.settings
    part: Part = "measured" if settings.train.replay else "all"
    return retention_measure(job.segmenter, settings.guard, settings.seed, spread=job.place.spread, part=part)
