"""Masks in other tools' formats. Oracles: files read back, pycocotools' masks and areas, polygons filled by OpenCV."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco
from pycocotools.coco import COCO
from small_models import found_objects

from specialsam.apps import formats
from specialsam.apps.answers import Answer, FoundObject
from specialsam.apps.formats import FORMATS, output_name, polygon, write_coco, write_labels, write_masks, write_yolo
from specialsam.core.errors import DataError
from specialsam.core.masks import from_index
from specialsam.data.images import read_mask_pixels

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24))).filter(lambda mask: bool(mask.any()))
LABELS = arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.integers(0, 5))


def square(x: int, y: int, side: int = 4) -> npt.NDArray[np.bool_]:
    mask = np.zeros((12, 20), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def answer(file: str, *masks: npt.NDArray[np.bool_], scores: tuple[float, ...] = (), label: str = "") -> Answer:
    stack = np.array(masks, np.bool_).reshape(-1, 12, 20)
    given_scores = scores or tuple(0.9 - 0.1 * index for index in range(len(masks)))
    return Answer(file, (12, 20), found_objects(stack, given_scores, [label] * len(masks)))


def some() -> Iterator[Answer]:
    yield answer("d/two.jpg", square(1, 1), square(9, 5), label="fox")
    yield answer("one.JPG", square(3, 3))
    yield answer("blank.png")
    yield Answer("bad.jpg", error="damaged")
    yield Answer("lost.jpg")


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_masks_as_png(tmp_path: Path) -> None:
    assert write_masks(some(), tmp_path) == ["2 files failed and have no output"]
    expected = {"masks/d/two.png", "masks/one.png", "masks/blank.png", "objects/d/two-1.png", "objects/d/two-2.png"}
    assert files(tmp_path) == expected
    both = read_mask_pixels(tmp_path / "masks/d/two.png")
    assert both.dtype == np.uint8
    np.testing.assert_array_equal(both, (square(1, 1) | square(9, 5)) * 255)
    np.testing.assert_array_equal(read_mask_pixels(tmp_path / "objects/d/two-2.png"), square(9, 5) * 255)
    assert not read_mask_pixels(tmp_path / "masks/blank.png").any()


def test_labels_as_png(tmp_path: Path) -> None:
    assert write_labels(some(), tmp_path) == ["2 files failed and have no output"]
    assert files(tmp_path) == {"labels/d/two.png", "labels/one.png", "labels/blank.png"}
    labels = read_mask_pixels(tmp_path / "labels/d/two.png")
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, square(1, 1) + 2 * square(9, 5).astype(np.uint16))


def test_the_surer_object_wins(tmp_path: Path) -> None:
    """Whatever the order of the objects; of equal ones the earlier."""
    objects = answer("a.jpg", square(0, 0), square(2, 2), scores=(0.9, 0.5)).objects
    for index, (order, corner) in enumerate([(objects, 1), (objects[::-1], 2)]):
        write_labels([Answer(f"{index}.jpg", (12, 20), order)], tmp_path)
        assert read_mask_pixels(tmp_path / f"labels/{index}.png")[3, 3] == corner
    write_labels([answer("equal.jpg", square(0, 0), square(2, 2), scores=(0.7, 0.7))], tmp_path)
    assert read_mask_pixels(tmp_path / "labels/equal.png")[3, 3] == 1
    notes = write_labels([answer("same.jpg", square(0, 0), square(0, 0))], tmp_path)
    assert notes == ["1 objects are covered by surer ones and have no pixel in a label map"]


def test_more_objects_than_a_label_map_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LARGEST_LABEL", 1)
    with pytest.raises(DataError, match=r"d/two.jpg: expected at most 1 objects, got 2; use coco"):
        write_labels(some(), tmp_path)


@given(LABELS)
@settings(max_examples=50)
def test_objects_that_do_not_touch_come_back_from_a_label_map(labels: npt.NDArray[np.uint8]) -> None:
    masks = from_index(labels)
    objects = found_objects(masks, list(np.linspace(1, 0.5, len(masks))))
    with tempfile.TemporaryDirectory() as folder:
        assert write_labels([Answer("a.jpg", labels.shape, objects)], Path(folder)) == []
        np.testing.assert_array_equal(from_index(read_mask_pixels(Path(folder) / "labels/a.png")), masks)


def test_coco_is_read_by_coco(tmp_path: Path) -> None:
    """Oracle: pycocotools reads the file, decodes the masks, and counts their area and boxes itself."""
    assert write_coco(some(), tmp_path) == []
    read = COCO(tmp_path / "coco.json")
    assert files(tmp_path) == {"coco.json"}
    assert [image["file_name"] for image in read.loadImgs(read.getImgIds())] == ["d/two.jpg", "one.JPG", "blank.png"]
    assert {category["name"] for category in read.loadCats(read.getCatIds())} == {"fox", "object"}
    annotations = read.loadAnns(read.getAnnIds())
    for annotation, mask in zip(annotations, [square(1, 1), square(9, 5), square(3, 3)], strict=True):
        np.testing.assert_array_equal(read.annToMask(annotation), mask)
        assert annotation["area"] == int(coco.area(annotation["segmentation"])) == 16
        assert annotation["bbox"] == coco.toBbox(annotation["segmentation"]).tolist()
        assert annotation["iscrowd"] == 0
    assert [annotation["score"] for annotation in annotations] == [0.9, 0.8, 0.9]
    failed = json.loads((tmp_path / "coco.json").read_text())["info"]["failed"]
    assert failed == [
        {"file_name": "bad.jpg", "error": "damaged"},
        {"file_name": "lost.jpg", "error": "its size is not known"},
    ]


@given(st.lists(MASKS, max_size=4))
@settings(max_examples=50)
def test_coco_masks_there_and_back(masks: list[npt.NDArray[np.bool_]]) -> None:
    given_answers = [Answer(f"{i}.jpg", mask.shape, found_objects(mask[None], [1.0])) for i, mask in enumerate(masks)]
    with tempfile.TemporaryDirectory() as folder:
        write_coco(given_answers, Path(folder))
        content = json.loads((Path(folder) / "coco.json").read_text())
    assert len(content["images"]) == len(content["annotations"]) == len(masks)
    for annotation, mask in zip(content["annotations"], masks, strict=True):
        np.testing.assert_array_equal(coco.decode(annotation["segmentation"]), mask)


def filled(points: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Oracle: OpenCV fills a polygon with its border."""
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [points.astype(np.int32)], 1)
    return canvas.astype(np.bool_)


@given(MASKS)
def test_a_polygon_covers_its_mask(mask: npt.NDArray[np.bool_]) -> None:
    """All pixels of the kept parts, and beyond the mask with its holes filled no more than the lines between parts."""
    points, parts, dropped = polygon(mask)
    count, _, _, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    assert points.dtype == np.int64
    assert len(points) >= 3
    assert dropped == 0 or parts + dropped <= count - 1
    area = filled(points, *mask.shape)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    solid = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(solid, outlines, -1, 1, cv2.FILLED)
    if not dropped:
        assert (area >= mask).all()
    if parts == 1 and not dropped:
        np.testing.assert_array_equal(area, solid.astype(np.bool_))
    assert (area & ~solid.astype(np.bool_)).sum() <= (parts - 1) * sum(mask.shape)


def test_small_parts_are_left_out_of_a_polygon() -> None:
    mask = np.zeros((60, 60), np.bool_)
    mask[5:45, 5:45] = True
    mask[50:58, 50:58] = True
    mask[0, 59] = True
    points, parts, dropped = polygon(mask)
    assert (parts, dropped) == (2, 1)
    mask[0, 59] = False
    area = filled(points, 60, 60)
    assert (area >= mask).all()
    assert (area & ~mask).sum() <= 12
    with pytest.raises(DataError, match="expected a non-empty mask"):
        polygon(np.zeros((3, 3), np.bool_))


def test_a_polygon_of_specks_has_no_more_parts_than_it_may() -> None:
    specks = np.zeros((60, 60), np.bool_)
    specks[::4, ::4] = True
    points, parts, dropped = polygon(specks)
    assert (parts, dropped) == (100, 125)
    assert len(points) == 1 + 99 * 3


def test_yolo_by_hand(tmp_path: Path) -> None:
    """A square of 4 pixels at (1, 1) of an image of 20x12 has its corners at pixels 1 and 4."""
    notes = write_yolo(some(), tmp_path)
    assert notes == ["2 files failed and have no output"]
    assert files(tmp_path) == {"data.yaml", "labels-yolo/d/two.txt", "labels-yolo/one.txt", "labels-yolo/blank.txt"}
    assert yaml.safe_load((tmp_path / "data.yaml").read_text()) == {"names": {0: "fox", 1: "object"}}
    assert (tmp_path / "labels-yolo/blank.txt").read_text() == ""
    lines = (tmp_path / "labels-yolo/d/two.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "0"]
    assert (tmp_path / "labels-yolo/one.txt").read_text()[0] == "1"
    numbers = np.array(lines[0].split()[1:], np.float64).reshape(-1, 2)
    corners = {(1 / 20, 1 / 12), (4 / 20, 1 / 12), (1 / 20, 4 / 12), (4 / 20, 4 / 12)}
    assert {(round(x, 5), round(y, 5)) for x, y in numbers} == {(round(x, 5), round(y, 5)) for x, y in corners}
    for line, mask in zip(lines, [square(1, 1), square(9, 5)], strict=True):
        points = np.rint(np.array(line.split()[1:], np.float64).reshape(-1, 2) * [20, 12])
        np.testing.assert_array_equal(filled(points, 12, 20), mask)


def test_yolo_tells_of_parts(tmp_path: Path) -> None:
    speckled = square(0, 0, 12)
    speckled[0, 19] = True
    notes = write_yolo([answer("a.jpg", square(1, 1) | square(9, 5)), answer("b.jpg", speckled)], tmp_path)
    assert notes == [
        "1 objects are of several parts, joined by lines of no width",
        "1 parts of objects are too small and were left out",
    ]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("file", ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "..", ""])
def test_nothing_is_written_outside(tmp_path: Path, name: str, file: str) -> None:
    out = tmp_path / "out"
    if name == "coco":
        FORMATS[name]([answer(file, square(1, 1))], out)
    else:
        with pytest.raises(DataError, match="expected an image file's path below the folder asked for"):
            FORMATS[name]([answer(file, square(1, 1))], out)
    assert files(tmp_path) <= {"out/coco.json"}


@pytest.mark.parametrize("name", FORMATS)
def test_windows_paths_stay_inside(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    FORMATS[name]([answer("..\\..\\x.jpg", square(1, 1)), answer("C:\\x.jpg", square(1, 1))], out)
    assert all(path.startswith("out/") and ":" not in path and "\\" not in path for path in files(tmp_path))


def test_no_two_files_share_an_output(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "A.jpg", "a.png.jpg", "d/a.jpg", "a"]
    notes = write_masks([answer(name, square(index, 0)) for index, name in enumerate(names)], tmp_path)
    assert notes == ["4 files share their name with another and were given a longer one"]
    assert len(files(tmp_path)) == len(names)
    taken: set[str] = set()
    assert [output_name(name, taken)[0] for name in names] == ["a", "a.png", "A.jpg", "a.png.jpg", "d/a", "a-2"]
    for index, name in enumerate(["a", "a.png", "A.jpg", "a.png.jpg", "d/a", "a-2"]):
        np.testing.assert_array_equal(read_mask_pixels(tmp_path / f"masks/{name}.png"), square(index, 0) * 255)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=6), max_size=12))
def test_output_names_are_unique_and_inside(names: list[str]) -> None:
    taken: set[str] = set()
    given_names = []
    for name in names:
        try:
            given_names.append(output_name(name, taken)[0])
        except DataError:
            continue
    assert len({name.casefold() for name in given_names}) == len(given_names)
    assert all(name and not name.startswith("/") and ".." not in name.split("/") for name in given_names)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    wrong = Answer("a.jpg", (5, 5), answer("a.jpg", square(1, 1)).objects)
    with pytest.raises(DataError, match="expected a run-length mask of 5x5, got 12x20"):
        write_masks([wrong], tmp_path)


def test_writers_hold_one_answer_at_a_time(tmp_path: Path) -> None:
    """Each answer may go before the next one comes."""
    import weakref

    alive: list[weakref.ref[FoundObject]] = []

    def stream() -> Iterator[Answer]:
        for index in range(6):
            assert sum(reference() is not None for reference in alive) <= 2
            one = answer(f"{index}.jpg", square(index, 0))
            alive.append(weakref.ref(one.objects[0]))
            yield one
            del one

    for name, write in FORMATS.items():
        alive.clear()
        write(stream(), tmp_path / name)
