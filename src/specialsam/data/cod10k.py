"""COD10K-v3, camouflaged animals: `{Train,Test}/Image` + `GT_Object` (`GT_Instance` and `GT_Edge` are not read).

Licence: non-commercial research. Citation: Fan, Ji, Sun, Cheng, Shen, Shao, "Camouflaged Object Detection", CVPR 2020.

Names are `COD10K-CAM-<n>-<Super>-<n>-<Sub>-<id>`; NonCAM images hold no camouflaged object and have all-zero masks
(they may show a visible animal). 3,040 of 6,000 training and 2,026 of 4,000 test images are CAM.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, MaskKind, Split
from specialsam.data.pairs import Found, add_folder, child

LAYOUT = "Train/ and Test/ with Image/ + GT_Object/"
LICENCE = "non-commercial research"
CITATION = "Fan et al., Camouflaged Object Detection, CVPR 2020"

_NAME = re.compile(r"COD10K-(?P<kind>CAM|NonCAM)-\d+-(?P<super>[^-]+)(?:-\d+-(?P<sub>.+))?-(?P<number>\d+)")


@dataclass(frozen=True)
class Name:
    """What a COD10K file name says; `category` is "" for names without a sub class (some NonCAM)."""

    camouflaged: bool
    supercategory: str
    category: str
    number: int


def parse_name(stem: str) -> Name | None:
    """Read a COD10K name, e.g. COD10K-CAM-3-Flying-55-Butterfly-3330; None for names of another form."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    return Name(match["kind"] == "CAM", match["super"], match["sub"] or "", int(match["number"]))


def classify(stem: str) -> tuple[str, str]:
    """(category, supercategory) of a name, empty where it is not COD10K's."""
    name = parse_name(stem)
    return (name.category, name.supercategory) if name else ("", "")


def _without_mask(stem: str) -> MaskKind | None:
    """A NonCAM image whose mask was left out of the package is known to hold no camouflaged object."""
    name = parse_name(stem)
    return "rle" if name and not name.camouflaged else None


def recognise(root: Path) -> bool:
    """True if Train or Test holds Image and GT_Object."""
    halves = [child(root, "train"), child(root, "test")]
    return any(half and child(half, "image") and child(half, "gt_object") for half in halves)


def load_cod10k(root: Path) -> Dataset:
    """Read COD10K-v3; category and super category come from the names, Train and Test are the stated splits."""
    if not recognise(root):
        raise DataError(f"{root}: expected COD10K's {LAYOUT}, found no such folders")
    found = Found()
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        half = child(root, split)
        images, masks = (child(half, "image"), child(half, "gt_object")) if half else (None, None)
        if images and masks:
            add_folder(found, images, masks, split=split, classify=classify, without_mask=_without_mask)
    names = [parse_name(record.id) for record in found.records]
    camouflaged = sum(1 for name in names if name and name.camouflaged)
    unknown = names.count(None)
    notes = [f"{camouflaged} CAM and {len(names) - camouflaged - unknown} NonCAM images by name"]
    if unknown:
        notes.append(f"{unknown} names are not COD10K's: their category is unknown")
    return Dataset(
        "COD10K", root, "cod10k", tuple(found.records), tuple(found.problems), LICENCE, CITATION, tuple(notes)
    )
