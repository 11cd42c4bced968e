"""Masks from files and to run-lengths. Oracles: pixels set by hand, pycocotools' own area and box, SciPy."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco
from scipy import ndimage

from specialsam.core.errors import DataError
from specialsam.core.masks import from_binary, from_index, from_rles, interior_point, tight_boxes, to_rle

BOOLS = arrays(np.bool_, st.tuples(st.integers(1, 30), st.integers(1, 30)))
HAND = np.array([[0, 1, 0], [1, 1, 0]], np.bool_)


@settings(deadline=None)
@given(BOOLS)
def test_run_lengths_there_and_back(mask: npt.NDArray[np.bool_]) -> None:
    rle = json.loads(json.dumps(to_rle(mask)))
    assert rle["size"] == list(mask.shape)
    np.testing.assert_array_equal(from_rles((rle,), *mask.shape)[0], mask)
    assert int(coco.area(rle)) == mask.sum()


def test_uncompressed_run_lengths_are_read() -> None:
    """COCO counts run down the columns and begin with background: 0 1 | 1 1 | 0 0 is 1, 3, 2."""
    masks = from_rles(({"size": [2, 3], "counts": [1, 3, 2]},), 2, 3)
    np.testing.assert_array_equal(masks[0], HAND)
    assert from_rles((), 2, 3).shape == (0, 2, 3)


def test_a_run_length_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match="expected a run-length mask of 5x5, got 2x3"):
        from_rles((to_rle(HAND),), 5, 5)


@pytest.mark.parametrize(
    "pixels",
    [
        HAND,
        HAND.astype(np.uint8),
        HAND.astype(np.uint8) * 255,
        HAND.astype(np.uint8) * 128,
        HAND.astype(np.uint16) * 65535,
        HAND.astype(np.uint16) * 255,
        HAND.astype(np.int32) * 255,
        HAND.astype(np.int32) * 65535,
        np.stack([HAND, HAND, HAND], -1).astype(np.uint8) * 255,
        np.stack([HAND, ~HAND], -1).astype(np.uint8) * 255,
    ],
    ids=["bool", "0/1", "0/255", "0/128", "16 bit", "8 in 16 bit", "8 in 32 bit", "16 in 32 bit", "RGB", "2 channels"],
)
def test_binary_masks_of_every_kind(pixels: npt.NDArray[np.generic]) -> None:
    masks = from_binary(pixels)
    assert masks.dtype == np.bool_
    np.testing.assert_array_equal(masks, HAND[None])


def test_grey_levels_count_above_127() -> None:
    """COD10K and CAMO: grey levels at the border of the object."""
    masks = from_binary(np.array([[0, 127], [128, 255]], np.uint8))
    np.testing.assert_array_equal(masks, [[[False, False], [True, True]]])


def test_background_alone_is_no_object() -> None:
    assert from_binary(np.zeros((3, 4), np.uint8)).shape == (0, 3, 4)
    assert from_binary(np.full((3, 4), 100, np.uint8)).shape == (0, 3, 4)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3, 4)])
def test_binary_pixels_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="expected a"):
        from_binary(np.zeros(shape, np.uint8))


def test_index_maps_give_an_object_a_value() -> None:
    masks = from_index(np.array([[0, 7], [3, 7]], np.uint8))
    np.testing.assert_array_equal(masks, [[[False, False], [True, False]], [[False, True], [False, True]]])
    assert from_index(np.zeros((2, 2), np.uint16)).shape == (0, 2, 2)
    with pytest.raises(DataError, match=r"got \(2, 2, 3\)"):
        from_index(np.zeros((2, 2, 3), np.uint8))


@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 5)))
def test_index_objects_are_disjoint_and_complete(pixels: npt.NDArray[np.uint8]) -> None:
    masks = from_index(pixels)
    assert len(masks) == len(set(pixels.ravel().tolist()) - {0})
    np.testing.assert_array_equal(masks.sum(0), pixels > 0)


def test_tight_boxes_by_hand() -> None:
    masks = np.zeros((3, 10, 20), np.bool_)
    masks[0, 2:5, 3:9] = True
    masks[1, 9, 19] = True
    masks[2] = True
    np.testing.assert_array_equal(tight_boxes(masks), [[3, 2, 8, 4], [19, 9, 19, 9], [0, 0, 19, 9]])
    assert tight_boxes(masks[:0]).shape == (0, 4)
    with pytest.raises(DataError, match=r"got an empty one \(object 1\)"):
        tight_boxes(masks & np.array([True, False, True])[:, None, None])


@given(BOOLS.filter(lambda mask: bool(mask.any())))
def test_tight_boxes_are_cocos(mask: npt.NDArray[np.bool_]) -> None:
    """COCO's box is (x, y, width, height) of the same pixels."""
    x, y, width, height = coco.toBbox(to_rle(mask))
    np.testing.assert_array_equal(tight_boxes(mask[None])[0], [x, y, x + width - 1, y + height - 1])


def rectangle(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros((height, width), np.bool_)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def test_interior_point_of_shapes_drawn_by_hand() -> None:
    assert interior_point(rectangle(30, 30, 4, 6, 14, 16)) == (9, 11)
    # The image's border is a border: the middle of a full image, not a corner.
    assert interior_point(np.ones((11, 21), bool)) == (10, 5)
    # A crescent-like C: its centre of mass is outside, its interior point inside.
    letter = rectangle(40, 40, 5, 5, 34, 34)
    letter[10:30, 12:] = False
    x, y = interior_point(letter)
    assert letter[y, x]
    # Two blobs: the larger one wins although the smaller one is as thick.
    blobs = rectangle(30, 60, 0, 0, 4, 4) | rectangle(30, 60, 20, 10, 50, 14)
    assert interior_point(blobs) == (35, 12)


def test_interior_point_does_not_depend_on_what_surrounds_the_object() -> None:
    """Of equal components the same one is chosen in a small picture and in a large one."""
    rng = np.random.default_rng(3)
    for _ in range(300):
        small = rng.random(tuple(rng.integers(1, 14, 2))) < rng.choice([0.1, 0.4, 0.8])
        if not small.any():
            continue
        top, left = 2 * rng.integers(0, 9, 2)
        large = np.pad(small, ((top, 6), (left, 11)))
        x, y = interior_point(small)
        assert interior_point(large) == (x + left, y + top)


@settings(max_examples=150, deadline=None)
@given(BOOLS.filter(lambda mask: bool(mask.any())))
def test_interior_point_is_as_deep_as_scipy_finds(mask: npt.NDArray[np.bool_]) -> None:
    # Oracle: scipy.ndimage, exact Euclidean distance in the largest 8-connected component, border padded.
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = ndimage.sum(mask, labels, range(1, count + 1))
    x, y = interior_point(mask)
    assert sizes[labels[y, x] - 1] == sizes.max()
    depth = ndimage.distance_transform_edt(np.pad(labels == labels[y, x], 1))[1:-1, 1:-1]
    assert depth[y, x] == pytest.approx(depth.max(), abs=1e-3)
