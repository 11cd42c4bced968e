"""What was found in one image file, ready to be kept in a journal and written in any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.core.masks import RunLength, from_rles, tight_boxes, to_rle


@dataclass(frozen=True)
class FoundObject:
    """One object: its mask as COCO run-length, tight box (x0, y0, x1, y1) of the outermost pixels, inclusive.

    `score` in 0..1 is the probability that an object is there where it was found without a prompt, else the decoder's
    own estimate of the IoU. `label` and `source` (a detector's name, the row of a table) are what the prompt said.
    """

    rle: RunLength
    box: tuple[float, float, float, float]
    score: float
    label: str = ""
    source: str = ""


@dataclass(frozen=True)
class Answer:
    """One image file: its path relative to what was asked for (posix, printable), size (height, width), its objects.

    A file that failed has an `error` in one line and no objects; `size` is None where it could not be read. `taken`
    (ISO 8601, local time as the camera wrote it), `latitude` and `longitude` (degrees) are EXIF's, where it has them.
    """

    file: str
    size: tuple[int, int] | None = None
    objects: tuple[FoundObject, ...] = ()
    error: str = ""
    taken: str = ""
    latitude: float | None = None
    longitude: float | None = None
    beside: tuple[FoundObject, ...] = ()
    """What the base answers to the same prompts, where it was asked: one object each, in the order of `objects`."""

    def masks(self) -> BoolArray:
        """bool (P, H, W); (0, 0, 0) where the size is not known."""
        height, width = self.size or (0, 0)
        return from_rles([found.rle for found in self.objects], height, width)

    @property
    def best(self) -> float:
        """The highest score, 0 where nothing was found."""
        return max((found.score for found in self.objects), default=0.0)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, from which `read` makes the same answer."""
        return asdict(self)

    @classmethod
    def read(cls, kept: dict[str, Any]) -> Answer:
        size = None if kept["size"] is None else (int(kept["size"][0]), int(kept["size"][1]))
        objects, beside = (tuple(_object(one) for one in kept[name]) for name in ("objects", "beside"))
        return replace(cls(kept["file"]), **{**kept, "size": size, "objects": objects, "beside": beside})


def _object(kept: dict[str, Any]) -> FoundObject:
    return FoundObject(**{**kept, "box": tuple(kept["box"])})


def surest_first(masks: BoolArray, scores: FloatArray) -> list[int]:
    """Places of masks (P, H, W) that are not empty, by falling score (P,)."""
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    return [int(place) for place in order if masks[place].any()]


def objects_of(
    masks: BoolArray,
    scores: FloatArray,
    places: Sequence[int],
    labels: Sequence[str] = (),
    sources: Sequence[str] = (),
) -> tuple[FoundObject, ...]:
    """The masks (P, H, W) at `places` as objects, in that order; an empty one has the box (0, 0, 0, 0)."""
    return tuple(
        FoundObject(
            to_rle(masks[place]),
            _box(masks[place]),
            float(scores[place]),
            labels[place] if labels else "",
            sources[place] if sources else "",
        )
        for place in places
    )


def _box(mask: BoolArray) -> tuple[float, float, float, float]:
    if not mask.any():
        return 0.0, 0.0, 0.0, 0.0
    x0, y0, x1, y1 = (float(side) for side in tight_boxes(mask[None])[0])
    return x0, y0, x1, y1
