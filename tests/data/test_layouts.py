"""Every layout of tools and public data sets on a miniature tree. Oracle: the discs drawn, and what each tree says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from discs import HIGH, WIDE, disc, iou, put
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_trees import (
    LAYOUTS,
    beside,
    byte,
    corner,
    cvat,
    label_studio_rle,
    labelme,
    loco,
    roboflow,
    shares,
    voc,
    write,
    yolo,
)
from test_hostile_folders import plant

from specialsam.core.errors import DataError
from specialsam.data import counts, inspect_masks, load, open_dataset
from specialsam.data.label_studio import brush_mask
from specialsam.data.open import ADAPTERS


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_recognised_and_its_discs_are_found(tmp_path: Path, name: str) -> None:
    layout, build = LAYOUTS[name]
    wanted = build(tmp_path / "set")
    dataset = open_dataset(tmp_path / "set")
    assert dataset.layout == layout
    assert [p.message for p in dataset.problems if not p.path.name.startswith("_classes")] == []
    objects = inspect_masks(dataset.records)
    assert (len(dataset), sum(objects.values())) == wanted
    for record in dataset.records:
        sample = load(record)
        if len(sample.masks):
            seed = min(range(10), key=lambda seed: np.abs(sample.image.astype(int) - disc(seed)[0]).mean())
            assert max(iou(mask, disc(seed)[1]) for mask in sample.masks) > 0.75, record.id
    numbers = counts(dataset, objects)
    assert numbers["usable"] == wanted[0]


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_no_regular_file_is_passed_over(tmp_path: Path, name: str) -> None:
    """Pipes, sockets, devices and loops under images' names in every folder: the same records are found."""
    layout, build = LAYOUTS[name]
    build(tmp_path / "clean/set")
    build(tmp_path / "planted/set")
    for folder in [tmp_path / "planted/set", *sorted((tmp_path / "planted/set").rglob("*"))]:
        if folder.is_dir() and not folder.is_symlink():
            plant(folder)
    clean = open_dataset(tmp_path / "clean/set")
    dataset = open_dataset(f"{layout}:{tmp_path / 'planted/set'}")
    assert [record.id for record in dataset.records] == [record.id for record in clean.records]
    assert all("\n" not in problem.message for problem in dataset.problems)


@pytest.mark.parametrize("name", sorted({layout for layout, _ in LAYOUTS.values()}))
def test_another_folder_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="expected") as caught:
        ADAPTERS[name].load(tmp_path)
    assert "\n" not in str(caught.value)


def test_splits_that_layouts_state(tmp_path: Path) -> None:
    stated = {
        "Roboflow's masks": {"train": 3, "val": 1},
        "splits of labels": {"train": 3, "val": 1},
        "nnU-Net": {"train": 4},
        "Pascal VOC": {"train": 3, "val": 1},
        "nuclei": {"train": 4},
        "MVTec LOCO": {"train": 4, "val": 4, "test": 8},
        "MVTec AD 2": {"train": 4, "val": 4, "test": 8, None: 4},
        "BTAD": {"train": 4, "test": 8},
        "KolektorSDD2": {"train": 2, "test": 2},
        "YOLO": {"train": 4, "val": 1},
        "YOLO in splits": {"train": 3, "val": 1},
    }
    for name, wanted in stated.items():
        LAYOUTS[name][1](tmp_path / name)
        found = [record.split for record in open_dataset(tmp_path / name).records]
        assert {split: found.count(split) for split in set(found)} == wanted, name


def test_labels_and_licences(tmp_path: Path) -> None:
    loco(tmp_path / "loco")
    dataset = open_dataset(tmp_path / "loco")
    first = next(record for record in dataset.records if record.id == "test/logical_anomalies/000")
    assert load(first).labels == ("logical_anomalies",) * 2
    assert (first.category, dataset.licence) == ("logical_anomalies", "CC BY-NC-SA 4.0")
    yolo(tmp_path / "yolo")
    dataset = open_dataset(tmp_path / "yolo")
    assert {label for record in dataset.records for label in record.labels} == {"spot"}
    assert any("1 images have no text file" in note for note in dataset.notes)
    LAYOUTS["YOLO in splits"][1](tmp_path / "splits")
    assert open_dataset(tmp_path / "splits").licence == "CC BY 4.0"


def test_void_of_pascal_voc_is_no_object(tmp_path: Path) -> None:
    voc(tmp_path)
    sample = load(open_dataset(tmp_path).records[0])
    assert np.array_equal(sample.masks[0], disc(0, 8)[1])


def test_good_and_unlabelled_images_differ(tmp_path: Path) -> None:
    LAYOUTS["MVTec AD 2"][1](tmp_path)
    numbers = counts(open_dataset(tmp_path))
    assert (numbers["empty"], numbers["unlabelled"]) == (12, 4)


def test_boxes_are_no_masks_and_the_line_says_what_to_do(tmp_path: Path) -> None:
    put(tmp_path / "images/0.jpg", disc(0)[0])
    write(tmp_path / "labels/0.txt", "0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match=r"boxes, which are no masks: give them to `specialsam segment --prompts`"):
        open_dataset(tmp_path)
    write(tmp_path / "labels/0.txt", f"0 {shares(0)}\n0 0.5 0.5 0.2 0.2\nspot 1 2\n1 0 0 9 9 3 0\n")
    dataset = open_dataset(tmp_path)
    assert len(load(dataset.records[0]).masks) == 1
    told = " ".join(problem.message for problem in dataset.problems)
    assert "1 shapes are boxes" in told
    assert "words where numbers are expected" in told
    assert "expected shares of the image's sides in 0..1, got 9" in told


def test_shapes_of_labelme_that_enclose_nothing(tmp_path: Path) -> None:
    labelme(tmp_path)
    content = json.loads((tmp_path / "0.json").read_text())
    content["shapes"] += [
        {"label": "a", "points": [[1, 1], [5, 5]], "shape_type": "rectangle"},
        {"label": "b", "points": [[1, 1], [5, 5]], "shape_type": "line"},
        {"label": "c", "points": [[1, 1], [5, 5]], "shape_type": "polygon"},
        {"label": "d", "points": [[0, 0], [1, 1]], "shape_type": "mask", "mask": "no base64"},
    ]
    write(tmp_path / "0.json", content)
    write(tmp_path / "1.json", {**json.loads((tmp_path / "1.json").read_text()), "imageWidth": 9})
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 3
    assert len(load(dataset.records[0]).masks) == 1
    told = " ".join(problem.message for problem in dataset.problems)
    for words in (
        "1 shapes are boxes",
        "1 shapes are points or lines",
        "at least 3 points",
        "PNG in base64",
        "48x9 (height",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"labels/0.xml": "<annotation/>"}, r"labels/ \(with 0\.xml\)"),
        ({"gt/0.mat": "x"}, r"gt/ \(with 0\.mat\)"),
        ({"images/0.xml": "<annotation/>", "images/1.xml": ""}, r"2 \.xml files of the images' names .*"),
    ],
)
def test_photographs_do_not_win_beside_labels(tmp_path: Path, files: dict[str, str], words: str) -> None:
    for seed in range(2):
        put(tmp_path / f"images/{seed}.jpg", disc(seed)[0])
    for name, text in files.items():
        write(tmp_path / name, text)
    with pytest.raises(DataError, match=rf"looks like labels, .*{words}; .*photos:"):
        open_dataset(tmp_path)
    assert len(open_dataset(f"photos:{tmp_path}")) == 2


def test_photographs_with_notes_are_photographs(tmp_path: Path) -> None:
    for seed in range(4):
        put(tmp_path / f"{seed}.jpg", disc(seed)[0])
    write(tmp_path / "readme.txt", "my holidays")
    write(tmp_path / "results.json", "{}")
    assert open_dataset(tmp_path).layout == "photos"


def test_known_folders_are_still_told_apart(tmp_path: Path) -> None:
    """A plain folder with masks/ beside labels/ of another kind is the plain folder it was."""
    beside("masks")(tmp_path)
    write(tmp_path / "labels/0.txt", f"0 {shares(0)}")
    assert open_dataset(tmp_path).layout == "folder"


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_brush_masks_come_back(seed: int, share: float) -> None:
    """Oracle: the encoder of the tests, of the format as its documentation has it."""
    mask = np.random.default_rng(seed).random((7, 9)) < share
    assert np.array_equal(brush_mask(list(label_studio_rle(mask)), (7, 9)), mask)


def test_damaged_brush_masks_are_one_line() -> None:
    whole = label_studio_rle(corner())
    for wrong, words in ((whole[:-4], "cut short"), ([*whole[:-1], 999], "list of bytes"), (["a"], "list of bytes")):
        with pytest.raises(DataError, match=words):
            brush_mask(wrong, (HIGH, WIDE))
    with pytest.raises(DataError, match="expected a brush mask of 9x9"):
        brush_mask(list(whole), (9, 9))
    assert byte(corner()).sum() == 42 * 255


@pytest.mark.parametrize("make", [roboflow, cvat])
def test_the_only_class_gives_its_name(make: Callable[[Path], tuple[int, int]], tmp_path: Path) -> None:
    make(tmp_path)
    dataset = open_dataset(tmp_path)
    assert {load(record).labels for record in dataset.records} == {("spot",)}
    assert any("names one class, spot" in note for note in dataset.notes)


def test_several_classes_are_not_guessed(tmp_path: Path) -> None:
    cvat(tmp_path)
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\nspot:0,0,255::\nline:0,255,0::\n")
    dataset = open_dataset(tmp_path)
    assert {record.labels for record in dataset.records} == {()}
    assert any("names 2 classes" in note for note in dataset.notes)
