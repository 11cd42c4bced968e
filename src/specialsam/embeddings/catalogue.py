"""What a store folder holds: its shards, the best entry of each key, and what is lost or damaged."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from specialsam.core.errors import SpecialSamError
from specialsam.embeddings.index import read_index, write_index
from specialsam.embeddings.parts import recover
from specialsam.embeddings.shards import PRECISIONS, Entry, ShardDamage, check_size, read_shard, write_error

EXACTNESS = {precision: rank for rank, precision in enumerate(PRECISIONS)}
"""Rank of each precision, the most exact last."""


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
    """Facts of one encoder's folder; `entries` maps a key to its most exact and then newest embedding."""

    folder: Path
    shards: dict[str, list[Entry]] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    lost: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def writable(self) -> bool:
        """Whether this process may write to the folder; False where it does not exist."""
        return os.access(self.folder, os.W_OK)

    def path(self, shard: str) -> Path:
        return self.folder / f"{shard}.safetensors"

    def refresh(self, writing: Collection[str]) -> None:
        """Finish orphaned parts, take in shards of other writers, notice lost ones; `writing` are this run's parts."""
        if self.writable:
            for part in sorted(self.folder.glob("*.part")):
                try:
                    recover(part)
                except OSError as error:
                    self.notes.append(f"{part.name} is left as it is: {write_error(self.folder, error)}")
        known = read_index(self.folder)
        sizes = _sizes(self.folder)
        known = {**{name: entries for name, entries in self.shards.items() if name in sizes}, **known}
        shards = {name: self.shards[name] for name in writing}
        fresh: set[str] = set()
        self.lost = []
        for name in sorted((sizes.keys() | known.keys()) - set(writing)):
            entries = known.get(name, [])
            try:
                if name not in sizes:
                    raise ShardDamage("the shard is missing")
                if entries:
                    check_size(sizes[name], entries)
                else:
                    entries = read_shard(self.path(name))
                    fresh.add(name)
                shards[name] = entries
            except ShardDamage as damage:
                facts = [(entry.record, entry.view, entry.key) for entry in entries] or [("", "", "")]
                self.lost += [Damage(*fact, name, str(damage)) for fact in facts]
        self.shards = shards
        self.choose()
        if fresh and self.writable:
            self.save(fresh)

    def choose(self) -> None:
        """Choose the entry of each key anew, after shards have come or gone."""
        self.entries = {}
        for entries in self.shards.values():
            for entry in entries:
                self.adopt(entry)

    def adopt(self, entry: Entry) -> None:
        """Take `entry` for its key unless a more exact or newer one is there."""
        other = self.entries.get(entry.key)
        if other is None or _rank(entry) >= _rank(other):
            self.entries[entry.key] = entry

    def save(self, changed: set[str], unfinished: Collection[str] = ()) -> None:
        """Write the index; a failure becomes a note, for the shards themselves hold everything that is in it."""
        finished = {name: entries for name, entries in self.shards.items() if name not in unfinished}
        try:
            write_index(self.folder, finished, changed)
        except SpecialSamError as error:
            self.notes.append(f"the index is not up to date, the shards are: {error}")

    def forget(self, damage: Sequence[Damage]) -> tuple[set[str], set[str]]:
        """Take damaged embeddings out; returns the shards that this touched, and those of them left without any."""
        bad = {(item.shard, item.key) for item in damage}
        touched = {item.shard for item in damage}
        empty: set[str] = set()
        for shard in touched:
            left = [entry for entry in self.shards.pop(shard, []) if (shard, entry.key) not in bad]
            if left:
                self.shards[shard] = left
            else:
                empty.add(shard)
        self.lost = [item for item in self.lost if (item.shard, item.key) not in bad]
        self.choose()
        return touched, empty


def _rank(entry: Entry) -> tuple[int, float]:
    return EXACTNESS[entry.precision], entry.created


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each finished shard; one that another process evicts meanwhile is not there."""
    out = {}
    for path in folder.glob("*.safetensors"):
        try:
            out[path.stem] = path.stat().st_size
        except FileNotFoundError:
            continue
    return out
