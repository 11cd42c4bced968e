"""The store: keys, precision, plain safetensors, several writers, damage, eviction, disks that refuse."""

from __future__ import annotations

import errno
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from specialsam.core.errors import DataError, StoreError, UsageError
from specialsam.core.geometry import Geometry
from specialsam.core.types import Embedding
from specialsam.data.content import digest_array, digest_file
from specialsam.embeddings import EmbeddingStore, content_key, encoders
from specialsam.embeddings import parts as parts_module
from specialsam.embeddings import store as store_module
from specialsam.embeddings.shards import HEADER_BYTES, Precision

SHAPE = (8, 4, 4)


def embedding(seed: int, shape: tuple[int, int, int] = SHAPE) -> Embedding:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return Embedding(tensor, Geometry(30 + seed % 7, 40, 64))


def filled(folder: Path, count: int = 4, precision: Precision = "half", start: int = 0) -> EmbeddingStore:
    store = EmbeddingStore(folder, "enc", precision)
    with store.writer() as writer:
        for seed in range(start, start + count):
            writer.put(store.key(f"image-{seed}"), embedding(seed), f"record-{seed}")
    return store


def forget_index(folder: Path) -> None:
    for path in (folder / "enc").glob("*.arrow"):
        path.unlink()


def index(folder: Path) -> arrow.Table:
    """Oracle: pyarrow on the one file of the index alone, copied out of the mapped file."""
    (path,) = (folder / "enc").glob("*.arrow")
    return arrow.ipc.open_file(arrow.BufferReader(path.read_bytes())).read_all()


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "enc").glob("*.safetensors"))


def test_half_reads_back_mapped_with_its_geometry_and_key(tmp_path: Path) -> None:
    filled(tmp_path)
    store = EmbeddingStore(tmp_path, "enc")
    assert len(store) == 4
    for seed in range(4):
        key, given_ = store.key(f"image-{seed}"), embedding(seed)
        got = store.get(key)
        assert key in store
        assert got.key == key
        assert got.geometry == given_.geometry
        assert got.tensor.dtype == torch.float16
        assert torch.equal(got.tensor, given_.tensor.half())
    one, two = (store.get(store.key(f"image-{seed}")).tensor.data_ptr() for seed in (0, 1))
    assert two - one == 2 * 8 * 4 * 4, "neighbours in the mapped file: nothing was copied"


@pytest.mark.parametrize("precision", ["half", "full", "int8"])
@pytest.mark.parametrize("shape", [SHAPE, (3, 3, 5)])
def test_plain_safetensors_read_what_get_gives(
    tmp_path: Path, precision: Precision, shape: tuple[int, int, int]
) -> None:
    """Oracle: the safetensors library on the file alone; 3x3x5 int8 needs padding to keep the next scale aligned."""
    store = EmbeddingStore(tmp_path, "enc", precision)
    keys = [store.key(str(seed)) for seed in range(3)]
    with store.writer() as writer:
        for seed, key in enumerate(keys):
            writer.put(key, embedding(seed, shape), f"r{seed}")
    store = EmbeddingStore(tmp_path, "enc", precision)
    (path,) = shards(tmp_path)
    with safe_open(path, framework="np") as file:
        for key in keys:
            values = file.get_tensor(key)
            if precision == "int8":
                assert values.dtype == np.int8
                values = values * file.get_tensor(f"{key}.scale")[:, None, None]
            np.testing.assert_array_equal(store.get(key).tensor.numpy(), values)
    batch = store.get_batch(keys)
    assert batch.shape == (3, *shape)
    for row, key in zip(batch, keys, strict=True):
        assert torch.equal(row, store.get(key).tensor)
    assert [found.key for found in store.get_many(keys)] == keys


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
@settings(max_examples=30, deadline=None)
def test_precision_errors_are_bounded(tmp_path_factory: pytest.TempPathFactory, seed: int, size: float) -> None:
    """Half rounds to 11 significant bits (2^-11 relative, 2^-25 when tiny); int8 errs by at most half a step."""
    exact = embedding(seed % 1000).tensor * size
    folder = tmp_path_factory.mktemp("store")
    found = {}
    for precision in ("half", "int8", "full"):
        store = EmbeddingStore(folder / precision, "enc", precision)
        with store.writer() as writer:
            writer.put("k", Embedding(exact, Geometry(30, 40, 64)), "r")
        found[precision] = store.get("k").tensor.float()
    assert torch.equal(found["full"], exact)
    assert ((found["half"] - exact).abs() <= exact.abs() * 2**-11 + 2**-25).all()
    step = exact.abs().amax((1, 2), keepdim=True) / 127
    assert ((found["int8"] - exact).abs() <= step * 0.5001).all()


def test_int8_keeps_an_empty_channel_and_tiny_values_finite(tmp_path: Path) -> None:
    tensor = torch.zeros(SHAPE)
    tensor[1] = 1e-44
    store = EmbeddingStore(tmp_path, "enc", "int8")
    with store.writer() as writer:
        writer.put("k", Embedding(tensor, Geometry(30, 40, 64)), "r")
    assert store.get("k").tensor.abs().max() < 1e-37


def test_values_that_cannot_be_stored_are_refused(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, "enc")
    with store.writer() as writer:
        for value, words in ((float("nan"), "finite"), (1e6, "half precision")):
            with pytest.raises(DataError, match=words):
                writer.put("k", Embedding(torch.full(SHAPE, value), Geometry(30, 40, 64)), "r")
    assert len(store) == 0
    assert not shards(tmp_path), "a run that stored nothing leaves no shard"
    assert not list((tmp_path / "enc").glob("*.part"))


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), min_size=2, max_size=8, unique=True))
def test_distinct_inputs_have_distinct_keys(inputs: list[tuple[str, str, str]]) -> None:
    assert len({content_key(*one) for one in inputs}) == len(inputs)


def test_digests_tell_shape_and_bytes(tmp_path: Path) -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert digest_array(image) == digest_array(image.copy())
    assert digest_array(image) != digest_array(image.reshape(4, 2, 3))
    assert digest_array(image) != digest_array(image[::-1])
    (tmp_path / "a").write_bytes(image.tobytes())
    assert digest_file(tmp_path / "a") != digest_array(image)
    with pytest.raises(DataError, match=r"nothing\.png"):
        digest_file(tmp_path / "nothing.png")


def test_precision_decides_what_counts_as_present(tmp_path: Path) -> None:
    filled(tmp_path, 1, "int8")
    half = EmbeddingStore(tmp_path, "enc", "half")
    key = half.key("image-0")
    assert key not in half, "asked for more than is stored"
    with half.writer() as writer:
        writer.put(key, embedding(0), "record-0")
    assert key in EmbeddingStore(tmp_path, "enc", "int8"), "more exact than asked for"
    with EmbeddingStore(tmp_path, "enc", "int8").writer() as writer:
        writer.put(key, embedding(0), "record-0")
    assert EmbeddingStore(tmp_path, "enc").get(key).tensor.dtype == torch.float16, "the more exact one counts"


def test_an_embedding_is_readable_before_its_shard_is_finished(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, "enc")
    with store.writer() as writer:
        writer.put("k", embedding(1), "r")
        assert torch.equal(store.get("k").tensor, embedding(1).tensor.half())
        assert torch.equal(store.get_batch(["k"])[0], embedding(1).tensor.half())
        store.refresh()
        assert "k" in store
    assert torch.equal(store.get("k").tensor, embedding(1).tensor.half())


def test_another_encoder_never_mixes(tmp_path: Path) -> None:
    filled(tmp_path)
    other = EmbeddingStore(tmp_path, "other")
    assert len(other) == 0
    assert other.key("image-0") not in other
    assert other.key("image-0") != content_key("enc", "image-0")
    assert encoders(tmp_path) == ["enc"]
    with pytest.raises(StoreError, match=r"expected embeddings of encoder other .* found embeddings of enc; run embed"):
        EmbeddingStore.open_existing(tmp_path, "other")
    with pytest.raises(StoreError, match="found no embeddings"):
        EmbeddingStore.open_existing(tmp_path / "nowhere", "enc")
    assert len(EmbeddingStore.open_existing(tmp_path, "enc")) == 4


def test_wrong_use_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="int8, half, full"):
        EmbeddingStore(tmp_path, "enc", "float64")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="encoder id"):
        EmbeddingStore(tmp_path, "../enc")
    with pytest.raises(UsageError, match="above 0"):
        EmbeddingStore(tmp_path, "enc", max_gb=0)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="got the file"):
        EmbeddingStore(tmp_path / "file", "enc")
    with pytest.raises(StoreError, match="never stored; run embed"):
        EmbeddingStore(tmp_path, "enc").get("0" * 64)


def test_two_open_writers_and_the_index(tmp_path: Path) -> None:
    one, two = EmbeddingStore(tmp_path, "enc"), EmbeddingStore(tmp_path, "enc")
    with one.writer() as first, two.writer() as second:
        for seed in range(6):
            (first if seed % 2 else second).put(one.key(str(seed)), embedding(seed), f"r{seed}", "flip=True")
    merged = EmbeddingStore(tmp_path, "enc")
    assert len(merged) == 6
    one.refresh()
    assert len(one) == 6
    table = index(tmp_path).to_pandas()
    assert sorted(table.record) == [f"r{seed}" for seed in range(6)]
    assert table["head"].is_monotonic_increasing, "sorted, to be found by bisection"
    assert set(table.view) == {"flip=True"}
    assert len(set(table.shard)) == 2


@pytest.mark.parametrize("kind", ["missing", "damaged", "foreign"])
def test_a_lost_index_is_made_from_the_shards(tmp_path: Path, kind: str) -> None:
    filled(tmp_path)
    before = index(tmp_path)
    (path,) = (tmp_path / "enc").glob("*.arrow")
    if kind == "missing":
        path.unlink()
    elif kind == "damaged":
        path.write_bytes(path.read_bytes()[:100])
    else:
        other = before.drop_columns(["crc"])
        with arrow.ipc.new_file(path, other.schema) as file:
            file.write_table(other)
    assert len(EmbeddingStore(tmp_path, "enc")) == 4
    assert index(tmp_path).equals(before)


def test_a_full_shard_begins_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "SHARD_BYTES", HEADER_BYTES + 600)
    store = filled(tmp_path, 5)
    assert len(shards(tmp_path)) == 3, "256 bytes each, two fit"
    assert len(EmbeddingStore(tmp_path, "enc")) == 5
    assert torch.equal(store.get(store.key("image-4")).tensor, embedding(4).tensor.half())


def test_a_header_that_is_full_begins_the_next_shard(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, "enc")
    with store.writer() as writer:
        for seed in range(5):
            writer.put(store.key(str(seed)), embedding(seed), "ä" * 15_000 + str(seed))
        with pytest.raises(DataError, match="record id that fits"):
            writer.put("k", embedding(9), "x" * HEADER_BYTES)
    assert len(shards(tmp_path)) > 1
    assert {entry.record[-1] for entry in EmbeddingStore(tmp_path, "enc").entries()} == set("01234")
    for path in shards(tmp_path):
        with safe_open(path, framework="np") as file:
            assert file.keys()


def test_verify_names_a_flipped_byte_and_the_entry_is_made_again(tmp_path: Path) -> None:
    filled(tmp_path)
    (path,) = shards(tmp_path)
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 2 * 256 + 77] ^= 16
    path.write_bytes(data)
    store = EmbeddingStore(tmp_path, "enc")
    key = store.key("image-2")
    with pytest.raises(StoreError, match=r"record-2.*verify"):
        store.get(key)
    (damage,) = store.verify()
    assert (damage.record, damage.key, damage.shard) == ("record-2", key, path.stem)
    for again in (store, EmbeddingStore(tmp_path, "enc")):
        assert key not in again
        assert len(again) == 3
        assert again.verify() == []
    with store.writer() as writer:
        writer.put(key, embedding(2), "record-2")
    assert torch.equal(EmbeddingStore(tmp_path, "enc").get(key).tensor, embedding(2).tensor.half())


def test_verify_can_only_look(tmp_path: Path) -> None:
    filled(tmp_path)
    (path,) = shards(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    store, calls = EmbeddingStore(tmp_path, "enc"), []
    for _ in range(2):
        assert [d.record for d in store.verify(drop=False, progress=lambda *call: calls.append(call))] == ["record-3"]
    assert calls[3] == (4, 4, "verify")


@pytest.mark.parametrize("kind", ["truncated", "missing", "header", "foreign"])
def test_a_broken_shard_is_named_by_its_records(tmp_path: Path, kind: str) -> None:
    filled(tmp_path, 3)
    (path,) = shards(tmp_path)
    filled(tmp_path, 1, start=3)
    if kind == "truncated":
        os.truncate(path, path.stat().st_size - 10)
    elif kind == "missing":
        path.unlink()
    elif kind == "header":
        with path.open("r+b") as file:
            file.seek(20)
            file.write(b"\0\0")
    else:
        path.write_bytes(b"something else altogether" * 100)
    store = EmbeddingStore(tmp_path, "enc")
    damage = store.verify()
    assert sorted(d.record for d in damage) == ["record-0", "record-1", "record-2"]
    assert {d.shard for d in damage} == {path.stem}
    assert [entry.record for entry in store.entries()] == ["record-3"]
    assert not path.exists(), "a shard without a usable embedding is removed"
    assert EmbeddingStore(tmp_path, "enc").verify() == []


def test_a_broken_shard_without_index_is_named_as_such(tmp_path: Path) -> None:
    filled(tmp_path)
    (path,) = shards(tmp_path)
    os.truncate(path, 1000)
    forget_index(tmp_path)
    store = EmbeddingStore(tmp_path, "enc")
    (damage,) = store.verify()
    assert (damage.record, damage.key, damage.shard) == ("", "", path.stem)


@pytest.mark.parametrize("kind", ["whole", "torn payload", "torn line", "line before payload", "no journal"])
def test_what_a_dead_writer_left_is_taken_in_up_to_the_first_tear(tmp_path: Path, kind: str) -> None:
    """The part of a live writer, copied, stands for a dead one's: no process holds the copy's lock."""
    store = EmbeddingStore(tmp_path, "enc")
    dead = tmp_path / "dead" / "enc"
    dead.mkdir(parents=True)
    with store.writer() as writer:
        for seed in range(3):
            writer.put(store.key(f"image-{seed}"), embedding(seed), f"record-{seed}")
        for path in (tmp_path / "enc").iterdir():
            (dead / path.name).write_bytes(path.read_bytes())
    (part,), (journal,) = dead.glob("*.part"), dead.glob("*.journal")
    if kind == "torn payload":
        with part.open("ab") as file:
            file.write(b"x" * 100)
    elif kind == "torn line":
        os.truncate(journal, journal.stat().st_size - 5)
    elif kind == "line before payload":
        os.truncate(part, part.stat().st_size - 5)
    elif kind == "no journal":
        journal.unlink()
    whole = {"whole": 3, "torn payload": 3, "no journal": 0}.get(kind, 2)
    found = EmbeddingStore(tmp_path / "dead", "enc")
    assert [entry.record for entry in found.entries()] == [f"record-{seed}" for seed in range(whole)]
    assert found.verify() == []
    assert {path.suffix for path in dead.iterdir()} == ({".safetensors", ".arrow"} if whole else set())
    for seed in range(whole):
        assert torch.equal(found.get(store.key(f"image-{seed}")).tensor, embedding(seed).tensor.half())


def test_threads_read_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "OPEN_SHARDS", 2)
    for seed in range(6):
        filled(tmp_path, 1, start=seed)
    store = EmbeddingStore(tmp_path, "enc")
    seeds = [seed % 6 for seed in range(240)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: store.get(store.key(f"image-{seed}")).tensor, seeds))
    for seed, tensor in zip(seeds, found, strict=True):
        assert torch.equal(tensor, embedding(seed).tensor.half())


def test_a_shard_that_another_run_evicts_is_one_line_here(tmp_path: Path) -> None:
    filled(tmp_path)
    store = EmbeddingStore(tmp_path, "enc")
    other = EmbeddingStore(tmp_path, "enc", max_gb=1e-9)
    assert [gone.embeddings for gone in other.evict()] == [4]
    with pytest.raises(StoreError, match="run embed again"):
        store.get(store.key("image-0"))
    store.refresh()
    assert len(store) == 0
    assert store.verify() == [], "gone on purpose is not damage"


def test_eviction_removes_the_oldest_shards_that_this_run_does_not_need(tmp_path: Path) -> None:
    for seed in range(4):
        filled(tmp_path, 1, start=seed)
    size = EmbeddingStore(tmp_path, "enc").size()
    oldest = [path.stem for path in shards(tmp_path)]
    store = EmbeddingStore(tmp_path, "enc", max_gb=3.5 * size / 4 / 1e9)
    store.get(store.key("image-0"))
    with store.writer() as writer:
        writer.put(store.key("new"), embedding(9), "new")
    assert [gone.shard for gone in store.evicted] == oldest[1:3], "the oldest is in use, the next two go"
    assert [gone.embeddings for gone in store.evicted] == [1, 1]
    assert store.size() <= 3.5 * size / 4
    for again in (store, EmbeddingStore(tmp_path, "enc")):
        assert sorted(entry.record for entry in again.entries()) == ["new", "record-0", "record-3"]
        assert again.verify() == []


def test_a_limit_that_this_run_exceeds_is_said(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, "enc", max_gb=1e-9)
    with store.writer() as writer:
        writer.put("k", embedding(0), "r")
    assert "k" in store
    assert not store.evicted
    assert any("over its limit" in note for note in store.notes)


def test_a_full_disk_is_one_line_and_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = parts_module._write_all, []

    def small_disk(file: object, data: bytes) -> None:
        written.append(len(data))
        if len(written) == 8:  # header; payload and journal line of three; half of the fourth payload
            real(file, data[: len(data) // 2])  # type: ignore[arg-type]
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, data)  # type: ignore[arg-type]

    monkeypatch.setattr(parts_module, "_write_all", small_disk)
    with pytest.raises(StoreError, match="the disk is full") as caught:
        filled(tmp_path, 5)
    assert "\n" not in str(caught.value)
    store = EmbeddingStore(tmp_path, "enc")
    assert [entry.record for entry in store.entries()] == ["record-0", "record-1", "record-2"]
    assert store.verify() == []


def test_a_disk_full_to_the_end_leaves_a_part_that_is_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_sync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(parts_module.os, "fsync", no_sync)
        with pytest.raises(StoreError, match="the disk is full"):
            filled(tmp_path, 2)
        assert any("is left as it is" in note for note in EmbeddingStore(tmp_path, "enc").notes)
    assert not shards(tmp_path)
    assert EmbeddingStore(tmp_path, "enc").verify() == []
    assert len(EmbeddingStore(tmp_path, "enc")) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="/proc refuses every new folder, root's too, on Linux only")
def test_a_folder_that_cannot_be_written_is_one_line() -> None:
    store = EmbeddingStore(Path("/proc/store"), "enc")
    assert len(store) == 0
    with pytest.raises(StoreError, match="can be written, got /proc/store/enc"), store.writer() as writer:
        writer.put("k", embedding(0), "r")


def test_a_read_only_store_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    forget_index(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    (path,) = shards(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    before = sorted((tmp_path / "enc").iterdir())
    store = EmbeddingStore(tmp_path, "enc")
    assert [damage.record for damage in store.verify()] == ["record-3"]
    assert len(store) == 3
    assert sorted((tmp_path / "enc").iterdir()) == before
