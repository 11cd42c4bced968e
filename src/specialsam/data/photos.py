"""Photos without masks: a folder of images, flat or nested, to embed, to audit or to segment.

Licence: unknown to the product, the data are yours. Citation: none.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Record
from specialsam.data.pairs import SPLIT_NAMES, Found, add_pair, by_stem, child, list_images

LAYOUT = "image files alone, in the folder itself or in images/ (no masks)"


def _images(root: Path) -> Path | None:
    """The folder to read: `root` if image files lie in it, else its images folder if it holds any at any depth."""
    if list_images(root, Found()):
        return root
    images = child(root, "images")
    return images if images and list_images(images, Found(), recursive=True) else None


def recognise(root: Path) -> bool:
    """True if image files lie in `root` itself, or at any depth in an images folder below it."""
    return _images(root) is not None


def load_photos(root: Path) -> Dataset:
    """Read every image as unlabelled, sub-folders included; a first sub-folder train, val or test states the split."""
    found = Found()
    images = _images(root)
    if images is None:
        raise DataError(f"{root}: expected {LAYOUT}, found no image file")
    for stem, image in by_stem(list_images(images, found, recursive=True), images, found).items():
        first = PurePosixPath(stem).parts[0].lower() if "/" in stem else ""
        add_pair(found, Record(stem, image, split=SPLIT_NAMES.get(first)), without_mask="none")
    notes = ("no masks: the images are unlabelled",)
    return Dataset(root.name, root, "photos", tuple(found.records), tuple(found.problems), notes=notes)
