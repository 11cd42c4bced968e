"""Folders and files that nobody made for us: pipes, loops, odd names, documents that never end.

Oracles: the same trees without what was planted, and the promise that whatever is wrong is a problem or one line.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from trees import TREES, coco_content, coco_tree, folder_tree, mask, picture

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Problem, Record
from specialsam.data import counts, inspect_masks, load, open_dataset
from specialsam.data.coco_masks import to_rle
from specialsam.data.duplicates import duplicate_groups, near_duplicates
from specialsam.data.splits import split_records

pytestmark = [
    pytest.mark.timeout(30),
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes in folders"),
]


def plant(folder: Path) -> list[Path]:
    """What a folder may hold instead of images, under images' names: each would hang or end who opens it."""
    os.mkfifo(folder / "pipe.png")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "dangling.tif").symlink_to("nowhere.tif")
    (folder / "around").symlink_to("..")
    with socket.socket(socket.AF_UNIX) as made:
        before = Path.cwd()
        try:
            os.chdir(folder)  # names of sockets are short
            made.bind("socket.bmp")
        finally:
            os.chdir(before)
    return [folder / name for name in ("pipe.png", "device.jpg", "loop.png", "dangling.tif", "socket.bmp")]


def whole(dataset: Dataset) -> None:
    """All that a run does with a data set before it encodes."""
    objects = inspect_masks(dataset.records)
    assert counts(dataset, objects)["usable"] == len(dataset)
    groups = duplicate_groups(near_duplicates(dataset.records))
    assert set(split_records(dataset.records, groups=groups, fractions=(1.0, 0.0, 0.0))) == {
        r.id for r in dataset.records
    }
    for record in dataset.records:
        load(record)


@pytest.mark.parametrize("name", TREES)
def test_what_is_no_regular_file_is_named_or_passed_over(tmp_path: Path, name: str) -> None:
    """Planted in every folder of every layout: the records stay, and beside images each one is a problem."""
    clean = open_dataset(TREES[name](tmp_path / "clean" / "set"))
    root = TREES[name](tmp_path / "planted" / "set")
    folders = [root, *(path for path in sorted(root.rglob("*")) if path.is_dir())]
    planted = [path for folder in folders for path in plant(folder)]
    dataset = open_dataset(f"{name}:{root}")
    assert [record.id for record in dataset.records] == [record.id for record in clean.records]
    whole(dataset)
    named = {problem.path for problem in dataset.problems}
    read = {record.image.parent for record in dataset.records}
    if name != "coco":  # a COCO file lists its images, what it does not list is not looked at
        assert [path for path in planted if path.parent in read and path not in named] == []
    assert all("\n" not in problem.message for problem in dataset.problems)


def test_a_folder_that_bears_an_images_name(tmp_path: Path) -> None:
    root = TREES["camo"](tmp_path / "set")
    (root / "Images/Train/folder.png").mkdir()
    problems = {problem.path.name: problem.message for problem in open_dataset(root).problems}
    assert problems["folder.png"].endswith("folder.png: expected an image file, got a folder")


def test_a_card_that_is_no_regular_file(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "set")
    os.mkfifo(root / "dataset.json")
    with pytest.raises(DataError, match=r"dataset\.json: expected a file, got a named pipe"):
        open_dataset(root)


NAMES = {
    b"caf\xe9": "caf\\xe9",
    b"new\nline": "new\\nline",
    b"\x1b[2J": "\\x1b[2J",
    "\N{GRINNING FACE}".encode(): "\N{GRINNING FACE}",
    "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}".encode(): "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}",
    b"$\\bad{$": "$\\bad{$",
    b"a" * 200: "a" * 200,
}
"""Names on a disk, in bytes, and how they are called; written by hand."""


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_text_is_printable(tmp_path: Path, name: bytes) -> None:
    """The picture is found and read; its id, its category and all that is said of it can be written as UTF-8."""
    root = folder_tree(tmp_path / "set")
    odd = os.fsdecode(name)
    try:
        picture(root / "images" / odd / f"{odd}.png")
    except OSError:
        pytest.skip("this file system takes no such name")
    mask(root / "masks" / odd / f"{odd}.png")
    picture(root / "images" / odd / f"{odd}-lonely.png")
    dataset = open_dataset(root)
    record = next(record for record in dataset.records if record.category)
    assert (record.id, record.category) == (f"{NAMES[name]}/{NAMES[name]}", NAMES[name])
    assert load(record).masks.sum() == 48
    (problem,) = dataset.problems
    assert NAMES[name] in problem.message
    for text in (record.id, record.category, problem.message):
        assert text.encode() and "\n" not in text and "\x1b" not in text  # noqa: PT018 - each text alone
    whole(dataset)


def test_texts_are_printable_wherever_they_come_from() -> None:
    record = Record("a\udcff", Path("a\udcff.png"), labels=("\ud800", "b"), supercategory="\x00", group="g\r")
    assert (record.id, record.labels, record.supercategory, record.group) == (
        "a\\xff",
        ("\\ud800", "b"),
        "\\x00",
        "g\\r",
    )
    assert record.image == Path("a\udcff.png"), "the path stays the one that opens"
    assert Problem(Path("x"), "kind", "one\ntwo").message == "one\\ntwo"
    assert Dataset("\udcff", Path("x"), "folder", (), notes=("\n",)).notes == ("\\n",)
    assert str(DataError("a\udcff.png:\n  damaged\x07 ")) == "a\\xff.png: damaged\\x07"


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DEEP, "nested too deeply"),
        ('{"name": ' + DEEP, "nested too deeply"),
        ('{"name": NaN}', "no object of texts"),
        ('{"name": ' + "9" * 5000 + "}", "digits"),
        ('{"name": "' + "x" * 300_000 + '"}', "larger than 200 kB"),
        ('{"name": "\\ud800"', "expected a JSON object"),
        ("\x00", "expected a JSON object"),
    ],
)
def test_a_card_that_nobody_should_write(tmp_path: Path, text: str, words: str) -> None:
    root = folder_tree(tmp_path / "set")
    (root / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        open_dataset(root)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def nested(depth: int) -> Any:
    inner: Any = 1
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "value",
    [None, True, -1, 10**400, float("nan"), float("inf"), "", "\ud800", "x" * 10_000, "a\x00b", [], {}, nested(900)],
    ids=lambda value: repr(value)[:20],
)
@pytest.mark.parametrize(
    "place", ["file_name", "height", "id", "image_id", "category_id", "segmentation", "counts", "name"]
)
def test_any_value_in_a_coco_file_is_a_problem_or_harmless(tmp_path: Path, place: str, value: Any) -> None:
    """A value of another kind, of any size and depth, in each field: the set opens, or one line says why not."""
    content = coco_content()
    if place in ("file_name", "height"):
        content["images"][0][place] = value
    elif place == "counts":
        content["annotations"][2]["segmentation"]["counts"] = value
        content["annotations"][1]["segmentation"] = {"size": value, "counts": "x"}
    elif place == "name":
        content["categories"][0]["name"] = content["licenses"][0]["name"] = value
    else:
        content["annotations"][0][place] = value
        if place in ("id", "segmentation"):
            content["images"][0]["id"] = value if place == "id" else 1
            content["annotations"][1]["segmentation"] = [[value] * 6]
    dataset = open_dataset(coco_tree(tmp_path / "set", content))
    assert "images/two" in {record.id for record in dataset.records}, "the other image is not touched"
    for record in dataset.records:
        json.dumps([record.id, record.labels, record.rles], ensure_ascii=False).encode()
        load(record)
    for problem in dataset.problems:
        assert "\n" not in problem.message
        problem.message.encode()


@pytest.mark.parametrize("text", [DEEP, '{"images": ' + DEEP, '{"images": [' + '{"a":' * 50_000])
def test_a_coco_file_that_is_nested_too_deeply(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match="nested too deeply"):
        open_dataset(tmp_path / "x.json")


def test_a_run_that_never_ends_is_refused_at_once() -> None:
    """A million characters of one number: each would make it longer."""
    with pytest.raises(DataError, match="a run longer than any image"):
        to_rle({"size": [4, 4], "counts": "o" * 1_000_000}, 4, 4)
