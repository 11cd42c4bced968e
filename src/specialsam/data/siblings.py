"""Images and their masks in one folder, told apart by their names: `x.jpg` + `x_mask.png`, `x.tif` + `x_masks.tif`.

Licence and citation: unknown to the product, the data are yours. Known from BUSI (`benign (1)_mask.png`, further
objects `_mask_1`), DeepGlobe (`x_sat.jpg`), Roboflow's mask export (`_classes.csv`) and cellpose (`x_masks.tif`).

Sub-folders are read as well: a first one train, val or test states the split, the next one the category. Where no file
is called a mask, a photograph `x.jpg` and a picture without loss `x.png` of the same name are a pair.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset
from specialsam.data.class_names import named, roboflow_classes
from specialsam.data.folder import described
from specialsam.data.matching import base_of_mask, plain
from specialsam.data.paired import Part, add_parts
from specialsam.data.pairs import Found, list_images, regular
from specialsam.data.read_settings import READ, ReadSettings

LAYOUT = "images and masks in one folder: x.jpg + x_mask.png, or x.jpg + x.png"
_PICTURE = re.compile(
    r"[ _.\-]+(?:sat|img|image|rgb|orig|original|input|photo|leftimg8bit|raw)$|^(?:img|image|photo)[ _.\-]+"
)
MOST = 0.5
"""Share of the images that must have a mask beside them."""
LOSSY = (".jpg", ".jpeg")


@dataclass
class _Pairs:
    """Images and masks by name (without ending), which belong together, and further images of a name."""

    pictures: dict[str, Path] = field(default_factory=dict)
    drawn: dict[str, Path] = field(default_factory=dict)
    pairs: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    doubles: list[tuple[str, Path]] = field(default_factory=list)

    @property
    def convincing(self) -> bool:
        return bool(self.pairs) and len(self.pairs) >= MOST * len(regular(self.pictures.values()))


def _named(root: Path, files: list[Path]) -> _Pairs:
    """Pairs by the words in their names."""
    out = _Pairs()
    bases: dict[str, str] = {}
    for path in files:
        name = path.relative_to(root).as_posix()
        base = base_of_mask(name)
        if base is None:
            stem = name.rpartition(".")[0]
            if out.pictures.setdefault(stem, path) != path:
                out.doubles.append((stem, path))
        else:
            out.drawn[name] = path
            bases[name] = base
    owners = _owners(out.pictures)
    for name, base in bases.items():
        owner = owners.get(base)
        if owner is not None:
            out.pairs[owner].append(name)
    return out


def _owners(pictures: Mapping[str, Path]) -> dict[str, str]:
    """Images by their plain names, and by these without a word like `_sat` where that is nobody else's."""
    owners = {plain(name): name for name in pictures}
    for name in pictures:
        parent, _, last = plain(name).rpartition("/")
        stripped = _PICTURE.sub("", last)
        owners.setdefault(f"{parent}/{stripped}" if parent else stripped, name)
    return owners


def _same_names(root: Path, files: list[Path]) -> _Pairs:
    """Pairs of a photograph and a picture without loss that have the same name."""
    out = _Pairs()
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        by_name[path.relative_to(root).with_suffix("").as_posix()].append(path)
    for name, paths in by_name.items():
        photos = [path for path in paths if path.suffix.lower() in LOSSY]
        others = [path for path in paths if path.suffix.lower() not in LOSSY]
        if len(photos) == 1 and len(others) == 1:
            out.pictures[name], out.drawn[name] = photos[0], others[0]
            out.pairs[name].append(name)
        else:
            out.pictures[name] = paths[0]
            out.doubles += [(name, path) for path in paths[1:]]
    return out


def _pairs(root: Path, found: Found) -> _Pairs | None:
    files = list_images(root, found, recursive=True)
    return next((pairs for pairs in (_named(root, files), _same_names(root, files)) if pairs.convincing), None)


def recognise(root: Path) -> bool:
    """True if half of the images below `root` have a mask beside them by its name."""
    return _pairs(root, Found()) is not None


def load_siblings(root: Path, how: ReadSettings = READ) -> Dataset:
    """Read the pairs; an image without a mask beside it is a problem."""
    found = Found()
    pairs = _pairs(root, found)
    if pairs is None:
        raise DataError(f"{root}: expected {LAYOUT}, found no such pairs")
    for name, path in pairs.doubles:
        found.double(path, name, pairs.pictures[name])
    part = Part(pairs.pictures, pairs.drawn, pairs=pairs.pairs)
    notes = add_parts(found, [part], how, described)
    lone = sum(1 for name in pairs.pictures if name not in pairs.pairs)
    notes.append(f"{len(pairs.pairs)} images with a mask in the same folder by its name, {lone} without")
    classes = dict.fromkeys(name for path in sorted(root.rglob("_classes.csv")) for name in roboflow_classes(path))
    records, said = named(found.records, [*classes], "_classes.csv")
    return Dataset(root.name, root, "siblings", records, tuple(found.problems), notes=(*notes, *said))
