"""What a specialist must not forget: general images outside its domain, encoded once, asked again after tuning.

Tuning on a narrow domain costs a model some of what it could do elsewhere (McCloskey and Cohen 1989, "Catastrophic
interference"). The retention set shows how much: photographs that the user names, or generated scenes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from specialsam import synth
from specialsam.core.errors import DataError, SpecialSamError, StoreError, UsageError
from specialsam.core.geometry import BoolArray, Geometry, ImageArray
from specialsam.core.place import Spread, alone
from specialsam.core.types import Embedding, Record, Sample
from specialsam.data import open_dataset
from specialsam.data.content import digest_array
from specialsam.data.loading import load
from specialsam.data.splits import stable_hash
from specialsam.embeddings import EmbeddingStore, Writer
from specialsam.metrics.overlaps import overlap
from specialsam.models.segmenter import Segmenter
from specialsam.prompts import Group, draw, generator
from specialsam.synth.kept import Arrays, code, kept
from specialsam.synth.scenes import SMALLEST, scene
from specialsam.training.targets import Packed

GENERATED = "generated"
"""The source that stands for generated scenes."""
NONE = "none"
"""The source that stands for no general images."""
RETENTION_SEED = 1_000_000_000_000_000
"""First scene of the retention set: above every scene that nano's pre-training or its validation draws."""
REPLAYED = 500_000
"""First scene that is replayed, counted from the first that is measured: none is both."""
Part = Literal["all", "measured", "replayed"]
"""Which general images: all, or one of two parts without a common image."""
SCENE_SIDE = 512
"""Side of generated scenes in pixels, for models that see so many; smaller ones get scenes of their own side."""
OBJECTS = 4
"""Most objects of an image that count, drawn by its name: label maps may hold hundreds."""
LONGEST = 1024
"""Images longer than this, in pixels, are scaled down: no SAM sees more, and the set stays in memory."""
STRATEGIES = ("interior", "box")
"""One click, and the box."""
ALLOWED_LOSS = 0.05
"""IoU that a specialist may lose on general images before it counts as forgetting: 5 points."""

Read = Callable[[], Sample]
IouArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RetentionItem:
    """One general image: masks bool (P, H, W), its prompts of each strategy, and how to get its embedding or pixels."""

    name: str
    masks: BoolArray
    prompts: tuple[tuple[Group, ...], ...]
    embedding: Callable[[], Embedding]
    image: Callable[[], ImageArray]


@dataclass(frozen=True)
class RetentionSet:
    """General images that `encoder_id` has encoded; `left_out` says of every other image why it is not among them."""

    source: str
    encoder_id: str
    items: tuple[RetentionItem, ...]
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)


def retention_set(
    segmenter: Segmenter,
    source: str | Path = GENERATED,
    count: int = 40,
    seed: int = 0,
    store: EmbeddingStore | None = None,
    objects: int = OBJECTS,
    part: Part = "all",
    progress: Callable[[int, int, str], None] | None = None,
    machine: EmbeddingStore | None = None,
) -> RetentionSet:
    """`count` general images, encoded by `segmenter`: "generated" scenes, or those of a labelled data set `source`.

    `source` is anything that `open_dataset` takes; its images are taken in the order of a hash of `seed` and name. Of
    each image at most `objects` masks count, none below 0.1 % of the image. Embeddings stay in memory (4 MiB an image
    for a SAM), or in `store`, which must belong to the same encoder, as must the store `machine`: what it has is not
    encoded again, and what it lacks is put there, too, for whoever asks next. Masks of generated scenes are kept on the
    machine anyway, so that no scene is drawn twice. Raises DataError where no image can be used.
    """
    if count < 1 or objects < 1:
        raise UsageError(f"expected at least one retention image and one object of each, got {count} and {objects}")
    for other in (store, machine):
        if other is not None and other.encoder_id != segmenter.encoder_id:
            raise UsageError(f"expected a store of encoder {segmenter.encoder_id}, got one of {other.encoder_id}")
    items: list[RetentionItem] = []
    side = min(SCENE_SIDE, segmenter.side)
    candidates, left_out = _candidates(str(source), count, seed, part, side)
    with _writer(store) as writer, _writer(machine) as lasting:
        for name, read in candidates:
            shown = cache(partial(_shrunk, read))
            try:
                masks, digest = _of_scene(name, side, shown) if str(source) == GENERATED else _of_sample(shown())
                masks = _chosen(name, masks, objects, seed)
            except SpecialSamError as error:
                left_out.append(str(error))
                continue
            prompts = tuple(
                tuple(draw(strategy, masks, generator(seed, "retention", name, strategy))) for strategy in STRATEGIES
            )
            make = partial(_made, name, shown, digest, segmenter, lasting)
            embedding = _stored(name, digest, make, writer) if writer else cache(make)
            if lasting and not writer:
                embedding()
            items.append(RetentionItem(name, masks, prompts, embedding, partial(_image, read)))
            if progress:
                progress(len(items), count, name)
            if len(items) == count:
                break
    if not items:
        why = f"; the first of {len(left_out)} left out: {left_out[0]}" if left_out else ""
        raise DataError(f"{source}: expected images with masks to see what is forgotten, found none{why}")
    return RetentionSet(str(source), segmenter.encoder_id, tuple(items), tuple(left_out))


def retention_iou(
    segmenter: Segmenter, general: RetentionSet, multimask: bool = False, spread: Spread = alone
) -> IouArray:
    """IoU of each general image, float64 (n,) in 0..1: mean over its objects by one click and by box.

    The single mask answers, or with `multimask` the one of three with the best own score. Stored embeddings serve
    every model with the encoder that made them; one whose encoder was tuned too encodes the images anew.
    """
    stored = segmenter.encoder_id == general.encoder_id

    def measured(item: RetentionItem) -> float:
        return _iou(segmenter, item.embedding() if stored else segmenter.encode(item.image()), item, multimask)

    return np.array(list(spread(measured, general.items)))


def _candidates(source: str, count: int, seed: int, part: Part, side: int) -> tuple[list[tuple[str, Read]], list[str]]:
    """Names and readers of the images to try, in order, and what the data set says of files that it cannot use."""
    if source == GENERATED:
        first = RETENTION_SEED + seed * 1_000_000 + (REPLAYED if part == "replayed" else 0)
        return [(f"scene-{number}", partial(_scene, number, side)) for number in range(first, first + count)], []
    dataset = open_dataset(source)
    own = [record for record in dataset.records if part == "all" or _half(record.id, seed) == part]
    records = sorted(own, key=lambda record: (stable_hash(f"{seed}:{record.id}"), record.id))
    return [(record.id, partial(load, record)) for record in records], [found.message for found in dataset.problems]


def _half(record: str, seed: int) -> Part:
    return "replayed" if stable_hash(f"replayed:{seed}:{record}") < 0.5 else "measured"


def _scene(number: int, side: int) -> Sample:
    made = scene(number, side)
    return Sample(Record(f"scene-{number}", Path(f"scene-{number}")), made.image, made.masks)


def _image(read: Read) -> ImageArray:
    return _shrunk(read).image


def _of_sample(sample: Sample) -> tuple[BoolArray, str]:
    """All masks of an image, bool (P, H, W), and the digest of its pixels."""
    return sample.masks, digest_array(sample.image)


def _of_scene(name: str, side: int, read: Read) -> tuple[BoolArray, str]:
    """As `_of_sample`, of a generated scene, which this machine draws once: about 10 KB are kept."""

    def drawn() -> Arrays:
        masks, digest = _of_sample(read())
        packed = Packed.of(masks)
        return {**vars(packed), "bits": np.frombuffer(packed.bits, np.uint8), "digest": digest}

    found = kept("scenes", f"{name}-{side}", _drawn_by(), drawn)
    count, height, width = found["shape"].tolist()
    packed = Packed((count, height, width), int(found["filled"]), found["bits"].tobytes())
    return packed.masks(), str(found["digest"])


@cache
def _drawn_by() -> str:
    return code(*sorted(Path(synth.__path__[0]).rglob("*.py")))


def _shrunk(read: Read) -> Sample:
    """The sample with a longest side of at most LONGEST pixels."""
    sample = read()
    if max(sample.size) <= LONGEST:
        return sample
    frame = Geometry(*sample.size, LONGEST)
    height, width = frame.resized
    masks = np.zeros((len(sample.masks), height, width), np.bool_)
    for index, mask in enumerate(sample.masks):
        masks[index] = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT) > 0
    return Sample(sample.record, frame.image_to_model(sample.image), masks, sample.labels)


def _chosen(name: str, masks: BoolArray, objects: int, seed: int) -> BoolArray:
    """At most `objects` of the masks (P, H, W) that are large enough, drawn by the image's name."""
    large = np.flatnonzero(masks.mean((1, 2)) >= SMALLEST) if len(masks) else np.zeros(0, np.int64)
    if not len(large):
        raise DataError(f"{name}: expected an object of at least {SMALLEST:.1%} of the image, found none")
    order = generator(seed, "retention objects", name).permutation(len(large))[:objects]
    return np.asarray(masks[large[np.sort(order)]], np.bool_)


def _writer(store: EmbeddingStore | None) -> AbstractContextManager[Writer | None]:
    return nullcontext() if store is None else store.writer()


def _made(name: str, read: Read, digest: str, segmenter: Segmenter, lasting: Writer | None) -> Embedding:
    """An image's embedding: what is in a lasting store, or made now and put there."""
    if lasting is None:
        return segmenter.encode(read().image)
    store = lasting.store
    key = store.key(digest)
    if key in store:
        with suppress(StoreError):  # another job has just made room
            return store.get(key)
    made = segmenter.encode(read().image)
    lasting.put(key, made, name)
    return made


def _stored(name: str, digest: str, make: Callable[[], Embedding], writer: Writer) -> Callable[[], Embedding]:
    """A reader of an image's embedding in a store, which gets it now where it lacks it."""
    store = writer.store
    key = store.key(digest)
    if key not in store:
        writer.put(key, make(), name)
    return lambda: store.get(key)


def _iou(segmenter: Segmenter, embedding: Embedding, item: RetentionItem, multimask: bool) -> float:
    """Mean over strategies of the mean over objects."""
    means = []
    for groups in item.prompts:
        found = []
        for indices, prompts in groups:
            answer = segmenter.decode(embedding, prompts, multimask).best().masks()[:, 0]
            found += [overlap(mask, truth)["iou"] for mask, truth in zip(answer, item.masks[indices], strict=True)]
        means.append(float(np.mean(found)))
    return float(np.mean(means))
