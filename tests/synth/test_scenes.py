"""Generated scenes: the same for a seed on every call, exact and sizeable masks, hidden animals, resumable folders."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.synth.scenes import (
    MOST_MASKS,
    SMALLEST,
    Scene,
    contact_sheet,
    cracked_scene,
    scene,
    write_dataset,
)

KINDS = {"object", "animal", "thin", "part", "hole", "region"}


def digest(made: Scene) -> str:
    return hashlib.sha256(made.image.tobytes() + made.masks.tobytes() + " ".join(made.kinds).encode()).hexdigest()


def test_same_seed_gives_same_scene_in_any_order() -> None:
    first = {seed: digest(scene(seed, 96)) for seed in (3, 1, 2)}
    again = {seed: digest(scene(seed, 96)) for seed in (2, 3, 1)}
    assert first == again
    assert len(set(first.values())) == 3


def test_same_seed_gives_same_scene_in_another_process() -> None:
    program = "import sys; sys.path.insert(0, sys.argv[1]); import test_scenes as t; print(t.digest(t.scene(11, 96)))"
    told = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent)], check=True, capture_output=True, text=True
    )
    assert told.stdout.strip() == digest(scene(11, 96))


@settings(max_examples=14, deadline=None)
@given(
    seed=st.integers(0, 2**31), size=st.sampled_from([64, 128, 200]), camouflage=st.sampled_from([None, 0.0, 0.5, 1.0])
)
def test_masks_are_sizeable_and_named(seed: int, size: int, camouflage: float | None) -> None:
    made = scene(seed, size, camouflage)
    assert made.image.shape == (size, size, 3)
    assert made.image.dtype == np.uint8
    assert made.masks.dtype == np.bool_
    assert made.masks.shape[1:] == (size, size)
    assert 1 <= len(made.masks) == len(made.kinds) <= MOST_MASKS
    assert set(made.kinds) <= KINDS
    assert (made.masks.sum((1, 2)) >= SMALLEST * size * size).all()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_parts_lie_within_objects_and_wholes_do_not_overlap(seed: int) -> None:
    made = scene(seed, 128)
    whole = np.array([kind not in ("part", "hole") for kind in made.kinds])
    wholes, parts = made.masks[whole], made.masks[~whole]
    assert wholes.sum(0).max() <= 1
    for part in parts:
        assert any(not (part & ~each).any() for each in wholes) or not (wholes & part).any()


@pytest.mark.parametrize("seed", range(6))
def test_hidden_animal_has_the_colour_of_its_ground(seed: int) -> None:
    made = scene(seed, 128, 1.0)
    assert made.kinds.count("animal") == 1
    mask = made.masks[made.kinds.index("animal")]
    ring = cv2.dilate(mask.astype(np.uint8), np.ones((25, 25), np.uint8)).astype(bool) & ~mask
    apart = np.abs(made.image[mask].mean(0) - made.image[ring].mean(0)).max()
    assert apart < 60


def test_never_camouflage_still_draws_objects() -> None:
    kinds = {kind for seed in range(6) for kind in scene(seed, 96, 0.0).kinds}
    assert {"object", "region"} <= kinds


def test_dataset_goes_on_where_it_stopped(tmp_path: Path) -> None:
    write_dataset(tmp_path, 2, 96, 5)
    image, mask = tmp_path / "images/scene-00000.jpg", tmp_path / "masks/scene-00000.png"
    stamp, content = image.stat().st_mtime_ns, mask.read_bytes()
    mask.unlink()
    write_dataset(tmp_path, 3, 96, 5)
    assert mask.read_bytes() == content
    later = image.stat().st_mtime_ns
    write_dataset(tmp_path, 3, 96, 5)
    assert image.stat().st_mtime_ns == later >= stamp
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert written == {
        f"{folder}-0000{i}.{end}" for i in range(3) for folder, end in (("images/scene", "jpg"), ("masks/scene", "png"))
    }
    plane = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    assert plane.shape == (96, 96)
    assert set(np.unique(plane)) == {0, 255}
    made = scene(5, 96, 1.0)
    assert np.array_equal(plane > 127, made.masks[made.kinds.index("animal")])


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.sampled_from([320, 640]))
def test_a_cracked_surface_has_one_thin_crack(seed: int, size: int) -> None:
    """Oracle: the distance transform; a line of 2 to 5 pixels, blurred a little, is nowhere far from its border."""
    made = cracked_scene(seed, size)
    assert made.image.shape == (size, size, 3)
    mask = made.masks[made.kinds.index("thin")]
    assert made.kinds.count("thin") == 1
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    assert np.median(depth[mask]) <= 3
    assert mask.sum() > 40
    assert mask.any(0).sum() + mask.any(1).sum() > 0.15 * size


def test_a_dataset_of_cracks(tmp_path: Path) -> None:
    write_dataset(tmp_path, 2, 320, 3, cracks=True)
    plane = cv2.imread(str(tmp_path / "masks/scene-00001.png"), cv2.IMREAD_UNCHANGED)
    made = cracked_scene(4, 320)
    assert np.array_equal(plane > 127, made.masks[made.kinds.index("thin")])


def test_contact_sheet_shape() -> None:
    sheet = contact_sheet(range(3), 64, 2)
    assert sheet.shape == (128, 256, 3)
    assert sheet.dtype == np.uint8
