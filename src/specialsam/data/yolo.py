"""YOLO's polygons: `images/` + `labels/*.txt` (also with split folders, or side by side), names in `data.yaml`.

Licence: as data.yaml states, else unknown. Citation of the format: Ultralytics YOLO's segmentation data sets.

A line is a class and the points of one object in shares of the image's sides. A line of a class and four numbers is a
box and no mask, as are lines of poses (`kpt_shape` in data.yaml). An image without a text file, or with an empty one,
holds no object, as YOLO has it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from specialsam.core.documents import document, parse_yaml
from specialsam.core.errors import DataError
from specialsam.core.files import open_regular
from specialsam.core.types import Dataset, Split
from specialsam.data.drawn import Drawing, begin, finish
from specialsam.data.pairs import (
    OTHER_FILE,
    SPLIT_NAMES,
    UNREADABLE,
    Found,
    by_stem,
    child,
    children,
    list_images,
    regular,
)

LAYOUT = "images/ + labels/*.txt with a class and a polygon a line (YOLO), data.yaml"
LISTS = frozenset({"classes", "obj", "train", "val", "valid", "test", "readme", "predefined_classes", "requirements"})
"""Names of text files that are no labels."""
BOX, CONFIDENT_BOX, LEAST = 5, 6, 7
SLACK = 0.05
"""By how much of a side a point may lie outside of the image."""
LARGEST = 50_000_000


def _texts(folder: Path, images: Collection[str] = ()) -> dict[str, Path]:
    """Label files below a folder by their names without ending; one of LISTS counts where an image has its name."""
    found = sorted(folder.rglob("*.txt")) if folder.is_dir() else []
    named = {path.relative_to(folder).with_suffix("").as_posix(): path for path in found if path.is_file()}
    return {
        name: path for name, path in named.items() if name in images or PurePosixPath(name).name.lower() not in LISTS
    }


def _parts(root: Path) -> Iterator[tuple[str, Path, Path, Split | None]]:
    """(id prefix, images, labels, split) of each part: the data set's own folders, its splits', or one for both."""
    images, labels = child(root, "images"), child(root, "labels")
    if images and labels and _texts(labels):
        yield "", images, labels, None
        return
    parts = []
    for folder in children(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split and folder.is_dir():
            images, labels = child(folder, "images"), child(folder, "labels")
            own = (images, labels) if images and labels else (folder, folder)
            parts.append((f"{folder.name}/", *own, split))
    if parts and any(_texts(labels) for _, _, labels, _ in parts):
        yield from parts
    elif not parts and _texts(root) and _paired(root):
        yield "", root, root, None


def _paired(root: Path) -> bool:
    """Whether half of the images in a folder have a text file of labels beside them."""
    images = regular(list_images(root, Found(), recursive=True))
    names = [path.relative_to(root).with_suffix("").as_posix() for path in images]
    texts = _texts(root, set(names))
    both = [name for name in names if name in texts]
    return bool(both) and 2 * len(both) >= len(names)


def recognise(root: Path) -> bool:
    """True if text files of numbers lie in labels/ beside images/, or beside the images themselves."""
    for _, images, labels, _ in _parts(root):
        names = set(by_stem(list_images(images, Found(), recursive=True), images, Found()))
        texts = _texts(labels, names)
        some = [path for name, path in texts.items() if name in names][:20]
        if any(_numbers(path) for path in some):
            return True
    return False


def _numbers(path: Path) -> bool:
    try:
        lines = [line.split() for line in _read(path).splitlines() if line.strip()]
        return any(len(line) >= BOX and all(map(_is_float, line)) for line in lines[:20])
    except DataError:
        return False


def _is_float(text: str) -> bool:
    try:
        return abs(float(text)) < 1e6
    except ValueError:
        return False


def _read(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return file.read(LARGEST).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a text file of labels, cannot read it ({error})") from error


def load_yolo(root: Path) -> Dataset:
    """Read every image with the polygons of its text file."""
    parts = list(_parts(root))
    if not parts:
        raise DataError(f"{root}: expected {LAYOUT}, found no such files")
    found = Found()
    card = _card(root)
    names, missing, pose = _names(card), 0, bool(card.get("kpt_shape"))
    for prefix, images, labels, part_split in parts:
        pictures = by_stem(list_images(images, _quiet(found), recursive=True), images, found)
        texts = _texts(labels, pictures)
        for stem, image in pictures.items():
            missing += stem not in texts
            first = PurePosixPath(stem).parts[0].lower() if "/" in stem else ""
            split = part_split or SPLIT_NAMES.get(first)
            drawing = begin(found, image)
            if drawing is not None and _draw(found, image, texts.get(stem), drawing, names, pose):
                finish(found, prefix + stem, image, drawing, split)
    notes = [f"{missing} images have no text file: they hold no object"] if missing else []
    licence = str(card.get("license") or card.get("licence") or "unknown")
    records, problems = tuple(found.records), tuple(found.problems)
    return Dataset(root.name, root, "yolo", records, problems, licence, notes=tuple(notes))


def _quiet(found: Found) -> Found:
    """Where files that are no images are stated: text files and caches beside images are no problem here."""

    class Quiet(Found):
        def problem(self, path: Path, kind: str, message: str) -> None:
            if not (kind == OTHER_FILE and path.suffix.lower() in (".txt", ".yaml", ".yml", ".cache", ".names", ".md")):
                found.problem(path, kind, message)

    return Quiet()


def _draw(found: Found, image: Path, text: Path | None, drawing: Drawing, names: Mapping[str, str], pose: bool) -> bool:
    """Draw the lines of a label file, boxes with key points where `pose`; False, and a problem, if it is unreadable."""
    try:
        lines = _read(text).splitlines() if text else []
    except DataError as error:
        found.problem(image, UNREADABLE, f"{image}: its labels cannot be read: {error}")
        return False
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if not all(map(_is_float, words)):
            drawing.wrong.append(f"line {number} of {text.name if text else ''} holds words where numbers are expected")
            continue
        if pose or len(words) in (BOX, CONFIDENT_BOX):
            drawing.boxes += 1
            continue
        label = names.get(str(int(float(words[0]))), f"class {words[0]}")
        points = [float(word) for word in words[1 : len(words) - (len(words) + 1) % 2]]
        if any(not -SLACK <= value <= 1 + SLACK for value in points):
            drawing.wrong.append(f"line {number}: expected shares of the image's sides in 0..1, got {max(points):g}")
        else:
            drawing.polygons([points], label, shares=True)
    return True


def _card(root: Path) -> Mapping[str, object]:
    """What data.yaml (or the one YAML file beside the folders) says; {} for none."""
    files = [path for path in children(root) if path.suffix.lower() in (".yaml", ".yml") and path.is_file()]
    for path in sorted(files, key=lambda path: path.stem != "data"):
        try:
            with open_regular(path) as file:
                card = parse_yaml(document(file))
        except (OSError, ValueError):
            continue
        if isinstance(card, dict) and ("names" in card or "nc" in card):
            return card
    return {}


def _names(card: Mapping[str, object]) -> dict[str, str]:
    names = card.get("names")
    pairs = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else ()
    return {str(key): str(name) for key, name in pairs}
