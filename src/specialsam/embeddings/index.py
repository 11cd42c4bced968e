"""The index of a store: sorted partitions, mapped from disk; made from the shards' headers and never trusted over them.

A partition is one Arrow file (`pyarrow.ipc.open_file` reads it): a row an embedding, sorted by `head`, eight bytes of a
hash of the key, so that a key is found by bisection in that mapped column and nothing is held in memory. Its metadata
lists the shards that it speaks for. Of two partitions the newer one decides what is in a shard, so one that
lists a shard without rows says that the shard is gone. Partitions grow by merging neighbours of like size, as long as
they stay below `MOST_ROWS`: an embedding's row is written some twenty times, however large the store.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specialsam.core.files import write_whole
from specialsam.core.folders import Folder
from specialsam.embeddings.shards import Entry

SUFFIX = ".arrow"
MOST_ROWS = 1 << 20
"""Rows beyond which partitions are not merged any more: bounds the memory of a merge."""
INDEX_BYTES = 209
"""Of one row, with short names (benchmarks/store_scale.py)."""
GROWTH = 8
"""A partition that is at most so many times as heavy as the next one takes it in: few are left to look into."""
REACH = 2048
"""Rows around its place in which a head is looked for first: four times their deviation in the largest partition."""
KINDS = {"str": "string", "int": "int64", "float": "float64", "Precision": "string", "bool": "int8"}
"""Arrow types of the fields of an entry, but for the shard, which is a number into the metadata's list.

No truth values: arrow packs them to bits, which cannot be read where they lie."""


@dataclass(frozen=True)
class Shard:
    """What the index knows of a shard: its embeddings, its least size in bytes, when its newest one was made."""

    rows: int
    end: int
    newest: float

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Shard:
        newest = max((entry.created for entry in entries), default=0.0)
        return cls(len(entries), max((entry.end for entry in entries), default=0), newest)


class Partition:
    """One file of the index, mapped. `alive` marks its shards that count, in the order of `shards`."""

    def __init__(self, path: Path) -> None:
        """Raises OSError or ValueError for a file that is none."""
        import pyarrow as arrow

        with arrow.memory_map(str(path)) as file:
            self.batch = arrow.ipc.open_file(file).get_batch(0)
        self.name = path.name
        if self.batch.schema.remove_metadata() != schema():
            raise ValueError("an index of another version")
        listed = json.loads(self.batch.schema.metadata[b"shards"])
        self.shards = {name: Shard(*facts) for name, facts in listed.items()}
        self.names = list(self.shards)
        self.rows: npt.NDArray[np.int64] = np.array([shard.rows for shard in self.shards.values()], np.int64)
        self.alive: npt.NDArray[np.bool_] = np.ones(len(self.names), np.bool_)

        self.count = int(self.batch.num_rows)
        self.heads = self._mapped("head", np.uint64).data
        """`head_of` each key, ascending (N,)."""

    @cached_property
    def numbers(self) -> npt.NDArray[np.int64]:
        """The shard of each row (N,), as a place in `names`."""
        return self._mapped("shard", np.int64)

    def _mapped(self, column: str, kind: type[np.generic]) -> npt.NDArray[Any]:
        """A column of numbers (N,) as it lies in the file; pyarrow's own way would first import pandas."""
        return np.frombuffer(self.batch.column(column).buffers()[1] or b"", kind, self.count)

    @cached_property
    def _columns(self) -> dict[str, tuple[Any, bool]]:
        """The column of each field of an entry, and whether it holds texts; numbers are read from mapped memory."""
        out: dict[str, tuple[Any, bool]] = {}
        for part in fields(Entry):
            kind = "int64" if part.name == "shard" else KINDS[str(part.type)]
            text = kind == "string"
            mapped = self.batch.column(part.name) if text else self._mapped(part.name, np.dtype(kind).type).data
            out[part.name] = mapped, text
        return out

    def entry(self, row: int) -> Entry:
        found = {name: column[row].as_py() if text else column[row] for name, (column, text) in self._columns.items()}
        return Entry(**found | {"shard": self.names[found["shard"]], "stretched": bool(found["stretched"])})

    def find(self, key: str, head: int) -> list[Entry]:
        """Entries of `key` in shards that count; `head` is `head_of(key)`."""
        row, out = self._first(head), []
        while row < self.count and self.heads[row] == head:
            if self.alive[self.numbers[row]] and (entry := self.entry(row)).key == key:
                out.append(entry)
            row += 1
        return out

    def _first(self, head: int) -> int:
        """The first row whose head is not below `head`.

        Heads are spread evenly: looking first where it should be touches a few pages of the file instead of twenty.
        """
        heads, count = self.heads, self.count
        place = head * count >> 64
        low, high = max(0, place - REACH), min(count, place + REACH)
        if low and heads[low] >= head:
            low = 0
        if high < count and heads[high] < head:
            high = count
        return bisect_left(heads, head, low, high)

    def of_shard(self, shard: str) -> list[Entry]:
        """All entries of one shard, in the order of its bytes."""
        rows = np.flatnonzero(self.numbers == self.names.index(shard))
        return sorted((self.entry(int(row)) for row in rows), key=lambda entry: entry.offset)

    def rows_alive(self) -> npt.NDArray[np.bool_]:
        """Which rows (N,) lie in shards that count."""
        return np.asarray(self.alive[self.numbers], np.bool_)

    @property
    def weight(self) -> int:
        """Rows and shards that count."""
        return int((self.rows + 1)[self.alive].sum())


def head_of(key: str) -> int:
    """Eight bytes of a hash of a key, as a number."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())


def schema() -> Any:
    """The columns of a partition."""
    import pyarrow as arrow

    kinds = {part.name: arrow.type_for_alias(KINDS[str(part.type)]) for part in fields(Entry)}
    return arrow.schema([("head", arrow.uint64()), *(kinds | {"shard": arrow.int64()}).items()])


def open_index(folder: Folder, known: Iterable[Partition] = ()) -> tuple[list[Partition], list[str]]:
    """The partitions of a folder, the oldest first, and names of damaged ones; those `known` are not opened again."""
    mapped = {one.name: one for one in known}
    for _ in range(3):  # another process may merge some while they are opened
        out, damaged, gone = [], [], False
        for name in sorted(folder.sizes(SUFFIX)):
            try:
                out.append(mapped.get(name) or Partition(folder.fetch(name)))
            except FileNotFoundError:
                gone = True
            except (OSError, ValueError, KeyError, TypeError):
                damaged.append(name)
        if not gone:
            break
    return out, damaged


def write_partition(folder: Folder, shards: Mapping[str, Sequence[Entry]]) -> None:
    """Write a partition that speaks for `shards`; SpecialSamError where the folder cannot be written."""
    import pyarrow as arrow

    rows = sorted((entry for entries in shards.values() for entry in entries), key=lambda entry: head_of(entry.key))
    number = {name: place for place, name in enumerate(shards)}
    columns: dict[str, list[Any]] = {part.name: [getattr(row, part.name) for row in rows] for part in fields(Entry)}
    columns |= {"head": [head_of(row.key) for row in rows], "shard": [number[row.shard] for row in rows]}
    columns["stretched"] = [int(row.stretched) for row in rows]
    batch = arrow.RecordBatch.from_pydict(columns, schema=schema())
    write_batch(folder, f"{time.time_ns():016x}", batch, {name: Shard.of(entries) for name, entries in shards.items()})


def merge(folder: Folder, partitions: Sequence[Partition], standing: Collection[str]) -> bool:
    """Make one of the two newest neighbours that are of like size; False where there are none.

    What does not count any more is left out; that a shard is gone stays said while an older partition lists it, or its
    file is `standing`. A reader that has the old files mapped goes on with them.
    """
    import pyarrow as arrow

    for place in reversed(range(len(partitions) - 1)):
        one, two = partitions[place : place + 2]
        if one.weight > GROWTH * two.weight or one.weight + two.weight > MOST_ROWS:
            continue
        older = {name for part in partitions[:place] for name in part.names}
        shards = {
            name: shard
            for part in (one, two)
            for name, shard, alive in zip(part.names, part.shards.values(), part.alive, strict=True)
            if alive and (shard.rows or name in older or name in standing)
        }
        number = {name: index for index, name in enumerate(shards)}
        pieces = []
        for part in (one, two):
            kept = part.batch.filter(arrow.array(part.rows_alive()))
            places = np.array([number.get(name, -1) for name in part.names] or [0], np.int64)
            where = kept.schema.get_field_index("shard")
            column = arrow.array(places[kept.column("shard").to_numpy()])
            pieces.append(kept.set_column(where, "shard", column).replace_schema_metadata(None))
        table = arrow.Table.from_batches(pieces, schema()).sort_by("head").combine_chunks()
        batches = table.to_batches() or [arrow.RecordBatch.from_pylist([], schema=schema())]
        write_batch(folder, two.name.split("-")[1], batches[0], shards)
        for part in (one, two):
            folder.remove(part.name)
        return True
    return False


def write_batch(folder: Folder, stamp: str, batch: Any, shards: Mapping[str, Shard]) -> None:
    """Write rows, sorted by head, as the partition of `stamp`; its shards in the order of the rows' numbers."""
    import pyarrow as arrow

    listed = json.dumps({name: [shard.rows, shard.end, shard.newest] for name, shard in shards.items()})
    batch = batch.replace_schema_metadata({b"shards": listed.encode()})

    def write(path: Path) -> None:
        with arrow.ipc.new_file(str(path), batch.schema) as file:
            file.write_batch(batch)

    name = f"index-{stamp}-{uuid.uuid4().hex[:8]}{SUFFIX}"
    write_whole(folder.path / name, write)
    folder.publish(folder.path / name, name)
