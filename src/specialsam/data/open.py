"""Open a data set by its folder: the adapters, how each recognises its layout, and one entrance to all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from specialsam.core.errors import DataError, UsageError
from specialsam.core.folders import is_url, mirrored
from specialsam.core.types import Dataset, MaskReading, Record
from specialsam.data import (
    btad,
    camo,
    coco,
    cod10k,
    folder,
    ksdd2,
    label_studio,
    labelled,
    labelme,
    magnetic_tiles,
    mvtec,
    mvtec_ad2,
    mvtec_loco,
    nuclei,
    photos,
    siblings,
    sinet,
    visa,
    voc,
    wood,
    yolo,
)
from specialsam.data.headers import SUFFIXES
from specialsam.data.pairs import children
from specialsam.data.ranges import with_readings
from specialsam.data.read_settings import READ, ReadSettings


@dataclass(frozen=True)
class Adapter:
    """A data set layout: how it looks, how it is recognised and how it is read.

    Of those that recognise a folder the ones of the lowest `rank` count: 0 layouts with names of their own, 1 what many
    people do, 2 what is left. `load` takes the folder and, where `asks`, how its files are to be read.
    """

    layout: str
    recognise: Callable[[Path], bool]
    load: Callable[..., Dataset]
    rank: int = 0
    asks: bool = False


ADAPTERS: Mapping[str, Adapter] = {
    "folder": Adapter(folder.LAYOUT, folder.recognise, folder.load_folder, asks=True),
    "cod10k": Adapter(cod10k.LAYOUT, cod10k.recognise, cod10k.load_cod10k),
    "sinet": Adapter(sinet.LAYOUT, sinet.recognise, sinet.load_sinet),
    "camo": Adapter(camo.LAYOUT, camo.recognise, camo.load_camo),
    "mvtec": Adapter(mvtec.LAYOUT, mvtec.recognise, mvtec.load_mvtec),
    "mvtec_loco": Adapter(mvtec_loco.LAYOUT, mvtec_loco.recognise, mvtec_loco.load_mvtec_loco, asks=True),
    "mvtec_ad2": Adapter(mvtec_ad2.LAYOUT, mvtec_ad2.recognise, mvtec_ad2.load_mvtec_ad2, asks=True),
    "btad": Adapter(btad.LAYOUT, btad.recognise, btad.load_btad, asks=True),
    "visa": Adapter(visa.LAYOUT, visa.recognise, visa.load_visa, asks=True),
    "ksdd2": Adapter(ksdd2.LAYOUT, ksdd2.recognise, ksdd2.load_ksdd2, asks=True),
    "magnetic_tiles": Adapter(
        magnetic_tiles.LAYOUT, magnetic_tiles.recognise, magnetic_tiles.load_magnetic_tiles, asks=True
    ),
    "nuclei": Adapter(nuclei.LAYOUT, nuclei.recognise, nuclei.load_nuclei, asks=True),
    "voc": Adapter(voc.LAYOUT, voc.recognise, voc.load_voc, asks=True),
    "wood": Adapter(wood.LAYOUT, wood.recognise, wood.load_wood),
    "coco": Adapter(coco.LAYOUT, coco.recognise, coco.load_coco, asks=True),
    "label_studio": Adapter(label_studio.LAYOUT, label_studio.recognise, label_studio.load_label_studio),
    "yolo": Adapter(yolo.LAYOUT, yolo.recognise, yolo.load_yolo, rank=1),
    "labelme": Adapter(labelme.LAYOUT, labelme.recognise, labelme.load_labelme, rank=1),
    "labelled": Adapter(labelled.LAYOUT, labelled.recognise, labelled.load_labelled, rank=1),
    "siblings": Adapter(siblings.LAYOUT, siblings.recognise, siblings.load_siblings, rank=1),
    "photos": Adapter(photos.LAYOUT, photos.recognise, photos.load_photos, rank=2),
}


def _parse(source: str | Path) -> tuple[str | None, Path]:
    """(adapter name or None, path) of `adapter:path`; a path that exists as written, colon and all, is a path."""
    if isinstance(source, str):
        name, colon, rest = source.partition(":")
        if colon and name in ADAPTERS:
            if not rest:
                raise UsageError(f"{source}: expected a path behind the colon, got none")
            return name, _there(rest)
        plain = Path(source).expanduser()
        if is_url(source):
            return None, _there(source)
        if colon and len(name) > 1 and name.isidentifier() and not plain.exists():
            raise UsageError(f"{source}: expected one of the adapters {', '.join(ADAPTERS)}, got {name!r}")
        if not source.strip():
            raise UsageError("expected a data set folder or adapter:path, got an empty name")
        return None, plain
    return None, source.expanduser()


def _there(place: str) -> Path:
    """A path as it is, a URL as the local picture of what it names."""
    return mirrored(place, SUFFIXES) if is_url(place) else Path(place).expanduser()


def recognise(root: Path) -> str:
    """The name of the one adapter whose layout `root` has; DataError that lists what was looked for otherwise."""
    if root.is_file():
        if root.suffix.lower() == ".json":
            return "label_studio" if label_studio.looks_like_tasks(root) else "coco"
        raise DataError(f"{root}: expected a folder or a COCO .json file, got a file {root.suffix or 'without ending'}")
    if not children(root):
        raise DataError(f"{root}: expected a data set, the folder is empty")
    hits: list[str] = []
    for rank in sorted({adapter.rank for adapter in ADAPTERS.values()}):
        hits = hits or [name for name, one in ADAPTERS.items() if one.rank == rank and one.recognise(root)]
    if hits == ["photos"] and (labels := photos.looks_labelled(root)):
        raise DataError(
            f"{root}: beside the images lies what looks like labels, in a layout that is none of those known: {labels};"
            f" bring it into one of them, or say photos:{root} to open the images without labels"
        )
    if len(hits) == 1:
        return hits[0]
    if hits:
        choices = " or ".join(f"{name}:{root}" for name in hits)
        raise DataError(f"{root}: the layout fits more than one data set, say which is meant: {choices}")
    looked = "; ".join(f"{name}: {adapter.layout}" for name, adapter in ADAPTERS.items())
    below = [path.name for path in children(root) if path.is_dir() and _known(path)]
    hint = f"; but these folders inside have a known one: {', '.join(below[:5])}" if below else ""
    raise DataError(f"{root}: the layout is none of those known ({looked}){hint}")


def _known(root: Path) -> bool:
    return any(adapter.recognise(root) for adapter in ADAPTERS.values())


def open_dataset(source: str | Path, how: ReadSettings = READ) -> Dataset:
    """Open `adapter:path`, or a folder (or COCO .json) whose layout is recognised, its files read as `how` says.

    A folder may be named by a URL (`s3://`, `gs://`, `file://`); its images are fetched as they are read.

    Only headers are read, and some masks and deep images, from which it is decided what their values mean. What was
    found but cannot be used stands in the data set's `problems`. Raises UsageError for an unknown adapter, and
    DataError, in one line, for a missing or empty folder, an unknown or ambiguous layout, and a folder without a single
    usable image.
    """
    name, given = _parse(source)
    root = Path(os.path.abspath(given))  # noqa: PTH100 - resolve() would lose the names of linked folders
    if not root.exists():
        raise DataError(f"{root}: expected a data set folder, found nothing there")
    adapter = ADAPTERS[name or recognise(root)]
    dataset = adapter.load(root, how) if adapter.asks else adapter.load(root)
    if not dataset.records:
        reason = "its folders hold no image files"
        if dataset.problems:
            reason = f"{len(dataset.problems)} problems, the first: {dataset.problems[0].message}"
        raise DataError(f"{root}: found no usable image (layout {dataset.layout}); {reason}")
    records, said = with_readings(dataset.records, how)
    if how.parts:
        records = tuple(_in_parts(record) for record in records)
        said = (*said, "each connected part of a mask is an object of its own, as data.parts says")
    licence = how.licence or dataset.licence
    return replace(dataset, records=records, licence=licence, notes=(*dataset.notes, *said))


def _in_parts(record: Record) -> Record:
    return replace(record, masks_as=replace(record.masks_as or MaskReading(), parts=True))
