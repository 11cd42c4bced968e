"""A second look. The oracle is a model that sees perfectly what it is shown, at the resolution at which it is shown."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.core.geometry import BoolArray, Geometry, ImageArray
from specialsam.core.types import Embedding, Prediction, Prompts
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.models.zoom import LEAST, piece_under, region, zoom

SIDE = 64


class Seer:
    """Sees bright pixels at a quarter of its side, as a SAM does; an embedding holds what it saw."""

    side = SIDE

    def __init__(self) -> None:
        self.seen: list[ImageArray] = []
        self.prompts: list[Prompts] = []

    def encode_batch(self, images: list[ImageArray]) -> list[Embedding]:
        self.seen += images
        return [self.encode(image) for image in images]

    def encode(self, image: ImageArray) -> Embedding:
        geometry = Geometry(image.shape[0], image.shape[1], SIDE)
        coverage = geometry.masks_to_logits((image[..., 0] > 127)[None])
        return Embedding(torch.from_numpy(coverage - 0.5) * 20, geometry)

    def decode(self, embedding: Embedding, prompts: Prompts) -> Prediction:
        self.prompts.append(prompts)
        return Prediction(embedding.tensor[None], torch.tensor([[0.7]]), embedding.geometry)


def answered(image: ImageArray, prompts: Prompts) -> tuple[Any, Prediction, Seer]:
    seer = Seer()
    first = seer.decode(seer.encode(image), prompts)
    return zoom(cast(Segmenter, seer), image, prompts, first), first, seer


def painted(mask: BoolArray) -> ImageArray:
    return np.repeat((mask * np.uint8(255))[..., None], 3, 2)


def iou(first: BoolArray, second: BoolArray) -> float:
    return float((first & second).sum() / (first | second).sum())


@given(seed=st.integers(0, 2**20))
@settings(max_examples=30)
def test_a_small_object_is_outlined_better_from_near(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((256, 320), np.uint8)
    x, y = int(rng.integers(20, 300)), int(rng.integers(20, 236))
    axes = int(rng.integers(6, 12)), int(rng.integers(6, 12))
    cv2.ellipse(mask, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    truth = mask > 0
    box = Prompts("box", boxes=np.array([[x - 13, y - 13, x + 13, y + 13]], np.float32))
    found, first, seer = answered(painted(truth), box)
    assert found.encodes == len(seer.seen) == 1
    assert found.scores[0] == np.float32(0.7)
    assert max(seer.seen[0].shape[:2]) < 160 / LEAST
    assert iou(found.masks()[0], truth) >= iou(first.masks()[0, 0], truth) - 1e-6
    assert iou(found.masks()[0], truth) > 0.85


def test_the_region_is_asked_by_the_first_answer_too() -> None:
    """Oracle: what the model saw first, cut out by hand: its box, its sign at the click and beside the object."""
    truth = np.zeros((256, 256), bool)
    truth[100:124, 140:160] = True
    click = Prompts("interior", points=np.array([[[150, 110]]], np.float32), labels=np.ones((1, 1), np.int64))
    _, first, seer = answered(painted(truth), click)
    asked, seen = seer.prompts[-1], np.argwhere(first.masks()[0, 0])
    assert asked.points is not None
    assert asked.boxes is not None
    assert asked.masks is not None
    corner = np.array([150, 110]) - asked.points[0, 0]
    assert np.allclose(asked.boxes[0, :2] + corner, seen.min(0)[::-1], atol=1)
    assert np.allclose(asked.boxes[0, 2:] + corner, seen.max(0)[::-1] + 1, atol=1)
    assert asked.masks.shape == (1, SIDE // 4, SIDE // 4)
    frame = Geometry(*seer.seen[-1].shape[:2], SIDE)
    x, y = (frame.points_to_model(asked.points[0, 0]) / 4).astype(int)
    assert asked.masks[0, y, x] > 1
    assert asked.masks[0, 0, 0] < -1


def test_what_fills_the_picture_is_left_as_it_was() -> None:
    truth = np.zeros((128, 128), bool)
    truth[10:110, 12:120] = True
    prompts = Prompts("interior", points=np.array([[[60, 60]]], np.float32), labels=np.ones((1, 1), np.int64))
    found, first, seer = answered(painted(truth), prompts)
    assert found.encodes == 0
    assert not seer.seen
    assert np.array_equal(found.masks()[0], first.masks()[0, 0])


@given(
    x=st.floats(0, 199),
    y=st.floats(0, 149),
    width=st.floats(1, 100),
    height=st.floats(1, 100),
    side=st.sampled_from([64, 256]),
)
def test_a_region_holds_its_box(x: float, y: float, width: float, height: float, side: int) -> None:
    box = np.array([[x, y, min(x + width, 200), min(y + height, 150)]], np.float32)
    window = region(np.zeros((150, 200), bool), Prompts("box", boxes=box), side)
    if window is not None:
        assert window.top <= box[0, 1] + 1
        assert window.left <= box[0, 0] + 1
        assert window.top + window.height >= box[0, 3] - 1
        assert window.left + window.width >= box[0, 2] - 1
        assert 200 / max(window.size) >= LEAST - 0.05


def test_the_piece_under_the_clicks_is_what_counts() -> None:
    mask = np.zeros((40, 40), bool)
    mask[2:8, 2:8] = mask[20:30, 20:30] = True
    assert piece_under(mask, np.array([[4, 4]], np.float32)).sum() == 36
    assert piece_under(mask, np.array([[4, 4], [25, 25]], np.float32)).sum() == 136
    assert piece_under(mask, np.array([[39, 0]], np.float32)).sum() == 136


def test_nano_takes_a_second_look() -> None:
    """The real model, on a picture whose object is an eighth of its width."""
    truth = np.zeros((480, 640), bool)
    truth[200:260, 300:380] = True
    image = np.where(truth[..., None], np.uint8(210), np.uint8(60)).repeat(3, 2)
    nano = load_model("nano")
    prompts = Prompts("box", boxes=np.array([[300, 200, 380, 260]], np.float32))
    first = nano.decode(nano.encode(image), prompts)
    found = zoom(nano, image, prompts, first)
    assert found.encodes == 1
    assert found.probabilities.shape == (1, 480, 640)
    assert 0 <= found.probabilities.min() <= found.probabilities.max() <= 1
    assert iou(found.masks()[0], truth) > 0.8
