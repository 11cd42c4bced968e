"""A planned data set with its embeddings and packed masks: what evaluation and training read instead of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from specialsam.core.console import duration, say, stage
from specialsam.core.errors import DataError, StoreError
from specialsam.core.geometry import BoolArray, Geometry
from specialsam.core.types import Embedding, Problem, Record, Sample
from specialsam.data.loading import load, load_masks
from specialsam.data.views import IDENTITY, View, apply, views_for
from specialsam.embeddings import EmbeddingStore, EmbedReport, digest_file, embed, price
from specialsam.embeddings.shards import Precision
from specialsam.embeddings.store import Writer
from specialsam.evaluation.evaluate import Embed
from specialsam.evaluation.rivals import relative_area
from specialsam.models.segmenter import Segmenter
from specialsam.pipeline.plan import Plan
from specialsam.training.state import Item, TrainingData
from specialsam.training.targets import TargetFile

if TYPE_CHECKING:
    from specialsam.pipeline.settings import SpecializeSettings

BATCH = 2
"""Images encoded at once: on a CPU more does not pay, and memory stays small for the largest encoder."""


@dataclass
class Embedded:
    """Embeddings of all splits (train images also in their views), and masks of the train and val items."""

    folder: Path
    segmenter: Segmenter
    plan: Plan
    settings: SpecializeSettings
    targets_path: Path
    max_gb: float | None = None
    report: EmbedReport | None = field(default=None, init=False)

    @cached_property
    def store(self) -> EmbeddingStore:
        return EmbeddingStore(self.folder, self.segmenter.encoder_id, self.settings.precision, self.max_gb)

    @cached_property
    def targets(self) -> TargetFile:
        return TargetFile(self.targets_path)

    @cached_property
    def items(self) -> dict[str, list[tuple[Record, View]]]:
        """(record, view) pairs of each split; only train images have views beside the identity."""
        recipe, seed = self.settings.views, self.settings.seed
        train = [
            (record, view)
            for record in self.plan.of("train")
            for view in (IDENTITY, *views_for(record.id, recipe, seed))
        ]
        return {"train": train} | {s: [(r, IDENTITY) for r in self.plan.of(s)] for s in ("val", "test")}

    @property
    def pairs(self) -> list[tuple[Record, View]]:
        return [pair for pairs in self.items.values() for pair in pairs]

    def price(self) -> str:
        """One line: how much disk and time the missing embeddings will take, measured on a few images."""
        found = price(self.pairs, load, self.segmenter, self.store)
        return (
            f"{found.todo} of {found.total} embeddings to make ({found.stored} stored): {found.gigabytes:.2f} GB and "
            f"about {duration(60 * found.minutes)} ({found.seconds_per_image:.2f} s and "
            f"{found.bytes_per_image / 1e6:.2f} MB each, measured on {found.sampled})"
        )

    def prepare(self) -> None:
        """Encode what the store lacks, pack the masks that the run lacks."""
        with stage("encoding") as progress:
            self.report = embed(
                self.pairs,
                load,
                self.segmenter,
                self.store,
                batch_size=BATCH,
                progress=lambda done, total, _: progress(done, total, ""),
            )
        done = self.report
        say(
            f"embeddings: {done.done} made ({done.images_per_second:.1f} images/s, {done.bytes / 1e6:.0f} MB), "
            f"{done.reused} reused, {len(done.failed)} failed"
        )
        for failure in done.failed:
            say(f"  failed: {failure.record}: {failure.error}")
        for note in done.notes:
            say(f"  {note}")
        for gone in done.evicted:
            say(f"  evicted to keep the size limit: shard {gone.shard}, {gone.embeddings} embeddings")
        known, wanted = self.targets.items(), [*self.items["train"], *self.items["val"]]
        missing = [pair for pair in wanted if item_id(*pair) not in known]
        with stage("packing masks") as progress:
            for number, (record, view) in enumerate(missing, 1):
                self._pack(record, view)
                progress(number, len(missing), record.id)

    def _pack(self, record: Record, view: View) -> None:
        try:
            masks = load_masks(record)
        except DataError:
            return  # Its embedding failed as well, and is reported there.
        if view.key:
            blank = np.zeros((*masks.shape[1:], 3), np.uint8)
            masks = apply(view, Sample(record, blank, masks)).masks
        self.targets.put(item_id(record, view), masks[[bool(mask.any()) for mask in masks]])

    @property
    def keys(self) -> dict[tuple[str, str], str]:
        if self.report is None:
            raise StoreError("expected prepared embeddings, got none yet; call prepare() first")
        return self.report.keys

    def problems(self) -> tuple[Problem, ...]:
        """Images that could not be encoded, and why: in the splits, but neither learned from nor measured."""
        paths = {record.id: record.image for record in self.plan.dataset.records}
        failed = self.report.failed if self.report else ()
        return tuple(
            Problem(paths[f.record], "not encoded", f"{f.record}{f' ({f.view})' if f.view else ''}: {f.error}")
            for f in failed
        )

    def embed(self, sample: Sample, segmenter: Segmenter) -> Embedding:
        """The stored embedding of an image, or a live one where none was to be stored; DataError repeats a failure."""
        if segmenter.encoder_id != self.store.encoder_id:
            return segmenter.encode(sample.image)
        key = self.keys.get((sample.id, ""))
        if key is None:
            failed = [f.error for f in self.report.failed if f.record == sample.id] if self.report else []
            if failed:
                raise DataError(failed[0])
            return segmenter.encode(sample.image)
        return self.store.get(key)

    def _split_items(self, split: str) -> list[Item]:
        counts = self.targets.items()
        pairs = [(record, view, self.keys.get((record.id, view.key))) for record, view in self.items[split]]
        return [
            Item(item_id(record, view), record.id, key)
            for record, view, key in pairs
            if key is not None and counts.get(item_id(record, view), 0) > 0
        ]

    def training_data(self) -> TrainingData:
        """Train and val items with readers for embeddings, masks and (whole-model tuning) pixels."""
        by_id = {item_id(record, view): (record, view) for record, view in self.pairs}

        def pixels(item: Item) -> tuple[torch.Tensor, Geometry]:
            record, view = by_id[item.id]
            sample = apply(view, load(record))
            return self.segmenter.pixels(sample.image), sample.geometry(self.segmenter.side)

        def embeddings(items: Sequence[Item]) -> list[Embedding]:
            return self.store.get_many([item.key for item in items])

        def masks(item: Item) -> BoolArray:
            return self.targets.get(item.id)

        return TrainingData(self._split_items("train"), self._split_items("val"), embeddings, masks, pixels)

    @cached_property
    def _train_masks(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Area of every training object (identity view) over its image, and over the squared shorter side."""
        shares, relative = [], []
        counts = self.targets.items()
        for record, view in self.items["train"]:
            if not view.key and counts.get(item_id(record, view), 0):
                for mask in self.targets.get(item_id(record, view)):
                    shares.append(float(mask.mean()))
                    relative.append(relative_area(mask))
        return np.array(shares), np.array(relative)

    def areas(self) -> npt.NDArray[np.float64]:
        """Area of each training object as a fraction of its image, (N,)."""
        return self._train_masks[0]

    def relative_areas(self) -> npt.NDArray[np.float64]:
        """Area of each training object over the square of its image's shorter side, (N,)."""
        return self._train_masks[1]


def item_id(record: Record, view: View) -> str:
    """Name of a record in a view, unique within a data set."""
    return f"{record.id}|{view.key}" if view.key else record.id


@contextmanager
def embeddings_of(folder: Path | None, precision: Precision = "half") -> Iterator[Embed]:
    """How to get an image's embedding: from a store that fills as it is asked, or live where there is no folder."""
    if folder is None:
        yield lambda sample, segmenter: segmenter.encode(sample.image)
        return
    with ExitStack() as writers:
        stores: dict[str, tuple[EmbeddingStore, Writer]] = {}

        def embed(sample: Sample, segmenter: Segmenter) -> Embedding:
            if segmenter.encoder_id not in stores:
                own = EmbeddingStore(folder, segmenter.encoder_id, precision)
                stores[segmenter.encoder_id] = own, writers.enter_context(own.writer())
            store, writer = stores[segmenter.encoder_id]
            key = store.key(digest_file(sample.record.image))
            if key not in store:
                writer.put(key, segmenter.encode(sample.image), sample.id)
            return store.get(key)

        yield embed
