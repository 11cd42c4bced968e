"""The data sets on which ways of tuning are compared (`benchmarks/tuning.py`), so small that many can be tried.

python benchmarks/tuning_sets.py OUT DATA [--side 384] [--images 300] [--sets camo,wood,hard,grid,fabric,cracks]

`DATA` holds `camo/`, `wood/`, `mvtec_grid/` and `fabric/` as their authors lay them out. Below OUT each becomes a plain
folder of pictures whose longer side is at most `--side`: animals of CAMO, the first by a stable hash of their names;
mosaics of wood of all difficulties, and of `hard` alone; synthetic defects on MVTec's grid, with its real ones for the
test; the fabric as it is; generated cracks of 2 to 5 pixels. A folder that is there is left as it is.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from specialsam.core.console import say
from specialsam.core.types import Record
from specialsam.data.images import write_png
from specialsam.data.loading import load
from specialsam.data.open import open_dataset
from specialsam.data.splits import stable_hash
from specialsam.studies.carpet.prepare import prepare_carpet
from specialsam.studies.recipe import CarpetRecipe, WoodRecipe, load_recipe
from specialsam.studies.wood.prepare import prepare_wood
from specialsam.synth.mosaic_plan import LADDER
from specialsam.synth.scenes import write_dataset

CRACKS_SEED = 50_000


def shrunk(records: Sequence[Record], folder: Path, side: int, split: bool = False) -> None:
    """Pictures and label maps of `records`, the longer side at most `side`; with `split` below their splits' names."""
    for record in records:
        sample = load(record)
        height, width = sample.image.shape[:2]
        scale = min(1.0, side / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        labels = np.zeros((height, width), np.uint8)
        for number, mask in enumerate(sample.masks, 1):
            labels[mask] = number if len(sample.masks) > 1 else 255
        name = f"{record.id.replace('/', '-')}.png"
        place = Path(record.split or "") if split else Path()
        write_png(folder / "masks" / place / name, cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST))
        write_png(folder / "images" / place / name, cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA))


def camo(folder: Path, data: Path, side: int, images: int) -> None:
    animals = [record for record in open_dataset(str(data / "camo")).records if record.category == "animal"]
    shrunk(sorted(animals, key=lambda record: stable_hash(record.id))[:images], folder, side)


def mosaics(folder: Path, data: Path, side: int, images: int, *difficulties: str) -> None:
    counts = {"train": round(0.6 * images), "val": round(0.2 * images), "test": round(0.2 * images)}
    data_of = {**counts, "side": side, "difficulties": difficulties, "train_difficulties": difficulties}
    recipe = load_recipe("wood", "revised", {"data": data_of})
    assert isinstance(recipe, WoodRecipe)
    prepare_wood(str(data / "wood"), recipe, "nano", None, folder)


def grid(folder: Path, data: Path, side: int, images: int) -> None:
    counts = {"train": round(0.75 * images), "val": round(0.25 * images)}
    recipe = load_recipe("carpet", "revised", {"data": counts})
    assert isinstance(recipe, CarpetRecipe)
    parts = folder.with_name("grid-parts")
    prepare_carpet(str(data / "mvtec_grid"), recipe, "nano", None, parts / "whole")
    with_objects = [
        record for record in open_dataset(f"folder:{parts / 'whole'}").records if record.mask_kind != "none"
    ]
    shrunk(with_objects, folder, side, split=True)
    shutil.rmtree(parts)


def fabric(folder: Path, data: Path, side: int, images: int) -> None:
    shrunk(open_dataset(str(data / "fabric")).records[:images], folder, side)


def cracks(folder: Path, data: Path, side: int, images: int) -> None:
    write_dataset(folder, images, side, CRACKS_SEED, cracks=True)


SETS: dict[str, Callable[[Path, Path, int, int], None]] = {
    "camo": camo,
    "wood": lambda *where: mosaics(*where, *LADDER),
    "hard": lambda *where: mosaics(*where, "hard"),
    "grid": grid,
    "fabric": fabric,
    "cracks": cracks,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--sets", default=",".join(SETS))
    asked = parser.parse_args()
    for name in asked.sets.split(","):
        folder = asked.out / name
        if folder.exists():
            continue
        making = asked.out / f"{name}-making"
        shutil.rmtree(making, ignore_errors=True)
        SETS[name](making, asked.data, asked.side, asked.images)
        making.rename(folder)
        say(f"{name}: folder:{folder}")


if __name__ == "__main__":
    main()
