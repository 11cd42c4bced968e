"""Answers from tiles. The oracle is a model that sees all that lies on its tile: the whole must come out whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from specialsam.core.geometry import BoolArray, Geometry
from specialsam.core.types import Embedding, Prompts
from specialsam.core.windows import Window, tiles
from specialsam.models.segmenter import Segmenter
from specialsam.models.stitching import FEWEST, blended, stitch


class Answer:
    def __init__(self, mask: BoolArray, score: float):
        self.mask, self.scores = mask, torch.tensor([[score]])

    def probabilities(self) -> Any:
        return np.where(self.mask, 0.9, 0.1).astype(np.float32)[None, None]


@dataclass
class Seer:
    """Answers with the connected pieces of its tile of `picture` on which foreground clicks lie, or, without clicks,
    with everything inside of the box; an embedding holds the corner of its tile.
    """

    picture: BoolArray
    windows: list[Window]
    asked: list[Window] = field(default_factory=list)

    def embed(self, window: Window) -> Embedding:
        self.asked.append(window)
        number = torch.full((1, 1, 1), float(self.windows.index(window)))
        return Embedding(number, Geometry(window.height, window.width, 64))

    def decode(self, embedding: Embedding, prompts: Prompts) -> Answer:
        crop = self.picture[self.windows[int(embedding.tensor[0, 0, 0])].slices]
        out = np.zeros_like(crop)
        if prompts.points is not None and prompts.labels is not None:
            _, labels = cv2.connectedComponents(crop.astype(np.uint8), connectivity=8)
            for (x, y), label in zip(prompts.points[0].astype(int), prompts.labels[0], strict=True):
                if label == 1 and labels[y, x]:
                    out |= labels == labels[y, x]
        elif prompts.boxes is not None:
            x0, y0, x1, y1 = prompts.boxes[0].astype(int)
            out[y0:y1, x0:x1] = crop[y0:y1, x0:x1]
        return Answer(out, float(out.any()))


def stitched(picture: BoolArray, prompts: Prompts, side: int = 48, overlap: float = 0.3) -> tuple[BoolArray, Seer, Any]:
    size = (picture.shape[0], picture.shape[1])
    seer = Seer(picture, tiles(size, side, overlap))
    found = stitch(cast(Segmenter, seer), size, seer.windows, seer.embed, prompts)
    return found.masks(), seer, found


def click(x: float, y: float) -> Prompts:
    return Prompts("interior", points=np.array([[[x, y]]], np.float32), labels=np.ones((1, 1), np.int64))


def line(seed: int, height: int, width: int) -> tuple[BoolArray, tuple[int, int]]:
    """A wandering line four pixels wide, as a crack is, and a point on it."""
    rng = np.random.default_rng(seed)
    ys = np.clip(np.cumsum(rng.normal(0, 1.5, width)) + height / 2, 4, height - 5)
    points = np.stack([np.arange(width), ys], 1).astype(np.int32)
    picture = np.zeros((height, width), np.uint8)
    cv2.polylines(picture, [points], False, 1, 4)
    x = int(rng.integers(6, width - 6))
    return picture > 0, (x, int(points[x, 1]))


@given(seed=st.integers(0, 2**20), height=st.integers(40, 150), width=st.integers(60, 220))
@example(seed=30, height=124, width=72)  # two pixels of a bend reach into a tile, too few to be followed there
@settings(max_examples=40)
def test_a_line_is_followed_from_tile_to_tile(seed: int, height: int, width: int) -> None:
    picture, (x, y) = line(seed, height, width)
    masks, seer, found = stitched(picture, click(x, y))
    assert not (masks[0] & ~picture).any()
    assert (picture & ~masks[0]).sum() < FEWEST
    assert found.tiles[0] <= len(seer.windows)
    assert len(set(seer.asked)) == len(seer.asked), "each tile is encoded once at most"


def test_only_the_object_that_was_asked_for_comes_back() -> None:
    picture = np.zeros((120, 200), bool)
    picture[10:30, 10:30] = picture[80:110, 120:190] = True
    masks, seer, _ = stitched(picture, click(20, 20))
    assert masks[0, 10:30, 10:30].all()
    assert masks.sum() == 400
    assert all(window.holds([[20, 20]])[0] or window.shared(Window(10, 10, 20, 20)) for window in seer.asked)


def test_objects_of_one_picture_share_tiles() -> None:
    picture = np.zeros((100, 100), bool)
    picture[5:15, 5:15] = picture[5:15, 25:35] = True
    both = Prompts("interior", points=np.array([[[10, 10]], [[30, 10]]], np.float32), labels=np.ones((2, 1), np.int64))
    masks, seer, _ = stitched(picture, both)
    assert masks[0].sum() == masks[1].sum() == 100
    assert not (masks[0] & masks[1]).any()
    assert len(set(seer.asked)) == len(seer.asked)


@given(seed=st.integers(0, 2**20))
@example(seed=120)  # one tile of the box holds four pixels of the line and is as sure as the others
@example(seed=1524)
@settings(max_examples=25)
def test_a_box_keeps_to_its_tiles(seed: int) -> None:
    picture, _ = line(seed, 100, 160)
    found = np.argwhere(picture)
    (y0, x0), (y1, x1) = found.min(0), found.max(0) + 1
    box = Prompts("box", boxes=np.array([[x0, y0, x1, y1]], np.float32))
    masks, _, _ = stitched(picture, box)
    assert (masks[0] & picture).sum() >= 0.95 * picture.sum()
    assert not (masks[0] & ~picture).any()


def test_a_prompt_that_no_tile_holds_gives_nothing() -> None:
    masks, seer, found = stitched(np.ones((60, 60), bool), click(400, 10))
    assert not masks.any()
    assert found.tiles == (0,)
    assert found.scores[0] == 0
    assert not seer.asked


@given(
    height=st.integers(16, 160),
    width=st.integers(16, 160),
    side=st.integers(16, 64),
    overlap=st.floats(0, 0.7),
    level=st.floats(0, 1),
)
def test_blending_equal_answers_shows_no_join(height: int, width: int, side: int, overlap: float, level: float) -> None:
    windows = tiles((height, width), side, overlap)
    plane = blended((height, width), {w: np.full(w.size, level, np.float32) for w in windows})
    assert np.allclose(plane, level, atol=1e-5)


def test_blending_passes_over_from_one_answer_to_the_other() -> None:
    """Oracle: in the overlap of a dark and a bright tile values rise steadily; nothing jumps by more than a step."""
    first, second = tiles((32, 48), 32, 0.5)
    plane = blended((32, 48), {first: np.zeros(first.size, np.float32), second: np.ones(second.size, np.float32)})
    row = plane[16]
    assert row[0] == 0
    assert row[-1] == 1
    assert (np.diff(row) >= -1e-6).all()
    assert np.diff(row).max() < 0.15


@pytest.mark.parametrize("covered", [1, 2])
def test_pixels_without_a_tile_are_background(covered: int) -> None:
    windows = tiles((20, 80), 20, 0)[:covered]
    plane = blended((20, 80), {w: np.ones(w.size, np.float32) for w in windows})
    assert plane[:, : 20 * covered].min() == 1
    assert plane[:, 20 * covered :].max() == 0
