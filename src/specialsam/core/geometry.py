"""The only code that knows about frames: original pixels, model pixels, low-res logits.

A SAM image encoder sees a square of side S. The original image (height, width) is scaled so that its longest side is S,
placed in the upper left corner, and padded right and bottom with zeros (Kirillov et al. 2023, "Segment Anything",
`ResizeLongestSide`); for SAM 2 and 3 it is stretched to the whole square instead. The embedding is a grid of cells on
that square, and the mask decoder answers with logits on a grid L four times as fine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from math import gcd
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from specialsam.core.errors import DataError

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csc_array

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
ImageArray = npt.NDArray[np.uint8]
"""An image, uint8 (H, W, 3) in RGB, rows from the top and columns from the left."""
LabelArray = npt.NDArray[np.integer]
PixelArray = npt.NDArray[np.bool_ | np.number]
"""Values as a file holds them, of whatever type and depth."""

CELL_LOGITS = 4
"""Low-res logits along a side of an embedding's cell, the same for every SAM."""


@dataclass(frozen=True)
class Geometry:
    """Frames of one image: `height` x `width` original pixels seen by a model of side `side`.

    `cell` is the side of an embedding's cell in model pixels (16; SAM 3 has 14, so that a logit covers 3.5),
    `stretched` whether the image fills the square. Points are (x, y) and boxes (x0, y0, x1, y1) in pixels; arrays are
    indexed [y, x].
    """

    height: int
    width: int
    side: int
    cell: int = 16
    stretched: bool = False

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise DataError(f"expected an image of at least 1x1 pixels, got {self.height}x{self.width}")
        if self.cell < 1 or self.side < 1 or self.side % self.cell:
            raise DataError(f"expected a model side that is a positive multiple of {self.cell}, got {self.side}")

    @property
    def resized(self) -> tuple[int, int]:
        """(height, width) of the scaled image inside the model's square, at least 1 each."""
        if self.stretched:
            return self.side, self.side
        scale = self.side / max(self.height, self.width)
        return max(1, int(self.height * scale + 0.5)), max(1, int(self.width * scale + 0.5))

    @property
    def logits_side(self) -> int:
        """Side L of the low-res logits."""
        return self.side // self.cell * CELL_LOGITS

    @property
    def logits_stride(self) -> float:
        """Model pixels along a side of a low-res logit."""
        return self.cell / CELL_LOGITS

    @property
    def _factors(self) -> FloatArray:
        height, width = self.resized
        return np.array([width / self.width, height / self.height], np.float32)

    def points_to_model(self, points: npt.ArrayLike) -> FloatArray:
        """Original-pixel points (..., 2) to model pixels, float32 of the same shape."""
        return (np.asarray(points, np.float32) * self._factors).astype(np.float32)

    def points_to_original(self, points: npt.ArrayLike) -> FloatArray:
        """Model-pixel points (..., 2) back to original pixels, float32 of the same shape."""
        return (np.asarray(points, np.float32) / self._factors).astype(np.float32)

    def boxes_to_model(self, boxes: npt.ArrayLike) -> FloatArray:
        """Original-pixel boxes (..., 4) to model pixels, float32 of the same shape."""
        array = np.asarray(boxes, np.float32)
        return self.points_to_model(array.reshape(*array.shape[:-1], 2, 2)).reshape(array.shape)

    def boxes_to_original(self, boxes: npt.ArrayLike) -> FloatArray:
        """Model-pixel boxes (..., 4) back to original pixels, float32 of the same shape."""
        array = np.asarray(boxes, np.float32)
        return self.points_to_original(array.reshape(*array.shape[:-1], 2, 2)).reshape(array.shape)

    def image_to_model(self, image: ImageArray) -> ImageArray:
        """Scale a uint8 (height, width, 3) image to (*resized, 3), bilinear, antialiased; unpadded.

        By PIL as SAM does; where the image is stretched by torch as transformers does for SAM 2 and 3 (they agree to a
        grey level, and Meta's own code, which does not round, to another).
        """
        if image.shape[:2] != (self.height, self.width):
            raise DataError(f"expected an image of {self.height}x{self.width}, got {image.shape[0]}x{image.shape[1]}")
        height, width = self.resized
        if (height, width) == (self.height, self.width):
            return image
        if self.stretched:
            return _scaled_by_torch(image, height, width)
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))

    @property
    def logits_extent(self) -> tuple[float, float]:
        """(height, width) of the image within the logits frame, in logits (fractions allowed)."""
        height, width = self.resized
        return height / self.logits_stride, width / self.logits_stride

    def valid_logits(self) -> FloatArray:
        """Share of each low-res logit that lies on the image and not on padding, float32 (L, L) in 0..1."""
        height, width = self.logits_extent
        grid = np.arange(self.logits_side, dtype=np.float32)
        rows = np.clip(height - grid, 0, 1)
        columns = np.clip(width - grid, 0, 1)
        return np.outer(rows, columns).astype(np.float32)

    def masks_to_logits(self, masks: BoolArray) -> FloatArray:
        """Coverage of each low-res logit by bool masks (P, height, width): float32 (P, L, L) in 0..1, 0 on padding.

        Coverage is the foreground's share of that part of a logit which lies on the image, so that an object at the
        padded border counts in full there; `valid_logits` says how large that part is.
        """
        return self.values_to_logits(masks)

    def values_to_logits(self, values: npt.NDArray[np.bool_ | np.float32]) -> FloatArray:
        """Means of values (P, height, width) over that part of each low-res logit (P, L, L) which lies on the image."""
        if values.shape[1:] != (self.height, self.width):
            raise DataError(f"expected masks of {self.height}x{self.width}, got {values.shape[1]}x{values.shape[2]}")
        rows, columns = _logits_operators(self)
        out = np.zeros((len(values), self.logits_side, self.logits_side), np.float32)
        for plane, answer in zip(values, out, strict=True):
            where = bounding_slices(plane)
            if where is not None:  # what is 0 adds nothing
                across = rows[:, where[0]] @ plane[where].astype(np.float32)
                answer[:] = (columns[:, where[1]] @ across.T).T
        return out

    def masks_to_logits_on(self, masks: BoolArray, device: torch.device) -> torch.Tensor:
        """`masks_to_logits` of (P, height, width) as a tensor (P, L, L), computed on `device`: two products for all."""
        import torch

        if device.type == "cpu":
            return torch.from_numpy(self.masks_to_logits(masks))
        rows, columns = (torch.from_numpy(each.toarray()).to(device) for each in _logits_operators(self))
        return rows @ torch.from_numpy(masks).to(device).float() @ columns.T

    def logits_to_original(self, logits: torch.Tensor) -> torch.Tensor:
        """Low-res logits (P, C, L, L) to original pixels (P, C, height, width), bilinear.

        In two steps by way of the model's frame as SAM does, in one where the image was stretched, as SAM 2 and 3 do.
        """
        import torch.nn.functional as functional

        if logits.ndim != 4 or logits.shape[2] != logits.shape[3]:
            raise DataError(f"expected square low-res logits (P, C, L, L), got {tuple(logits.shape)}")
        if not len(logits):
            return logits.new_zeros((0, logits.shape[1], self.height, self.width))
        if self.stretched:
            return functional.interpolate(
                logits.float(), (self.height, self.width), mode="bilinear", align_corners=False
            )
        height, width = self.resized
        square = functional.interpolate(logits.float(), (self.side, self.side), mode="bilinear", align_corners=False)
        shown = square[..., :height, :width]
        if self.resized == (self.height, self.width):
            return shown
        return functional.interpolate(shown, (self.height, self.width), mode="bilinear", align_corners=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain fields, for indexes and files; `Geometry(**d)` makes it again."""
        return asdict(self)


def _scaled_by_torch(image: ImageArray, height: int, width: int) -> ImageArray:
    import torch
    from torch.nn import functional

    planes = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    scaled = functional.interpolate(planes, (height, width), mode="bilinear", align_corners=False, antialias=True)
    return np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())


def bounding_slices(plane: npt.NDArray[np.bool_ | np.float32]) -> tuple[slice, slice] | None:
    """Rows and columns between the first and the last value (H, W) that is not 0; None where all are."""
    rows = np.flatnonzero(plane.any(1))
    if not len(rows):
        return None
    columns = np.flatnonzero(plane[rows[0] : rows[-1] + 1].any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


UNIT_VECTORS = 512
"""Unit vectors that are resized at once: 120 MB of them for a side of 60,000 pixels."""


@lru_cache(maxsize=64)
def _logits_operators(frame: Geometry) -> tuple[csc_array, csc_array]:
    """Sparse matrices (L, height) and (L, width) that take a plane of an image to means over each low-res logit.

    Resizing to the model's frame and averaging blocks of it are linear and separable: what OpenCV makes of unit vectors
    along one axis is the matrix of that axis. Each row is divided by the share of its logits that lies on the image.
    Where a logit covers no whole number of model pixels, these are first repeated until it does.
    """
    from scipy.sparse import csc_array, hstack

    resized, side = frame.resized, frame.logits_side
    repeats = CELL_LOGITS // gcd(frame.cell, CELL_LOGITS)
    found = []
    for length, inside, extent in zip((frame.height, frame.width), resized, frame.logits_extent, strict=True):
        shrinks = inside <= length if frame.stretched else resized[0] <= frame.height
        mode = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        valid = np.clip(extent - np.arange(side, dtype=np.float32), 0, 1)[:, None]
        parts = []
        for start in range(0, length, UNIT_VECTORS):  # a long side has too many of them for one matrix
            units = np.eye(length, min(UNIT_VECTORS, length - start), -start, dtype=np.float32)
            padded = np.zeros((frame.side, units.shape[1]), np.float32)
            padded[:inside] = cv2.resize(units, (units.shape[1], inside), interpolation=mode)
            blocks = padded.repeat(repeats, 0).reshape(side, -1, units.shape[1]).mean(1)
            parts.append(csc_array(np.divide(blocks, valid, out=np.zeros_like(blocks), where=valid > 0)))
        found.append(csc_array(hstack(parts)))
    return found[0], found[1]
