"""Correction clicks against mistakes drawn by hand, and the property that they always point at a mistake."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from specialsam.core.errors import DataError
from specialsam.core.types import Prompts
from specialsam.prompts import correction_click, correction_clicks, draw, generator
from specialsam.prompts.corrections import largest_component_area

pairs = hnp.arrays(np.bool_, st.tuples(st.just(2), st.integers(1, 20), st.integers(1, 20))).filter(
    lambda pair: pair[0].any()
)


def square(x0: int, y0: int, side: int) -> np.ndarray:
    mask = np.zeros((40, 40), bool)
    mask[y0 : y0 + side, x0 : x0 + side] = True
    return mask


def test_largest_mistake_is_clicked_in_its_middle_with_its_label():
    truth = square(2, 2, 9) | square(25, 25, 5)
    # Missed: all of a 9x9 and a 5x5; surplus: a 7x7. The 9x9 is the largest; its middle is (6, 6).
    assert correction_click(truth, square(30, 2, 7)) == ((6, 6), 1)
    # The 9x9 found: now the surplus 7x7 (middle 33, 5) is larger than the missed 5x5.
    assert correction_click(truth, square(2, 2, 9) | square(30, 2, 7)) == ((33, 5), 0)
    # Equally large: what is missing goes first.
    assert correction_click(truth, square(2, 2, 9) | square(30, 2, 5)) == ((27, 27), 1)


def test_components_are_compared_not_totals():
    # Many scattered surplus pixels (9) against one missed 2x2.
    truth = square(30, 30, 2) | square(10, 10, 6)
    predicted = square(10, 10, 6)
    predicted[0, ::4][:9] = True
    assert correction_click(truth, predicted)[1] == 1
    assert largest_component_area(predicted) == 36
    assert largest_component_area(np.zeros((3, 3), bool)) == 0


def test_nothing_wrong_gives_an_interior_click():
    assert correction_click(square(10, 10, 5), square(10, 10, 5)) == ((12, 12), 1)
    assert correction_click(square(10, 10, 5), square(10, 10, 5), generator(0)) == ((12, 12), 1)


@settings(max_examples=150, deadline=None)
@given(pairs, st.booleans(), st.integers(0, 99))
def test_clicks_point_at_a_mistake(pair, at_random, seed):
    truth, predicted = pair
    (x, y), label = correction_click(truth, predicted, generator(seed) if at_random else None)
    assert truth[y, x] == bool(label)
    if (truth != predicted).any():
        assert truth[y, x] != predicted[y, x]


@settings(max_examples=100, deadline=None)
@given(pairs)
def test_a_perfect_listener_needs_at_most_one_click_a_component(pair):
    """Flipping the clicked component each time ends in the truth after as many clicks as there are components."""
    import cv2

    truth, predicted = pair[0], pair[1].copy()
    wrong = [truth & ~predicted, predicted & ~truth]
    components = sum(cv2.connectedComponents(part.astype(np.uint8), connectivity=8)[0] - 1 for part in wrong)
    for _ in range(components):
        (x, y), label = correction_click(truth, predicted)
        part = truth & ~predicted if label else predicted & ~truth
        _, labels = cv2.connectedComponents(part.astype(np.uint8), connectivity=8)
        predicted[labels == labels[y, x]] = bool(label)
    assert (predicted == truth).all()


def test_random_clicks_reach_every_wrong_pixel():
    truth, predicted = square(3, 3, 2), square(4, 3, 2)
    rng = generator(0)
    seen = {correction_click(truth, predicted, rng) for _ in range(200)}
    assert seen == {((3, 3), 1), ((3, 4), 1), ((5, 3), 0), ((5, 4), 0)}


def test_clicks_are_added_and_boxes_and_logits_kept():
    masks = np.stack([square(2, 2, 9), square(20, 20, 11)])
    predicted = np.zeros_like(masks)
    first = draw("box_point", masks, generator(0))[0][1]
    logits = np.full((2, 4, 4), 0.5, np.float32)
    second = correction_clicks(masks, predicted, first, previous_logits=logits)
    assert second.points.shape == (2, 2, 2)
    np.testing.assert_array_equal(second.points[:, :1], first.points)
    assert second.points[:, 1].tolist() == [[6, 6], [25, 25]]
    assert second.labels.tolist() == [[1, 1], [1, 1]]
    np.testing.assert_array_equal(second.boxes, first.boxes)
    np.testing.assert_array_equal(second.masks, logits)
    third = correction_clicks(masks, np.ones_like(masks), second)
    assert third.labels[:, 2].tolist() == [0, 0]
    np.testing.assert_array_equal(third.masks, logits)
    assert third.strategy == "box_point"


def test_a_box_alone_gets_its_first_point():
    masks = square(2, 2, 9)[None]
    grown = correction_clicks(masks, np.zeros_like(masks), draw("box", masks, generator(0))[0][1])
    assert grown.points.tolist() == [[[6, 6]]]
    assert grown.labels.dtype == np.int64


def test_what_does_not_fit_is_refused():
    masks = square(2, 2, 9)[None]
    box = Prompts("box", boxes=np.zeros((2, 4), np.float32))
    with pytest.raises(DataError, match="1 objects, got 2"):
        correction_clicks(masks, masks, box)
    with pytest.raises(DataError, match="same bool"):
        correction_clicks(masks, masks[:, :5], box[:1])
    with pytest.raises(DataError, match="same bool"):
        correction_clicks(masks, masks.astype(np.float32), box[:1])
    with pytest.raises(DataError, match="non-empty"):
        correction_clicks(np.zeros_like(masks), masks, box[:1])
