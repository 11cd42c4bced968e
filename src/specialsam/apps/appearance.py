"""What kind of pictures a threshold was set on: it says nothing of another size, or of pictures without colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from specialsam.core.errors import DataError
from specialsam.core.geometry import ImageArray
from specialsam.data.look import has_colour


@dataclass(frozen=True)
class Appearance:
    """What kind of pictures a threshold was set on: their (height, width), and whether they are grey."""

    size: tuple[int, int]
    grey: bool


def appearance_of(image: ImageArray) -> Appearance:
    """Of a picture uint8 (H, W, 3)."""
    return Appearance((image.shape[0], image.shape[1]), not has_colour(image))


def common(seen: Sequence[Appearance]) -> Appearance | None:
    """Of several pictures: one size and whether all are grey; None where they are of several sizes, or none."""
    if len({one.size for one in seen}) != 1:
        return None
    return Appearance(seen[0].size, all(one.grey for one in seen))


def check_appearance(image: ImageArray, expected: Appearance | None) -> None:
    """DataError in one line where a picture uint8 (H, W, 3) is of another size or colour than was expected."""
    if expected is None:
        return
    found = appearance_of(image)
    if found.size != expected.size:
        wanted, got = (f"{width} x {height}" for height, width in (expected.size, found.size))
        raise DataError(
            f"expected pictures of {wanted} px like those that the threshold was set on, got {got}; "
            "set the camera back, or give good pictures of this one: --teach"
        )
    if found.grey and not expected.grey:  # good pictures that happen to be grey say nothing of a coloured defect
        raise DataError(
            "expected colour pictures like those that the threshold was set on, got grey ones; "
            "set the camera back, or give good pictures of this one: --teach"
        )
