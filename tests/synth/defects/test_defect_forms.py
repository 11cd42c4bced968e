"""Forms of defects against analytic geometry: straight lines, circles, and the laws that draws are said to follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surfaces import net, plain, weave

from specialsam.synth.defects.canvas import Canvas
from specialsam.synth.defects.forms import (
    FAR,
    STANDS_OUT,
    blob,
    hairs,
    log_uniform,
    noise,
    on_wire,
    ripple,
    somewhere,
    tone,
    tube,
    under,
    wander,
)
from specialsam.synth.defects.ground import survey

seeds = st.integers(0, 2**31)


def canvas(seed: int, side: int = 96) -> Canvas:
    """A window over all of a plain grey picture."""
    image = plain(side, side, 2, False)
    return Canvas(image, survey(image), np.random.default_rng(seed), np.array([[side / 2, side / 2]]), side, True)


@settings(max_examples=20)
@given(seed=seeds, height=st.integers(1, 90), width=st.integers(1, 90), scale=st.floats(0.5, 60))
def test_noise_has_the_shape_asked_for_and_varies_at_its_scale(
    seed: int, height: int, width: int, scale: float
) -> None:
    field = noise((height, width), scale, np.random.default_rng(seed))
    assert field.dtype == np.float32
    assert field.shape == (height, width)
    assert np.isfinite(field).all()
    if scale > 8 and width > 3:
        assert np.abs(np.diff(field, axis=1)).max() < 12 / scale, "smooth: a feature takes `scale` pixels"


def test_noise_has_a_deviation_about_one_at_any_scale() -> None:
    for scale in (1, 3, 10, 40):
        fields = [noise((80, 80), scale, np.random.default_rng(seed)) for seed in range(20)]
        assert 0.8 < np.std(fields) < 1.4
        assert 0.7 < np.std([ripple(200, scale, np.random.default_rng(seed)) for seed in range(60)]) < 1.2


@settings(max_examples=20)
@given(seed=seeds, least=st.floats(0.001, 1), factor=st.floats(1, 100))
def test_sizes_lie_between_their_limits(seed: int, least: float, factor: float) -> None:
    rng = np.random.default_rng(seed)
    drawn = log_uniform(rng, least, least * factor)
    assert least * (1 - 1e-9) <= drawn <= least * factor * (1 + 1e-9)


def test_sizes_have_no_favourite() -> None:
    """Oracle: half of them lie below the geometric mean of the limits."""
    rng = np.random.default_rng(0)
    assert np.mean([log_uniform(rng, 1, 100) < 10 for _ in range(4000)]) == pytest.approx(0.5, abs=0.04)


@settings(max_examples=25)
@given(seed=seeds, height=st.integers(48, 200), width=st.integers(48, 200), margin=st.floats(0, 300))
def test_a_place_keeps_its_margin_where_there_is_room(seed: int, height: int, width: int, margin: float) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    place = somewhere(image, np.random.default_rng(seed), margin)
    kept = min(margin, 0.45 * min(height, width)) - 1e-9
    assert (place >= kept).all()
    assert (place <= np.array([width, height]) - 1 - kept).all()


@settings(max_examples=12)
@given(seed=seeds, period=st.sampled_from([24, 32, 48]))
def test_a_place_on_a_wire_is_on_one(seed: int, period: int) -> None:
    image = net(192, 200, seed % 5, False, period)
    found = survey(image)
    assert found.wires is not None
    x, y = on_wire(image, found, np.random.default_rng(seed), 10).astype(int)
    assert found.wires[y, x] > 0.5
    assert min(x, y, 199 - x, 191 - y) >= 10
    free = weave(96, 96, 0, False)
    assert (on_wire(free, survey(free), np.random.default_rng(seed), 10) >= 10).all()


@settings(max_examples=20)
@given(seed=seeds, length=st.floats(0, 120), bend=st.floats(0, 6), heading=st.floats(0, 6.3))
def test_a_curve_takes_a_pixel_a_step_and_is_straight_without_a_bend(
    seed: int, length: float, bend: float, heading: float
) -> None:
    curve = wander(np.random.default_rng(seed), length, bend, heading)
    assert curve.shape == (max(4, int(length)), 2)
    assert np.allclose(np.linalg.norm(np.diff(curve, axis=0), axis=1), 1)
    straight = wander(np.random.default_rng(seed), length, 0.0, heading)
    steps = np.arange(1, len(straight) + 1)[:, None]
    assert np.allclose(straight, steps * np.array([np.cos(heading), np.sin(heading)]), atol=1e-6)


@settings(max_examples=20)
@given(heading=st.floats(0, 6.28), x=st.floats(25, 55), y=st.floats(25, 55), half=st.floats(1, 5))
def test_a_tube_about_a_straight_line_is_a_rectangle(heading: float, x: float, y: float, half: float) -> None:
    """Oracle: coordinates turned by hand, along the line and to its side."""
    ahead = np.array([np.cos(heading), np.sin(heading)])
    curve = np.array([x, y]) + np.arange(-20, 21)[:, None] * ahead
    about = tube(curve, (80, 80), 8)
    rows, columns = np.mgrid[:80, :80]
    offset = np.stack([columns - x, rows - y], 2)
    along, across = offset @ ahead, offset @ np.array([-ahead[1], ahead[0]])
    near = (np.abs(across) < 6) & (np.abs(along) < 18)
    assert np.allclose(about.across[near], across[near], atol=1e-2)
    assert np.allclose(about.along[near], along[near] + 20, atol=1e-2)
    assert not about.beyond[near].any()
    assert (about.across[np.abs(across) > 10] == FAR).all()
    cover = about.cover(np.full(41, half))
    assert np.allclose(cover[near], np.clip(half - np.abs(across[near]) + 0.5, 0, 1), atol=1e-2)
    assert not cover[np.abs(along) > 22].any(), "nothing beyond the ends"


def test_a_tube_beside_the_window_is_empty() -> None:
    about = tube(np.array([[200.0, 200.0], [201.0, 200.0]]), (40, 40), 8)
    assert (about.across == FAR).all()
    assert not about.cover(np.full(2, 3.0)).any()


@settings(max_examples=20)
@given(seed=seeds, radius=st.floats(4, 25), squeeze=st.floats(0.5, 1))
def test_a_blob_without_raggedness_is_an_ellipse(seed: int, radius: float, squeeze: float) -> None:
    """Oracle: the equation of an ellipse; a ragged one stays within 1.6 of its unevenness."""
    about = canvas(seed)
    depth = blob(about, np.array([48.0, 48.0]), radius, 0.0, squeeze, 0.3)
    assert depth.dtype == np.float32
    assert depth.shape == (96, 96)
    rows, columns = np.mgrid[-48:48, -48:48]
    u, v = columns * np.cos(0.3) + rows * np.sin(0.3), rows * np.cos(0.3) - columns * np.sin(0.3)
    share = np.hypot(u, v / squeeze) / radius
    clear = np.abs(share - 1) > 1e-3
    assert np.array_equal((depth > 0)[clear], (share < 1)[clear])
    ragged = blob(about, np.array([48.0, 48.0]), radius, 0.2, squeeze)
    x, y = about.grid()
    away = np.hypot(x - 48, y - 48)
    assert not (ragged[away > radius * 1.4] > 0).any()
    assert (ragged[away < squeeze * radius * 0.6] > 0).all()


@settings(max_examples=15)
@given(seed=seeds, count=st.integers(0, 12), strength=st.floats(0.1, 1))
def test_hairs_cover_no_more_than_their_strength(seed: int, count: int, strength: float) -> None:
    about = canvas(seed)
    starts = np.random.default_rng(seed).uniform(30, 60, (count, 2))
    cover = hairs(about, starts, np.zeros(count), 20.0, 1.0, strength)
    assert cover.dtype == np.float32
    assert cover.shape == about.shape
    assert 0 <= cover.min() <= cover.max() <= strength
    assert cover.any() == (count > 0)
    x, y = about.grid()
    assert not cover[(x < 10) | (y < 10)].any(), "hairs go no further than their length"


@settings(max_examples=200)
@given(
    seed=seeds,
    mean=st.tuples(*[st.floats(0, 255)] * 3),
    grey=st.booleans(),
    darker=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_a_tone_stands_out_from_any_ground(
    seed: int, mean: tuple[float, float, float], grey: bool, darker: float
) -> None:
    level = np.full(3, mean[0], np.float32) if grey else np.array(mean, np.float32)
    ground = replace(survey(plain(48, 48, 2, False)), mean=level, grey=grey)
    found = tone(ground, np.random.default_rng(seed), darker)
    assert found.shape == (3,)
    assert 0 <= found.min() <= found.max() <= 255
    assert np.abs(found - level).max() >= STANDS_OUT
    assert not grey or np.ptp(found) == 0


def test_a_tone_stands_out_from_bright_colours_that_clip_it() -> None:
    """Full yellow, rose and green: a brighter colour of the same hue ends in the ground's own."""
    for mean in ((246, 231, 88), (254, 111, 200), (163, 237, 123)):
        ground = replace(survey(plain(48, 48, 2, False)), mean=np.array(mean, np.float32), grey=False)
        for seed in range(3000):
            found = tone(ground, np.random.default_rng(seed), 0.0)
            assert np.abs(found - ground.mean).max() >= STANDS_OUT, (mean, seed, found)


@settings(max_examples=10)
@given(seed=seeds)
def test_what_lies_under_wires_is_hidden_by_them(seed: int) -> None:
    image = net(128, 128, seed % 5, False)
    found = survey(image)
    about = Canvas(image, found, np.random.default_rng(seed), np.array([[64.0, 64.0]]), 70, True)
    assert found.wires is not None
    assert np.array_equal(under(about, 1.0), 1 - found.wires)
    partly = under(about, 0.4)
    assert (partly >= 1 - found.wires - 1e-6).all()
    assert partly.max() <= 1
    assert (under(canvas(seed)) == 1).all()
