"""The store of image embeddings: content-addressed, memory-mapped, safe against kills and second writers.

`STORE/ENCODER_ID/` holds one encoder's embeddings (layout in `shards.py`), so two encoders can never mix. Reading maps
the shards: `get` copies nothing at half and full precision.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from specialsam.core.errors import StoreError, UsageError
from specialsam.core.folders import Folder
from specialsam.core.folders import folder as place
from specialsam.core.types import Embedding
from specialsam.embeddings.catalogue import EXACTNESS, SHARD, Catalogue, Damage
from specialsam.embeddings.index import Shard
from specialsam.embeddings.parts import ShardWriter
from specialsam.embeddings.shards import (
    PRECISIONS,
    Entry,
    Precision,
    ShardDamage,
    check_size,
    checksum,
    read_shard,
)

OPEN_SHARDS = 128
"""Most shards mapped at once by one store."""
GIGABYTE = 1_000_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHARD = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Evicted:
    """A shard that was removed to keep the store within its size."""

    shard: str
    embeddings: int
    bytes: int


def content_key(encoder_id: str, image_digest: str, view: str = "") -> str:
    """Key of an embedding, 64 hex digits: sha256 of who encoded, the image's digest and the view's key."""
    return hashlib.sha256(json.dumps([encoder_id, image_digest, view]).encode()).hexdigest()


class EmbeddingStore:
    """Embeddings of one encoder in `folder`, stored at `precision`, at most `max_gb` (10^9 bytes) if given.

    An embedding that is stored at a higher precision than asked for counts as present, at a lower one as missing.
    Opening finishes what killed writers left; it creates nothing. One store may be shared by threads that read.
    Raises UsageError for an unknown precision, StoreError for a folder that is none.
    """

    def __init__(
        self, folder: Path | str, encoder_id: str, precision: Precision = "half", max_gb: float | None = None
    ) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"expected a precision out of {', '.join(PRECISIONS)}, got {precision!r}")
        if max_gb is not None and not max_gb > 0:
            raise UsageError(f"expected a store size above 0 GB, got {max_gb}")
        if not _NAME.fullmatch(encoder_id):
            raise UsageError(f"expected an encoder id of letters, digits, '.', '_' and '-', got {encoder_id!r}")
        self.root, self.encoder_id, self.precision, self.max_gb = place(folder), encoder_id, precision, max_gb
        self.files = self.root.below(encoder_id)
        self.folder = self.files.path
        if self.root.path.exists() and not self.root.path.is_dir():
            raise StoreError(f"expected a folder for the embedding store, got the file {self.root}")
        self.evicted: list[Evicted] = []
        self._catalogue = Catalogue(self.files)
        self._handles: OrderedDict[str, Any] = OrderedDict()
        self._checked: set[str] = set()
        self._used: set[str] = set()
        self._writing: dict[str, ShardWriter] = {}
        self.refresh()

    @classmethod
    def open_existing(
        cls, folder: Path | str, encoder_id: str, precision: Precision = "half", max_gb: float | None = None
    ) -> EmbeddingStore:
        """Open a store that holds embeddings of this encoder; StoreError names the encoders that it holds instead."""
        held = encoders(folder)
        if encoder_id not in held:
            found = f"embeddings of {', '.join(held)}" if held else "no embeddings"
            raise StoreError(f"expected embeddings of encoder {encoder_id} in {folder}, found {found}; run embed first")
        return cls(folder, encoder_id, precision, max_gb)

    @property
    def notes(self) -> list[str]:
        """What could not be done and does no harm by itself, one line each."""
        return self._catalogue.notes

    def refresh(self) -> None:
        """Look at the folder again: finish orphaned parts, take in shards of other writers, notice lost ones."""
        self._catalogue.refresh(self._writing)

    def key(self, image_digest: str, view: str = "") -> str:
        """Content key of an image in a view for this store's encoder."""
        return content_key(self.encoder_id, image_digest, view)

    def __contains__(self, key: str) -> bool:
        entry = self._catalogue.find(key)
        return entry is not None and EXACTNESS[entry.precision] >= EXACTNESS[self.precision]

    def __len__(self) -> int:
        return len(self._catalogue)

    def entries(self) -> list[Entry]:
        """Facts of all usable embeddings, oldest first."""
        return sorted(self._catalogue, key=lambda entry: entry.created)

    def size(self) -> int:
        """Bytes on disk of this encoder's shards, finished or not, damaged ones included."""
        parts = sum(path.stat().st_size for path in self.folder.glob("*.part"))
        return parts + sum(self.files.sizes(SHARD).values())

    def use(self, keys: Sequence[str]) -> None:
        """Note that this run needs `keys`, so that their shards are not evicted."""
        self._used |= {entry.shard for key in keys if (entry := self._catalogue.find(key)) is not None}

    def _entry(self, key: str) -> Entry:
        entry = self._catalogue.find(key)
        if entry is None:
            lost = next((damage for damage in self._catalogue.lost if damage.key == key), None)
            why = f"it is damaged ({lost.reason}, record {lost.record})" if lost else "it was never stored"
            raise StoreError(f"expected embedding {key[:16]} in {self.folder}: {why}; run embed again")
        return entry

    def _stored(self, entry: Entry) -> tuple[Tensor | None, Tensor]:
        """Scale and values as they are stored, mapped; the first read of an embedding checks its bytes."""
        self._used.add(entry.shard)
        try:
            writer = self._writing.get(entry.shard)
            if writer is not None:
                return writer.read(entry)
            handle = self._handle(entry.shard)
            scale = handle.get_tensor(f"{entry.key}.scale") if entry.precision == "int8" else None
            values: Tensor = handle.get_tensor(entry.key)
            if entry.key not in self._checked:
                if checksum(entry, scale, values) != entry.crc:
                    raise ShardDamage("its bytes are not those that were written")
                self._checked.add(entry.key)
        except (OSError, SafetensorError, ShardDamage) as error:
            reason = " ".join(str(error).split())
            raise StoreError(
                f"expected the embedding of {entry.record} ({entry.key[:16]}) in {self._catalogue.path(entry.shard)}, "
                f"it cannot be used: {reason}; verify the store, then run embed again"
            ) from error
        return scale, values

    def _handle(self, shard: str) -> Any:
        handle = self._handles.pop(shard, None)
        if handle is None:
            handle = safe_open(self.files.fetch(f"{shard}{SHARD}"), framework="pt")
        self._handles[shard] = handle
        while len(self._handles) > OPEN_SHARDS:
            self._handles.popitem(last=False)
        return handle

    def get(self, key: str) -> Embedding:
        """One embedding: float16 or float32 (C, h, w) mapped from disk, or float32 made from int8.

        Do not write into the tensor. Raises StoreError for a key that is not stored and for damaged bytes.
        """
        entry = self._entry(key)
        scale, values = self._stored(entry)
        return Embedding(values if scale is None else values * scale[:, None, None], entry.geometry, key)

    def get_many(self, keys: Sequence[str]) -> list[Embedding]:
        """Like `get`, for several keys in order."""
        return [self.get(key) for key in keys]

    def get_batch(self, keys: Sequence[str]) -> Tensor:
        """Embeddings (B, C, h, w) in a tensor of its own: float16 where all are half, else float32."""
        entries = [self._entry(key) for key in keys]
        if len({entry.shape for entry in entries}) != 1:
            raise StoreError(f"expected embeddings of one shape, got {sorted({entry.shape for entry in entries})}")
        half = all(entry.precision == "half" for entry in entries)
        out = torch.empty((len(keys), *entries[0].shape), dtype=torch.float16 if half else torch.float32)
        for row, entry in zip(out, entries, strict=True):
            scale, values = self._stored(entry)
            if scale is None:
                row.copy_(values)
            else:
                row.copy_(values).mul_(scale[:, None, None])  # in one call torch would convert value by value
        return out

    def adopt(self, other: Folder, index: bool = True) -> int:
        """Take in the finished shards that lie in a folder of any writer, by content key; how many embeddings are new.

        A shard moves here where it holds anything that the store lacks, else it is removed; one that is not whole stays
        where it is. Interrupted and called again it comes to the same. With `index` off the index is written by a later
        call. Raises StoreError for a shard of another encoder.
        """
        new = 0
        for name, size in sorted(other.sizes(SHARD).items()):
            try:
                entries = read_shard(other, name)
                check_size(size, entries)
            except (ShardDamage, FileNotFoundError):
                continue
            if strangers := {entry.encoder for entry in entries} - {self.encoder_id}:
                raise StoreError(f"expected shards of encoder {self.encoder_id} in {other}, got {strangers.pop()}")
            lacking = [entry for entry in entries if entry.key not in self]
            if not lacking:
                other.remove(name)
                continue
            self.files.take(other, name)
            self._catalogue.own[name.removesuffix(SHARD)] = lacking
            self._catalogue.shards[name.removesuffix(SHARD)] = Shard.of(lacking)
            for entry in lacking:
                self._catalogue.adopt(entry)
            self._used.add(name.removesuffix(SHARD))
            new += len(lacking)
        if index:
            self.index()
        return new

    def index(self) -> None:
        """Bring the index up to date and keep the store within its size."""
        self._catalogue.save(self._writing)
        self.evict()

    def writer(self) -> Writer:
        """A context in which embeddings are put; several writers, also of other processes, may be open at once."""
        return Writer(self)

    def verify(self, drop: bool = True, progress: Callable[[int, int, str], None] | None = None) -> list[Damage]:
        """Read every embedding and name the damaged ones; with `drop` forget them, so that embed makes them again.

        `progress(done, total, "verify")` is called after each. A read-only store forgets them in memory only.
        """
        self.refresh()
        entries = self.entries()
        damage = [lost for lost in self._catalogue.lost if self._catalogue.find(lost.key) is None]
        self._checked.clear()
        self._handles.clear()
        for done, entry in enumerate(entries, 1):
            try:
                self._stored(entry)
            except StoreError as error:
                reason = " ".join(str(error.__cause__).split())
                damage.append(Damage(entry.record, entry.view, entry.key, entry.shard, reason))
            if progress:
                progress(done, len(entries), "verify")
        if drop:
            self._drop([*damage, *self._catalogue.lost])
        return damage

    def _drop(self, damage: Sequence[Damage]) -> None:
        """Forget damaged embeddings and remove shards that hold nothing else."""
        if not damage:
            return
        touched, empty = self._catalogue.forget(damage)
        for shard in touched:
            self._handles.pop(shard, None)
        if self.files.writable:
            for shard in filter(_SHARD.fullmatch, empty):
                self.files.remove(f"{shard}{SHARD}")
            self._catalogue.save(self._writing)

    def evict(self) -> list[Evicted]:
        """Remove the oldest shards until the store is within `max_gb`; never one that this run read, wrote or needs.

        Returns what was removed (also kept in `evicted`); a note says where the limit could not be kept.
        """
        if self.max_gb is None:
            return []
        out: list[Evicted] = []
        shards, limit, size = self._catalogue.shards, self.max_gb * GIGABYTE, self.size()
        sizes = self.files.sizes(SHARD) if size > limit else {}
        free = [name for name in shards if name not in self._used and name not in self._writing]
        for shard in sorted(free, key=lambda name: shards[name].newest):
            if size <= limit:
                break
            try:
                self.files.remove(f"{shard}{SHARD}")
            except OSError as error:
                self.notes.append(f"{self._catalogue.path(shard)} could not be evicted ({error.strerror})")
                continue
            self._handles.pop(shard, None)
            count = sizes.get(f"{shard}{SHARD}", 0)
            out.append(Evicted(shard, shards[shard].rows, count))
            self._catalogue.own[shard] = []
            size -= count
        if size > limit:
            excess = f"the store holds {size / GIGABYTE:.3g} GB, over its limit of {self.max_gb:g} GB"
            if not any(note.startswith("the store holds") for note in self.notes):
                self.notes.append(f"{excess}: this run needs all that is left; raise the limit or lower the precision")
        if out:
            self._catalogue.choose()
            self._catalogue.save(self._writing)
            self.evicted += out
        return out


class Writer:
    """Puts embeddings into a store; each is safe once `put` returns, and readable in this store at once."""

    def __init__(self, store: EmbeddingStore) -> None:
        self.store = store
        self._shard: ShardWriter | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put(self, key: str, embedding: Embedding, record: str, view: str = "") -> Entry:
        """Store one embedding under its content key; StoreError where the disk is full or the folder read-only."""
        store = self.store
        entry: Entry | None = None
        while entry is None:
            if self._shard is None:
                self._shard = ShardWriter(store.files, store.encoder_id, store.precision)
                store._writing[self._shard.name] = self._shard
                store._catalogue.own[self._shard.name] = self._shard.entries
            entry = self._shard.append(key, embedding, record, view)
            if entry is None:
                self.close()
        store._catalogue.adopt(entry)
        store._checked.discard(key)
        store._used.add(entry.shard)
        return entry

    def close(self) -> None:
        """Finish the shard in hand, bring the index up to date, and keep the store within its size."""
        shard, self._shard = self._shard, None
        if shard is None:
            return
        store, catalogue, done = self.store, self.store._catalogue, False
        try:
            done = shard.finish() is not None
        finally:
            del store._writing[shard.name]
            if not done:
                del catalogue.own[shard.name]
                catalogue.choose()
        if done:
            catalogue.save(store._writing)
            store.evict()


def encoders(folder: Path | str) -> list[str]:
    """Encoder ids whose embeddings a store folder holds, sorted."""
    root = place(folder)
    local = {path.parent.name for path in root.path.glob("*/*.part")}
    return sorted(local | {name for name in root.folders() if root.below(name).sizes(SHARD)})
