"""Do prompts lie where they should, in original pixels? If not: swapped, or in the frame of a scaled image?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from specialsam.advice.checks.data_checks import named
from specialsam.advice.subject import Subject
from specialsam.core.findings import Finding
from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.core.masks import tight_boxes
from specialsam.core.randomness import generator
from specialsam.core.types import Record

POINTS = ("interior", "random", "points3", "edge")
"""Strategies whose points must lie in their object; `center_of_mass` may miss it."""
BOXES = ("box", "box_point")
IMAGES, OBJECTS = 40, 6
"""Images and objects an image that prompts are drawn for."""
MISSES = 0.02
"""Share of prompts off their object beyond which something is wrong; the strategies of `prompts.draw` have none."""
BOX_OFF = 1.5
"""Pixels by which a side of a box may differ from the tight box."""
ROUND_TRIP = 0.5
"""Pixels by which a point may move on its way to the model's frame and back."""
FRAMES = (256, 512, 1024)
"""Frames that points are commonly left in by mistake: the longest side scaled to this."""
EXPLAINED = 0.9
"""Share of prompts that an explanation must put right."""
FIXED_IMAGES, FIXED_PLACES, FIXED_SHARE = 8, 4, 0.9
"""Prompts are fixed where, over at least 8 images, 4 places hold this share of the first points."""


Change = Callable[[FloatArray, tuple[int, int]], FloatArray]
"""Coordinates (N, 2) of an image of size (height, width) to others."""


@dataclass(frozen=True)
class Drawn:
    """One object's prompt: the mask bool (H, W) it is for, its foreground points float32 (K, 2), and its image.

    `box` is float32 (4,), or None where the strategy has none.
    """

    strategy: str
    file: str
    id: str
    mask: BoolArray
    points: FloatArray
    box: FloatArray | None

    def right(self, change: Change | None = None) -> list[bool]:
        """Whether each point lies in the object, and the box is its tight box, after `change` of coordinates (N, 2)."""
        height, width = self.mask.shape
        size = (height, width)
        points = self.points if change is None else change(self.points, size)
        out = [_holds(self.mask, x, y) for x, y in points]
        if self.box is not None:
            corners = self.box.reshape(2, 2) if change is None else change(self.box.reshape(2, 2), size)
            off = float(np.abs(np.sort(corners, axis=0).ravel() - tight_boxes(self.mask[None])[0]).max())
            out.append(off <= BOX_OFF)
        return out


def _holds(mask: BoolArray, x: float, y: float) -> bool:
    """Whether a point is in a mask, taken as a pixel's index or as a place half a pixel further."""
    height, width = mask.shape
    for column, row in ((round(x), round(y)), (int(x), int(y))):
        if 0 <= row < height and 0 <= column < width and mask[row, column]:
            return True
    return False


def draw_all(subject: Subject, seed: int = 0) -> list[Drawn]:
    """Prompts of all checked strategies on up to 40 evenly chosen images."""
    out = []
    for record in evenly(subject.of(), IMAGES):
        sample = subject.load(record)
        if not len(sample.masks):
            continue
        masks = sample.masks[:OBJECTS]
        for strategy in (*POINTS, *BOXES):
            rng = generator(seed, "audit", strategy, record.id)
            for indices, prompts in subject.draw(strategy, masks, rng):
                for row, index in enumerate(indices):
                    points = np.zeros((0, 2), np.float32)
                    if prompts.points is not None and prompts.labels is not None:
                        points = prompts.points[row][prompts.labels[row] == 1]
                    box = None if prompts.boxes is None else prompts.boxes[row]
                    out.append(Drawn(strategy, str(record.image), record.id, masks[index], points, box))
    return out


def evenly(records: Sequence[Record], most: int) -> list[Record]:
    """At most `most` records, evenly from the list."""
    if len(records) <= most:
        return list(records)
    return [records[i] for i in np.linspace(0, len(records) - 1, most).astype(np.int64)]


def prompt_frame(subject: Subject) -> Finding:
    """Prompts off their objects, with the reason where one explains it; prompts that are the same in every image."""
    check = "prompt frame"
    drawn = draw_all(subject)
    if not drawn:
        return Finding(check, "pass", "no image with an object to draw prompts for")
    hits = [(one, one.right()) for one in drawn]
    total = sum(len(right) for _, right in hits)
    wrong = sum(right.count(False) for _, right in hits)
    trip = _round_trip(subject, drawn)
    numbers: dict[str, float | int | str] = {"prompts": total, "off their object": wrong, "round trip in px": trip}
    text = f"{wrong} of {total} points and boxes are off the object they were drawn for"
    files = list(dict.fromkeys(one.file for one, right in hits if not all(right)))
    if trip > ROUND_TRIP:
        remedy = "convert points only through Geometry.points_to_model and points_to_original"
        return Finding(
            check, "fail", f"points move by {trip:.1f} px to the model's frame and back", numbers, (), remedy
        )
    if wrong > MISSES * total:
        reason, remedy = diagnose(drawn, subject.segmenter.side)
        return Finding(check, "fail", f"{text}; {reason}", numbers | {"reason": reason}, named(files), remedy)
    places = fixed_places(drawn)
    if places is not None:
        numbers |= {"places": places}
        remedy = "draw each prompt from the object's own mask, at random within it, instead of at fixed places"
        return Finding(
            check, "warn", f"all images get their first point at the same {places} places", numbers, (), remedy
        )
    return Finding(check, "pass", text, numbers)


def _round_trip(subject: Subject, drawn: Sequence[Drawn]) -> float:
    worst = 0.0
    for height, width in {one.mask.shape for one in drawn}:
        geometry = subject.segmenter.geometry((height, width))
        corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], np.float32)
        back = geometry.points_to_original(geometry.points_to_model(corners))
        worst = max(worst, float(np.abs(back - corners).max()))
    return worst


def _scaled(frame: int) -> Change:
    return lambda xy, size: np.asarray(xy * np.float32(max(size) / frame), np.float32)


def _times(factor: float) -> Change:
    return lambda xy, size: np.asarray(xy / np.float32(factor), np.float32)


def _swapped(xy: FloatArray, size: tuple[int, int]) -> FloatArray:
    return np.asarray(xy[:, ::-1], np.float32)


def _swapped_after(change: Change, xy: FloatArray, size: tuple[int, int]) -> FloatArray:
    return _swapped(change(xy, size), size)


def _mirrored(xy: FloatArray, size: tuple[int, int]) -> FloatArray:
    return np.stack([size[1] - 1 - xy[:, 0], xy[:, 1]], 1).astype(np.float32)


def diagnose(drawn: Sequence[Drawn], side: int) -> tuple[str, str]:
    """(reason, remedy) for prompts that are off: the first change of coordinates that puts nearly all of them right."""
    plain = _share(drawn, None)
    swap = "x and y are swapped", "points are (x, y) and boxes (x0, y0, x1, y1), while arrays are indexed [y, x]"
    into = "give points in pixels of the original image: the segmenter scales them itself"
    if _share(drawn, _swapped) >= EXPLAINED > plain:
        return swap
    for frame in dict.fromkeys((*FRAMES, side)):
        change = _scaled(frame)
        if _share(drawn, change) >= EXPLAINED:
            return f"they lie as if in the {frame} px frame", into
        if _share(drawn, partial(_swapped_after, change)) >= EXPLAINED:
            return f"they lie as if in the {frame} px frame and x and y are swapped", into
    if _share(drawn, _mirrored) >= EXPLAINED:
        return "x is mirrored", "mirror the prompts together with the image and the mask, or neither"
    boxes = [(one.box, tight_boxes(one.mask[None])[0]) for one in drawn if one.box is not None]
    drawn_by = np.concatenate([box for box, _ in boxes]) if boxes else np.zeros(0)
    tight = np.concatenate([truth for _, truth in boxes]) if boxes else np.zeros(0)
    factors = [float(drawn_by @ tight / (tight @ tight))] if len(tight) and float(tight @ tight) else []
    factors += [float(f) for f in np.geomspace(0.1, 10, 81)]
    best = max(factors, key=lambda factor: _share(drawn, _times(factor)))
    if _share(drawn, _times(best)) >= EXPLAINED:
        return f"all coordinates are scaled by {best:.2f}", into
    return "neither a swap nor a scale explains it", "draw the prompts from the masks again and lay them over an image"


def _share(drawn: Sequence[Drawn], change: Change | None) -> float:
    right = [hit for one in drawn for hit in one.right(change)]
    return sum(right) / len(right)


def fixed_places(drawn: Sequence[Drawn]) -> int | None:
    """The number of places that hold nearly all first points of `random`, None where they vary as they should."""
    first = {
        (one.id, index): tuple(np.round(one.points[0] / np.array(one.mask.shape[::-1]), 3).tolist())
        for index, one in enumerate(drawn)
        if one.strategy == "random" and len(one.points)
    }
    images = len({id for id, _ in first})
    if images < FIXED_IMAGES:
        return None
    common = Counter(first.values()).most_common(FIXED_PLACES)
    return len(common) if sum(count for _, count in common) >= FIXED_SHARE * len(first) else None
