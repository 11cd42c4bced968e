"""Original pixels, model pixels, low-res logits. Oracles: segment-anything's resize rule, PIL, areas by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from specialsam.core import geometry as module
from specialsam.core.errors import DataError
from specialsam.core.geometry import Geometry

torch.set_num_threads(1)
SIDES = st.sampled_from([16, 128, 512, 1024])
LENGTHS = st.one_of(st.integers(1, 40), st.integers(1, 5000))


@st.composite
def geometries(draw: st.DrawFn, most: int = 5000) -> Geometry:
    lengths = st.one_of(st.integers(1, 40), st.integers(1, most))
    return Geometry(draw(lengths), draw(lengths), draw(SIDES))


def disc(height: int, width: int, x: float, y: float, radius: float) -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[:height, :width]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def logit(coverage: npt.NDArray[np.float32]) -> torch.Tensor:
    """Logits whose probabilities are the coverage, (P, 1, L, L)."""
    return torch.logit(torch.from_numpy(coverage)[:, None].clamp(0.01, 0.99))


@given(LENGTHS, LENGTHS, SIDES)
@example(1, 1, 16)
@example(1, 5000, 1024)
@example(5000, 1, 1024)
@example(683, 1024, 1024)
def test_resized_is_segment_anythings_rule(height: int, width: int, side: int) -> None:
    """`ResizeLongestSide.get_preprocess_shape`: int(length * side / longest + 0.5), and never less than a pixel."""
    scale = side * 1.0 / max(height, width)
    expected = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    assert Geometry(height, width, side).resized == expected
    assert max(expected) == side


def test_resized_by_hand() -> None:
    assert Geometry(1200, 1800, 1024).resized == (683, 1024)
    assert Geometry(480, 640, 1024).resized == (768, 1024)
    assert Geometry(1, 5000, 1024).resized == (1, 1024)


@given(geometries(), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5))
def test_points_there_and_back(geometry: Geometry, shares: list[tuple[float, float]]) -> None:
    """Trap 3: within half a pixel is asked for; single precision gives a thousandth of the longest side's share."""
    points = np.array(shares, np.float32) * np.array([geometry.width, geometry.height], np.float32)
    there = geometry.points_to_model(points)
    height, width = geometry.resized
    assert there.dtype == np.float32
    assert (there >= 0).all()
    assert (there <= np.array([width, height]) * (1 + 1e-6)).all()
    back = geometry.points_to_original(there)
    assert np.abs(back - points).max() <= 1e-6 * max(geometry.height, geometry.width, 1)


@given(geometries(), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_are_two_points(geometry: Geometry, shares: list[float]) -> None:
    box = np.array(shares, np.float32) * np.array([geometry.width, geometry.height] * 2, np.float32)
    there = geometry.boxes_to_model(box[None])
    assert there.shape == (1, 4)
    np.testing.assert_array_equal(there.reshape(2, 2), geometry.points_to_model(box.reshape(2, 2)))
    np.testing.assert_allclose(geometry.boxes_to_original(there)[0], box, atol=1e-6 * 5000)


def test_corners_of_the_image_are_corners_of_the_resized_one() -> None:
    geometry = Geometry(100, 300, 512)
    assert geometry.resized == (171, 512)
    np.testing.assert_allclose(geometry.points_to_model([[0, 0], [300, 100]]), [[0, 0], [512, 171]], rtol=1e-6)


def test_no_points_and_deep_arrays_keep_their_shape() -> None:
    geometry = Geometry(10, 20, 128)
    assert geometry.points_to_model(np.zeros((0, 3, 2))).shape == (0, 3, 2)
    assert geometry.boxes_to_model(np.zeros((2, 5, 4))).shape == (2, 5, 4)


@pytest.mark.parametrize(("height", "width"), [(37, 90), (90, 37), (300, 200), (1, 50), (700, 3)])
def test_image_is_scaled_by_pil(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    geometry = Geometry(height, width, 128)
    tall, wide = geometry.resized
    expected = np.asarray(Image.fromarray(image).resize((wide, tall), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(geometry.image_to_model(image), expected)


def test_image_of_the_models_size_is_left_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (128, 100, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Geometry(128, 100, 128).image_to_model(image), image)


@given(geometries())
def test_valid_logits_sum_to_the_area_of_the_image(geometry: Geometry) -> None:
    valid = geometry.valid_logits()
    height, width = geometry.resized
    assert valid.shape == (geometry.side // 4, geometry.side // 4)
    assert valid.min() >= 0
    assert valid.max() <= 1
    assert valid.sum(dtype=np.float64) == pytest.approx(height * width / 16, rel=1e-6)
    assert geometry.logits_extent == (height / 4, width / 4)


@settings(deadline=None, max_examples=40)
@given(geometries(most=600))
@example(Geometry(1, 1, 16))
@example(Geometry(1, 600, 512))
@example(Geometry(600, 7, 128))
@example(Geometry(101, 77, 128))
def test_a_full_mask_covers_the_image_and_nothing_else(geometry: Geometry) -> None:
    """A logit that lies half on the image and half on padding is wholly covered: only its share on the image counts."""
    coverage = geometry.masks_to_logits(np.ones((1, geometry.height, geometry.width), np.bool_))
    np.testing.assert_allclose(coverage[0], geometry.valid_logits() > 0, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(geometries(most=400), st.integers(0, 2**31))
def test_coverage_keeps_the_area_of_a_mask(geometry: Geometry, seed: int) -> None:
    """Mean coverage over the image equals the share of foreground pixels (smooth masks: discs and half planes)."""
    rng = np.random.default_rng(seed)
    height, width = geometry.height, geometry.width
    radius = rng.uniform(0.1, 0.6) * min(height, width)
    mask = disc(height, width, rng.uniform(0, width), rng.uniform(0, height), radius)
    coverage, valid = geometry.masks_to_logits(mask[None])[0], geometry.valid_logits()
    assert coverage.min() >= 0
    assert coverage.max() <= 1 + 1e-6
    assert (coverage[valid == 0] == 0).all()
    share = float((coverage * valid).sum(dtype=np.float64) / valid.sum(dtype=np.float64))
    cell = 1 / min(geometry.resized) + 1 / min(height, width)
    assert share == pytest.approx(float(mask.mean()), abs=min(1.0, 0.01 + 0.5 * cell))


def test_coverage_by_hand() -> None:
    """128 px image at side 128: a 4x4 block is one logit, its upper half a half."""
    masks = np.zeros((2, 128, 64), np.bool_)
    masks[0, 8:12, 4:8] = True
    masks[1, 8:10, 4:8] = True
    coverage = Geometry(128, 64, 128).masks_to_logits(masks)
    expected = np.zeros((2, 32, 32), np.float32)
    expected[0, 2, 1], expected[1, 2, 1] = 1, 0.5
    np.testing.assert_allclose(coverage, expected, atol=1e-6)


def test_the_way_to_logits_is_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sides whose unit vectors are resized a few at once, as those of a line-scan camera's pictures are."""
    masks = np.random.default_rng(3).random((2, 61, 150)) > 0.6
    for side in (32, 128):
        frame = Geometry(61, 150, side)
        whole = frame.masks_to_logits(masks)
        module._logits_operators.cache_clear()
        with monkeypatch.context() as patched:
            patched.setattr(module, "UNIT_VECTORS", 7)
            assert np.array_equal(frame.masks_to_logits(masks), whole)
        module._logits_operators.cache_clear()


def test_a_line_scan_needs_no_square_of_its_length() -> None:
    mask = np.ones((1, 40_000, 4), np.bool_)
    tracemalloc.start()
    coverage = Geometry(40_000, 4, 256).masks_to_logits(mask)
    assert tracemalloc.get_traced_memory()[1] < 300e6, "the square would be 6.4 GB"
    tracemalloc.stop()
    assert coverage.max() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("height", "width", "side"), [(240, 320, 128), (90, 60, 128), (500, 333, 512), (64, 64, 512)])
def test_a_disc_survives_the_way_to_logits_and_back(height: int, width: int, side: int) -> None:
    """IoU above .98 where the radius is at least 8 logits."""
    geometry = Geometry(height, width, side)
    pixels_a_logit = max(height, width) / geometry.logits_side
    mask = disc(height, width, 0.5 * width, 0.45 * height, max(8 * pixels_a_logit, 0.3 * min(height, width)))
    back = geometry.logits_to_original(logit(geometry.masks_to_logits(mask[None])))[0, 0].numpy() > 0
    assert back.shape == mask.shape
    assert (back & mask).sum() / (back | mask).sum() > 0.98


def test_half_planes_at_the_padded_border_come_back() -> None:
    """The last row of an image whose height is no multiple of the logit's stride belongs to the object that it is."""
    geometry = Geometry(101, 128, 128)
    mask = np.zeros((1, 101, 128), np.bool_)
    mask[:, 60:] = True
    back = geometry.logits_to_original(logit(geometry.masks_to_logits(mask)))[0, 0].numpy() > 0
    assert back[-1].all()
    assert (back & mask[0]).sum() / (back | mask[0]).sum() > 0.97


def test_logits_to_original_is_two_bilinear_steps() -> None:
    """The steps of segment-anything's `postprocess_masks`, with PIL's plain (not antialiased) enlargement as oracle."""
    geometry = Geometry(64, 128, 128)
    logits = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    large = Image.fromarray(logits[0, 0].numpy()).resize((128, 128), Image.Resampling.BILINEAR)
    expected = np.asarray(large)[:64]
    np.testing.assert_allclose(geometry.logits_to_original(logits)[0, 0].numpy(), expected, atol=1e-4)


def test_no_objects() -> None:
    geometry = Geometry(30, 20, 128)
    assert geometry.masks_to_logits(np.zeros((0, 30, 20), np.bool_)).shape == (0, 32, 32)
    assert tuple(geometry.logits_to_original(torch.zeros(0, 3, 32, 32)).shape) == (0, 3, 30, 20)


def test_dictionary_round_trip() -> None:
    geometry = Geometry(30, 20, 128)
    assert Geometry(**geometry.to_dict()) == geometry


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: Geometry(0, 5, 128), "at least 1x1 pixels, got 0x5"),
        (lambda: Geometry(5, 0, 128), "at least 1x1 pixels, got 5x0"),
        (lambda: Geometry(5, 5, 100), "multiple of 16, got 100"),
        (lambda: Geometry(5, 5, 0), "multiple of 16, got 0"),
        (lambda: Geometry(5, 6, 128).image_to_model(np.zeros((6, 5, 3), np.uint8)), "image of 5x6, got 6x5"),
        (lambda: Geometry(5, 6, 128).masks_to_logits(np.zeros((1, 6, 5), np.bool_)), "masks of 5x6, got 6x5"),
        (lambda: Geometry(5, 6, 128).logits_to_original(torch.zeros(1, 32, 32)), r"got \(1, 32, 32\)"),
        (lambda: Geometry(5, 6, 128).logits_to_original(torch.zeros(1, 1, 32, 31)), r"got \(1, 1, 32, 31\)"),
    ],
)
def test_wrong_sizes_are_told_with_expected_and_actual(call: object, expected: str) -> None:
    assert callable(call)
    with pytest.raises(DataError, match=expected):
        call()


@st.composite
def stretched(draw: st.DrawFn, most: int = 600) -> Geometry:
    """Frames of SAM 2 and 3: the image fills the square, and a logit may cover three model pixels and a half."""
    cell = draw(st.sampled_from([14, 16]))
    return Geometry(draw(st.integers(1, most)), draw(st.integers(1, most)), 8 * cell, cell, True)


@given(stretched(), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5))
def test_points_of_a_stretched_image_scale_with_each_side(
    geometry: Geometry, shares: list[tuple[float, float]]
) -> None:
    """Oracle: a share of a side of the image is that share of the square's."""
    size = np.array([geometry.width, geometry.height], np.float32)
    points = np.array(shares, np.float32) * size
    there = geometry.points_to_model(points)
    np.testing.assert_allclose(there, points / size * geometry.side, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(geometry.points_to_original(there), points, rtol=1e-5, atol=1e-4)


def test_frames_of_sam_2_and_3_by_hand() -> None:
    two, three = Geometry(300, 400, 1024, 16, True), Geometry(300, 400, 1008, 14, True)
    assert (two.resized, two.logits_side, two.logits_stride) == ((1024, 1024), 256, 4)
    assert (three.resized, three.logits_side, three.logits_stride) == ((1008, 1008), 288, 3.5)
    assert two.valid_logits().min() == three.valid_logits().min() == 1
    assert Geometry(**three.to_dict()) == three
    with pytest.raises(DataError, match="multiple of 14"):
        Geometry(300, 400, 1024, 14, True)


@settings(deadline=None, max_examples=40)
@given(stretched())
@example(Geometry(1, 1, 112, 14, True))
@example(Geometry(7, 600, 112, 14, True))
@example(Geometry(28, 28, 112, 14, True))
def test_masks_of_a_stretched_image_keep_their_share_of_it(geometry: Geometry) -> None:
    """Oracle: the mean of a half-filled image's mask, to the blur of one logit at its edge."""
    mask = np.zeros((1, geometry.height, geometry.width), np.bool_)
    mask[:, :, : (geometry.width + 1) // 2] = True
    coverage = geometry.masks_to_logits(mask)
    assert coverage.shape == (1, geometry.logits_side, geometry.logits_side)
    assert coverage.mean() == pytest.approx(mask.mean(), abs=1 / geometry.logits_side)
    np.testing.assert_allclose(geometry.masks_to_logits(np.ones_like(mask)), 1, atol=1e-5)
    torch.testing.assert_close(geometry.masks_to_logits_on(mask, torch.device("cpu")), torch.from_numpy(coverage))


def test_a_logit_of_half_pixels_is_their_mean_by_hand() -> None:
    """An image of the model's own size, where nothing is resized: a pixel that two logits share counts half in each."""
    geometry = Geometry(112, 112, 112, 14, True)
    mask = np.zeros((1, 112, 112), np.bool_)
    mask[:, :, 3] = True
    coverage = geometry.masks_to_logits(mask)[0]
    np.testing.assert_allclose(coverage[:, :3], np.broadcast_to([0.5 / 3.5, 0.5 / 3.5, 0], (32, 3)), atol=1e-6)


def test_logits_of_a_stretched_image_come_back_in_one_step() -> None:
    """Oracle: torch's own bilinear interpolation from the logits to the image, as SAM 2's processor has it."""
    logits = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(logits, (37, 90), mode="bilinear", align_corners=False)
    torch.testing.assert_close(Geometry(37, 90, 128, 16, True).logits_to_original(logits), expected)


@pytest.mark.parametrize(("height", "width"), [(37, 90), (300, 200), (1, 50)])
def test_a_stretched_image_is_scaled_as_transformers_does(height: int, width: int) -> None:
    """Oracles: torch's antialiased interpolation of bytes, to which torchvision's resize comes down, and PIL's."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ours = Geometry(height, width, 112, 14, True).image_to_model(image)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    theirs = torch.nn.functional.interpolate(planes, (112, 112), mode="bilinear", antialias=True)
    np.testing.assert_array_equal(ours, theirs[0].permute(1, 2, 0).numpy())
    by_pil = np.asarray(Image.fromarray(image).resize((112, 112), Image.Resampling.BILINEAR))
    assert np.abs(ours.astype(int) - by_pil).max() <= 1
