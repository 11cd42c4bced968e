"""Pascal VOC's masks, as CVAT exports them too: `JPEGImages/`, `SegmentationObject/` or `SegmentationClass/`.

Licence of Pascal VOC: that of its photographs (flickr). Citation: Everingham, Van Gool, Williams, Winn, Zisserman, "The
Pascal Visual Object Classes (VOC) Challenge", IJCV 2010. An export of your own has the licence of your own.

Where there are masks of objects they count, else those of classes, one object a class. The value 255 of palette files
and the colour (224, 224, 192) are void. `ImageSets/Segmentation/{train,val,test}.txt` state splits; images without a
mask are unlabelled.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Split
from specialsam.data.class_names import labelmap_classes, named
from specialsam.data.headers import is_palette
from specialsam.data.matching import matches
from specialsam.data.paired import Part, add_parts
from specialsam.data.pairs import SPLIT_NAMES, Found, by_stem, child, list_images
from specialsam.data.read_settings import READ, ReadSettings

LAYOUT = "JPEGImages/ + SegmentationObject/ or SegmentationClass/"
IMAGES, OBJECTS, CLASSES = ("jpegimages", "images"), "segmentationobject", "segmentationclass"
VOID, VOID_COLOUR = 255, 0xE0E0C0


def recognise(root: Path) -> bool:
    """True if JPEGImages (or images) lies beside SegmentationObject or SegmentationClass."""
    return child(root, *IMAGES) is not None and child(root, OBJECTS, CLASSES) is not None


def load_voc(root: Path, how: ReadSettings = READ) -> Dataset:
    """Read the images with the masks of their objects, or else of their classes."""
    images, masks = child(root, *IMAGES), _masks(root)
    if images is None or masks is None:
        raise DataError(f"{root}: expected Pascal VOC's {LAYOUT}, found no such folders")
    found = Found()
    pictures = by_stem(list_images(images, found, recursive=True), images, found)
    drawn = by_stem(list_images(masks, found, recursive=True), masks, found)
    if not how.void and drawn:
        how = how.model_copy(update={"void": (VOID if _of_palette(drawn.values()) else VOID_COLOUR,)})
    splits = _splits(root)
    pairs = matches([*pictures], [*drawn])
    part = Part(pictures, drawn, "", None, pairs, lambda name: "none")
    notes = add_parts(found, [part], how, lambda name, split: (splits.get(name, split), ""))
    notes = [f"masks of {masks.name}", *notes]
    records, said = named(found.records, labelmap_classes(root / "labelmap.txt"), "labelmap.txt")
    return Dataset(root.name, root, "voc", records, tuple(found.problems), notes=(*notes, *said))


def _of_palette(masks: Iterable[Path]) -> bool:
    """Whether the first mask that can be opened holds indices into a palette."""
    for path in masks:
        with suppress(DataError):
            return is_palette(path)
    return True


def _masks(root: Path) -> Path | None:
    """The folder of masks that counts: of objects where it holds any, else of classes."""
    folders = [folder for name in (OBJECTS, CLASSES) if (folder := child(root, name))]
    return next((folder for folder in folders if list_images(folder, Found(), recursive=True)), None)


def _splits(root: Path) -> dict[str, Split]:
    """The split of each name that the lists in ImageSets state; a name in two lists is in the first of them."""
    sets = child(root, "imagesets")
    folder = child(sets, "segmentation") if sets else None
    out: dict[str, Split] = {}
    for stem, split in SPLIT_NAMES.items():
        path = folder / f"{stem}.txt" if folder else None
        if path is not None and path.is_file():
            try:
                for line in path.read_text(encoding="utf-8-sig").splitlines():
                    out.setdefault(line.split()[0] if line.split() else "", split)
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{path}: expected a list of names in UTF-8, cannot read it ({error})") from error
    return out
