"""Plain folder: `images/` and `masks/` that hold files of equal names, your own data in its simplest form.

Licence and citation: as `dataset.json` beside the folders says, `{"name": ..., "licence": ..., "citation": ...}`, each
of them optional; otherwise unknown to the product, the data are yours.

Sub-folders of `images/` are mirrored in `masks/`. A first sub-folder train, val or test states the split (also as
`train/images` + `train/masks`), the next one the category. Where no mask has the image's name, masks named
`<name>_<anything>` are taken, then what `data.matching` says. Several masks of an image are its objects where they
hardly overlap; where they agree they are annotators', of whom the first counts. A `dataset.json` of another tool is
noted and passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from specialsam.core.documents import document, parse_json
from specialsam.core.errors import DataError
from specialsam.core.files import open_regular
from specialsam.core.types import Dataset, Split
from specialsam.data.matching import base_of_mask, plain
from specialsam.data.paired import Part, add_parts
from specialsam.data.pairs import SPLIT_NAMES, Found, by_stem, child, children, list_images
from specialsam.data.read_settings import READ, ReadSettings

LAYOUT = "images/ + masks/ with files of equal names (sub-folders train, val, test allowed)"
CARD = "dataset.json"
FIELDS = ("name", "licence", "citation")
NEARLY = ("license",)
"""Names that are mistaken for those of a card of ours."""
IMAGES = ("images", "image")
MASKS = ("masks", "mask")
Folders = tuple[str, Path, Path | None, Split | None]
"""(id prefix, images folder, masks folder or None, stated split) of a part of a data set."""


def _pair(root: Path) -> tuple[Path | None, Path | None]:
    return child(root, *IMAGES), child(root, *MASKS)


def _parts(root: Path) -> list[Folders]:
    images, masks = _pair(root)
    return [("", images, masks, None)] if images and masks else split_parts(root, _pair)


def split_parts(root: Path, pair: Callable[[Path], tuple[Path | None, Path | None]]) -> list[Folders]:
    """The parts in the split folders of `root` by what `pair` says of each: one at least has masks.

    A split of images alone (pictures for a contest's test) is a part without masks; one whose masks lie among its
    images is no part.
    """
    parts: list[Folders] = []
    for folder in _splits(root):
        prefix, split = f"{folder.name}/", SPLIT_NAMES[folder.name.lower()]
        images, masks = pair(folder)
        alone = images or (folder if _of_pictures_alone(folder) else None)
        if images and masks:
            parts.append((prefix, images, masks, split))
        elif alone:
            parts.append((prefix, alone, None, split))
    return parts if any(masks for _, _, masks, _ in parts) else []


def _splits(root: Path) -> list[Path]:
    return [path for path in children(root) if path.name.lower() in SPLIT_NAMES and path.is_dir()]


def _of_pictures_alone(folder: Path) -> bool:
    """Whether images lie right in the folder, and no masks among them (`cat.png` beside `cat_mask.png`)."""
    names = {plain(path.name) for path in list_images(folder, Found())}
    return bool(names) and not any(base_of_mask(name) in names for name in names)


def _holding(folders: Iterable[Path]) -> list[tuple[Path, int]]:
    """Those of the folders that hold images, at any depth, with their number."""
    counted = [(path, len(list_images(path, Found(), recursive=True))) for path in folders if path.is_dir()]
    return [(path, number) for path, number in counted if number]


def _left_out(root: Path, parts: Sequence[Folders]) -> list[str]:
    """A note on each split folder that holds images of which no part was made."""
    read = {prefix for prefix, *_ in parts}
    unread = [] if "" in read else [path for path in _splits(root) if f"{path.name}/" not in read]
    says = "images left out: expected images/ and masks/ in it"
    return [f"{path.name}/: {number} {says}" for path, number in _holding(unread)]


def _unlabelled(root: Path, images: Path, number: int) -> str:
    """A note on images that have no masks, with the folders beside them that look as if they had been meant."""
    beside = [] if images.parent == root else [path for path in children(images.parent) if path != images]
    names = ", ".join(f"{path.name}/" for path, _ in _holding(beside))
    note = (
        f"{images.relative_to(root).as_posix()}: {number} images without a folder of masks beside them are unlabelled"
    )
    return (
        f"{note} ({names} is not read: call a folder of masks as that of the other splits is called)" if names else note
    )


def recognise(root: Path) -> bool:
    """True if `root` holds images and masks folders, or split folders that do."""
    return bool(_parts(root))


def described(stem: str, split: Split | None) -> tuple[Split | None, str]:
    """(split, category) that the folders in a relative name state."""
    folders = list(PurePosixPath(stem).parts[:-1])
    if split is None and folders and folders[0].lower() in SPLIT_NAMES:
        split = SPLIT_NAMES[folders.pop(0).lower()]
    return split, "/".join(folders)


def load_folder(root: Path, how: ReadSettings = READ) -> Dataset:
    """Read a plain folder; what its masks hold is decided from their values and noted."""
    parts = _parts(root)
    if not parts:
        raise DataError(f"{root}: expected {LAYOUT}, found no such folders")
    return read_parts(root, "folder", parts, how)


def read_parts(root: Path, layout: str, parts: Sequence[Folders], how: ReadSettings) -> Dataset:
    """The data set of these parts, with what its card states; images of a part without masks are unlabelled."""
    found = Found()
    listed, unlabelled = [], []
    for prefix, images, masks, split in parts:
        pictures = by_stem(list_images(images, found, recursive=True), images, found)
        if masks is None:
            listed.append(Part(pictures, {}, prefix, split, {}, lambda name: "none"))
            unlabelled.append(_unlabelled(root, images, len(pictures)))
            continue
        drawn = by_stem(list_images(masks, found, recursive=True), masks, found)
        listed.append(Part(pictures, drawn, prefix, split))
    notes = [*add_parts(found, listed, how, described), *unlabelled, *_left_out(root, parts)]
    card, foreign = stated(root / CARD)
    own = {"name": root.name, **card}
    notes = [*notes, *([foreign] if foreign else []), *found.notes]
    return Dataset(
        root=root,
        layout=layout,
        records=tuple(found.records),
        problems=tuple(found.problems),
        notes=tuple(notes),
        **own,
    )


def stated(path: Path) -> tuple[dict[str, str], str]:
    """Name, licence and citation that a data set's card states, and a note on a card of another tool.

    DataError where it cannot be read, or is a card of ours with values that are no texts.
    """
    if not path.exists():
        return {}, ""
    try:
        with open_regular(path) as file:
            card = parse_json(document(file))
        if not isinstance(card, dict):
            raise ValueError("no object of texts")
        others = sorted(name for name in card if name not in FIELDS)
        if others and not set(card) <= {*FIELDS, *NEARLY}:
            said = {"licence": card.get("license"), **card}
            texts = {name: said[name] for name in FIELDS if isinstance(said.get(name), str)}
            told = ", ".join(map(str, others[:4]))
            return (
                texts,
                f"{path.name} is another tool's (it holds {told}): no more than name and licence is read from it",
            )
        if not all(isinstance(value, str) for value in card.values()):
            raise ValueError("no object of texts")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a JSON object with name, licence and citation, got {error}") from error
    if others:
        raise DataError(f"{path}: expected name, licence and citation, got {', '.join(others)}")
    return card, ""
