"""Photos without masks: a folder of images, flat or nested, to embed, to audit or to segment.

Licence: unknown to the product, the data are yours. Citation: none.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Record
from specialsam.data.pairs import SPLIT_NAMES, Found, add_pair, by_stem, child, children, list_images

LAYOUT = "image files alone, in the folder itself or in images/ (no masks)"


def _images(root: Path) -> Path | None:
    """The folder to read: `root` if image files lie in it, else its images folder if it holds any at any depth."""
    if list_images(root, Found()):
        return root
    images = child(root, "images")
    return images if images and list_images(images, Found(), recursive=True) else None


LABEL_FOLDERS = ("masks", "mask", "labels", "label", "gt", "ground_truth", "groundtruth", "annotations", "annotation")
LABEL_ENDINGS = (".json", ".xml", ".txt")
ALIKE = 0.5
"""Share of the images that must have a file of labels of the same name to look labelled."""


def looks_labelled(root: Path) -> str:
    """What in a folder of photographs looks like labels, in words; "" for nothing.

    A folder beside the images that is called so and is not empty, or files of labels with the images' names.
    """
    images = _images(root)
    if images is None:
        return ""
    places = [path for path in children(root) if path.is_dir() and path.name.lower() in LABEL_FOLDERS]
    for folder in places:
        inside = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")][:1]
        if inside:
            return f"{folder.name}/ (with {inside[0].name})"
    stems = {path.stem for path in list_images(images, Found(), recursive=True)}
    for ending in LABEL_ENDINGS:
        files = [path for path in images.rglob(f"*{ending}") if path.stem in stems]
        if files and len(files) >= ALIKE * len(stems):
            return f"{len(files)} {ending} files of the images' names (such as {files[0].name})"
    return ""


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
