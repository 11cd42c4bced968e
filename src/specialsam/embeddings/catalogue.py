"""What a store folder holds: its shards, the best entry of each key, and what is lost or damaged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from specialsam.core.errors import SpecialSamError
from specialsam.core.folders import Folder
from specialsam.embeddings.index import Partition, Shard, head_of, merge, open_index, write_partition
from specialsam.embeddings.parts import recover
from specialsam.embeddings.shards import PRECISIONS, Entry, ShardDamage, check_size, read_shard, write_error

EXACTNESS = {precision: rank for rank, precision in enumerate(PRECISIONS)}
"""Rank of each precision, the most exact last."""
SHARD = ".safetensors"
REMEMBERED = 1 << 16
"""Entries that were asked for and are kept in memory, so that an epoch after the first finds them at once."""


@dataclass(frozen=True)
class Damage:
    """A stored embedding that cannot be used; `record` and `key` are "" where a whole shard says nothing of itself."""

    record: str
    view: str
    key: str
    shard: str
    reason: str


@dataclass
class Catalogue:
    """Facts of one encoder's folder. `own` are shards that no partition of the index lists yet, with their entries.

    A shard whose own entries are empty is gone, whatever older partitions say. `shards` are those that can be used.
    """

    files: Folder
    shards: dict[str, Shard] = field(default_factory=dict)
    own: dict[str, list[Entry]] = field(default_factory=dict)
    partitions: list[Partition] = field(default_factory=list)
    lost: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _own_best: dict[str, Entry] = field(default_factory=dict)
    _asked: dict[str, Entry] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.files.path

    def path(self, shard: str) -> Path:
        return self.folder / f"{shard}{SHARD}"

    def refresh(self, writing: Collection[str]) -> None:
        """Finish orphaned parts, take in shards of other writers, notice lost ones; `writing` are this run's parts."""
        writable = self.files.writable
        if writable:
            for orphan in sorted(self.folder.glob("*.part")):
                try:
                    recover(orphan, self.files)
                except OSError as error:
                    self.notes.append(f"{orphan.name} is left as it is: {write_error(self.folder, error)}")
        self.partitions, _ = open_index(self.files, self.partitions)
        sizes = {name.removesuffix(SHARD): size for name, size in self.files.sizes(SHARD).items()}
        owner = {name: part for part in self.partitions for name in part.names}
        known = {name: entries for name, entries in self.own.items() if name in writing}
        fresh: set[str] = set()
        self.shards, self.lost = {}, []
        for name, size in sizes.items():
            if name in owner or name in writing:
                continue
            try:
                entries = self.own.get(name)
                if entries is None:
                    entries = read_shard(self.files, f"{name}{SHARD}")
                    fresh.add(name)
                check_size(size, entries)
                known[name] = entries
            except FileNotFoundError:
                continue  # evicted by another process meanwhile
            except ShardDamage as damage:
                self.lost.append(Damage("", "", "", name, str(damage)))
        self.own = known
        for name, part in owner.items():
            shard = part.shards[name]
            if not shard.rows or name in known:
                continue
            if name not in sizes:
                self._lose(part, name, "the shard is missing")
            elif sizes[name] < shard.end:
                self._lose(part, name, f"the shard is cut short: {sizes[name]} bytes instead of {shard.end}")
            else:
                self.shards[name] = shard
        self.choose()
        if fresh and writable:
            self.save(writing)

    def _lose(self, part: Partition, name: str, reason: str) -> None:
        self.lost += [Damage(entry.record, entry.view, entry.key, name, reason) for entry in part.of_shard(name)]

    def choose(self) -> None:
        """Choose the best entries anew, after shards have come or gone."""
        owner = {name: part for part in self.partitions for name in part.names}
        for part in self.partitions:
            alive = [owner[name] is part and name not in self.own for name in part.names]
            part.alive = np.array(alive, np.bool_)
        self._asked, self._own_best = {}, {}
        for name, entries in self.own.items():
            if entries:
                self.shards[name] = Shard.of(entries)
            else:
                self.shards.pop(name, None)
            for entry in entries:
                self.adopt(entry)

    def adopt(self, entry: Entry) -> None:
        """Take `entry`, of a shard of `own`, for its key unless a more exact or newer one is there."""
        other = self._own_best.get(entry.key)
        if other is None or _rank(entry) >= _rank(other):
            self._own_best[entry.key] = entry
        self._asked.pop(entry.key, None)

    def find(self, key: str) -> Entry | None:
        """The most exact and then newest entry of a key; None where there is none in a usable shard."""
        if (found := self._asked.get(key)) is not None:
            return found
        head, own = head_of(key), self._own_best.get(key)
        hits = [entry for part in self.partitions for entry in part.find(key, head) if entry.shard in self.shards]
        best = max([*hits, *([own] if own else [])], key=_rank, default=None)
        if best is not None:
            if len(self._asked) >= REMEMBERED:
                self._asked.clear()
            self._asked[key] = best
        return best

    def __len__(self) -> int:
        """Keys with a usable entry; reads the heads of all."""
        if not self.partitions:
            return len(self._own_best)
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Entry]:
        """The best entry of each key, partition by partition."""
        yield from (entry for entry in self._own_best.values() if self.find(entry.key) == entry)
        for part in self.partitions:
            for row in np.flatnonzero(part.rows_alive()):
                entry = part.entry(int(row))
                if entry.shard in self.shards and self.find(entry.key) == entry:
                    yield entry

    def entries_of(self, shard: str) -> list[Entry]:
        """All entries of a shard, whether or not they are the best of their keys."""
        if shard in self.own:
            return self.own[shard]
        return next((part.of_shard(shard) for part in reversed(self.partitions) if shard in part.shards), [])

    def save(self, unfinished: Collection[str] = ()) -> None:
        """Write what the index lacks; a failure becomes a note, for the shards themselves hold everything in it."""
        finished = {name: entries for name, entries in self.own.items() if name not in unfinished}
        self.shards |= {name: Shard.of(entries) for name, entries in finished.items() if entries}
        try:
            if finished:
                write_partition(self.files, finished)
            while True:
                self.partitions, damaged = open_index(self.files, self.partitions)
                for name in damaged:
                    self.files.remove(name)
                listed = {name for part in self.partitions for name in part.names}
                self.own = {
                    name: entries for name, entries in self.own.items() if name in unfinished or name not in listed
                }
                self.choose()
                if not merge(self.files, self.partitions, self.shards):
                    break
        except (SpecialSamError, OSError) as error:
            self.notes.append(f"the index is not up to date, the shards are: {error}")

    def forget(self, damage: Sequence[Damage]) -> tuple[set[str], set[str]]:
        """Take damaged embeddings out; returns the shards that this touched, and those of them left without any."""
        bad = {(item.shard, item.key) for item in damage}
        touched = {item.shard for item in damage}
        lost = {item.shard for item in self.lost}
        for shard in touched:
            entries = [] if shard in lost else self.entries_of(shard)
            self.own[shard] = [entry for entry in entries if (shard, entry.key) not in bad]
        self.lost = [item for item in self.lost if (item.shard, item.key) not in bad]
        self.choose()
        return touched, {shard for shard in touched if not self.own[shard]}


def _rank(entry: Entry) -> tuple[int, float]:
    return EXACTNESS[entry.precision], entry.created
