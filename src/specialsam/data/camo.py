"""CAMO, camouflaged animals and people: `Images/{Train,Test}` + `GT` with equal names.

Licence: research use. Citation: Le, Nguyen, Nie, Tran, Sugimoto, "Anabranch Network for Camouflaged Object
Segmentation", CVIU 2019.

1,000 training and 250 test images. Names end in a number: 00001-01000 are animals, above that people, body art and
other things. One mask is RGB and one has grey levels: channel 0 above 127 is foreground.
"""

from __future__ import annotations

import re
from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Record, Split
from specialsam.data.pairs import Found, add_pair, by_stem, child, list_images, report_orphans

LAYOUT = "Images/Train and Images/Test + GT/"
LICENCE = "research use"
CITATION = "Le et al., Anabranch Network for Camouflaged Object Segmentation, CVIU 2019"
LAST_ANIMAL = 1000


def classify(stem: str) -> tuple[str, str]:
    """("animal", "") for a name whose number is at most 1000, ("other", "") above, ("", "") without a number."""
    number = re.search(r"(\d+)$", stem)
    if number is None:
        return "", ""
    return ("animal" if int(number[1]) <= LAST_ANIMAL else "other"), ""


def recognise(root: Path) -> bool:
    """True if Images/Train or Images/Test lies beside GT."""
    images = child(root, "images")
    return images is not None and child(root, "gt") is not None and child(images, "train", "test") is not None


def load_camo(root: Path) -> Dataset:
    """Read CAMO; GT holds the masks of both halves, Train and Test are the stated splits."""
    images, masks = child(root, "images"), child(root, "gt")
    if not recognise(root) or images is None or masks is None:
        raise DataError(f"{root}: expected CAMO's {LAYOUT}, found no such folders")
    found = Found()
    drawn = by_stem(list_images(masks, found), masks, found)
    used: set[str] = set()
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        half = child(images, split)
        if half is None:
            continue
        for stem, image in by_stem(list_images(half, found), half, found).items():
            used.add(stem)
            category, supercategory = classify(stem)
            mask = drawn.get(stem)
            add_pair(found, Record(stem, image, mask, category=category, supercategory=supercategory, split=split))
    report_orphans(found, {stem: mask for stem, mask in drawn.items() if stem not in used})
    return Dataset("CAMO", root, "camo", tuple(found.records), tuple(found.problems), LICENCE, CITATION)
