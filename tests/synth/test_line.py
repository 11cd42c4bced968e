"""The simulated line. Oracles: the web with and without its defects, OpenCV's own reader, and sums done by hand."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from specialsam.core.errors import UsageError
from specialsam.core.settings import parse_settings
from specialsam.synth.line import Camera, LineRecipe, Web, travelled
from specialsam.synth.line_files import good_picture, write_line

CALM = {"light": 0.0, "vibration": 0.0, "exposure": 0.0, "noise": 0.0}
SMALL = LineRecipe(metres=0.6, side=96, pitch_mm=1, defects=3, fps=10, speed=0.2, kinds=("stain", "hole"), seed=3)


def test_the_truth_is_where_the_web_differs() -> None:
    """Oracle: rows and columns in which the web with defects differs from the flawless one."""
    web, clean = Web(SMALL), Web(SMALL, flawless=True)
    assert len(web.defects) == 3
    assert clean.defects == ()
    differs = (web.rows(0, 576) != clean.rows(0, 576)).any(2)
    for one in web.defects:
        rows = slice(round(one.along_m[0] * 1000), round(one.along_m[1] * 1000))
        columns = slice(round(one.across_mm[0]), round(one.across_mm[1]))
        assert differs[rows, columns].sum() == one.area_mm2
        assert differs[rows, columns].any(1)[[0, -1]].all()
        assert differs[rows, columns].any(0)[[0, -1]].all()
        differs[rows, columns] = False
    assert not differs.any()


def test_a_picture_shows_the_web_from_its_upper_edge_down() -> None:
    recipe = SMALL.model_copy(update=CALM)
    web = Web(recipe)
    image = Camera(web).picture(0, 0.3)
    there = web.rows(204, 300)[::-1].astype(float)
    middle = slice(30, 60)
    assert np.abs(image[middle, middle] - there[middle, middle]).mean() < 12, "but for the fall of the light"
    apart = [
        np.abs(image[middle, middle] - web.rows(204 + k, 300 + k)[::-1][middle, middle].astype(float)).mean()
        for k in (-3, 0, 3)
    ]
    assert np.argmin(apart) == 1


def test_the_web_stands_still_in_a_stop_and_passes_whole() -> None:
    """By hand: 0.504 m after the first picture at 20 mm a picture; a stop of 1 s and half of each of two ramps."""
    steady = travelled(SMALL)
    assert steady[0] == pytest.approx(0.096)
    assert np.diff(steady) == pytest.approx(0.02)
    assert len(steady) == 26
    stopped = travelled(SMALL.model_copy(update={"stops": ((1.0, 1.0),)}))
    assert len(stopped) - len(steady) == pytest.approx(15, abs=1)
    assert np.diff(stopped)[10:20] == pytest.approx(0, abs=1e-9)


def test_files(tmp_path: Path) -> None:
    counts = write_line(tmp_path, SMALL, good=2)
    truth = json.loads((tmp_path / "truth.json").read_text())
    film = cv2.VideoCapture(str(tmp_path / "line.avi"))
    read = [film.read() for _ in range(counts["pictures"] + 1)]
    assert [ok for ok, _ in read] == [True] * counts["pictures"] + [False]
    assert read[0][1].shape == (96, 96, 3)
    assert len(truth["travelled_m"]) == counts["pictures"] == 26
    assert [one["kind"] for one in truth["defects"]] == [one.kind for one in Web(SMALL).defects]
    assert sorted(path.name for path in (tmp_path / "good").iterdir()) == ["00000.png", "00001.png"]
    expected = Camera(Web(SMALL)).picture(5, truth["travelled_m"][5])
    assert np.abs(read[5][1][..., ::-1].astype(float) - expected).mean() < 4, "but for JPEG"
    good = Camera(Web(SMALL, flawless=True))
    assert (good_picture(good, 1) == good_picture(good, 1)).all()
    assert (good_picture(good, 1) != good_picture(good, 0)).any()


def test_a_grey_camera_and_wrong_recipes() -> None:
    image = Camera(Web(SMALL.model_copy(update={"grey": True}))).picture(0, 0.2)
    assert (image[..., 0] == image[..., 2]).all()
    for wrong, said in (
        ({"kinds": ["rust"]}, "expected kinds of .*, got rust"),
        ({"metres": 0.1}, "expected at least one picture of web"),
        ({"metres": 1.0, "defects": 40}, "expected at most 3 defects on 1 m, got 40"),
    ):
        with pytest.raises(UsageError, match=said):
            parse_settings(LineRecipe, wrong)
