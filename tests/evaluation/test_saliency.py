"""What stands out: drawn pictures, FastMBD pixel by pixel as published, and exact barriers by flooding."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from specialsam.evaluation.saliency import BARRIER_PASSES, barriers, minimum_barrier, spectral_residual

RULES = [spectral_residual, minimum_barrier]
images = st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(lambda size: hnp.arrays(np.uint8, (*size, 3)))
grids = st.tuples(st.integers(1, 8), st.integers(1, 8)).flatmap(
    lambda size: hnp.arrays(np.float32, (*size, 2), elements=st.integers(0, 9))
)


def disc(height: int, width: int, centre: tuple[int, int], radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


def picture(mask: np.ndarray, thing: tuple[int, ...] = (200, 60, 40), ground: tuple[int, ...] = (90, 110, 100)):
    return np.where(mask[..., None], np.array(thing, np.uint8), np.array(ground, np.uint8))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("height", "width"), [(180, 240), (300, 100), (64, 64), (40, 30)])
def test_a_disc_stands_out_from_flat_ground(rule, height: int, width: int) -> None:
    """Oracle: the drawing; every quarter of the ground is fainter than the disc."""
    side = min(height, width)
    mask = disc(height, width, (height // 2, width // 3), side // 8)
    found = rule(picture(mask))
    assert found.shape == (height, width)
    assert found.dtype == np.float32
    far = ~disc(height, width, (height // 2, width // 3), side // 4)
    assert found[mask].mean() > 0.6
    assert found[far].mean() < 0.05
    assert mask.ravel()[found.argmax()]


def test_the_barrier_fills_the_disc_and_leaves_the_ground_at_zero() -> None:
    """A disc is one height above the ground, inside as at its rim; where it touches the border it is ground itself."""
    mask, corner = disc(120, 160, (60, 80), 20), disc(120, 160, (0, 0), 30)
    found = minimum_barrier(picture(mask))
    np.testing.assert_array_equal(found[mask], 1)
    np.testing.assert_array_equal(found[~mask], 0)
    np.testing.assert_array_equal(minimum_barrier(picture(corner)), 0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("value", [0, 1, 127, 255])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 30), (50, 70), (300, 260)])
def test_a_constant_image_has_nothing_to_find(rule, value: int, height: int, width: int) -> None:
    np.testing.assert_array_equal(rule(np.full((height, width, 3), value, np.uint8)), 0)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=60)
@given(image=images)
def test_shape_and_range(rule, image: np.ndarray) -> None:
    found = rule(image)
    assert found.shape == image.shape[:2]
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("rule", RULES)
def test_a_mirrored_picture_has_a_mirrored_map(rule) -> None:
    """Upside down, left to right, and turned over its diagonal; of discs, whose barriers any order of scans finds."""
    mask = disc(64, 48, (20, 30), 12)
    image = picture(mask)
    image[disc(64, 48, (24, 30), 5)] = 250, 240, 230
    found = rule(image)
    for turned in (np.s_[::-1], np.s_[:, ::-1]):
        np.testing.assert_allclose(rule(np.ascontiguousarray(image[turned])), found[turned], atol=1e-4)
    np.testing.assert_allclose(rule(np.ascontiguousarray(image.transpose(1, 0, 2))), found.T, atol=1e-4)


def test_contrast_does_not_change_the_spectral_residual() -> None:
    """Twice the values are twice every amplitude, and the residual is one of logarithms. Grey is rounded to 1/1024."""
    image = np.random.default_rng(1).integers(0, 128, (40, 50, 3)).astype(np.uint8)
    np.testing.assert_allclose(spectral_residual(image), spectral_residual(image * 2), atol=1e-3)


def published(values: np.ndarray) -> np.ndarray:
    """Algorithm 1 of the paper, one pixel after the other."""
    height, width, channels = values.shape
    out = np.zeros(values.shape, np.float32)
    for channel in range(channels):
        own = values[..., channel]
        high, low = own.copy(), own.copy()
        distance = np.full((height, width), np.inf, np.float32)
        distance[[0, -1]], distance[:, [0, -1]] = 0, 0
        for number in range(BARRIER_PASSES):
            places, step = list(np.ndindex(height, width)), -1
            if number % 2:
                places, step = places[::-1], 1
            for y, x in places:
                for other in ((y + step, x), (y, x + step)):
                    if not (0 <= other[0] < height and 0 <= other[1] < width):
                        continue
                    upper, lower = max(high[other], own[y, x]), min(low[other], own[y, x])
                    if distance[other] < np.inf and upper - lower < distance[y, x]:
                        distance[y, x], high[y, x], low[y, x] = upper - lower, upper, lower
        out[..., channel] = distance
    return out


def exact(values: np.ndarray) -> np.ndarray:
    """Minimum barriers of one channel (H, W): each range of values, the pixels within it that reach the border."""
    border = np.ones(values.shape, bool)
    border[1:-1, 1:-1] = False
    out = np.full(values.shape, np.inf)
    for low in np.unique(values):
        for high in np.unique(values[values >= low]):
            labels, _ = ndimage.label((values >= low) & (values <= high))
            reached = (labels > 0) & np.isin(labels, labels[border & (labels > 0)])
            out[reached] = np.minimum(out[reached], high - low)
    return out


@settings(max_examples=80)
@given(grids)
def test_barriers_are_those_of_the_published_scan(values: np.ndarray) -> None:
    """Oracle: the paper's algorithm pixel by pixel; and no barrier is lower than the exact one, found by flooding."""
    found = barriers(values)
    np.testing.assert_array_equal(found, published(values))
    for channel in range(values.shape[2]):
        assert (found[..., channel] >= exact(values[..., channel])).all()


def test_a_ring_keeps_its_inside_apart_only_where_it_is_closed() -> None:
    """By hand: a closed ring of 9 around a 0 is a barrier of 9, one with an opening none."""
    values = np.zeros((7, 7, 1), np.float32)
    values[2:5, 2:5] = 9
    values[3, 3] = 0
    assert barriers(values)[3, 3, 0] == 9
    values[2, 3] = 0
    assert barriers(values)[3, 3, 0] == 0


def test_a_large_image_takes_little_time() -> None:
    """The aim is half a second an image on one core; process time, three times as wide for busy machines."""
    image = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3)).astype(np.uint8)
    start = time.process_time()
    for rule in RULES:
        assert rule(image).shape == (1200, 1600)
    assert time.process_time() - start < 3
