"""The guard: gain on validation and what is lost elsewhere, over the mixtures of base and tuned weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from specialsam.core.errors import DataError
from specialsam.report.facts import Guard, TableRow, rows_of
from specialsam.report.numbers import interval, number, score, trend
from specialsam.report.palette import LIGHT, band, blank, column, label, legend


@dataclass(frozen=True)
class Mixture:
    """One printed line: share of the tuned weights, gain, drop, and whether it was kept; a dash where the drop decided
    nothing and was not measured.
    """

    alpha: str
    what: str
    gain: str
    gain_interval: str
    trend: str
    drop: str
    drop_interval: str
    too_much: bool
    chosen: bool


def mixtures(guard: Guard) -> tuple[Mixture, ...]:
    """Lines by rising share of the tuned weights."""
    return tuple(_line(guard, row) for row in _rows(guard))


def _line(guard: Guard, row: TableRow) -> Mixture:
    alpha = number(row["alpha"])
    itself = alpha == 0
    return Mixture(
        alpha=f"{alpha:g}",
        what={0.0: "the base", 1.0: "the tuned model"}.get(alpha, ""),
        gain=score(row["gain"], sign=True),
        gain_interval="" if itself else interval(row["gain_low"], row["gain_high"], sign=True),
        trend="flat" if itself else trend(row["gain_low"], row["gain_high"]),
        drop=score(row["drop"], sign=True),
        drop_interval="" if itself else interval(row["drop_low"], row["drop_high"], sign=True),
        too_much=number(row["drop"]) > guard.allowed_drop,
        chosen=math.isclose(alpha, guard.chosen, abs_tol=1e-9),
    )


def guard_sentence(guard: Guard) -> str:
    """The guard's own sentence, or one made of its table."""
    if guard.says:
        return guard.says
    kept = next((line for line in mixtures(guard) if line.chosen), None)
    if guard.chosen == 0:
        return "The base is kept: no mixture was shown to be better within what may be lost elsewhere."
    share = "The tuned model is kept" if guard.chosen == 1 else f"A mixture with {guard.chosen:g} tuned weights is kept"
    if kept is None:
        return f"{share}."
    return (
        f"{share}: {kept.gain} {kept.gain_interval} percent points on validation, "
        f"drop on general images {kept.drop} {kept.drop_interval}".rstrip()
        + "."
    )


def guard_figure(guard: Guard) -> Figure:
    """Gain on validation, and change on general images, over the share of tuned weights; dashed: the one handed on.

    DataError where no line has a finite gain.
    """
    rows = _rows(guard)
    alphas = column(rows, "alpha")
    gain, low, high = (column(rows, name, 100) for name in ("gain", "gain_low", "gain_high"))
    if not np.isfinite(gain).any():
        raise DataError("expected a gain on validation to draw, got none")
    figure, (axis,) = blank(7.6, 3.0)
    axis.axhline(0, color=LIGHT["muted"], linewidth=0.9)
    band(axis, alphas, gain, low, high, LIGHT["tuned"], "gain on validation")
    drop, least, most = (column(rows, name, -100) for name in ("drop", "drop_low", "drop_high"))
    asked = np.isfinite(drop)
    if asked.any():
        line = alphas[asked], drop[asked], most[asked], least[asked]
        band(axis, *line, LIGHT["worse"], "change on general images", "s")
        if math.isfinite(guard.allowed_drop):
            text = f"allowed loss ({score(guard.allowed_drop)})"
            axis.axhline(-100 * guard.allowed_drop, color=LIGHT["worse"], linewidth=1.1, linestyle=":", label=text)
    handed = f"handed on ({guard.chosen:g})"
    axis.axvline(guard.chosen, color=LIGHT["ink"], linewidth=1.2, linestyle=(0, (4, 3)), label=handed)
    axis.set_xticks(alphas)
    axis.margins(x=0.03, y=0.14)
    label(axis, "share of the tuned weights (0: the base, 1: the tuned model)", "IoU, percent points")
    legend(figure, axis)
    return figure


def _rows(guard: Guard) -> list[TableRow]:
    return sorted(rows_of(guard.table), key=lambda row: number(row["alpha"]))
