"""The window of a picture on which a defect is painted, and the mask of exactly what was changed there."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.core.geometry import BoolArray, FloatArray, ImageArray
from specialsam.synth.defects.ground import Ground

SOLID = 0.25
"""Opacity from which a painted pixel is part of the defect, whatever its colour."""
SEEN = 3.0
"""Levels of 255, after a light blur, from which a change is part of the defect; a smaller one is taken back."""
SPECK = 4
"""Pixels that a separate piece of a defect has at least."""
PIECES, SHARE = 8, 0.02
"""Separate pieces that a defect has at most, and the share of the largest that each has at least."""
BLURRED = 0.3
"""Share of raised or sunken defects that lie out of the plane of focus, blurred more widely (depth of field)."""

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Defect:
    """A picture with a defect: `image` uint8 (H, W, 3), `mask` bool (H, W) of exactly the changed pixels, its kind."""

    image: ImageArray
    mask: BoolArray
    kind: str


def exact(clean: ImageArray, image: ImageArray, region: BoolArray, kind: str) -> Defect:
    """The defect that changes every pixel of `region` (H, W), and none beside it: one that stayed moves by a level."""
    rows, columns = np.nonzero(region)
    out = clean.copy()
    if len(rows):
        window = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
        before, inside = clean[window], region[window]
        after = np.where(inside[..., None], image[window], before)
        same = inside & (after == before).all(2)
        after[same] = np.where(before[same] < 128, before[same] + 1, before[same] - 1)
        out[window] = after
    return Defect(out, region, kind)


class Canvas:
    """A window of a picture, as float32 levels in `work` (h, w, 3), on which layers are put one after the other.

    All coordinates are (x, y) in pixels of the window, whose upper left corner is `origin` in the picture. `light` is
    the angle from which the light comes.
    """

    def __init__(
        self,
        image: ImageArray,
        ground: Ground,
        rng: np.random.Generator,
        around: Points,
        margin: float,
        flat: bool = False,
    ) -> None:
        """The part of `image` that holds the points `around`, (N, 2) in the picture, with a margin in pixels.

        What is `flat` lies in the picture's own plane and is as sharp as the picture.
        """
        height, width = image.shape[:2]
        low = np.clip(np.floor(around.min(0) - margin), 0, (width - 8, height - 8)).astype(int)
        high = np.clip(np.ceil(around.max(0) + margin) + 1, low + 8, (width, height)).astype(int)
        self.image, self.ground, self.rng = image, ground, rng
        self.origin = low.astype(np.float64)
        self._window = slice(low[1], high[1]), slice(low[0], high[0])
        self.clean = image[self._window].astype(np.float32)
        self.work = self.clean.copy()
        self.shape = self.work.shape[:2]
        self._solid = np.zeros(self.shape, np.float32)
        self.focus = float(rng.uniform(0.4, 0.8))
        if rng.random() < BLURRED and not flat:
            self.focus += float(rng.uniform(0.001, 0.003)) * min(height, width)
        self.light = float(rng.uniform(0, 2 * np.pi))

    @property
    def wires(self) -> FloatArray | None:
        """Where wires stand before a background, 0..1 (h, w)."""
        return None if self.ground.wires is None else self.ground.wires[self._window]

    @property
    def sun(self) -> Points:
        """Unit vector (2,) of x and y towards the light."""
        return np.array([np.cos(self.light), np.sin(self.light)])

    def grid(self) -> tuple[FloatArray, FloatArray]:
        """x (1, w) and y (h, 1) of the window's pixels."""
        return np.arange(self.shape[1], dtype=np.float32)[None], np.arange(self.shape[0], dtype=np.float32)[:, None]

    def lay(self, paint: npt.ArrayLike, alpha: FloatArray, focus: bool = True) -> None:
        """Put `paint` (levels that broadcast to (h, w, 3)) over the window with opacity `alpha` (h, w) 0..1.

        The lens blurs its edge (with `focus`), and out of the plane of focus the paint as well; the layer carries the
        picture's own grain, which no lens blurs.
        """
        alpha = np.clip(alpha, 0, 1).astype(np.float32)
        if focus:
            alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), self.focus), np.float32)
        grain = self.rng.standard_normal(self.shape, np.float32)
        grain = cv2.GaussianBlur(grain, (0, 0), 0.55) * np.float32(1.7 * self.ground.grain)
        layer = np.asarray(paint, np.float32)
        if focus and self.focus > 1 and layer.ndim > 1:
            whole = np.ascontiguousarray(np.broadcast_to(layer, self.work.shape))
            layer = np.asarray(cv2.GaussianBlur(whole, (0, 0), self.focus), np.float32)
        layer = np.asarray(layer + grain[..., None], np.float32)
        if self.ground.grey:
            layer = layer.mean(-1, keepdims=True)
        self.work += alpha[..., None] * (layer - self.work)
        self._solid = np.maximum(self._solid, alpha)

    def shade(self, factor: npt.ArrayLike) -> None:
        """Multiply the window by a factor that broadcasts to (h, w, 3): shadows, dyes, light."""
        light = np.asarray(factor, np.float32)
        if light.ndim == 2:
            light = light[..., None]
        if self.ground.grey:
            light = light.mean(-1, keepdims=True)
        self.work *= light

    def cast(self, cover: FloatArray, height: float, strength: float) -> None:
        """The shadow of a body that covers `cover` (h, w) and lies `height` pixels above the ground."""
        away = -self.sun * height
        move = np.array([[1, 0, away[0]], [0, 1, away[1]]], np.float32)
        moved = cv2.warpAffine(cover, move, (self.shape[1], self.shape[0]))
        contact = cv2.GaussianBlur(np.maximum(moved, cover), (0, 0), max(0.7, 0.5 * height))
        self.shade(1 - strength * contact)

    def move(self, dx: FloatArray, dy: FloatArray) -> None:
        """Fetch every pixel from (x + dx, y + dy), displacements (h, w) in pixels."""
        x, y = self.grid()
        maps = (x + dx).astype(np.float32), (y + dy).astype(np.float32)
        moved = cv2.remap(self.work, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        self.work = np.asarray(moved, np.float32)

    def finish(self, kind: str, region: BoolArray | None = None, seen: float = SEEN) -> Defect:
        """The picture with what was painted, and the mask of exactly the changed pixels.

        The mask is `region` (h, w), or where paint lies or a change of `seen` levels shows: the largest pieces.
        Everything outside of it is taken back; within it a pixel that is as before by chance is moved by one level.
        """
        mask = self._changed(seen) if region is None else region
        out, full = self.image.copy(), np.zeros(self.image.shape[:2], np.bool_)
        out[self._window] = np.clip(np.rint(self.work), 0, 255).astype(np.uint8)
        full[self._window] = mask
        return exact(self.image, out, full, kind)

    def _changed(self, seen: float) -> BoolArray:
        change = cv2.GaussianBlur(np.abs(self.work - self.clean).max(2), (0, 0), 0.8)
        found = ((self._solid >= SOLID) | (change >= seen)).astype(np.uint8)
        found = cv2.morphologyEx(found, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(found, connectivity=8)
        if count < 2:
            return np.zeros(self.shape, np.bool_)
        areas = stats[:, cv2.CC_STAT_AREA].copy()
        areas[0] = 0
        kept = np.zeros(count, np.bool_)
        kept[np.argsort(-areas, kind="stable")[:PIECES]] = True
        kept &= areas >= max(SPECK, SHARE * areas.max())
        return np.asarray(kept[labels], np.bool_)
