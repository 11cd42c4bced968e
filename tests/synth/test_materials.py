"""Surfaces: palettes within their themes, and paint that is what its palettes allow; the oracle is numpy and HSV."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.synth.materials import (
    GRAIN_SIDE,
    THEMES,
    Material,
    alike,
    draw_material,
    draw_palette,
    draw_theme,
    grain,
    paint,
)
from specialsam.synth.textures import FAMILIES, PER_FAMILY, tiles_of

seeds = st.integers(0, 2**31)
themes = st.sampled_from(sorted(THEMES))


def drawn(seed: int, **named: object) -> Material:
    return draw_material(np.random.default_rng(seed), **named)  # type: ignore[arg-type]


@settings(max_examples=25)
@given(seed=seeds, theme=themes)
def test_a_palette_without_contrast_keeps_to_the_value_of_its_theme(seed: int, theme: str) -> None:
    """The largest channel is the colour's value (HSV); one foreign colour may be among three or more."""
    palette = draw_palette(np.random.default_rng(seed), theme, 0.0)
    assert palette.dtype == np.float32
    assert palette.shape[1] == 3
    assert 2 <= len(palette) <= 5
    assert palette.min() >= 0
    assert palette.max() <= 1
    low, high = THEMES[theme][2]
    outside = (palette.max(1) < low - 1e-5) | (palette.max(1) > high + 1e-5)
    assert outside.sum() <= (len(palette) > 2)


@settings(max_examples=25)
@given(seed=seeds, theme=themes, contrast=st.floats(0.05, 1))
def test_a_palette_goes_from_dark_to_light(seed: int, theme: str, contrast: float) -> None:
    palette = draw_palette(np.random.default_rng(seed), theme, contrast)
    steps = np.diff(palette.max(1))
    assert (steps < -1e-6).sum() <= 2 * (len(palette) > 2), "a foreign colour breaks at most the steps to and from it"
    if len(palette) == 2:
        assert palette[0].max() <= palette[1].max()


@settings(max_examples=25)
@given(seed=seeds, family=st.sampled_from([None, *FAMILIES]), contrast=st.one_of(st.none(), st.floats(0, 1)))
def test_a_material_is_of_its_family_and_within_its_ranges(
    seed: int, family: str | None, contrast: float | None
) -> None:
    found, again = (drawn(seed, family=family, contrast=contrast) for _ in range(2))
    assert found.tile in (tiles_of(family) if family else range(PER_FAMILY * len(FAMILIES)))
    assert 0.45 <= found.scale <= 1.7
    assert 0.02 <= found.contrast <= 1 if contrast is None else found.contrast == contrast
    assert found.tilt == 0
    assert (found.tile, found.origin, found.second) == (again.tile, again.origin, again.second)
    assert np.array_equal(found.dark_to_light, again.dark_to_light)


def test_every_theme_is_drawn_and_the_heavier_ones_more_often() -> None:
    rng = np.random.default_rng(0)
    names = [draw_theme(rng) for _ in range(4000)]
    assert set(names) == set(THEMES)
    assert names.count("stone") > 3 * names.count("violet")


@settings(max_examples=20)
@given(seed=seeds, difference=st.floats(0, 2))
def test_alike_keeps_the_family_and_leaves_the_first_as_it_was(seed: int, difference: float) -> None:
    first = drawn(seed)
    palette = first.dark_to_light.copy()
    other = alike(np.random.default_rng(seed), first, difference)
    assert other.tile // PER_FAMILY == first.tile // PER_FAMILY
    assert 0.4 <= other.scale <= 1.8
    assert other.dark_to_light.min() >= 0.01
    assert other.dark_to_light.max() <= 1
    assert other.dark_to_light.dtype == np.float32
    assert np.array_equal(first.dark_to_light, palette)


@settings(max_examples=15)
@given(seed=seeds)
def test_alike_without_a_difference_lies_elsewhere_and_is_the_same_otherwise(seed: int) -> None:
    first = drawn(seed)
    other = alike(np.random.default_rng([seed, 1]), first, 0.0)
    assert other.angle == first.angle
    assert other.scale == pytest.approx(first.scale)
    assert np.allclose(other.dark_to_light, first.dark_to_light.clip(0.01, 1))
    assert other.origin != first.origin


@settings(max_examples=25)
@given(
    seed=seeds,
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    unit=st.floats(0.1, 4),
    tilt=st.sampled_from([0.0, 0.4, 2.0]),
)
def test_paint_stays_between_the_colours_of_its_palettes(
    seed: int, height: int, width: int, unit: float, tilt: float
) -> None:
    material = replace(drawn(seed), tilt=tilt)
    found = paint(material, height, width, unit)
    assert found.dtype == np.float32
    assert found.shape == (height, width, 3)
    colours = np.concatenate([material.dark_to_light, material.other])
    assert (found >= colours.min(0) - 1e-5).all()
    assert (found <= colours.max(0) + 1e-5).all()
    assert np.array_equal(found, paint(material, height, width, unit))


@settings(max_examples=15)
@given(seed=seeds, colour=st.tuples(*[st.floats(0.01, 1)] * 3))
def test_a_palette_of_one_colour_paints_it_plainly(seed: int, colour: tuple[float, float, float]) -> None:
    plain = np.array([colour] * 3, np.float32)
    found = paint(replace(drawn(seed), dark_to_light=plain, other=plain), 40, 50, 1.0)
    assert np.allclose(found, plain[0], atol=1e-5)


def test_grain_has_the_deviations_that_it_says() -> None:
    planes = grain()
    assert all(plane.shape == (GRAIN_SIDE, GRAIN_SIDE) and plane.dtype == np.float32 for plane in planes)
    assert [float(plane.std()) for plane in planes] == pytest.approx([1, 1, 0.85], abs=0.005)
    assert all(abs(float(plane.mean())) < 0.01 for plane in planes)
