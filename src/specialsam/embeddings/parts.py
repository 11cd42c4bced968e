"""Writing shards so that a killed run, a second writer or a full disk costs nothing that was finished."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import IO

from torch import Tensor

from specialsam.core.errors import DataError
from specialsam.core.folders import Folder
from specialsam.core.types import Embedding
from specialsam.embeddings.shards import (
    HEADER_BYTES,
    SHARD_BYTES,
    Entry,
    Precision,
    ShardDamage,
    checksum,
    header,
    line,
    pack,
    raw,
    tensor_infos,
    unpack,
    write_error,
)


class ShardWriter:
    """Writes one part and finishes it; the part stays locked from the first byte to the rename."""

    def __init__(self, files: Folder, encoder: str, precision: Precision) -> None:
        self.files, self.encoder, self.precision = files, encoder, precision
        self.folder = folder = files.path
        self.entries: list[Entry] = []
        self._end, self._header_used, self._journal_end = HEADER_BYTES, 256, 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.name, self._part = _new_part(folder)
        except OSError as error:
            raise write_error(folder, error) from error
        try:
            self._journal = self._path("journal").open("xb", buffering=0)
            _write_all(self._part, b" " * HEADER_BYTES)
        except OSError as error:
            self._path("part").unlink()
            self._path("journal").unlink(missing_ok=True)
            self._part.close()
            raise write_error(folder, error) from error

    def _path(self, suffix: str) -> Path:
        return self.folder / f"{self.name}.{suffix}"

    def append(self, key: str, embedding: Embedding, record: str, view: str) -> Entry | None:
        """Write one embedding so that it survives the end of this process; None where the shard is full."""
        scale, values = pack(embedding.tensor, self.precision)
        pieces: list[bytes | memoryview] = (
            [raw(values)] if scale is None else [raw(scale), raw(values), bytes(-values.numel() % 4)]
        )
        channels, rows, columns = (int(side) for side in values.shape)
        entry = Entry(
            key=key,
            shard=self.name,
            record=record,
            view=view,
            **embedding.geometry.to_dict(),
            channels=channels,
            rows=rows,
            columns=columns,
            precision=self.precision,
            encoder=self.encoder,
            created=time.time(),
            offset=self._end,
            bytes=sum(map(len, pieces)),
        )
        entry = replace(entry, crc=checksum(entry, scale, values))
        text = line(entry)
        room = len(json.dumps(tensor_infos(entry))) + len(json.dumps(text))
        if self._header_used + room > HEADER_BYTES - 8 or (self.entries and entry.end > SHARD_BYTES):
            if not self.entries:
                raise DataError(f"expected a record id that fits a header, got one of {len(record)} characters")
            return None
        journal = text.encode() + b"\n"
        try:
            for piece in pieces:
                _write_all(self._part, piece)
            _write_all(self._journal, journal)
        except OSError as error:
            _cut(self._part, self._end)
            _cut(self._journal, self._journal_end)
            raise write_error(self.folder, error) from error
        self._end, self._header_used = entry.end, self._header_used + room
        self._journal_end += len(journal)
        self.entries.append(entry)
        return entry

    def read(self, entry: Entry) -> tuple[Tensor | None, Tensor]:
        """Scale (C,) and values (C, h, w) of an embedding of this unfinished part, as `unpack` gives them."""
        with self._path("part").open("rb") as file:
            file.seek(entry.offset)
            return unpack(entry, bytearray(file.read(entry.bytes)))

    def finish(self) -> Path | None:
        """Fill in the header and put the shard in place under its final name; None where nothing was written."""
        try:
            final = _finish(self._part, self._path("part"), self.entries, self.files)
        except OSError as error:
            raise write_error(self.folder, error) from error
        finally:
            self._part.close()
            self._journal.close()
        return final


def _finish(part: IO[bytes], path: Path, entries: list[Entry], files: Folder) -> Path | None:
    final = path.with_suffix(".safetensors") if entries else None
    if final is not None:
        part.truncate(entries[-1].end)
        part.seek(0)
        _write_all(part, header(entries))
        os.fsync(part.fileno())
        files.publish(path, final.name)
    if sys.platform == "win32":
        part.close()  # An open file can be neither renamed nor removed there.
    if final is not None:
        path.replace(final)
    else:
        path.unlink()
    path.with_suffix(".journal").unlink(missing_ok=True)
    return final


def recover(path: Path, files: Folder) -> Path | None:
    """Finish the part `path`, in `files`, of a writer that died; None where the writer is alive or left nothing whole.

    Embeddings count up to the first whose journal line or checksum does not hold: the one in hand when it died.
    """
    try:
        part = path.open("r+b", buffering=0)
    except FileNotFoundError:
        return None  # Another process was quicker.
    with part:
        if not _lock(part) or not path.exists():
            return None
        journal = path.with_suffix(".journal")
        lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
        entries: list[Entry] = []
        for text in lines:
            try:
                entry = Entry(shard=path.stem, **json.loads(text))
                part.seek(entry.offset)
                whole = checksum(entry, *unpack(entry, bytearray(part.read(entry.bytes)))) == entry.crc
            except (ValueError, TypeError, ShardDamage):
                whole = False
            if not whole:
                break
            entries.append(entry)
        return _finish(part, path, entries, files)


def _new_part(folder: Path) -> tuple[str, IO[bytes]]:
    while True:
        name = f"{time.time_ns():016x}-{uuid.uuid4().hex[:8]}"
        path = folder / f"{name}.part"
        part = path.open("x+b", buffering=0)
        if _lock(part) and path.exists():
            return name, part
        part.close()  # Someone who opened the store took the empty file for an orphan.


def _lock(file: IO[bytes]) -> bool:
    """Take the file's lock, which ends with the process that holds it; False where another holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 40)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _write_all(file: IO[bytes], data: bytes | bytearray | memoryview) -> None:
    """Write every byte; a file without buffer may take fewer at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _cut(file: IO[bytes], size: int) -> None:
    file.truncate(size)
    file.seek(size)
