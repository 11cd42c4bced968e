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


def test_a_split_without_masks_is_unlabelled_and_said(tmp_path: Path) -> None:
    for part, masks in (("train", "masks"), ("val", "labels"), ("test", "")):
        put(tmp_path / part / "images" / "a.png", disc(1)[0])
        if masks:
            put(tmp_path / part / masks / "a.png", byte(disc(1)[1]))
    found = open_dataset(f"folder:{tmp_path}")
    assert [(one.id, one.split, one.mask_kind) for one in found.records] == [
        ("test/a", "test", "none"),
        ("train/a", "train", "binary"),
        ("val/a", "val", "none"),
    ]
    test, val = (note for note in found.notes if "unlabelled" in note)
    assert test == "test/images: 1 images without a folder of masks beside them are unlabelled"
    assert val.startswith(
        "val/images: 1 images without a folder of masks beside them are unlabelled (labels/ is not read"
    )
    assert counts(found)["unlabelled"] == 2


@pytest.mark.parametrize(
    ("files", "read", "note"),
    [
        (("val/imgs/b.png", "val/masks/b.png"), [], "val/: 2 images left out: expected images/ and masks/"),
        (("test/images/b.png", "test/output/b.png"), [("test/b", "test", "none")], "(output/ is not read"),
        (("val/images/b.png", "val/masks/b.png"), [("val/b", "val", "binary")], ""),
        (("test/b.png", "test/b_mask.png"), [], "test/: 2 images left out: expected images/ and masks/"),
        (("val/camera/b.png",), [], "val/: 1 images left out: expected images/ and masks/"),
        (("test/b.png", "test/b_1.png"), [("test/b", "test", "none"), ("test/b_1", "test", "none")], "are unlabelled"),
    ],
)
def test_no_split_is_read_wrongly_or_lost_without_a_word(
    tmp_path: Path, files: tuple[str, ...], read: list[tuple[str, str, str]], note: str
) -> None:
    for name in ("train/images/a.png", "train/masks/a.png", *files):
        mask = "masks" in name or "gt" in name or "_mask" in name
        put(tmp_path / name, byte(disc(1)[1]) if mask else disc(1)[0])
    found = open_dataset(f"folder:{tmp_path}")
    kinds = [(one.id, one.split, one.mask_kind) for one in found.records]
    assert kinds == sorted([*read, ("train/a", "train", "binary")])
    assert any(note in one for one in found.notes) if note else not any("left out" in one for one in found.notes)


def test_unlabelled_pictures_of_a_contest(tmp_path: Path) -> None:
    """nnU-Net's imagesTs without labelsTs, and pictures that lie in the split folder itself."""
    for name in ("nn/imagesTr/a.png", "nn/imagesTs/b.png", "own/train/images/a.png", "own/test/b.png"):
        put(tmp_path / name, disc(1)[0])
    put(tmp_path / "nn/labelsTr/a.png", byte(disc(1)[1]))
    put(tmp_path / "own/train/masks/a.png", byte(disc(1)[1]))
    for name in ("nn", "own"):
        kinds = {one.id: (one.split, one.mask_kind) for one in open_dataset(str(tmp_path / name)).records}
        assert sorted(kinds.values()) == [("test", "none"), ("train", "binary")], kinds


def test_a_second_json_of_an_image_is_a_problem(tmp_path: Path) -> None:
    labelme(tmp_path)
    first = next(path for path in sorted(tmp_path.rglob("*.json")))
    first.with_name(f"{first.stem} (copy).json").write_text(first.read_text())
    before = len(open_dataset(f"labelme:{tmp_path}").records)
    found = open_dataset(f"labelme:{tmp_path}")
    assert len({one.id for one in found.records}) == len(found.records) == before
    told = [problem.message for problem in found.problems if "another JSON" in problem.message]
    assert len(told) == 1
    assert "(copy).json" in told[0], "the one of the image's own name counts"


def test_a_json_that_is_refused_bars_no_other(tmp_path: Path) -> None:
    labelme(tmp_path)
    good = next(path for path in sorted(tmp_path.rglob("*.json")))
    stated = json.loads(good.read_text())
    good.with_name(f"{good.stem}_fixed.json").write_text(json.dumps(stated))
    good.write_text(json.dumps(stated | {"imageHeight": 999}))
    before = len(list(tmp_path.rglob("*.json"))) - 1
    found = open_dataset(f"labelme:{tmp_path}")
    assert len([one for one in found.records if one.mask_kind != "none"]) == before
    assert [problem.message for problem in found.problems if "another JSON" in problem.message] == []
    assert any("expected 999x" in problem.message for problem in found.problems)
    boxes = [{"label": "a", "shape_type": "rectangle", "points": [[1, 1], [9, 9]]}]
    good.write_text(json.dumps(stated | {"shapes": boxes}))
    found = open_dataset(f"labelme:{tmp_path}")
    assert len([one for one in found.records if one.mask_kind != "none"]) == before


def test_further_pictures_of_one_name_are_problems(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.bmp", "b.jpg"):
        put(tmp_path / "words" / name, disc(1)[0])
    for name in ("a_mask.png", "b_mask.png"):
        put(tmp_path / "words" / name, byte(disc(1)[1]))
    for name in ("c.jpg", "d.jpg", "d.bmp"):
        put(tmp_path / "same" / name, disc(2)[0])
    for name in ("c.png", "d.png"):
        put(tmp_path / "same" / name, byte(disc(2)[1]))
    words, same = (open_dataset(f"siblings:{tmp_path / name}") for name in ("words", "same"))
    assert [problem.path.name for problem in words.problems] == ["a.jpg"]
    assert "the name 'a' is taken by a.bmp" in words.problems[0].message
    assert sorted(problem.path.name for problem in same.problems) == ["d.bmp", "d.jpg", "d.png"]


def test_one_damaged_mask_does_not_cost_pascal_voc(tmp_path: Path) -> None:
    voc(tmp_path)
    folder = next(path for path in tmp_path.rglob("SegmentationObject") if path.is_dir())
    first = sorted(folder.iterdir())[0]
    first.write_bytes(b"damaged")
    found = open_dataset(f"voc:{tmp_path}")
    assert len(found.problems) == 1
    assert first.stem in found.problems[0].message


def test_poses_of_yolo_are_no_masks(tmp_path: Path) -> None:
    put(tmp_path / "images/a.png", disc(1)[0])
    write(tmp_path / "labels/a.txt", "0 .5 .5 .4 .4 .3 .3 2 .6 .6 2\n")
    write(tmp_path / "data.yaml", "names: [person]\nkpt_shape: [2, 3]\n")
    with pytest.raises(DataError, match="boxes, which are no masks"):
        open_dataset(f"yolo:{tmp_path}")
    write(tmp_path / "labels/a.txt", "0 .1 .1 .6 .1 .6 .6 .1 .6 .1 .3\n")
    write(tmp_path / "data.yaml", "names: [person]\nkpt_shape: null\n")
    assert len(open_dataset(f"yolo:{tmp_path}").records[0].rles) == 1


def test_an_image_may_be_called_as_a_list_of_yolo(tmp_path: Path) -> None:
    for name in ("test", "other"):
        put(tmp_path / f"images/{name}.png", disc(1)[0])
        write(tmp_path / f"labels/{name}.txt", "0 .1 .1 .6 .1 .6 .6\n")
    write(tmp_path / "labels/classes.txt", "spot\n")
    found = open_dataset(f"yolo:{tmp_path}")
    assert {one.id: len(one.rles) for one in found.records} == {"test": 1, "other": 1}
    assert found.notes == ()
