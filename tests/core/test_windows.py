"""Windows and tiles: within their picture, covering all of it; frames checked against plain indexing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialsam.core.errors import UsageError
from specialsam.core.windows import Window, tiles

sides = st.integers(1, 300)


@given(height=sides, width=sides, x=st.floats(-50, 350), y=st.floats(-50, 350), side=st.floats(0.1, 500))
def test_a_window_around_a_point_lies_within_the_picture(
    height: int, width: int, x: float, y: float, side: float
) -> None:
    window = Window.around((x, y), side, (height, width))
    assert window.top + window.height <= height
    assert window.left + window.width <= width
    assert window.size == (min(max(round(side), 1), height), min(max(round(side), 1), width))
    if side / 2 + 1 <= x <= width - side / 2 - 1 and side >= 2:
        assert abs(window.left + window.width / 2 - x) <= 1
    picture = np.zeros((height, width))
    picture[window.slices] = 1
    assert picture.sum() == window.height * window.width


@given(data=st.data(), height=sides, width=sides, side=st.integers(1, 200))
def test_holds_and_clip_agree_with_indexing(data: st.DataObject, height: int, width: int, side: int) -> None:
    """Oracle: a mask painted into the picture and cut out by the window."""
    x = data.draw(st.integers(0, width - 1))
    y = data.draw(st.integers(0, height - 1))
    window = Window.around((data.draw(st.floats(0, width)), data.draw(st.floats(0, height))), side, (height, width))
    picture = np.zeros((height, width), bool)
    picture[y, x] = True
    assert window.holds([[x, y]])[0] == picture[window.slices].any()
    x1, y1 = data.draw(st.integers(x, width - 1)) + 1, data.draw(st.integers(y, height - 1)) + 1
    picture[y:y1, x:x1] = True
    box = window.clip_boxes(np.array([[x, y, x1, y1]], np.float32))[0]
    inside = np.argwhere(picture[window.slices])
    if len(inside):
        assert np.array_equal(box[:2], inside.min(0)[::-1])
        assert np.array_equal(box[2:], inside.max(0)[::-1] + 1)
    else:
        assert box[0] == box[2] or box[1] == box[3]


@given(height=sides, width=sides, side=st.integers(16, 200), overlap=st.floats(0, 0.75))
def test_tiles_cover_everything_and_share_what_was_asked(height: int, width: int, side: int, overlap: float) -> None:
    found = tiles((height, width), side, overlap)
    seen = np.zeros((height, width), int)
    for window in found:
        seen[window.slices] += 1
    assert seen.min() >= 1
    assert len({window.size for window in found}) == 1
    assert len(set(found)) == len(found)
    lefts = sorted({window.left for window in found})
    for first, second in pairwise(lefts):
        assert first + side - second >= overlap * side - 1.5
    if max(height, width) <= side:
        assert found == [Window(0, 0, height, width)]


@pytest.mark.parametrize(("side", "overlap"), [(8, 0.2), (64, -0.1), (64, 0.9)])
def test_impossible_tiles_are_refused_in_one_line(side: int, overlap: float) -> None:
    with pytest.raises(UsageError, match=r"expected tiles of at least 16 px .* got"):
        tiles((100, 100), side, overlap)
    with pytest.raises(UsageError, match="expected a window of at least 1x1"):
        Window(0, 0, 0, 4)
