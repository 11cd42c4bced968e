"""Shards of many writers, taken in by key; a cluster of two nodes. Oracle: the plain loop's store."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from specialsam.core.cluster import LOOPBACK, STAY_HERE, ClusterSettings, cluster_of, in_order
from specialsam.core.errors import DataError, SpecialSamError, StoreError, UsageError
from specialsam.core.folders import CACHE, Folder, folder
from specialsam.core.geometry import Geometry, ImageArray
from specialsam.core.types import Embedding, Record, Sample
from specialsam.data.images import read_image, write_png
from specialsam.data.views import IDENTITY, View
from specialsam.embeddings import EmbeddingStore, embed
from specialsam.embeddings.reading import Pair, Task
from specialsam.embeddings.spread import INCOMING, Encoding, batched, embed_spread, sweep

FLIP = View(flip=True)


class Means:
    """Encodes an image as its means, and may take its time."""

    encoder_id = "means"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def encode_batch(self, images: list[ImageArray], /) -> list[Embedding]:
        time.sleep(self.seconds * len(images))
        values = [torch.full((4, 2, 2), float(image[:, : image.shape[1] // 2].mean()) / 255) for image in images]
        return [Embedding(one, Geometry(*image.shape[:2], 64)) for one, image in zip(values, images, strict=True)]


def loaded(record: Record) -> Sample:
    if record.id == "bad":
        raise DataError("a picture that\ncannot be read")
    return Sample(record, read_image(record.image), np.zeros((0, 8, 8), np.bool_))


def everything(_: Sample) -> bool:
    return True


def pictures(where: Path, count: int) -> list[Pair]:
    out = []
    for number in range(count):
        image = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        write_png(where / f"{number}.png", image)
        out += [(Record(f"r{number}", where / f"{number}.png"), view) for view in (IDENTITY, FLIP)]
    return out


def content(store: EmbeddingStore) -> dict[str, tuple[str, bytes]]:
    return {one.key: (one.record, store.get(one.key).tensor.numpy().tobytes()) for one in store.entries()}


def plain(pairs: list[Pair], where: Path) -> EmbeddingStore:
    store = EmbeddingStore(where, "means")
    embed(pairs, loaded, Means(), store, needs=everything)
    return store


def put(where: Path, *numbers: int, encoder: str = "means") -> Folder:
    """The folder of one writer's shard with these embeddings."""
    store = EmbeddingStore(where, encoder)
    with store.writer() as writer:
        for number in numbers:
            writer.put(f"{number:064}", Embedding(torch.full((2, 1, 1), number), Geometry(4, 4, 16)), f"r{number}")
    return store.files


def test_shards_are_taken_in_by_key(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "store", "means")
    first, second, third = put(tmp_path / "a", 1, 2), put(tmp_path / "b", 2, 3), put(tmp_path / "c", 1, 3)
    assert [store.adopt(other) for other in (first, second, third)] == [2, 1, 0]
    assert [list(other.sizes(".safetensors")) for other in (first, second, third)] == [[], [], []]
    for found in (store, EmbeddingStore(tmp_path / "store", "means")):
        assert [one.record for one in found.entries()] == ["r1", "r2", "r3"]
        assert [float(found.get(f"{number:064}").tensor[0]) for number in (1, 2, 3)] == [1, 2, 3]
        assert found.verify() == []
    assert store.adopt(first) == 0


def test_what_is_not_whole_stays_and_strangers_are_refused(tmp_path: Path) -> None:
    store, half = EmbeddingStore(tmp_path / "store", "means"), put(tmp_path / "a", 1)
    (name,) = half.sizes(".safetensors")
    whole = (half.path / name).read_bytes()
    for some in (whole[:-1], whole[:1000], b""):
        (half.path / name).write_bytes(some)
        assert (store.adopt(half), len(store)) == (0, 0)
    (half.path / name).write_bytes(whole)
    assert (store.adopt(half), len(store)) == (1, 1), "its writer has come to the end"
    with pytest.raises(StoreError, match=r"of encoder means .* got other"):
        store.adopt(put(tmp_path / "b", 5, encoder="other"))


@pytest.mark.parametrize("at", ["before the move", "after the move"])
def test_what_a_killed_driver_has_left_is_taken_in(tmp_path: Path, at: str) -> None:
    """The worker has put its shard; the driver died before it moved it, or before the index had it."""
    pairs = pictures(tmp_path, 3)
    truth, where = plain(pairs, tmp_path / "plain"), tmp_path / "store"
    store = EmbeddingStore(where, "means")
    tasks = [Task(record, view, truth.key(*_named(truth, record, view))) for record, view in pairs[:4]]
    work = Encoding(Means, loaded, everything, str(where), "half", 2).worker()
    name, report = work(tasks)
    assert report.done == 4
    if at == "after the move":
        store.adopt(folder(where).below(INCOMING, "means", name), index=False)
    again = EmbeddingStore(where, "means")
    assert sweep(again) == (4 if at == "before the move" else 0)
    assert len(again) == 4
    assert folder(where).below(INCOMING, "means").folders() == []
    report = embed(pairs, loaded, Means(), again, needs=everything)
    assert (report.done, report.reused) == (2, 4)
    assert content(again) == content(truth)


def _named(store: EmbeddingStore, record: Record, view: View) -> tuple[str, str]:
    from specialsam.data.content import digest_record

    return digest_record(record), view.key


def test_what_others_have_left_or_are_writing_stays(tmp_path: Path) -> None:
    """Shards of another encoder, and one that another driver's worker has not yet put whole."""
    pairs, where = pictures(tmp_path, 2), tmp_path / "store"
    truth, store = plain(pairs, tmp_path / "plain"), EmbeddingStore(where, "means")
    tasks = [Task(record, view, truth.key(*_named(truth, record, view))) for record, view in pairs[:2]]
    name, _ = Encoding(Means, loaded, everything, str(where), "half", 2).worker()(tasks)
    place = where / INCOMING / "means" / name
    [shard] = place.glob("*.safetensors")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    assert sweep(store) == 0
    assert shard.exists()
    shard.write_bytes(whole)
    assert sweep(EmbeddingStore(where, "other")) == 0, "another encoder's driver passes them over"
    assert sweep(store) == 2
    assert not place.exists()


def test_views_of_an_image_stay_together_and_everybody_has_work() -> None:
    records = [Record(f"r{number}", Path(f"{number}.png")) for number in range(10)]
    tasks = [Task(record, view, f"{record.id}{view.key}") for record in records for view in (IDENTITY, FLIP)]
    for images, workers, sizes in ((64, 2, [6, 6, 6, 2]), (2, 1, [4] * 5), (64, 1, [10, 10]), (64, 99, [2] * 10)):
        batches = batched(tasks, images, workers)
        assert [len(batch) for batch in batches] == sizes
        assert [task for batch in batches for task in batch] == tasks
    assert batched([], 64, 2) == []


def test_cluster_settings_are_checked() -> None:
    assert cluster_of(None, {}) is None
    given = {"cluster": {"gpus": 0.25}, "seed": 1}
    assert cluster_of("ray", given) == ClusterSettings(gpus=0.25)
    assert given == {"seed": 1}
    for by, wrong, words in (
        ("slurm", {}, "expected --cluster ray, got 'slurm'"),
        (None, {"cluster": {"gpus": 1}}, "expected --cluster ray beside them"),
        ("ray", {"cluster": 3}, "settings by name"),
        ("ray", {"cluster": {"gpus": -1}}, "gpus"),
    ):
        with pytest.raises(UsageError, match=words):
            cluster_of(by, wrong)


@pytest.fixture(scope="module")
def address(s3: str) -> Iterator[str]:
    """A cluster of two nodes on this machine, which know the S3 server."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", STAY_HERE: "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    from ray import cloudpickle
    from ray.cluster_utils import Cluster

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20, "node_ip_address": LOOPBACK}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        cluster.add_node(**node)
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_cluster_fills_a_store_on_s3_though_a_worker_is_killed(
    s3: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers; the process that has put the first shard is killed, and so its next batch is done by another."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    pairs = [*pictures(tmp_path, 12), (Record("bad", tmp_path / "0.png"), View(flip_vertical=True))]
    truth = plain(pairs[:-1], tmp_path / "plain")
    store = EmbeddingStore(f"{s3}/store", "means")
    killed: list[int] = []

    def kill(done: int, total: int, phase: str) -> None:
        if phase == "encode" and not killed:
            pid = int((tmp_path / "pid").read_text())
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    how = ClusterSettings(address=address, images=2, cpus=0.5)
    make: Callable[[], Means] = partial(marked, tmp_path / "pid")
    report = embed_spread(pairs, loaded, make, store, how, needs=everything, batch_size=2, progress=kill)
    assert killed
    assert (report.done, report.reused) == (24, 0)
    assert [(one.record, one.error) for one in report.failed] == [("bad", "a picture that cannot be read")]
    monkeypatch.setenv(CACHE, str(tmp_path / "another machine"))
    found = EmbeddingStore(f"{s3}/store", "means")
    assert content(found) == content(truth)
    assert found.root.below(INCOMING, found.encoder_id).folders() == []
    again = embed_spread(pairs[:-1], loaded, make, found, how, needs=everything)
    assert (again.done, again.reused) == (0, 24)


def marked(path: Path) -> Means:
    """Leave the process's number, whole at every moment: another may read it while a second one comes."""
    part = path.with_name(f"{path.name}-{os.getpid()}")
    part.write_text(str(os.getpid()))
    part.replace(path)
    return Means(0.1)


def halved(number: int) -> int:
    if number == 13:
        raise ValueError("thirteen")
    return number // 2


@pytest.mark.slow
def test_answers_come_in_order_and_errors_too(address: str) -> None:
    """What `Place.spread` gives with a cluster, as evaluate and segment use it. Oracle: `map`."""
    how = ClusterSettings(address=address, images=2, cpus=0.5, workers=2)
    assert list(in_order(halved, range(12), how)) == list(map(halved, range(12)))
    with pytest.raises(SpecialSamError, match="ValueError: thirteen"):
        list(in_order(halved, [1, 13], how))
    with pytest.raises(UsageError, match="room for a worker of 9 CPU"):
        list(in_order(halved, [1], ClusterSettings(address=address, cpus=9)))
