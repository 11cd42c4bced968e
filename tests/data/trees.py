"""Builders of miniature data sets in each one's real layout, for the tests of the adapters."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

HEIGHT, WIDTH = 24, 32


def real_data(name: str) -> Path:
    """The folder of a real data set; the test is skipped where it is absent."""
    root = Path(os.environ.get("SPECIALSAM_REAL_DATA", Path(__file__).parents[2] / "../shared/data")).resolve()
    if not (root / name).is_dir():
        pytest.skip(f"real data set {name} is not in {root} (set SPECIALSAM_REAL_DATA)")
    return root / name


def picture(path: Path, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Path:
    """Write a random RGB image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def blob(height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.uint8]:
    """A 0/255 mask with a 6x8 rectangle: 48 foreground pixels."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[4:10, 8:16] = 255
    return pixels


def mask(path: Path, pixels: npt.NDArray[Any] | None = None) -> Path:
    """Write a mask, `blob()` unless told."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blob() if pixels is None else pixels).save(path)
    return path


def empty() -> npt.NDArray[np.uint8]:
    return np.zeros((HEIGHT, WIDTH), np.uint8)


def folder_tree(root: Path, names: tuple[str, ...] = ("a", "b", "c")) -> Path:
    for seed, name in enumerate(names):
        picture(root / "images" / f"{name}.jpg", seed)
        mask(root / "masks" / f"{name}.png")
    return root


def cod10k_tree(root: Path) -> Path:
    """Train: two CAM, two NonCAM (one with a mask file); Test: one CAM."""
    cam = ("COD10K-CAM-3-Flying-55-Butterfly-3330", "COD10K-CAM-1-Aquatic-9-GhostPipefish-412")
    non = ("COD10K-NonCAM-5-Background-5-Vegetation-4854", "COD10K-NonCAM-3-Flying-1515")
    for seed, name in enumerate(cam + non):
        picture(root / "Train/Image" / f"{name}.jpg", seed)
        if name != non[1]:
            mask(root / "Train/GT_Object" / f"{name}.png", None if name in cam else empty())
    picture(root / "Test/Image/COD10K-CAM-2-Terrestrial-45-Spider-2500.jpg", 9)
    mask(root / "Test/GT_Object/COD10K-CAM-2-Terrestrial-45-Spider-2500.png")
    mask(root / "Train/GT_Instance" / f"{cam[0]}.png")
    return root


def sinet_tree(root: Path) -> Path:
    for half, name in (
        ("TrainDataset", "COD10K-CAM-3-Flying-55-Butterfly-3330"),
        ("TrainDataset", "camourflage_00012"),
        ("TestDataset/CAMO", "camourflage_01200"),
        ("TestDataset/CHAMELEON", "animal-1"),
        ("TestDataset/NC4K", "10"),
    ):
        picture(root / half / "Imgs" / f"{name}.jpg", len(name))
        mask(root / half / "GT" / f"{name}.png")
    return root


def camo_tree(root: Path) -> Path:
    """One RGB mask and one with grey levels, as the real set has; number 1000 is the last animal."""
    for half, number in (("Train", 1), ("Train", 1000), ("Train", 1001), ("Test", 7)):
        picture(root / "Images" / half / f"camourflage_{number:05d}.jpg", number)
        drawn = blob()
        if number == 1:
            drawn = np.repeat(drawn[..., None], 3, 2)
        if number == 7:
            drawn[4, 8:16] = (10, 60, 120, 127, 128, 190, 240, 255)
        mask(root / "GT" / f"camourflage_{number:05d}.png", drawn)
    return root


def mvtec_tree(root: Path) -> Path:
    for name in ("train/good/000", "train/good/001", "test/good/000", "test/hole/000", "test/hole/001", "test/cut/000"):
        picture(root / f"{name}.png", len(name))
    for name in ("hole/000", "hole/001", "cut/000"):
        mask(root / "ground_truth" / f"{name}_mask.png")
    (root / "license.txt").write_text("CC BY-NC-SA 4.0")
    return root


def wood_tree(root: Path) -> Path:
    lines = ["image,species"]
    for seed, (name, species) in enumerate((("oak--one-60x60", "oak"), ("oak--two", "oak"), ("pine--p.1", "pine"))):
        picture(root / "images/images" / f"{name}.jpg", seed)
        lines.append(f"{name}.jpg,{species}")
    (root / "wood.csv").write_text("\n".join(lines) + "\n")
    return root


def coco_content() -> dict[str, Any]:
    """Two cats (polygon 8x6 and uncompressed run lengths of 4 pixels) and a dog on image 1, nothing on image 2."""
    run_lengths = {"size": [HEIGHT, WIDTH], "counts": [2, 4, HEIGHT * WIDTH - 6]}
    square = [8, 4, 16, 4, 16, 10, 8, 10]
    return {
        "images": [
            {"id": 1, "file_name": "one.jpg", "height": HEIGHT, "width": WIDTH},
            {"id": 2, "file_name": "two.jpg", "height": HEIGHT, "width": WIDTH},
        ],
        "annotations": [
            {"id": 10, "image_id": 1, "category_id": 5, "segmentation": [square], "iscrowd": 0},
            {"id": 11, "image_id": 1, "category_id": 7, "segmentation": [[0, 12, 6, 12, 6, 18]], "iscrowd": 0},
            {"id": 12, "image_id": 1, "category_id": 5, "segmentation": run_lengths, "iscrowd": 0},
        ],
        "categories": [
            {"id": 5, "name": "cat", "supercategory": "animal"},
            {"id": 7, "name": "dog", "supercategory": "animal"},
        ],
        "licenses": [{"id": 1, "name": "CC BY 4.0"}],
    }


def coco_tree(root: Path, content: dict[str, Any] | None = None) -> Path:
    for seed, name in enumerate(("one", "two")):
        picture(root / "images" / f"{name}.jpg", seed)
    (root / "annotations").mkdir()
    text = json.dumps(coco_content() if content is None else content)
    (root / "annotations/instances_train2017.json").write_text(text)
    return root


TREES = {
    "folder": folder_tree,
    "cod10k": cod10k_tree,
    "sinet": sinet_tree,
    "camo": camo_tree,
    "mvtec": mvtec_tree,
    "wood": wood_tree,
    "coco": coco_tree,
}
