"""The search of training settings: its best trials, and which settings made the difference."""

from __future__ import annotations

import math
from dataclasses import dataclass

from specialsam.report.facts import SEARCH_COLUMNS, Search, rows_of
from specialsam.report.numbers import number, score

SHOWN = 10
"""Trials that the page shows; search.csv holds all."""


@dataclass(frozen=True)
class SearchLines:
    """What the page prints: names of the settings, a line a trial, and (setting, share in percent, bar width)."""

    says: str
    names: tuple[str, ...]
    trials: tuple[tuple[str, str, str, tuple[str, ...]], ...]
    more: int
    importance: tuple[tuple[str, str, int], ...]


def search_lines(search: Search) -> SearchLines:
    """The best trials that came to their end, as (number, validation IoU, loss elsewhere, settings)."""
    names = tuple(str(name) for name in search.trials.columns if name not in SEARCH_COLUMNS)
    complete = [row for row in rows_of(search.trials) if math.isfinite(number(row["worth"]))]
    lines = tuple(
        (
            f"{number(row['trial']):.0f}",
            score(row["val_iou"]),
            score(row["lost"]),
            tuple(_value(row[name]) for name in names),
        )
        for row in complete[:SHOWN]
    )
    shares = sorted(search.importance.items(), key=lambda pair: -pair[1])
    bars = tuple((name, f"{100 * share:.0f} %", round(100 * share)) for name, share in shares)
    return SearchLines(search.says, names, lines, len(search.trials) - len(lines), bars)


def _value(value: object) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)
