"""Answers as files that other tools read: mask PNGs, label maps, COCO JSON, YOLO polygons; one writer a format.

A writer takes the answers one by one and holds none of them, so that a hundred thousand images need no more memory than
one. It returns, in words, what its format could not say.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

import cv2
import numpy as np
import numpy.typing as npt
import yaml

from specialsam.apps.answers import Answer, FoundObject
from specialsam.apps.megadetector import confidence
from specialsam.core.errors import DataError
from specialsam.core.files import write_whole
from specialsam.core.geometry import BoolArray
from specialsam.core.masks import from_rles
from specialsam.core.names import printable
from specialsam.data.images import write_png

Writer = Callable[[Iterable[Answer], Path], list[str]]

LARGEST_LABEL = 65_535
"""Objects that a 16-bit label map can tell apart."""
SMALLEST_PART = 0.01
"""A part of an object smaller than this share of its largest part is left out of a YOLO polygon."""
MOST_PARTS = 100
"""As many parts of an object, the largest, are joined into a YOLO polygon."""
LONGEST_NAME = 200
"""Bytes of a file's or folder's name; most disks take 255, and a file that is being written has a longer one."""
_UNNAMED = "object"


def write_masks(answers: Iterable[Answer], out: Path) -> list[str]:
    """`out`/masks/NAME.png: the union of an image's objects, 255 where one is; black where nothing was found.

    Of several objects each has its own file as well, `out`/objects/NAME-1.png and so on, in the order of the answer.
    """
    notes: Counter[str] = Counter()
    for name, answer, height, width in _named(answers, notes):
        union = np.zeros((height, width), np.bool_)
        for number, mask in _masks(answer):
            union |= mask
            if len(answer.objects) > 1:
                write_png(out / "objects" / f"{name}-{number}.png", mask)
        write_png(out / "masks" / f"{name}.png", union)
    return _said(notes)


def write_labels(answers: Iterable[Answer], out: Path) -> list[str]:
    """`out`/labels/NAME.png: 16 bits, object n of the answer has the value n, 0 is background.

    Where objects overlap the surer one wins (of equal ones the earlier), so one that others cover is lost.
    """
    notes: Counter[str] = Counter()
    for name, answer, height, width in _named(answers, notes):
        if len(answer.objects) > LARGEST_LABEL:
            raise DataError(
                f"{answer.file}: expected at most {LARGEST_LABEL} objects, got {len(answer.objects)}; use coco"
            )
        labels = np.zeros((height, width), np.uint16)
        scores = [found.score for found in answer.objects]
        for index in sorted(range(len(scores)), key=lambda i: (scores[i], -i)):
            labels[_mask(answer, index)] = index + 1
        lost = len(answer.objects) - len(np.unique(labels[labels > 0]))
        notes["objects are covered by surer ones and have no pixel in a label map"] += lost
        write_png(out / "labels" / f"{name}.png", labels)
    return _said(notes)


def write_coco(answers: Iterable[Answer], out: Path) -> list[str]:
    """`out`/coco.json: images, annotations (run lengths, bbox (x, y, width, height), area, score), categories by label.

    Objects without a label are of the category "object". Files that failed are named in `info`, as `failed`.
    """
    write_whole(out / "coco.json", lambda beside: _write_coco(answers, beside))
    return []


def _write_coco(answers: Iterable[Answer], path: Path) -> None:
    """Images go straight into the file, annotations beside it until the last image is known."""
    categories: dict[str, int] = {}
    failed: list[dict[str, str]] = []
    images, annotations = count(1), count(1)
    beside = tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent)  # noqa: SIM115
    with path.open("w", encoding="utf-8") as file, beside as later:
        file.write('{"images": [')
        for answer in answers:
            if answer.error or answer.size is None:
                failed.append({"file_name": answer.file, "error": answer.error or "its size is not known"})
                continue
            id = next(images)
            height, width = answer.size
            _add(file, {"id": id, "file_name": answer.file, "width": width, "height": height}, first=id == 1)
            for found in answer.objects:
                number = next(annotations)
                category = categories.setdefault(found.label or _UNNAMED, len(categories) + 1)
                about = {"id": number, "image_id": id, "category_id": category, **_annotation(found)}
                _add(later, about, first=number == 1)
        later.seek(0)
        file.write('],\n"annotations": [')
        shutil.copyfileobj(later, file)
        names = [{"id": number, "name": name} for name, number in categories.items()]
        file.write(f'],\n"categories": {_json(names)},\n"info": {_json({"failed": failed})}}}\n')


def _add(file: TextIO, entry: Mapping[str, Any], first: bool) -> None:
    file.write(("\n" if first else ",\n") + _json(entry))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _annotation(found: FoundObject) -> dict[str, Any]:
    from pycocotools import mask as coco

    x0, y0, x1, y1 = found.box
    return {
        "segmentation": found.rle,
        "bbox": [x0, y0, x1 - x0 + 1, y1 - y0 + 1],
        "area": int(coco.area(found.rle)),
        "iscrowd": 0,
        "score": confidence(found.score),
    }


def write_yolo(answers: Iterable[Answer], out: Path) -> list[str]:
    """`out`/labels-yolo/NAME.txt, a line an object: class x1 y1 x2 y2 ..., fractions of width and height.

    An image without objects has an empty file, as YOLO's background images have; `out`/data.yaml names the classes. One
    polygon goes around each object: see `polygon` for what becomes of several parts and of holes.
    """
    notes: Counter[str] = Counter()
    classes: dict[str, int] = {}
    for name, answer, height, width in _named(answers, notes):
        lines = []
        for found, (_, mask) in zip(answer.objects, _masks(answer), strict=True):
            points, parts, dropped = polygon(mask)
            notes["objects are of several parts, joined by lines of no width"] += parts > 1
            notes["parts of objects are too small and were left out"] += dropped
            kind = classes.setdefault(found.label or _UNNAMED, len(classes))
            numbers = (points / (width, height)).ravel().tolist()
            lines.append(f"{kind} {' '.join(f'{number:.6f}' for number in numbers)}\n")
        write = partial(Path.write_text, data="".join(lines), encoding="utf-8")
        write_whole(out / "labels-yolo" / f"{name}.txt", write)
    names = yaml.safe_dump({"names": {number: name for name, number in classes.items()}}, allow_unicode=True)
    write_whole(out / "data.yaml", lambda beside: beside.write_text(names, encoding="utf-8"))
    return _said(notes)


def polygon(mask: BoolArray) -> tuple[npt.NDArray[np.int64], int, int]:
    """One polygon int64 (N, 2), N >= 3, of the border pixels (x, y) of a non-empty bool (H, W) mask.

    Filled with its own border it covers the mask; holes are filled as well. Parts are joined where they are nearest, by
    a line there and back, from the largest on. Returns how many were joined and how many were left out: those smaller
    than `SMALLEST_PART` of the largest, and those after the `MOST_PARTS` largest.
    """
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not found:
        raise DataError("expected a non-empty mask for a polygon, got an empty one")
    sizes = [cv2.contourArea(part) + len(part) for part in found]
    order = sorted(range(len(found)), key=lambda i: -sizes[i])
    large = [i for i in order[:MOST_PARTS] if sizes[i] >= SMALLEST_PART * sizes[order[0]]]
    kept = [found[i][:, 0].astype(np.int64) for i in large]
    points = kept[0]
    for part in kept[1:]:
        points = _joined(points, part)
    points = np.concatenate([points, points[-1:].repeat(max(0, 3 - len(points)), 0)])
    return points, len(kept), len(found) - len(kept)


def _joined(points: npt.NDArray[np.int64], part: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Two closed outlines (N, 2) and (M, 2) as one (N + M + 2, 2), there and back where their corners are nearest."""
    from scipy.spatial import cKDTree

    distances, nearest = cKDTree(points).query(part)
    there = int(np.argmin(distances))
    here = int(nearest[there])
    around = np.roll(part, -there, 0)
    return np.concatenate([points[: here + 1], around, around[:1], points[here:]])


def _named(answers: Iterable[Answer], notes: Counter[str]) -> Iterator[tuple[str, Answer, int, int]]:
    """Answers that have a size, each with a name for its files and its height and width; failures are counted."""
    taken: set[str] = set()
    for answer in answers:
        name, renamed = output_name(answer.file, taken)
        notes["files share their name with another and were given a longer one"] += renamed
        if answer.error or answer.size is None:
            notes["files failed and have no output"] += 1
            continue
        yield name, answer, *answer.size


def output_name(file: str, taken: set[str]) -> tuple[str, bool]:
    """A relative posix path without ending for the outputs of an image file, and whether it is another than its stem.

    The first to come gets its stem, `a` of `a.jpg`; `a.png` after it is `a.png`, a third one `a.png-2`. `taken` holds
    the names given so far and gets this one; names that differ in case alone count as the same. Backslashes and colons,
    which mean places on some machines, become underscores; a name above `LONGEST_NAME` ends with a digest of itself.

    Raises DataError for a path that is absolute or leads upwards.
    """
    safe = PurePosixPath(printable(file).replace("\\", "_").replace(":", "_"))
    if safe.is_absolute() or ".." in safe.parts or not safe.name:
        raise DataError(
            f"expected an image file's path below the folder asked for, got {file!r}; nothing is written there"
        )
    stem, whole = ("/".join(map(_shortened, path.parts)) for path in (safe.with_suffix(""), safe))
    names = chain((stem, whole), (f"{whole}-{number}" for number in count(2)))
    name = next(name for name in names if name.casefold() not in taken)
    taken.add(name.casefold())
    return name, name != stem


def _shortened(part: str) -> str:
    packed = part.encode()
    if len(packed) <= LONGEST_NAME:
        return part
    return f"{packed[: LONGEST_NAME - 13].decode(errors='ignore')}-{hashlib.sha256(packed).hexdigest()[:12]}"


def _masks(answer: Answer) -> Iterator[tuple[int, BoolArray]]:
    """Number, from 1, and mask (H, W) of each object, one in memory at a time."""
    return ((index + 1, _mask(answer, index)) for index in range(len(answer.objects)))


def _mask(answer: Answer, index: int) -> BoolArray:
    height, width = answer.size or (0, 0)
    mask: BoolArray = from_rles([answer.objects[index].rle], height, width)[0]
    return mask


def _said(notes: Mapping[str, int]) -> list[str]:
    return [f"{number} {what}" for what, number in notes.items() if number]


def files_of(answers: Iterable[Answer], formats: Sequence[str]) -> Iterator[str]:
    """The files, relative and posix, that these formats have for each image and for all of them."""
    yield from (name for kind, name in (("coco", "coco.json"), ("yolo", "data.yaml")) if kind in formats)
    for name, answer, _, _ in _named(answers, Counter()):
        if "png" in formats:
            yield f"masks/{name}.png"
            if len(answer.objects) > 1:
                yield from (f"objects/{name}-{number}.png" for number in range(1, len(answer.objects) + 1))
        if "labels" in formats:
            yield f"labels/{name}.png"
        if "yolo" in formats:
            yield f"labels-yolo/{name}.txt"


FORMATS: dict[str, Writer] = {"png": write_masks, "labels": write_labels, "coco": write_coco, "yolo": write_yolo}
"""How answers are written, by the name of the format."""
