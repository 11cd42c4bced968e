"""What each realistic kind does to a picture, whatever the picture: pieces, brightness, place, focus, draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from surfaces import GROUNDS, net, weave

from specialsam.synth.defects import COMPOSITE, KINDS, LEAST, REALISTIC, Defect, make
from specialsam.synth.defects.canvas import PIECES, SHARE, SPECK

seeds = st.integers(0, 2**31)


def change(clean: np.ndarray, found: Defect) -> np.ndarray:
    """Levels by which each pixel of the mask got brighter, mean over channels."""
    return (found.image.astype(float) - clean).mean(2)[found.mask]


@pytest.mark.parametrize("kind", REALISTIC)
@settings(max_examples=12)
@given(
    seed=seeds,
    height=st.integers(48, 200),
    width=st.integers(48, 200),
    ground=st.sampled_from(["weave", "net", "speckled", "sloped"]),
    colour=st.booleans(),
)
def test_a_defect_is_in_few_pieces_of_some_size(
    kind: str, seed: int, height: int, width: int, ground: str, colour: bool
) -> None:
    """Oracle: scipy's pieces. A dent is one region by its own rule; everything else follows the canvas's."""
    clean = GROUNDS[ground](height, width, seed % 7, colour)
    found = make(kind, clean, np.random.default_rng(seed))
    assert found.image.dtype == np.uint8
    assert found.mask.dtype == np.bool_
    assert found.mask.shape == (height, width)
    assert found.kind == kind
    assert found.mask.sum() >= LEAST
    pieces, count = ndimage.label(found.mask, np.ones((3, 3)))
    areas = ndimage.sum(found.mask, pieces, range(1, count + 1))
    assert count <= PIECES
    assert areas.min() >= max(SPECK, SHARE * areas.max())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10)
@given(seed=seeds)
def test_other_draws_give_other_defects(kind: str, seed: int) -> None:
    clean = weave(96, 96, 0, colour=True)
    one, same, other = (make(kind, clean, np.random.default_rng(number)) for number in (seed, seed, seed + 1))
    assert np.array_equal(one.image, same.image)
    assert np.array_equal(one.mask, same.mask)
    assert not np.array_equal(one.image, other.image)


@settings(max_examples=15)
@given(seed=seeds, kind=st.sampled_from(["hole", "cut"]))
def test_openings_show_a_floor_darker_than_the_surface(seed: int, kind: str) -> None:
    clean = weave(160, 160, seed % 7, colour=True)
    found = make(kind, clean, np.random.default_rng(seed))
    assert change(clean, found).min() < -15
    assert np.median(found.image[found.mask].mean(1)) < np.percentile(clean.mean(2), 75)


@settings(max_examples=15)
@given(seed=seeds)
def test_metal_has_lights_and_darks(seed: int) -> None:
    """Hard light: some of it, or of its shadow, is far from the rest."""
    clean = weave(200, 200, seed % 7, colour=True) // 2
    found = make("metal", clean, np.random.default_rng(seed))
    assert np.ptp(change(clean, found)) > 20


@settings(max_examples=15)
@given(seed=seeds)
def test_a_stain_darkens_and_on_black_it_leaves_a_paler_crust(seed: int) -> None:
    clean = weave(160, 160, seed % 7, colour=True)
    assert change(clean, make("stain", clean, np.random.default_rng(seed))).mean() < 0
    black = np.full((160, 160, 3), 20, np.uint8)
    assert change(black, make("stain", black, np.random.default_rng(seed))).mean() > 0


@settings(max_examples=15)
@given(seed=seeds)
def test_wrong_dye_lets_the_texture_show_through(seed: int) -> None:
    """Oracle: inside the patch old and new levels go together."""
    clean = weave(200, 200, seed % 7, colour=True)
    found = make("colour", clean, np.random.default_rng(seed))
    inside = ndimage.binary_erosion(found.mask, iterations=3)
    if inside.sum() > 200:
        old, new = clean[inside].mean(1).astype(float), found.image[inside].mean(1).astype(float)
        assert np.corrcoef(old, new)[0, 1] > 0.3


@settings(max_examples=15)
@given(seed=seeds, kind=st.sampled_from(["thread", "fibre"]))
def test_threads_are_long_and_thin(seed: int, kind: str) -> None:
    """At no place is a thread or fibre wide beside its length; a ball of lint is wide, but small."""
    found = make(kind, weave(256, 256, seed % 7, colour=True), np.random.default_rng(seed))
    deepest = float(ndimage.distance_transform_edt(np.pad(found.mask, 1)).max())
    assert deepest < 256 * 0.06
    assert found.mask.mean() < 0.2


@settings(max_examples=12)
@given(seed=seeds, kind=st.sampled_from(["bent", "broken"]), period=st.sampled_from([24, 32, 48]))
def test_structure_is_hurt_at_a_wire(seed: int, kind: str, period: int) -> None:
    clean = net(192, 192, seed % 7, colour=False, period=period)
    wires = clean[..., 0] < 115
    found = make(kind, clean, np.random.default_rng(seed))
    away = ndimage.distance_transform_edt(~wires)
    assert (found.mask & wires).any()
    assert away[found.mask].max() < period / 2 + 3


@settings(max_examples=12)
@given(seed=seeds)
def test_a_dent_moves_what_is_there_and_paints_nothing_new(seed: int) -> None:
    """Light apart, the levels in a dent are those of the cloth about it."""
    clean = weave(160, 160, seed % 7, colour=True)
    found = make("bent", clean, np.random.default_rng(seed))
    assert found.image[found.mask].min() >= 0.4 * clean.min()
    assert found.image[found.mask].max() <= min(255, 1.5 * clean.max() + 10)


@pytest.mark.parametrize(
    ("seed", "height", "width"), [(1157, 101, 171), (1788, 94, 169), (2020, 54, 128), (3868, 175, 51)]
)
def test_a_dent_leaves_no_speck_beside_it(seed: int, height: int, width: int) -> None:
    """Draws whose uneven rim left a pixel or two on its own."""
    mask = make("bent", weave(height, width, seed % 7, colour=True), np.random.default_rng(seed)).mask
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    areas = ndimage.sum(mask, pieces, range(1, count + 1))
    assert areas.min() >= max(SPECK, SHARE * areas.max())


@settings(max_examples=12)
@given(seed=seeds, colour=st.booleans())
def test_a_composite_covers_what_its_two_defects_changed(seed: int, colour: bool) -> None:
    clean = weave(128, 160, seed % 7, colour)
    found = make(COMPOSITE, clean, np.random.default_rng(seed))
    assert found.kind == COMPOSITE
    assert np.array_equal(found.mask, (found.image != clean).any(2))
    pieces = ndimage.label(found.mask, np.ones((3, 3)))[1]
    assert 1 <= pieces <= 2 * PIECES
