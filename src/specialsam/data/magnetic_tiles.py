"""Magnetic tiles: `MT_<kind>/Imgs/` of `<name>.jpg` with the mask `<name>.png` beside it.

Licence: unknown, for research. Citation: Huang, Qiu, Yuan, "Surface defect saliency of magnetic tile", The Visual
Computer 2020.

Kinds are Blowhole, Break, Crack, Fray, Uneven and Free; the masks of the last one are black.
"""

from __future__ import annotations

from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset
from specialsam.data.paired import Part, add_parts
from specialsam.data.pairs import Found, child, children, list_images
from specialsam.data.read_settings import READ, ReadSettings

LAYOUT = "MT_<kind>/Imgs/ of <name>.jpg + <name>.png"
CITATION = "Huang et al., Surface defect saliency of magnetic tile, The Visual Computer 2020"
LICENCE = "unknown, for research"
PICTURES = (".jpg", ".jpeg")
PREFIX, FREE = "MT_", "Free"


def _kinds(root: Path) -> list[tuple[str, Path]]:
    folders = [path for path in children(root) if path.is_dir() and path.name.startswith(PREFIX)]
    return [(path.name, images) for path in folders if (images := child(path, "imgs")) is not None]


def recognise(root: Path) -> bool:
    """True if folders MT_<kind>/Imgs lie there."""
    return bool(_kinds(root))


def load_magnetic_tiles(root: Path, how: ReadSettings = READ) -> Dataset:
    """Read every kind; it is category and label."""
    kinds = _kinds(root)
    if not kinds:
        raise DataError(f"{root}: expected the magnetic tiles' {LAYOUT}, found no such folders")
    found, parts = Found(), []
    for name, folder in kinds:
        files = list_images(folder, found)
        pictures = {path.stem: path for path in files if path.suffix.lower() in PICTURES}
        drawn = {path.stem: path for path in files if path.suffix.lower() not in PICTURES}
        kind = name.removeprefix(PREFIX)
        label = "" if kind == FREE else kind
        parts.append(Part(pictures, drawn, f"{name}/", None, None, category=kind, label=label))
    notes = add_parts(found, parts, how)
    records, problems = tuple(found.records), tuple(found.problems)
    return Dataset("magnetic tiles", root, "magnetic_tiles", records, problems, LICENCE, CITATION, tuple(notes))
