"""The index of many shards: partitions, merging, other processes. Oracle: a dictionary of what was written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialsam.core.folders import Folder
from specialsam.embeddings import index as index_module
from specialsam.embeddings.catalogue import Catalogue
from specialsam.embeddings.index import head_of, merge, open_index, write_partition
from specialsam.embeddings.shards import Entry

Steps = list[tuple[int, list[int]]]
"""(shard, keys that it holds now) of each partition written, the last one of a shard counting."""


def entry(key: int, shard: int, created: float = 0.0) -> Entry:
    return Entry(f"key{key}", f"s{shard}", f"record {key}", "", 4, 4, 8, 2, 1, 1, "half", "enc", created, 10, 4, key)


def written(folder: Path, steps: Steps) -> dict[str, dict[str, Entry]]:
    """Write a partition a step; what each shard holds in the end."""
    folder.mkdir(parents=True)
    held: dict[str, dict[str, Entry]] = {}
    for number, (shard, keys) in enumerate(steps):
        entries = [entry(key, shard, float(number)) for key in dict.fromkeys(keys)]
        write_partition(Folder(folder), {f"s{shard}": entries})
        held[f"s{shard}"] = {one.key: one for one in entries}
    for name, entries_of in held.items():
        if entries_of:
            (folder / f"{name}.safetensors").write_bytes(bytes(20))
    return held


def told(catalogue: Catalogue) -> dict[str, Entry]:
    return {one.key: one for one in catalogue}


@given(st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 30), max_size=8)), min_size=1, max_size=12))
def test_the_newest_partition_decides_before_and_after_merging(
    tmp_path_factory: pytest.TempPathFactory, steps: Steps
) -> None:
    folder = tmp_path_factory.mktemp("index") / "enc"
    held = written(folder, steps)
    want: dict[str, Entry] = {}
    for entries in held.values():
        for one in entries.values():
            want[one.key] = max(one, want.get(one.key, one), key=lambda found: found.created)
    catalogue = Catalogue(Folder(folder))
    catalogue.refresh(())
    assert (told(catalogue), len(catalogue)) == (want, len(want))
    while merge(catalogue.files, catalogue.partitions, catalogue.shards):
        catalogue.partitions, _ = open_index(catalogue.files, catalogue.partitions)
        catalogue.choose()
        assert told(catalogue) == want
    again = Catalogue(Folder(folder))
    again.refresh(())
    assert (told(again), again.lost) == (want, [])
    for key in range(31):
        assert again.find(f"key{key}") == want.get(f"key{key}")
    assert {name: {one.key for one in again.entries_of(name)} for name in held} == {n: set(e) for n, e in held.items()}


def test_many_small_partitions_become_few_and_large_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "MOST_ROWS", 40)
    folder = tmp_path / "enc"
    folder.mkdir()
    catalogue = Catalogue(Folder(folder))
    for shard in range(100):
        (folder / f"s{shard}.safetensors").write_bytes(bytes(20))
        catalogue.own[f"s{shard}"] = [entry(shard, shard)]
        catalogue.save()
        assert len(catalogue.partitions) <= shard // 10 + 4
    assert max(part.weight for part in catalogue.partitions) <= 40
    assert sorted(told(catalogue)) == sorted(f"key{shard}" for shard in range(100))
    assert len(list(folder.glob("*.arrow"))) == len(catalogue.partitions)


def test_a_reader_goes_on_while_another_process_merges(tmp_path: Path) -> None:
    written(tmp_path / "enc", [(shard, [shard]) for shard in range(6)])
    reader, writer = (Catalogue(Folder(tmp_path / "enc")) for _ in range(2))
    reader.refresh(())
    writer.refresh(())
    writer.save()
    assert len(list((tmp_path / "enc").glob("*.arrow"))) < 6
    assert sorted(told(reader)) == [f"key{shard}" for shard in range(6)]
    reader.refresh(())
    assert sorted(told(reader)) == [f"key{shard}" for shard in range(6)]


def test_heads_that_are_spread_unevenly_are_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key in a corner of what numbers there are: no row lies where it should."""
    monkeypatch.setattr(index_module, "REACH", 3)
    monkeypatch.setattr(index_module, "head_of", lambda key: int(key[3:]) % 7)
    folder = tmp_path / "enc"
    folder.mkdir()
    write_partition(Folder(folder), {"s0": [entry(key, 0) for key in range(100)]})
    ((part,), _) = open_index(Folder(folder))
    for key in range(100):
        assert [one.record for one in part.find(f"key{key}", key % 7)] == [f"record {key}"]
    assert head_of("key1") > 7
    assert part.find("key100", 100 % 7) == []
