"""Wood species photographs: `images/images/*.jpg` + `wood.csv` (image, species); textures without masks.

Licence: unknown, ask the source of your copy. Citation: none known.

The textures are the material of the mosaics; their category is the species.
"""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Record
from specialsam.data.headers import SUFFIXES
from specialsam.data.pairs import MISSING, Found, add_pair, by_stem, child, list_images

LAYOUT = "images/images/ (or images/) + wood.csv"
FILE_COLUMNS = ("image", "file", "filename", "file_name", "image_name", "path")
SPECIES_COLUMNS = ("species", "label", "class", "category", "name", "wood")


def recognise(root: Path) -> bool:
    """True if wood.csv lies beside images."""
    return (root / "wood.csv").is_file() and child(root, "images") is not None


def _species(table: Path, found: Found) -> dict[str, str]:
    """Species by file name without ending, from wood.csv."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            columns = {column.strip().lower(): column for column in rows.fieldnames or () if column}
            name = next((columns[column] for column in FILE_COLUMNS if column in columns), None)
            species = next((columns[column] for column in SPECIES_COLUMNS if column in columns), None)
            if name is None or species is None:
                raise DataError(f"{table}: expected columns image and species, got {', '.join(columns) or 'none'}")
            out: dict[str, str] = {}
            for row in rows:
                file_name = PurePosixPath((row[name] or "").strip().replace("\\", "/"))
                stem = file_name.stem if file_name.suffix.lower() in SUFFIXES else file_name.name
                value = (row[species] or "").strip()
                if stem in out and out[stem] != value:
                    message = f"{table}: line {rows.line_num} gives {stem!r} a second species, the first counts"
                    found.problem(table, "duplicate name", message)
                elif stem:
                    out[stem] = value
            return out
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: expected a CSV table in UTF-8, cannot read it ({error})") from error


def load_wood(root: Path) -> Dataset:
    """Read the textures as unlabelled records whose category is the species; table and folder are compared."""
    outer = child(root, "images")
    table = root / "wood.csv"
    if outer is None or not table.is_file():
        raise DataError(f"{root}: expected {LAYOUT}, found no such files")
    images = child(outer, "images") or outer
    found = Found()
    species = _species(table, found)
    pictures = by_stem(list_images(images, found), images, found)
    for stem, image in pictures.items():
        add_pair(found, Record(stem, image, category=species.get(stem, "")), without_mask="none")
    for stem in species:
        if stem not in pictures:
            found.problem(images / stem, MISSING, f"{table}: names the image {stem!r}, found none in {images}")
    notes = ["textures without masks, for mosaics"]
    unknown = sum(1 for stem in pictures if not species.get(stem))
    if unknown:
        notes.append(f"{unknown} images are not in wood.csv: their species is unknown")
    return Dataset("wood", root, "wood", tuple(found.records), tuple(found.problems), notes=tuple(notes))
