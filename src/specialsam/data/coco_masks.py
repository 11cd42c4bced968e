"""One COCO `segmentation` (polygons, uncompressed or compressed run lengths) to a checked run-length dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from specialsam.core.errors import DataError
from specialsam.core.masks import RunLength

LONGEST_RUN = 60
"""Bits of one run of a compressed string: more are no run, and take longer with each character."""


def run_total(counts: str) -> int:
    """Pixels that a compressed run-length string covers; DataError for characters or runs that cannot be.

    The string holds signed numbers of 5 bits a character (48 added, bit 5 says "goes on"), from the fourth on as the
    difference to the number two before (COCO API, `rleToString`). pycocotools reads past the end of what it decodes
    when the total is not height x width, so this is checked before.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise DataError(f"the run-length string holds the character {character!r}")
        value |= (bits & 0x1F) << shift
        shift += 5
        if shift > LONGEST_RUN:
            raise DataError("the run-length string holds a run longer than any image")
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            raise DataError("the run-length string holds a negative run")
        runs.append(value)
        value, shift = 0, 0
    if shift:
        raise DataError("the run-length string is cut short")
    return sum(runs)


@dataclass
class Leftovers:
    """What was left out of segmentations that were used all the same."""

    stray: int = 0


def to_rle(
    segmentation: object, height: int, width: int, shares: bool = False, left: Leftovers | None = None
) -> RunLength:
    """A run-length dictionary of (height, width) whose counts are a str; DataError (no file named) if it cannot be.

    Polygons come as COCO has them, as one flat list of numbers, or as points. With `shares` their numbers are shares
    of the image's sides. Parts of fewer than three points beside good ones are left out and counted in `left`. An
    object that covers no pixel is an error too: nothing could be prompted or measured on it.
    """
    from pycocotools import mask as coco

    if isinstance(segmentation, dict):
        counts = _checked(segmentation, height, width)
    elif isinstance(segmentation, list) and segmentation:
        polygons = [_polygon(points) for points in _parts(segmentation, left)]
        if shares:
            polygons = [[v * (width, height)[k % 2] for k, v in enumerate(points)] for points in polygons]
        counts = coco.merge(coco.frPyObjects(polygons, height, width))["counts"]
    else:
        raise DataError(
            "expected polygons or run lengths, got an empty segmentation (a box alone is no mask: give boxes to "
            "`specialsam segment --prompts`)"
        )
    if not int(coco.area({"size": [height, width], "counts": counts})):
        raise DataError("the object covers no pixel of the image")
    return {"size": [height, width], "counts": counts.decode("ascii")}


def parts_of(segmentation: object) -> list[object]:
    """The polygons of a segmentation, each as a flat list of numbers where it is one; [] where it has none."""
    if not isinstance(segmentation, list) or not segmentation:
        return []
    if all(_number(value) for value in segmentation):
        return [segmentation]
    if len(segmentation) >= 3 and all(_point(value) is not None for value in segmentation):
        return [[number for value in segmentation for number in _point(value) or ()]]
    return [_flattened(part) for part in segmentation]


def _parts(segmentation: list[object], left: Leftovers | None) -> list[object]:
    """The polygons without strays of fewer than three points beside others."""
    parts = parts_of(segmentation)
    good = [part for part in parts if not (isinstance(part, list) and len(part) < 6 and len(part) % 2 == 0)]
    if good and left is not None:
        left.stray += len(parts) - len(good)
    return good or parts


def _flattened(part: object) -> object:
    if isinstance(part, list) and part and all(_point(value) is not None for value in part):
        return [number for value in part for number in _point(value) or ()]
    return part


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _point(value: object) -> tuple[float, float] | None:
    """(x, y) of a point as a pair or as an object with x and y; None for anything else."""
    if isinstance(value, dict) and _number(value.get("x")) and _number(value.get("y")):
        return value["x"], value["y"]
    if isinstance(value, list) and len(value) == 2 and all(map(_number, value)):
        return value[0], value[1]
    return None


def _polygon(points: object) -> list[float]:
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        got = f"{len(points)} numbers" if isinstance(points, list) else type(points).__name__
        raise DataError(f"expected a polygon of at least 3 points (x, y, x, y, ...), got {got}")
    if not all(isinstance(value, int | float) and abs(value) < 1e6 for value in points):  # NaN is not below
        raise DataError("expected a polygon of finite numbers within the image")
    return [float(value) for value in points]


def _checked(segmentation: Mapping[str, object], height: int, width: int) -> bytes:
    """The compressed runs of a stated run-length dictionary, once its size and runs are in order."""
    from pycocotools import mask as coco

    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        got = size if isinstance(size, list) and all(isinstance(side, int) for side in size) else type(size).__name__
        raise DataError(f"expected run lengths of {height}x{width}, got {got}")
    if isinstance(counts, str):
        total = run_total(counts)
    elif isinstance(counts, list) and all(isinstance(run, int) and run >= 0 for run in counts):
        total = sum(counts)
    else:
        raise DataError(f"expected run lengths as a string or a list of counts, got {type(counts).__name__}")
    if total != height * width:
        raise DataError(f"expected run lengths that cover {height * width} pixels, got {total}")
    if isinstance(counts, str):
        return counts.encode("ascii")
    packed: bytes = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    return packed
