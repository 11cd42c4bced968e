"""Embedding over a Ray cluster of two local nodes: random kills, speed beside the plain loop, the driver's memory.

python benchmarks/cluster.py kills OUT [--kills 20] [--seed 0]
python benchmarks/cluster.py speed OUT [--images 400]
python benchmarks/cluster.py memory OUT [--records 100000]

`kills` runs `specialsam embed --cluster ray` on generated images and kills, at random moments, a worker (most often),
the second node or the driver; each finished store is compared with that of the plain loop: nothing lost, doubled or
different. `speed` has a stand-in for a GPU, an encoder that takes 50 ms an image and no processor, so that workers do
not compete for two cores, and beside it the bundled model. `memory` spreads records of tiny images. All on loopback.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from specialsam.core.cluster import LOOPBACK, STAY_HERE, ClusterSettings, connected
from specialsam.core.console import say
from specialsam.core.geometry import Geometry, ImageArray
from specialsam.core.types import Embedding, Record, Sample
from specialsam.data.images import write_png
from specialsam.data.loading import load
from specialsam.data.views import IDENTITY
from specialsam.embeddings import EmbeddingStore, Encoder, embed
from specialsam.embeddings.spread import embed_spread
from specialsam.models.load import load_model
from specialsam.synth.scenes import write_dataset

OBJECTS = 100 << 20
SECONDS = 0.05


class StandIn:
    """An encoder that takes a while an image, as a GPU would, and no processor."""

    encoder_id = "stand-in"

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds

    def encode_batch(self, images: Sequence[ImageArray], /) -> list[Embedding]:
        time.sleep(self.seconds * len(images))
        means = [torch.full((4, 2, 2), float(image.mean()) / 255) for image in images]
        sizes = [Geometry(image.shape[0], image.shape[1], 64) for image in images]
        return [Embedding(mean, size) for mean, size in zip(means, sizes, strict=True)]


class TwoNodes:
    """A cluster of two nodes on this machine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": OBJECTS, "node_ip_address": LOOPBACK}
        self.node = node
        self.cluster: Any = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
        self.second: Any = self.cluster.add_node(**node)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def lose(self) -> None:
        """Kill the second node with all that runs there, and add another one."""
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = self.cluster.add_node(**self.node)


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", STAY_HERE: "0"}
    os.environ["OMP_NUM_THREADS"] = "1"
    nodes = TwoNodes()
    try:
        yield nodes
    finally:
        nodes.cluster.shutdown()


def workers(of: int) -> list[int]:
    """Processes of encoding workers below one of ours."""
    parent, named = {}, set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if b"MapBatches(_Worker)" in (path / "cmdline").read_bytes():
                named.add(int(path.name))
        except (OSError, ValueError):
            continue

    def ours(pid: int) -> bool:
        return pid == of or (pid in parent and ours(parent[pid]))

    return sorted(pid for pid in named if ours(pid))


def differences(own: Path, truth: Path) -> list[str]:
    """What a store has lost, doubled or changed against that of the plain loop."""
    (name,) = [path.parent.name for path in truth.glob("*/*.safetensors")][:1]
    ours, theirs = EmbeddingStore(own, name), EmbeddingStore(truth, name)
    wrong = [f"damaged: {damage}" for damage in ours.verify(drop=False)]
    rows = Counter(entry.key for shard in ours._catalogue.shards for entry in ours._catalogue.entries_of(shard))
    keys = {entry.key for entry in theirs.entries()}
    wrong += [f"{len(keys - rows.keys())} lost"] * bool(keys - rows.keys())
    wrong += [f"{len(rows.keys() - keys)} strangers"] * bool(rows.keys() - keys)
    wrong += [f"{sum(rows.values()) - len(rows)} doubled"] * (sum(rows.values()) > len(rows))
    apart = max(float((ours.get(key).tensor.float() - theirs.get(key).tensor.float()).abs().max()) for key in keys)
    wrong += [f"embeddings differ by up to {apart:.2g}"] * (apart > 2e-2)
    left = [str(path) for path in own.rglob("incoming/*")]
    return wrong + [f"left behind: {', '.join(left)}"] * bool(left)


def kills(out: Path, count: int, seed: int) -> bool:
    """Kill workers, the second node and drivers; whether every finished store is the plain loop's."""
    draw = random.Random(seed)
    data, truth = out / "data", out / "plain"
    write_dataset(data, 120, 192, seed=7, camouflage=0.5)
    words = [sys.executable, "-m", "specialsam.cli", "embed", str(data), "--device", "cpu"]
    subprocess.run([*words, "--store", str(truth)], check=True, stdout=subprocess.DEVNULL)
    done, wrong, finished, driver = Counter[str](), list[str](), 0, None
    with two_nodes() as nodes:
        more = ["--cluster", "ray", "-s", f"cluster.address={nodes.address}", "-s", "cluster.images=4"]
        while sum(done.values()) < count or driver is not None:
            store = out / f"store-{finished}"
            if driver is None:
                driver = subprocess.Popen([*words, *more, "--store", str(store)], stdout=subprocess.PIPE, text=True)
            left = count - sum(done.values())
            try:
                said, _ = driver.communicate(timeout=draw.uniform(1, 8) if left > 0 else 600)
                found = differences(store, truth) if driver.returncode == 0 else [said[-300:]]
                say(f"{store.name}: {said.splitlines()[-1] if said else ''}; {'; '.join(found) or 'as the plain loop'}")
                wrong, finished, driver = wrong + found, finished + 1, None
            except subprocess.TimeoutExpired:
                running = workers(os.getpid())
                kind = draw.choices(["worker", "node", "driver"], [12, 3, 5])[0] if running else ""
                if kind == "worker":
                    os.kill(draw.choice(running), signal.SIGKILL)
                elif kind == "node":
                    nodes.lose()
                elif kind == "driver" and driver is not None:
                    driver.kill()
                    driver.communicate()
                    driver = None
                done[kind] += bool(kind)
                say(f"{sum(done.values())}: {kind} killed") if kind else None
                done = +done
    say(json.dumps({"killed": dict(done), "stores compared": finished, "wrong": wrong}))
    return not wrong


def picture(path: Path, number: int) -> Record:
    """A tiny image of its own and its record."""
    if not path.exists():
        write_png(path, np.frombuffer(number.to_bytes(8) * 24, np.uint8).reshape(8, 8, 3))
    return Record(path.stem, path)


def everything(_: Sample) -> bool:
    return True


def pictures(folder: Path, count: int) -> list[tuple[Record, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    return [(picture(folder / f"{number:07d}.png", number), IDENTITY) for number in range(count)]


def speed(out: Path, images: int) -> None:
    """Images a second: the plain loop, one and two workers, by the clock and without the start of the workers."""
    torch.set_num_threads(1)
    scenes = out / "scenes"
    write_dataset(scenes, 120, 192, seed=7, camouflage=0.5)
    real = [(Record(path.stem, path), IDENTITY) for path in sorted((scenes / "images").iterdir())]
    cases: dict[str, tuple[list[tuple[Record, Any]], Callable[[], Encoder]]]
    cases = {"stand-in, 50 ms": (pictures(out / "tiny", images), StandIn), "nano": (real, partial(load_model, "nano"))}
    with two_nodes() as nodes:
        for name, (pairs, make) in cases.items():
            encoder = make()
            plain = embed(
                pairs, load, encoder, EmbeddingStore(out / f"{name} plain", encoder.encoder_id), needs=everything
            )
            say(f"{name}: plain loop {plain.images_per_second:.1f} images/s")
            for count in (1, 2):
                times: list[tuple[float, int]] = []

                def seen(done: int, _: int, phase: str, times: list[tuple[float, int]] = times) -> None:
                    if phase == "encode":
                        times.append((time.perf_counter(), done))

                how = ClusterSettings(address=nodes.address, workers=count, images=10)
                store = EmbeddingStore(out / f"{name} {count}", encoder.encoder_id)
                report = embed_spread(pairs, load, make, store, how, needs=everything, progress=seen)
                (first, done), (last, total) = times[0], times[-1]
                each = (last - first) / (total - done)
                spent = 1e3 * (each * count - 1 / plain.images_per_second)
                say(
                    f"{name}: {count} workers {report.images_per_second:.1f} images/s with their start, "
                    f"{1 / each:.1f} after the first answer, {spent:+.1f} ms an image and worker beside the plain "
                    f"loop; {report.done} done"
                )


def memory(out: Path, records: int) -> None:
    """The driver's memory for records of tiny images (made once), before and at the end."""
    pairs = pictures(out / f"tiny-{records}", records)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    began = time.perf_counter()
    how = ClusterSettings(workers=1, images=350)
    with connected(how):
        ready = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        store = EmbeddingStore(out / "store", StandIn.encoder_id)
        report = embed_spread(pairs, load, partial(StandIn, 0.0), store, how, batch_size=16, needs=everything)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    say(
        f"{records} records, {report.done} done in {time.perf_counter() - began:.0f} s: peak {before:.0f} MB with the "
        f"list of records, {ready:.0f} MB with Ray, {after:.0f} MB at the end, "
        f"{1e3 * (after - ready) / records:.2f} kB each"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "speed", "memory"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--records", type=int, default=100_000)
    asked = parser.parse_args()
    if asked.what == "kills":
        sys.exit(not kills(asked.out, asked.kills, asked.seed))
    if asked.what == "speed":
        speed(asked.out, asked.images)
    else:
        memory(asked.out, asked.records)


if __name__ == "__main__":
    main()
