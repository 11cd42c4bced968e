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

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from specialsam.core.documents import document, parse_json
from specialsam.core.errors import DataError
from specialsam.core.files import open_regular
from specialsam.core.types import Dataset, Split
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

    A split of images alone (pictures for a contest's test) is a part without masks.
    """
    parts: list[Folders] = []
    for folder in children(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split and folder.is_dir():
            images, masks = pair(folder)
            alone = images or (folder if list_images(folder, Found()) else None)
            if images and masks:
                parts.append((f"{folder.name}/", images, masks, split))
            elif alone:
                parts.append((f"{folder.name}/", alone, None, split))
    return parts if any(masks for _, _, masks, _ in parts) else []


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
            where = images.relative_to(root).as_posix()
            unlabelled.append(f"{where}: {len(pictures)} images without a folder of masks beside them are unlabelled")
            continue
        drawn = by_stem(list_images(masks, found, recursive=True), masks, found)
        listed.append(Part(pictures, drawn, prefix, split))
    notes = [*add_parts(found, listed, how, described), *unlabelled]
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
