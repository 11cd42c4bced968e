"""One category of MVTec LOCO AD: as MVTec AD, but `ground_truth/<type>/<NNN>/*.png`, a folder of masks an image.

Licence: CC BY-NC-SA 4.0. Citation: Bergmann, Batzner, Fauser, Sattlegger, Steger, "Beyond Dents and Scratches: Logical
Constraints in Unsupervised Anomaly Detection and Localization", IJCV 2022.

Each file in an image's folder is a defect of its own. `validation/good` is the stated validation split.
"""

from __future__ import annotations

from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Split
from specialsam.data.anomaly import Kind, add_kinds
from specialsam.data.pairs import Found, child, children, list_images
from specialsam.data.read_settings import READ, ReadSettings

LAYOUT = "train/good and test/<type> + ground_truth/<type>/<NNN>/*.png"
LICENCE = "CC BY-NC-SA 4.0"
CITATION = "Bergmann et al., Beyond Dents and Scratches (MVTec LOCO AD), IJCV 2022"
HALVES: tuple[tuple[str, Split], ...] = (("train", "train"), ("validation", "val"), ("test", "test"))


def recognise(root: Path) -> bool:
    """True if train/good lies beside test, and ground_truth's types hold folders that are called like test images."""
    train, test, truth = child(root, "train"), child(root, "test"), child(root, "ground_truth")
    if train is None or test is None or truth is None or child(train, "good") is None:
        return False
    for kind in [path for path in children(truth) if path.is_dir()]:
        stems = {path.stem for path in list_images(test / kind.name, Found())}
        if any(below.name in stems for below in children(kind) if below.is_dir()):
            return True
    return False


def load_mvtec_loco(root: Path, how: ReadSettings = READ) -> Dataset:
    """Read one category; the defect type is category and label, good images are labelled as empty."""
    if not recognise(root):
        raise DataError(f"{root}: expected MVTec LOCO's {LAYOUT}, found no such folders")
    found, truth = Found(), child(root, "ground_truth")
    kinds = []
    for name, split in HALVES:
        half = child(root, name)
        for folder in [path for path in children(half) if path.is_dir()] if half else []:
            masks = None if folder.name == "good" else _masks(found, truth / folder.name if truth else None)
            kinds.append(Kind(folder, split, folder.name, f"{half.name if half else name}/{folder.name}/", masks))
    notes = add_kinds(found, kinds, how)
    records, problems = tuple(found.records), tuple(found.problems)
    name = f"MVTec LOCO AD {root.name}"
    return Dataset(name, root, "mvtec_loco", records, problems, LICENCE, CITATION, tuple(notes))


def _masks(found: Found, truth: Path | None) -> dict[str, list[Path]]:
    """The mask files of each image of a type."""
    if truth is None or not truth.is_dir():
        return {}
    return {folder.name: list_images(folder, found) for folder in children(truth) if folder.is_dir()}
