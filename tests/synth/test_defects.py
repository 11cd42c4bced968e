"""Painted defects. The oracle is the clean picture: the mask is exactly where the two differ."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.core.errors import DataError, UsageError
from specialsam.synth.defects import COMPOSITE, KINDS, PUBLISHED, REALISTIC, gallery, make, survey


def weave(height: int, width: int, seed: int, colour: bool, period: float = 12) -> npt.NDArray[np.uint8]:
    """A weave with grain: crossed waves of one period."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    level = 120 + 35 * np.sin(2 * np.pi * columns / period) + 25 * np.sin(2 * np.pi * rows / period)
    tint = np.array([1.0, 0.8, 0.6]) if colour else np.ones(3)
    noise = rng.normal(0, 3, (height, width, 1))
    return np.clip((level[..., None] + noise) * tint, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@given(height=st.integers(64, 200), width=st.integers(64, 200), seed=st.integers(0, 2**20), colour=st.booleans())
@settings(max_examples=12)
def test_the_mask_is_exactly_what_changed(kind: str, height: int, width: int, seed: int, colour: bool) -> None:
    clean = weave(height, width, seed % 7, colour)
    before = clean.copy()
    found = make(kind, clean, np.random.default_rng(seed))
    assert np.array_equal(clean, before), "the clean picture is left as it is"
    assert found.kind == kind
    assert found.image.shape == clean.shape
    assert found.mask.any()
    assert np.array_equal(found.mask, (found.image != clean).any(2))


@pytest.mark.parametrize("kind", [*REALISTIC, COMPOSITE])
def test_grey_pictures_stay_grey(kind: str) -> None:
    found = make(kind, weave(128, 160, 1, colour=False), np.random.default_rng(3))
    assert (found.image == found.image[..., :1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_equal_draws_give_equal_defects(kind: str) -> None:
    clean = weave(96, 96, 0, colour=True)
    one, other = (make(kind, clean, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(one.image, other.image)


@pytest.mark.parametrize("kind", REALISTIC)
def test_a_defect_is_no_speck_and_no_flood(kind: str) -> None:
    """Twenty draws at 256 px: the median covers 0.02 to 12 % of the picture."""
    clean = weave(256, 256, 2, colour=True)
    areas = [make(kind, clean, np.random.default_rng(seed)).mask.mean() for seed in range(20)]
    assert 0.0002 < float(np.median(areas)) < 0.12, areas


def test_published_patches_have_the_published_sizes() -> None:
    """20 to 60 px a side in a picture of 1024; half of that in one of 512, unless pixels are absolute."""
    for side, absolute, least, most in ((1024, False, 20, 60), (512, False, 10, 30), (512, True, 20, 60)):
        for seed in range(6):
            mask = make("patch", weave(side, side, 0, colour=True), np.random.default_rng(seed), absolute).mask
            _, _, width, height = cv2.boundingRect(mask.astype(np.uint8))
            assert least <= width <= most
            assert least <= height <= most


def test_published_scars_are_straight_and_dark() -> None:
    found = make("scar", weave(512, 512, 0, colour=True), np.random.default_rng(0), absolute=True)
    assert found.image[found.mask].max() <= 51  # one level more where the ground was black already
    rows, columns = np.nonzero(found.mask)
    spread = np.linalg.svd(np.stack([rows, columns]) - np.mean([rows, columns], 1, keepdims=True), compute_uv=False)
    assert spread[1] / np.sqrt(len(rows)) < 2, "all of it lies within the line's 5 px"


def test_published_stains_move_the_hue_and_on_grey_the_brightness() -> None:
    coloured = weave(512, 512, 0, colour=True)
    found = make("stain_seed", coloured, np.random.default_rng(1), absolute=True)
    assert 40 <= np.sqrt(found.mask.sum() / np.pi) <= 101 or found.mask[[0, -1]].any() or found.mask[:, [0, -1]].any()
    grey = weave(512, 512, 0, colour=False)
    darker = make("stain_seed", grey, np.random.default_rng(1))
    assert darker.image[darker.mask].mean() < grey[darker.mask].mean()


def test_the_survey_measures_the_repeat() -> None:
    for period in (8, 16, 24):
        assert survey(weave(240, 240, 0, False, period)).period == pytest.approx(period, abs=1)


def test_wrong_use_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"expected a defect of patch, .* got 'rust'"):
        make("rust", weave(64, 64, 0, True), np.random.default_rng(0))
    with pytest.raises(DataError, match=r"48 px or more, got uint8 \(40, 64, 3\)"):
        make("hole", weave(40, 64, 0, True), np.random.default_rng(0))


def test_the_gallery_has_a_row_a_kind() -> None:
    sheet = gallery([weave(128, 128, 0, True)], list(PUBLISHED), seed=0, columns=2, side=100)
    assert sheet.shape == (3 * 100, 2 * 3 * 100, 3)
