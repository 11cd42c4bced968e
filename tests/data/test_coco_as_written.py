"""COCO files as tools write them. Oracle: the drawn disc, and which folder each image was written to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from discs import HIGH, WIDE, disc, iou, put, ring

from specialsam.core.errors import DataError
from specialsam.core.masks import to_rle as packed
from specialsam.data import load, open_dataset
from specialsam.data.coco_masks import Leftovers, parts_of, to_rle
from specialsam.data.image_index import parts_of_name
from specialsam.data.read_settings import READ, ReadSettings

Content = dict[str, Any]


def _write(
    root: Path,
    change: Callable[[Content], None] = lambda content: None,
    where: str = "images",
    to: str = "annotations/instances_default.json",
    seeds: range = range(4),
    name: str = "{}.png",
) -> Path:
    """Discs in `where` and a COCO file `to`, changed; image ids are the seeds' numbers from 1 on."""
    images, annotations = [], []
    for number, seed in enumerate(seeds):
        image, _, centre = disc(seed)
        put(root / where / name.format(number), image)
        images.append({"id": number + 1, "file_name": name.format(number), "width": WIDE, "height": HIGH})
        annotations.append(
            {"id": number + 1, "image_id": number + 1, "category_id": 1, "iscrowd": 0, "segmentation": [ring(centre)]}
        )
    content: Content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "spot"}]}
    change(content)
    path = root / to
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return root


def _right(source: Path, seeds: range = range(4), how: ReadSettings = READ) -> str:
    """Every image holds its own disc and nothing else; the notes."""
    dataset = open_dataset(source, how)
    assert [problem.message for problem in dataset.problems] == []
    assert len(dataset) == len(seeds)
    for record, seed in zip(dataset.records, seeds, strict=True):
        sample = load(record)
        assert len(sample.masks) == 1
        assert iou(sample.masks[0], disc(seed)[1]) > 0.85
        assert np.array_equal(sample.image, disc(seed)[0]), "the picture that the annotation was drawn on"
        assert sample.labels == ("spot",)
    return "; ".join(dataset.notes)


def _each(key: str, change: Callable[[Any], Any], of: str = "annotations") -> Callable[[Content], None]:
    def changed(content: Content) -> None:
        for entry in content[of]:
            entry[key] = change(entry[key])

    return changed


def _brush(content: Content) -> None:
    for number, annotation in enumerate(content["annotations"]):
        annotation |= {"iscrowd": 1, "segmentation": packed(disc(number)[1])}


def _by_id(content: Content) -> None:
    content["annotations"] = {str(entry.pop("id")): entry for entry in content["annotations"]}


def _points(flat: list[list[float]]) -> list[list[float]]:
    return [[x, y] for x, y in zip(flat[0][::2], flat[0][1::2], strict=True)]


def _shares(flat: list[list[float]]) -> list[list[float]]:
    return [[value / (WIDE, HIGH)[place % 2] for place, value in enumerate(flat[0])]]


FORMS: dict[str, Callable[[Content], None]] = {
    "as COCO has it": lambda content: None,
    "ids as texts": _each("id", str, "images"),
    "ids as floats": _each("image_id", float),
    "category ids as texts": _each("category_id", str),
    "image ids that are names": _each("image_id", lambda id: f"{id - 1}.png"),
    "flat polygons": _each("segmentation", lambda parts: parts[0]),
    "polygons of points": _each("segmentation", _points),
    "lists of polygons of points": _each("segmentation", lambda parts: [_points(parts)]),
    "points as objects": _each("segmentation", lambda parts: [{"x": x, "y": y} for x, y in _points(parts)]),
    "a stray part": _each("segmentation", lambda parts: [*parts, [1.0, 1.0, 2.0, 1.0], []]),
    "shares of the sides": _each("segmentation", _shares),
    "sizes null": lambda c: [entry.update(width=None, height=None) for entry in c["images"]] and None,
    "sizes zero": lambda c: [entry.update(width=0, height=0) for entry in c["images"]] and None,
    "sizes as texts": lambda c: [entry.update(width=str(WIDE), height=str(HIGH)) for entry in c["images"]] and None,
    "sizes missing": lambda c: [(entry.pop("width"), entry.pop("height")) for entry in c["images"]] and None,
    "annotations by id": _by_id,
    "brush masks": _brush,
    "crowd flags as texts": _each("iscrowd", str),
    "Windows paths": _each("file_name", lambda name: f"..\\..\\label-studio\\media/upload\\4\\{name}", "images"),
    "a drive": _each("file_name", lambda name: f"C:\\data\\images\\{name}", "images"),
    "a query": _each("file_name", lambda name: f"/data/local-files/?d=set\\x/{name}", "images"),
    "percent signs": _each("file_name", lambda name: name.replace(".", "%2E"), "images"),
    "another case": _each("file_name", lambda name: name.upper(), "images"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_discs(tmp_path: Path, form: str) -> None:
    notes = _right(_write(tmp_path, FORMS[form]))
    said = {"a stray part": "8 parts of fewer than 3 points", "shares of the sides": "shares of the image's sides"}
    assert said.get(form, "read instances_default.json") in notes


def test_brush_masks_beside_polygons_are_objects_and_can_be_left_out(tmp_path: Path) -> None:
    def mixed(content: Content) -> None:
        content["annotations"][0] |= {"iscrowd": 1, "segmentation": packed(disc(0)[1])}

    assert "data.crowds=out" in _right(_write(tmp_path, mixed))
    dataset = open_dataset(tmp_path, ReadSettings(crowds="out"))
    assert len(dataset) == 3
    assert "set data.crowds=objects" in dataset.problems[0].message


def test_a_crowd_polygon_is_a_crowd(tmp_path: Path) -> None:
    def crowds(content: Content) -> None:
        _brush(content)
        content["annotations"][1] |= {"segmentation": [ring(disc(1)[2])]}

    with pytest.raises(DataError, match=r"1 crowd annotation left out .*data\.crowds=objects"):
        open_dataset(_write(tmp_path, crowds))
    _right(tmp_path, how=ReadSettings(crowds="objects"))


def test_few_crowds_among_many_objects_are_crowds(tmp_path: Path) -> None:
    """COCO's own files: 1 of 300 masks is a run length, and a crowd."""

    def like_coco(content: Content) -> None:
        first = content["annotations"][0]
        content["annotations"] += [{**first, "id": 100 + number, "image_id": 2} for number in range(300)]
        first |= {"iscrowd": 1, "segmentation": packed(disc(0)[1])}

    dataset = open_dataset(_write(tmp_path, like_coco))
    assert [problem.kind for problem in dataset.problems] == ["crowd annotation", "image without mask"]


def test_equal_names_in_two_splits_are_told_apart(tmp_path: Path) -> None:
    _write(tmp_path, where="images/train", to="annotations/instances_train2017.json")
    _write(tmp_path, where="images/val", to="annotations/instances_val2017.json", seeds=range(50, 53))
    dataset = open_dataset(tmp_path)
    assert not dataset.problems
    assert [record.split for record in dataset.records] == ["train"] * 4 + ["val"] * 3
    for record, seed in zip(dataset.records, [0, 1, 2, 3, 50, 51, 52], strict=True):
        sample = load(record)
        assert np.array_equal(sample.image, disc(seed)[0])
        assert iou(sample.masks[0], disc(seed)[1]) > 0.85


@pytest.mark.parametrize("folders", [("train", "val"), ("train2017", "val2017"), ("site/train", "site/val")])
def test_the_json_of_one_split_finds_its_own_folder(tmp_path: Path, folders: tuple[str, str]) -> None:
    for number in range(6):
        put(tmp_path / "images" / folders[0] / f"{number}.png", disc(90 + number)[0])
    _right(_write(tmp_path, where=f"images/{folders[1]}", to="annotations/instances_val.json"))


def test_a_stated_folder_tells_equal_names_apart(tmp_path: Path) -> None:
    put(tmp_path / "a/0.png", disc(70)[0])
    _write(tmp_path, _each("file_name", lambda name: f"D:/x/b/{name}", "images"), where="b", to="all.json")
    _right(tmp_path)


def test_equal_names_that_nothing_tells_apart_are_refused_with_both_places(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path / f"images/a/{number}.png", disc(70 + number)[0])
    with pytest.raises(DataError, match=r"several folders that nothing tells apart: .*a/0\.png, .*b/0\.png"):
        open_dataset(_write(tmp_path, where="images/b"))


def test_a_folder_that_lacks_one_name_is_not_meant(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / f"images/a/{number}.png", disc(70 + number)[0])
    _right(_write(tmp_path, where="images/b"))


def test_equal_files_in_two_folders_are_one(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path / f"copy/{number}.png", disc(number)[0])
    _right(_write(tmp_path))


def test_a_json_that_is_named_itself_and_images_far_below(tmp_path: Path) -> None:
    _right(_write(tmp_path / "a") / "annotations/instances_default.json")
    _right(_write(tmp_path / "b", where="data/site/day/camera"))


def test_a_missing_image_names_the_nearest(tmp_path: Path) -> None:
    _write(tmp_path, name="frame_{}.png")
    (tmp_path / "images/frame_2.png").rename(tmp_path / "images/frame_2b.png")
    (problem,) = open_dataset(tmp_path).problems
    assert problem.message.endswith("lists the image 'frame_2.png', found none; the nearest is frame_2b.png")


def test_a_detectors_results_are_no_annotations(tmp_path: Path) -> None:
    content = {"images": [{"file": "a.jpg", "detections": []}], "detection_categories": {"1": "animal"}}
    put(tmp_path / "a.jpg", disc(0)[0])
    (tmp_path / "md.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"MegaDetector.*segment --prompts"):
        open_dataset(tmp_path / "md.json")
    assert open_dataset(tmp_path).layout == "photos"


def test_parts_of_names_and_of_polygons() -> None:
    assert parts_of_name("..\\a/b\\\\c.png") == ("a", "b", "c.png")
    assert parts_of_name("/data/?d=x/y.png") == ("x", "y.png")
    assert parts_of_name("C:x.png") == ("x.png",)
    assert parts_of([1, 2, 3, 4, 5, 6]) == [[1, 2, 3, 4, 5, 6]]
    assert parts_of(None) == parts_of([]) == []
    left = Leftovers()
    to_rle([[0, 0, 5, 0, 5, 5], [1, 1]], 9, 9, left=left)
    assert left.stray == 1
    with pytest.raises(DataError, match="at least 3 points"):
        to_rle([[1, 1, 2, 2]], 9, 9)


def test_boxes_or_captions_of_one_file_bar_no_masks_of_another(tmp_path: Path) -> None:
    """`captions.json` is read before `instances.json`; each speaks of the same images."""
    for number in range(3):
        put(tmp_path / f"images/{number}.png", disc(number)[0])
    images = [{"id": n, "file_name": f"{n}.png", "height": HIGH, "width": WIDE} for n in range(3)]
    masks = [{"id": n, "image_id": n, "category_id": 1, "segmentation": packed(disc(n)[1])} for n in range(3)]
    words = [{"id": n, "image_id": n, "caption": "a disc"} for n in range(3)]
    classes = [{"id": 1, "name": "disc"}]
    for name, said in (("captions", words), ("instances", masks)):
        content = {"images": images, "annotations": said, "categories": classes}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert [len(one.rles) for one in open_dataset(f"coco:{tmp_path}").records] == [1, 1, 1]
    boxes = [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}]
    content = {"images": images, "annotations": boxes, "categories": classes}
    (tmp_path / "captions.json").write_text(json.dumps(content))
    found = open_dataset(f"coco:{tmp_path}")
    assert [len(one.rles) for one in found.records] == [1, 1, 1], "two images without a box are not empty"
    assert not [problem for problem in found.problems if "usable mask" in problem.message], "the other file has it"
    (tmp_path / "instances.json").write_text(json.dumps({"images": images[:1], "annotations": masks[:1]}))
    kinds = {one.id: one.mask_kind for one in open_dataset(f"coco:{tmp_path}").records}
    assert sorted(kinds.values()) == ["none", "none", "rle"]
