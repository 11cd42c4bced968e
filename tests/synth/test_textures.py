"""Patterns and tiles against numpy's Fourier transform, brute force and what a pattern without a seam has to be."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.synth.textures import (
    FAMILIES,
    TILE_COUNT,
    TILE_SIDE,
    cells,
    lit,
    noise,
    standardised,
    tile,
    tiles_of,
    warped,
)

seeds = st.integers(0, 2**31)


@settings(max_examples=20)
@given(seed=seeds, side=st.integers(8, 60), mean=st.floats(-5, 5), spread=st.floats(0.01, 50))
def test_standardised_fields_have_mean_zero_and_deviation_one(seed: int, side: int, mean: float, spread: float) -> None:
    field = np.random.default_rng(seed).normal(mean, spread, (side, side))
    out = standardised(field)
    assert out.dtype == np.float32
    assert out.mean() == pytest.approx(0, abs=1e-4)
    assert out.std() == pytest.approx(1, abs=1e-3)
    assert np.corrcoef(field.ravel(), out.ravel())[0, 1] == pytest.approx(1)
    assert np.abs(standardised(np.full((side, side), mean))).max() < 1e-5, "a plain field has nothing to stretch"


@settings(max_examples=15)
@given(seed=seeds, side=st.sampled_from([32, 64, 96]), exponent=st.floats(0, 2))
def test_noise_falls_off_by_its_exponent(seed: int, side: int, exponent: float) -> None:
    """Oracle: numpy's Fourier transform; every amplitude is (1 + frequency)^-exponent times one common factor."""
    field = noise(np.random.default_rng(seed), side, exponent)
    assert field.shape == (side, side)
    frequencies = np.fft.fftfreq(side, 1 / side)
    radius = np.hypot(frequencies[:, None], frequencies[None])
    inside = (radius < side / 2 - 1) & (frequencies[None] != 0)  # a real field has half of the phases on that axis
    factor = np.abs(np.fft.fft2(field))[inside] * (1 + radius[inside]) ** exponent
    assert factor.std() < 1e-2 * factor.mean()


@settings(max_examples=10)
@given(seed=seeds, centre=st.integers(6, 20))
def test_a_band_keeps_a_ring_of_frequencies(seed: int, centre: int) -> None:
    field = noise(np.random.default_rng(seed), 64, 0.0, band=(float(centre), 0.1))
    frequencies = np.fft.fftfreq(64, 1 / 64)
    radius = np.hypot(frequencies[:, None], frequencies[None])
    power = np.abs(np.fft.fft2(field)) ** 2
    assert power[np.abs(radius / centre - 1) < 0.3].sum() > 0.999 * power.sum()


@settings(max_examples=10)
@given(seed=seeds, value=st.floats(-3, 3), amplitude=st.floats(0, 12))
def test_warping_moves_values_and_makes_none(seed: int, value: float, amplitude: float) -> None:
    rng = np.random.default_rng(seed)
    field = rng.random((48, 48), np.float32)
    plain = np.full((48, 48), value, np.float32)
    moved, still = warped(rng, [field, plain], amplitude)
    assert np.allclose(still, value, atol=1e-5)
    assert field.min() - 1e-5 <= moved.min()
    assert moved.max() <= field.max() + 1e-5
    (same,) = warped(rng, [field], 0.0)
    assert np.array_equal(same, field)


@settings(max_examples=10)
@given(seed=seeds, count=st.integers(1, 12))
def test_cells_are_those_of_the_nearest_point(seed: int, count: int) -> None:
    """Oracle: all distances by brute force; OpenCV's 5x5 mask is good to about 2 % of a distance."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 40, (count, 2))
    distance, numbers = cells(rng, 40, points)
    at = points.astype(int)
    y, x = np.mgrid[:40, :40]
    every = np.hypot(x[None] - at[:, 0, None, None], y[None] - at[:, 1, None, None])
    assert np.allclose(distance, every.min(0), atol=0.05 + 0.03 * every.min(0).max())
    for number in np.unique(numbers):
        own = every[:, numbers == number]
        assert (own.min(1) == 0).any(), "each cell holds its point"
        assert (own[own.min(1).argmin()] <= every.min(0)[numbers == number] * 1.05 + 0.1).all()


def test_light_shows_slopes_alone() -> None:
    rng = np.random.default_rng(0)
    assert not lit(rng, np.full((32, 32), 3, np.float32)).any()
    ramp = np.repeat(np.arange(32, dtype=np.float32)[None], 32, 0)
    assert np.isfinite(lit(rng, ramp)).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_draws_a_standard_pattern_that_follows_from_its_seed(name: str) -> None:
    """Smooth noise may keep a little less than deviation one, which is what `noise` says of itself."""
    drawn = [FAMILIES[name](np.random.default_rng(seed), 96) for seed in (0, 0, 1)]
    for value, variety in drawn:
        assert value.dtype == np.float32
        assert value.shape == (96, 96)
        assert value.mean() == pytest.approx(0, abs=1e-3)
        assert 0.85 < value.std() < 1.001
        if variety is not None:
            assert variety.shape == (96, 96)
            assert 0 <= variety.min() <= variety.max() <= 1
    assert np.array_equal(drawn[0][0], drawn[1][0])
    assert not np.array_equal(drawn[0][0], drawn[2][0])


def test_every_tile_belongs_to_one_family() -> None:
    numbers = [number for name in FAMILIES for number in tiles_of(name)]
    assert sorted(numbers) == list(range(TILE_COUNT))


@settings(max_examples=12)
@given(index=st.integers(0, TILE_COUNT - 1))
def test_a_tile_repeats_without_a_seam(index: int) -> None:
    """The step over the edge is no larger than the larger steps within the tile, in both planes and directions."""
    both = tile(index)
    assert both.dtype == np.uint8
    assert both.shape == (2, TILE_SIDE, TILE_SIDE)
    assert both[0].std() > 20, "a tile shows something"
    for plane in both.astype(float):
        for axis in (0, 1):
            steps = np.abs(np.diff(plane, axis=axis)).mean(1 - axis)
            seam = np.abs(np.take(plane, 0, axis) - np.take(plane, -1, axis)).mean()
            assert seam <= 1.25 * max(np.percentile(steps, 99), 1.0)


def test_a_tile_depends_on_its_number_alone() -> None:
    """The same in another process, whatever was drawn before."""
    program = (
        "import hashlib, sys; from specialsam.synth.textures import tile; tile(int(sys.argv[2]));"
        "print(hashlib.sha256(tile(int(sys.argv[1])).tobytes()).hexdigest())"
    )
    for index, other in ((5, 77), (200, 199)):
        told = subprocess.run(
            [sys.executable, "-c", program, str(index), str(other)], check=True, capture_output=True, text=True
        )
        assert told.stdout.strip() == hashlib.sha256(tile(index).tobytes()).hexdigest()
    assert not np.array_equal(tile(5), tile(6))
