"""Light and camera: what lies towards the light is brighter, and a photograph has the size and order of its pixels."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.synth.light import photograph, shading, threefold

seeds = st.integers(0, 2**31)
sides = st.integers(4, 90)


def disc(height: int, width: int) -> npt.NDArray[np.uint8]:
    plane = np.zeros((height, width), np.uint8)
    cv2.ellipse(plane, (width // 2, height // 2), (width // 2 - 1, height // 2 - 1), 0, 0, 360, 255, -1)
    return plane


@settings(max_examples=25)
@given(seed=seeds, height=sides, width=sides, light=st.floats(0, 6.3), strength=st.floats(0, 1))
def test_shading_is_a_brightness_about_one(seed: int, height: int, width: int, light: float, strength: float) -> None:
    found = shading(np.random.default_rng(seed), disc(height, width), light, strength)
    assert found.dtype == np.float32
    assert found.shape == (height, width)
    assert found.min() >= 0.15 - 1e-6
    assert found.max() < 3
    assert np.allclose(shading(np.random.default_rng(seed), disc(height, width), light, 0.0), 1)


@settings(max_examples=20)
@given(seed=seeds, side=st.integers(30, 120), light=st.floats(0, 6.3))
def test_the_side_towards_the_light_is_brighter(seed: int, side: int, light: float) -> None:
    """Oracle: a round body's normals point outwards, so that its half towards the light is the lit one."""
    mask = disc(side, side)
    found = shading(np.random.default_rng(seed), mask, light, 1.0)
    y, x = np.mgrid[:side, :side] - side / 2
    towards = x * np.cos(light) + y * np.sin(light)
    inside = mask > 0
    lit, dark = (found[inside & (way * towards > 0.2 * side)].mean() for way in (1, -1))
    assert lit > dark


@settings(max_examples=20)
@given(seed=seeds, height=st.integers(16, 120), width=st.integers(16, 120))
def test_a_photograph_has_the_size_of_its_pixels_and_leaves_them_alone(seed: int, height: int, width: int) -> None:
    pixels = np.random.default_rng(seed).random((height, width, 3), np.float32)
    before = pixels.copy()
    one, same = (photograph(np.random.default_rng(seed), pixels, height / 256) for _ in range(2))
    assert one.dtype == np.uint8
    assert one.shape == pixels.shape
    assert np.array_equal(one, same)
    assert np.array_equal(pixels, before)


@settings(max_examples=20)
@given(seed=seeds, dark=st.floats(0, 0.35))
def test_a_photograph_keeps_what_is_dark_darker(seed: int, dark: float) -> None:
    """No camera turns dark into light: of two halves the brighter one stays the brighter."""
    pixels = np.full((64, 64, 3), dark, np.float32)
    pixels[:, 32:] += 0.5
    taken = photograph(np.random.default_rng(seed), pixels, 0.25).astype(float)
    assert taken[:, 40:].mean() > taken[:, :24].mean()


def test_two_cameras_take_two_photographs() -> None:
    pixels = np.random.default_rng(0).random((48, 48, 3), np.float32)
    taken = {photograph(np.random.default_rng(seed), pixels, 0.25).tobytes() for seed in range(6)}
    assert len(taken) == 6


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_plane_three_times(kind: type) -> None:
    plane = np.arange(12, dtype=kind).reshape(3, 4)
    assert np.array_equal(threefold(plane), np.repeat(plane[..., None], 3, 2))
