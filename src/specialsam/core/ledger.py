"""What a folder was made from and what is finished in it: the one place that decides whether a job may go on there.

A `Ledger` is one JSON file in the folder (run.json, study.json): the `identity` that the folder was begun with, and
facts that grow. While it is open the folder is locked against a second process, and what dead processes left half
written is gone. A `Journal` beside it keeps finished pieces of work, one line each, with what each was made from: a
piece whose image, mask, weights or settings have changed since is no longer there, and is done again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from specialsam.core.errors import DataError, SpecialSamError, UsageError
from specialsam.core.files import LEFTOVER, read_json, write_whole

LOCK = ".lock"
CHECKSUM = "checksum"
"""Of all other facts, in the file."""
NAMED = 3
"""Parts of an identity that a refusal names."""
JsonValue = None | bool | int | float | str | Sequence[Any] | Mapping[str, Any]
Facts = dict[str, Any]
"""What JSON holds under names."""


def digest(*parts: JsonValue) -> str:
    """32 hex digits that follow from the values alone: sha256 of their JSON with sorted names."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def plain(value: object) -> Any:
    """A value as it will read back from JSON."""
    return json.loads(json.dumps(value, default=str))


class Ledger:
    """The ledger file of `folder`, opened with `open_ledger`; a `mute` one (not of the main process) writes nothing.

    `facts` holds everything in the file, `identity` among it.
    """

    def __init__(self, folder: Path, file: str, facts: Facts, mute: bool = False):
        self.folder, self.path, self.facts, self.mute = folder, folder / file, facts, mute

    def save(self, **more: object) -> None:
        """Add facts and write the file whole; SpecialSamError where the folder has been removed meanwhile."""
        self.facts |= plain(more)
        if not self.mute:
            if not (self.folder / LOCK).exists():
                raise SpecialSamError(f"{self.folder} was removed while a job was at work in it; run it again")
            text = json.dumps(self.facts | {CHECKSUM: _checksum(self.facts)}, indent=1)
            write_whole(self.path, lambda path: path.write_text(text + "\n", encoding="utf-8"))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Keep the wall-clock seconds of a stage: interrupted ones add up; what is only read again counts as it was."""
        began = time.monotonic()
        seconds, completed = self.facts.setdefault("seconds", {}), self.facts.setdefault("completed", [])
        before, done = seconds.get(stage, 0.0), False
        try:
            yield
            done = True
        finally:
            spent = time.monotonic() - began
            seconds[stage] = round(max(before, spent) if stage in completed else before + spent, 2)
            if done and stage not in completed:
                completed.append(stage)
            self.save()


@contextmanager
def open_ledger(
    folder: Path,
    identity: Mapping[str, object],
    file: str = "run.json",
    what: str = "run",
    welcome: Iterable[str] = (),
    first: Callable[[Callable[[], Facts]], Facts] | None = None,
    main: bool = True,
) -> Iterator[Ledger]:
    """The ledger of `folder`, new or the one that was begun with the same `identity`; locked until the context ends.

    `what` names such a folder in messages; `welcome` are the files that may lie in a folder that holds no ledger yet.
    With several processes `first` gives all of them what the main one finds (`Place.first`); only the `main` one locks
    and writes. Raises UsageError for another identity, for a folder of other things and where another process is at
    work, DataError for a damaged file.
    """
    lock = Lock(folder)

    def begin() -> Facts:
        _refuse_others(folder, file, what, frozenset(welcome))  # before a lock is left in somebody's folder
        lock.acquire()
        try:
            remove_leftovers(folder)
            return _begun(folder, identity, file, what)
        except BaseException:
            lock.release()
            raise

    facts = first(begin) if first else begin()
    try:
        yield Ledger(folder, file, facts, mute=not main)
    finally:
        lock.release()


def _refuse_others(folder: Path, file: str, what: str, welcome: frozenset[str]) -> None:
    """UsageError where a folder without a ledger holds anything but what is welcome."""
    if folder.is_dir() and not (folder / file).exists():
        names = {path.name for path in folder.iterdir()} - welcome - {LOCK}
        others = sorted(name for name in names if not re.fullmatch(LEFTOVER, name))
        if others:
            raise UsageError(f"{folder} is not empty and holds no {what} ({others[0]}); choose another --out")


def _begun(folder: Path, identity: Mapping[str, object], file: str, what: str) -> Facts:
    """The facts of a folder: as they were written, or new ones."""
    if (folder / file).exists():
        facts = read_facts(folder, file, what)
        other = differences(facts["identity"], plain(identity))
        if other:
            raise UsageError(f"{folder} holds a {what} with another {_some(other)}; choose another --out")
        return facts
    return {"identity": plain(identity)}


def read_facts(folder: Path, file: str = "run.json", what: str = "run") -> Facts:
    """The ledger file of a folder, not opened for work; UsageError where there is none, DataError if damaged."""
    path = folder / file
    if not path.exists():
        raise UsageError(f"expected a {what} folder with {file}, found none in {folder}")
    facts = read_json(path, f"choose another --out, or begin the {what} anew")
    if not isinstance(facts, dict) or facts.pop(CHECKSUM, None) != _checksum(facts) or "identity" not in facts:
        raise DataError(f"expected a readable {path}, got a damaged one; choose another --out")
    return dict(facts)


def settle(path: Path, plan: Mapping[str, object], what: str, parts: Sequence[str]) -> Mapping[str, object]:
    """The plan of generated data that lies at `path`: written where there is none, else its `parts` must be the same.

    Raises UsageError in one line that names what differs, DataError for a damaged plan, and UsageError where files of
    `what` lie in the folder without one.
    """
    if not path.exists():
        if any((path.parent / name).exists() for name in ("images/train", "masks/train")):
            raise UsageError(f"{path.parent} holds images without {path.name}; choose another folder")
        write_whole(path, lambda beside: beside.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8"))
        return plan
    stored = read_json(path, f"it is the plan of {what}; choose another folder")
    if not isinstance(stored, dict) or not set(parts) <= set(stored):
        raise DataError(f"expected the plan of {what} in {path}, got a damaged one; choose another folder")
    fresh = plain(plan)
    other = [name for part in parts for name in differences(stored[part], fresh[part], part)]
    if other:
        raise UsageError(f"{path.parent} holds {what} with another {_some(other)}; choose another folder")
    return stored


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _checksum(facts: Facts) -> int:
    return zlib.crc32(json.dumps({name: facts[name] for name in facts if name != CHECKSUM}).encode())


def differences(one: JsonValue, other: JsonValue, name: str = "") -> list[str]:
    """Dotted names of what differs between two JSON values, in their order; a missing name is as good as a null."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = [*one, *(key for key in other if key not in one)]
        return [
            found
            for key in names
            for found in differences(one.get(key), other.get(key), f"{name}.{key}" if name else str(key))
        ]
    return [] if one == other else [name or "content"]


class Lock:
    """An exclusive lock on a folder; it ends with the process, however that ends."""

    def __init__(self, folder: Path):
        self.folder, self._lock = folder, FileLock(folder / LOCK, timeout=0)

    def acquire(self) -> None:
        """Take it, making the folder; UsageError names the process that has it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as error:
            with suppress(OSError):
                who = (self.folder / LOCK).read_text().strip()
            raise UsageError(
                f"another process ({f'pid {who}' if who else 'unknown'}) is at work in {self.folder}; "
                "wait for it, or choose another --out"
            ) from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise SpecialSamError(f"cannot write {self.folder} ({reason}); choose another folder") from error
        (self.folder / LOCK).write_text(str(os.getpid()))

    def release(self) -> None:
        """Give it back, if it is ours."""
        if not self._lock.is_locked:
            return
        with suppress(OSError):
            (self.folder / LOCK).unlink()  # first: filelock notices where somebody opened it meanwhile
        self._lock.release()

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def remove_leftovers(folder: Path) -> int:
    """Remove what dead processes left half written in `folder` and below (`core.files.write_whole`); how many."""
    count = 0
    for path in folder.rglob(".*"):
        found = re.fullmatch(LEFTOVER, path.name)
        if found and path.is_file() and not _alive(int(found["pid"])):
            with suppress(OSError):
                path.unlink()
                count += 1
    return count


def _alive(pid: int) -> bool:
    """Whether another process of this machine has that number; this one writes nothing while it asks."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


class Journal:
    """Finished pieces of work in one file, a line each: a key, a digest of what it was made from, and the answer.

    Each line has a checksum. A last line that a kill cut short is dropped on opening; a later line of a key counts
    over earlier ones. Only keys and places are in memory. DataError for a line that is damaged otherwise.
    """

    def __init__(self, path: Path):
        self.path = path
        self._places: dict[str, tuple[str, int]] = {}
        self._lines = 0
        if path.exists():
            self._open()

    def _open(self) -> None:
        with self.path.open("rb+") as lines:
            end = 0
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                key, made_from, _ = self._read(line, self._lines + 1)
                self._places[key] = made_from, end
                self._lines += 1
                end += len(line)
            if end < self.path.stat().st_size:
                lines.truncate(end)

    def _read(self, line: bytes, number: int) -> tuple[str, str, Any]:
        try:
            checksum, text = line.rstrip(b"\n").split(b" ", 1)
            if int(checksum, 16) != zlib.crc32(text):
                raise ValueError("checksum")
            key, made_from, answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"expected finished work in {self.path}, line {number} is damaged; delete the file to do it anew"
            ) from error
        return key, made_from, answer

    def has(self, key: str, made_from: str) -> bool:
        """Whether `key` is finished and was made from the same."""
        return self._places.get(key, ("", 0))[0] == made_from

    def finished(self, wanted: Mapping[str, str]) -> set[str]:
        """Those of the wanted keys that are finished and were made from the wanted."""
        return {key for key, made_from in wanted.items() if self.has(key, made_from)}

    def stale(self, wanted: Mapping[str, str]) -> set[str]:
        """Those of the wanted keys that are finished, but were made from something else."""
        return {key for key, made_from in wanted.items() if key in self._places and not self.has(key, made_from)}

    def put(self, key: str, made_from: str, answer: JsonValue) -> None:
        """Add one piece; it is on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line, place = _line(key, made_from, answer), None
        try:
            with self.path.open("ab") as lines:
                place = lines.tell()
                lines.write(line)
        except OSError as error:
            if place is not None:  # else nothing was written, and all that is there stays
                with suppress(OSError):
                    os.truncate(self.path, place)
            reason, full = error.strerror or str(error), error.errno in (errno.ENOSPC, errno.EDQUOT)
            remedy = "make room and go on" if full else "put that right and go on; what is finished is kept"
            raise SpecialSamError(f"cannot write {self.path} ({reason}); {remedy}") from error
        self._places[key] = made_from, place
        self._lines += 1

    def answers(self, wanted: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        """(key, answer) of the wanted keys that are finished and made from the wanted, in the order of `wanted`."""
        if not self.path.exists():
            return
        with self.path.open("rb") as lines:
            for key, made_from in wanted.items():
                if self.has(key, made_from):
                    lines.seek(self._places[key][1])
                    yield key, self._read(lines.readline(), 0)[2]

    def forget(self, wanted: Mapping[str, str]) -> None:
        """Keep nothing but the wanted pieces; the file is written anew where it holds others."""
        kept = {key: made_from for key, made_from in wanted.items() if self.has(key, made_from)}
        if len(kept) == self._lines:
            return

        def write(path: Path) -> None:
            with path.open("wb") as lines:
                for key, answer in self.answers(kept):
                    lines.write(_line(key, kept[key], answer))

        write_whole(self.path, write)
        self._places, self._lines = {}, 0
        self._open()


def _line(key: str, made_from: str, answer: JsonValue) -> bytes:
    text = json.dumps([key, made_from, answer]).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)
