"""One product of BTAD (beanTech): `train/ok`, `test/{ok,ko}`, `ground_truth/ko` with masks of equal names.

Licence: CC BY-NC-SA 4.0. Citation: Mishra, Verk, Fornasier, Piciarelli, Foresti, "VT-ADL: A Vision Transformer Network
for Image Anomaly Detection and Localization", ISIE 2021.
"""

from __future__ import annotations

from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Split
from specialsam.data.anomaly import Kind, add_kinds, masks_by_name
from specialsam.data.pairs import Found, child
from specialsam.data.read_settings import READ, ReadSettings

LAYOUT = "train/ok and test/ko + ground_truth/ko"
LICENCE = "CC BY-NC-SA 4.0"
CITATION = "Mishra et al., VT-ADL (BTAD), ISIE 2021"
HALVES: tuple[Split, ...] = ("train", "test")


def recognise(root: Path) -> bool:
    """True if train/ok or test/ko lies there."""
    train, test = child(root, "train"), child(root, "test")
    return test is not None and child(test, "ko") is not None and (train is None or child(train, "ok") is not None)


def load_btad(root: Path, how: ReadSettings = READ) -> Dataset:
    """Read one product; good images (ok) are labelled as empty."""
    if not recognise(root):
        raise DataError(f"{root}: expected BTAD's {LAYOUT}, found no such folders")
    found, kinds, truth = Found(), [], child(root, "ground_truth")
    for split in HALVES:
        half = child(root, split)
        for category in ("ok", "ko"):
            folder = child(half, category) if half else None
            if folder is None:
                continue
            masks = masks_by_name(found, child(truth, "ko") if truth else None) if category == "ko" else None
            kinds.append(Kind(folder, split, category, f"{split}/{category}/", masks))
    notes = add_kinds(found, kinds, how)
    records, problems = tuple(found.records), tuple(found.problems)
    return Dataset(f"BTAD {root.name}", root, "btad", records, problems, LICENCE, CITATION, tuple(notes))
