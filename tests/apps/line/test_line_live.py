"""The live picture and its numbers, as whoever watches finds them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from specialsam.apps.line.decision import Judged
from specialsam.apps.line.live import LONGEST, Live
from specialsam.data.images import read_image

GREY = np.full((200, 300, 3), 90, np.uint8)


def judged(*scores: float) -> Judged:
    """A place of 40 x 30 pixels for each score, side by side."""
    masks = np.zeros((len(scores), 200, 300), np.bool_)
    for place in range(len(scores)):
        masks[place, 60:90, 30 + 120 * place : 70 + 120 * place] = True
    return Judged(max(scores, default=0.0), masks, np.array(scores, np.float32))


def red(image: np.ndarray) -> np.ndarray:
    """Where the mark's colour is."""
    return np.asarray(image[..., 0].astype(int) - image[..., 2] > 60)


def test_what_alarms_is_marked_and_nothing_else(tmp_path: Path) -> None:
    live = Live(tmp_path)
    live.show(GREY, judged(0.9, 0.4), 0.5, {"p95": 0.08})
    shown = red(read_image(tmp_path / "live.jpg"))
    rows, columns = np.nonzero(shown)
    assert 50 < rows.min() < 60 < 90 < rows.max() < 100
    assert 20 < columns.min() < 30 < 70 < columns.max() < 80  # around the first place, and not the second
    told = json.loads((tmp_path / "live.json").read_text())
    assert (told["threshold"], told["score"], told["p95"]) == (0.5, 0.9, 0.08)
    assert abs(told["at"] - time.time()) < 60
    live.show(GREY, judged(), 0.5, {})
    assert not red(read_image(tmp_path / "live.jpg")).any()


def test_large_pictures_are_shown_small_with_their_marks(tmp_path: Path) -> None:
    large = np.repeat(np.repeat(GREY, 8, 0), 8, 1)
    place = judged(0.9)
    Live(tmp_path).show(large, Judged(0.9, np.repeat(np.repeat(place.masks, 8, 1), 8, 2), place.scores), 0.5, {})
    image = read_image(tmp_path / "live.jpg")
    assert max(image.shape) == LONGEST
    rows, _ = np.nonzero(red(image))
    scale = LONGEST / 2400
    assert 8 * 60 * scale - 20 < rows.min() < 8 * 60 * scale


def test_it_is_shown_seldom_and_never_ends_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live = Live(tmp_path / "file" / "below")
    (tmp_path / "file").write_text("no folder")
    assert live.due()
    for _ in range(3):
        live.show(GREY, judged(), 0.5, {})
    assert not live.due()
    assert capsys.readouterr().err.count("goes on without its live picture") == 1
