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

import re
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
ANY_IMAGES = ("images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "input", "inputs", "data", "x")
ANY_MASKS = (
    "masks",
    "mask",
    "labels",
    "label",
    "gt",
    "gts",
    "groundtruth",
    "ground_truth",
    "ground-truth",
    "annotations",
    "annotation",
    "annots",
    "segmentations",
    "segmentation",
    "segmentationmasks",
    "segmentation_masks",
    "seg",
    "targets",
    "target",
    "mattes",
    "output",
    "y",
)
_MASK_OF = re.compile(rf"[_.-](?:{'|'.join(ANY_MASKS)})$", re.IGNORECASE)
"""How the name of a mask ends that lies beside its image."""

Folders = tuple[str, Path, Path | None, Split | None]
"""(id prefix, images folder, masks folder or None, stated split) of a part of a data set."""


def _pair(root: Path) -> tuple[Path | None, Path | None]:
    return child(root, *IMAGES), child(root, *MASKS)


def any_pair(root: Path) -> tuple[Path | None, Path | None]:
    """The folders of images and of masks in `root` by any name that is usual for them; None where there is none."""
    images = child(root, *ANY_IMAGES)
    masks = next((found for name in ANY_MASKS if (found := child(root, name)) and holds_images(found)), None)
    return images if images and holds_images(images) else None, masks


def holds_images(folder: Path) -> bool:
    """Whether images lie in the folder, at any depth."""
    return bool(list_images(folder, Found(), recursive=True))


def _parts(root: Path) -> list[Folders]:
    images, masks = _pair(root)
    return [("", images, masks, None)] if images and masks else split_parts(root, _pair)


def split_parts(root: Path, pair: Callable[[Path], tuple[Path | None, Path | None]]) -> list[Folders]:
    """The parts in the split folders of `root`, by what `pair` or else `any_pair` says of each.

    None where `pair` finds images and masks in no split. A split of images alone (pictures for a contest's test) is a
    part without masks; one whose masks lie among its images is no part.
    """
    folders = [path for path in children(root) if path.name.lower() in SPLIT_NAMES and path.is_dir()]
    found = {folder: pair(folder) for folder in folders}
    if not any(images and masks for images, masks in found.values()):
        return []
    parts: list[Folders] = []
    for folder, (images, masks) in found.items():
        prefix, split = f"{folder.name}/", SPLIT_NAMES[folder.name.lower()]
        if not (images and masks) and all(wider := any_pair(folder)):
            images, masks = wider
        alone = images or (folder if _of_pictures_alone(folder) else None)
        if images and masks:
            parts.append((prefix, images, masks, split))
        elif alone:
            parts.append((prefix, alone, None, split))
    return parts


def _of_pictures_alone(folder: Path) -> bool:
    """Whether images lie right in the folder, and no masks among them (`cat.png` beside `cat_mask.png`)."""
    stems = {path.stem for path in list_images(folder, Found())}
    return bool(stems) and not any((end := _MASK_OF.search(stem)) and stem[: end.start()] in stems for stem in stems)


def _left_out(root: Path, parts: Sequence[Folders]) -> list[str]:
    """A note on each split folder that holds images of which no part was made."""
    read = {prefix for prefix, *_ in parts}
    splits = [path for path in children(root) if path.name.lower() in SPLIT_NAMES and path.is_dir()]
    unread = [] if "" in read else [path for path in splits if f"{path.name}/" not in read and holds_images(path)]
    return [
        f"{path.name}/: {len(list_images(path, Found(), recursive=True))} images left out: expected images/ and masks/ "
        "(or labels/, gt/) in it"
        for path in unread
    ]


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
