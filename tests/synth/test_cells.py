"""Divisions of a square: partitions whose cells are whole and even, named as they are drawn. Oracle: numpy, scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from specialsam.core.errors import UsageError
from specialsam.synth.cells import LAYOUTS, MOST_CELLS, SMALLEST_SHARE, Layout, _nearest, label_map

seeds = st.integers(0, 2**31)
DRAWN = sorted(set(LAYOUTS) - {"grid"})


@settings(max_examples=25)
@given(kind=st.sampled_from(sorted(LAYOUTS)), rows=st.integers(1, 8), columns=st.integers(2, 8))
def test_the_name_of_a_layout_is_read_as_the_layout(kind: str, rows: int, columns: int) -> None:
    layout = Layout(kind, rows, columns)
    again = Layout.parse(layout.name)
    assert again.name == layout.name
    assert again.cells == layout.cells == rows * columns
    assert kind != "grid" or again == layout


@settings(max_examples=25)
@given(
    kind=st.sampled_from(DRAWN),
    cells=st.integers(2, 12),
    side=st.integers(48, 140),
    seed=seeds,
)
def test_drawn_cells_part_the_square_into_whole_pieces_of_some_size(
    kind: str, cells: int, side: int, seed: int
) -> None:
    """Each pixel in one cell, each cell in one piece and no smaller than a part of its fair share."""
    labels = label_map(Layout(kind, 1, cells), side, np.random.default_rng(seed))
    assert labels.dtype == np.uint8
    assert labels.shape == (side, side)
    areas = np.bincount(labels.ravel(), minlength=cells)
    assert len(areas) == cells
    assert areas.sum() == side * side
    assert areas.min() >= SMALLEST_SHARE * side * side / cells
    assert all(ndimage.label(labels == cell, np.ones((3, 3)))[1] == 1 for cell in range(cells))
    assert np.array_equal(labels, label_map(Layout(kind, 1, cells), side, np.random.default_rng(seed)))


@settings(max_examples=25)
@given(rows=st.integers(1, 8), columns=st.integers(1, 8), side=st.integers(32, 140), seed=seeds)
def test_tiles_of_a_grid_differ_by_a_row_or_a_column_at_most(rows: int, columns: int, side: int, seed: int) -> None:
    """Oracle: a grid is the outer product of two even divisions; no random number takes part."""
    if rows * columns < 2:
        return
    labels = label_map(Layout("grid", rows, columns), side, np.random.default_rng(seed))
    heights = [int((labels == row * columns).any(1).sum()) for row in range(rows)]
    widths = [int((labels == column).any(0).sum()) for column in range(columns)]
    assert sum(heights) == sum(widths) == side
    assert np.ptp(heights) <= 1
    assert np.ptp(widths) <= 1
    by_hand = np.repeat(np.arange(rows), heights)[:, None] * columns + np.repeat(np.arange(columns), widths)[None]
    assert np.array_equal(labels, by_hand)


@settings(max_examples=25)
@given(kind=st.sampled_from(DRAWN), columns=st.integers(1, 8), side=st.integers(40, 64), seed=seeds)
def test_only_a_grid_cares_which_number_is_that_of_rows(kind: str, columns: int, side: int, seed: int) -> None:
    """Also where the square has fewer rows of pixels than the layout has cells in a row."""
    square, line = Layout(kind, 8, columns), Layout(kind, 1, 8 * columns)
    if side * side < 16 * square.cells:
        return
    drawn = [label_map(layout, side, np.random.default_rng(seed)) for layout in (square, line)]
    assert np.array_equal(*drawn)


@settings(max_examples=20)
@given(seed=seeds, count=st.integers(1, 9))
def test_the_nearest_point_is_that_of_brute_force(seed: int, count: int) -> None:
    points = np.random.default_rng(seed).uniform(0, 30, (count, 2)).astype(np.float32)
    y, x = np.mgrid[:30, :30].astype(np.float32)
    every = ((x[None] - points[:, 0, None, None]) ** 2 + (y[None] - points[:, 1, None, None]) ** 2).astype(np.float64)
    chosen = np.take_along_axis(every, _nearest(points, x, y)[None].astype(int), 0)[0]
    assert np.allclose(chosen, every.min(0), atol=1e-2)


@pytest.mark.parametrize("kind", DRAWN)
def test_the_most_cells_fit_where_the_message_says_so(kind: str) -> None:
    """16 pixels a cell are room enough: 64 cells in a square of 32 px; a pixel less is refused in one line."""
    labels = label_map(Layout(kind, 1, MOST_CELLS), 32, np.random.default_rng(0))
    assert len(np.unique(labels)) == MOST_CELLS
    with pytest.raises(UsageError, match=rf"room for {kind}:64, got 31") as caught:
        label_map(Layout(kind, 1, MOST_CELLS), 31, np.random.default_rng(0))
    assert "\n" not in str(caught.value)
