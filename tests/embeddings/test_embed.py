"""The encoding loop: what it makes, reuses, leaves out and reports; kills, two processes, bounded memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from specialsam.core.errors import DataError, StoreError, UsageError
from specialsam.core.geometry import Geometry, ImageArray
from specialsam.core.types import Embedding, Record, Sample
from specialsam.data.content import digest_array
from specialsam.data.views import IDENTITY, View, apply
from specialsam.embeddings import EmbeddingStore, embed, price

FLIP = View(flip=True)


class MeanEncoder:
    """Encodes an image as its means on a 4x4 grid of nearest pixels; counts and remembers what it was given."""

    encoder_id = "mean"

    def __init__(self, fail_at: int = -1, seconds: float = 0.0) -> None:
        self.batches: list[int] = []
        self.fail_at, self.seconds = fail_at, seconds

    def encode_batch(self, images: Sequence[ImageArray], /) -> list[Embedding]:
        self.batches.append(len(images))
        time.sleep(self.seconds)
        if any(image[0, 0, 0] == self.fail_at for image in images):
            raise RuntimeError("the encoder\nchoked")
        grid = [image[:: image.shape[0] // 4, :: image.shape[1] // 4][:4, :4] for image in images]
        return [
            Embedding(torch.from_numpy(g.astype(np.float32)).permute(2, 0, 1) / 255, Geometry(*i.shape[:2], 64))
            for g, i in zip(grid, images, strict=True)
        ]


def sample(index: int, objects: int = 1, size: int = 16) -> Sample:
    image = np.random.default_rng(index).integers(0, 256, (size, size, 3), np.uint8)
    image[0, 0] = index % 256
    masks = np.zeros((objects, size, size), np.bool_)
    masks[:, 4:8, 4:8] = True
    return Sample(Record(f"r{index}", Path(f"{index}.png")), image, masks)


def setting(count: int, views: Sequence[View] = (IDENTITY,)) -> tuple[list[tuple[Record, View]], dict[str, Sample]]:
    samples = {one.id: one for one in (sample(index) for index in range(count))}
    return [(one.record, view) for one in samples.values() for view in views], samples


def run(
    pairs: Sequence[tuple[Record, View]], samples: dict[str, Sample], encoder: MeanEncoder, folder: Path, **more: object
) -> tuple[EmbeddingStore, object]:
    store = EmbeddingStore(folder, "mean")

    def digest(record: Record) -> str:
        return digest_array(samples[record.id].image)

    return store, embed(pairs, lambda r: samples[r.id], encoder, store, digest=digest, **more)  # type: ignore[arg-type]


def test_a_copy_takes_the_place_of_what_came_to_nothing(tmp_path: Path) -> None:
    """Of the same pixels the first has no object, cannot be encoded, or is encoded; whatever comes of it is listed."""
    empty, filled = sample(3, 0), sample(3)
    broken, copy = sample(7), sample(7)
    samples = {"empty": empty, "filled": filled, "again": filled, "broken": broken, "copy": copy}
    pairs = [(Record(name, Path(f"{name}.png")), IDENTITY) for name in samples]
    _, report = run(pairs, samples, MeanEncoder(fail_at=7), tmp_path)
    assert {name for name, _ in report.keys} == {"empty", "filled", "again"}
    assert (report.done, report.reused, report.without_objects) == (1, 1, 1)
    assert [failed.record for failed in report.failed] == ["broken", "copy"]


def test_the_reader_stops_when_the_loop_does(tmp_path: Path) -> None:
    pairs, samples = setting(200)
    loaded: list[str] = []

    def load(record: Record) -> Sample:
        loaded.append(record.id)
        return samples[record.id]

    class Full(MeanEncoder):
        def encode_batch(self, images: Sequence[ImageArray], /) -> list[Embedding]:
            raise KeyboardInterrupt

    store = EmbeddingStore(tmp_path, "mean")
    with pytest.raises(KeyboardInterrupt):
        embed(pairs, load, Full(), store, digest=lambda record: digest_array(samples[record.id].image))
    assert len(loaded) < 10


def test_everything_is_encoded_once_in_its_view(tmp_path: Path) -> None:
    pairs, samples = setting(5, (IDENTITY, FLIP))
    calls: list[tuple[int, int, str]] = []
    store, report = run(pairs, samples, MeanEncoder(), tmp_path, batch_size=4, progress=lambda *c: calls.append(c))
    assert (report.done, report.reused, report.failed, report.without_objects) == (10, 0, (), 0)
    assert report.bytes == 10 * 3 * 4 * 4 * 2
    assert report.images_per_second > 0
    assert [call for call in calls if call[2] == "encode"] == [(4, 10, "encode"), (8, 10, "encode"), (10, 10, "encode")]
    for record, view in pairs:
        want = MeanEncoder().encode_batch([apply(view, samples[record.id]).image])[0]
        got = store.get(report.keys[record.id, view.key])
        assert torch.equal(got.tensor, want.tensor.half())
        assert got.geometry == want.geometry
    straight, flipped = (store.get(report.keys["r0", view.key]).tensor for view in (IDENTITY, FLIP))
    assert not torch.equal(straight.flip(2), flipped), "the encoding of a flipped image is not the flipped encoding"

    encoder = MeanEncoder()
    _, again = run(pairs, samples, encoder, tmp_path)
    assert (again.done, again.reused, again.keys) == (0, 10, report.keys)
    assert not encoder.batches


def test_equal_images_are_stored_once(tmp_path: Path) -> None:
    pairs, samples = setting(3)
    twin = Record("twin", Path("0.png"))
    samples["twin"] = Sample(twin, samples["r0"].image, samples["r0"].masks)
    store, report = run([*pairs, (twin, IDENTITY)], samples, MeanEncoder(), tmp_path)
    assert (report.done, report.reused, len(store)) == (3, 1, 3)
    assert report.keys["twin", ""] == report.keys["r0", ""]


@pytest.mark.parametrize("batch", [1, 3])
def test_an_image_that_fails_is_listed_and_the_others_go_on(tmp_path: Path, batch: int) -> None:
    pairs, samples = setting(6)
    loaded: list[str] = []

    def load(record: Record) -> Sample:
        loaded.append(record.id)
        if record.id == "r1":
            raise DataError("1.png: the image is damaged")
        return samples[record.id]

    def digest(record: Record) -> str:
        if record.id == "r5":
            raise DataError("5.png: expected a readable image file")
        return digest_array(samples[record.id].image)

    store = EmbeddingStore(tmp_path, "mean")
    report = embed(pairs, load, MeanEncoder(fail_at=3), store, batch_size=batch, digest=digest)
    assert {(failure.record, failure.error) for failure in report.failed} == {
        ("r1", "1.png: the image is damaged"),
        ("r3", "RuntimeError: the encoder choked"),
        ("r5", "5.png: expected a readable image file"),
    }
    assert report.done == 3
    assert {record for record, _ in report.keys} == {"r0", "r2", "r4"}
    assert "r5" not in loaded


def test_an_embedding_that_is_not_finite_is_a_failure(tmp_path: Path) -> None:
    class Broken(MeanEncoder):
        def encode_batch(self, images: Sequence[ImageArray], /) -> list[Embedding]:
            return [Embedding(e.tensor * float("nan"), e.geometry) for e in super().encode_batch(images)]

    pairs, samples = setting(2)
    store, report = run(pairs, samples, Broken(), tmp_path)
    assert [failure.record for failure in report.failed] == ["r0", "r1"]
    assert all("finite" in failure.error for failure in report.failed)
    assert len(store) == 0


def test_images_without_objects_are_encoded_only_if_asked(tmp_path: Path) -> None:
    pairs, samples = setting(3)
    samples["r1"] = Sample(samples["r1"].record, samples["r1"].image, np.zeros((0, 16, 16), np.bool_))
    corner = np.zeros((1, 16, 16), np.bool_)
    corner[0, :2, :2] = True
    samples["r2"] = Sample(samples["r2"].record, samples["r2"].image, corner)
    turned = View(rotation=45)
    pairs.append((samples["r2"].record, turned))
    _, report = run(pairs, samples, MeanEncoder(), tmp_path)
    assert (report.done, report.without_objects) == (2, 2), "r1 has none, r2 loses its own when it turns"
    assert set(report.keys) == {("r0", ""), ("r2", "")}
    _, report = run(pairs, samples, MeanEncoder(), tmp_path, needs=lambda _: True)
    assert (report.done, report.reused, report.without_objects) == (2, 2, 0)


def test_the_price_is_measured_without_storing(tmp_path: Path) -> None:
    pairs, samples = setting(10)
    run(pairs[:4], samples, MeanEncoder(), tmp_path)
    store, encoder = EmbeddingStore(tmp_path, "mean"), MeanEncoder(seconds=0.02)
    cost = price(pairs, lambda r: samples[r.id], encoder, store, digest=lambda r: digest_array(samples[r.id].image))
    assert (cost.total, cost.stored, cost.todo, cost.sampled, cost.bytes_per_image) == (10, 4, 6, 3, 96)
    assert cost.gigabytes == pytest.approx(6 * 96 / 1e9)
    assert 6 * 0.02 / 60 <= cost.minutes < 6 * 0.2 / 60
    assert len(encoder.batches) == 4, "one to warm up, three to measure"
    assert len(EmbeddingStore(tmp_path, "mean")) == 4
    done = price(pairs[:4], lambda r: samples[r.id], encoder, store, digest=lambda r: digest_array(samples[r.id].image))
    assert (done.todo, done.minutes, done.gigabytes) == (0, 0, 0)


def test_another_encoder_and_a_wrong_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="expected a store of encoder mean, got one of other"):
        embed([], sample, MeanEncoder(), EmbeddingStore(tmp_path, "other"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="batch of at least 1"):
        embed([], sample, MeanEncoder(), EmbeddingStore(tmp_path, "mean"), batch_size=0)  # type: ignore[arg-type]


def test_a_store_error_ends_the_run_and_its_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from specialsam.embeddings.store import Writer

    real = Writer.put

    def full(self: Writer, key: str, embedding: Embedding, record: str, view: str = "") -> object:
        if record == "r3":
            raise StoreError("the disk is full")
        return real(self, key, embedding, record, view)

    monkeypatch.setattr(Writer, "put", full)
    pairs, samples = setting(50)
    with pytest.raises(StoreError, match="full"):
        run(pairs, samples, MeanEncoder(), tmp_path)
    assert [entry.record for entry in EmbeddingStore(tmp_path, "mean").entries()] == ["r0", "r1", "r2"]
    assert not [thread for thread in threading.enumerate() if thread.name == "specialsam-read-ahead"]


def test_a_damaged_embedding_is_made_again(tmp_path: Path) -> None:
    pairs, samples = setting(4)
    run(pairs, samples, MeanEncoder(), tmp_path)
    (path,) = (tmp_path / "mean").glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(data)
    assert [damage.record for damage in EmbeddingStore(tmp_path, "mean").verify()] == ["r3"]
    store, report = run(pairs, samples, MeanEncoder(), tmp_path)
    assert (report.done, report.reused) == (1, 3)
    assert store.verify() == []


def test_a_truncated_shard_is_made_again_without_being_asked(tmp_path: Path) -> None:
    pairs, samples = setting(3)
    run(pairs, samples, MeanEncoder(), tmp_path)
    (path,) = (tmp_path / "mean").glob("*.safetensors")
    os.truncate(path, path.stat().st_size // 2)
    store, report = run(pairs, samples, MeanEncoder(), tmp_path)
    assert (report.done, report.reused) == (3, 0)
    assert store.verify() == []
    assert len(list((tmp_path / "mean").glob("*.safetensors"))) == 1, "verify has removed the broken one"


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Python's own count of array memory: the peak over 1,000 images is within a batch of that over 100."""
    peaks, size, batch = [], 64, 4
    for count in (100, 1000):
        store, records = EmbeddingStore(tmp_path / str(count), "mean"), [sample(i, size=4).record for i in range(count)]

        def load(record: Record) -> Sample:
            return sample(int(record.id[1:]), size=size)

        tracemalloc.start()
        report = embed(
            ((r, IDENTITY) for r in records), load, MeanEncoder(), store, batch_size=batch, digest=lambda r: r.id
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert report.done == count
    facts = 900 * 2_500  # An entry and its journal line for each more image, bytes.
    assert peaks[1] - peaks[0] < batch * size * size * 3 + facts
    assert peaks[1] < 1000 * size * size * 3 / 2, "holding all images would take far more"


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_embed import MeanEncoder, setting, run
first, last, seconds = int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
pairs, samples = setting(last)
print("go", flush=True)
run(pairs[first:], samples, MeanEncoder(seconds=seconds), Path(sys.argv[2]),
    progress=lambda done, total, what: print(what, done, flush=True))
"""


def child(folder: Path, first: int, last: int, seconds: float) -> subprocess.Popen[str]:
    arguments = [str(Path(__file__).parent), str(folder), str(first), str(last), str(seconds)]
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_run_loses_at_most_the_image_in_hand(tmp_path: Path) -> None:
    process = child(tmp_path, 0, 200, 0.005)
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        if line.startswith("encode"):
            seen = int(line.split()[1])
        if seen >= 20:
            os.kill(process.pid, signal.SIGKILL)
            break
    seen += sum(line.startswith("encode") for line in process.stdout)
    process.wait()
    store = EmbeddingStore(tmp_path, "mean")
    assert seen <= len(store) <= seen + 1, "one may have been stored whose progress was not yet told"
    assert store.verify() == []
    assert not list((tmp_path / "mean").glob("*.part"))
    pairs, samples = setting(200)
    kept = len(store)
    store, report = run(pairs, samples, MeanEncoder(), tmp_path)
    assert (report.reused, report.done) == (kept, 200 - kept)


@pytest.mark.skipif(sys.platform == "win32", reason="file locks are tested where they are flock")
def test_two_processes_write_at_once(tmp_path: Path) -> None:
    other = child(tmp_path, 0, 60, 0.005)
    assert other.stdout is not None
    assert other.stdout.readline() == "go\n"
    pairs, samples = setting(90)
    held: list[int] = []

    def look(done: int, total: int, what: str) -> None:
        if what == "encode" and done % 10 == 0:
            held.append(len(EmbeddingStore(tmp_path, "mean")))  # Opening must leave live writers alone.

    _, report = run(pairs[30:], samples, MeanEncoder(seconds=0.005), tmp_path, progress=look)
    assert report.done + report.reused == 60
    assert report.failed == ()
    assert len(held) >= 3
    other.communicate()
    assert other.returncode == 0
    store = EmbeddingStore(tmp_path, "mean")
    assert len(store) == 90
    assert store.verify() == []
    _, report = run(pairs, samples, MeanEncoder(), tmp_path)
    assert (report.reused, report.done) == (90, 0)
