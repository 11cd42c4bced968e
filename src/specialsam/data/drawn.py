"""Objects that annotation tools draw, to run lengths, and the record they make; shared by the readers of such tools."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from specialsam.core.documents import parse_json
from specialsam.core.errors import DataError
from specialsam.core.files import open_regular
from specialsam.core.geometry import BoolArray
from specialsam.core.masks import RunLength, from_rles
from specialsam.core.masks import to_rle as packed
from specialsam.core.types import Record, Split
from specialsam.data.coco_masks import to_rle
from specialsam.data.pairs import ANNOTATION, NO_MASK, Found, header

BOXES = "boxes, which are no masks: give them to `specialsam segment --prompts`"
ROUND = 48
"""Corners of the polygon that stands for a circle or an ellipse."""


@dataclass
class Drawing:
    """The objects of one image as they are read; `boxes` and `others` count shapes that enclose no drawn area."""

    size: tuple[int, int]
    masks: list[RunLength] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    boxes: int = 0
    others: int = 0
    wrong: list[str] = field(default_factory=list)

    def polygons(self, parts: Sequence[object], label: str, shares: bool = False) -> None:
        """One object of polygons [[x, y], ...] or [x, y, x, y, ...]."""
        try:
            self.masks.append(to_rle(list(parts), *self.size, shares=shares))
            self.labels.append(label)
        except DataError as error:
            self.wrong.append(str(error))

    def ellipse(self, centre: tuple[float, float], radii: tuple[float, float], label: str, turned: float = 0.0) -> None:
        """One object with the outline of an ellipse in pixels, `turned` clockwise about its centre by degrees."""
        along, angle = np.linspace(0, 2 * np.pi, ROUND, endpoint=False), np.deg2rad(turned)
        across, down = radii[0] * np.cos(along), radii[1] * np.sin(along)
        x = centre[0] + across * np.cos(angle) - down * np.sin(angle)
        points = np.stack([x, centre[1] + across * np.sin(angle) + down * np.cos(angle)], 1)
        self.polygons([points.ravel().tolist()], label)

    def mask(self, mask: BoolArray, label: str) -> None:
        """One object of pixels (H, W)."""
        if mask.shape != self.size:
            height, width = self.size
            self.wrong.append(f"expected a mask of {height}x{width} (height x width), got {mask.shape}")
        elif mask.any():
            self.masks.append(packed(mask))
            self.labels.append(label)
        else:
            self.wrong.append("the object covers no pixel of the image")

    def joined(self, groups: Sequence[object]) -> None:
        """Make one object of the masks that share a group (and a label), None for those on their own."""
        merged: dict[object, int] = {}
        masks: list[RunLength] = []
        labels: list[str] = []
        for mask, label, group in zip(self.masks, self.labels, groups, strict=True):
            key = None if group is None else (label, str(group))
            if key is not None and key in merged:
                both = from_rles([masks[merged[key]], mask], *self.size)
                masks[merged[key]] = packed(np.asarray(both.any(0), np.bool_))
                continue
            if key is not None:
                merged[key] = len(masks)
            masks.append(mask)
            labels.append(label)
        self.masks, self.labels = masks, labels


def begin(found: Found, image: Path) -> Drawing | None:
    """An empty drawing of an image's size; None, and a problem, where it cannot be read."""
    size = header(image, found)
    return None if size is None else Drawing(size)


def finish(found: Found, id: str, image: Path, drawing: Drawing, split: Split | None, category: str = "") -> None:
    """Add the record of a drawing: labelled as empty where nothing was drawn, a problem where nothing was usable."""
    for reason in drawing.wrong:
        found.problem(image, ANNOTATION, f"{image}: a shape was left out: {reason}")
    if drawing.boxes:
        found.problem(image, ANNOTATION, f"{image}: {drawing.boxes} shapes are {BOXES}")
    if drawing.others:
        found.problem(image, ANNOTATION, f"{image}: {drawing.others} shapes are points or lines, which enclose no area")
    if not drawing.masks and (drawing.wrong or drawing.boxes or drawing.others):
        found.problem(image, NO_MASK, f"{image}: none of its shapes is a usable mask")
        return
    labels = tuple(drawing.labels)
    most = Counter(labels).most_common(1)[0][0] if labels else ""
    masks = tuple(drawing.masks)
    found.record(
        Record(id, image, None, "rle", masks, labels, category or most, split=split),
    )


def read_object(path: Path, what: str) -> object:
    """What a JSON file of a tool holds; DataError in one line."""
    try:
        with open_regular(path) as file:
            return parse_json(file.read().decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected {what}, cannot read it ({error})") from error


def head_of(path: Path, size: int = 65_536) -> str:
    """The beginning of a text file; "" for one that cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(size).decode("utf-8-sig", "replace")
    except (OSError, DataError):
        return ""


def number(value: object) -> float | None:
    """A finite number, None for anything else."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
    return float(value) if good else None  # type: ignore[arg-type]


def shown(value: object) -> str:
    """A value for a message, short."""
    return json.dumps(value, default=str)[:60]
