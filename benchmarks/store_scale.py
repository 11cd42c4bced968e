"""The store's index with many synthetic entries: opening, looking up a batch, and memory.

python benchmarks/store_scale.py OUT [--embeddings 10000000] [--shard 128]

No embedding is computed: shards are sparse files of the right size, and the index has the partitions that merging
leaves. What is measured runs in a process of its own, on the catalogue as a store opens it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as arrow

from specialsam.core.console import say, stage
from specialsam.core.folders import Folder
from specialsam.embeddings import EmbeddingStore
from specialsam.embeddings.index import MOST_ROWS, Shard, head_of, schema, write_batch
from specialsam.embeddings.shards import HEADER_BYTES

BYTES = 2 * 256 * 64 * 64
"""Of one of SAM's embeddings at half precision."""
ENCODER, BATCH, TRIES = "synthetic", 32, 200


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def fill(folder: Path, count: int, each: int) -> None:
    """`count` entries in shards of `each`: partitions as large as merging makes them, then ever smaller ones."""
    folder.mkdir(parents=True)
    start = 0
    with stage("filling") as progress:
        while start < count:
            rows = (
                MOST_ROWS // each * each
                if count - start > MOST_ROWS
                else max(each, (count - start) * 7 // 8 // each * each)
            )
            part(folder, range(start, min(start + rows, count)), each)
            start += rows
            progress(min(start, count), count, "entries")


def part(folder: Path, rows: range, each: int) -> None:
    """One partition of synthetic entries, and its shards as empty files of the right size."""
    keys = [key(row) for row in rows]
    inside = np.arange(len(rows)) % each
    names = [f"{row:016x}-{row:08x}" for row in rows[::each]]
    fixed = {"height": 1024, "width": 1024, "side": 1024, "channels": 256, "rows": 64, "columns": 64, "bytes": BYTES}
    columns = {name: np.full(len(rows), value) for name, value in fixed.items()}
    columns |= {"offset": HEADER_BYTES + inside * BYTES, "crc": np.asarray(rows), "shard": np.arange(len(rows)) // each}
    columns |= {"created": np.asarray(rows, np.float64)}
    texts = {"key": keys, "record": [f"images/{row:08d}" for row in rows], "view": [""] * len(rows)}
    texts |= {"precision": ["half"] * len(rows), "encoder": [ENCODER] * len(rows)}
    data = texts | columns | {"head": [head_of(key) for key in keys]}
    table = arrow.Table.from_pydict({name: data[name] for name in schema().names}, schema()).sort_by("head")
    shards = {}
    for first, name in zip(rows[::each], names, strict=True):
        held = min(each, rows.stop - first)
        shards[name] = Shard(held, HEADER_BYTES + held * BYTES, float(first + held - 1))
        with (folder / f"{name}.safetensors").open("wb") as file:
            file.truncate(shards[name].end)
    write_batch(Folder(folder), f"{rows.start:016x}", table.combine_chunks().to_batches()[0], shards)


def anonymous_mb() -> float:
    """Memory of this process that no file stands behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


def measured(root: Path, count: int) -> dict[str, float]:
    """Figures of a fresh process."""
    before, began = anonymous_mb(), time.perf_counter()
    store = EmbeddingStore(root, ENCODER)
    opened = time.perf_counter() - began
    after, draw, looked = anonymous_mb(), np.random.default_rng(0), []
    for _ in range(TRIES):
        keys = [key(int(row)) for row in draw.integers(0, count, BATCH)]
        began = time.perf_counter()
        assert all(one in store for one in keys)
        looked.append(1e3 * (time.perf_counter() - began))
    used = time.process_time()
    for start in range(0, TRIES * BATCH, BATCH):
        assert all(key(int(row)) in store for row in range(start, start + BATCH))
    used = 1e3 * (time.process_time() - used) / TRIES
    unknown = [key(-1 - row) for row in range(BATCH)]
    began = time.perf_counter()
    assert not any(one in store for one in unknown)
    missing = 1e3 * (time.perf_counter() - began)
    return {
        "entries": count,
        "shards": len(store._catalogue.shards),
        "partitions": len(store._catalogue.partitions),
        "open_s": round(opened, 3),
        f"lookup_of_{BATCH}_ms_median": round(float(np.median(looked)), 2),
        f"lookup_of_{BATCH}_ms_p99": round(float(np.quantile(looked, 0.99)), 2),
        f"lookup_of_{BATCH}_ms_first": round(looked[0], 2),
        f"lookup_of_{BATCH}_ms_of_cpu": round(used, 2),
        f"lookup_of_{BATCH}_unknown_ms": round(missing, 2),
        "memory_added_by_opening_mb": round(after - before, 1),
        "memory_added_in_all_mb": round(anonymous_mb() - before, 1),
        "index_bytes_each": round(sum(p.stat().st_size for p in (root / ENCODER).glob("*.arrow")) / count, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--embeddings", type=int, default=10_000_000)
    parser.add_argument("--shard", type=int, default=128)
    parser.add_argument("--measure", action="store_true", help="only measure what is there")
    asked = parser.parse_args()
    if asked.measure:
        say(json.dumps(measured(asked.out, asked.embeddings), indent=1))
        return
    if not asked.out.exists():
        began = time.perf_counter()
        fill(asked.out / ENCODER, asked.embeddings, asked.shard)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        say(f"filled in {time.perf_counter() - began:.0f} s, peak of this process {peak:.0f} MB")
    words = [str(asked.out), "--embeddings", str(asked.embeddings), "--measure"]
    subprocess.run([sys.executable, __file__, *words], check=True)


if __name__ == "__main__":
    main()
