"""The file format of stored embeddings: safetensors shards that describe themselves.

```
STORE/ENCODER_ID/SHARD.safetensors    finished, never changed again
STORE/ENCODER_ID/SHARD.part           being written; locked by its writer
STORE/ENCODER_ID/SHARD.journal        one JSON line an embedding of the part
STORE/ENCODER_ID/index-*.arrow        one row an embedding, made from the shards' headers
```

A shard holds one tensor an embedding, named by its content key: `KEY` (C, h, w) as F16, F32 or I8; with I8 also
`KEY.scale` F32 (C,), so that value = integer * scale of its channel. Any safetensors reader opens it. The header's
metadata holds the facts of every embedding, so a lost index is made again from the shards.

A part is a shard whose header is still blank: each embedding is written behind the last, then its journal line. To
finish it, the header is filled in and the file renamed. A writer that dies leaves both; whoever opens the store next
finishes the part from its journal, as far as the checksums hold.
"""

from __future__ import annotations

import errno
import json
import math
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from isal.isal_zlib import crc32
from torch import Tensor

from specialsam.core.errors import DataError, StoreError
from specialsam.core.folders import Folder
from specialsam.core.geometry import Geometry

Precision = Literal["int8", "half", "full"]
PRECISIONS: dict[Precision, tuple[str, torch.dtype]] = {
    "int8": ("I8", torch.int8),
    "half": ("F16", torch.float16),
    "full": ("F32", torch.float32),
}
"""Name in a safetensors header and torch type, from the least to the most exact."""
FORMAT = "specialsam-embeddings-1"
HEADER_BYTES = 1 << 18
"""Room kept for the header of each shard, its length field included."""
HALF_LIMIT = 65504
"""Largest number of half precision."""
SHARD_BYTES = 1 << 28
"""A shard that has reached this size is finished and the next one begun."""


@dataclass(frozen=True)
class Entry:
    """One stored embedding: where its bytes are, and everything known of it."""

    key: str
    shard: str
    record: str
    view: str
    height: int
    width: int
    side: int
    channels: int
    rows: int
    columns: int
    precision: Precision
    encoder: str
    created: float
    offset: int = 0
    bytes: int = 0
    crc: int = 0
    cell: int = 16
    stretched: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the embedding."""
        return self.channels, self.rows, self.columns

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.height, self.width, self.side, self.cell, self.stretched)

    @property
    def end(self) -> int:
        """First byte behind this embedding in its shard."""
        return self.offset + self.bytes


class ShardDamage(Exception):
    """A shard cannot be read as one; becomes a `Damage` or a StoreError in the store."""


def write_error(folder: Path, error: OSError) -> StoreError:
    """One line for a write that failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"the disk is full: cannot write to {folder}; what was finished is kept, make room and go on")
    reason = error.strerror or type(error).__name__
    return StoreError(f"expected a store folder that can be written, got {folder} ({reason}); choose another folder")


def pack(tensor: Tensor, precision: Precision) -> tuple[Tensor | None, Tensor]:
    """Scale (C,) or None, and values (C, h, w), of an embedding at a precision.

    int8 is symmetric per channel (scale = largest magnitude / 127), so its error is at most half a scale. Raises
    DataError for values that are not finite, or become so in half precision.
    """
    exact = tensor.detach().to("cpu", torch.float32).contiguous()
    largest = max(abs(float(bound)) for bound in torch.aminmax(exact))
    if not math.isfinite(largest):
        raise DataError("expected an embedding of finite numbers, got NaN or infinity; check the image and the encoder")
    if precision == "int8":
        peak = exact.abs().amax((1, 2))
        scale = torch.where(peak > 0, peak / 127, torch.ones_like(peak)).clamp_min(torch.finfo(torch.float32).tiny)
        return scale, (exact / scale[:, None, None]).round_().clamp_(-127, 127).to(torch.int8)
    if precision == "half" and largest > HALF_LIMIT:
        raise DataError(f"expected values within half precision ({HALF_LIMIT}), got {largest:.3g}; store it in full")
    return None, exact.to(PRECISIONS[precision][1])


def checksum(entry: Entry, scale: Tensor | None, values: Tensor) -> int:
    """CRC-32 over what is known of an embedding and its bytes: scale (C,), values (C, h, w); neither changes unseen."""
    facts = [entry.key, entry.record, entry.view, entry.height, entry.width, entry.side, *entry.shape, entry.precision]
    if entry.stretched:  # what was stored before there were stretched frames keeps its sum
        facts += [entry.cell, entry.stretched]
    crc = crc32(json.dumps([*facts, entry.encoder]).encode())
    if scale is not None:
        crc = crc32(raw(scale), crc)
    return crc32(raw(values), crc)


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor (N, ...), without a copy where it is contiguous."""
    return np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data


def tensor_infos(entry: Entry) -> dict[str, dict[str, object]]:
    """The safetensors header of one embedding; offsets count from the end of the header."""
    start, end = entry.offset - HEADER_BYTES, entry.end - HEADER_BYTES
    out: dict[str, dict[str, object]] = {}
    if entry.precision == "int8":
        middle = start + 4 * entry.channels
        out[f"{entry.key}.scale"] = {"dtype": "F32", "shape": [entry.channels], "data_offsets": [start, middle]}
        start = middle
    name, dtype = PRECISIONS[entry.precision]
    middle = start + entry.channels * entry.rows * entry.columns * dtype.itemsize
    out[entry.key] = {"dtype": name, "shape": list(entry.shape), "data_offsets": [start, middle]}
    if middle != end:
        out[f"{entry.key}.pad"] = {"dtype": "U8", "shape": [end - middle], "data_offsets": [middle, end]}
    return out


def line(entry: Entry) -> str:
    """An entry as one line of JSON, for a journal or a header; the file's name says the shard."""
    return json.dumps({name: value for name, value in asdict(entry).items() if name != "shard"})


def header(entries: list[Entry]) -> bytes:
    """The whole reserved header: length, JSON, spaces."""
    facts = {"format": FORMAT, "entries": "[" + ",".join(map(line, entries)) + "]"}
    content: dict[str, object] = {"__metadata__": facts}
    for entry in entries:
        content.update(tensor_infos(entry))
    return struct.pack("<Q", HEADER_BYTES - 8) + json.dumps(content).encode().ljust(HEADER_BYTES - 8)


def read_shard(files: Folder, name: str) -> list[Entry]:
    """Entries of the finished shard in a file, from its header alone; ShardDamage says why it is none."""
    head = files.head(name, HEADER_BYTES)
    length = struct.unpack("<Q", head[:8])[0] if len(head) >= 8 else 0
    if length != HEADER_BYTES - 8:
        raise ShardDamage("no shard of this format")
    try:
        rows = json.loads(json.loads(head[8:])["__metadata__"]["entries"])
        return [Entry(shard=Path(name).stem, **row) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ShardDamage("the header is damaged") from error


def check_size(size: int, entries: list[Entry]) -> None:
    """ShardDamage where a shard's file is shorter than its entries say."""
    expected = max((entry.end for entry in entries), default=HEADER_BYTES)
    if size < expected:
        raise ShardDamage(f"the shard is cut short: {size} bytes instead of {expected}")


def unpack(entry: Entry, payload: bytearray) -> tuple[Tensor | None, Tensor]:
    """Scale (C,) and values (C, h, w) from the bytes of one embedding; ShardDamage where they are too few."""
    start = 4 * entry.channels if entry.precision == "int8" else 0
    count = entry.channels * entry.rows * entry.columns
    if len(payload) < start + count * PRECISIONS[entry.precision][1].itemsize:
        raise ShardDamage("the part ends early")
    scale = torch.frombuffer(payload, dtype=torch.float32, count=entry.channels) if start else None
    values = torch.frombuffer(payload, dtype=PRECISIONS[entry.precision][1], count=count, offset=start)
    return scale, values.reshape(entry.shape)
