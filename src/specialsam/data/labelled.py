"""Images beside a folder of masks under another name than `masks/`: `images/` + `labels/`, `gt/`, `annotations/`, ...

Licence and citation: as for a plain folder (`dataset.json`), else unknown to the product, the data are yours.

Everything else is as in a plain folder: sub-folders, splits (`train/images` + `train/labels`), names, several masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Split
from specialsam.data.folder import Folders, read_parts, split_parts
from specialsam.data.pairs import Found, child, children, list_images
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
TRUNK_SPLITS: Mapping[str, Split] = {"imagestr": "train", "imagests": "test"}


def _pair(root: Path) -> tuple[Path | None, Path | None]:
    folders = {path.name.lower(): path for path in reversed(children(root)) if path.is_dir()}  # listed once
    images, masks = (
        next((folders[name] for name in names if name in folders and _holds(folders[name])), None)
        for names in (IMAGES, MASKS)
    )
    return images, masks


def _holds(folder: Path) -> bool:
    return bool(list_images(folder, Found(), recursive=True))


def _parts(root: Path) -> list[Folders]:
    images, masks = _pair(root)
    if images and masks:
        return [("", images, masks, None)]
    trunks: list[Folders] = []
    for names in TRUNKS:
        images, masks = (child(root, name) for name in names)
        if images and _holds(images):
            split = TRUNK_SPLITS.get(names[0])
            trunks.append((f"{images.name}/" if split else "", images, masks, split))
    return trunks if any(masks for _, _, masks, _ in trunks) else split_parts(root, _pair)


def recognise(root: Path) -> bool:
    """True if `root`, or split folders in it, hold images beside a folder of images with a name of labels."""
    return bool(_parts(root))


def load_labelled(root: Path, how: ReadSettings = READ) -> Dataset:
    """Read the pairs; what the masks hold is decided from their values and noted."""
    parts = _parts(root)
    if not parts:
        raise DataError(f"{root}: expected {LAYOUT}, found no such folders")
    return read_parts(root, "labelled", parts, how)
