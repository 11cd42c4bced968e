"""The canvas and what is laid on it: owners, edges, shadows. The oracle is the outline that was laid."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.synth.animals import animal
from specialsam.synth.materials import draw_material
from specialsam.synth.placing import (
    Canvas,
    Look,
    defocus,
    draw_centre,
    draw_look,
    draw_name,
    draw_radius,
    draw_shape,
    lay,
)
from specialsam.synth.shapes import SHAPES, Silhouette

seeds = st.integers(0, 2**31)
SIZE = 96


def ground(light: float = 0.0, size: int = SIZE) -> Canvas:
    """A grey canvas with one region as the owner of all of it."""
    canvas = Canvas.blank(size, light)
    canvas.pixels[:] = 0.5
    canvas.enter("region")
    return canvas


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((2 * pixels + 1,) * 2, np.uint8)) > 0)


@settings(max_examples=25)
@given(
    seed=seeds,
    name=st.sampled_from(["animal", *SHAPES]),
    radius=st.floats(5, 40),
    x=st.floats(0, SIZE),
    y=st.floats(0, SIZE),
    ragged=st.booleans(),
)
def test_what_is_laid_changes_nothing_beside_its_outline(
    seed: int, name: str, radius: float, x: float, y: float, ragged: bool
) -> None:
    """Without a shadow: pixels and owners change within a few pixels of the outline, nothing further away."""
    rng = np.random.default_rng(seed)
    outline = animal(rng, radius) if name == "animal" else SHAPES[name][0](rng, radius)
    canvas = ground()
    look = Look(relief=0.7, shadow=0, softness=0.6, ragged=2.0 if ragged else 0, blend_in=0.3)
    kind = "animal" if name == "animal" else "object"
    seen = lay(rng, canvas, outline, (x, y), draw_material(rng), look, kind)
    changed = np.abs(canvas.pixels - 0.5).max(2) > 0.02
    owned = canvas.owner > 0
    if not seen:
        assert not changed.any()
        assert not owned.any()
        assert canvas.kinds == ["region"]
        return
    height, width = outline.mask.shape
    left, top = round(x - width / 2), round(y - height / 2)
    whole = np.zeros((3 * SIZE + 2 * height, 3 * SIZE + 2 * width), bool)
    whole[top + SIZE + height :, left + SIZE + width :][:height, :width] = outline.mask > 127
    near = grown(whole, 6)[SIZE + height :, SIZE + width :][:SIZE, :SIZE]
    assert not (changed & ~near).any()
    assert not (owned & ~near).any()
    assert canvas.kinds[1] == ("thin" if outline.thin else kind)
    assert canvas.parents[:2] == [-1, -1]
    assert set(canvas.parents[2:]) <= {1}, "the rest are its parts"
    assert set(np.unique(canvas.owner)) <= set(range(len(canvas.kinds)))


@settings(max_examples=20)
@given(seed=seeds, light=st.floats(0, 6.3))
def test_a_shadow_falls_away_from_the_light(seed: int, light: float) -> None:
    """Oracle: the centre of what got darker lies on the other side of the object than the light; owners stay."""
    plane = np.zeros((31, 31), np.uint8)
    cv2.circle(plane, (15, 15), 12, 255, -1, cv2.LINE_AA)
    rng = np.random.default_rng(seed)
    canvas = ground(light, 256)
    canvas.unit = 2.0
    assert lay(rng, canvas, Silhouette(plane), (128, 128), draw_material(rng), Look(0, 0.7, 0.4, 0))
    y, x = np.mgrid[:256, :256] - 128
    darkened = np.clip(0.5 - canvas.pixels.mean(2), 0, None) * (np.hypot(x, y) > 16)
    towards = (darkened * (x * np.cos(light) + y * np.sin(light))).sum() / darkened.sum()
    assert towards < 0
    assert np.hypot(*np.nonzero(canvas.owner) - np.array([[128], [128]])).max() < 16, "a shadow owns nothing"


@settings(max_examples=20)
@given(seed=seeds, x=st.sampled_from([-200.0, 48.0, 300.0]))
def test_what_is_out_of_sight_is_not_laid(seed: int, x: float) -> None:
    rng = np.random.default_rng(seed)
    canvas = ground()
    inside = x == 48.0
    assert lay(rng, canvas, SHAPES["blob"][0](rng, 20), (x, 48), draw_material(rng), draw_look(rng)) == inside
    assert bool((canvas.owner > 0).any()) == inside


@settings(max_examples=20)
@given(seed=seeds, smallest=st.floats(1, 30), factor=st.floats(1.1, 10), size=st.sampled_from([64, 256, 512]))
def test_draws_keep_to_their_limits(seed: int, smallest: float, factor: float, size: int) -> None:
    rng = np.random.default_rng(seed)
    canvas = Canvas.blank(size, 0.0)
    assert canvas.size == size
    radius = draw_radius(rng, canvas, smallest, smallest * factor)
    assert smallest * size / 256 <= radius <= smallest * factor * size / 256 * (1 + 1e-9)
    x, y = draw_centre(rng, canvas, 0.25, 0.75)
    assert 0.25 * size <= min(x, y) <= max(x, y) <= 0.75 * size
    look = draw_look(rng)
    assert 0 <= look.relief <= 1
    assert 0 <= look.shadow <= 1
    assert look.softness > 0
    assert look.blend_in == 0
    assert draw_name(rng) in SHAPES
    assert not draw_shape(rng, smallest, solid=True).thin


def test_radii_follow_the_power_law() -> None:
    """Oracle: under r^-2 between a and b the median is the harmonic mean 2 a b / (a + b)."""
    rng, canvas = np.random.default_rng(0), Canvas.blank(256, 0.0)
    drawn = [draw_radius(rng, canvas, 10, 90) for _ in range(4000)]
    assert np.median(drawn) == pytest.approx(18, rel=0.05)


@settings(max_examples=15)
@given(seed=seeds, blur=st.floats(0, 8), size=st.sampled_from([33, 64]))
def test_defocus_moves_light_and_no_owner(seed: int, blur: float, size: int) -> None:
    canvas = ground(0.0, size)
    canvas.owner[:] = np.random.default_rng(seed).integers(0, 5, (size, size))
    owner = canvas.owner.copy()
    defocus(canvas, blur)
    assert np.array_equal(canvas.owner, owner)
    assert np.allclose(canvas.pixels, 0.5, atol=1e-5), "a plain picture stays plain"
    canvas.pixels = np.random.default_rng(seed).random((size, size, 3), np.float32)
    sharp = canvas.pixels.copy()
    defocus(canvas, blur)
    assert canvas.pixels.shape == sharp.shape
    assert canvas.pixels.std() <= sharp.std() + 1e-6
    if blur * size / 256 < 0.3:
        assert np.array_equal(canvas.pixels, sharp)
