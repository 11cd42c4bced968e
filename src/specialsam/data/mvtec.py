"""One category of MVTec AD: `train/good`, `test/{good,<type>}`, `ground_truth/<type>/NNN_mask.png`.

Licence: CC BY-NC-SA 4.0. Citation: Bergmann, Batzner, Fauser, Sattlegger, Steger, "The MVTec Anomaly Detection
Dataset", IJCV 2021 (first at CVPR 2019).

Good images are known to hold no object: they carry the mask kind "rle" without any run-length mask, which tells them
apart from unlabelled ones ("none"). The category of a record is its defect type or "good".
"""

from __future__ import annotations

from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Record, Split
from specialsam.data import mvtec_loco
from specialsam.data.pairs import Found, add_pair, by_stem, child, children, list_images, report_orphans

LAYOUT = "train/good and test/<type> + ground_truth/<type>"
LICENCE = "CC BY-NC-SA 4.0"
CITATION = "Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021"
GOOD = "good"
SUFFIX = "_mask"


def recognise(root: Path) -> bool:
    """True if train/good lies beside test, and the masks are not those of MVTec LOCO."""
    train = child(root, "train")
    whole = train is not None and child(train, GOOD) is not None and child(root, "test") is not None
    return whole and not mvtec_loco.recognise(root)


def load_mvtec(root: Path) -> Dataset:
    """Read one category; train and test are the stated splits, the defect type is category and label."""
    if not recognise(root):
        raise DataError(f"{root}: expected MVTec AD's {LAYOUT}, found no such folders")
    found = Found()
    truth = child(root, "ground_truth")
    types: set[str] = set()
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        half = child(root, split)
        for folder in children(half) if half else []:
            if not folder.is_dir():
                found.problem(folder, "not an image", f"{folder}: expected a folder of one type, got a file")
                continue
            types.add(folder.name)
            _add_type(found, folder, truth / folder.name if truth else None, split)
    for folder in [path for path in children(truth) if path.is_dir() and path.name not in types] if truth else []:
        masks = by_stem(list_images(folder, found), folder, found)
        report_orphans(found, masks)
    name = f"MVTec AD {root.name}"
    return Dataset(name, root, "mvtec", tuple(found.records), tuple(found.problems), LICENCE, CITATION)


def _add_type(found: Found, folder: Path, masks: Path | None, split: Split) -> None:
    """Add the images of one type; good ones are labelled empty, the others need a mask NNN_mask."""
    good = folder.name == GOOD
    drawn = by_stem(list_images(masks, found), masks, found) if masks and split == "test" and not good else {}
    used: set[str] = set()
    for stem, image in by_stem(list_images(folder, found), folder, found).items():
        name = stem + SUFFIX if stem + SUFFIX in drawn else stem
        used.add(name)
        id, labels = f"{split}/{folder.name}/{stem}", () if good else (folder.name,)
        record = Record(id, image, drawn.get(name), labels=labels, category=folder.name, split=split)
        add_pair(found, record, without_mask="rle" if good else None)
    report_orphans(found, {name: mask for name, mask in drawn.items() if name not in used})
