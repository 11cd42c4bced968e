"""Encode what is missing: the loop that fills a store, and its price before it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

from specialsam.core.console import Progress
from specialsam.core.errors import DataError, StoreError, UsageError
from specialsam.core.geometry import ImageArray
from specialsam.core.types import Embedding, Record, Sample
from specialsam.data.content import digest_record
from specialsam.embeddings.index import INDEX_BYTES, MOST_ROWS
from specialsam.embeddings.reading import (
    Failure,
    Found,
    Loaded,
    Pair,
    Task,
    attempt,
    failure,
    look_up,
    read_ahead,
)
from specialsam.embeddings.shards import Entry, pack
from specialsam.embeddings.store import GIGABYTE, EmbeddingStore, Evicted, Writer


class Encoder(Protocol):
    """What the loop needs of a segmenter; `encoder_id` tells weights and preprocessing apart."""

    @property
    def encoder_id(self) -> str: ...

    def encode_batch(self, images: Sequence[ImageArray], /) -> list[Embedding]:
        """Embeddings of uint8 (H, W, 3) images, float32 (C, h, w) on the CPU, in order."""
        ...


@dataclass(frozen=True)
class EmbedReport:
    """What `embed` did: embeddings made and reused, images left out for want of objects, failures, speed and size.

    `keys` maps (record id, view key) to the content key of every embedding that is there now. `seconds` and
    `images_per_second` count the encoding of what was missing, `bytes` what it added to the store.
    """

    done: int
    reused: int
    without_objects: int
    failed: tuple[Failure, ...]
    seconds: float
    bytes: int
    keys: dict[tuple[str, str], str] = field(repr=False)
    evicted: tuple[Evicted, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def images_per_second(self) -> float:
        return self.done / self.seconds if self.seconds else 0.0

    def beside(self, found: Found) -> EmbedReport:
        """This report of what was missing together with what a look at the store had found."""
        lacking = {task.key for task in found.todo} - set(self.keys.values())
        keys = {name: key for name, key in found.keys.items() if key not in lacking}
        return replace(self, reused=found.reused + self.reused, failed=(*found.failed, *self.failed), keys=keys)

    @classmethod
    def of_all(cls, parts: Sequence[EmbedReport]) -> EmbedReport:
        """One report of the shares that several processes did at the same time."""
        return cls(
            done=sum(part.done for part in parts),
            reused=sum(part.reused for part in parts),
            without_objects=sum(part.without_objects for part in parts),
            failed=tuple(failure for part in parts for failure in part.failed),
            seconds=max(part.seconds for part in parts),
            bytes=sum(part.bytes for part in parts),
            keys={name: key for part in parts for name, key in part.keys.items()},
            evicted=tuple(gone for part in parts for gone in part.evicted),
            notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        )


@dataclass(frozen=True)
class Price:
    """What encoding would cost: counts, and time and space measured on `sampled` images."""

    total: int
    stored: int
    todo: int
    sampled: int
    seconds_per_image: float
    bytes_per_image: int
    failed: tuple[Failure, ...] = ()

    @property
    def gigabytes(self) -> float:
        """Space that the missing embeddings will take, in 10^9 bytes."""
        return self.todo * self.bytes_per_image / GIGABYTE

    @property
    def minutes(self) -> float:
        """Time that the missing embeddings will take on this machine."""
        return self.todo * self.seconds_per_image / 60


def with_objects(sample: Sample) -> bool:
    """Whether a sample has objects; those without are encoded only if the caller says so."""
    return len(sample.masks) > 0


def embed(
    pairs: Iterable[Pair],
    load: Callable[[Record], Sample],
    encoder: Encoder,
    store: EmbeddingStore,
    *,
    batch_size: int = 1,
    needs: Callable[[Sample], bool] = with_objects,
    digest: Callable[[Record], str] = digest_record,
    progress: Progress | None = None,
) -> EmbedReport:
    """Encode every (record, view) that the store lacks; an image that fails is listed and the others go on.

    `load` reads a record, `needs` decides on the sample in its view, `digest` names its pixels (`digest_file` of its
    file, or `digest_array`). One thread reads ahead: at most two batches and two images are in memory. Each embedding
    is safe once it is stored, so a killed run loses the batch in hand. Raises StoreError for another encoder's store
    and for a disk that cannot be written; what was finished stays.
    """
    _check(encoder, store, batch_size)
    found = look_up(pairs, store, digest, progress)
    return fill(found.todo, load, encoder, store, batch_size=batch_size, needs=needs, progress=progress).beside(found)


def fill(
    todo: Sequence[Task],
    load: Callable[[Record], Sample],
    encoder: Encoder,
    store: EmbeddingStore,
    *,
    batch_size: int = 1,
    needs: Callable[[Sample], bool] = with_objects,
    progress: Progress | None = None,
) -> EmbedReport:
    """`embed` for what is known to be missing; its report is of these tasks alone.

    `reused` are further pairs of the same pixels as one that was encoded. Where one came to nothing the next is tried.
    """
    failed, made = list[Failure](), dict[tuple[str, str], str]()
    started, seen, total, empty, added, shared = time.perf_counter(), 0, len(todo), 0, 0, 0
    first_evicted, tasks = len(store.evicted), list(todo)
    with store.writer() as writer:
        while tasks:
            again: list[Task] = []
            with closing(read_ahead(tasks, load, needs, batch_size)) as reader:
                while batch := list(islice(reader, batch_size)):
                    left_out = [task for task, image in batch if image is None]
                    seen, empty = seen + len(batch), empty + len(left_out)
                    again += [after for task in left_out for after in task.after()]
                    for task, result in _encode(encoder, batch):
                        entry = result if isinstance(result, Exception) else _put(writer, task, result)
                        if isinstance(entry, Exception):
                            failed.append(failure(task, entry))
                            again += task.after()
                            continue
                        made[task.record.id, task.view.key] = task.key
                        added, shared = added + entry.bytes, shared + len(task.rest)
                    if progress:
                        progress(seen, total, "encode")
            tasks, total = again, total + len(again)
    return EmbedReport(
        done=len(made),
        reused=shared,
        without_objects=empty,
        failed=tuple(failed),
        seconds=time.perf_counter() - started,
        bytes=added,
        keys=made,
        evicted=tuple(store.evicted[first_evicted:]),
        notes=tuple(store.notes),
    )


def _put(writer: Writer, task: Task, embedding: Embedding) -> Entry | DataError:
    """Where an embedding lies now; the error where it is none that can be stored."""
    try:
        return writer.put(task.key, embedding, task.record.id, task.view.key)
    except DataError as error:
        return error


def price(
    pairs: Iterable[Pair],
    load: Callable[[Record], Sample],
    encoder: Encoder,
    store: EmbeddingStore,
    *,
    batch_size: int = 1,
    sample: int = 3,
    digest: Callable[[Record], str] = digest_record,
    progress: Progress | None = None,
) -> Price:
    """What `embed` would cost, measured by encoding about `sample` of the missing images; stores nothing.

    Images that `embed` would leave out for want of objects are counted as to do: only loading them all would tell.
    """
    _check(encoder, store, batch_size)
    found = look_up(pairs, store, digest, progress)
    failed, sampled, size, seconds = list(found.failed), 0, 0, 0.0
    chosen = found.todo[:: max(1, len(found.todo) // max(1, sample))][: max(1, sample)]
    with closing(read_ahead(chosen, load, lambda _: True, batch_size)) as reader:
        begun = time.perf_counter()
        while batch := list(islice(reader, batch_size)):
            seconds += time.perf_counter() - begun
            if not sampled:
                _encode(encoder, batch)  # The first call of an encoder is slower than the others: not counted.
            begun = time.perf_counter()
            for task, result in _encode(encoder, batch):
                if isinstance(result, Exception):
                    failed.append(failure(task, result))
                else:
                    scale, values = pack(result.tensor, store.precision)
                    size = values.nbytes + (0 if scale is None else scale.nbytes)
                    sampled += 1
            seconds, begun = seconds + time.perf_counter() - begun, time.perf_counter()
            if progress:
                progress(sampled, len(chosen), "measure")
    per_image = seconds / sampled if sampled else 0.0
    return Price(found.total, found.reused, len(found.todo), sampled, per_image, size, tuple(failed))


def fleet_price(measured: Price, images: int, nodes: int, cards: int, in_shard: int, device: str) -> str:
    """One line: what `images` embeddings take on `nodes` machines of `cards` processors like the one measured on."""
    hours, shards = images * measured.seconds_per_image / 3600, -(-images // in_shard)
    unit = "GPU" if device != "cpu" else "CPU"
    return (
        f"{images:,} embeddings on {nodes} x {cards} {unit}s like this one: {hours:,.1f} {unit} hours, "
        f"{hours / nodes / cards:,.1f} h by the clock; {images * measured.bytes_per_image / 1e12:,.3f} TB in "
        f"{shards:,} shards, index {images * INDEX_BYTES / GIGABYTE:,.2f} GB in {-(-images // MOST_ROWS):,} "
        "partitions; reading and network not counted"
    )


def _check(encoder: Encoder, store: EmbeddingStore, batch_size: int) -> None:
    if encoder.encoder_id != store.encoder_id:
        raise StoreError(f"expected a store of encoder {encoder.encoder_id}, got one of {store.encoder_id}")
    if batch_size < 1:
        raise UsageError(f"expected a batch of at least 1 image, got {batch_size}")


def _encode(encoder: Encoder, batch: list[Loaded]) -> list[tuple[Task, Embedding | Exception]]:
    """Answers for all of a batch that are not left out; where the batch fails, its images are tried one by one."""
    out: list[tuple[Task, Embedding | Exception]] = [(t, image) for t, image in batch if isinstance(image, Exception)]
    ready = [(task, image) for task, image in batch if image is not None and not isinstance(image, Exception)]
    answers = attempt(encoder.encode_batch, [image for _, image in ready]) if ready else []
    if not isinstance(answers, Exception):
        return out + list(zip([task for task, _ in ready], answers, strict=True))
    if len(ready) == 1:
        return [*out, (ready[0][0], answers)]
    for task, image in ready:
        answer = attempt(encoder.encode_batch, [image])
        out.append((task, answer if isinstance(answer, Exception) else answer[0]))
    return out
