"""True masks on disk, packed, so that no step decodes an image file again.

One SQLite file a run: a row an item (record and view) with its size, its masks as zlib-packed bits, about 1 KB an
object, and the digest of the file that they were read from: changed masks are packed again. Reading one costs a
fraction of a millisecond and no memory that grows with the data set.
"""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray

TABLE = "packed"
COLUMNS = "item text primary key, source text, count int, filled int, height int, width int, bits blob, crc int"


@dataclass(frozen=True)
class Packed:
    """Masks bool (P, H, W) in about 1 KB an object: `bits` are zlib-packed, `filled` of the P objects are not empty."""

    shape: tuple[int, int, int]
    filled: int
    bits: bytes

    @classmethod
    def of(cls, masks: BoolArray) -> Packed:
        """Of bool masks (P, H, W)."""
        count, height, width = masks.shape
        bits = zlib.compress(np.packbits(masks).tobytes(), 1)
        return cls((count, height, width), int(masks.any((1, 2)).sum()), bits)

    def masks(self) -> BoolArray:
        """bool (P, H, W)."""
        bits = np.frombuffer(zlib.decompress(self.bits), np.uint8)
        return np.unpackbits(bits, count=int(np.prod(self.shape))).reshape(self.shape).astype(np.bool_)


class TargetFile:
    """Masks bool (P, H, W) by item id; every `put` is durable. Threads may share one.

    Raises DataError in one line for a file that is damaged, and for a disk that is full.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False)
        with self._readable(), self._connection:
            self._connection.execute("drop table if exists masks")  # of versions that did not know their source
            self._connection.execute(f"create table if not exists {TABLE} ({COLUMNS})")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.OperationalError as error:
            raise DataError(f"cannot use {self.path} ({error}); make room, or wait for the other run") from error
        except (sqlite3.DatabaseError, zlib.error, TypeError, ValueError) as error:
            raise DataError(f"expected packed masks in {self.path}, got something else ({error}); delete it") from error

    def put(self, item: str, masks: BoolArray | Packed, source: str = "") -> None:
        """Store the masks (P, H, W) of one item, read from what `source` names, in place of earlier ones."""
        packed = masks if isinstance(masks, Packed) else Packed.of(masks)
        count, height, width = packed.shape
        row = (item, source, count, packed.filled, height, width, packed.bits, zlib.crc32(packed.bits))
        with self._readable(), self._connection:
            self._connection.execute(f"insert or replace into {TABLE} values (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def get(self, item: str) -> BoolArray:
        """Masks bool (P, H, W) of one item; DataError where it was never stored."""
        with self._readable():
            row = self._connection.execute(
                f"select count, height, width, bits, crc from {TABLE} where item = ?", (item,)
            ).fetchone()
            if row is not None:
                if zlib.crc32(row[3]) != row[4]:
                    raise ValueError(f"the masks of {item} are not those that were written")
                return Packed((int(row[0]), int(row[1]), int(row[2])), 0, row[3]).masks()
        raise DataError(f"expected masks of {item} in {self.path}, found none; prepare the items first")

    def items(self) -> dict[str, int]:
        """Number of objects that are not empty of every stored item."""
        with self._readable():
            return {str(item): int(n) for item, n in self._connection.execute(f"select item, filled from {TABLE}")}

    def sources(self) -> dict[str, str]:
        """What the masks of every stored item were read from."""
        with self._readable():
            rows = self._connection.execute(f"select item, source from {TABLE}")
            return {str(item): str(source) for item, source in rows}

    def close(self) -> None:
        self._connection.close()
