"""General images in a job: those replayed in tuning, and those that the guard measures what is forgotten on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import reduce

from specialsam.advice.guard.mixtures import Measure, retention_measure
from specialsam.advice.guard.replay import besides, to_replay, together
from specialsam.advice.guard.retention import GENERATED, NONE, Part, RetentionSet, retention_set
from specialsam.core.console import say, stage
from specialsam.core.folders import cache_folder, in_use
from specialsam.data.splits import stable_hash
from specialsam.embeddings import EmbeddingStore
from specialsam.models.segmenter import Segmenter
from specialsam.pipeline.job import Job
from specialsam.training.state import TrainingData

MACHINE_GB = 2.0
"""Most that is kept on a machine of one encoder's embeddings of general images: some 450 of a SAM's."""


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
    machine = _machine_store(job, encoder)

    def make() -> None:
        with stage("general images to replay") as progress:
            made.append(retention_set(encoder, *how, part="replayed", progress=progress, machine=machine))

    job.place.first(make)
    if not made:
        store.refresh()
        make()
    return made[0]


def retention(job: Job) -> Measure | None:
    """What the guard asks about general images: none of those that tuning has replayed."""
    settings, machine = job.settings, _machine_store(job, job.segmenter)
    part: Part = "measured" if settings.train.replay else "all"
    return retention_measure(job.segmenter, settings.guard, settings.seed, machine, job.place.spread, part)


def _machine_store(job: Job, encoder: Segmenter) -> EmbeddingStore | None:
    """Embeddings of generated general images, which every job of this machine asks for alike: made by the first.

    In full precision, so that a later job has what it would make itself. None for general images of the user's own,
    for jobs of several processes, of which each encodes its share, and where the cache cannot be written.
    """
    if job.settings.guard.retention != GENERATED or job.place.count > 1 or job.place.cluster is not None:
        return None
    with suppress(OSError):
        store = EmbeddingStore(cache_folder() / "general", encoder.encoder_id, "full", MACHINE_GB)
        in_use(store.folder)
        return store if store.files.writable else None
    return None
