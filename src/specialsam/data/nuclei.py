"""A folder an image: `<id>/images/<id>.png` + `<id>/masks/*.png`, a mask file an object; the 2018 nuclei set has it.

Licence of that set: CC0. Citation: Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data
Science Bowl", Nature Methods 2019. Your own data may have the same layout; its licence is then unknown to the product.

One level of folders above the images' (stage1_train, train, ...) is read as well and may state the split. An image's
folder without masks/ is unlabelled, one with an empty masks/ is labelled as empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Split
from specialsam.data.image_index import split_of
from specialsam.data.paired import Part, add_parts
from specialsam.data.pairs import SPLIT_NAMES, Found, child, children, list_images, regular
from specialsam.data.read_settings import READ, ReadSettings

LAYOUT = "<id>/images/ + <id>/masks/ with a mask file an object"
LOOKED = 20
"""Folders that are looked into to recognise the layout."""


def _folders(root: Path) -> list[Path]:
    return [path for path in children(root) if path.is_dir()]


def _one_image(folder: Path) -> bool:
    """Whether a folder's images/ holds a single one."""
    images = child(folder, "images", "image")
    return images is not None and len(regular(list_images(images, Found()))) == 1


def _fits(root: Path) -> bool:
    """Whether most folders in `root` hold one image and masks, and are called no split."""
    folders = _folders(root)[:LOOKED]
    if not folders or all(path.name.lower() in SPLIT_NAMES for path in folders):
        return False
    both = [path for path in folders if _one_image(path) and child(path, "masks", "mask")]
    return bool(both) and 2 * len(both) >= len(folders)


def _tops(root: Path) -> Iterator[tuple[str, Path, Split | None]]:
    """(id prefix, folder, split) of each folder that holds the folders of images."""
    if _fits(root):
        yield "", root, None
        return
    for folder in _folders(root)[:LOOKED]:
        if _fits(folder):
            yield f"{folder.name}/", folder, split_of(folder.name)


def recognise(root: Path) -> bool:
    """True if most folders in `root`, or in a folder of it, hold images/ and masks/."""
    return next(_tops(root), None) is not None


def load_nuclei(root: Path, how: ReadSettings = READ) -> Dataset:
    """Read every image with all of its masks, whether they overlap or not."""
    tops = list(_tops(root))
    if not tops:
        raise DataError(f"{root}: expected {LAYOUT}, found no such folders")
    if how.several == "auto":
        how = how.model_copy(update={"several": "objects"})
    found = Found()
    parts = [_part(found, prefix, top, split) for prefix, top, split in tops]
    notes = add_parts(found, parts, how)
    return Dataset(root.name, root, "nuclei", tuple(found.records), tuple(found.problems), notes=tuple(notes))


def _part(found: Found, prefix: str, top: Path, split: Split | None) -> Part:
    pictures: dict[str, Path] = {}
    drawn: dict[str, Path] = {}
    pairs: dict[str, list[str]] = {}
    unlabelled = set()
    for folder in _folders(top):
        images, masks = child(folder, "images", "image"), child(folder, "masks", "mask")
        files = list_images(images, found) if images else []
        own = regular(files)
        names = [folder.name if own == [path] else f"{folder.name}/{path.stem}" for path in files]
        pictures.update(zip(names, files, strict=True))
        if masks is None:
            unlabelled.update(names)
        inside = {f"{folder.name}/{path.name}": path for path in list_images(masks, found)} if masks else {}
        drawn.update(inside)
        if inside:
            pairs.update({name: list(inside) for name, path in zip(names, files, strict=True) if path in own[:1]})
    return Part(pictures, drawn, prefix, split, pairs, lambda name: "none" if name in unlabelled else "rle")
