"""Light: where it falls a body is bright, away from it lies the shadow; the camera keeps size and seed."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.synth.light import photograph, shading, threefold
from specialsam.synth.materials import draw_material
from specialsam.synth.placing import Canvas, Look, Thing, lay
from specialsam.synth.shapes import Silhouette


def disc(side: int) -> np.ndarray:
    plane = np.zeros((side, side), np.uint8)
    cv2.circle(plane, (side // 2, side // 2), side // 2 - 3, 255, -1)
    return plane


def towards(light: float, side: int) -> np.ndarray:
    """How far each pixel lies from the centre towards the light."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.asarray(x * np.cos(light) + y * np.sin(light))


@given(seed=st.integers(0, 2**31), light=st.floats(0, 6.28), side=st.integers(24, 200))
@settings(max_examples=40)
def test_the_side_towards_the_light_is_the_brighter_one(seed: int, light: float, side: int) -> None:
    mask = disc(side)
    bright = shading(np.random.default_rng(seed), mask, light, 1.0)
    assert bright.shape == mask.shape
    assert bright.dtype == np.float32
    assert (bright > 0).all()
    inside, along = mask > 127, towards(light, side)
    rim = inside & (np.abs(along) > side / 4)
    assert bright[rim & (along > 0)].mean() > bright[rim & (along < 0)].mean()


def test_without_strength_nothing_is_shaded() -> None:
    assert np.allclose(shading(np.random.default_rng(0), disc(60), 1.0, 0.0), 1)


@given(seed=st.integers(0, 2**31), light=st.floats(0, 6.28))
@settings(max_examples=25)
def test_a_shadow_falls_away_from_the_light(seed: int, light: float) -> None:
    """Oracle: the darkest ground around a disc lies opposite to the light, never on the light's side."""
    rng = np.random.default_rng(seed)
    canvas = Canvas.blank(128, light)
    canvas.enter("region")
    canvas.pixels[:] = 0.5
    look = Look(relief=0, shadow=0.7, softness=0.5, ragged=0)
    assert lay(rng, canvas, Thing(Silhouette(disc(50)), (64, 64), draw_material(rng), look))
    ground = cv2.erode((canvas.owner == 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0  # without the soft edge
    along = towards(light, 128)
    near, far = ground & (along > 4), ground & (along < -4)
    assert canvas.pixels[far].mean() <= canvas.pixels[near].mean() + 1e-6
    assert canvas.pixels[ground].max() <= 0.5


@given(seed=st.integers(0, 2**31), height=st.integers(16, 200), width=st.integers(16, 200))
@settings(max_examples=25)
def test_the_camera_keeps_the_size_and_follows_the_seed(seed: int, height: int, width: int) -> None:
    pixels = np.random.default_rng(seed).uniform(0, 1.2, (height, width, 3)).astype(np.float32)
    before = pixels.copy()
    taken = photograph(np.random.default_rng(seed), pixels, 1.0)
    assert taken.shape == (height, width, 3)
    assert taken.dtype == np.uint8
    assert np.array_equal(taken, photograph(np.random.default_rng(seed), pixels, 1.0))
    assert np.array_equal(pixels, before)


def test_threefold_repeats_a_plane() -> None:
    plane = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(threefold(plane), np.repeat(plane[..., None], 3, 2))
