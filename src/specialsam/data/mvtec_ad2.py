"""One category of MVTec AD 2: `train/good`, `validation/good`, `test_public/{good,bad,ground_truth/bad}`.

Licence: CC BY-NC-SA 4.0. Citation: Heckler-Kram, Neudeck, Scheler, König, Steger, "The MVTec AD 2 Dataset: Advanced
Scenarios for Unsupervised Anomaly Detection", 2025.

`test_public` is the stated test split; the images of `test_private` and `test_private_mixed` come without truth and
are unlabelled.
"""

from __future__ import annotations

from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset
from specialsam.data.anomaly import Kind, add_kinds, masks_by_name
from specialsam.data.pairs import Found, child, list_images
from specialsam.data.read_settings import READ, ReadSettings

LAYOUT = "train/good, validation/good and test_public/{good,bad} + test_public/ground_truth/bad"
LICENCE = "CC BY-NC-SA 4.0"
CITATION = "Heckler-Kram et al., The MVTec AD 2 Dataset, 2025"
PRIVATE = ("test_private", "test_private_mixed")


def recognise(root: Path) -> bool:
    """True if test_public holds good or bad images."""
    public = child(root, "test_public")
    return public is not None and child(public, "bad", "good") is not None


def load_mvtec_ad2(root: Path, how: ReadSettings = READ) -> Dataset:
    """Read one category; good images are labelled as empty, the category of a record is good or bad."""
    public = child(root, "test_public")
    if public is None or not recognise(root):
        raise DataError(f"{root}: expected MVTec AD 2's {LAYOUT}, found no such folders")
    found, kinds = Found(), []
    for name, split in (("train", "train"), ("validation", "val"), ("test_public", "test")):
        half = child(root, name)
        good = child(half, "good") if half else None
        if half and good:
            kinds.append(Kind(good, split, "good", f"{half.name}/good/"))  # type: ignore[arg-type]
    bad, truth = child(public, "bad"), child(public, "ground_truth")
    if bad:
        masks = masks_by_name(found, child(truth, "bad") if truth else None)
        kinds.append(Kind(bad, "test", "bad", f"{public.name}/bad/", masks))
    for name in PRIVATE:
        folder = child(root, name)
        if folder and list_images(folder, Found()):
            kinds.append(Kind(folder, None, "", f"{folder.name}/", None, unlabelled=True))
    notes = add_kinds(found, kinds, how)
    records, problems = tuple(found.records), tuple(found.problems)
    return Dataset(f"MVTec AD 2 {root.name}", root, "mvtec_ad2", records, problems, LICENCE, CITATION, tuple(notes))
