"""Plain folder: `images/` and `masks/` that hold files of equal names, your own data in its simplest form.

Licence and citation: as `dataset.json` beside the folders says, `{"name": ..., "licence": ..., "citation": ...}`, each
of them optional; otherwise unknown to the product, the data are yours.

Sub-folders of `images/` are mirrored in `masks/`. A first sub-folder train, val or test states the split (also as
`train/images` + `train/masks`), the next one the category. Where no mask has the image's name, masks named
`<name>_<anything>` are taken: one a data set's suffix ("_mask"), several one an annotator, of whom the first counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from specialsam.core.documents import document, parse_json
from specialsam.core.errors import DataError
from specialsam.core.files import open_regular
from specialsam.core.types import Dataset, Record, Split
from specialsam.data.mask_kind import decide
from specialsam.data.pairs import (
    ODD_VALUES,
    SPLIT_NAMES,
    Found,
    add_pair,
    by_stem,
    child,
    children,
    list_images,
    report_orphans,
)

LAYOUT = "images/ + masks/ with files of equal names (sub-folders train, val, test allowed)"
CARD = "dataset.json"
IMAGES = ("images", "image")
MASKS = ("masks", "mask")


def _parts(root: Path) -> Iterator[tuple[str, Path, Path, Split | None]]:
    """(id prefix, images folder, masks folder, stated split) of each part of the data set."""
    images, masks = child(root, *IMAGES), child(root, *MASKS)
    if images and masks:
        yield "", images, masks, None
        return
    for folder in children(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split and folder.is_dir():
            images, masks = child(folder, *IMAGES), child(folder, *MASKS)
            if images and masks:
                yield f"{folder.name}/", images, masks, split


def recognise(root: Path) -> bool:
    """True if `root` holds images and masks folders, or split folders that do."""
    return next(_parts(root), None) is not None


def _described(stem: str, split: Split | None) -> tuple[Split | None, str]:
    """(split, category) that the folders in a relative name state."""
    folders = list(PurePosixPath(stem).parts[:-1])
    if split is None and folders and folders[0].lower() in SPLIT_NAMES:
        split = SPLIT_NAMES[folders.pop(0).lower()]
    return split, "/".join(folders)


def _suffixed(stems: dict[str, Path], masks: dict[str, Path]) -> dict[str, list[str]]:
    """Names of masks called `<image>_<anything>` for each image without a mask of its own name."""
    out: dict[str, list[str]] = defaultdict(list)
    for name in masks:
        if name in stems:
            continue
        head = name
        while "_" in PurePosixPath(head).name:
            head = head.rpartition("_")[0]
            if head in stems:
                if head not in masks:
                    out[head].append(name)
                break
    return out


def load_folder(root: Path) -> Dataset:
    """Read a plain folder; whether its masks are binary or label maps is decided from their values and noted."""
    parts = list(_parts(root))
    if not parts:
        raise DataError(f"{root}: expected {LAYOUT}, found no such folders")
    found = Found()
    listed = []
    for prefix, images, masks, split in parts:
        pictures = by_stem(list_images(images, found, recursive=True), images, found)
        drawn = by_stem(list_images(masks, found, recursive=True), masks, found)
        listed.append((prefix, split, pictures, drawn, _suffixed(pictures, drawn)))
    decision = decide([path for _, _, _, drawn, _ in listed for path in drawn.values()])
    kind: Literal["binary", "index"] = decision.kind
    odd = set(decision.odd)
    more = 0
    for prefix, part_split, pictures, drawn, suffixed in listed:
        used: set[str] = set()
        for stem, image in pictures.items():
            names = [stem] if stem in drawn else suffixed.get(stem, [])
            used.update(names)
            more += max(0, len(names) - 1)
            mask = drawn[names[0]] if names else None
            if mask in odd:
                message = f"{image}: the values of its mask {mask} do not fit, as {decision.note}"
                found.problem(image, ODD_VALUES, message)
                continue
            split, category = _described(stem, part_split)
            add_pair(found, Record(prefix + stem, image, mask, category=category, split=split), kind)
        report_orphans(found, {name: mask for name, mask in drawn.items() if name not in used})
    notes = [decision.note]
    if more:
        notes.append(f"{more} further masks of the same images were left out: the first annotator counts")
    own = {"name": root.name, **_stated(root / CARD)}
    return Dataset(
        root=root,
        layout="folder",
        records=tuple(found.records),
        problems=tuple(found.problems),
        notes=tuple(notes),
        **own,
    )


def _stated(path: Path) -> dict[str, str]:
    """Name, licence and citation that a data set's card states; DataError where it cannot be read."""
    if not path.exists():
        return {}
    try:
        with open_regular(path) as file:
            card = parse_json(document(file))
        if not isinstance(card, dict) or not all(isinstance(value, str) for value in card.values()):
            raise ValueError("no object of texts")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a JSON object with name, licence and citation, got {error}") from error
    unknown = sorted(set(card) - {"name", "licence", "citation"})
    if unknown:
        raise DataError(f"{path}: expected name, licence and citation, got {', '.join(unknown)}")
    return card
