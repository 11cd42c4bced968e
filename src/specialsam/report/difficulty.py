"""Where the specialist gains and where it loses, by factors such as an object's size or its contrast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from specialsam.core.errors import DataError
from specialsam.report.facts import Rows, TableRow
from specialsam.report.numbers import brief, count, interval, number, score, trend, words
from specialsam.report.palette import LIGHT, SIZE, blank, column, label, legend

MOST_BINS = 20
"""A factor with more bins than this shows both ends only."""
LOOKS = {
    "up": ("better", LIGHT["tuned"], "o"),
    "flat": ("cannot be told from chance", LIGHT["base"], "o"),
    "down": ("worse", LIGHT["worse"], "^"),
    "unknown": ("no interval", LIGHT["base"], "x"),
}
"""Name, colour and mark of a gain by its interval."""


def by_factor(rows: Rows) -> list[tuple[str, list[TableRow]]]:
    """(factor in words, its lines), in order of appearance."""
    factors: dict[str, list[TableRow]] = {}
    for row in rows:
        factors.setdefault(words(row["factor"]), []).append(row)
    return list(factors.items())


def losses(rows: Rows) -> tuple[str, ...]:
    """Sentences: where the specialist loses for sure, where it is not shown to gain, and how far to believe this."""
    sure = [row for row in rows if trend(row["low"], row["high"]) == "down"]
    unsure = [row for row in rows if trend(row["low"], row["high"]) == "flat" and number(row["gain"]) < 0]
    if sure:
        out = [f"The specialist loses where {'; where '.join(map(_case, sorted(sure, key=_gain)))}."]
    else:
        out = ["In no group does the specialist lose beyond chance."]
    if unsure:
        places = ", ".join(f"{words(row['factor'])} is {row['bin']}" for row in sorted(unsure, key=_gain))
        out.append(f"Below the base on average, but within chance: {places}.")
    out.append(
        f"Intervals are not corrected for the {count(len(rows))} groups: of twenty without any change, one stands out "
        "by chance."
    )
    return tuple(out)


def said(sentences: Sequence[str]) -> tuple[str, ...]:
    """Sentences that were made elsewhere, each with a full stop; one that says so where there are none."""
    if not sentences:
        return ("No group is shown to lose, or to gain less than the rest; small groups may hide it.",)
    return tuple(sentence if sentence.endswith(".") else f"{sentence}." for sentence in sentences)


def _case(row: TableRow) -> str:
    limits = interval(row["low"], row["high"], sign=True)
    return f"{words(row['factor'])} is {row['bin']} ({score(row['gain'], sign=True)} {limits}, n = {count(row['n'])})"


def _gain(row: TableRow) -> float:
    return number(row["gain"])


def _drawn(rows: Rows) -> list[TableRow]:
    """The lines that the figure shows: finite gains, of long factors both ends, in the table's order."""
    out: list[TableRow] = []
    for _, bins in by_factor([row for row in rows if np.isfinite(number(row["gain"]))]):
        ranked = sorted(range(len(bins)), key=lambda index: _gain(bins[index]))
        half = MOST_BINS // 2
        kept = set(ranked if len(bins) <= MOST_BINS else ranked[:half] + ranked[-half:])
        out += [row for index, row in enumerate(bins) if index in kept]
    return out


def left_out(rows: Rows) -> int:
    """How many lines the figure leaves to the table."""
    return len(rows) - len(_drawn(rows))


def difficulty_figure(rows: Rows) -> Figure:
    """A dot and its interval for each bin, grouped by factor, in the table's order. DataError without a finite gain.

    Of a factor with more than `MOST_BINS` bins the lowest and the highest gains are drawn (`left_out` counts the rest).
    """
    drawn = _drawn(rows)
    if not drawn:
        raise DataError("expected gains by difficulty to draw, got none")
    spots: list[float] = []
    names: list[str] = []
    heads: list[tuple[float, str]] = []
    y = 0.0
    for factor, bins in by_factor(drawn):
        heads.append((y, brief(factor)))
        for row in bins:
            y += 1
            spots.append(y)
            names.append(f"{brief(str(row['bin']))}  (n = {count(row['n'])})")
        y += 1.35
    ordered = [row for _, bins in by_factor(drawn) for row in bins]
    gains, lows, highs = (column(ordered, name, 100) for name in ("gain", "low", "high"))
    trends = np.array([trend(row["low"], row["high"]) for row in ordered])
    places = np.array(spots)
    figure, (axis,) = blank(7.6, 0.8 + 0.23 * y)
    for key, (name, colour, mark) in LOOKS.items():
        chosen = trends == key
        if chosen.any():
            errors = np.nan_to_num(np.stack([gains - lows, highs - gains])[:, chosen]).clip(0)
            axis.errorbar(
                gains[chosen], places[chosen], xerr=errors, fmt=mark, color=colour, ecolor=colour,
                markersize=5, elinewidth=1.4, capsize=0, label=name,
            )  # fmt: skip
    axis.axvline(0, color=LIGHT["muted"], linewidth=0.9)
    axis.set_yticks(places, names)
    axis.set_ylim(y - 0.6, -0.7)
    for height, factor in heads:
        axis.text(
            0.005, height, factor, transform=axis.get_yaxis_transform(), va="center",
            fontsize=SIZE + 0.5, fontweight="bold", color=LIGHT["ink"], in_layout=False,
        )  # fmt: skip
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", color=LIGHT["line"], linewidth=0.7)
    axis.margins(x=0.06)
    label(axis, "gain in IoU (percent points)")
    legend(figure, axis)
    return figure
