"""The newest picture with its marks, and the newest numbers, in two small files: for whoever watches the line."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from specialsam.apps.line.decision import Judged
from specialsam.apps.line.snapshots import marked_jpeg
from specialsam.core.console import complain
from specialsam.core.errors import SpecialSamError
from specialsam.core.files import write_whole
from specialsam.core.geometry import ImageArray
from specialsam.core.masks import tight_boxes

PICTURE, NUMBERS = "live.jpg", "live.json"
EVERY = 0.25
"""Seconds between two pictures that are shown."""
LONGEST = 960
"""Pixels of the longer side of what is shown."""


@dataclass
class Live:
    """Writes into an inspection's folder, seldom; where it cannot be written the line goes on."""

    out: Path
    at: float = -EVERY
    blind: bool = False

    def due(self) -> bool:
        """Whether it is time for another picture."""
        return time.monotonic() - self.at >= EVERY

    def show(self, image: ImageArray, judged: Judged, threshold: float, numbers: Mapping[str, float]) -> None:
        """A picture uint8 (H, W, 3) with what alarms in it, and the numbers of the line."""
        self.at = time.monotonic()
        try:
            packed = marked_jpeg(*_shown(image, judged, threshold))
            write_whole(self.out / PICTURE, lambda path: path.write_bytes(packed))
            text = json.dumps({"at": time.time(), "threshold": threshold, "score": judged.score, **numbers})
            write_whole(self.out / NUMBERS, lambda path: path.write_text(text + "\n"))
            self.blind = False
        except SpecialSamError as error:
            if not self.blind:
                complain(f"{error}; the line goes on without its live picture")
            self.blind = True


def _shown(image: ImageArray, judged: Judged, threshold: float) -> tuple[ImageArray, list[tuple[float, ...]]]:
    """The picture no larger than is shown, and boxes (x0, y0, x1, y1) in it of what alarms."""
    masks = [mask for mask, score in zip(judged.masks, judged.scores, strict=True) if score >= threshold and mask.any()]
    boxes = tight_boxes(np.stack(masks)) + np.array([0, 0, 1, 1]) if masks else np.zeros((0, 4))
    scale = min(1.0, LONGEST / max(image.shape[:2]))
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return image, [tuple(float(side) for side in box) for box in boxes * scale]
