"""COCO instance JSON: `annotations/*.json` + a folder of images, or a JSON beside its images.

Licence: that which the JSON states, else unknown. Citation of the format: Lin et al., "Microsoft COCO: Common Objects
in Context", ECCV 2014.

Each annotation is one object with its category's name as label; the record's category is its most frequent label.
Crowd annotations (`iscrowd`) mark many objects at once: they are left out and stated as a problem of their image. An
image without any annotation is labelled as empty; one whose annotations are all unusable is a problem.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from specialsam.core.documents import parse_json
from specialsam.core.errors import DataError
from specialsam.core.masks import RunLength
from specialsam.core.types import Dataset, Record, Split
from specialsam.data.coco_masks import to_rle
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

LAYOUT = "annotations/*.json + images, or a COCO .json beside its images"
_HEAD = 65_536
_Entry = Mapping[str, object]
_Key = int | float | str


def _looks_coco(path: Path) -> bool:
    """True if the head of a JSON file names one of COCO's lists."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return re.search(rb'"(images|annotations|categories)"\s*:\s*\[', head) is not None


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


def _read(path: Path) -> _Entry:
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected COCO instance JSON, cannot read it ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(f"{path}: expected COCO instance JSON with a list of images, got none")
    for name in ("annotations", "categories"):
        if not isinstance(content.get(name, []), list):
            raise DataError(f"{path}: expected {name!r} to be a list, got {type(content[name]).__name__}")
    return content


def _split(path: Path, root: Path) -> Split | None:
    """The split that a file's name (instances_train2017.json) or its folder (train/x.json) states."""
    words = re.findall(r"[a-z]+", path.stem.lower()) + ([path.parent.name.lower()] if path.parent != root else [])
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


class _Images:
    """Finds the file of a `file_name`: beside the JSON, in the root, in images/, or one folder below these."""

    def __init__(self, root: Path, json_file: Path) -> None:
        tops = [json_file.parent, root, *([images] if (images := child(root, "images")) else [])]
        below = [path for top in tops for path in children(top) if path.is_dir()]
        self.places = list(dict.fromkeys([*tops, *below]))

    def find(self, file_name: str) -> Path | None:
        """The file, or None; names that leave the data set's folder count by their last part alone."""
        name = PurePosixPath(file_name.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or re.match(r"[A-Za-z]:", file_name):
            name = PurePosixPath(name.name)
        for place in self.places if name.name else []:
            path = place / name
            if _is_file(path):
                self.places.remove(place)
                self.places.insert(0, place)
                return path
        return None


def _is_file(path: Path) -> bool:
    """True for a file; False for a name that no file can have (too long, a zero byte) as well."""
    with suppress(OSError):
        return path.is_file()
    return False


def load_coco(root: Path) -> Dataset:
    """Read every instance file found; `root` may be such a file itself. All masks become run lengths."""
    files = _jsons(root)
    if not files:
        raise DataError(f"{root}: expected COCO's {LAYOUT}, found none")
    folder = root.parent if root.is_file() else root
    found = Found()
    licences: list[str] = []
    for path in files:
        content = _read(path)
        _add_file(found, folder, path, content)
        stated = content.get("licenses")
        licences += [name for entry in _dicts(stated) if (name := _text(entry.get("name")))]
    notes = (f"read {', '.join(path.name for path in files)}",)
    licence = "; ".join(dict.fromkeys(licences)) or "unknown"
    return Dataset(folder.name, folder, "coco", tuple(found.records), tuple(found.problems), licence, notes=notes)


def _dicts(entries: object) -> Iterable[_Entry]:
    return (entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()


def _key(id: object) -> _Key:
    """An id as it can stand in a dictionary, whatever the JSON holds."""
    return id if isinstance(id, int | float | str) else type(id).__name__


def _text(value: object) -> str:
    """A text or a number as text; "" for all else, which may be nested too deeply to be printed."""
    return str(value) if isinstance(value, int | float | str) and value != 0 else ""


def _add_file(found: Found, folder: Path, path: Path, content: _Entry) -> None:
    categories = {_key(entry.get("id")): entry for entry in _dicts(content.get("categories"))}
    by_image: dict[_Key, list[_Entry]] = defaultdict(list)
    for annotation in _dicts(content.get("annotations")):
        by_image[_key(annotation.get("image_id"))].append(annotation)
    images = _Images(folder, path)
    split = _split(path, folder)
    taken = {record.id for record in found.records}
    used = {record.image for record in found.records}
    listed = set()
    for entry in _dicts(content["images"]):
        name = _text(entry.get("file_name"))
        key = _key(entry.get("id"))
        if key in listed:
            found.problem(path, DUPLICATE, f"{path}: the image id {key!r} is listed twice ({name!r})")
            continue
        listed.add(key)
        image = images.find(name)
        if image is None:
            found.problem(path.parent / (name or "unnamed"), MISSING, f"{path}: lists the image {name!r}, found none")
            continue
        relative = image.relative_to(folder) if image.is_relative_to(folder) else Path(image.name)
        id = relative.with_suffix("").as_posix()
        id = relative.as_posix() if id in taken else id
        if image in used or id in taken:
            found.problem(image, DUPLICATE, f"{image}: {path.name} lists it a second time, the first counts")
            continue
        annotations = by_image.get(key, []) if "annotations" in content else None
        record = _record(found, id, image, entry, annotations, categories, split)
        if record:
            taken.add(id)
            used.add(image)
            found.record(record)
    for image_id, annotations in by_image.items():
        if image_id not in listed:
            count = f"{len(annotations)} annotation{'s' if len(annotations) > 1 else ''}"
            found.problem(path, ANNOTATION, f"{path}: {count} of the image id {image_id!r}, which is not listed")


def _record(
    found: Found,
    id: str,
    image: Path,
    entry: _Entry,
    annotations: list[_Entry] | None,
    categories: Mapping[_Key, _Entry],
    split: Split | None,
) -> Record | None:
    """The record of one image, or None where it went to the problems; `annotations` None means unlabelled."""
    size = header(image, found)
    if size is None:
        return None
    height, width = entry.get("height", size[0]), entry.get("width", size[1])
    if (height, width) != size:
        told = f"{_key(height)}x{_key(width)}"
        message = f"{image}: expected {told} (height x width) as annotated, got {size[0]}x{size[1]}"
        hint = size_hint(image, size, (height, width)) if isinstance(height, int) and isinstance(width, int) else ""
        found.problem(image, SIZE, message + hint)
        return None
    if annotations is None:
        return Record(id=id, image=image, split=split)
    objects: list[tuple[RunLength, str, str]] = []
    crowds = 0
    for annotation in annotations:
        if annotation.get("iscrowd"):
            crowds += 1
            continue
        try:
            rle = to_rle(annotation.get("segmentation"), *size)
        except DataError as error:
            number = _key(annotation.get("id"))
            found.problem(image, ANNOTATION, f"{image}: annotation {number!r} was left out: {error}")
            continue
        category = categories.get(_key(annotation.get("category_id")), {})
        label = _text(category.get("name")) or f"category {_key(annotation.get('category_id'))}"
        objects.append((rle, label, _text(category.get("supercategory"))))
    if crowds:
        found.problem(image, CROWD, f"{image}: {crowds} crowd annotation{'s' if crowds > 1 else ''} left out")
    if annotations and not objects:
        found.problem(image, NO_MASK, f"{image}: none of its {len(annotations)} annotations is a usable mask")
        return None
    labels = tuple(label for _, label, _ in objects)
    category_name = Counter(labels).most_common(1)[0][0] if labels else ""
    return Record(
        id=id,
        image=image,
        mask_kind="rle",
        rles=tuple(rle for rle, _, _ in objects),
        labels=labels,
        category=category_name,
        supercategory=next((above for _, label, above in objects if label == category_name), ""),
        split=split,
    )
