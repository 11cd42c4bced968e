"""SINet's package of the camouflage benchmarks: `TrainDataset/{Imgs,GT}`, `TestDataset/<set>/{Imgs,GT}`.

Licence: that of each set, all non-commercial research. Citation: Fan et al., "Camouflaged Object Detection", CVPR 2020
(COD10K and the package); Le et al., CVIU 2019 (CAMO); Skurowski et al., "Animal camouflage analysis: Chameleon
database", 2018 (CHAMELEON); Lv et al., "Simultaneously Localize, Segment and Rank the Camouflaged Objects", CVPR 2021
(NC4K).

The training set mixes COD10K and CAMO. One of its folders alone ({Imgs,GT}, or a folder of test sets) is read as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Split
from specialsam.data import camo, cod10k
from specialsam.data.pairs import Found, add_folder, child, children

LAYOUT = "TrainDataset/Imgs + GT and TestDataset/<set>/Imgs + GT"
LICENCE = "non-commercial research, see each set"
CITATION = "Fan et al., Camouflaged Object Detection, CVPR 2020, and the papers of CAMO, CHAMELEON and NC4K"


def classify(stem: str) -> tuple[str, str]:
    """(category, supercategory) from a COD10K or CAMO name; CHAMELEON and NC4K names say nothing."""
    if cod10k.parse_name(stem):
        return cod10k.classify(stem)
    return camo.classify(stem) if stem.startswith(("camourflage", "camouflage")) else ("", "")


def _pair(folder: Path) -> tuple[Path, Path] | None:
    images, masks = child(folder, "imgs", "image"), child(folder, "gt")
    return (images, masks) if images and masks else None


def _split(folder: Path) -> Split | None:
    name = folder.name.lower()
    return "train" if name == "traindataset" else "test" if name == "testdataset" else None


def _sets(root: Path) -> Iterator[tuple[str, Path, Path, Split | None]]:
    """(id prefix, images, masks, split) of each set found: below `root`, below its halves, or `root` itself."""
    pair = _pair(root)
    if pair:
        yield "", *pair, _split(root)
        return
    for folder in [path for path in children(root) if path.is_dir()]:
        pair = _pair(folder)
        if pair:
            yield f"{folder.name}/", *pair, _split(folder) or _split(root)
        elif _split(folder):
            for below in [path for path in children(folder) if path.is_dir()]:
                pair = _pair(below)
                if pair:
                    yield f"{folder.name}/{below.name}/", *pair, _split(folder)


def recognise(root: Path) -> bool:
    """True if Imgs lies beside GT in `root` or in its known sub-folders."""
    return next(_sets(root), None) is not None


def load_sinet(root: Path) -> Dataset:
    """Read what is there of SINet's package; ids begin with the set, e.g. TestDataset/CAMO/camourflage_00012."""
    found = Found()
    sets = list(_sets(root))
    if not sets:
        raise DataError(f"{root}: expected {LAYOUT}, found no such folders")
    for prefix, images, masks, split in sets:
        add_folder(found, images, masks, prefix=prefix, split=split, classify=classify)
    notes = (f"{len(sets)} sets: {', '.join(prefix.rstrip('/') or root.name for prefix, *_ in sets)}",)
    return Dataset(root.name, root, "sinet", tuple(found.records), tuple(found.problems), LICENCE, CITATION, notes)
