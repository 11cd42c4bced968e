"""Folders here and behind fsspec. Oracles: the files themselves, and an S3 server (moto) on loopback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specialsam.core.errors import DataError, SpecialSamError, UsageError
from specialsam.core.files import open_regular
from specialsam.core.folders import (
    CACHE,
    CACHE_GB,
    COPIES,
    MARK,
    Folder,
    Mirror,
    at_hand,
    folder,
    in_use,
    is_url,
    mirrored,
)
from specialsam.data.images import read_image, write_png
from specialsam.data.open import open_dataset


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache" / COPIES


@pytest.fixture(params=["path", "file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, cache: Path) -> Folder:
    """An empty folder of each kind."""
    if request.param == "s3":
        return folder(f"{request.getfixturevalue('s3')}/{tmp_path.name}/store")
    return folder(f"file://{tmp_path}/store" if request.param == "file" else tmp_path / "store")


def filled(place: Folder, tmp_path: Path, **files: bytes) -> None:
    (tmp_path / "made").mkdir(exist_ok=True)
    for name, content in files.items():
        (tmp_path / "made" / name).write_bytes(content)
        place.publish(tmp_path / "made" / name, f"{name}.bin")


def test_what_is_published_is_listed_read_moved_and_removed(place: Folder, tmp_path: Path) -> None:
    assert (place.sizes(".bin"), place.folders()) == ({}, [])
    filled(place.below("in", "one"), tmp_path, a=b"12345", b=b"6")
    other = place.below("in", "one")
    assert (place.below("in").folders(), other.sizes(".bin")) == (["one"], {"a.bin": 5, "b.bin": 1})
    assert other.sizes(".txt") == {}
    assert (other.head("a.bin", 3), other.fetch("a.bin").read_bytes()) == (b"123", b"12345")
    place.take(other, "a.bin")
    assert (place.sizes(".bin"), other.sizes(".bin")) == ({"a.bin": 5}, {"b.bin": 1})
    assert place.fetch("a.bin").read_bytes() == b"12345"
    place.remove("a.bin")
    place.remove("a.bin")
    place.below("in").clear()
    assert (place.sizes(".bin"), place.below("in").folders()) == ({}, [])
    assert COPIES not in place.work.parts, "what is no copy does not give way to copies"
    with pytest.raises(FileNotFoundError):
        place.fetch("a.bin").read_bytes()


def test_copies_stay_below_the_limit_and_the_last_used_are_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = folder(f"file://{tmp_path}/store")
    filled(there, tmp_path, **{name: bytes(1000) for name in "abcde"})
    monkeypatch.setenv(CACHE_GB, "3.5e-6")
    for number, name in enumerate("abcad"):
        os.utime(there.fetch(f"{name}.bin"), (number + 1, number + 1))
    assert {path.name for path in cache.rglob("*.bin")} == {"c.bin", "a.bin", "d.bin"}
    monkeypatch.setenv(CACHE_GB, "0.5e-6")
    with pytest.raises(SpecialSamError, match=r"cache of at least 1e-06 GB.*raise it"):
        there.fetch("e.bin")
    monkeypatch.setenv(CACHE_GB, "much")
    with pytest.raises(UsageError, match="number of gigabytes"):
        there.fetch("e.bin")


def test_what_no_job_asked_for_in_a_month_goes(tmp_path: Path) -> None:
    old, fresh, file, own = (tmp_path / "general" / name for name in ("old", "fresh", "file", "own"))
    for one in (old, fresh):
        assert in_use(one) == one
        (one / "x.bin").write_bytes(b"x")
    file.write_bytes(b"x")
    own.mkdir()  # a folder of the user's, who keeps the cache among others
    for one in (old / MARK, file, own):
        os.utime(one, (0, 0))
    in_use(fresh)
    assert sorted(path.name for path in (tmp_path / "general").iterdir()) == ["file", "fresh", "own"]
    assert (fresh / "x.bin").read_bytes() == b"x"
    assert in_use(file / "below") == file / "below"  # no folder can be made: nothing raised
    assert fresh.is_dir()


def test_a_plain_path_is_left_alone(tmp_path: Path, cache: Path) -> None:
    assert type(folder(tmp_path)) is Folder
    assert at_hand(tmp_path / "nothing") == tmp_path / "nothing"
    assert not cache.exists()
    assert [is_url(one) for one in ("s3://a/b", "file:///a", "folder:/a", "/a//b", Path("s3://a"))] == [
        *(True, True),
        *(False, False, False),
    ]
    with pytest.raises(UsageError, match="cannot be opened"):
        folder("nosuchkind://a/b")
    with pytest.raises(UsageError, match=r"without '\.\.'"):
        folder("file:///a/../b")


def data(place: Path) -> None:
    for number in range(3):
        image = np.full((20, 20, 3), 40 * number, np.uint8)
        mask = np.zeros((20, 20), np.bool_)
        mask[4:9, 4:9] = True
        for kind, pixels in (("images", image), ("masks", mask)):
            (place / kind).mkdir(parents=True, exist_ok=True)
            write_png(place / kind / f"{number}.png", pixels)


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_data_set_at_a_url_is_read_file_by_file(
    tmp_path: Path, cache: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    data(tmp_path / "data")
    url = f"file://{tmp_path}/data"
    if kind == "s3":
        url = f"{request.getfixturevalue('s3')}/{tmp_path.name}-{kind}"
        Mirror(url).system.put(f"{tmp_path}/data", url, recursive=True)
    dataset = open_dataset(f"folder:{url}")
    assert [record.id for record in dataset.records] == ["0", "1", "2"]
    here = open_dataset(tmp_path / "data")
    for remote, local in zip(dataset.records, here.records, strict=True):
        assert remote.image != local.image
        assert (read_image(remote.image) == read_image(local.image)).all()
    dataset.records[0].image.unlink()
    with open_regular(dataset.records[0].image) as file:
        assert file.read() == here.records[0].image.read_bytes(), "a copy that had to give way comes again"


def test_what_changes_at_a_url_is_seen(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a.png", "b.png", "c.json"):
        (tmp_path / "data" / name).write_bytes(name.encode())
    url = f"file://{tmp_path}/data"
    top = mirrored(url, {".png"})
    read = {name: at_hand(top / name).read_bytes() for name in ("a.png", "c.json")}
    assert read == {"a.png": b"a.png", "c.json": b"c.json"}
    assert (top / "b.png").read_bytes() == bytes(5), "listed, not fetched"
    (tmp_path / "data" / "a.png").write_bytes(b"other")
    (tmp_path / "data" / "b.png").unlink()
    assert at_hand(mirrored(url, {".png"}) / "a.png").read_bytes() == b"other"
    assert not (top / "b.png").exists()
    with pytest.raises(DataError, match="found nothing there"):
        mirrored(f"file://{tmp_path}/nowhere", ())


def test_a_name_that_leads_out_of_the_folder_is_refused(s3: str, cache: Path, tmp_path: Path) -> None:
    """Object storage takes any name."""
    import boto3

    boto3.client("s3").put_object(Bucket="bucket", Key=f"{tmp_path.name}/../../../out.txt", Body=b"x")
    with pytest.raises(DataError, match=r"stay in the folder, got .*out\.txt"):
        mirrored(f"{s3}/{tmp_path.name}", ())
    assert not list(cache.parent.rglob("out.txt"))


def test_pickled_paths_are_fetched_on_another_machine(tmp_path: Path, cache: Path, monkeypatch: Any) -> None:
    """Another machine: the same cache folder, empty."""
    data(tmp_path / "data")
    record = open_dataset(f"folder:file://{tmp_path}/data").records[1]
    cache.rename(tmp_path / "elsewhere")
    assert (read_image(record.image) == 40).all()
