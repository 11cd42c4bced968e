"""One COCO `segmentation` (polygons, uncompressed or compressed run lengths) to a checked run-length dictionary."""

from __future__ import annotations

import math
from typing import Any

from specialsam.core.errors import DataError


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


def to_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """A run-length dictionary of (height, width) whose counts are a str; DataError (no file named) if it cannot be.

    An object that covers no pixel is an error too: nothing could be prompted or measured on it.
    """
    from pycocotools import mask as coco

    if isinstance(segmentation, dict):
        rle = _checked(segmentation, height, width)
    elif isinstance(segmentation, list) and segmentation:
        rle = coco.merge(coco.frPyObjects([_polygon(points) for points in segmentation], height, width))
    else:
        raise DataError("expected polygons or run lengths, got an empty segmentation")
    if not int(coco.area(rle)):
        raise DataError("the object covers no pixel of the image")
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def _polygon(points: Any) -> list[float]:
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        got = f"{len(points)} numbers" if isinstance(points, list) else type(points).__name__
        raise DataError(f"expected a polygon of at least 3 points (x, y, x, y, ...), got {got}")
    if not all(isinstance(value, int | float) and math.isfinite(value) and abs(value) < 1e6 for value in points):
        raise DataError("expected a polygon of finite numbers within the image")
    return [float(value) for value in points]


def _checked(segmentation: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """A stated run-length dictionary in compressed form (counts as bytes), once its size and runs are in order."""
    from pycocotools import mask as coco

    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or [*size] != [height, width]:
        raise DataError(f"expected run lengths of {height}x{width}, got {size}")
    if isinstance(counts, str):
        total = run_total(counts)
    elif isinstance(counts, list) and all(isinstance(run, int) and run >= 0 for run in counts):
        total = sum(counts)
    else:
        raise DataError(f"expected run lengths as a string or a list of counts, got {type(counts).__name__}")
    if total != height * width:
        raise DataError(f"expected run lengths that cover {height * width} pixels, got {total}")
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts.encode("ascii")}
    packed: dict[str, Any] = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return packed
