"""Events as lines of JSON in a file, each once: a line that a kill left half written is taken back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from specialsam.apps.line.couriers import SinkDown
from specialsam.apps.line.outbox import AT_ONCE, Waiting

TAIL = 1 << 20
"""Bytes at the end of the file in which an event that was written before a kill is looked for."""


class JsonLines:
    """A file that grows by a line an event."""

    def __init__(self, path: Path, name: str = "jsonl") -> None:
        self.path, self.name = path, name
        self._last: dict[str, None] | None = None

    def send(self, waiting: Sequence[Waiting]) -> Iterable[int]:
        """Append what the file does not hold yet, down to the disk; SinkDown where it cannot be written."""
        try:
            if self._last is None:
                self._last = self._tail()
            new = [one for one in waiting if one.event.id not in self._last]
            with self.path.open("ab") as file:
                size = file.tell()
                try:
                    file.write(b"".join(json.dumps(one.event.as_json()).encode() + b"\n" for one in new))
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(self.path, size)
                    raise
        except OSError as error:
            raise SinkDown(f"cannot write {self.path}: {error.strerror or error}") from error
        self._last |= dict.fromkeys(one.event.id for one in new)
        for old in list(self._last)[: max(0, len(self._last) - 10 * AT_ONCE)]:
            del self._last[old]
        return [one.seq for one in waiting]

    def close(self) -> None:
        """Nothing is open between two calls."""

    def _tail(self) -> dict[str, None]:
        """Ids of the last events; a last line without an end is cut off."""
        if not self.path.exists():
            return {}
        with self.path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            text = file.read()
            whole = text.rfind(b"\n") + 1
            if whole < len(text):
                file.truncate(size - len(text) + whole)
        found: dict[str, None] = {}
        for line in text[:whole].splitlines()[0 if size <= TAIL else 1 :]:
            try:
                found[str(json.loads(line)["id"])] = None
            except (ValueError, KeyError, TypeError):
                continue
        return found
