"""A planned data set with its embeddings and packed masks: what evaluation and training read instead of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from specialsam.core.cluster import ClusterSettings
from specialsam.core.console import duration, say, stage
from specialsam.core.errors import DataError, StoreError
from specialsam.core.geometry import BoolArray, Geometry
from specialsam.core.ledger import digest
from specialsam.core.place import Place
from specialsam.core.types import Embedding, Objects, Problem, Record, Sample, Split, Truth
from specialsam.core.windows import Window
from specialsam.data.content import digest_record
from specialsam.data.headers import image_size
from specialsam.data.loading import labels_of, load, load_masks
from specialsam.data.splits import stable_hash
from specialsam.data.tiles import TileSettings
from specialsam.data.views import IDENTITY, View, ViewRecipe, apply, views_for
from specialsam.embeddings import EmbeddingStore, EmbedReport, Encoder, embed, fleet_price, price
from specialsam.embeddings.shards import Precision
from specialsam.embeddings.spread import embed_spread
from specialsam.embeddings.store import Writer
from specialsam.evaluation.evaluate import Embed, EvaluateSettings, Measuring, live, live_tile
from specialsam.evaluation.rivals import relative_area
from specialsam.models.segmenter import Segmenter
from specialsam.pipeline.plan import Plan
from specialsam.training.state import Item, TrainingData
from specialsam.training.targets import Packed, TargetFile

BATCH = 2
"""Images encoded at once: on a CPU more does not pay, and memory stays small for the largest encoder."""
FINDER_BLANKS = 20
"""Images of nothing at most, of the validation split, on which a finder's epoch and probabilities are chosen."""
Pair = tuple[Record, View]


@dataclass
class Embedded:
    """Embeddings and packed masks of all splits in `folder` and `targets_path`; train images also in their views.

    With `blanks` also of the images that hold nothing, as they are. With a `cluster` its workers encode and read masks,
    each with an encoder that `remake` makes there.
    """

    folder: Path | str
    segmenter: Segmenter
    plan: Plan
    targets_path: Path
    place: Place
    precision: Precision = "half"
    views: ViewRecipe = field(default_factory=ViewRecipe)
    seed: int = 0
    tiles: TileSettings = field(default_factory=TileSettings)
    blanks: bool = False
    splits: tuple[Split, ...] = ("train", "val", "test")
    max_gb: float | None = None
    cluster: ClusterSettings | None = None
    remake: Callable[[], Encoder] | None = None
    report: EmbedReport | None = field(default=None, init=False)
    _seen: dict[str, Packed] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def store(self) -> EmbeddingStore:
        return EmbeddingStore(self.folder, self.segmenter.encoder_id, self.precision, self.max_gb)

    @cached_property
    def targets(self) -> TargetFile:
        return TargetFile(self.targets_path)

    @cached_property
    def items(self) -> dict[str, list[Pair]]:
        """(record, view) pairs of each split: whole images, their tiles, and of train images also augmented views."""

        def views(record: Record, split: Split) -> list[View]:
            drawn = views_for(record.id, self.views, self.seed) if split == "train" else ()
            whole = [IDENTITY, *drawn]
            return whole + [view.on(tile) for tile in self._tiles(record) for view in whole]

        def empty(split: Split) -> list[Pair]:
            return [(record, IDENTITY) for record in self.plan.blanks(split)] if self.blanks else []

        return {
            split: [(record, view) for record in self.plan.of(split) for view in views(record, split)] + empty(split)
            for split in self.splits
        }

    def _tiles(self, record: Record) -> list[Window]:
        """Tiles of an image that is larger than one; an image that cannot be read has none, and fails as a whole."""
        if not self.tiles.side:
            return []
        with suppress(DataError):
            found = self.tiles.windows(image_size(record.image))
            return found if len(found) > 1 else []
        return []

    @property
    def pairs(self) -> list[Pair]:
        return [pair for pairs in self.items.values() for pair in pairs]

    def _image_digest(self, record: Record) -> str:
        """The digest that the plan took of a record's image; DataError where the image could not be read."""
        found = self.plan.content[record.id].image
        return found if found.startswith("file:") else digest_record(record)

    def price(self, nodes: int = 1, cards: int = 1, images: int | None = None) -> str:
        """What the missing embeddings (or those of `images` images like these) will take, measured on a few of them.

        A line for this machine; with several `nodes` of `cards` processors such as its own, or `images`, one for these.
        """
        found = price(self.pairs, load, self.segmenter, self.store, digest=self._image_digest)
        line = (
            f"{found.todo} of {found.total} embeddings to make ({found.stored} stored): {found.gigabytes:.2f} GB and "
            f"about {duration(60 * found.minutes)} ({found.seconds_per_image:.2f} s and "
            f"{found.bytes_per_image / 1e6:.2f} MB each, measured on {found.sampled})"
        )
        if nodes * cards == 1 and images is None:
            return line
        how = self.cluster or ClusterSettings()
        return (
            f"{line}\n{fleet_price(found, images or found.todo, nodes, cards, how.images, self.segmenter.device.type)}"
        )

    def prepare(self) -> None:
        """Encode what the store lacks, pack the masks that are missing or have changed; each process does its share."""
        views: dict[str, list[Pair]] = {}
        for pair in self.pairs:
            views.setdefault(pair[0].id, []).append(pair)
        own = [pair for pairs in self.place.share(list(views.values())) for pair in pairs]
        needs = partial(_needed, frozenset(self.plan.blank))
        with stage("encoding") as shown:

            def progress(done: int, total: int, _: str) -> None:
                shown(done, total, "")

            more: dict[str, Any] = {"batch_size": BATCH, "needs": needs, "digest": self._image_digest}
            if self.cluster is None or self.remake is None:
                report = embed(own, self._load, self.segmenter, self.store, **more, progress=progress)
            else:
                report = embed_spread(own, load, self.remake, self.store, self.cluster, **more, progress=progress)
        self.report = done = EmbedReport.of_all(self.place.gather(report))
        if self.place.count > 1:
            self.store.refresh()
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
        self._pack()

    def _load(self, record: Record) -> Sample:
        """A sample, whose masks are kept packed: they need not be decoded a second time."""
        sample = load(record)
        self._seen[record.id] = Packed.of(sample.masks)
        return sample

    def _pack(self) -> None:
        """The main process packs masks; the others read them afterwards."""
        known = self.place.first(lambda: self.targets.sources())
        missing = [pair for pair in self.pairs if known.get(item_id(*pair)) != self._source(*pair)]
        with stage("packing masks") as progress:
            found = self.place.spread(self._masks_of, missing)
            for number, ((record, view), masks) in enumerate(zip(missing, found, strict=True), 1):
                if self.place.main and masks is not None:
                    self.targets.put(item_id(record, view), masks, self._source(record, view))
                progress(number, len(missing), record.id)
        self._seen.clear()
        self.place.wait()

    def _source(self, record: Record, view: View) -> str:
        """What packed masks follow from; the image, too, for a view of it may move with its size."""
        content = self.plan.content[record.id]
        return digest(content.masks, content.image if view.key else "", view.key)

    def _masks_of(self, pair: Pair) -> Packed | None:
        """Masks of a record in a view; None where they cannot be read: its embedding failed as well."""
        record, view = pair
        seen = self._seen.get(record.id)
        if seen is not None and not view.key:
            return seen
        try:
            masks = seen.masks() if seen is not None else load_masks(record)
        except DataError:
            return None
        if view.key:
            blank = np.zeros((*masks.shape[1:], 3), np.uint8)
            masks = apply(view, Sample(record, blank, masks)).masks
        return Packed.of(masks)

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

    def truth(self, record: Record) -> Truth:
        """The true objects of a record as they were packed; DataError repeats why it could not be encoded."""
        if (record.id, "") not in self.keys:
            self._raise_failure(record.id)
            return load(record)
        masks = self.targets.get(record.id)
        return Objects(record, masks, labels_of(record, len(masks)))

    def embed(self, truth: Truth, segmenter: Segmenter) -> Embedding:
        """The stored embedding of an image, or a live one where none was to be stored; DataError repeats a failure."""
        if segmenter.encoder_id == self.store.encoder_id:
            if (key := self.keys.get((truth.id, ""))) is not None:
                return self.store.get(key)
            self._raise_failure(truth.id)
        return live(truth, segmenter)

    def tile(self, truth: Truth, segmenter: Segmenter, window: Window) -> Embedding:
        """The embedding of a tile: stored where it holds an object, else made now."""
        key = self.keys.get((truth.id, IDENTITY.on(window).key))
        if key is not None and segmenter.encoder_id == self.store.encoder_id:
            return self.store.get(key)
        return live_tile(truth, segmenter, window)

    def measuring(self, settings: EvaluateSettings, stamp: Mapping[str, str]) -> Measuring:
        """How images are measured from what is stored here."""
        return Measuring(self.truth, self.embed, settings, stamp, self.tile)

    def _raise_failure(self, record: str) -> None:
        """DataError where a record could not be encoded, as it was said then."""
        for failure in self.report.failed if self.report else ():
            if failure.record == record:
                raise DataError(failure.error)

    def _split_items(self, split: str, empty: bool = False) -> list[Item]:
        """Items of a split that hold an object, or with `empty` the images that hold nothing."""
        counts = self.targets.items()
        pairs = [(record, view, self.keys.get((record.id, view.key))) for record, view in self.items[split]]
        return [
            Item(item_id(record, view), record.id, key, self._source(record, view))
            for record, view, key in pairs
            if key is not None and (record.id in self.plan.blank if empty else counts.get(item_id(record, view), 0) > 0)
        ]

    def _embeddings(self, items: Sequence[Item]) -> list[Embedding]:
        return self.store.get_many([item.key for item in items])

    def embedding_of(self, item: Item) -> Embedding:
        """The stored embedding of a training item's whole image."""
        return self.store.get(self.keys[(item.record, "")])

    def finder_data(self) -> tuple[TrainingData, list[Item]]:
        """What a finder learns from: items with and without objects; and the images of nothing for its alarms.

        Of those in the validation split most are kept apart from all learning, as a promise on alarms needs it: all
        where that split has no object, and then no validation is learned by either.
        """
        objects = self._split_items("val")
        held = sorted(self._split_items("val", empty=True), key=lambda item: stable_hash(f"alarm:{item.record}"))
        own = min(FINDER_BLANKS, len(held) // 3) if objects else 0
        train = self._split_items("train") + self._split_items("train", empty=True)
        data = TrainingData(train, objects + held[:own], self._embeddings, self._filled)
        return data, held[own:]

    def training_data(self) -> TrainingData:
        """Train and val items with readers for embeddings, masks and (whole-model tuning) pixels."""
        by_id = {item_id(record, view): (record, view) for record, view in self.pairs}

        def pixels(item: Item) -> tuple[torch.Tensor, Geometry]:
            record, view = by_id[item.id]
            sample = apply(view, load(record))
            return self.segmenter.pixels(sample.image), self.segmenter.geometry(sample.size)

        return TrainingData(
            self._split_items("train"), self._split_items("val"), self._embeddings, self._filled, pixels
        )

    def _filled(self, item: Item) -> BoolArray:
        masks = self.targets.get(item.id)
        return masks[masks.any((1, 2))]

    @cached_property
    def _train_masks(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Area of every training object (identity view) over its image, and over the squared shorter side."""
        shares, relative = [], []
        for item in self._split_items("train"):
            if item.id == item.record:
                for mask in self._filled(item):
                    shares.append(float(mask.mean()))
                    relative.append(relative_area(mask))
        return np.array(shares), np.array(relative)

    def areas(self) -> npt.NDArray[np.float64]:
        """Area of each training object as a fraction of its image, (N,)."""
        return self._train_masks[0]

    def relative_areas(self) -> npt.NDArray[np.float64]:
        """Area of each training object over the square of its image's shorter side, (N,)."""
        return self._train_masks[1]


def _needed(blank: frozenset[str], sample: Sample) -> bool:
    """Whether a sample is encoded: it has objects, or is labelled to hold nothing."""
    return len(sample.masks) > 0 or sample.id in blank


def item_id(record: Record, view: View) -> str:
    """Name of a record in a view, unique within a data set."""
    return f"{record.id}|{view.key}" if view.key else record.id


@dataclass
class Stored:
    """Embeddings from the stores in a folder, live where they are not there; a worker of a cluster opens its own."""

    folder: Path | str
    precision: Precision = "half"
    _stores: dict[str, EmbeddingStore] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[object, ...]:
        return Stored, (self.folder, self.precision)

    def __call__(self, truth: Truth, segmenter: Segmenter) -> Embedding:
        name = segmenter.encoder_id
        if name not in self._stores:
            self._stores[name] = EmbeddingStore(self.folder, name, self.precision)
        store = self._stores[name]
        key = store.key(digest_record(truth.record))
        return store.get(key) if key in store else live(truth, segmenter)


@contextmanager
def embeddings_of(folder: Path | str | None, precision: Precision = "half") -> Iterator[Embed]:
    """How to get an image's embedding: from a store that fills as it is asked, or live where there is no folder."""
    if folder is None:
        yield live
        return
    with ExitStack() as writers:
        stores: dict[str, tuple[EmbeddingStore, Writer]] = {}

        def embed(truth: Truth, segmenter: Segmenter) -> Embedding:
            if segmenter.encoder_id not in stores:
                own = EmbeddingStore(folder, segmenter.encoder_id, precision)
                stores[segmenter.encoder_id] = own, writers.enter_context(own.writer())
            store, writer = stores[segmenter.encoder_id]
            key = store.key(digest_record(truth.record))
            if key not in store:
                writer.put(key, live(truth, segmenter), truth.id)
            return store.get(key)

        yield embed
