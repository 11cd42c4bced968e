"""The window that defects are painted on, and the mask of exactly what was changed there; the oracle is the picture."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from surfaces import GROUNDS, Image

from specialsam.synth.defects.canvas import PIECES, SEEN, SHARE, SPECK, Canvas, exact
from specialsam.synth.defects.ground import survey

seeds = st.integers(0, 2**31)
sides = st.integers(48, 120)
grounds = st.sampled_from(sorted(GROUNDS))


def window(
    image: Image, seed: int, around: np.ndarray | None = None, margin: float = 20.0, flat: bool = True
) -> Canvas:
    """A window about a random place of a picture."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, np.array(image.shape[1::-1]), (1, 2)) if around is None else around
    return Canvas(image, survey(image), rng, place, margin, flat)


@settings(max_examples=25)
@given(seed=seeds, height=st.integers(1, 40), width=st.integers(1, 40), share=st.sampled_from([0.0, 0.1, 0.9, 1.0]))
def test_exactly_the_region_changes_whatever_was_painted(seed: int, height: int, width: int, share: float) -> None:
    """Also pixels that the paint left as they were, black and white ones among them."""
    rng = np.random.default_rng(seed)
    clean = rng.choice(np.array([0, 1, 127, 128, 254, 255], np.uint8), (height, width, 3))
    painted = np.where(rng.random((height, width, 1)) < 0.5, clean, rng.integers(0, 256, clean.shape)).astype(np.uint8)
    region = rng.random((height, width)) < share
    before = clean.copy()
    found = exact(clean, painted, region, "kind")
    assert np.array_equal(clean, before)
    assert np.array_equal(found.mask, region)
    assert np.array_equal((found.image != clean).any(2), region)
    kept = region & (painted != clean).any(2)
    assert np.array_equal(found.image[kept], painted[kept]), "what was painted is what is seen"
    moved = region & ~kept
    assert (np.abs(found.image[moved].astype(int) - clean[moved]) == 1).all()


@settings(max_examples=25)
@given(seed=seeds, height=sides, width=sides, x=st.floats(-60, 180), y=st.floats(-60, 180), margin=st.floats(0, 80))
def test_a_window_lies_in_the_picture_and_holds_what_it_was_made_for(
    seed: int, height: int, width: int, x: float, y: float, margin: float
) -> None:
    image = GROUNDS["speckled"](height, width, seed, True)
    canvas = window(image, seed, np.array([[x, y]]), margin)
    low, size = canvas.origin.astype(int), np.array(canvas.shape[::-1])
    assert (low >= 0).all()
    assert (low + size <= (width, height)).all()
    assert (size >= 8).all()
    shown = image[low[1] : low[1] + size[1], low[0] : low[0] + size[0]]
    assert np.array_equal(canvas.work, shown.astype(np.float32))
    if 0 <= x < width and 0 <= y < height:
        assert (low <= (x, y)).all()
        assert ((x, y) <= low + size).all()
    assert np.hypot(*canvas.sun) == np.float64(1) or abs(np.hypot(*canvas.sun) - 1) < 1e-9


@settings(max_examples=25)
@given(seed=seeds, ground=grounds, colour=st.booleans(), alpha=st.floats(0, 1), level=st.floats(0, 255))
def test_paint_covers_by_its_opacity_and_grey_stays_grey(
    seed: int, ground: str, colour: bool, alpha: float, level: float
) -> None:
    """Oracle: the mix of old and new levels; without grain in the picture there is none in the paint."""
    image = GROUNDS[ground](64, 64, seed % 5, colour)
    canvas = window(image, seed)
    before = canvas.work.copy()
    cover = np.full(canvas.shape, alpha, np.float32)
    canvas.lay(np.array([level, level / 2, level]), cover, focus=False)
    grain = 6 * 1.7 * canvas.ground.grain * alpha + 1e-3
    paint = np.array([level, level / 2, level]) if not canvas.ground.grey else np.full(3, level * 2.5 / 3)
    assert np.abs(canvas.work - (before + alpha * (paint - before))).max() <= grain
    if canvas.ground.grey:
        assert np.ptp(canvas.work, axis=2).max() < 1e-3


@settings(max_examples=20)
@given(seed=seeds, ground=grounds, factor=st.floats(0, 2))
def test_shade_multiplies_and_a_standing_window_moves_nothing(seed: int, ground: str, factor: float) -> None:
    canvas = window(GROUNDS[ground](64, 80, seed % 5, True), seed)
    before = canvas.work.copy()
    canvas.shade(factor)
    assert np.allclose(canvas.work, before * factor, atol=1e-2)
    canvas.work = before.copy()
    still = np.zeros(canvas.shape, np.float32)
    canvas.move(still, still)
    assert np.allclose(canvas.work, before, atol=1e-2)


@settings(max_examples=20)
@given(seed=seeds, light=st.floats(0, 6.3))
def test_a_shadow_falls_away_from_the_sun(seed: int, light: float) -> None:
    """Oracle: the centre of what got darker, seen from the body, lies on the other side than the sun."""
    canvas = window(np.full((120, 120, 3), 160, np.uint8), seed, np.array([[60.0, 60.0]]), 50)
    canvas.light = light
    x, y = canvas.grid()
    x, y = x - canvas.shape[1] / 2, y - canvas.shape[0] / 2
    canvas.cast(np.asarray(np.hypot(x, y) < 8, np.float32), 6.0, 0.6)
    darker = np.clip(canvas.clean - canvas.work, 0, None).mean(2)
    assert darker.max() > 0
    assert (darker * (x * canvas.sun[0] + y * canvas.sun[1])).sum() < 0
    assert (canvas.work <= canvas.clean + 1e-3).all()


@settings(max_examples=25)
@given(seed=seeds, ground=grounds, spots=st.integers(0, 40))
def test_a_finished_mask_is_what_changed_in_few_pieces_of_some_size(seed: int, ground: str, spots: int) -> None:
    """Spots of any size painted at random: crumbs are taken back, so that no pixel changes outside of the mask."""
    image = GROUNDS[ground](96, 96, seed % 5, True)
    canvas = window(image, seed, np.array([[48.0, 48.0]]), 60)
    rng = np.random.default_rng(seed)
    cover = np.zeros(canvas.shape, np.float32)
    x, y = canvas.grid()
    for _ in range(spots):
        at, radius = rng.uniform(0, 96, 2), rng.uniform(0.3, 9)
        cover = np.maximum(cover, (np.hypot(x - at[0], y - at[1]) < radius).astype(np.float32))
    canvas.lay(255 - image.reshape(-1, 3).mean(0), cover, focus=False)
    found = canvas.finish("kind")
    assert np.array_equal(found.mask, (found.image != image).any(2))
    pieces, count = ndimage.label(found.mask, np.ones((3, 3)))
    areas = ndimage.sum(found.mask, pieces, range(1, count + 1))
    assert count <= PIECES
    assert count == 0 or areas.min() >= max(SPECK, SHARE * areas.max())
    if not spots:
        assert not found.mask.any()


@settings(max_examples=15)
@given(seed=seeds, step=st.sampled_from([0.4 * SEEN, 4 * SEEN]))
def test_a_change_counts_from_the_levels_at_which_it_is_seen(seed: int, step: float) -> None:
    image = np.full((64, 64, 3), 120, np.uint8)
    canvas = window(image, seed, np.array([[32.0, 32.0]]), 40)
    canvas.work[20:40, 20:40] += step
    found = canvas.finish("kind")
    assert found.mask[24:36, 24:36].all() if step > SEEN else not found.mask.any()
    assert np.array_equal(found.image, image) == (step < SEEN)


def test_a_stated_region_is_the_mask() -> None:
    image = GROUNDS["weave"](64, 64, 0, True)
    canvas = window(image, 3, np.array([[32.0, 32.0]]), 40)
    canvas.work += 40
    region = np.zeros(canvas.shape, np.bool_)
    region[10:20, 15:30] = True
    found = canvas.finish("kind", region)
    assert found.mask.sum() == region.sum()
    assert np.array_equal(found.mask, (found.image != image).any(2))
