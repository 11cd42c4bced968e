"""How the models bear worse prompts, what each further click brings, and whether they know how good their mask is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from specialsam.core.errors import DataError
from specialsam.report.facts import Report, Rows, TableRow
from specialsam.report.numbers import DASH, brief, count, interval, number, score, words
from specialsam.report.palette import LIGHT, band, blank, column, label, legend

_ORDER = {"base": 0, "tuned": 1, "": 2}

AXES = {
    "click depth": ("Click depth", "0: deepest in the object, 1: at its border"),
    "click noise": ("Click noise", "miss of the click, as share of the object's size"),
    "box scale": ("Box scale", "size of the box (1: tight)"),
    "box shift": ("Box shift", "shift of the box, as share of the object's size"),
}
"""Title and x label of the axes that are known by name; any other is shown by its name in words."""
BESIDE = "background click"
"""The axis on which the prompt lies beside the object: low is right."""
FURTHER = ("rival", "worse", "ink")
"""Colours of models beside base and specialist."""
NAMED = 18
"""Characters of a model's name in a legend, which has several beside each other."""


@dataclass(frozen=True)
class ClickLine:
    """One printed line of the table of clicks."""

    model: str
    noc85: str
    noc90: str
    failures: str
    n: str


def role(report: Report, model: object) -> str:
    """ "base", "tuned", or "" for any other model; `base` and `tuned` are also understood by those very names."""
    roles = {"base": "base", "tuned": "tuned", report.base_model: "base", report.tuned_model: "tuned"}
    return roles.get(str(model), "")


def model_title(report: Report, model: object) -> str:
    """A model as the page calls it: Base, Specialist, or its name in words."""
    return {"base": "Base", "tuned": "Specialist"}.get(role(report, model), words(str(model)))


def models_of(report: Report, rows: Rows) -> list[str]:
    """The models of a table by name, base first, specialist second."""
    return sorted(dict.fromkeys(str(row["model"]) for row in rows), key=lambda model: _ORDER[role(report, model)])


def levels_of(rows: Rows) -> tuple[list[TableRow], list[TableRow]]:
    """(lines of axes with several values, which are drawn; lines of axes with one, which are said), finite ones."""
    finite = [row for row in rows if np.isfinite(number(row["mean"]))]
    values: dict[str, set[float]] = {}
    for row in finite:
        values.setdefault(str(row["axis"]), set()).add(number(row["value"]))
    drawn = [row for row in finite if len(values[str(row["axis"])]) > 1]
    return drawn, [row for row in finite if len(values[str(row["axis"])]) == 1]


def single_levels(report: Report, rows: Rows) -> tuple[str, ...]:
    """A sentence for each axis with one value only: "Background click: Base 12.1 [10.0, 14.2] (low is right)." """
    out = []
    for axis in dict.fromkeys(str(row["axis"]) for row in levels_of(rows)[1]):
        parts = [
            f"{model_title(report, row['model'])} {score(row['mean'])} {interval(row['low'], row['high'])}".rstrip()
            for row in rows
            if str(row["axis"]) == axis
        ]
        name = words(axis)
        right = " (the click lies beside the object: low is right)" if name == BESIDE else ""
        out.append(f"{name[:1].upper()}{name[1:]}, IoU: {', '.join(parts)}{right}.")
    return tuple(out)


def robustness_figure(report: Report, rows: Rows) -> Figure:
    """A small panel an axis: IoU over how far the prompt is from a good one, a line a model with its interval.

    DataError where no axis has finite means at two values or more.
    """
    drawn, _ = levels_of(rows)
    names = list(dict.fromkeys(str(row["axis"]) for row in drawn))
    if not names:
        raise DataError("expected results with worse prompts to draw, got none")
    columns = min(2, len(names))
    lines = math.ceil(len(names) / columns)
    figure, axes = blank(7.6 if columns == 2 else 4.6, 0.4 + 2.3 * lines, lines, columns)
    for index, axis in enumerate(axes):
        if index >= len(names):
            axis.set_axis_off()
            continue
        own = [row for row in drawn if row["axis"] == names[index]]
        _lines(report, axis, own, "value")
        name = brief(words(names[index]))
        title, x = AXES.get(name, (name.capitalize(), name))
        label(axis, x, "IoU (%)" if index % columns == 0 else "", title)
        axis.margins(x=0.04)
        axis.set_ylim(*_limits(drawn))
    legend(figure, axes[0])
    return figure


def _limits(rows: Rows) -> tuple[float, float]:
    """One range of percent for all panels, around all that is drawn."""
    values = np.concatenate([column(rows, name, 100) for name in ("mean", "low", "high")])
    least, most = np.nanmin(values), np.nanmax(values)
    room = 0.1 * max(most - least, 5.0)
    return float(least - room), float(most + room)


def clicks_figure(report: Report, rows: Rows) -> Figure:
    """IoU after each click, a line a model with its interval. DataError without a finite mean."""
    drawn = [row for row in rows if np.isfinite(number(row["mean"]))]
    if not drawn:
        raise DataError("expected IoU after each click to draw, got none")
    figure, (axis,) = blank(4.4, 3.9)
    _lines(report, axis, drawn, "click")
    ticks = sorted({int(number(row["click"])) for row in drawn})
    axis.set_xticks(ticks if len(ticks) <= 10 else [t for t in ticks if t == 1 or t % 5 == 0])
    axis.margins(x=0.04, y=0.12)
    label(axis, "clicks", "IoU (%)")
    legend(figure, axis)
    return figure


def _lines(report: Report, axis: Axes, rows: Rows, x: str) -> None:
    """A band a model, base and specialist in their own colours."""
    models = models_of(report, rows)
    for model in models:
        own = [row for row in rows if str(row["model"]) == model]
        middle, low, high = (column(own, name, 100) for name in ("mean", "low", "high"))
        colour, mark = _look(report, models, model)
        band(axis, column(own, x), middle, low, high, colour, brief(model_title(report, model), NAMED), mark)


def _look(report: Report, models: list[str], model: str) -> tuple[str, str]:
    known = {"base": (LIGHT["base"], "s"), "tuned": (LIGHT["tuned"], "o")}
    if role(report, model):
        return known[role(report, model)]
    others = [name for name in models if not role(report, name)]
    return LIGHT[FURTHER[others.index(model) % len(FURTHER)]], "^"


def reliability_figure(report: Report, rows: Rows) -> Figure:
    """Mean IoU that was reached over the IoU that the model predicted; on the diagonal it knows how good it is.

    Discs grow with the number of masks in the bin. DataError without a finite bin.
    """
    drawn = [row for row in rows if _in_use(row)]
    if not drawn:
        raise DataError("expected bins of predicted IoU to draw, got none")
    figure, (axis,) = blank(4.4, 4.5)
    axis.plot([0, 100], [0, 100], color=LIGHT["muted"], linewidth=0.9, linestyle=(0, (4, 3)), label="knows exactly")
    models = models_of(report, drawn)
    largest = max(number(row["n"]) for row in drawn)
    for model in models:
        own = sorted((row for row in drawn if str(row["model"]) == model), key=lambda row: number(row["predicted"]))
        predicted, actual = column(own, "predicted", 100), column(own, "actual", 100)
        colour, mark = _look(report, models, model)
        axis.plot(predicted, actual, color=colour, linewidth=1.2)
        sizes = 8 + 70 * column(own, "n") / largest
        axis.scatter(predicted, actual, sizes, c=colour, marker=mark, alpha=0.8, linewidths=0)
        axis.plot([], [], color=colour, marker=mark, markersize=4, label=brief(model_title(report, model), NAMED))
    axis.set(xlim=(-2, 102), ylim=(-2, 102), aspect="equal")
    axis.grid(axis="x", color=LIGHT["line"], linewidth=0.7)
    label(axis, "predicted IoU (%)", "reached IoU (%)")
    legend(figure, axis, 3)
    return figure


def calibration_errors(report: Report, rows: Rows) -> dict[str, float]:
    """Expected calibration error of each model, a fraction: |predicted - reached| over bins, weighted by their masks.

    Guo et al. 2017, "On calibration of modern neural networks", with IoU in the place of accuracy.
    """
    out = {}
    for model in models_of(report, rows):
        own = [row for row in rows if str(row["model"]) == model and _in_use(row)]
        weights = column(own, "n")
        if weights.sum() > 0:
            gaps = np.abs(column(own, "predicted") - column(own, "actual"))
            out[model_title(report, model)] = float((weights * gaps).sum() / weights.sum())
    return out


def _in_use(row: TableRow) -> bool:
    return bool(np.isfinite([number(row["predicted"]), number(row["actual"])]).all() and number(row["n"]) > 0)


def click_lines(report: Report, rows: Rows) -> tuple[ClickLine, ...]:
    """The table of clicks, printed."""
    return tuple(
        ClickLine(
            model=model_title(report, row["model"]),
            noc85=_clicks(row["noc85"]),
            noc90=_clicks(row["noc90"]),
            failures=_failures(row),
            n=count(row["n"]),
        )
        for row in rows
    )


def _clicks(value: object) -> str:
    return f"{number(value):.1f}" if math.isfinite(number(value)) else DASH


def _failures(row: TableRow) -> str:
    failed, n = number(row["failures"]), number(row["n"])
    share = f" ({score(failed / n)} %)" if math.isfinite(failed) and n > 0 else ""
    return count(failed) + share
