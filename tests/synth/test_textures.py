"""Textures and materials: normalised fields, tiles without a seam, colours in range, the same for a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.synth import textures
from specialsam.synth.materials import THEMES, Material, alike, draw_material, draw_palette, grain, paint
from specialsam.synth.textures import (
    FAMILIES,
    PER_FAMILY,
    TILE_SIDE,
    cells,
    lit,
    noise,
    standardised,
    tile,
    tiles_of,
    warped,
)


@given(seed=st.integers(0, 2**31), exponent=st.floats(0, 2.8), stretch=st.floats(1, 8), angle=st.floats(0, 6.3))
@settings(max_examples=25)
def test_noise_is_normalised_and_follows_the_seed(seed: int, exponent: float, stretch: float, angle: float) -> None:
    made = noise(np.random.default_rng(seed), 64, exponent, stretch, angle)
    assert made.shape == (64, 64)
    assert made.dtype == np.float32
    assert abs(float(made.mean())) < 1e-3
    assert abs(float(made.std()) - 1) < 1e-2
    assert np.array_equal(made, noise(np.random.default_rng(seed), 64, exponent, stretch, angle))


@given(seed=st.integers(0, 2**31))
@settings(max_examples=15)
def test_steeper_noise_is_smoother(seed: int) -> None:
    """Oracle: the mean square step between neighbours, which falls with the exponent of the spectrum."""
    steps = [
        float((np.diff(noise(np.random.default_rng(seed), 64, exponent)) ** 2).mean()) for exponent in (0.0, 1.0, 2.5)
    ]
    assert steps[0] > steps[1] > steps[2]


@pytest.mark.parametrize("family", FAMILIES)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=4)
def test_families_draw_a_pattern_of_unit_deviation(family: str, seed: int) -> None:
    value, variety = FAMILIES[family](np.random.default_rng(seed), 128)
    assert value.shape == (128, 128)
    assert np.isfinite(value).all()
    assert abs(float(value.mean())) < 0.05
    assert 0.5 < float(value.std()) < 1.5
    if variety is not None:
        assert variety.shape == (128, 128)
        assert 0 <= variety.min() <= variety.max() <= 1


@pytest.mark.parametrize("index", range(0, PER_FAMILY * len(FAMILIES), 37))
def test_a_tile_repeats_without_a_seam(index: int) -> None:
    """Oracle: across the border neighbours differ about as much as within, for each plane."""
    for plane in tile(index).astype(int):
        assert plane.shape == (TILE_SIDE, TILE_SIDE)
        for axis in (0, 1):
            across = np.abs(np.take(plane, 0, axis) - np.take(plane, -1, axis)).mean()
            within = np.abs(np.diff(plane, axis=axis)).mean(1 - axis)
            assert across <= within.max() * 1.5 + 1


def test_a_tile_is_drawn_once_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: drawing alone. What is damaged is drawn again, and where nothing can be kept, every time."""
    monkeypatch.setenv("SPECIALSAM_CACHE", str(tmp_path))
    drawn = textures._tile(7)
    drawings: list[int] = []
    monkeypatch.setattr(textures, "_tile", lambda index: drawings.append(index) or drawn)

    def anew() -> bool:
        tile.cache_clear()
        return bool(np.array_equal(tile(7), drawn))

    assert anew()
    assert anew()
    assert drawings == [7]
    [kept] = tmp_path.rglob("7.npz")
    kept.write_bytes(kept.read_bytes()[:500])
    assert anew()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:])
    assert anew()
    assert len(drawings) == 3
    monkeypatch.setenv("SPECIALSAM_CACHE", str(kept))  # a file where the folder should be
    assert anew()
    assert anew()
    assert len(drawings) == 5


def test_tiles_are_divided_among_the_families() -> None:
    numbers = [number for family in FAMILIES for number in tiles_of(family)]
    assert numbers == list(range(PER_FAMILY * len(FAMILIES)))


@given(seed=st.integers(0, 2**31), offset=st.floats(-1e3, 1e3), gain=st.floats(0.1, 1e3))
@settings(max_examples=25)
def test_standardised_forgets_gain_and_offset(seed: int, offset: float, gain: float) -> None:
    field = np.random.default_rng(seed).normal(0, 1, (16, 16))
    assert np.allclose(standardised(field * gain + offset), standardised(field), atol=1e-2)


@pytest.mark.parametrize("level", [0.0, 0.1, -3e7])
def test_standardised_leaves_a_constant_at_zero(level: float) -> None:
    assert np.abs(standardised(np.full((9, 9), level, np.float32))).max() <= 1


@given(seed=st.integers(0, 2**31), count=st.integers(1, 12))
@settings(max_examples=25)
def test_cells_belong_to_the_nearest_point(seed: int, count: int) -> None:
    """Oracle: all distances, by numpy; the transform's distances are approximate by a few per cent."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 48, (count, 2)).astype(float)
    distance, labels = cells(rng, 48, points)
    y, x = np.mgrid[:48, :48]
    every = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1])
    assert np.allclose(distance, every.min(-1), rtol=0.06, atol=0.5)
    for point in points.astype(int):
        own = labels == labels[point[1], point[0]]
        assert distance[point[1], point[0]] == 0
        assert own.any()


@given(seed=st.integers(0, 2**31))
@settings(max_examples=10)
def test_warping_moves_fields_together(seed: int) -> None:
    field = noise(np.random.default_rng(seed), 64, 1.5)
    first, second = warped(np.random.default_rng(seed), [field, field * 2], 3.0)
    assert np.allclose(first * 2, second, atol=1e-4)
    still = warped(np.random.default_rng(seed), [field], 0.0)[0]
    assert np.allclose(still, field, atol=1e-5)
    assert abs(float(lit(np.random.default_rng(seed), field).std()) - 1) < 1e-2


@given(seed=st.integers(0, 2**31), theme=st.sampled_from(sorted(THEMES)), contrast=st.floats(0, 1))
@settings(max_examples=40)
def test_palettes_are_colours_from_shadow_to_light(seed: int, theme: str, contrast: float) -> None:
    palette = draw_palette(np.random.default_rng(seed), theme, contrast)
    assert 2 <= len(palette) <= 5
    assert palette.shape[1] == 3
    assert 0 <= palette.min() <= palette.max() <= 1


def family(material: Material) -> str:
    return list(FAMILIES)[material.tile // PER_FAMILY]


@given(
    seed=st.integers(0, 2**31),
    height=st.integers(2, 90),
    width=st.integers(2, 90),
    unit=st.sampled_from([0.5, 1.0, 2.0]),
    difference=st.floats(0, 1.8),
)
@settings(max_examples=30)
def test_surfaces_have_colours_and_kin(seed: int, height: int, width: int, unit: float, difference: float) -> None:
    rng = np.random.default_rng(seed)
    material = draw_material(rng)
    kin = alike(rng, material, difference)
    assert family(kin) == family(material)
    assert 0.4 <= kin.scale <= 1.8
    for each in (material, kin):
        painted = paint(each, height, width, unit)
        assert painted.shape == (height, width, 3)
        assert painted.dtype == np.float32
        assert -1e-6 <= painted.min() <= painted.max() <= 1 + 1e-6
        assert np.array_equal(painted, paint(each, height, width, unit))


def test_grain_has_unit_deviation() -> None:
    for plane in grain():
        assert abs(float(plane.std()) - 1) < 0.02
