"""True masks of training items on disk, packed, so that no step decodes an image file again.

One SQLite file a run: a row an item (record and view) with its size and its masks as zlib-packed bits, about 1 KB an
object. Reading one costs a fraction of a millisecond and no memory that grows with the data set.
"""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path

import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray


class TargetFile:
    """Masks bool (P, H, W) by item id; every `put` is durable. One object a thread."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._connection = sqlite3.connect(path)
        try:
            self._connection.execute(
                "create table if not exists masks (item text primary key, count int, height int, width int, bits blob)"
            )
        except sqlite3.DatabaseError as error:
            raise DataError(f"expected packed masks in {path}, got something else ({error}); delete it") from error

    def put(self, item: str, masks: BoolArray) -> None:
        """Store the masks of one item, replacing earlier ones; DataError where the disk is full or another writes."""
        packed = zlib.compress(np.packbits(masks).tobytes(), 1)
        try:
            with self._connection:
                self._connection.execute(
                    "insert or replace into masks values (?, ?, ?, ?, ?)", (item, *masks.shape, packed)
                )
        except sqlite3.OperationalError as error:
            raise DataError(f"cannot write {self.path} ({error}); make room, or wait for the other run") from error

    def get(self, item: str) -> BoolArray:
        """Masks bool (P, H, W) of one item; DataError where it was never stored."""
        row = self._connection.execute(
            "select count, height, width, bits from masks where item = ?", (item,)
        ).fetchone()
        if row is None:
            raise DataError(f"expected masks of {item} in {self.path}, found none; prepare the items first")
        shape = (int(row[0]), int(row[1]), int(row[2]))
        bits = np.frombuffer(zlib.decompress(row[3]), np.uint8)
        return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(np.bool_)

    def items(self) -> dict[str, int]:
        """Number of objects of every stored item."""
        return {str(item): int(count) for item, count in self._connection.execute("select item, count from masks")}

    def close(self) -> None:
        self._connection.close()
