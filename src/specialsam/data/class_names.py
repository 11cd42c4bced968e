"""Names of classes that lie beside masks: Roboflow's `_classes.csv`, the `labelmap.txt` of CVAT's Pascal VOC.

Where there is one class, all objects bear its name. Which of several an object has stands in the pixels of its mask,
which are not read when a data set is opened: then no names are given, and a note says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from specialsam.core.types import Record

GROUND = ("background", "unlabeled", "unlabelled", "_background_", "__ignore__", "void")
_LONGEST = 200_000


def roboflow_classes(path: Path) -> list[str]:
    """The classes of lines `value, name`, without a heading and the background."""
    rows = (line.partition(",") for line in _lines(path))
    return _classes(name for value, _, name in rows if value.strip().isdigit())


def labelmap_classes(path: Path) -> list[str]:
    """The classes of lines `name:colour:parts:actions`, without the background."""
    return _classes(line.partition(":")[0] for line in _lines(path) if not line.startswith("#"))


def _classes(names: Iterable[str]) -> list[str]:
    plain = (name.strip() for name in names)
    return list(dict.fromkeys(name for name in plain if name and name.lower() not in GROUND))


def _lines(path: Path) -> list[str]:
    with suppress(OSError, UnicodeDecodeError):
        if path.is_file() and path.stat().st_size <= _LONGEST:
            return path.read_text(encoding="utf-8-sig").splitlines()
    return []


def named(records: Sequence[Record], classes: Sequence[str], source: str) -> tuple[tuple[Record, ...], list[str]]:
    """Records whose objects bear the name of the only class, and what is said of it."""
    if len(classes) == 1:
        out = tuple(record if record.mask is None else replace(record, labels=tuple(classes)) for record in records)
        return out, [f"{source} names one class, {classes[0]}: all objects are called so"]
    if classes:
        return tuple(records), [f"{source} names {len(classes)} classes, which are not told apart by name"]
    return tuple(records), []
