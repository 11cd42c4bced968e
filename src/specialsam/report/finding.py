"""What was found without a prompt, as the page shows it: a line a number, a column a finder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from specialsam.evaluation.found_tables import TITLES
from specialsam.report.facts import rows_of
from specialsam.report.numbers import interval, score

NOTES = {
    "iou": "everything that counts as found against everything that is there",
    "s_measure": "of the soft map, as the measures below it",
    "recall10": "true objects that one of the ten surest finds covers with an IoU of at least .5",
    "image_auroc": "chance that an image with an object scores higher than one without",
    "pixel_f1max": "the threshold is chosen by the truth, as is usual; the line of good images is the honest one",
    "iou_good": "the threshold leaves a thousandth of the pixels of good images above it",
}


@dataclass(frozen=True)
class FoundLine:
    """One number: its title, a note, and for each finder its value and interval as printed ("" where it has none)."""

    title: str
    note: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FoundTable:
    """The finders' names, the lines, and on how many images each finder was measured and how many of these failed."""

    finders: tuple[str, ...]
    lines: tuple[FoundLine, ...]
    images: tuple[tuple[int, int], ...]


def found_lines(table: pd.DataFrame | None) -> FoundTable | None:
    """The table of `evaluation.found_tables.found_table` for the page; None where nothing was measured."""
    rows = rows_of(table)
    if not rows:
        return None
    finders = tuple(dict.fromkeys(str(row["model"]) for row in rows))
    by_place = {(row["model"], row["metric"]): row for row in rows}
    lines = []
    for metric, title in TITLES.items():
        found = [by_place.get((name, metric)) for name in finders]
        if any(found):
            lines.append(FoundLine(title, NOTES.get(metric, ""), tuple(_cell(metric, row) for row in found)))
    return FoundTable(finders, tuple(lines), tuple(_images(rows, name) for name in finders))


def _images(rows: Sequence[Mapping[str, object]], finder: str) -> tuple[int, int]:
    own = [row for row in rows if row["model"] == finder]
    n, failed = (max(int(str(row[name])) for row in own) for name in ("n", "failed"))
    return n, failed


def _cell(metric: str, row: Mapping[str, object] | None) -> tuple[str, str]:
    if row is None:
        return "", ""
    mean, low, high = (float(str(row[name])) for name in ("mean", "low", "high"))
    if metric == "seconds":
        return f"{mean:.3f}", ""
    return score(mean), "" if math.isnan(low) else interval(low, high)
