"""How a square is divided into cells: grids, split lines, Voronoi cells, curved borders; every pixel in exactly one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.core.errors import UsageError
from specialsam.core.geometry import FloatArray

LabelMap = npt.NDArray[np.uint8]

MOST_CELLS = 64
"""Cells of one layout at most."""
SMALLEST_SIDE = 16
"""Pixels of the square's side at least."""
SMALLEST_SHARE = 0.3
"""A drawn cell covers at least this part of its fair share (the square divided by the number of cells)."""

_ATTEMPTS = 12
_SAMPLE = 64
_SLANTED = 0.5
_BEND = 0.11
_KNOTS = 5


@dataclass(frozen=True)
class Layout:
    """A kind of division of LAYOUTS and its number of cells, `rows` x `columns` (only "grid" cares which is which).

    Written as "grid:2x3", "lines:5", "voronoi:6", "curved:4"; `Layout.parse` reads that, a bare kind has 4 cells.
    """

    kind: str = "grid"
    rows: int = 2
    columns: int = 2

    def __post_init__(self) -> None:
        if self.kind not in LAYOUTS:
            raise UsageError(f"expected a layout of {', '.join(LAYOUTS)}, got {self.kind!r}")
        if min(self.rows, self.columns) < 1 or not 2 <= self.cells <= MOST_CELLS:
            raise UsageError(f"expected a layout of 2 to {MOST_CELLS} cells, got {self.rows}x{self.columns}")

    @property
    def cells(self) -> int:
        """Number P of cells."""
        return self.rows * self.columns

    @property
    def name(self) -> str:
        """The text that `parse` reads."""
        return f"grid:{self.rows}x{self.columns}" if self.kind == "grid" else f"{self.kind}:{self.cells}"

    @classmethod
    def parse(cls, text: str) -> Layout:
        """From "grid:2x3", "voronoi:6" or a bare kind; UsageError for anything else."""
        kind, colon, size = text.strip().partition(":")
        rows, cross, columns = size.partition("x")
        numbers = (rows, columns) if cross else ("1", rows) if colon else ()
        if kind not in LAYOUTS or not all(number.isdecimal() for number in numbers) or (cross and kind != "grid"):
            raise UsageError(
                f"expected a layout like grid:2x2, lines:5, voronoi:6 or curved:4 (kinds: {', '.join(LAYOUTS)}), "
                f"got {text!r}"
            )
        return cls(kind, int(numbers[0]), int(numbers[1])) if numbers else cls(kind)


def label_map(layout: Layout, side: int, rng: np.random.Generator) -> LabelMap:
    """The cell of each pixel, uint8 (side, side) with the values 0 ... P - 1, each of them present.

    Cells are in one piece; drawn ones (all kinds but "grid") cover at least SMALLEST_SHARE of their fair share where
    twelve draws find such a division, and the most even of the twelve is taken where they do not.
    """
    if side < SMALLEST_SIDE or side * side < 16 * layout.cells or side < max(layout.rows, layout.columns):
        raise UsageError(f"expected a side of at least {SMALLEST_SIDE} px and room for {layout.name}, got {side}")
    best, most_even = None, -1.0
    for attempt in range(_ATTEMPTS):
        labels = LAYOUTS[layout.kind](layout, side, rng, attempt)
        if layout.kind == "grid":
            return labels
        even = _evenness(labels, layout.cells)
        if even > most_even:
            best, most_even = labels, even
        if even >= SMALLEST_SHARE:
            break
    if best is None or most_even <= 0:
        raise UsageError(f"expected a layout that fits {side} px, {layout.name} leaves cells empty; take fewer cells")
    return best


def _evenness(labels: LabelMap, cells: int) -> float:
    """The smallest cell's part of the fair share, 0..1: 0 where a cell is missing, a hundredth where one is torn.

    A torn cell (two pieces) is thereby taken only where no draw leaves all cells whole.
    """
    smallest = float(np.bincount(labels.ravel(), minlength=cells).min()) * cells / labels.size
    whole = all(cv2.connectedComponents((labels == cell).astype(np.uint8))[0] <= 2 for cell in range(cells))
    return smallest if whole else smallest * 0.01


def _grid(layout: Layout, side: int, rng: np.random.Generator, attempt: int) -> LabelMap:
    """Rows x columns of equal tiles (to a pixel), numbered row by row."""
    middle = np.arange(side) + 0.5
    row, column = (np.minimum((middle * n / side).astype(np.uint8), n - 1) for n in (layout.rows, layout.columns))
    return np.asarray(row[:, None] * np.uint8(layout.columns) + column[None], np.uint8)


def _lines(layout: Layout, side: int, rng: np.random.Generator, attempt: int) -> LabelMap:
    """Straight cuts, half of them along the image's axes: each divides the largest cell at 0.3 to 0.7 of its area."""
    y, x = _pixels(side)
    labels = np.zeros((side, side), np.uint8)
    areas = [side * side]
    step = 1 + side // _SAMPLE
    for cell in range(1, layout.cells):
        largest = int(np.argmax(areas))
        inside = labels == largest
        wide = np.ptp(np.flatnonzero(inside.any(0))) >= np.ptp(np.flatnonzero(inside.any(1)))
        angle = (0 if wide else np.pi / 2) + (rng.uniform(-np.pi / 3, np.pi / 3) if rng.random() < _SLANTED else 0)
        across = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
        share = rng.uniform(0.3, 0.7)
        inside &= across > np.quantile(across[::step, ::step][inside[::step, ::step]], share).astype(np.float32)
        np.copyto(labels, np.uint8(cell), where=inside)
        areas.append(int(np.count_nonzero(inside)))
        areas[largest] -= areas[cell]
    return labels


def _voronoi(layout: Layout, side: int, rng: np.random.Generator, attempt: int) -> LabelMap:
    """Cells of the nearest of P scattered points."""
    y, x = _pixels(side)
    return _nearest(_scattered(layout.cells, side, rng), x, y)


def _curved(layout: Layout, side: int, rng: np.random.Generator, attempt: int) -> LabelMap:
    """Voronoi cells seen through a smooth displacement of the plane; each further attempt bends less."""
    y, x = _pixels(side)
    bend = np.float32(_BEND * side * 0.8**attempt)
    points = _scattered(layout.cells, side, rng)
    return _nearest(points, x + bend * _smooth(side, rng), y + bend * _smooth(side, rng))


def _pixels(side: int) -> tuple[FloatArray, FloatArray]:
    """Row numbers float32 (side, 1) and column numbers (1, side)."""
    numbers = np.arange(side, dtype=np.float32)
    return numbers[:, None], numbers[None]


def _scattered(count: int, side: int, rng: np.random.Generator) -> FloatArray:
    """Points (count, 2), each the one of ten random candidates that is farthest from the points before it.

    Mitchell 1991, "Spectrally optimal sampling for distribution ray tracing" (best candidate).
    """
    points = rng.uniform(0, side, (1, 2))
    for _ in range(count - 1):
        candidates = rng.uniform(0, side, (10, 2))
        gaps = np.linalg.norm(candidates[:, None] - points[None], axis=2).min(1)
        points = np.vstack([points, candidates[gaps.argmax()]])
    return points.astype(np.float32)


def _nearest(points: FloatArray, x: FloatArray, y: FloatArray) -> LabelMap:
    """The index of the nearest point for each (x, y), uint8 of the shape to which they broadcast."""
    shape = np.broadcast_shapes(x.shape, y.shape)
    labels, highest = np.zeros(shape, np.uint8), np.full(shape, -np.inf, np.float32)
    for index, (px, py) in enumerate(points):
        near = x * px + (y * py - (px * px + py * py) / 2)  # (x^2 + y^2 - squared distance) / 2
        np.copyto(labels, np.uint8(index), where=near > highest)
        np.maximum(highest, near, out=highest)
    return labels


def _smooth(side: int, rng: np.random.Generator) -> FloatArray:
    """A smooth random field float32 (side, side), about -1..1."""
    knots = rng.uniform(-1, 1, (_KNOTS, _KNOTS)).astype(np.float32)
    return np.asarray(cv2.resize(knots, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


LAYOUTS: dict[str, Callable[[Layout, int, np.random.Generator, int], LabelMap]] = {
    "grid": _grid,
    "lines": _lines,
    "voronoi": _voronoi,
    "curved": _curved,
}
"""From a layout, a side, a generator and the number of the attempt to labels (side, side)."""
