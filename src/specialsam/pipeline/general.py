"""General images in a job: those replayed in tuning, and those that the guard measures what is forgotten on."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from specialsam.advice.guard.mixtures import Measure, retention_measure
from specialsam.advice.guard.replay import besides, to_replay, together
from specialsam.advice.guard.retention import NONE, Part, RetentionSet, retention_set
from specialsam.core.console import say, stage
from specialsam.data.splits import stable_hash
from specialsam.pipeline.job import Job
from specialsam.training.state import TrainingData


def training_data(job: Job) -> TrainingData:
    """What a job learns from: the domain's images, and others to replay where its settings ask for it.

    These are general images from `guard.retention`, never those that the guard measures, with their embeddings in the
    job's own store; and what the base finds beside the objects in the domain's images.
    """
    data, train = job.learned.training_data(), job.settings.train
    if not train.replay:
        return data
    parts = [to_replay(_general(job), job.segmenter)] if job.settings.guard.retention != NONE else []
    if train.replay_own:
        whole = [item for item in data.train if item.id == item.record]
        chosen = sorted(whole, key=lambda item: stable_hash(f"replayed:{job.settings.seed}:{item.record}"))
        with stage("finding what else is in the images") as progress:
            embed = job.embedded.embedding_of
            parts.append(besides(job.segmenter, data, chosen[: train.replay_pool], embed, progress))
    found = [part for part in parts if part.train]
    if not found:
        say("nothing to replay: no general images (guard.retention) and nothing beside the objects")
        return data
    return replace(data, general=reduce(together, found))


def _general(job: Job) -> RetentionSet:
    """The general images to replay, encoded by the main process."""
    store, encoder, made = job.learned.store, job.learned.segmenter, list[RetentionSet]()
    how = job.settings.guard.retention, job.settings.train.replay_pool, job.settings.seed, store

    def make() -> None:
        with stage("general images to replay") as progress:
            made.append(retention_set(encoder, *how, part="replayed", progress=progress))

    job.place.first(make)
    if not made:
        store.refresh()
        make()
    return made[0]


def retention(job: Job) -> Measure | None:
    """What the guard asks about general images: none of those that tuning has replayed."""
    settings = job.settings
    part: Part = "measured" if settings.train.replay else "all"
    return retention_measure(job.segmenter, settings.guard, settings.seed, spread=job.place.spread, part=part)
