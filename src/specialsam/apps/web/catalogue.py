"""The models that may be asked for: a list that the server makes, by ids that it gives; no client names a file."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specialsam.apps.web.messages import Gain, Model
from specialsam.core.names import printable


@dataclass(frozen=True)
class Entry:
    """A model as the process loads it from `place`, and what it said of it; `gain` is of the run that made it."""

    id: str
    place: str
    told: Mapping[str, Any]
    gain: Gain | None = None


@dataclass
class Catalogue:
    """Entries in the order in which they came; one of them is in use."""

    entries: list[Entry] = field(default_factory=list)
    used: str = ""

    def add(self, place: str, told: Mapping[str, Any], gain: Gain | None = None) -> Entry:
        """A new entry, or the one of that place with what is known of it now."""
        known = next((one for one in self.entries if one.place == place), None)
        entry = Entry(known.id if known else f"m{len(self.entries)}", place, told, gain)
        if known:
            self.entries[self.entries.index(known)] = entry
        else:
            self.entries.append(entry)
        return entry

    def get(self, id: str | None) -> Entry | None:
        """An entry by its id, the one in use for None; None where there is none such."""
        wanted = self.used if id is None else id
        return next((one for one in self.entries if one.id == wanted), None)

    def use(self, id: str) -> bool:
        """Let an entry answer from now on; whether there is one."""
        if self.get(id) is None:
            return False
        self.used = id
        return True

    def listed(self) -> list[Model]:
        """All entries as the API tells them."""
        return [_told(one, one.id == self.used) for one in self.entries]


def _told(one: Entry, used: bool) -> Model:
    names = ("name", "specialist", "base", "finder", "note")
    run = printable(Path(one.place).resolve().parent.name) if one.told["specialist"] else ""
    return Model(id=one.id, in_use=used, gain=one.gain, run=run, **{name: one.told[name] for name in names})


FEW = 20
"""Test images below which a gain is but a hint; the report's own bound, a test holds them together."""
LARGEST_TABLE = 2_000_000
"""Bytes of a comparison.csv that are read."""


def gains_of(table: Path) -> list[Gain]:
    """Gains in IoU of a run's comparison.csv, a strategy each; none where there is no readable table."""
    try:
        if table.is_symlink() or table.stat().st_size > LARGEST_TABLE:
            return []
        with table.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("metric") == "iou" and row.get("output") == "single"]
        names = ("base", "tuned", "gain", "low", "high")
        found = [
            Gain(
                strategy=row["strategy"],
                images=int(float(row["n"])),
                few=float(row["n"]) < FEW,
                **{name: float(row[name]) for name in names},
            )
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, csv.Error):
        return []
    return [one for one in found if all(math.isfinite(getattr(one, name)) for name in names)]
