"""Painted defects. The oracle is the clean picture: the mask is exactly where the two differ."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.core.errors import DataError, UsageError
from specialsam.data.images import read_image
from specialsam.synth.defects import COMPOSITE, KINDS, PUBLISHED, REALISTIC, gallery, make, survey


def weave(height: int, width: int, seed: int, colour: bool, period: float = 12) -> npt.NDArray[np.uint8]:
    """A weave with grain: crossed waves of one period."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    level = 120 + 35 * np.sin(2 * np.pi * columns / period) + 25 * np.sin(2 * np.pi * rows / period)
    tint = np.array([1.0, 0.8, 0.6]) if colour else np.ones(3)
    noise = rng.normal(0, 3, (height, width, 1))
    return np.clip((level[..., None] + noise) * tint, 0, 255).astype(np.uint8)


def net(height: int, width: int, seed: int, colour: bool, period: float = 32) -> npt.NDArray[np.uint8]:
    """Dark wires in a diamond pattern before a bright background, with grain."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = [np.abs(np.sin(np.pi * (columns + way * rows) / period)) for way in (-1, 1)]
    level = 60 + 110 * np.clip((np.minimum(*waves) - 0.3) * 6, 0, 1)
    tint = np.array([1.0, 0.9, 0.7]) if colour else np.ones(3)
    return np.clip((level[..., None] + rng.normal(0, 2, (height, width, 1))) * tint, 0, 255).astype(np.uint8)


def plain(height: int, width: int, seed: int, colour: bool) -> npt.NDArray[np.uint8]:
    """One level without grain: black, white or in between."""
    level = (0, 255, 128)[seed % 3]
    return np.full((height, width, 3), (level, level // 2, level) if colour else level, np.uint8)


GROUNDS = {"weave": weave, "net": net, "plain": plain}


@pytest.mark.parametrize("kind", KINDS)
@given(
    height=st.integers(64, 600),
    width=st.integers(64, 600),
    seed=st.integers(0, 2**20),
    colour=st.booleans(),
    ground=st.sampled_from(sorted(GROUNDS)),
)
@settings(max_examples=15)
def test_the_mask_is_exactly_what_changed(
    kind: str, height: int, width: int, seed: int, colour: bool, ground: str
) -> None:
    clean = GROUNDS[ground](height, width, seed % 7, colour)
    before = clean.copy()
    try:
        found = make(kind, clean, np.random.default_rng(seed))
    except DataError:
        assert not clean.any(), "black alone hides a defect whatever is drawn"
        return
    assert np.array_equal(clean, before), "the clean picture is left as it is"
    assert found.kind == kind
    assert found.image.shape == clean.shape
    assert found.mask.any()
    assert np.array_equal(found.mask, (found.image != clean).any(2))
    assert found.mask.mean() < 0.35


@pytest.mark.parametrize("kind", [*REALISTIC, COMPOSITE])
@pytest.mark.parametrize("ground", GROUNDS)
def test_grey_pictures_stay_grey(kind: str, ground: str) -> None:
    found = make(kind, GROUNDS[ground](128, 160, 1, colour=False), np.random.default_rng(3))
    assert (found.image == found.image[..., :1]).all()


def test_the_survey_finds_wires_where_there_are_some() -> None:
    """Oracle: the formula that drew the net; a weave and a plain picture have none."""
    for way in (1, -1):  # dark wires, and bright ones
        image = net(320, 320, 0, colour=False)
        wires = survey(image if way == 1 else 255 - image).wires
        assert wires is not None
        drawn = (image[..., 0] < 115).astype(np.uint8)
        inside, outside = (cv2.erode(part, np.ones((5, 5), np.uint8)) > 0 for part in (drawn, 1 - drawn))
        assert (wires[inside] > 0.5).mean() > 0.99
        assert (wires[outside] < 0.5).mean() > 0.99
    assert survey(weave(320, 320, 0, colour=True)).wires is None
    assert survey(plain(320, 320, 2, colour=True)).wires is None


@pytest.mark.parametrize("kind", ["bent", "broken"])
def test_a_net_is_hurt_at_its_wires(kind: str) -> None:
    """Background that only moves along is no part of the mask: it covers a part of one cell, near a wire."""
    clean = net(256, 256, 0, colour=False)
    near = cv2.dilate((clean[..., 0] < 115).astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
    for seed in range(8):
        mask = make(kind, clean, np.random.default_rng(seed)).mask
        assert near[mask].all()
        assert mask.sum() < 4 * 32 * 32


def test_a_broken_wire_shows_the_background() -> None:
    """Oracle: the net is dark before a bright ground, so that a gap in it is brighter than it was."""
    clean = net(256, 256, 1, colour=False).astype(int)
    gains = []
    for seed in range(8):
        found = make("broken", clean.astype(np.uint8), np.random.default_rng(seed))
        was_wire = found.mask & (clean[..., 0] < 80)
        gains.append((found.image.astype(int) - clean)[was_wire].mean())
    assert np.median(gains) > 30


def test_openings_are_darker_than_the_surface() -> None:
    clean = weave(256, 256, 0, colour=True)
    for kind in ("cut", "hole"):
        for seed in range(5):
            found = make(kind, clean, np.random.default_rng(seed))
            assert np.percentile(found.image[found.mask], 5) < np.percentile(clean, 5)


@pytest.mark.real
@pytest.mark.parametrize("folder", ["mvtec_grid/train/good", "fabric/images"])
def test_real_surfaces(folder: str) -> None:
    """On real pictures: masks exact, grey stays grey, every kind under a tenth of the picture in the median."""
    root = Path(os.environ.get("SPECIALSAM_REAL_DATA", Path(__file__).parents[2] / ".." / "shared" / "data")) / folder
    if not root.is_dir():
        pytest.skip(f"no real images in {root}")
    pictures = [read_image(path) for path in sorted(root.iterdir())[:2]]
    for kind in (*REALISTIC, COMPOSITE):
        areas = []
        for seed, clean in enumerate(pictures):
            found = make(kind, clean, np.random.default_rng(seed))
            assert np.array_equal(found.mask, (found.image != clean).any(2))
            assert (found.image == found.image[..., :1]).all()
            areas.append(found.mask.mean())
        assert np.median(areas) < 0.1


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


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from([*REALISTIC, COMPOSITE]),
    level=st.sampled_from([0, 6, 12, 30, 128, 250, 255]),
    grain=st.sampled_from([0.0, 2.0, 6.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_realistic_defect_can_be_seen_or_is_refused(kind: str, level: int, grain: float, seed: int) -> None:
    """Oracle: a small mean filter, which hides grain: the defect's middle must stand off what it was painted on."""
    rng = np.random.default_rng(seed)
    clean = np.clip(level + rng.normal(0, grain, (160, 160, 1)), 0, 255).astype(np.uint8).repeat(3, axis=2)
    try:
        found = make(kind, clean, rng)
    except DataError:
        assert level <= 30, "darkness alone hides a defect whatever is drawn"
        return
    before, after = (cv2.blur(picture.astype(np.float32), (3, 3)) for picture in (clean, found.image))
    assert np.abs(after - before).max(2)[found.mask].max() > 3


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
