"""How fast embeddings come out of a store, beside a copy of the same bytes from the page cache.

python benchmarks/store_reads.py OUT [--images 64] [--rounds 7]

Embeddings of SAM's size (256 x 64 x 64, random) in half precision and in int8, read in batches of four: by a store that
has just been opened, which checks every embedding's checksum at its first read, and again by the same. The floor copies
as many bytes from the mapped file; for int8, of which four bytes come for each that is stored, `written` is what
filling fresh float32 batches with zeros takes. All are read before, so that no disk is measured; medians over rounds.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from isal.isal_zlib import crc32

from specialsam.core.console import say
from specialsam.core.geometry import Geometry
from specialsam.core.randomness import generator
from specialsam.core.types import Embedding
from specialsam.embeddings import EmbeddingStore

SHAPE, BATCH = (256, 64, 64), 4


def filled(folder: Path, precision: str, images: int) -> tuple[EmbeddingStore, list[str]]:
    store = EmbeddingStore(folder, "random", precision)  # type: ignore[arg-type]
    keys = [store.key(f"{number:032x}") for number in range(images)]
    with store.writer() as writer:
        for number, key in enumerate(keys):
            drawn = generator(number, "store reads").standard_normal(SHAPE, np.float32)
            writer.put(key, Embedding(torch.from_numpy(drawn), Geometry(768, 1024, 1024)), str(number))
    return EmbeddingStore(folder, "random", precision), keys  # type: ignore[arg-type]


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def read(store: EmbeddingStore, keys: list[str]) -> None:
    for start in range(0, len(keys), BATCH):
        store.get_batch(keys[start : start + BATCH])


def copied(path: Path, chunk: int) -> None:
    """Every byte of a file into fresh memory, `chunk` at a time."""
    mapped = np.memmap(path, np.uint8, "r")
    for start in range(0, len(mapped), chunk):
        np.array(mapped[start : start + chunk])


def written(images: int, kind: torch.dtype) -> None:
    """Fresh batches of zeros, as many and as large as are read."""
    for _ in range(0, images, BATCH):
        torch.empty((BATCH, *SHAPE), dtype=kind).zero_()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    shutil.rmtree(asked.out, ignore_errors=True)
    values = int(np.prod(SHAPE))
    for precision, width in (("half", 2), ("int8", 1)):
        folder = asked.out / precision
        store, keys = filled(folder, precision, asked.images)
        [path] = folder.rglob("*.safetensors")
        stored = asked.images * values * width
        raw = np.memmap(path, np.uint8, "r").tobytes()
        read(store, keys)
        copied(path, BATCH * values * width)
        spent: dict[str, list[float]] = {name: [] for name in ("page cache", "first", "later", "checksum", "written")}
        for _ in range(asked.rounds):
            fresh = EmbeddingStore(folder, "random", precision)  # type: ignore[arg-type]
            spent["page cache"].append(timed(partial(copied, path, BATCH * values * width)))
            spent["first"].append(timed(partial(read, fresh, keys)))
            spent["later"].append(timed(partial(read, fresh, keys)))
            spent["checksum"].append(timed(partial(crc32, raw)))
            kind = torch.float16 if precision == "half" else torch.float32
            spent["written"].append(timed(partial(written, asked.images, kind)))
        floor = float(np.median(spent["page cache"]))
        say(f"{precision}: {stored / 1e6:.0f} MB stored, batches of {BATCH}")
        for name, every in spent.items():
            middle = float(np.median(every))
            say(f"    {name:12}{stored / middle / 1e9:6.1f} GB/s of stored bytes, {floor / middle:5.2f} of the copy")


if __name__ == "__main__":
    main()
