"""What the adapters share: listing images, checking headers, pairing each image with its mask; nothing gets lost."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import MaskKind, Problem, Record, Split
from specialsam.data.headers import SUFFIXES, check_size, exif_orientation, image_size

UNREADABLE = "unreadable"
NO_MASK = "image without mask"
NO_IMAGE = "mask without image"
SIZE = "sizes differ"
DUPLICATE = "duplicate name"
ODD_VALUES = "odd mask values"
OTHER_FILE = "not an image"
MISSING = "image missing"
ANNOTATION = "unusable annotation"
CROWD = "crowd annotation"

SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Folder names (lower case) that state a split."""


@dataclass
class Found:
    """Records and problems that an adapter gathers while it walks a folder."""

    records: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    images: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def record(self, record: Record) -> None:
        """Keep a record; a second one of the same id becomes a problem."""
        first = self.images.get(record.id)
        if first is not None:
            message = f"{record.image}: the name {record.id!r} is taken by {first}, only one of them can be used"
            self.problem(record.image, DUPLICATE, message)
            return
        self.images[record.id] = record.image
        self.records.append(record)

    def double(self, path: Path, name: str, first: Path) -> None:
        """State that a file has the name of another beside it, which counts."""
        message = f"{path}: the name {name!r} is taken by {first.name}, only one of them can be used"
        self.problem(path, DUPLICATE, message)

    def problem(self, path: Path, kind: str, message: str) -> None:
        self.problems.append(Problem(path, kind, message))


def natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Sorting key under which 2.png comes before 10.png and the order is the same on every machine."""
    parts = re.split(r"(\d+)", path.as_posix())
    return tuple((1, int(part), part) if part.isdigit() and part.isascii() else (0, 0, part) for part in parts)


def list_images(folder: Path, found: Found, *, recursive: bool = False) -> list[Path]:
    """Image files of a folder by their endings, in natural order; other visible files become problems of `found`.

    A missing folder holds no images. With `recursive` sub-folders count too, otherwise one that bears an image's name
    is a problem as well. Links to folders are followed where they lead out of `folder`, not back into or above it.
    What is no regular file is found when its header is read.
    """
    images: list[Path] = []
    seen = {os.path.realpath(folder)}

    def stop(error: OSError) -> None:
        raise error

    if not folder.is_dir():
        return images
    try:
        walk = os.walk(folder, onerror=stop, followlinks=True)
        for parent, folders, names in walk:
            for name in [] if recursive else folders:
                if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                    path = Path(parent, name)
                    found.problem(path, OTHER_FILE, f"{path}: expected an image file, got a folder")
            inside = [name for name in folders if recursive and not name.startswith((".", "__MACOSX"))]
            folders[:] = sorted(name for name in inside if leads_on(Path(parent, name), folder, seen))
            for name in names:
                path = Path(parent, name)
                if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                    images.append(path)
                elif not name.startswith(".") and name.lower() not in ("thumbs.db", "desktop.ini"):
                    found.problem(path, OTHER_FILE, f"{path}: expected an image file, got ending {path.suffix!r}")
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from error
    return sorted(images, key=natural_key)


def regular(paths: Iterable[Path]) -> list[Path]:
    """Those that are regular files: pipes, devices and broken links have no say in what a folder is."""
    return [path for path in paths if path.is_file()]


def leads_on(path: Path, top: Path, seen: set[str]) -> bool:
    """Whether a sub-folder is to be walked: not by a link that leads back, or to where another link has led."""
    if not path.is_symlink():
        return True
    real, above = os.path.realpath(path), os.path.realpath(top)
    if real in seen or Path(above).is_relative_to(real) or Path(real).is_relative_to(above):
        return False
    seen.add(real)
    return True


def by_stem(paths: Iterable[Path], folder: Path, found: Found) -> dict[str, Path]:
    """Paths by their relative name without ending (posix); a second file of the same name becomes a problem."""
    out: dict[str, Path] = {}
    for path in paths:
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in out:
            found.double(path, stem, out[stem])
        else:
            out[stem] = path
    return out


def header(path: Path, found: Found) -> tuple[int, int] | None:
    """(height, width) from the header; an unreadable or far too large image becomes a problem and None."""
    try:
        size = image_size(path)
        check_size(path, size)
        return size
    except DataError as error:
        found.problem(path, UNREADABLE, str(error))
        return None


def size_hint(image: Path, expected: tuple[int, int], got: tuple[int, int]) -> str:
    """Say what is known of a mask of another size than its image: often it was drawn without the EXIF orientation."""
    if expected == got[::-1] and exif_orientation(image) >= 5:
        return "; the image carries an EXIF orientation that the mask does not: save the image upright or turn the mask"
    return ""


def add_pair(
    found: Found, record: Record, mask_kind: MaskKind = "binary", without_mask: MaskKind | None = None
) -> None:
    """Add one image to `found`, as a record or, where its headers or its mask fail, as a problem at the image's path.

    `record` comes without its mask's kind: that is `mask_kind` where it has a mask file. `without_mask` says what an
    image without one is: None a problem, "none" unlabelled, "rle" known to be empty.
    """
    image, mask = record.image, record.mask
    size = header(image, found)
    if size is None:
        return
    if mask is None:
        if without_mask is None:
            found.problem(image, NO_MASK, f"{image}: expected a mask of the same name, found none")
            return
        mask_kind = without_mask
    else:
        try:
            mask_size = image_size(mask)
        except DataError as error:
            found.problem(image, UNREADABLE, f"{image}: its mask cannot be read: {error}")
            return
        if mask_size != size:
            message = f"{image}: expected a mask of {size[0]}x{size[1]} (height x width), {mask.name} has "
            found.problem(image, SIZE, f"{message}{mask_size[0]}x{mask_size[1]}{size_hint(image, size, mask_size)}")
            return
    found.record(replace(record, mask_kind=mask_kind))


def add_folder(
    found: Found,
    images: Path,
    masks: Path,
    *,
    prefix: str = "",
    split: Split | None = None,
    classify: Callable[[str], tuple[str, str]] = lambda stem: ("", ""),
    without_mask: Callable[[str], MaskKind | None] = lambda stem: None,
) -> None:
    """Pair a flat folder of images with a flat folder of binary masks by equal stem, leftovers as problems.

    `classify` gives (category, supercategory) of a stem; `without_mask` as in `add_pair`, by stem.
    """
    pictures = by_stem(list_images(images, found), images, found)
    drawn = by_stem(list_images(masks, found), masks, found)
    for stem, image in pictures.items():
        category, supercategory = classify(stem)
        mask = drawn.get(stem)
        record = Record(prefix + stem, image, mask, category=category, supercategory=supercategory, split=split)
        add_pair(found, record, without_mask=without_mask(stem))
    report_orphans(found, {stem: mask for stem, mask in drawn.items() if stem not in pictures})


def report_orphans(found: Found, masks: Mapping[str, Path]) -> None:
    """State masks that no image belongs to."""
    for stem, mask in masks.items():
        found.problem(mask, NO_IMAGE, f"{mask}: expected an image of the name {stem!r} for this mask, found none")


def children(root: Path) -> list[Path]:
    """Visible files and folders in `root`, sorted; DataError in one line if it is no folder or cannot be read."""
    try:
        return sorted((path for path in root.iterdir() if not path.name.startswith(".")), key=natural_key)
    except NotADirectoryError:
        raise DataError(f"{root}: expected a folder, got a file") from None
    except FileNotFoundError:
        raise DataError(f"{root}: expected a folder, found nothing there") from None
    except OSError as error:
        raise DataError(f"{root}: cannot be listed ({error.strerror})") from error


def child(root: Path, *names: str) -> Path | None:
    """The sub-folder of `root` whose name equals one of `names` in lower case, in the order of `names`."""
    folders = {path.name.lower(): path for path in reversed(children(root)) if path.is_dir()}
    return next((folders[name] for name in names if name in folders), None)
