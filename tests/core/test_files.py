"""A file is written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from specialsam.core.errors import SpecialSamError
from specialsam.core.files import keep_only, write_whole


def test_a_file_appears_whole_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_whole(path, lambda beside: beside.write_text("whole"))
    assert path.read_text() == "whole"
    assert [other.name for other in path.parent.iterdir()] == ["a.json"]


def test_the_earlier_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def fill(beside: Path) -> None:
        beside.write_text("half")
        assert beside.suffix == ".json"
        assert path.read_text() == "old"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fill)
    assert path.read_text() == "old"
    assert [other.name for other in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def fill(beside: Path) -> None:
        beside.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        SpecialSamError, match=r"cannot write .*a\.json \(No space left on device\); make room"
    ) as caught:
        write_whole(tmp_path / "a.json", fill)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecialSamError, match="choose another folder"):
        write_whole(tmp_path / "file" / "a.json", lambda beside: beside.write_text("x"))


def test_what_this_call_did_not_write_goes_and_what_nobody_listed_stays(tmp_path: Path) -> None:
    for name in ("masks/a.png", "masks/b.png", "masks/mine.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert keep_only(tmp_path, ["masks/a.png", "masks/b.png"], "files.txt") == 0
    assert keep_only(tmp_path, ["masks/b.png"], "files.txt") == 1
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["files.txt", "masks/b.png", "masks/mine.png", "notes.txt"]
    assert keep_only(tmp_path, ["masks/b.png"], "files.txt") == 0


def test_a_list_that_names_other_places_removes_nothing_there(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "precious.txt"
    inside.mkdir()
    outside.write_text("mine")
    (inside / "files.txt").write_text(f"../precious.txt\n{outside}\nmissing.png\n.\n")
    assert keep_only(inside, [], "files.txt") == 0
    assert outside.read_text() == "mine"
