"""What a COCO file holds, made even: ids as texts, annotations as a list, and what its whole says of each mask."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from specialsam.core.errors import DataError
from specialsam.data.coco_masks import parts_of

Entry = Mapping[str, object]

FEW_CROWDS, MANY = 0.05, 200
"""In COCO itself one mask in a hundred is a crowd: so few among so many are what they say."""
ROUNDING = 1e-6
LARGEST = 10**9


def key_of(id: object) -> str:
    """An id as text, the same for 7, 7.0 and "7"; whatever the JSON holds."""
    if isinstance(id, float) and id.is_integer():
        id = int(id)
    return str(id) if isinstance(id, int | float | str) else type(id).__name__


def text_of(value: object) -> str:
    """A text or a number as text; "" for all else, which may be nested too deeply to be printed."""
    return str(value) if isinstance(value, int | float | str) and value != 0 else ""


def integer(value: object) -> int | None:
    """A side in pixels as a number or as digits; None for null, 0, missing and what is no number of pixels."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value) if len(value) < 12 else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value != 0 else None


@dataclass(frozen=True)
class Content:
    """One file's lists. `annotated` says that it has annotations at all: without them its images are unlabelled."""

    images: tuple[Entry, ...]
    annotations: tuple[Entry, ...]
    categories: Mapping[str, Entry]
    licences: tuple[str, ...]
    annotated: bool

    @property
    def names(self) -> list[str]:
        return [text_of(entry.get("file_name")) for entry in self.images]

    def by_image(self) -> dict[str, list[Entry]]:
        """Annotations by the key of their image: its id, or where that is none the file's name."""
        ids = {key_of(entry.get("id")) for entry in self.images}
        names = {text_of(entry.get("file_name")): key_of(entry.get("id")) for entry in self.images}
        out: dict[str, list[Entry]] = defaultdict(list)
        for annotation in self.annotations:
            key = key_of(annotation.get("image_id"))
            out[key if key in ids else names.get(key, key)].append(annotation)
        return out

    @staticmethod
    def is_crowd(annotation: Entry) -> bool:
        value = annotation.get("iscrowd")
        return value.strip().lower() not in ("", "0", "false") if isinstance(value, str) else bool(value)

    @cached_property
    def crowds(self) -> int:
        return sum(map(self.is_crowd, self.annotations))

    def crowds_are_objects(self, asked: Literal["auto", "objects", "out"]) -> bool:
        """Whether `iscrowd` says no more than that a mask is a run length: all of these have it, and no polygon."""
        if asked != "auto":
            return asked == "objects"
        runs = [self.is_crowd(one) for one in self.annotations if isinstance(one.get("segmentation"), dict)]
        few = self.crowds <= FEW_CROWDS * len(self.annotations) and len(self.annotations) >= MANY
        return bool(runs) and all(runs) and len(runs) == self.crowds and not few

    def in_shares(self) -> bool:
        """Whether all numbers of all polygons lie within 0..1: no polygon of pixels is that small."""
        polygons = [part for one in self.annotations for part in parts_of(one.get("segmentation"))]
        numbers = [value for part in polygons if isinstance(part, list) for value in part]
        good = [value for value in numbers if isinstance(value, int | float)]
        return (
            bool(good)
            and len(good) == len(numbers)
            and all(0 <= v <= 1 + ROUNDING for v in good)
            and any(0 < v < 1 for v in good)
        )


def read_content(content: object, path: Path) -> Content:
    """The lists of a parsed file; DataError in one line for what is no COCO file."""
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected COCO instance JSON with a list of images, got none")
    if "detection_categories" in content or _detections(content.get("images")):
        raise DataError(
            f"{path}: expected COCO instance JSON, got a detector's results (MegaDetector): boxes without masks; give "
            "them to `specialsam segment --prompts`"
        )
    images = _listed(content.get("images"))
    if images is None:
        raise DataError(f"{path}: expected COCO instance JSON with a list of images, got none")
    lists: dict[str, tuple[Entry, ...]] = {}
    for name in ("annotations", "categories"):
        entries = _listed(content.get(name, []))
        if entries is None:
            got = type(content[name]).__name__ if content[name] != {} else "an empty object"
            raise DataError(f"{path}: expected {name!r} to be a list, or an object by id, got {got}")
        lists[name] = entries
    return Content(
        images,
        lists["annotations"],
        {key_of(entry.get("id")): entry for entry in lists["categories"]},
        tuple(name for entry in _listed(content.get("licenses")) or () if (name := text_of(entry.get("name")))),
        "annotations" in content,
    )


def _listed(entries: object) -> tuple[Entry, ...] | None:
    """The objects of a list, or of an object by id (each then has an id); None for anything else."""
    if isinstance(entries, dict) and entries and all(isinstance(entry, dict) for entry in entries.values()):
        return tuple({"id": id, **entry} for id, entry in entries.items())
    return tuple(_dicts(entries)) if isinstance(entries, list) else None


def _dicts(entries: list[object]) -> Iterable[Entry]:
    return (entry for entry in entries if isinstance(entry, dict))


def _detections(images: object) -> bool:
    return isinstance(images, list) and any(isinstance(one, dict) and "detections" in one for one in images[:10])
