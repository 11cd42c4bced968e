"""Rivals against areas computed by hand, and against what they score on real camouflaged animals."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from specialsam.core.errors import DataError
from specialsam.core.masks import from_binary
from specialsam.core.types import Prompts
from specialsam.evaluation.rivals import disc, disc_radius, filled_box, relative_area
from specialsam.metrics import overlap
from specialsam.prompts import draw, generator

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("SPECIALSAM_REAL_DATA", ROOT / "../shared/data"))


def points(*places: tuple[float, float], labels: list[int] | None = None) -> Prompts:
    array = np.array([places], np.float32)
    return Prompts("points", points=array, labels=np.array([labels or [1] * len(places)], np.int64))


def test_radius_is_that_of_the_median_object():
    # Oracle: area = pi r^2. Objects are discs of r 10, 20 and 90 in images whose shorter side is 200.
    areas = [np.pi * radius**2 / 200**2 for radius in (90, 10, 20)]
    assert disc_radius(areas) == pytest.approx(0.1)


def test_relative_area_and_radius_of_a_drawn_disc():
    rows, columns = np.mgrid[:200, :300]
    mask = (columns - 150) ** 2 + (rows - 100) ** 2 <= 50**2
    assert disc_radius([relative_area(mask)]) == pytest.approx(0.25, abs=0.002)
    drawn = disc(points((150, 100)), (200, 300), 0.25)[0]
    np.testing.assert_array_equal(drawn, mask)


def test_disc_stands_at_the_mean_of_the_foreground_points():
    mask = disc(points((10, 10), (30, 20), (90, 90), labels=[1, 1, 0]), (100, 100), 0.05)[0]
    rows, columns = np.nonzero(mask)
    assert (columns.mean(), rows.mean()) == (20, 15)
    assert mask.sum() == 81  # whole pixels within 5 of a pixel's centre (Gauss circle problem)


def test_disc_stands_at_the_box_centre_without_foreground_points():
    boxes = np.array([[0, 0, 20, 10], [40, 40, 60, 80]], np.float32)
    prompts = Prompts("box", boxes=boxes)
    centres = [np.argwhere(mask).mean(0).tolist() for mask in disc(prompts, (100, 100), 0.03)]
    assert centres == [[5, 10], [60, 50]]
    negative = Prompts("x", points=np.zeros((2, 1, 2), np.float32), labels=np.zeros((2, 1), np.int64), boxes=boxes)
    np.testing.assert_array_equal(disc(negative, (100, 100), 0.03), disc(prompts, (100, 100), 0.03))


def test_a_tiny_radius_still_marks_the_pixel():
    assert disc(points((4, 5)), (20, 20), 1e-6)[0].sum() == 1


def test_filled_box_is_the_object_when_the_object_is_a_box():
    masks = np.zeros((2, 20, 30), bool)
    masks[0, 3:9, 5:17] = True
    masks[1, 0:20, 29:30] = True
    np.testing.assert_array_equal(filled_box(draw("box", masks, generator(0))[0][1], (20, 30)), masks)
    assert filled_box(points((1, 1)), (20, 30)) is None


def test_what_has_no_centre_or_size_is_refused():
    with pytest.raises(DataError, match="foreground point or a box"):
        disc(points((1, 1), labels=[0]), (10, 10), 0.1)
    with pytest.raises(DataError, match="radius"):
        disc(points((1, 1)), (10, 10), 0)
    for wrong in ([], [0.1, 0.0], [float("nan")]):
        with pytest.raises(DataError, match="positive areas"):
            disc_radius(wrong)


@pytest.mark.real
def test_scores_on_camouflaged_animals():
    """Anchors measured once on 120 of CAMO's animals, mean IoU: disc of .3 at the centre of mass .42, box .485."""
    folder = REAL / "camo" / "GT"
    if not folder.is_dir():
        pytest.skip(f"no CAMO masks in {folder}: set SPECIALSAM_REAL_DATA")
    animals = [path for path in folder.glob("*.png") if int(path.stem.split("_")[1]) <= 1000]
    chosen = sorted(animals, key=lambda path: hashlib.sha256(path.stem.encode()).hexdigest())[:200]
    scores = []
    for path in chosen:
        masks = from_binary(np.asarray(Image.open(path)))
        centre, box = (draw(name, masks, generator(0))[0][1] for name in ("center_of_mass", "box"))
        size = masks.shape[1:]
        guesses = disc(centre, size, 0.3)[0], filled_box(box, size)[0]
        scores.append([overlap(guess, masks[0])["iou"] for guess in guesses])
    assert len(scores) == 200
    assert np.mean(scores, axis=0) == pytest.approx([0.42, 0.485], abs=0.03)
