"""VisA, visual anomalies: `<object>/Data/Images/{Normal,Anomaly}`, `<object>/Data/Masks/Anomaly`.

Licence: CC BY 4.0. Citation: Zou, Jeong, Pemula, Zhang, Dabeer, "SPot-the-Difference Self-Supervised Pre-training for
Anomaly Detection and Segmentation", ECCV 2022.

The whole set, or one of its objects. Masks hold the number of the kind of defect; each is an object. The data set's
own splits lie in CSV files of their own and are not stated here.
"""

from __future__ import annotations

from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset
from specialsam.data.anomaly import Kind, add_kinds, masks_by_name
from specialsam.data.pairs import Found, child, children
from specialsam.data.read_settings import READ, ReadSettings

LAYOUT = "<object>/Data/Images/{Normal,Anomaly} + <object>/Data/Masks/Anomaly"
LICENCE = "CC BY 4.0"
CITATION = "Zou et al., SPot-the-Difference (VisA), ECCV 2022"


def _inner(root: Path) -> tuple[Path, Path | None] | None:
    """(Images, Masks) of one object, None where `root` is none."""
    data = child(root, "data")
    images = child(data, "images") if data else None
    if data is None or images is None or child(images, "anomaly", "normal") is None:
        return None
    return images, child(data, "masks")


def _objects(root: Path) -> list[tuple[str, Path, Path | None]]:
    own = _inner(root)
    if own:
        return [("", *own)]
    below = [(path.name, _inner(path)) for path in children(root) if path.is_dir()]
    return [(f"{name}/", *inner) for name, inner in below if inner]


def recognise(root: Path) -> bool:
    """True if `root`, or a folder in it, holds Data/Images/Normal or Anomaly."""
    return bool(_objects(root))


def load_visa(root: Path, how: ReadSettings = READ) -> Dataset:
    """Read one object or all of them; normal images are labelled as empty, the category is normal or anomaly."""
    objects = _objects(root)
    if not objects:
        raise DataError(f"{root}: expected VisA's {LAYOUT}, found no such folders")
    found, kinds = Found(), []
    for prefix, images, masks in objects:
        for category in ("normal", "anomaly"):
            folder = child(images, category)
            if folder is None:
                continue
            drawn = masks_by_name(found, child(masks, category) if masks else None) if category == "anomaly" else None
            kinds.append(Kind(folder, None, category, f"{prefix}{folder.name}/", drawn))
    notes = add_kinds(found, kinds, how)
    records, problems = tuple(found.records), tuple(found.problems)
    return Dataset(f"VisA {root.name}", root, "visa", records, problems, LICENCE, CITATION, tuple(notes))
