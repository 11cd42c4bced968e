"""Prompts out of files. Oracles: files written by hand in each format's published form, boxes counted in pixels."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialsam.apps import boxes
from specialsam.apps.asked import posix
from specialsam.apps.boxes import Asked, PromptTable, locate, match, read_prompts
from specialsam.core.errors import DataError


def written(folder: Path, content: object, name: str = "prompts.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def megadetector(*images: dict[str, object], **more: object) -> dict[str, object]:
    categories = {"1": "animal", "2": "person"}
    return {
        "info": {"format_version": "1.6", "detector": "md"},
        "detection_categories": categories,
        "images": list(images),
        **more,
    }


def seen(conf: float = 0.9, category: str = "1", bbox: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4)) -> dict[str, object]:
    return {"category": category, "conf": conf, "bbox": list(bbox)}


def test_points_of_one_object_stand_together(tmp_path: Path) -> None:
    text = "file,x,y,label,object\na.jpg,10,20,1,fox\nb.jpg,1,2,,\na.jpg,12.5,3,0,fox\nb.jpg,3,4,1,\n\n"
    table = read_prompts(written(tmp_path, text, "p.csv"))
    assert table.kind == "points (CSV)"
    assert table.failures == {}
    (fox,) = table.by_file["a.jpg"]
    assert fox.points is not None
    assert fox.point_labels is not None
    assert fox.points.dtype == np.float32
    assert fox.point_labels.dtype == np.int64
    np.testing.assert_array_equal(fox.points, [[10, 20], [12.5, 3]])
    np.testing.assert_array_equal(fox.point_labels, [1, 0])
    assert (fox.box, fox.relative, fox.score, fox.source) == (None, False, 1.0, "row 2 to row 4")
    assert [asked.source for asked in table.by_file["b.jpg"]] == ["row 3", "row 5"]


def test_boxes_of_csv(tmp_path: Path) -> None:
    """Corners are inclusive as they stand; a width counts pixels, so x + width - 1 is the last one."""
    text = "Image;X0;Y0;X1;Y1;Name;Score\nd\\a.jpg;1;2;3;4;red fox;0.5\nd\\a.jpg;0;0;0;0;;\n"
    table = read_prompts(written(tmp_path, text, "p.csv"))
    first, second = table.by_file["d/a.jpg"]
    assert (first.box, first.label, first.score, first.source) == ((1, 2, 3, 4), "red fox", 0.5, "row 2")
    assert (second.box, second.label, second.score) == ((0, 0, 0, 0), "", 1.0)
    sides = read_prompts(written(tmp_path, "filename,x,y,width,height\na.jpg,5,6,10,1\na.jpg,5,6,0,0\n", "q.csv"))
    assert [asked.box for asked in sides.by_file["a.jpg"]] == [(5, 6, 14, 6), (5, 6, 5, 6)]
    assert sides.kind == "boxes (CSV)"


def test_a_low_score_leaves_an_image_without_objects(tmp_path: Path) -> None:
    table = read_prompts(written(tmp_path, megadetector({"file": "a.jpg", "detections": [seen(0.2), seen(0.8)]})), 0.5)
    assert [asked.score for asked in table.by_file["a.jpg"]] == [0.8]
    assert read_prompts(tmp_path / "prompts.json", 0.9).by_file == {"a.jpg": ()}


def test_coco_boxes(tmp_path: Path) -> None:
    content = {
        "images": [
            {"id": 7, "file_name": "a\\b.jpg"},
            {"id": 8, "file_name": "c.jpg"},
            {"id": 9, "file_name": "c.jpg"},
        ],
        "categories": [{"id": 3, "name": "fox"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 20, 5, 1]},
            {"id": 2, "image_id": 7, "category_id": 99, "bbox": [0.5, 0, 0, 0.25], "score": 0.25},
            {"id": 3, "image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"id": 4, "image_id": 70, "category_id": 3, "bbox": [0, 0, 9, 9]},
            {"id": 5, "image_id": 7, "category_id": 3},
        ],
    }
    table = read_prompts(written(tmp_path, content))
    fox, speck = table.by_file["a/b.jpg"]
    assert (fox.box, fox.label, fox.score, fox.relative) == ((10, 20, 14, 20), "fox", 1.0, False)
    assert (speck.box, speck.label, speck.score) == ((0.5, 0, 0.5, 0), "", 0.25)
    assert table.by_file["c.jpg"] == ()
    assert (table.kind, len(table.notes)) == ("COCO boxes", 4)
    assert "1 entries were left out, their image is listed before" in table.notes


def test_megadetector_results_as_published(tmp_path: Path) -> None:
    """The example of the format's page: detections, none, a failure, and what the page calls no detection."""
    images = (
        {"file": "d/a.jpg", "detections": [seen(), seen(0.7, "2"), seen(0.6, "5")], "max_detection_conf": 0.9},
        {"file": "blank.jpg", "detections": [], "failure": None},
        {"file": "bad.jpg", "failure": "Failure image access", "detections": None},
        {"file": "odd.jpg", "failure": "Failure inference", "detections": []},
        {"file": "silent.jpg"},
        {"file": "d/a.jpg", "detections": []},
    )
    table = read_prompts(written(tmp_path, megadetector(*images)))
    animal, person = table.by_file["d/a.jpg"]
    assert animal.box == pytest.approx((0.1, 0.2, 0.4, 0.6))
    assert (animal.relative, animal.label, person.label, animal.source) == (True, "animal", "person", "md")
    assert table.by_file["blank.jpg"] == ()
    assert table.failures["bad.jpg"] == "Failure image access"
    assert table.failures["odd.jpg"] == "Failure inference"
    assert set(table.failures) == {"bad.jpg", "odd.jpg", "silent.jpg"}
    assert set(table.by_file) == {"d/a.jpg", "blank.jpg"}
    assert sorted(table.notes) == [
        "1 detections were left out, their category is not listed or stands for an empty image",
        "1 entries were left out, their image is listed before",
        "1 failures come with a list of detections, which the format forbids; they count as failures",
    ]


def test_megadetector_of_all_versions(tmp_path: Path) -> None:
    for version in ("1.0", 1.2, "1.6"):
        content = megadetector({"file": "a.jpg", "detections": [seen()]}, info={"format_version": version})
        assert read_prompts(written(tmp_path, content)).notes == ()
    later = megadetector({"file": "a.jpg", "detections": [seen()]}, info={"format_version": "2.0"})
    assert "not known" in read_prompts(written(tmp_path, later)).notes[0]
    bare = read_prompts(written(tmp_path, {"images": [{"file": "a.jpg", "detections": [seen(1.0, "3")]}]}))
    assert bare.by_file["a.jpg"][0].label == "vehicle"


def test_speciesnet_predictions_as_published(tmp_path: Path) -> None:
    """The common name ends the prediction; a classifier that failed leaves detections good; whole images are none."""
    whole = {"category": "0", "label": "whole_image_classification", "conf": 0.9, "bbox": [0, 0, 1, 1]}
    elephant = "5563;mammalia;proboscidea;elephantidae;loxodonta;africana;african elephant"
    predictions = [
        {"filepath": "C:\\cams\\a.jpg", "detections": [seen(), seen(0.5, "2"), whole], "prediction": elephant},
        {"filepath": "b.jpg", "detections": [seen()], "prediction": "f185;;;;;;blank", "model_version": "4.0.1a"},
        {"filepath": "c.jpg", "detections": [seen()], "failures": ["CLASSIFIER"]},
        {"filepath": "d.jpg", "failures": ["CLASSIFIER", "DETECTOR"]},
        {"filepath": "e.jpg", "failures": ["DETECTOR"], "detections": []},
    ]
    table = read_prompts(written(tmp_path, {"predictions": predictions}))
    assert [asked.label for asked in table.by_file["C:/cams/a.jpg"]] == ["african elephant", "human"]
    assert [table.by_file[name][0].label for name in ("b.jpg", "c.jpg")] == ["animal", "animal"]
    assert table.by_file["b.jpg"][0].source == "SpeciesNet 4.0.1a"
    assert table.failures == {"d.jpg": "failed: CLASSIFIER, DETECTOR", "e.jpg": "failed: DETECTOR"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,x,y\na.jpg,nan,1\n", r"row 2: expected x to be a number in -1e\+09..1e\+09, got 'nan'"),
        ("file,x,y\na.jpg,1,1\na.jpg,1,inf\n", "row 3: expected y"),
        ("file,x,y\na.jpg,1," + "9" * 400 + "\n", "row 2: expected y"),
        ("file,x,y\na.jpg,1,\n", "row 2: expected y"),
        ("file,x,y,label\na.jpg,1,1,2\n", "row 2: expected label"),
        ("file,x,y,label\na.jpg,1,1,0.5\n", "row 2: expected label 1"),
        ("file,x,y,label\na.jpg,1,1,0\n", "one point of an object to be 1"),
        ("file,x,y,width,height\na.jpg,1,1,-2,3\n", "row 2: expected width"),
        ("file,x0,y0,x1,y1\na.jpg,5,1,2,3\n", "row 2: expected x0 <= x1"),
        ("file,x0,y0,x1,y1,name,score\na.jpg,1,1,2,3,fox,1.5\n", "row 2: expected score to be a number in 0..1"),
        ("file,x,y\na.jpg,1\n", "row 2: expected 3 cells as in the header, got 2"),
        ("file,x,y\n,1,2\n", "row 2: expected the name of an image"),
        ("file,x,y\n", "names no image"),
        ("", "got nothing; of CSV the header is file,x,y"),
        ("name,x,y\na.jpg,1,2\n", "got name,x,y; of CSV"),
        ("file,x,y,x\na.jpg,1,2,3\n", "got file,x,y,x; of CSV"),
        ('file,x,y\n"a.jpg,1,2\n', "line 2: expected a row of CSV"),
        ("file,x,y\n" + "a" * 200_000 + ",1,2\n", "expected a row of CSV"),
        ("[]", "got JSON that is a list"),
        ("{}", "got JSON that is a dictionary of nothing"),
        ('{"a": 1, "b": 2}', "got JSON that is a dictionary of a, b"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "cannot read it"),
        ('{"images": [], "detection_categories": {}}', "names no image"),
        ('{"images": {}}', "images: expected a list, got a dict"),
        ('{"images": [[[[[[[[[[1]]]]]]]]]]}', r"images\[0\]: expected a dictionary, got a list"),
        ('{"images": [{"file": 3}]}', r"images\[0\]: expected the name of an image, got 3"),
        ('{"images": [{"file": "..", "detections": [[]]}]}', r"detections\[0\]: expected a dictionary"),
        ('{"predictions": 3}', "predictions: expected a list, got 3"),
        ('{"images": [], "annotations": [3]}', r"annotations\[0\]: expected a dictionary, got 3"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_what_cannot_be_a_prompt_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text, "p")
    with pytest.raises(DataError, match=message) as caught:
        read_prompts(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("bbox", "conf"),
    [
        ("[0.1, 0.1, -0.1, 0.2]", "0.5"),
        ("[0.1, 0.1, NaN, 0.2]", "0.5"),
        ("[0.1, 0.1, Infinity, 0.2]", "0.5"),
        ("[0.9, 0.1, 0.2, 0.2]", "0.5"),
        ("[10, 20, 300, 400]", "0.5"),
        ("[0.1, 0.1, 0.2]", "0.5"),
        ("[0.1, 0.1, 0.2, true]", "0.5"),
        ("[0.1, 0.1, 0.2, [[[0.2]]]]", "0.5"),
        ("null", "0.5"),
        ("[0.1, 0.1, 0.2, 0.2]", "NaN"),
        ("[0.1, 0.1, 0.2, 0.2]", "null"),
        ("[0.1, 0.1, 0.2, 0.2]", "1" + "0" * 400),
    ],
)
def test_a_detection_that_cannot_be_names_its_place(tmp_path: Path, bbox: str, conf: str) -> None:
    text = f'{{"images": [{{"file": "a.jpg", "detections": [{{"category": "1", "conf": {conf}, "bbox": {bbox}}}]}}]}}'
    with pytest.raises(DataError, match=r"prompts.json, images\[0\] \(a.jpg\) detections\[0\]: expected (bbox|conf)"):
        read_prompts(written(tmp_path, text))


def test_files_that_are_no_text_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes("file,x,y\nä.jpg,1,2\n".encode("utf-16"))
    with pytest.raises(DataError, match="in UTF-8, got other bytes; save it as UTF-8"):
        read_prompts(path)
    path.write_text("\ufefffile,x,y\nä.jpg,1,2\n", encoding="utf-8")
    assert list(read_prompts(path).by_file) == ["ä.jpg"]
    with pytest.raises(DataError, match="expected a file, got a folder"):
        read_prompts(tmp_path)
    with pytest.raises(DataError, match="cannot read it"):
        read_prompts(tmp_path / "none.csv")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="a named pipe"):
        read_prompts(tmp_path / "pipe")
    monkeypatch.setattr(boxes, "MOST_BYTES", 10)
    with pytest.raises(DataError, match="of at most 1 GB"):
        read_prompts(path)


def test_names_become_posix_and_printable(tmp_path: Path) -> None:
    table = read_prompts(written(tmp_path, {"images": [{"file": ".\\a//b\x1b.jpg", "detections": []}]}))
    assert list(table.by_file) == ["a/b\\x1b.jpg"]


def test_a_box_in_pixels_by_hand() -> None:
    """A fraction is an edge: 0.25 of 100 pixels is the left edge of pixel 25, 0.5 the right edge of pixel 49."""
    asked = Asked("a.jpg", box=(0.25, 0.0, 0.5, 1.0), relative=True)
    assert asked.in_pixels(40, 100) == Asked("a.jpg", box=(25, 0, 49, 39))
    assert Asked("a.jpg", box=(-0.005, 0.5, 1.005, 0.5001), relative=True).in_pixels(10, 10).box == (0, 5, 9, 5)
    assert Asked("a.jpg", box=(-5, 3, 200, 3)).in_pixels(40, 100).box == (0, 3, 99, 3)


@pytest.mark.parametrize(
    "box", [(100, 0, 120, 10), (-9, 0, -1, 10), (5, 0, 4, 10), (0, 40, 9, 50), (float("nan"), 0, 1, 1)]
)
def test_a_box_outside_or_empty_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(DataError, match=r"expected a box .* within the image of 100x40 pixels"):
        Asked("a.jpg", box=box, source="row 2").in_pixels(40, 100)
    relative = (box[0] / 100, box[1] / 40, (box[2] + 1) / 100, (box[3] + 1) / 40)
    with pytest.raises(DataError, match=r"a.jpg \(md\): .* as fractions; mend it or leave it out"):
        Asked("a.jpg", box=relative, relative=True, source="md").in_pixels(40, 100)


def test_points_in_pixels() -> None:
    points = np.array([[0.5, 1.0], [0, 0]], np.float32)
    relative = Asked("a.jpg", points, np.array([1, 0]), relative=True).in_pixels(40, 100).points
    np.testing.assert_array_equal(relative, np.array([[50, 39], [0, 0]], np.float32))
    inside = Asked("a.jpg", np.array([[99.5, 3.25]], np.float32), np.array([1])).in_pixels(40, 100).points
    np.testing.assert_array_equal(inside, np.array([[99, 3.25]], np.float32))
    for point in ([100, 0], [-0.1, 0], [0, 40], [float("nan"), 0]):
        with pytest.raises(DataError, match="expected points within"):
            Asked("a.jpg", np.array([point], np.float32), np.array([1])).in_pixels(40, 100)


@st.composite
def sized_boxes(draw: st.DrawFn) -> tuple[int, int, tuple[float, float, float, float]]:
    height, width = draw(st.integers(1, 4000)), draw(st.integers(1, 4000))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return height, width, (x0, y0, draw(st.integers(x0, width - 1)), draw(st.integers(y0, height - 1)))


@given(sized_boxes())
def test_fractions_of_a_box_give_its_pixels_back(sized: tuple[int, int, tuple[float, float, float, float]]) -> None:
    height, width, box = sized
    relative = (box[0] / width, box[1] / height, (box[2] + 1) / width, (box[3] + 1) / height)
    assert Asked("a.jpg", box=relative, relative=True).in_pixels(height, width).box == box
    assert Asked("a.jpg", box=box).in_pixels(height, width).box == box


def test_names_find_their_files() -> None:
    files = ["cam1/1.jpg", "cam1/2.jpg", "cam2/1.jpg", "top.jpg"]
    names = ["cam1\\1.jpg", "D:/survey/cam2/1.jpg", "/mnt/top.jpg", "2.jpg", "cam3/1.jpg", "cam1/9.jpg"]
    places, strangers = locate(names, files)
    assert places == dict(zip(names[:4], ["cam1/1.jpg", "cam2/1.jpg", "top.jpg", "cam1/2.jpg"], strict=True))
    assert strangers == ["cam1/9.jpg", "cam3/1.jpg"]


def test_the_longest_common_end_decides() -> None:
    files = ["new/a/1.jpg", "new/b/1.jpg", "new/c/2.jpg"]
    places, strangers = locate(["old/b/1.jpg", "old/x/2.jpg", "old/../b/9.jpg"], files)
    assert places == {"old/b/1.jpg": "new/b/1.jpg", "old/x/2.jpg": "new/c/2.jpg"}
    assert strangers == ["old/../b/9.jpg"]
    assert locate(["old/x/2.jpg", "new/c/2.jpg"], files) == ({"new/c/2.jpg": "new/c/2.jpg"}, ["old/x/2.jpg"])
    assert locate(["x/2.jpg", "y/2.jpg"], files) == ({}, ["x/2.jpg", "y/2.jpg"])


def test_a_name_that_fits_two_files_is_refused() -> None:
    with pytest.raises(DataError, match=r"expected the name '1.jpg' to fit one image, got 'a/1.jpg' and 'b/1.jpg'"):
        locate(["1.jpg"], ["b/1.jpg", "a/1.jpg"])
    with pytest.raises(DataError, match=r"expected one name for the image '1.jpg', got 'a/1.jpg' and 'b/1.jpg'"):
        locate(["b/1.jpg", "a/1.jpg"], ["1.jpg"])


def test_a_table_by_the_files_asked_for() -> None:
    fox = Asked("cam\\a.jpg", box=(0, 0, 1, 1))
    table = PromptTable(
        {"x/cam/a.jpg": (fox,), "x/cam/b.jpg": (), "z.jpg": (fox,)}, {"x/cam/c.jpg": "bad", "q.jpg": ""}, ""
    )
    objects, strangers = match(table, ["cam/a.jpg", "cam/b.jpg", "cam/c.jpg"])
    assert objects == {"cam/a.jpg": (Asked("cam/a.jpg", box=(0, 0, 1, 1)),), "cam/b.jpg": ()}
    assert strangers == ["q.jpg", "z.jpg"]


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), unique=True, max_size=8))
def test_each_file_finds_itself(files: list[str]) -> None:
    places, strangers = locate(files, files)
    assert places == {file: file for file in files}
    assert strangers == []


def test_posix_by_hand() -> None:
    assert [posix(name) for name in ("a\\b.jpg", "./a//b.jpg", "C:\\a", "../a")] == [
        "a/b.jpg",
        "a/b.jpg",
        "C:/a",
        "../a",
    ]
