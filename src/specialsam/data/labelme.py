"""labelme's and X-AnyLabeling's JSON files: `x.jpg` + `x.json`, or the JSON files in a folder of their own.

Licence and citation: unknown to the product, the data are yours. The format: github.com/wkentaro/labelme.

Polygons, circles and masks are objects; polygons of one label and one `group_id` are one object. Rectangles are boxes
and no masks, points and lines enclose nothing. An image without a JSON is unlabelled, one with an empty list of shapes
is labelled as empty.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Record
from specialsam.data.coco_content import integer, text_of
from specialsam.data.drawn import Drawing, begin, finish, head_of, number, read_object, shown
from specialsam.data.folder import described
from specialsam.data.image_index import Ambiguous, ImageIndex, parts_of_name
from specialsam.data.images import decoded
from specialsam.data.mask_values import label_map
from specialsam.data.pairs import DUPLICATE, MISSING, SIZE, UNREADABLE, Found, add_pair

LAYOUT = "x.jpg + x.json with shapes (labelme, X-AnyLabeling)"
_SHAPES = re.compile(r'"shapes"\s*:\s*\[')
NOTHING = ("__ignore__", "_background_")
"""Labels that labelme keeps for what is no object."""
BOXES = ("rectangle", "rotation", "quadrilateral", "cuboid")
MOST_LOOKED = 50
PLACES = ("images", "labels", "annotations")
"""Folders that are no categories."""


def _jsons(root: Path) -> list[Path]:
    """JSON files below `root` that hold shapes, in the order of their names."""
    files = sorted(path for path in root.rglob("*.json") if path.is_file() and not path.name.startswith("."))
    return [path for path in files if _has_shapes(path)]


def _has_shapes(path: Path) -> bool:
    head = head_of(path, 4096)
    if not head.lstrip().startswith("{"):
        return False
    if _SHAPES.search(head) is None and '"imageData"' in head:  # the picture itself comes first
        head = head_of(path, 1 << 28)
    return _SHAPES.search(head) is not None


def recognise(root: Path) -> bool:
    """True if one of the first JSON files below `root` holds shapes."""
    files = sorted(path for path in root.rglob("*.json") if path.is_file())[:MOST_LOOKED]
    return any(_has_shapes(path) for path in files)


def load_labelme(root: Path) -> Dataset:
    """Read every JSON with its image; images without one are unlabelled."""
    files = _jsons(root)
    if not files:
        raise DataError(f"{root}: expected {LAYOUT}, found no such files")
    reader = _Reader(root, ImageIndex(root, root / files[0].name, None))
    for path in sorted(files, key=lambda path: not reader.index.of_stem(path.stem)):  # a copy gives way to the first
        reader.add_file(path)
    reader.add_unlabelled()
    found, notes = reader.found, (f"read {len(files)} JSON files of shapes",)
    return Dataset(root.name, root, "labelme", tuple(found.records), tuple(found.problems), notes=notes)


@dataclass
class _Reader:
    """The records of a folder's JSON files, as they come.

    `used` are images that a JSON speaks of, `counted` those of which one was read.
    """

    root: Path
    index: ImageIndex
    found: Found = field(default_factory=Found)
    used: set[Path] = field(default_factory=set)
    counted: set[Path] = field(default_factory=set)

    def add_file(self, path: Path) -> None:
        """Add the image of one JSON with its shapes."""
        try:
            content = read_object(path, "a JSON of labelme")
        except DataError as error:
            self.found.problem(path, UNREADABLE, str(error))
            return
        if not isinstance(content, dict):
            return
        image = self._image(path, text_of(content.get("imagePath")))
        if image is None:
            message = (
                f"{path}: expected its image {shown(content.get('imagePath'))} or one of the same name, found none"
            )
            self.found.problem(path, MISSING, message)
            return
        if image in self.counted:
            message = f"{path}: {image.name} has another JSON already, which counts; keep one of them an image"
            self.found.problem(path, DUPLICATE, message)
            return
        self.used.add(image)
        drawing = begin(self.found, image)
        if drawing is None or not _fits(self.found, image, content, drawing):
            return
        _draw_all(drawing, content.get("shapes"))
        split, category = described(self._stem(image), None)
        before = len(self.found.records)
        finish(self.found, self._stem(image), image, drawing, split, "" if category in PLACES else category)
        if len(self.found.records) > before:
            self.counted.add(image)

    def add_unlabelled(self) -> None:
        """Add the images that no JSON speaks of."""
        for image in sorted(path for paths in self.index.paths.values() for path in paths):
            if image not in self.used:
                record = Record(self._stem(image), image, split=described(self._stem(image), None)[0])
                add_pair(self.found, record, without_mask="none")

    def _stem(self, image: Path) -> str:
        return image.relative_to(self.root).with_suffix("").as_posix()

    def _image(self, path: Path, name: str) -> Path | None:
        """The image of a JSON: as it says beside it or below the folder, else the one of the JSON's own name."""
        try:
            last = parts_of_name(name)[-1:]
            beside = [path.with_name(part) for part in last]
            named = [one for one in beside if one.is_file()]
            found = named[0] if named else self.index.find(name) if last else None
        except (Ambiguous, OSError, ValueError):
            found = None
        if found is not None:
            return found
        same = self.index.of_stem(path.stem)
        same = [one for one in same if one.parent == path.parent] or same
        return same[0] if len(same) == 1 else None


def _fits(found: Found, image: Path, content: Mapping[str, object], drawing: Drawing) -> bool:
    stated = integer(content.get("imageHeight")), integer(content.get("imageWidth"))
    height, width = (side or have for side, have in zip(stated, drawing.size, strict=True))
    if (height, width) == drawing.size:
        return True
    told = f"{height}x{width} (height x width) as annotated, got {drawing.size[0]}x{drawing.size[1]}"
    found.problem(image, SIZE, f"{image}: expected {told}")
    return False


def _draw_all(drawing: Drawing, shapes: object) -> None:
    groups: list[object] = []
    for shape in shapes if isinstance(shapes, list) else []:
        if isinstance(shape, dict) and text_of(shape.get("label")) not in NOTHING:
            before = len(drawing.masks)
            _draw(drawing, shape)
            groups += [shape.get("group_id")] * (len(drawing.masks) - before)
    drawing.joined(groups)


def _draw(drawing: Drawing, shape: Mapping[str, object]) -> None:
    """Draw one shape, or count it as a box or as something without an area."""
    kind, label, points = str(shape.get("shape_type") or "polygon"), text_of(shape.get("label")), _points(shape)
    if kind in BOXES:
        drawing.boxes += 1
    elif kind == "polygon":
        drawing.polygons([[value for point in points for value in point]], label)
    elif kind == "circle" and len(points) == 2:
        radius = float(np.hypot(points[1][0] - points[0][0], points[1][1] - points[0][1]))
        drawing.ellipse(points[0], (radius, radius), label)
    elif kind == "mask" and points:
        _draw_mask(drawing, shape.get("mask"), points[0], label)
    else:
        drawing.others += 1


def _points(shape: Mapping[str, object]) -> list[tuple[float, float]]:
    points = shape.get("points")
    out = []
    for point in points if isinstance(points, list) else []:
        x, y = (number(value) for value in point) if isinstance(point, list) and len(point) == 2 else (None, None)
        if x is not None and y is not None:
            out.append((x, y))
    return out


def _draw_mask(drawing: Drawing, text: object, corner: tuple[float, float], label: str) -> None:
    """Draw a mask that is a PNG in base64, laid with its first pixel on a corner."""
    try:
        pixels = decoded(base64.b64decode(text if isinstance(text, str) else "", validate=True))
    except (binascii.Error, ValueError, DataError):
        drawing.wrong.append("expected a mask as PNG in base64, got something else")
        return
    part = np.asarray(label_map(pixels) > 0, np.bool_)
    whole = np.zeros(drawing.size, np.bool_)
    left, top = round(corner[0]), round(corner[1])
    if left < 0 or top < 0:
        drawing.wrong.append("expected a mask that begins within the image")
        return
    space = whole[top : top + part.shape[0], left : left + part.shape[1]]
    space[:] = part[: space.shape[0], : space.shape[1]]
    drawing.mask(whole, label)
