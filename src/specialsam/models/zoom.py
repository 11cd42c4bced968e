"""A second look: the region around a first answer, encoded at the model's full side and decoded again.

A SAM answers on a grid of a quarter of its side, so that what is small or thin in the picture does not exist in its
answer. Where the first answer (or the box of the prompt) says where the object is, its surroundings can be cut out,
scaled to the model's side and asked again; the second answer is put back into the frame of the picture. It costs one
encoder pass an object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from specialsam.core.geometry import BoolArray, FloatArray, Geometry, ImageArray
from specialsam.core.masks import tight_boxes
from specialsam.core.types import Embedding, Prediction, Prompts
from specialsam.core.windows import Window, moved
from specialsam.models.segmenter import Segmenter

MARGIN, CLICK_MARGIN = 0.35, 1.0
"""Room on each side of the prompt's box, or of the answer to clicks (which may be a part of the object), as a share of
the longer side."""
LEAST = 1.3
"""Magnification below which a second look shows nothing new: the first answer stays."""
MOST = 4.0
"""Enlargement of the picture's own pixels to which a second look goes at most."""
FAINT = 1e-4
"""Probability from which an answer counts as sure: mask prompts are finite."""
BATCH = 4
"""Regions encoded at once."""


@dataclass(frozen=True)
class Zoomed:
    """Second answers for P objects: `probabilities` float32 (P, H, W) in original pixels, own `scores` (P,).

    `encodes` counts the encoder passes that they took: objects whose first answer stays took none.
    """

    probabilities: FloatArray
    scores: FloatArray
    encodes: int

    def masks(self) -> BoolArray:
        """bool (P, H, W)."""
        return self.probabilities > 0.5


def zoom(segmenter: Segmenter, image: ImageArray, prompts: Prompts, first: Prediction) -> Zoomed:
    """The answers to `prompts` after a second look at `image`; `first` (P, C, L, L) are those without one.

    Of several masks an object the one with the best own score is taken. The region is asked by the prompt's own part of
    it, the first answer as mask prompt, and for clicks its box; clicks that lie outside are left out.
    """
    best = first.best() if first.logits.shape[1] > 1 else first
    soft = best.probabilities()[:, 0]
    scores = np.asarray(best.scores[:, 0].numpy(), np.float32).copy()
    regions = [region(mask > 0.5, prompts[[place]], segmenter.side) for place, mask in enumerate(soft)]
    looks = [(place, window) for place, window in enumerate(regions) if window is not None]
    for place, window, embedding in _encoded(segmenter, image, looks):
        answer = segmenter.decode(embedding, _again(prompts[[place]], soft[place], window, embedding.geometry))
        soft[place] = 0
        soft[place][window.slices] = answer.probabilities()[0, 0]
        scores[place] = float(answer.scores[0, 0])
    return Zoomed(soft, scores, len(looks))


def region(mask: BoolArray, prompt: Prompts, side: int) -> Window | None:
    """Where to look again for one object with first answer `mask` (H, W): None where it is seen well already.

    The window holds the box of the prompt, or the piece of the answer on which its foreground clicks lie, with a
    margin on each side; it is a square where the picture has room.
    """
    height, width = mask.shape
    extent = _extent(mask, prompt)
    if extent is None:
        return None
    x0, y0, x1, y1 = extent
    longer = max(x1 - x0, y1 - y0)
    margin = CLICK_MARGIN if prompt.boxes is None else MARGIN
    across = max(longer * (1 + 2 * margin), side / MOST, 16)
    if max(height, width) / across < LEAST:
        return None
    return Window.around(((x0 + x1) / 2, (y0 + y1) / 2), across, (height, width))


def _extent(mask: BoolArray, prompt: Prompts) -> tuple[float, float, float, float] | None:
    """The box (x0, y0, x1, y1) that the prompt gives or its foreground clicks and the answer under them span."""
    if prompt.boxes is not None:
        x0, y0, x1, y1 = (float(value) for value in prompt.boxes[0])
        return x0, y0, x1, y1
    if prompt.points is None or prompt.labels is None:
        return None
    points = prompt.points[0][prompt.labels[0] == 1]
    if not len(points):
        return None
    low, high = points.min(0), points.max(0) + 1
    found = np.argwhere(piece_under(mask, points))
    if len(found):
        low, high = np.minimum(low, found.min(0)[::-1]), np.maximum(high, found.max(0)[::-1] + 1)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def piece_under(mask: BoolArray, points: FloatArray) -> BoolArray:
    """The connected pieces of a mask (H, W) on which any of `points` (K, 2) lies; all of it where none does."""
    import cv2

    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    columns = np.clip(points[:, 0].astype(int), 0, mask.shape[1] - 1)
    rows = np.clip(points[:, 1].astype(int), 0, mask.shape[0] - 1)
    under = set(labels[rows, columns].tolist()) - {0}
    return np.isin(labels, list(under)) if under else mask


def _again(prompt: Prompts, soft: FloatArray, window: Window, geometry: Geometry) -> Prompts:
    """What is asked in a window about one object whose first answer was `soft` (H, W): in the window's frame."""
    part = moved(prompt, window)
    if part is None:  # a box of one pixel's width, which a region holds although it has no area
        assert prompt.boxes is not None, "a region holds what it was made from"
        part = replace(prompt, boxes=window.clip_boxes(prompt.boxes))
    seen = np.clip(soft[window.slices], FAINT, 1 - FAINT)
    logits = geometry.values_to_logits(np.log(seen / (1 - seen))[None])
    boxes = part.boxes
    if boxes is None and (found := seen > 0.5).any():
        boxes = tight_boxes(found[None])
    return replace(part, boxes=boxes, masks=logits)


def _encoded(
    segmenter: Segmenter, image: ImageArray, looks: list[tuple[int, Window]]
) -> Iterator[tuple[int, Window, Embedding]]:
    for start in range(0, len(looks), BATCH):
        some = looks[start : start + BATCH]
        embeddings = segmenter.encode_batch([np.ascontiguousarray(image[window.slices]) for _, window in some])
        for (place, window), embedding in zip(some, embeddings, strict=True):
            yield place, window, embedding
