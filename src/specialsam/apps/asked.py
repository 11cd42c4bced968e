"""What is asked of new images, object by object, and which image a name in another tool's file means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from specialsam.core.errors import DataError
from specialsam.core.geometry import FloatArray

Box = tuple[float, float, float, float]

_APART = 1_000_000
"""Taken from the strength of a fit where two paths share their ends and contradict each other before."""


@dataclass(frozen=True)
class Asked:
    """One object that is asked for in one image: `points` float32 (K, 2) as (x, y), a box, or both.

    `point_labels` int64 (K,) is 1 foreground, 0 background. `box` is (x0, y0, x1, y1) of the outermost pixels,
    inclusive. Where `relative` is true both are fractions of the image's width and height, a box up to its right and
    lower edge. `score` in 0..1 is the detector's, 1 where a person drew; `source` names a detector or a table's row.
    """

    file: str
    points: FloatArray | None = None
    point_labels: npt.NDArray[np.int64] | None = None
    box: Box | None = None
    relative: bool = False
    label: str = ""
    score: float = 1.0
    source: str = ""

    def in_pixels(self, height: int, width: int) -> Asked:
        """The same object in pixels of an image of that size, clipped to it; points (K, 2), relative edges rounded.

        Raises DataError for a box that is empty or lies outside of the image, and for a point outside of it.
        """
        points, box = self.points, self.box
        if points is not None:
            ends = np.array([width, height], np.float64)
            places = points * ends if self.relative else points.astype(np.float64)
            within = places <= ends if self.relative else places < ends
            if not (within & (places >= 0)).all():
                raise self._outside("points", points.tolist(), height, width)
            points = np.minimum(places, ends - 1).astype(np.float32)
        if box is not None:
            across = _pixels(box[0], box[2], width, self.relative)
            down = _pixels(box[1], box[3], height, self.relative)
            if across is None or down is None:
                raise self._outside("a box (x0, y0, x1, y1)", box, height, width)
            box = (across[0], down[0], across[1], down[1])
        return replace(self, points=points, box=box, relative=False)

    def _outside(self, what: str, came: object, height: int, width: int) -> DataError:
        where = f"{self.file} ({self.source})" if self.source else self.file
        image = f"the image of {width}x{height} pixels (width x height)"
        unit = " as fractions" if self.relative else ""
        return DataError(f"{where}: expected {what} within {image}, got {came}{unit}; mend it or leave it out")


def _pixels(low: float, high: float, side: int, relative: bool) -> tuple[float, float] | None:
    """First and last pixel of a box along one side, clipped; None where it is empty or outside."""
    if relative:
        low, high = low * side, high * side
        if not (low < high and high > 0 and low < side):
            return None
        first = min(round(max(low, 0.0)), side - 1)
        return float(first), float(max(round(min(high, side)) - 1, first))
    if not (low <= high and high >= 0 and low < side):
        return None
    return min(max(low, 0.0), side - 1.0), min(high, side - 1.0)


@dataclass(frozen=True)
class PromptTable:
    """What a file asks for: objects by file (none where a detector found nothing), and files the detector failed on.

    Names are posix and printable, as the file states them; `kind` is the format in words, `notes` what was left out.
    """

    by_file: Mapping[str, tuple[Asked, ...]]
    failures: Mapping[str, str]
    kind: str
    notes: tuple[str, ...] = ()


def match(table: PromptTable, files: Sequence[str]) -> tuple[dict[str, tuple[Asked, ...]], list[str]]:
    """Objects by the files (relative, posix) that are asked for, and the names, sorted, that are of none of them.

    See `locate` for what fits; `Asked.file` becomes the file's. Names of failures count as well.
    """
    places, strangers = locate([*table.by_file, *table.failures], files)
    objects = {
        places[name]: tuple(replace(asked, file=places[name]) for asked in those)
        for name, those in table.by_file.items()
        if name in places
    }
    return objects, strangers


def locate(names: Sequence[str], files: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The file, of `files`, of each name; and the names, sorted, that fit none.

    A name fits the same path; else the path that ends as it does, or as which it ends; else the only one that shares
    the most last parts with it. A file takes the name that fits it best. Where two fit only by their last parts,
    neither does: of a survey's `cam1/1.jpg` and `cam2/1.jpg`, `cam3/1.jpg` is none.

    Raises DataError where a whole name ends two paths, or a whole path two names.
    """
    whole = {posix(file): file for file in files}
    ends: dict[str, list[str]] = {}
    for path in whole:
        for end in _ends(path):
            ends.setdefault(end, []).append(path)
    claims: dict[str, list[tuple[int, str]]] = {}
    for name in dict.fromkeys(names):
        path, strength = _nearest(name, whole, ends)
        if path:
            claims.setdefault(path, []).append((strength, name))
    places: dict[str, str] = {}
    for path, claimed in claims.items():
        strength = max(claimed)[0]
        best = sorted(name for strong, name in claimed if strong == strength)
        if len(best) == 1:
            places[best[0]] = whole[path]
        elif strength > 0:
            came = f"expected one name for the image {whole[path]!r}, got {best[0]!r} and {best[1]!r}"
            raise DataError(f"{came}; ask for the folder above it")
    return places, sorted(set(names) - set(places))


def _nearest(name: str, whole: Mapping[str, str], ends: Mapping[str, list[str]]) -> tuple[str, int]:
    """The path that a name fits, "" for none, and how well: above 0 if one of the two is all of the other's end."""
    wanted = posix(name)
    for end in _ends(wanted):
        shared = end.count("/") + 1
        fitting = ends.get(end, [])
        if end in whole:
            return end, shared + (end == wanted)
        if end == wanted and len(fitting) > 1:
            first, second = sorted(fitting)[:2]
            came = f"expected the name {name!r} to fit one image, got {first!r} and {second!r}"
            raise DataError(f"{came}; write their folders into the table")
        if len(fitting) == 1:
            return fitting[0], shared if end == wanted else shared - _APART
        if fitting:
            break
    return "", 0


def _ends(path: str) -> Iterator[str]:
    """All ends of a path in whole parts, the longest (the path itself) first."""
    parts = path.split("/")
    return ("/".join(parts[start:]) for start in range(len(parts)))


def posix(name: str) -> str:
    """A path as posix writes it, also one of Windows: `a\\b.jpg` and `./a//b.jpg` are `a/b.jpg`."""
    return PurePosixPath(name.replace("\\", "/")).as_posix()
