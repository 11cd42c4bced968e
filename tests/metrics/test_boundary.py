"""Boundary metrics against SciPy's exact distances, a Canny on the whole image, and hand-drawn masks."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from specialsam.core.errors import DataError
from specialsam.metrics import boundary, boundary_canny
from specialsam.metrics.boundaries import outline

shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))
mask_pairs = shapes.flatmap(lambda shape: st.tuples(*[hnp.arrays(np.bool_, shape)] * 2)).filter(
    lambda pair: pair[0].any() and pair[1].any()
)


def square(x0: int, y0: int, side: int, size: int = 60) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[y0 : y0 + side, x0 : x0 + side] = True
    return mask


def expected(predicted: np.ndarray, true: np.ndarray, tolerance: float) -> tuple[float, float]:
    """Precision and recall of edge pixels by SciPy's exact Euclidean distance."""
    to_true, to_predicted = (ndimage.distance_transform_edt(~edges) for edges in (true, predicted))
    return float((to_true[predicted] <= tolerance).mean()), float((to_predicted[true] <= tolerance).mean())


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    noise = [ndimage.gaussian_filter(rng.normal(size=(90, 120)), 6) for _ in range(2)]
    return noise[0] > 0.02, noise[0] + 0.4 * noise[1] > 0.02


def test_outline_by_hand():
    # A 4x4 square has 12 outline pixels, its 2x2 core is none; at the image's border the border counts.
    assert outline(square(10, 10, 4)).sum() == 12
    assert outline(np.ones((5, 7), bool)).sum() == 2 * 7 + 2 * 3
    assert outline(square(0, 0, 1)).sum() == 1


def test_shifted_square_by_hand():
    # Shifted down by 3 px: within 3 px all match; within 2 px only parts of the sides do.
    near, far = boundary(square(10, 13, 20), square(10, 10, 20), 3), boundary(square(10, 13, 20), square(10, 10, 20), 2)
    assert set(near.values()) == {1.0}
    assert (
        far["boundary_precision"]
        == far["boundary_recall"]
        == expected(outline(square(10, 13, 20)), outline(square(10, 10, 20)), 2)[0]
    )
    assert far["boundary_f1"] < 1


@settings(max_examples=150, deadline=None)
@given(mask_pairs, st.integers(0, 6))
def test_agrees_with_scipy(pair, tolerance):
    mask, truth = pair
    values = boundary(mask, truth, tolerance)
    precision, recall = expected(outline(mask), outline(truth), tolerance)
    assert values["boundary_precision"] == pytest.approx(precision)
    assert values["boundary_recall"] == pytest.approx(recall)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert values["boundary_f1"] == pytest.approx(f1)


@settings(max_examples=80, deadline=None)
@given(mask_pairs)
def test_properties(pair):
    mask, truth = pair
    scores = [boundary(mask, truth, tolerance)["boundary_f1"] for tolerance in (0, 1, 2, 5, 40)]
    assert scores == sorted(scores)
    assert scores[-1] == 1
    assert set(boundary(truth, truth, 0).values()) == {1.0}
    one, other = boundary(mask, truth, 2), boundary(truth, mask, 2)
    assert one["boundary_precision"] == other["boundary_recall"]


@pytest.mark.parametrize("seed", range(6))
def test_canny_on_the_cropped_masks_is_canny_on_the_whole_images(seed):
    # Oracle: the definition, computed on whole images with SciPy's distances.
    for mask, truth in [
        blobs(seed),
        (square(20, 18, 9 + seed), square(22, 20, 12)),
        (square(0, 0, 9), square(2, 1, 58)),
    ]:
        edges = [cv2.Canny(part.astype(np.uint8) * 255, 100, 200) > 0 for part in (mask, truth)]
        precision, recall = expected(edges[0], edges[1], 5)
        values = boundary_canny(mask, truth)
        assert values["canny_precision"] == pytest.approx(precision)
        assert values["canny_recall"] == pytest.approx(recall)


def test_canny_where_masks_have_no_edge():
    full, empty = np.ones((20, 20), bool), np.zeros((20, 20), bool)
    assert set(boundary_canny(full, full).values()) == {1.0}
    assert set(boundary_canny(full, empty).values()) == {0.0}
    assert set(boundary_canny(full, square(5, 5, 6, 20)).values()) == {0.0}
    assert set(boundary_canny(square(5, 5, 6, 20), full).values()) == {0.0}


@pytest.mark.parametrize("function", [boundary, boundary_canny])
def test_empty_masks(function):
    empty, some = np.zeros((60, 60), bool), square(10, 10, 20)
    assert set(function(empty, empty, 5).values()) == {1.0}
    assert set(function(empty, some, 5).values()) == {0.0}
    assert set(function(some, empty, 5).values()) == {0.0}


def test_wrong_tolerance_is_refused():
    for tolerance in (-1, float("nan"), float("inf")):
        with pytest.raises(DataError, match="tolerance"):
            boundary(square(1, 1, 3), square(1, 1, 3), tolerance)
