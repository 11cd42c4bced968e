"""What to encode and how its images come: keys looked up first, then one thread that reads ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from specialsam.core.console import Progress
from specialsam.core.errors import SpecialSamError
from specialsam.core.geometry import ImageArray
from specialsam.core.types import Record, Sample
from specialsam.data.views import View, apply
from specialsam.embeddings.store import EmbeddingStore

Pair = tuple[Record, View]
_Given = TypeVar("_Given")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Failure:
    """An image that could not be encoded, and why."""

    record: str
    view: str
    error: str


@dataclass(frozen=True)
class Task:
    """One image in one view that the store lacks; `rest` are further pairs of the same pixels, should it fail."""

    record: Record
    view: View
    key: str
    rest: tuple[Pair, ...] = ()

    def after(self) -> list[Task]:
        """What is left to try where this one came to nothing."""
        return [Task(*self.rest[0], self.key, self.rest[1:])] if self.rest else []


Loaded = tuple[Task, "ImageArray | Exception | None"]


@dataclass(frozen=True)
class Found:
    """What a look at the store found: `keys` of (record id, view key), and what is left to do."""

    total: int
    todo: list[Task]
    reused: int
    keys: dict[tuple[str, str], str]
    failed: list[Failure]


def look_up(
    pairs: Iterable[Pair], store: EmbeddingStore, digest: Callable[[Record], str], progress: Progress | None
) -> Found:
    """Keys of all pairs, and which are missing; a record's file is read once for all of its views."""
    listed = list(pairs)
    digests: dict[str, str | Exception] = {}
    found, wanted = Found(len(listed), [], 0, {}, []), dict[str, list[Pair]]()
    for done, (record, view) in enumerate(listed, 1):
        if record.id not in digests:
            digests[record.id] = attempt(digest, record)
        image = digests[record.id]
        if isinstance(image, Exception):
            found.failed.append(Failure(record.id, view.key, one_line(image)))
        else:
            key = store.key(image, view.key)
            found.keys[record.id, view.key] = key
            if key not in store:
                wanted.setdefault(key, []).append((record, view))
        if progress:
            progress(done, len(listed), "look up")
    store.use(list(found.keys.values()))
    todo = [Task(*pairs[0], key, tuple(pairs[1:])) for key, pairs in wanted.items()]
    reused = len(listed) - sum(map(len, wanted.values())) - len(found.failed)
    return replace(found, todo=todo, reused=reused)


def read_ahead(
    tasks: list[Task], load: Callable[[Record], Sample], needs: Callable[[Sample], bool], ahead: int
) -> Generator[Loaded, None, None]:
    """Images in their views, read by one thread, at most `ahead` waiting: an image, None if not needed, or an error."""
    waiting: queue.Queue[Loaded] = queue.Queue(ahead)
    stop = threading.Event()

    def read() -> None:
        last: tuple[str, Sample | Exception] | None = None
        for task in tasks:
            if stop.is_set():
                return
            if last is None or last[0] != task.record.id:
                last = task.record.id, attempt(load, task.record)
            sample = last[1]
            item = _in_view(sample, task.view, needs)
            while not stop.is_set():
                try:
                    waiting.put((task, item), timeout=0.1)
                    break
                except queue.Full:
                    continue

    thread = threading.Thread(target=read, name="specialsam-read-ahead", daemon=True)
    thread.start()
    try:
        for _ in tasks:
            yield waiting.get()
    finally:
        stop.set()
        thread.join()


def _in_view(sample: Sample | Exception, view: View, needs: Callable[[Sample], bool]) -> ImageArray | Exception | None:
    if isinstance(sample, Exception):
        return sample
    seen = attempt(lambda given: apply(view, given), sample)
    if isinstance(seen, Exception):
        return seen
    needed = attempt(needs, seen)
    if isinstance(needed, Exception):
        return needed
    return seen.image if needed else None


def attempt(function: Callable[[_Given], _Answer], given: _Given) -> _Answer | Exception:
    """The answer, or the error as a value: one image that fails must not end the run, and must be counted."""
    try:
        return function(given)
    except Exception as error:
        return error


def failure(task: Task, error: Exception) -> Failure:
    """The entry of a task that failed."""
    return Failure(task.record.id, task.view.key, one_line(error))


def one_line(error: Exception) -> str:
    """An error as one line; with its type where it is none of ours."""
    text = " ".join(str(error).split())
    return text if isinstance(error, SpecialSamError) and text else f"{type(error).__name__}: {text}"
