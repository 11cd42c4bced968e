"""How pictures look as a whole. Oracle: pictures drawn by hand, with and without colour, of known sizes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from specialsam.core.types import Look
from specialsam.data.look import has_colour, look_at, unlike

GREY, COLOUR = Look(9, 1.0, 300, 640), Look(9, 0.0, 300, 640)


def picture(
    colour: bool, size: tuple[int, int] = (48, 64), seed: int = 0
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    rng = np.random.default_rng(seed)
    if colour:
        return rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    return np.repeat(rng.integers(0, 255, (*size, 1), dtype=np.uint8), 3, 2)


def written(folder: Path, colours: list[bool], size: tuple[int, int] = (48, 64), ending: str = ".png") -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}{ending}" for number in range(len(colours))]
    for number, (path, colour) in enumerate(zip(paths, colours, strict=True)):
        cv2.imwrite(str(path), picture(colour, size, number))
    return paths


@pytest.mark.parametrize("size", [(1, 1), (48, 64), (700, 3)])
def test_grey_stored_as_rgb_has_no_colour(size: tuple[int, int]) -> None:
    assert not has_colour(picture(False, size))
    assert has_colour(picture(True, (48, 64)))


def test_jpeg_makes_no_colour_of_grey(tmp_path: Path) -> None:
    assert look_at(written(tmp_path, [False] * 3, ending=".jpg")) == Look(3, 1.0, 64, 64)


def test_a_look_counts_what_can_be_read(tmp_path: Path) -> None:
    paths = written(tmp_path / "a", [True, False, False]) + written(tmp_path / "b", [True], (90, 20))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    assert look_at([*paths, broken]) == Look(4, 0.5, 64, 90)
    assert look_at([broken]) is None
    assert look_at([]) is None


def test_of_many_pictures_some_are_read_spread_over_all(tmp_path: Path) -> None:
    paths = written(tmp_path, [True] * 50 + [False] * 50, (4, 4))
    look = look_at(paths)
    assert look is not None
    assert look.pictures <= 24
    assert 0.4 <= look.grey <= 0.6


@pytest.mark.parametrize(
    ("known", "seen", "says"),
    [
        (GREY, COLOUR, "these pictures are in colour, this specialist learned from pictures without colour"),
        (COLOUR, GREY, "these pictures are without colour, this specialist learned from pictures in colour"),
        (COLOUR, Look(9, 0.0, 2000, 4000), "these pictures are 2000 px and more on their longest side"),
        (COLOUR, Look(9, 0.0, 60, 90), "these pictures are 90 px and less on their longest side"),
    ],
)
def test_pictures_of_another_kind_are_named(known: Look, seen: Look, says: str) -> None:
    (line,) = unlike(known, seen)
    assert line.startswith(says)


@pytest.mark.parametrize("seen", [COLOUR, Look(9, 0.5, 300, 640), Look(9, 0.0, 1500, 1900), Look(9, 0.0, 110, 640)])
def test_alike_is_silent(seen: Look) -> None:
    assert unlike(COLOUR, seen) == []
