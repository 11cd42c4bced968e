"""What the adapters of defect sets share: folders of good images, which hold nothing, and of defects with masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from specialsam.core.types import Split
from specialsam.data.paired import Part, add_parts
from specialsam.data.pairs import Found, by_stem, list_images
from specialsam.data.read_settings import READ, ReadSettings


@dataclass(frozen=True)
class Kind:
    """The images of one kind. `masks` are the mask files of each image by its name without ending.

    None: the images are good, which says that they hold no object. `unlabelled` images say nothing.
    """

    folder: Path
    split: Split | None
    category: str
    prefix: str
    masks: Mapping[str, Sequence[Path]] | None = None
    unlabelled: bool = False


def add_kinds(found: Found, kinds: Sequence[Kind], how: ReadSettings = READ) -> list[str]:
    """Add the images of each kind to `found`, as records or as problems; what there is to say of their masks."""
    parts = [_part(found, kind) for kind in kinds]
    notes = add_parts(found, parts, how)
    return notes if any(part.drawn for part in parts) else []


def _part(found: Found, kind: Kind) -> Part:
    pictures = by_stem(list_images(kind.folder, found), kind.folder, found)
    masks = kind.masks or {}
    drawn = {f"{name}/{number}": path for name, paths in masks.items() for number, path in enumerate(paths)}
    pairs = {name: [f"{name}/{number}" for number in range(len(masks.get(name, ())))] for name in pictures}
    empty = "none" if kind.unlabelled else "rle" if kind.masks is None else None
    return Part(
        pictures,
        drawn,
        kind.prefix,
        kind.split,
        {name: names for name, names in pairs.items() if names},
        lambda name: empty,  # type: ignore[arg-type, return-value]
        kind.category,
        kind.category if kind.masks is not None else "",
    )


def masks_by_name(found: Found, folder: Path | None, suffixes: Sequence[str] = ("_mask",)) -> dict[str, list[Path]]:
    """The mask files of a flat folder by their image's name: without ending and without the first suffix that fits."""
    out: dict[str, list[Path]] = {}
    for stem, path in by_stem(list_images(folder, found), folder, found).items() if folder else ():
        suffix = next((suffix for suffix in suffixes if stem.endswith(suffix)), "")
        out.setdefault(stem[: len(stem) - len(suffix)], []).append(path)
    return out
