"""MegaDetector's results and masks beside them. Oracles: the format's page, files read back, pycocotools' decode."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco
from small_models import found_objects

from specialsam.apps.answers import Answer, FoundObject
from specialsam.apps.boxes import read_prompts
from specialsam.apps.megadetector import check, confidence, relative_box, results, write_masks, write_results
from specialsam.core.errors import DataError, UsageError
from specialsam.core.masks import to_rle

CATEGORIES = {"1": "animal", "2": "person"}
WHEN = "2026-01-31 18:00:00"
MASKS = arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))).filter(lambda mask: bool(mask.any()))


def rectangle(x0: int, y0: int, x1: int, y1: int, height: int = 40, width: int = 100) -> npt.NDArray[np.bool_]:
    mask = np.zeros((height, width), np.bool_)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def answer(file: str, *boxes: tuple[int, int, int, int], label: str = "", **more: Any) -> Answer:
    masks = np.array([rectangle(*box) for box in boxes], np.bool_).reshape(-1, 40, 100)
    scores = [0.9 - 0.1 * index for index in range(len(boxes))]
    return Answer(file, (40, 100), found_objects(masks, scores, [label] * len(boxes)), **more)


def some() -> list[Answer]:
    return [
        answer("b/two.jpg", (10, 4, 19, 7), (0, 0, 99, 39), taken="2026-01-31T06:05:04"),
        answer("blank.jpg"),
        Answer("a/bad.jpg", error="expected an image, got damaged data"),
    ]


def test_results_by_hand() -> None:
    """A box of 10x4 pixels at (10, 4) of an image of 100x40 is (0.1, 0.1, 0.1, 0.1)."""
    assert results(some(), "sam", CATEGORIES, WHEN, {"threshold": 0.2}) == {
        "info": {
            "format_version": "1.6",
            "detector": "sam",
            "detection_completion_time": WHEN,
            "detector_metadata": {"threshold": 0.2},
        },
        "detection_categories": CATEGORIES,
        "images": [
            {"file": "a/bad.jpg", "failure": "expected an image, got damaged data", "detections": None},
            {
                "file": "b/two.jpg",
                "height": 40,
                "width": 100,
                "datetime": "2026:01:31 06:05:04",
                "detections": [
                    {"category": "1", "conf": 0.9, "bbox": [0.1, 0.1, 0.1, 0.1]},
                    {"category": "1", "conf": 0.8, "bbox": [0.0, 0.0, 1.0, 1.0]},
                ],
            },
            {"file": "blank.jpg", "height": 40, "width": 100, "detections": []},
        ],
    }


def test_a_clock_that_was_never_set_is_told_as_it_stands() -> None:
    """EXIF's 0001:01:01, which a year without leading zeros would make a time that no reader takes."""
    told = results([answer("a.jpg", taken="0001-01-01T00:00:00")], "sam", CATEGORIES, WHEN)
    assert told["images"][0]["datetime"] == "0001:01:01 00:00:00"
    check(told)


def test_labels_become_categories() -> None:
    """SpeciesNet's human is MegaDetector's person; what has no category of its own gets the first."""
    labels = ("person", "human", "fox", "")
    content = results([answer(f"{label}.jpg", (0, 0, 1, 1), label=label) for label in labels], "sam", CATEGORIES, WHEN)
    found = {image["file"]: image["detections"][0]["category"] for image in content["images"]}
    assert found == {"person.jpg": "2", "human.jpg": "2", "fox.jpg": "1", ".jpg": "1"}


@pytest.mark.parametrize(
    "categories", [{}, {"0": "empty"}, {"1": " "}, {"one": "animal"}, {"00": "animal"}, {"-1": "a"}]
)
def test_categories_that_cannot_be_are_refused(categories: dict[str, str]) -> None:
    with pytest.raises(UsageError, match='expected categories with names by "1"'):
        results([], "sam", categories, WHEN)


def test_written_results_are_read_as_prompts(tmp_path: Path) -> None:
    path = tmp_path / "md.json"
    write_results(iter(some()), path, "sam", CATEGORIES, WHEN)
    assert check(json.loads(path.read_text())) == []
    table = read_prompts(path)
    assert table.failures == {"a/bad.jpg": "expected an image, got damaged data"}
    assert [asked.in_pixels(40, 100).box for asked in table.by_file["b/two.jpg"]] == [(10, 4, 19, 7), (0, 0, 99, 39)]
    assert table.by_file["blank.jpg"] == ()
    assert table.notes == ()


def test_results_that_would_not_be_valid_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected each file once, got 'a.jpg' again; give each image once"):
        write_results([answer("a.jpg"), answer("a.jpg")], tmp_path / "md.json", "sam", CATEGORIES, WHEN)
    with pytest.raises(DataError, match="expected file to be a name"):
        write_results([answer("\\")], tmp_path / "md.json", "sam", CATEGORIES, WHEN)
    assert list(tmp_path.iterdir()) == []


def test_no_name_that_a_disk_takes_breaks_the_format(tmp_path: Path) -> None:
    """Backslashes of broken archives and of odd bytes, drives, and names that become the same without them."""
    names = ["a/b.jpg", "a\\b.jpg", "a/b.jpg (2)", "C:\\a.jpg", "C:/a.jpg", "\\xe9t.jpg", "\\\\server\\a.jpg"]
    write_results([answer(name) for name in names], tmp_path / "md.json", "sam", CATEGORIES, WHEN)
    write_masks([answer(name) for name in names], tmp_path / "masks.json")
    content = json.loads((tmp_path / "md.json").read_text())
    assert check(content) == []
    files = [image["file"] for image in content["images"]]
    assert sorted(files) == sorted(
        ["a/b.jpg", "a/b.jpg (2)", "a/b.jpg (3)", "./C:/a.jpg", "./C:/a.jpg (2)", "xe9t.jpg", "server/a.jpg"]
    )
    assert [image["file"] for image in json.loads((tmp_path / "masks.json").read_text())["images"]] == files


def test_masks_stand_in_the_order_of_detections(tmp_path: Path) -> None:
    write_masks(some(), tmp_path / "masks.json")
    write_results(some(), tmp_path / "md.json", "sam", CATEGORIES, WHEN)
    masks, found = (json.loads((tmp_path / name).read_text())["images"] for name in ("masks.json", "md.json"))
    assert [image["file"] for image in masks] == [image["file"] for image in found]
    assert masks[0]["masks"] is None
    assert masks[2]["masks"] == []
    for rle, box in zip(masks[1]["masks"], [(10, 4, 19, 7), (0, 0, 99, 39)], strict=True):
        np.testing.assert_array_equal(coco.decode(rle), rectangle(*box))


@given(MASKS, st.floats(0, 1))
def test_boxes_and_masks_there_and_back(mask: npt.NDArray[np.bool_], score: float) -> None:
    """Oracle: COCO's own box of the same pixels, four decimals apart at most, never smaller, never outside."""
    height, width = mask.shape
    found = found_objects(mask[None], [score])
    content = json.loads(json.dumps(results([Answer("a.jpg", (height, width), found)], "sam", CATEGORIES, WHEN)))
    assert check(content) == []
    detection = content["images"][0]["detections"][0]
    x, y, across, down = detection["bbox"]
    left, top, columns, rows = coco.toBbox(to_rle(mask)) / [width, height, width, height]
    assert left - 1.01e-4 <= x <= left + 1e-9
    assert top - 1.01e-4 <= y <= top + 1e-9
    assert left + columns - 1e-9 <= x + across <= min(left + columns + 1.01e-4, 1 + 1e-9)
    assert top + rows - 1e-9 <= y + down <= min(top + rows + 1.01e-4, 1 + 1e-9)
    assert detection["conf"] == pytest.approx(score, abs=5.1e-5)


def test_a_pixel_of_a_huge_image_is_no_empty_box() -> None:
    assert relative_box((40_000, 0, 40_000, 0), (3, 40_001)) == (0.9999, 0.0, 0.0001, 0.3334)


def test_a_score_is_a_float_within_0_and_1() -> None:
    given_scores = (1, 1.00001, 0.99999, -0.1, float("nan"), float("inf"))
    assert [confidence(score) for score in given_scores] == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert isinstance(confidence(1), float)


def test_an_object_of_an_odd_name_keeps_the_file_valid(tmp_path: Path) -> None:
    """A byte that is no UTF-8 is printed with a backslash, which the results should not hold."""
    odd = Answer("a\\xff.jpg", (1, 1), (FoundObject(to_rle(np.ones((1, 1), np.bool_)), (0, 0, 0, 0), 1.0),))
    write_results([odd], tmp_path / "md.json", "sam", CATEGORIES, WHEN)
    assert json.loads((tmp_path / "md.json").read_text())["images"][0]["file"] == "a/xff.jpg"


def valid() -> dict[str, Any]:
    return copy.deepcopy(results(some(), "sam", CATEGORIES, WHEN))


def test_the_published_example_is_valid() -> None:
    content = {
        "info": {"format_version": "1.6", "detector": "MDV5A", "classifier": "x"},
        "detection_categories": {"1": "animal", "2": "person", "3": "vehicle"},
        "classification_categories": {"0": "fox"},
        "classification_category_descriptions": {"0": "animalia"},
        "images": [
            {
                "file": "path/from/base/dir/image.jpg",
                "detections": [
                    {
                        "category": "1",
                        "conf": 0.926,
                        "bbox": [0.0, 0.2762, 0.1539, 0.2825],
                        "classifications": [["0", 0.9]],
                    }
                ],
            },
            {"file": "path/empty.jpg", "detections": [], "failure": None},
            {"file": "path/bad.jpg", "failure": "Failure image access"},
        ],
    }
    assert check(content) == []


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("info",), None, "info: expected format_version"),
        (("info", "format_version"), 1.6, "got 1.6"),
        (("info", "format_version"), "2.0", "got '2.0'"),
        (("detection_categories",), [], "expected a dictionary"),
        (("detection_categories", "0"), "empty", 'expected no id "0"'),
        (("detection_categories", "x"), "animal", "whole numbers as texts, got 'x'"),
        (("detection_categories", "1"), " ", "expected a name for '1'"),
        (("images",), {}, "images: expected a list"),
        (("images", 0), [], r"images[0]: expected a dictionary"),
        (("more",), 1, "expected no key 'more'"),
        (("images", 0, "detections"), [], "expected null detections of a failure"),
        (("images", 0, "failure"), 3, "expected failure to be a text"),
        (("images", 0, "failure"), None, "expected a list of detections"),
        (("images", 1, "file"), "a/bad.jpg", "expected each file once"),
        (("images", 1, "file"), "/a.jpg", "expected a relative name"),
        (("images", 1, "file"), "C:/a.jpg", "expected a relative name"),
        (("images", 1, "file"), "a\\b.jpg", "expected a relative name"),
        (("images", 1, "file"), 3, "expected file to be a name"),
        (("images", 1, "mask"), 3, "expected no key 'mask'"),
        (("images", 1, "width"), 3.0, "expected width to be a whole number"),
        (("images", 1, "height"), True, "expected height to be a whole number"),
        (("images", 1, "datetime"), "2026-01-31", "expected datetime as"),
        (("images", 1, "detections", 0), 3, "detections[0]: expected a dictionary"),
        (("images", 1, "detections", 0, "category"), "3", "expected a category"),
        (("images", 1, "detections", 0, "category"), 1, "expected a category"),
        (("images", 1, "detections", 0, "conf"), 1, "expected conf to be a decimal number"),
        (("images", 1, "detections", 0, "conf"), 1.5, "expected conf"),
        (("images", 1, "detections", 0, "conf"), float("nan"), "expected conf"),
        (("images", 1, "detections", 0, "bbox"), [0.1, 0.1, 0.1], "expected bbox to be four numbers"),
        (("images", 1, "detections", 0, "bbox", 2), 0.0, "expected bbox (x, y, width, height) within 0..1"),
        (("images", 1, "detections", 0, "bbox", 2), 0.95, "within 0..1"),
        (("images", 1, "detections", 0, "bbox", 0), -0.1, "within 0..1"),
        (("images", 1, "detections", 0, "bbox", 0), float("nan"), "within 0..1"),
    ],
    ids=str,
)
def test_each_fault_is_found(place: tuple[str | int, ...], value: object, problem: str) -> None:
    """One fault planted into valid results is one line at least, and it says where."""
    content = valid()
    assert check(content) == []
    spot: Any = content
    for key in place[:-1]:
        spot = spot[key]
    spot[place[-1]] = value
    problems = check(content)
    assert any(problem in line for line in problems), problems
    assert all("\n" not in line for line in problems)


@pytest.mark.parametrize(
    "content", [[], None, 3, {}, {"info": [], "images": [[[[[[[[[[]]]]]]]]]], "detection_categories": {}}]
)
def test_other_content_has_problems(content: object) -> None:
    assert check(content)
