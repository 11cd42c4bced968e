"""COCO instance JSON: `annotations/*.json` + a folder of images, or a JSON beside its images.

Licence: that which the JSON states, else unknown. Citation of the format: Lin et al., "Microsoft COCO: Common Objects
in Context", ECCV 2014.

Each annotation is one object with its category's name as label; the record's category is its most frequent label. An
image without any annotation is labelled as empty; one whose annotations are all unusable is a problem. Files are read
as tools write them: ids as texts, annotations as an object by id, flat polygons, shares of the sides, sizes left out.
Crowd annotations (`iscrowd`) mark many objects at once: they are left out and stated as a problem of their image. But
CVAT and datumaro write every brush mask so: where all run-length masks are "crowds" and no polygon is, they are
objects.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from specialsam.core.documents import parse_json
from specialsam.core.errors import DataError
from specialsam.core.masks import RunLength
from specialsam.core.types import Dataset, Record, Split
from specialsam.data.coco_content import Content, Entry, integer, key_of, read_content, text_of
from specialsam.data.coco_masks import Leftovers, to_rle
from specialsam.data.image_index import Ambiguous, ImageIndex, split_of
from specialsam.data.pairs import (
    ANNOTATION,
    CROWD,
    DUPLICATE,
    MISSING,
    NO_MASK,
    SIZE,
    SPLIT_NAMES,
    Found,
    child,
    children,
    header,
    size_hint,
)
from specialsam.data.read_settings import READ, ReadSettings

LAYOUT = "annotations/*.json + images, or a COCO .json beside its images"
ANNOTATION_FOLDERS = ("annotations", "annotation", "labels", "label", "json", "jsons")
_HEAD = 65_536


def _looks_coco(path: Path) -> bool:
    """True if the head of a JSON file is an object that names one of COCO's lists, and no detector's results."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    named = re.search(rb'"(images|annotations|categories)"\s*:\s*[\[{]', head)
    return named is not None and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and b'"detections"' not in head


def _jsons(root: Path) -> list[Path]:
    """COCO files in annotations/, else in `root`, else in its sub-folders; only instances_* where such exist."""
    if root.is_file():
        return [root]
    annotations = child(root, "annotations")
    folders = [path for path in children(root) if path.is_dir() and path.name.lower() in SPLIT_NAMES]
    for places in ([annotations] if annotations else [], [root], folders):
        files = [path for place in places for path in children(place) if path.suffix.lower() == ".json"]
        files = [path for path in files if path.is_file() and _looks_coco(path)]
        if files:
            return [path for path in files if path.name.startswith("instances_")] or files
    return []


def recognise(root: Path) -> bool:
    """True if a JSON that looks like COCO's lies in annotations/, in `root` or in its split folders."""
    return bool(_jsons(root))


def _split(path: Path, root: Path) -> Split | None:
    """The split that a file's name (instances_train2017.json) or its folder (train/x.json) states."""
    return split_of(path.stem) or (SPLIT_NAMES.get(path.parent.name.lower()) if path.parent != root else None)


def _folder(root: Path) -> Path:
    """The data set's folder: a JSON that is named itself may lie in the folder of the annotations."""
    if not root.is_file():
        return root
    return root.parent.parent if root.parent.name.lower() in ANNOTATION_FOLDERS else root.parent


def load_coco(root: Path, how: ReadSettings = READ) -> Dataset:
    """Read every instance file found; `root` may be such a file itself. All masks become run lengths."""
    files = _jsons(root)
    if not files:
        raise DataError(f"{root}: expected COCO's {LAYOUT}, found none")
    reader = _Reader(_folder(root), how)
    licences: list[str] = []
    for path in files:
        content = read_content(_parsed(path), path)
        reader.add_file(path, content)
        licences += content.licences
    reader.add_unlabelled()
    rest = reader.index.unlisted(reader.found) if reader.index and root.is_dir() else ""
    notes = (f"read {', '.join(path.name for path in files)}", *reader.notes(), *([rest] if rest else []))
    found, licence = reader.found, "; ".join(dict.fromkeys(licences)) or "unknown"
    folder = reader.folder
    return Dataset(folder.name, folder, "coco", tuple(found.records), tuple(found.problems), licence, notes=notes)


def _parsed(path: Path) -> object:
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected COCO instance JSON, cannot read it ({error})") from error


@dataclass
class _Reader:
    """The records of a data set's JSON files, as they come."""

    folder: Path
    how: ReadSettings
    found: Found = field(default_factory=Found)
    said: list[str] = field(default_factory=list)
    left: Leftovers = field(default_factory=Leftovers)
    used: set[Path] = field(default_factory=set)
    waiting: list[Record] = field(default_factory=list)
    index: ImageIndex | None = None

    def notes(self) -> tuple[str, ...]:
        stray = self.left.stray
        more = [f"{stray} parts of fewer than 3 points were left out of their objects"] if stray else []
        return (*self.said, *more)

    def add_file(self, path: Path, content: Content) -> None:
        """Add the images of one file; what it lists and what lies on disk are compared."""
        crowds = content.crowds_are_objects(self.how.crowds)
        if crowds and content.crowds:
            self.said.append(
                f"{path.name}: all {content.crowds} run-length masks are called crowds, as CVAT and datumaro write "
                "brush masks: they are objects (else set data.crowds=out)"
            )
        shares = content.in_shares()
        if shares:
            self.said.append(f"{path.name}: its polygons lie within 0..1: they are shares of the image's sides")
        by_image = content.by_image()
        index = self.index = ImageIndex(self.folder, path, _split(path, self.folder))
        index.prefer(content.names)
        drawn = any(one.get("segmentation") for several in by_image.values() for one in several)
        listed: set[str] = set()
        for entry in content.images:
            key = key_of(entry.get("id"))
            if key in listed:
                name = text_of(entry.get("file_name"))
                self.found.problem(path, DUPLICATE, f"{path}: the image id {key!r} is listed twice ({name!r})")
                continue
            listed.add(key)
            image = self._image(path, entry, index)
            if image is not None:
                annotations = by_image.get(key, []) if content.annotated else None
                if not annotations and by_image and not drawn:  # a file of boxes says nothing of masks
                    annotations = None
                self._add(image, path, entry, annotations, _Masks(content, crowds, shares))
        for image_id, annotations in by_image.items():
            if image_id not in listed:
                count = f"{len(annotations)} annotation{'s' if len(annotations) > 1 else ''}"
                message = f"{path}: {count} of the image id {image_id!r}, which is not listed"
                self.found.problem(path, ANNOTATION, message)

    def add_unlabelled(self) -> None:
        """Add the images of which no file has masks; what was missing of one that another file has is no problem."""
        for record in self.waiting:
            if record.image not in self.used and record.id not in self.found.images:
                self.used.add(record.image)
                self.found.record(record)
        kept = [one for one in self.found.problems if one.kind != NO_MASK or one.path not in self.used]
        self.found.problems[:] = kept

    def _image(self, path: Path, entry: Entry, index: ImageIndex) -> Path | None:
        """The file that an entry names; None, and a problem, where there is none or where several fit."""
        name = text_of(entry.get("file_name"))
        try:
            image = index.find(name)
        except Ambiguous as several:
            told = (
                f"{path}: lists the image {name!r}, which lies in several folders that nothing tells apart: {several}"
            )
            self.found.problem(several.paths[0], DUPLICATE, f"{told}; name the folder in file_name")
            return None
        if image is None:
            near = index.nearest(name)
            hint = f"; the nearest is {near}" if near else ""
            message = f"{path}: lists the image {name!r}, found none{hint}"
            self.found.problem(path.parent / (name or "unnamed"), MISSING, message)
        return image

    def _add(self, image: Path, path: Path, entry: Entry, annotations: list[Entry] | None, masks: _Masks) -> None:
        found = self.found
        relative = image.relative_to(self.folder) if image.is_relative_to(self.folder) else Path(image.name)
        id = relative.with_suffix("").as_posix()
        id = relative.as_posix() if id in found.images else id
        if id in found.images or image in self.used:
            found.problem(image, DUPLICATE, f"{image}: {path.name} lists it a second time, the first counts")
            return
        size = header(image, found)
        if size is None or not _fits(found, image, entry, size):
            return
        split = _split(path, self.folder)
        if annotations is None:
            self.waiting.append(Record(id=id, image=image, split=split))
            return
        objects, crowds = self._objects(image, annotations, size, masks)
        if crowds:
            message = f"{image}: {crowds} crowd annotation{'s' if crowds > 1 else ''} left out"
            found.problem(image, CROWD, f"{message} (iscrowd; else set data.crowds=objects)")
        if annotations and not objects:
            found.problem(image, NO_MASK, f"{image}: none of its {len(annotations)} annotations is a usable mask")
            return
        self.used.add(image)
        found.record(_record(id, image, objects, split))

    def _objects(
        self, image: Path, annotations: list[Entry], size: tuple[int, int], masks: _Masks
    ) -> tuple[list[tuple[RunLength, str, str]], int]:
        """(mask, label, what is above it) of each usable annotation, and the number of crowds."""
        objects: list[tuple[RunLength, str, str]] = []
        crowds = 0
        for annotation in annotations:
            if masks.content.is_crowd(annotation) and not masks.crowds:
                crowds += 1
                continue
            try:
                rle = to_rle(annotation.get("segmentation"), *size, shares=masks.shares, left=self.left)
            except DataError as error:
                number = annotation.get("id")
                number = number if isinstance(number, int | float | str) else type(number).__name__
                self.found.problem(image, ANNOTATION, f"{image}: annotation {number!r} was left out: {error}")
                continue
            category = masks.content.categories.get(key_of(annotation.get("category_id")), {})
            label = text_of(category.get("name")) or f"category {key_of(annotation.get('category_id'))}"
            objects.append((rle, label, text_of(category.get("supercategory"))))
        return objects, crowds


@dataclass(frozen=True)
class _Masks:
    """How the masks of one file are read."""

    content: Content
    crowds: bool
    shares: bool


def _fits(found: Found, image: Path, entry: Entry, size: tuple[int, int]) -> bool:
    """Whether an image has the size that its entry states, if it states one; else a problem."""
    stated = integer(entry.get("height")), integer(entry.get("width"))
    height, width = (side or have for side, have in zip(stated, size, strict=True))
    if (height, width) == size:
        return True
    message = f"{image}: expected {height}x{width} (height x width) as annotated, got {size[0]}x{size[1]}"
    hint = size_hint(image, size, (int(height), int(width)))
    found.problem(image, SIZE, message + hint)
    return False


def _record(id: str, image: Path, objects: list[tuple[RunLength, str, str]], split: Split | None) -> Record:
    labels = tuple(label for _, label, _ in objects)
    category = Counter(labels).most_common(1)[0][0] if labels else ""
    return Record(
        id=id,
        image=image,
        mask_kind="rle",
        rles=tuple(rle for rle, _, _ in objects),
        labels=labels,
        category=category,
        supercategory=next((above for _, label, above in objects if label == category), ""),
        split=split,
    )
