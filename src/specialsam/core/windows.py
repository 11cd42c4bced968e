"""Windows: rectangles of whole pixels in a picture, and the overlapping tiles that cover one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from specialsam.core.errors import UsageError
from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.core.types import Prompts

Size = tuple[int, int]
"""(height, width) in pixels."""
SMALLEST = 16
"""Pixels of a tile's side at least."""


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of a picture: its upper left pixel and its size, all in whole pixels, at least 1 x 1."""

    top: int
    left: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or min(self.top, self.left) < 0:
            raise UsageError(f"expected a window of at least 1x1 pixels within its picture, got {self}")

    @classmethod
    def around(cls, centre: tuple[float, float], side: float, size: Size) -> Window:
        """A square of about `side` pixels around `centre` (x, y), moved and cut to lie within a picture of `size`."""
        height, width = (int(np.clip(round(side), 1, limit)) for limit in size)
        top = int(np.clip(round(centre[1] - height / 2), 0, size[0] - height))
        left = int(np.clip(round(centre[0] - width / 2), 0, size[1] - width))
        return cls(top, left, height, width)

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.height, self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, as an index of arrays (H, W, ...)."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    @property
    def corner(self) -> FloatArray:
        """The upper left pixel as (x, y), float32 (2,)."""
        return np.array([self.left, self.top], np.float32)

    def shared(self, other: Window) -> Window | None:
        """The part of the picture that lies in both, None where there is none."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom = min(self.top + self.height, other.top + other.height)
        right = min(self.left + self.width, other.left + other.width)
        return Window(top, left, bottom - top, right - left) if bottom > top and right > left else None

    def within(self, outer: Window) -> Window:
        """The same pixels in the frame of a window that holds them."""
        return Window(self.top - outer.top, self.left - outer.left, self.height, self.width)

    def holds(self, points: npt.ArrayLike) -> BoolArray:
        """Which of the points (..., 2) as (x, y) lie within: bool (...,)."""
        x, y = np.moveaxis(np.asarray(points, np.float32) - self.corner, -1, 0)
        return np.asarray((x >= 0) & (y >= 0) & (x < self.width) & (y < self.height))

    def clip_boxes(self, boxes: FloatArray) -> FloatArray:
        """Boxes (..., 4) in the window's own frame, cut at its border; those outside become empty."""
        low = np.concatenate([self.corner, self.corner])
        high = np.array([self.width, self.height] * 2, np.float32)
        return np.asarray(np.clip(boxes - low, 0, high), np.float32)


def moved(prompts: Prompts, window: Window) -> Prompts | None:
    """Prompts of one object in the frame of a window; None where nothing of them is left.

    Clicks outside of it are left out, boxes end at its border, and mask prompts, which belong to another frame, go.
    """
    points, labels, boxes = prompts.points, prompts.labels, prompts.boxes
    if points is not None and labels is not None:
        inside = window.holds(points[0])
        points, labels = (points[:, inside] - window.corner, labels[:, inside]) if inside.any() else (None, None)
    if boxes is not None:
        boxes = window.clip_boxes(boxes)
        if (boxes[:, 2:] - boxes[:, :2]).min() <= 0:
            boxes = None
    if points is None and boxes is None:
        return None
    return replace(prompts, points=points, labels=labels, boxes=boxes, masks=None)


def tiles(size: Size, side: int, overlap: float) -> list[Window]:
    """Windows of `side` pixels that cover a picture of `size`, row by row, neighbours sharing `overlap` of a side.

    They are spread evenly, so that all are of one size and the shared part may be wider; a picture that is smaller than
    a tile in a direction is one tile there. UsageError for an overlap outside 0 to 0.75 or a side below 16.
    """
    if side < SMALLEST or not 0 <= overlap <= 0.75:
        raise UsageError(
            f"expected tiles of at least {SMALLEST} px that share 0 to 0.75 of a side, got {side} and {overlap}"
        )
    rows, columns = (_starts(length, side, overlap) for length in size)
    height, width = min(side, size[0]), min(side, size[1])
    return [Window(top, left, height, width) for top in rows for left in columns]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if length <= side:
        return [0]
    count = int(np.ceil((length - side) / (side * (1 - overlap)))) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]
