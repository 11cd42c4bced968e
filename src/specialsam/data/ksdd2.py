"""KolektorSDD2, defects of surfaces: `train/` and `test/` of `<number>.png` with `<number>_GT.png` beside it.

Licence: CC BY-NC-SA 4.0. Citation: Božič, Tabernik, Skočaj, "Mixed supervision for surface-defect detection: from
weakly to fully supervised learning", Computers in Industry 2021.

Most masks are black: those images are labelled as empty.
"""

from __future__ import annotations

from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Split
from specialsam.data.paired import Part, add_parts
from specialsam.data.pairs import Found, by_stem, child, list_images, regular
from specialsam.data.read_settings import READ, ReadSettings

LAYOUT = "train/ and test/ of <number>.png + <number>_GT.png"
LICENCE = "CC BY-NC-SA 4.0"
CITATION = "Božič et al., Mixed supervision for surface-defect detection (KolektorSDD2), Computers in Industry 2021"
SUFFIX = "_GT"
HALVES: tuple[Split, ...] = ("train", "test")


def recognise(root: Path) -> bool:
    """True if half of the images in train or test are masks called <number>_GT."""
    for split in HALVES:
        half = child(root, split)
        stems = [path.stem for path in regular(list_images(half, Found()))] if half else []
        if stems and 2 * sum(stem.endswith(SUFFIX) for stem in stems) >= len(stems):
            return True
    return False


def load_ksdd2(root: Path, how: ReadSettings = READ) -> Dataset:
    """Read both halves as they are stated."""
    if not recognise(root):
        raise DataError(f"{root}: expected KolektorSDD2's {LAYOUT}, found no such files")
    found, parts = Found(), []
    for split in HALVES:
        half = child(root, split)
        if half is None:
            continue
        files = by_stem(list_images(half, found), half, found)
        pictures = {stem: path for stem, path in files.items() if not stem.endswith(SUFFIX)}
        drawn = {stem: path for stem, path in files.items() if stem.endswith(SUFFIX)}
        pairs = {stem: [stem + SUFFIX] for stem in pictures if stem + SUFFIX in drawn}
        parts.append(Part(pictures, drawn, f"{split}/", split, pairs))
    notes = add_parts(found, parts, how)
    records, problems = tuple(found.records), tuple(found.problems)
    return Dataset("KolektorSDD2", root, "ksdd2", records, problems, LICENCE, CITATION, tuple(notes))
