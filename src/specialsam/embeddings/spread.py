"""Encode what is missing on a cluster: workers write shards of their own, the store takes them in by content key.

```
STORE/incoming/ENCODER/NAME/SHARD.safetensors    what a worker has finished of one batch, before the store has it
```

A worker encodes a batch into a store on its own disk, where locks and renames can be relied on, and then puts the
finished shards whole into a folder that nobody else writes. Only the driver moves them on (`EmbeddingStore.adopt`).
Whoever is killed, what is finished is found there by the next call, and what was done twice is taken in once.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from specialsam.core.cluster import ClusterSettings, connected, spread
from specialsam.core.console import Progress
from specialsam.core.folders import Folder, folder
from specialsam.core.types import Record, Sample
from specialsam.data.content import digest_record
from specialsam.embeddings.catalogue import SHARD
from specialsam.embeddings.encoding import EmbedReport, Encoder, fill, with_objects
from specialsam.embeddings.reading import Pair, Task, look_up
from specialsam.embeddings.shards import Precision
from specialsam.embeddings.store import EmbeddingStore

INCOMING = "incoming"
OWN = "specialsam-worker-"
"""Begins the name of the folder that a worker writes on its own disk; its process follows."""
INDEX_EVERY = 32
"""Answers after which the index is written; what it lacks meanwhile stands in the shards' headers."""


@dataclass(frozen=True)
class Encoding:
    """What a worker needs, and how it gets an encoder: everything here is pickled, the encoder is made there."""

    encoder: Callable[[], Encoder]
    load: Callable[[Record], Sample]
    needs: Callable[[Sample], bool]
    store: str
    precision: Precision
    batch_size: int

    def worker(self) -> Callable[[Sequence[Task]], tuple[str, EmbedReport]]:
        """What encodes one batch in a worker; leftovers of workers that were killed on this machine go first."""
        _tidy(Path(tempfile.gettempdir()))
        return partial(self._encode, self.encoder())

    def _encode(self, encoder: Encoder, tasks: Sequence[Task]) -> tuple[str, EmbedReport]:
        """The name of the folder below `incoming` that holds the batch, and what was done."""
        name = uuid.uuid4().hex
        with tempfile.TemporaryDirectory(prefix=f"{OWN}{os.getpid()}-") as own:
            store = EmbeddingStore(Path(own), encoder.encoder_id, self.precision)
            report = fill(tasks, self.load, encoder, store, batch_size=self.batch_size, needs=self.needs)
            target = folder(self.store).below(INCOMING, encoder.encoder_id, name)
            for file in sorted(store.files.sizes(SHARD)):
                target.publish(store.folder / file, file)
        return name, report


def _tidy(where: Path) -> None:
    """Remove what workers of this machine that live no more had begun."""
    for path in where.glob(f"{OWN}*"):
        pid = path.name.removeprefix(OWN).split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists() and Path("/proc/self").exists():
            shutil.rmtree(path, ignore_errors=True)


def embed_spread(
    pairs: Iterable[Pair],
    load: Callable[[Record], Sample],
    encoder: Callable[[], Encoder],
    store: EmbeddingStore,
    how: ClusterSettings,
    *,
    batch_size: int = 1,
    needs: Callable[[Sample], bool] = with_objects,
    digest: Callable[[Record], str] = digest_record,
    progress: Progress | None = None,
) -> EmbedReport:
    """`embed` by the workers of a cluster, each with an encoder of its own that `encoder` makes there.

    Views of one image stay together. `load`, `needs` and `encoder` must be such as can be pickled. A killed worker
    loses its batch, which another one does; a killed driver is started again and goes on. Raises what `embed` raises,
    and UsageError where there is no cluster.
    """
    sweep(store)
    found = look_up(pairs, store, digest, progress)
    work = Encoding(encoder, load, needs, str(store.root), store.precision, batch_size)
    reports: list[EmbedReport] = []
    first_evicted, seen, began = len(store.evicted), 0, time.perf_counter()
    if found.todo:
        with connected(how) as workers:
            batches = batched(found.todo, how.images, workers)
            for number, (name, report) in spread(work.worker, batches, how, workers):
                incoming = store.root.below(INCOMING, store.encoder_id, name)
                store.adopt(incoming, index=len(reports) % INDEX_EVERY == INDEX_EVERY - 1)
                _clear(incoming)
                reports.append(report)
                seen += len(batches[number])
                if progress:
                    progress(seen, len(found.todo), "encode")
        sweep(store)
    whole = EmbedReport.of_all(reports or [EmbedReport(0, 0, 0, (), 0.0, 0, {})])
    evicted = tuple(store.evicted[first_evicted:])
    seconds = time.perf_counter() - began if found.todo else 0.0
    return replace(whole, seconds=seconds, evicted=evicted, notes=tuple(store.notes)).beside(found)


def sweep(store: EmbeddingStore) -> int:
    """Take in what killed workers or drivers of this encoder have left; how many embeddings were new.

    What is not whole stays: another driver's worker may be writing it.
    """
    incoming = store.root.below(INCOMING, store.encoder_id)
    new = 0
    for name in incoming.folders():
        new += store.adopt(incoming.below(name), index=False)
        _clear(incoming.below(name))
    store.index()
    return new


def _clear(incoming: Folder) -> None:
    """Remove a batch's folder from which everything was taken."""
    if not incoming.sizes(SHARD):
        incoming.clear()


def batched(tasks: Sequence[Task], images: int, workers: int) -> list[list[Task]]:
    """Tasks in batches of about `images` images, fewer where some of the workers would else have nothing to do."""
    size = max(1, min(images, -(-len({task.record.id for task in tasks}) // (2 * workers))))
    return list(_groups(tasks, size))


def _groups(tasks: Sequence[Task], size: int) -> Iterator[list[Task]]:
    batch: list[Task] = []
    seen: set[str] = set()
    for task in tasks:
        if task.record.id not in seen and len(seen) == size:
            yield batch
            batch, seen = [], set()
        batch.append(task)
        seen.add(task.record.id)
    if batch:
        yield batch
