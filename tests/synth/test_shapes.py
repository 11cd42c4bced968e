"""Silhouettes of objects and animals: masks in one frame, nothing around them, parts within the whole."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.synth.animals import FREE, PLANS, animal
from specialsam.synth.placing import draw_shape
from specialsam.synth.shapes import SHAPES, Silhouette

FAINT = 48
"""An anti-aliased edge may touch the frame; a pixel this bright within it is part of the outline."""


def frame(mask: np.ndarray) -> np.ndarray:
    """The outermost pixels of a plane."""
    return np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])


def check(outline: Silhouette, radius: float) -> None:
    mask = outline.mask
    assert mask.dtype == np.uint8
    assert mask.ndim == 2
    assert mask.max() == 255, "some of it is solid"
    assert np.median(frame(mask)) == 0, "no box stands around the object"
    assert max(mask.shape) < 8 * radius + 20
    for kind, part in outline.parts:
        assert kind in ("part", "hole")
        assert part.shape == mask.shape
        assert part.dtype == np.uint8
        assert not ((part > 127) & (mask < 100)).any(), "a part lies within its object"


@pytest.mark.parametrize("name", SHAPES)
@given(seed=st.integers(0, 2**31), radius=st.floats(3, 190))
@settings(max_examples=12)
def test_outlines_fill_their_frame_and_nothing_else(name: str, seed: int, radius: float) -> None:
    outline = SHAPES[name][0](np.random.default_rng(seed), radius)
    assert outline.mask.dtype == np.uint8
    assert outline.mask.ndim == 2
    assert max(outline.mask.shape) < 8 * radius + 20
    assert outline.thin == (name in ("branch", "crack"))
    if radius > 12:
        check(outline, radius)
    again = SHAPES[name][0](np.random.default_rng(seed), radius)
    assert np.array_equal(outline.mask, again.mask)


@given(seed=st.integers(0, 2**31), radius=st.floats(12, 140))
@settings(max_examples=40)
def test_animals_stand_in_no_rectangle(seed: int, radius: float) -> None:
    """Found by looking: below 60 pixels the melted outline left the whole frame a fifth opaque."""
    outline = animal(np.random.default_rng(seed), radius)
    check(outline, radius)
    far = cv2.dilate((outline.mask > 127).astype(np.uint8), np.ones((15, 15), np.uint8)) == 0
    if far.any():
        assert outline.mask[far].max() <= FAINT


def test_every_build_of_animal_has_a_body_and_a_head() -> None:
    for name, (plan, weight) in PLANS.items():
        groups = plan(np.random.default_rng(3))
        assert {"body", "head"} <= set(groups), name
        assert weight > 0
    assert set(PLANS) > FREE


@given(seed=st.integers(0, 2**31), radius=st.floats(40, 190))
@settings(max_examples=25)
def test_cracks_are_thin(seed: int, radius: float) -> None:
    """Oracle: the largest circle within them, by distance transform, stays far below their extent."""
    mask = SHAPES["crack"][0](np.random.default_rng(seed), radius).mask
    widest = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 5).max()
    assert widest < 0.12 * radius + 2
    assert max(mask.shape) > 0.4 * radius


@given(seed=st.integers(0, 2**31))
@settings(max_examples=25)
def test_solid_outlines_are_compact(seed: int) -> None:
    outline = draw_shape(np.random.default_rng(seed), 40, solid=True)
    assert not outline.thin
    assert (outline.mask > 127).mean() > 0.03
