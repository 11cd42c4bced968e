"""The published generators: their parameters and formulas, worked out anew from the clean picture and the mask."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from surfaces import GROUNDS, plain, speckled, weave

from specialsam.synth.defects import PUBLISHED_SIDE, make
from specialsam.synth.defects.published import patch, scar, stain

seeds = st.integers(0, 2**31)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x, y, width and height of what a mask covers."""
    return tuple(cv2.boundingRect(mask.astype(np.uint8)))


@settings(max_examples=25)
@given(seed=seeds, side=st.integers(70, 200), colour=st.booleans())
def test_a_patch_is_a_rectangle_of_20_to_60_px_darkened_or_with_noise(seed: int, side: int, colour: bool) -> None:
    """Darkened: one factor of 0.4 to 0.7 for a whole window of the picture. With noise: levels differ by about 30."""
    clean = speckled(side, side, seed, colour)
    found = patch(clean, np.random.default_rng(seed))
    x, y, width, height = box_of(found.mask)
    assert found.mask.sum() == width * height
    assert 20 <= width <= 60
    assert 20 <= height <= 60
    pasted = found.image[y : y + height, x : x + width].astype(np.float32)
    match = cv2.matchTemplate(clean.astype(np.float32), pasted, cv2.TM_CCOEFF_NORMED)
    top, left = np.unravel_index(int(match.argmax()), match.shape)
    source = clean[top : top + height, left : left + width].astype(np.float32)
    if pasted.max() < 0.7 * 255 + 1:
        factor = (pasted.sum() + 0.5 * pasted.size) / source.sum()  # levels are cut off, not rounded
        assert 0.39 < factor < 0.71
        assert np.abs(pasted - source * factor).max() < 2.5
    else:
        middling = (source > 80) & (source < 175)  # where 30 levels of noise hardly ever leave the range
        assert 25 < (pasted - source)[middling].std() < 35


@settings(max_examples=25)
@given(seed=seeds, height=st.integers(48, 160), width=st.integers(48, 160), ground=st.sampled_from(sorted(GROUNDS)))
def test_a_scar_is_a_dark_line_of_2_to_5_px_in_one_colour(seed: int, height: int, width: int, ground: str) -> None:
    """Oracle: a strip's width is sqrt(12) of its deviation; a level more only where the ground had the colour."""
    clean = GROUNDS[ground](height, width, seed % 5, True)
    found = scar(clean, np.random.default_rng(seed))
    assert found.image[found.mask].max() <= 51
    colours = np.unique(found.image[found.mask], axis=0)
    assert np.ptp(colours.astype(int), axis=0).max() <= 1
    rows, columns = np.nonzero(found.mask)
    across, along = np.sqrt(12 * np.linalg.eigvalsh(np.cov(np.stack([columns, rows]))).clip(0))
    if along > 20:
        assert 0.8 < across < 8


@settings(max_examples=25)
@given(seed=seeds, height=st.integers(60, 260), width=st.integers(60, 260))
def test_a_stain_is_a_disc_whose_hue_moves_and_is_blended_at_40_per_cent(seed: int, height: int, width: int) -> None:
    """Oracle: the published formula for each of the 31 possible shifts; exactly one explains the whole disc."""
    clean = weave(height, width, seed % 7, True)
    found = stain(clean, np.random.default_rng(seed))
    hsv = cv2.cvtColor(clean, cv2.COLOR_RGB2HSV)
    explained = []
    for shift in range(20, 51):
        moved = hsv.copy()
        moved[..., 0] = (hsv[..., 0].astype(int) + shift) % 180
        other = cv2.cvtColor(moved, cv2.COLOR_HSV2RGB).astype(np.float64)
        wanted = np.rint(0.6 * clean + 0.4 * other)
        explained.append(bool((np.abs(found.image - wanted)[found.mask] <= 1).all()))
    assert any(explained)
    rows, columns = np.nonzero(found.mask)
    inside = found.mask[1:-1, 1:-1].all()
    radius = max(np.ptp(rows), np.ptp(columns)) / 2
    assert radius <= 100
    assert inside or radius >= 40 / 2, "cut by the border it still shows half of its width"


@settings(max_examples=15)
@given(seed=seeds, level=st.integers(10, 255))
def test_a_stain_on_grey_darkens_by_the_same_blend(seed: int, level: int) -> None:
    clean = np.full((128, 128, 3), level, np.uint8)
    found = stain(clean, np.random.default_rng(seed))
    assert np.abs(found.image[found.mask] - np.rint(level * (0.6 + 0.4 * 0.6))).max() <= 1
    assert (found.image == found.image[..., :1]).all()


@settings(max_examples=15)
@given(seed=seeds, side=st.sampled_from([64, 256, 512, 1024]), kind=st.sampled_from(["patch", "scar", "stain_seed"]))
def test_smaller_pictures_get_the_same_relative_size(seed: int, side: int, kind: str) -> None:
    """Absolute pixels are those of a picture of 1024; without them a size is scaled by the side, a pixel at least."""
    clean = plain(side, side, 2, True)
    mask = make(kind, clean, np.random.default_rng(seed)).mask
    scale = side / PUBLISHED_SIDE
    _, _, width, height = box_of(mask)
    if kind == "patch":
        assert max(1, round(20 * scale)) <= min(width, height) <= max(width, height) <= max(1, round(60 * scale))
    if kind == "stain_seed":
        assert max(width, height) <= 2 * round(100 * scale) + 1
    same = make(kind, clean, np.random.default_rng(seed), absolute=True).mask
    assert same.sum() >= mask.sum() or side > PUBLISHED_SIDE
    assert side < PUBLISHED_SIDE or np.array_equal(same, mask)
