"""Layouts and mosaics against numpy, scipy and skimage, and mosaics drawn by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.feature import structure_tensor

from specialsam.core.errors import DataError, UsageError
from specialsam.synth.cells import LAYOUTS, MOST_CELLS, SMALLEST_SHARE, Layout, label_map
from specialsam.synth.mosaics import (
    contact_sheet,
    fit,
    match_colours,
    mosaic,
    outlined,
    straightened,
    tile_centres,
)

Image = npt.NDArray[np.uint8]

SEED_LAYOUT = Layout.parse("grid:2x2")


def noise(seed: int, side: int = 64, centre: float = 128, spread: float = 15) -> Image:
    """A texture of independent grey-ish pixels."""
    return np.random.default_rng(seed).normal(centre, spread, (side, side, 3)).clip(0, 255).astype(np.uint8)


def stripes(angle: float, side: int = 128) -> Image:
    """Grey waves whose normal points `angle` degrees from x towards y, 20 pixels long."""
    y, x = np.mgrid[:side, :side]
    turn = np.deg2rad(angle)
    wave = 127 + 100 * np.sin((np.cos(turn) * x + np.sin(turn) * y) * 2 * np.pi / 20)
    return np.repeat(wave.astype(np.uint8)[..., None], 3, axis=2)


def normal_of(grey: npt.NDArray[np.float64]) -> float:
    """The direction of a picture's gradients in degrees, 0..180 from x towards y, by skimage's structure tensor."""
    rows, both, columns = (part[8:-8, 8:-8].mean() for part in structure_tensor(grey, sigma=2, order="rc"))
    return float(np.rad2deg(np.arctan2(2 * both, columns - rows) / 2) % 180)


@given(
    kind=st.sampled_from(sorted(LAYOUTS)),
    rows=st.integers(1, 3),
    columns=st.integers(2, 4),
    side=st.integers(32, 120),
    seed=st.integers(0, 2**31),
    turned=st.booleans(),
)
def test_masks_are_an_exact_partition(kind: str, rows: int, columns: int, side: int, seed: int, turned: bool) -> None:
    """Every pixel lies in exactly one mask and no mask is empty, whatever the layout."""
    layout = Layout(kind, rows, columns)
    textures = [noise(index, 32) for index in range(layout.cells)]
    made = mosaic(textures, layout, np.random.default_rng(seed), side, rotate=turned, tile=32)
    assert made.image.shape == (side, side, 3)
    assert made.masks.shape == (layout.cells, side, side)
    assert made.masks.dtype == np.bool_
    assert (made.masks.sum(0) == 1).all()
    assert made.masks.any((1, 2)).all()
    assert sorted(made.textures) == list(range(layout.cells))


@pytest.mark.parametrize("name", ["lines:5", "voronoi:6", "curved:4", "curved:8"])
def test_drawn_cells_are_whole_and_of_some_size(name: str) -> None:
    """scipy finds one piece a cell, none of them tiny; two generators draw two layouts, one generator one."""
    layout = Layout.parse(name)
    drawn = [label_map(layout, 128, np.random.default_rng(seed)) for seed in range(12)]
    for labels in drawn:
        for cell in range(layout.cells):
            assert ndimage.label(labels == cell, np.ones((3, 3)))[1] == 1
        assert np.bincount(labels.ravel()).min() >= SMALLEST_SHARE * labels.size / layout.cells
    assert np.array_equal(drawn[0], label_map(layout, 128, np.random.default_rng(0)))
    assert len({labels.tobytes() for labels in drawn}) == len(drawn)


def test_grid_is_that_drawn_by_hand() -> None:
    by_hand = np.repeat(np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3), 12, 0), 8, 1)
    assert np.array_equal(label_map(Layout.parse("grid:2x3"), 24, np.random.default_rng(0)), by_hand)


def test_curved_borders_are_curved() -> None:
    """Straight borders leave every cell convex (skimage's hull is the cell); curved ones do not."""
    from skimage.morphology import convex_hull_image

    def bulge(name: str) -> float:
        shares = []
        for seed in range(5):
            labels = label_map(Layout.parse(name), 96, np.random.default_rng(seed))
            hulls = sum(convex_hull_image(labels == cell).sum() for cell in range(3))
            shares.append(hulls / labels.size - 1)
        return float(np.mean(shares))

    assert bulge("voronoi:3") < 0.03 < bulge("curved:3")


def test_layout_names() -> None:
    assert Layout.parse("grid:3x4") == Layout("grid", 3, 4)
    assert Layout.parse("voronoi:7").cells == 7
    assert Layout.parse("curved") == Layout("curved", 2, 2)
    for name in ("grid:3x4", "lines:5", "voronoi:7", "curved:4"):
        assert Layout.parse(name).name == name


@pytest.mark.parametrize(
    "text", ["hexagon", "grid:2x", "grid:axb", "voronoi:2x2", "lines:-3", "lines:1", f"voronoi:{MOST_CELLS + 1}", ""]
)
def test_wrong_layouts_are_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="expected a layout") as caught:
        Layout.parse(text)
    assert "\n" not in str(caught.value)


def test_too_small_a_side_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a side of at least"):
        label_map(Layout.parse("voronoi:30"), 16, np.random.default_rng(0))


def test_seed_protocol_shows_whole_tiles() -> None:
    """Four 256 px textures in a 2x2 grid of 512 px are the textures themselves, side by side (numpy's block)."""
    textures = [noise(seed, 256) for seed in range(4)]
    made = mosaic(textures, SEED_LAYOUT, np.random.default_rng(3))
    assert made.textures == (0, 1, 2, 3)
    assert made.angles == (0.0,) * 4
    assert np.array_equal(made.image, np.vstack([np.hstack(textures[:2]), np.hstack(textures[2:])]))


def test_tile_centres_are_those_of_the_study() -> None:
    prompts = tile_centres(SEED_LAYOUT)
    assert prompts.points is not None
    assert prompts.points[:, 0].tolist() == [[128, 128], [384, 128], [128, 384], [384, 384]]
    labels = label_map(Layout.parse("grid:3x2"), 90, np.random.default_rng(0))
    points = tile_centres(Layout.parse("grid:3x2"), 90).points
    assert points is not None
    assert [int(labels[int(y), int(x)]) for x, y in points[:, 0]] == list(range(6))
    with pytest.raises(DataError, match="expected a grid"):
        tile_centres(Layout.parse("voronoi:4"))


def test_a_cell_larger_than_its_texture_goes_on_in_the_mirror() -> None:
    """numpy's symmetric padding is the oracle; straight stripes need no straightening."""
    textures = [stripes(0, 32), stripes(90, 32)]
    made = mosaic(textures, Layout.parse("grid:1x2"), np.random.default_rng(0), 96, tile=32)
    for cell, texture in enumerate(textures):
        padded = np.pad(texture, ((0, 64), (0, 16), (0, 0)), mode="symmetric")
        assert np.array_equal(made.image[:, 48 * cell : 48 * (cell + 1)], padded)


def test_a_cell_smaller_than_its_texture_shows_a_window_of_it() -> None:
    textures = [noise(seed, 48) for seed in range(2)]
    made = mosaic(textures, Layout.parse("grid:1x2"), np.random.default_rng(1), 32, tile=48)
    windows = np.lib.stride_tricks.sliding_window_view(textures[0], (32, 16, 3)).reshape(-1, 32, 16, 3)
    assert (windows == made.image[:, :16]).all((1, 2, 3)).sum() == 1


@given(angle_seed=st.integers(0, 2**31), values=st.lists(st.integers(0, 255), min_size=3, max_size=3))
def test_turned_textures_leave_no_corner_empty(angle_seed: int, values: list[int]) -> None:
    """Plain textures stay plain under any turn: nothing black, nothing blended, up to the border of each cell."""
    textures = [np.full((32, 32, 3), value, np.uint8) for value in values]
    layout = Layout.parse("curved:3")
    made = mosaic(textures, layout, np.random.default_rng(angle_seed), 64, rotate=True, tile=32)
    for cell, index in enumerate(made.textures):
        assert (made.image[made.masks[cell]] == values[index]).all()


def test_matched_colours_agree_in_every_cell() -> None:
    """skimage's CIELAB is the oracle: mean and spread of each channel are the same in all cells."""
    textures = [noise(0, 64, 90, 6), noise(1, 64, 170, 14), noise(2, 64, 130, 10), noise(3, 64, 140, 9)]
    textures[2][..., 0] = textures[2][..., 0] // 2 + 60
    plain, matched = (
        mosaic(textures, Layout.parse("voronoi:4"), np.random.default_rng(0), 128, colour_match=on, tile=64)
        for on in (False, True)
    )
    facts = []
    for made in (plain, matched):
        lab = rgb2lab(made.image)
        cells = [lab[mask] for mask in made.masks]
        facts.append((np.ptp([c.mean(0) for c in cells], axis=0), np.ptp([c.std(0) for c in cells], axis=0)))
    assert facts[0][0].max() > 20
    assert facts[1][0].max() < 0.5
    assert facts[1][1].max() < 0.5
    assert np.array_equal(plain.labels, matched.labels)


def test_matching_does_not_blow_up_noise() -> None:
    """A nearly plain cell beside a strong one gains at most a factor of 4 in spread."""
    labels = np.repeat(np.array([[0, 1]], np.uint8), 64, 0).repeat(32, 1)
    image = np.hstack([noise(0, 64, 128, 1)[:, :32], noise(1, 64, 128, 40)[:, :32]])
    before, after = (rgb2lab(one)[:, :32, 0].std() for one in (image, match_colours(image, labels)))
    assert before < after < 4.4 * before


def test_grain_alone_turns_one_texture_evenly() -> None:
    """skimage's structure tensor finds four directions, 45 degrees apart, in the four cells."""
    made = mosaic([stripes(0)], SEED_LAYOUT, np.random.default_rng(5), 256, grain_only=True, tile=128)
    assert made.textures == (0, 0, 0, 0)
    grey = made.image[..., 0].astype(float)
    found = sorted(normal_of(grey[top : top + 128, left : left + 128]) for top in (0, 128) for left in (0, 128))
    assert np.allclose(np.diff([*found, found[0] + 180]), 45, atol=3)
    assert np.allclose(np.diff(sorted(angle % 180 for angle in made.angles)), 45)


@pytest.mark.parametrize("angle", [-80, -50, -44, -20, 10, 30, 60, 75])
def test_straightened_grain_runs_along_an_axis(angle: float) -> None:
    """Straight stripes do not vary along the other axis, and mirroring them changes no direction."""
    straight = straightened(stripes(angle))
    assert min(straight.shape[:2]) > 128 / 1.5
    along = sorted(straight[..., 0].mean(axis).std() for axis in (0, 1))
    assert along[0] < 3 < 50 < along[1]


def test_textures_without_direction_stay_as_they_are() -> None:
    for texture in (noise(0, 128), stripes(0), stripes(90), np.zeros((20, 20, 3), np.uint8)):
        assert straightened(texture) is texture


def test_fit_scales_the_shorter_side() -> None:
    assert fit(noise(0, 64), 64).shape == (64, 64, 3)
    assert fit(np.zeros((60, 90, 3), np.uint8), 120).shape == (120, 180, 3)
    assert fit(np.zeros((200, 100, 3), np.uint8), 50).shape == (100, 50, 3)


def test_of_more_textures_a_random_choice_is_taken() -> None:
    textures = [noise(seed, 32) for seed in range(9)]
    chosen = {mosaic(textures, SEED_LAYOUT, np.random.default_rng(seed), 64, tile=32).textures for seed in range(6)}
    assert len(chosen) > 1
    assert all(len(set(four)) == 4 for four in chosen)


def test_wrong_textures_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="expected at least 4 textures for grid:2x2, got 3"):
        mosaic([noise(0)] * 3, SEED_LAYOUT, rng)
    with pytest.raises(DataError, match="expected uint8"):
        mosaic([np.zeros((8, 8), np.uint8)] * 4, SEED_LAYOUT, rng)
    with pytest.raises(DataError, match="at least one mosaic"):
        contact_sheet([])


def test_contact_sheet_shows_each_mosaic_and_its_cells() -> None:
    textures = [np.full((32, 32, 3), 100, np.uint8)] * 4
    made = mosaic(textures, SEED_LAYOUT, np.random.default_rng(0), 64, tile=32)
    sheet = contact_sheet([made] * 3, columns=2)
    assert sheet.shape == (128, 256, 3)
    assert np.array_equal(sheet[:64, :64], made.image)
    lines = (outlined(made) != made.image).any(2)
    assert lines[:, 31:33].all()
    assert not lines[10:20, 10:20].any()
