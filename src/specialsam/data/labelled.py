"""Images beside a folder of masks under another name than `masks/`: `images/` + `labels/`, `gt/`, `annotations/`, ...

Licence and citation: as for a plain folder (`dataset.json`), else unknown to the product, the data are yours.

Everything else is as in a plain folder: sub-folders, splits (`train/images` + `train/labels`), names, several masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Split
from specialsam.data.folder import read_parts
from specialsam.data.pairs import SPLIT_NAMES, Found, child, children, list_images
from specialsam.data.read_settings import READ, ReadSettings

LAYOUT = "images/ + labels/, gt/, ground_truth/, annotations/ or the like, holding masks as images"
IMAGES = ("images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "input", "inputs", "data", "x")
MASKS = (
    "masks",
    "mask",
    "labels",
    "label",
    "gt",
    "gts",
    "groundtruth",
    "ground_truth",
    "ground-truth",
    "annotations",
    "annotation",
    "annots",
    "segmentations",
    "segmentation",
    "segmentationmasks",
    "segmentation_masks",
    "seg",
    "targets",
    "target",
    "mattes",
    "output",
    "y",
)
TRUNKS = (("leftimg8bit", "gtfine"), ("imagestr", "labelstr"), ("imagests", "labelsts"))
"""Pairs of names that belong together: Cityscapes, nnU-Net's training and test images."""


def _pair(root: Path) -> tuple[Path, Path] | None:
    images = child(root, *IMAGES)
    masks = next((found for name in MASKS if (found := child(root, name)) and _holds(found)), None)
    return (images, masks) if images and masks and _holds(images) else None


def _holds(folder: Path) -> bool:
    return bool(list_images(folder, Found(), recursive=True))


def _parts(root: Path) -> Iterator[tuple[str, Path, Path, Split | None]]:
    pair = _pair(root)
    if pair:
        yield "", *pair, None
        return
    trunks = [(child(root, images), child(root, masks)) for images, masks in TRUNKS]
    for images, masks in trunks:
        if images and masks:
            split: Split | None = {"imagestr": "train", "imagests": "test"}.get(images.name.lower())  # type: ignore[assignment]
            yield (f"{images.name}/" if split else ""), images, masks, split
    if any(images and masks for images, masks in trunks):
        return
    for folder in children(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        pair = _pair(folder) if split and folder.is_dir() else None
        if pair:
            yield f"{folder.name}/", *pair, split


def recognise(root: Path) -> bool:
    """True if `root`, or split folders in it, hold images beside a folder of images with a name of labels."""
    return next(_parts(root), None) is not None


def load_labelled(root: Path, how: ReadSettings = READ) -> Dataset:
    """Read the pairs; what the masks hold is decided from their values and noted."""
    parts = list(_parts(root))
    if not parts:
        raise DataError(f"{root}: expected {LAYOUT}, found no such folders")
    return read_parts(root, "labelled", parts, how)
