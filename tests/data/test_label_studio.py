"""Label Studio's regions as it writes them: repeated in each answer about them, turned, under several controls.

Oracle: the outlines written here, by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from specialsam.core.types import Dataset
from specialsam.data.images import write_png
from specialsam.data.label_studio import load_label_studio
from specialsam.data.loading import load_masks

SIZE = {"original_width": 200, "original_height": 100}
CORNERS = [[10, 10], [40, 10], [40, 60], [10, 60]]


def tree(root: Path, *tasks: dict[str, Any]) -> Dataset:
    write_png(root / "a.png", np.full((100, 200, 3), 90, np.uint8))
    (root / "export.json").write_text(json.dumps(tasks))
    return load_label_studio(root)


def task(*results: dict[str, Any]) -> dict[str, Any]:
    return {"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": [{**SIZE, **one} for one in results]}]}


def result(kind: str, id: str = "r", **value: Any) -> dict[str, Any]:
    return {"id": id, "type": kind, "value": value}


@pytest.mark.parametrize(
    "results",
    [
        (
            result("polygonlabels", points=CORNERS, polygonlabels=["leaf"]),
            result("choices", points=CORNERS, choices=["high"]),
            result("textarea", points=CORNERS, text=["torn"]),
        ),
        (result("polygon", points=CORNERS), result("labels", points=CORNERS, labels=["leaf"])),
        (result("choices", id="w", choices=["whole image"]), result("polygonlabels", points=CORNERS, labels=["leaf"])),
        (result("labels", labels=["leaf"]), result("polygon", points=CORNERS)),
    ],
)
def test_a_region_is_one_object_whatever_is_said_of_it(tmp_path: Path, results: tuple[dict[str, Any], ...]) -> None:
    found = tree(tmp_path, task(*results))
    assert found.records[0].labels == ("leaf",)
    assert found.records[0].category == "leaf"
    mask = load_masks(found.records[0])[0]
    assert mask[10:60, 20:80].all()
    assert mask.sum() == pytest.approx(50 * 60, rel=0.05)
    assert found.problems == ()


def test_two_regions_of_one_outline_are_two_objects(tmp_path: Path) -> None:
    both = [result("polygonlabels", id=id, points=CORNERS, polygonlabels=[id]) for id in ("x", "y")]
    assert tree(tmp_path, task(*both)).records[0].labels == ("x", "y")


def test_unlike_outlines_of_one_id_are_several_objects(tmp_path: Path) -> None:
    """As scripts write predictions, with an id that is always the same."""
    other = [[60, 10], [90, 10], [90, 60]]
    both = [result("polygonlabels", points=points, polygonlabels=["leaf"]) for points in (CORNERS, other)]
    assert tree(tmp_path, task(*both)).records[0].labels == ("leaf", "leaf")


@pytest.mark.parametrize(("turned", "rows", "columns"), [(0, (40, 59), (60, 139)), (90, (10, 89), (90, 109))])
def test_an_ellipse_is_turned_about_its_centre(
    tmp_path: Path, turned: int, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    ellipse = result("ellipselabels", x=50, y=50, radiusX=20, radiusY=10, rotation=turned, ellipselabels=["e"])
    mask = load_masks(tree(tmp_path, task(ellipse)).records[0])[0]
    at = np.nonzero(mask)
    assert [side for axis in at for side in (min(axis), max(axis))] == pytest.approx([*rows, *columns], abs=1)


def test_an_ellipse_turns_clockwise(tmp_path: Path) -> None:
    ellipse = result("ellipselabels", x=50, y=50, radiusX=20, radiusY=10, rotation=30, ellipselabels=["e"])
    mask = load_masks(tree(tmp_path, task(ellipse)).records[0])[0]
    assert mask[65, 130], "to the right the long axis points down"
    assert not mask[35, 130]


def test_json_min_keeps_a_list_a_control(tmp_path: Path) -> None:
    polygon = {**SIZE, "points": CORNERS, "polygonlabels": ["p"]}
    severity = {**SIZE, "points": CORNERS, "choices": ["high"]}
    ellipse = {**SIZE, "x": 70, "y": 50, "radiusX": 10, "radiusY": 10, "ellipselabels": ["e"]}
    found = tree(tmp_path, {"id": 1, "image": "a.png", "poly": [polygon], "how": [severity], "round": [ellipse]})
    assert found.records[0].labels == ("p", "e")


def test_points_and_boxes_are_named_for_what_they_are(tmp_path: Path) -> None:
    box = result("rectanglelabels", id="b", x=1, y=1, width=5, height=5, rectanglelabels=["b"])
    point = result("keypointlabels", id="k", x=5, y=5, width=0.5, keypointlabels=["k"])
    leaf = result("polygonlabels", id="p", points=CORNERS, polygonlabels=["leaf"])
    said = [problem.message.partition(": ")[2] for problem in tree(tmp_path, task(box, point, leaf)).problems]
    assert [words.split(" shapes are ")[1].split()[0] for words in said] == ["boxes,", "points"]


def test_pictures_that_no_task_names_are_said(tmp_path: Path) -> None:
    for name in ("b.png", "masks/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    notes = tree(tmp_path, task()).notes
    assert notes[1:] == ("1 images that no annotation file lists were left out (b.png)",)
