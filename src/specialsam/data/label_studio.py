"""Label Studio's JSON export (and its JSON-MIN): tasks with polygons and brush masks, beside the images.

Licence and citation: unknown to the product, the data are yours. The format of brush masks: label-studio-converter,
`brush.decode_rle`.

Polygons and ellipses are in percent of the sides; brush masks are run lengths of RGBA, whose alpha is the mask. Of
several annotations of one task the first that was not cancelled counts. Rectangles are boxes and no masks. A task
without a result is labelled as empty, one without an annotation is unlabelled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray
from specialsam.core.types import Dataset, Record
from specialsam.data.drawn import Drawing, begin, finish, head_of, number, read_object
from specialsam.data.headers import SUFFIXES
from specialsam.data.image_index import Ambiguous, ImageIndex, parts_of_name
from specialsam.data.pairs import DUPLICATE, MISSING, Found, add_pair, children

LAYOUT = "a Label Studio .json (a list of tasks) beside its images"
Entry = Mapping[str, object]
PARTS = ("polygonlabels", "brushlabels", "ellipselabels", "rectanglelabels", "keypointlabels", "labels")
OUTLINE = ("points", "rle", "x", "y", "width", "height", "radiusX", "radiusY", "rotation")
"""The fields of a result that say where its region lies."""
ANSWERS = ("", "choices", "textarea", "rating", "number", "taxonomy", "datetime", "relation")
"""Kinds of results that draw nothing."""
ELLIPSE = ("x", "y", "radiusX", "radiusY", "rotation")
_PREFIX = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""


def looks_like_tasks(path: Path) -> bool:
    """True for a JSON that is a list whose beginning speaks of annotations or drawn labels."""
    head = head_of(path)
    drawn = re.search(r'"(annotations|completions|polygonlabels|brushlabels|original_width)"\s*:', head)
    return head.lstrip().startswith("[") and drawn is not None


def _jsons(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    files = [path for path in children(root) if path.suffix.lower() == ".json" and path.is_file()]
    return [path for path in files if looks_like_tasks(path)]


def recognise(root: Path) -> bool:
    """True if a JSON of tasks lies in `root`."""
    return bool(_jsons(root))


def load_label_studio(root: Path) -> Dataset:
    """Read every task of every export; `root` may be an export itself."""
    files = _jsons(root)
    if not files:
        raise DataError(f"{root}: expected {LAYOUT}, found none")
    folder, found, several = (root.parent if root.is_file() else root), Found(), 0
    for path in files:
        tasks = read_object(path, "a list of Label Studio's tasks")
        if not isinstance(tasks, list):
            raise DataError(f"{path}: expected a list of Label Studio's tasks, got {type(tasks).__name__}")
        index = ImageIndex(folder, path, None)
        for task in tasks:
            if isinstance(task, dict):
                several += _add(found, folder, path, task, index)
    notes = [f"read {', '.join(path.name for path in files)}"]
    if root.is_dir() and (rest := index.unlisted(found)):
        notes.append(rest)
    if several:
        notes.append(f"{several} tasks have several annotations: the first one of each counts")
    return Dataset(folder.name, folder, "label_studio", tuple(found.records), tuple(found.problems), notes=tuple(notes))


def _add(found: Found, folder: Path, path: Path, task: Entry, index: ImageIndex) -> bool:
    """Add the image of a task; whether it has several annotations."""
    data = task.get("data")
    name = _picture(data if isinstance(data, dict) else task)
    image = find_picture(index, name)
    if image is None:
        near = index.nearest(name)
        hint = f"; the nearest is {near}" if near else ""
        found.problem(
            path.parent / (name or "unnamed"), MISSING, f"{path}: a task names the image {name!r}, found none{hint}"
        )
        return False
    id = image.relative_to(folder).with_suffix("").as_posix() if image.is_relative_to(folder) else image.stem
    if id in found.images:
        found.problem(image, DUPLICATE, f"{image}: {path.name} has a second task for it, the first counts")
        return False
    results, count = _results(task)
    if results is None:
        add_pair(found, Record(id, image), without_mask="none")
        return False
    drawing = begin(found, image)
    if drawing is not None:
        for outline, label in _regions(results):
            _draw(drawing, outline, label)
        finish(found, id, image, drawing, None)
    return count > 1


def _picture(data: Entry) -> str:
    """The image that a task's data name: the field `image`, else the first text that ends like one."""
    texts = [data.get("image"), *data.values()]
    names = [text for text in texts if isinstance(text, str) and _ending(text) in SUFFIXES]
    return names[0] if names else str(data.get("image") or "")[:200]


def _ending(text: str) -> str:
    return Path(text.rpartition("/")[2].partition("?")[0] if "?d=" not in text else text).suffix.lower()


def find_picture(index: ImageIndex, name: str) -> Path | None:
    """The file of a task: as it is called, or without what Label Studio has put before its name."""
    name = name if "?d=" in name else name.partition("?")[0]
    parts = parts_of_name(name)
    if not parts:
        return None
    try:
        return index.find(name) or index.find(_PREFIX.sub("", parts[-1]))
    except Ambiguous:
        return None


def _results(task: Entry) -> tuple[list[Entry] | None, int]:
    """The results of a task's first annotation, None where it has none, and how many annotations there are."""
    annotations = task.get("annotations", task.get("completions"))
    if isinstance(annotations, list):
        good = [one for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]
        if not good:
            return None, 0
        results = good[0].get("result")
        return [one for one in results if isinstance(one, dict)] if isinstance(results, list) else [], len(good)
    lists = [value for value in task.values() if _is_results(value)]
    if lists:
        return [{"value": one} for every in lists for one in every], 1
    return None, 0


def _is_results(value: object) -> TypeGuard[list[dict[str, object]]]:
    """Whether a field of a JSON-MIN task is its list of drawn regions."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and ("original_width" in one or "points" in one or "rle" in one) for one in value)
    )


def _regions(results: Sequence[Entry]) -> list[tuple[Entry, str]]:
    """Each region once: its outline and its label.

    Label Studio repeats a region's outline, under the same id, in every result about it: labels of a control of their
    own, and answers a region (choices, texts). Equal outlines of one id (JSON-MIN has none) are one region, unlike ones
    are several. A result without an outline names the regions of its id; where there are none, it is one of no use.
    """
    outlines: dict[tuple[str, str], Entry] = {}
    labels: dict[tuple[str, str], str] = {}
    bare: dict[str, str] = {}
    for result in results:
        value = result.get("value")
        if not isinstance(value, dict):
            continue
        outline = {name: value[name] for name in OUTLINE if name in value}
        if not outline and str(result.get("type") or "") in ANSWERS:
            continue
        id, key = str(result.get("id") or ""), json.dumps(outline, sort_keys=True, default=str)
        named = next((str(names[0]) for part in PARTS if isinstance(names := value.get(part), list) and names), "")
        if outline:
            outlines.setdefault((id, key), outline)
            labels[id, key] = labels.get((id, key)) or named
        else:
            bare[id] = bare.get(id) or named
    regions = [(outline, labels[key] or bare.get(key[0], "")) for key, outline in outlines.items()]
    drawn = {id for id, _ in outlines if id}
    return [*regions, *(({}, label) for id, label in bare.items() if id not in drawn)]


def _draw(drawing: Drawing, outline: Entry, label: str) -> None:
    points, runs = outline.get("points"), outline.get("rle")
    if isinstance(points, list):
        flat = [v / 100 if (v := number(one)) is not None else None for pair in points for one in _pair(pair)]
        drawing.polygons([flat], label, shares=True)
    elif isinstance(runs, list):
        try:
            drawing.mask(brush_mask(runs, drawing.size), label)
        except DataError as error:
            drawing.wrong.append(str(error))
    elif "radiusX" in outline and "radiusY" in outline:
        height, width = drawing.size
        x, y, across, down, turned = (number(outline.get(name)) or 0.0 for name in ELLIPSE)
        centre, radii = (x * width / 100, y * height / 100), (across * width / 100, down * height / 100)
        drawing.ellipse(centre, radii, label, turned)
    elif "width" in outline and "height" in outline:
        drawing.boxes += 1
    else:
        drawing.others += 1


def _pair(point: object) -> list[object]:
    return point if isinstance(point, list) else []


class _Bits:
    """Numbers of any width from a list of bytes, the highest bit first."""

    def __init__(self, values: list[object]) -> None:
        if not all(isinstance(value, int) and 0 <= value < 256 for value in values):
            raise DataError("expected a brush mask as a list of bytes, got something else")
        self.bits = np.unpackbits(np.array(values, np.uint8))
        self.place = 0

    def read(self, width: int) -> int:
        part = self.bits[self.place : self.place + width]
        if len(part) < width:
            raise DataError("the run lengths of the brush mask are cut short")
        self.place += width
        return int("".join("1" if bit else "0" for bit in part), 2)


def brush_mask(values: list[object], size: tuple[int, int]) -> BoolArray:
    """The mask bool (H, W) of Label Studio's brush run lengths.

    32 bits say how many numbers follow (4 a pixel: RGBA), 5 the width of a number less 1, four times 4 the widths of
    run lengths less 1. A run is a bit (1: one number for all of it), 2 bits that choose the width of its length less
    1, that length, and its number or numbers.
    """
    bits = _Bits(values)
    total, wide = bits.read(32), bits.read(5) + 1
    widths = [bits.read(4) + 1 for _ in range(4)]
    height, width = size
    if total != 4 * height * width:
        raise DataError(
            f"expected a brush mask of {height}x{width} RGBA pixels ({4 * height * width}), got {total} numbers"
        )
    out = np.zeros(total, np.uint8)
    place = 0
    while place < total:
        same = bits.read(1)
        end = min(place + 1 + bits.read(widths[bits.read(2)]), total)
        if same:
            out[place:end] = bits.read(wide) & 255
        else:
            for single in range(place, end):
                out[single] = bits.read(wide) & 255
        place = end
    return np.asarray(out.reshape(height, width, 4)[..., 3] > 0, np.bool_)
