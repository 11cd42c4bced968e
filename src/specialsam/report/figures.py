"""Figures of the results, each a matplotlib Figure with labelled axes and a legend; scores are shown in percent."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from specialsam.core.errors import DataError
from specialsam.report.facts import Report, Rows, TableRow, rows_of
from specialsam.report.numbers import brief, count, metric_name, number, score, strategy_name, words
from specialsam.report.palette import LIGHT, SIZE, blank, label, legend
from specialsam.report.protocol import by_protocol, same_place
from specialsam.report.tables import MODELS, OUTPUTS
from specialsam.report.verdict import key_row

MANY = 1500
"""Points from which a scatter plot is stored as pixels instead of shapes."""
MOST_CATEGORIES = 40
"""More categories than this, and only both ends of the list are drawn."""
HATCHES = ("", "////", "....", "xxxx")

_Values = npt.NDArray[np.float64]


def models_figure(report: Report) -> Figure:
    """Grouped bars with 95 % intervals: base, specialist and trivial rivals for each prompt, one panel an output.

    DataError when the summary holds nothing of base and specialist in the verdict's metric.
    """
    key = key_row(report) or {}
    metric = str(key.get("metric", report.main_metric))
    rows = [row for row in rows_of(report.summary) if row["metric"] == metric and same_place(row, key)]
    models = {report.base_model: ("Base", LIGHT["base"]), report.tuned_model: ("Specialist", LIGHT["tuned"])}
    outputs = [name for name in MODELS if any(row["output"] == name and row["model"] in models for row in rows)]
    if not outputs:
        raise DataError(f"expected a summary with {metric} of {' or '.join(models)} to draw, got none")
    rivals = list(dict.fromkeys(str(row["model"]) for row in rows if row["output"] == "rival"))
    figure, axes = blank(7.6, 0.5 + 2.5 * len(outputs), len(outputs))
    for axis, output in zip(axes, outputs, strict=True):
        shown = [row for row in rows if row["output"] == output and row["model"] in models]
        strategies = list(dict.fromkeys(str(row["strategy"]) for row in shown))
        bars = [(*look, "", [row for row in shown if row["model"] == model]) for model, look in models.items()]
        for index, rival in enumerate(rivals):
            own = [row for row in rows if row["output"] == "rival" and row["model"] == rival]
            bars.append((f"Rival: {brief(words(rival), 24)}", LIGHT["rival"], HATCHES[index % len(HATCHES)], own))
        _grouped(axis, strategies, bars, metric)
        label(axis, "", f"{metric_name(metric)} (%)", OUTPUTS[output][0])
    label(axes[-1], "kind of prompt", f"{metric_name(metric)} (%)", OUTPUTS[outputs[-1]][0])
    legend(figure, axes[0], 2 + len(rivals))
    return figure


def _grouped(axis: Axes, strategies: list[str], bars: Sequence[tuple[str, str, str, Rows]], metric: str) -> None:
    """Bars of each strategy side by side, only those that it has, centred on its tick."""
    present = {s: [i for i, bar in enumerate(bars) if any(r["strategy"] == s for r in bar[3])] for s in strategies}
    width = 0.84 / max((len(indices) for indices in present.values()), default=1)
    for index, (name, colour, hatch, rows) in enumerate(bars):
        mine = [row for row in rows if row["strategy"] in strategies]
        named = [str(row["strategy"]) for row in mine]
        offsets = [present[strategy].index(index) - (len(present[strategy]) - 1) / 2 for strategy in named]
        spots = np.array(
            [strategies.index(strategy) + offset * width for strategy, offset in zip(named, offsets, strict=True)]
        )
        means, lows, highs = (100 * _values(mine, field) for field in ("mean", "low", "high"))
        axis.bar(
            spots, np.nan_to_num(means), 0.9 * width, label=name,
            color=colour, hatch=hatch, edgecolor=LIGHT["surface"], linewidth=0,
        )  # fmt: skip
        errors = np.nan_to_num(np.stack([means - lows, highs - means])).clip(0)
        if len(mine):
            axis.errorbar(spots, means, errors, fmt="none", ecolor=LIGHT["ink"], elinewidth=1, capsize=2)
        if len(strategies) <= 7:
            for spot, row, top in zip(spots, mine, np.fmax(means, highs), strict=True):
                if np.isfinite(top):
                    text = score(row["mean"], metric) if metric != "mae" else f"{100 * number(row['mean']):.1f}"
                    axis.text(spot, top + 1.5, text, ha="center", fontsize=SIZE - 2, color=LIGHT["ink"])
    axis.set_xticks(range(len(strategies)), ["\n".join(textwrap.wrap(strategy_name(s), 15)) for s in strategies])
    axis.set_xlim(-0.55, len(strategies) - 0.45)
    axis.set_ylim(0, 109)
    axis.set_yticks(range(0, 101, 25))


def categories_figure(report: Report) -> Figure:
    """Mean gain of each category with its interval, best first; long lists show both ends. DataError without any."""
    rows = categories_of(report)
    if not rows:
        raise DataError("expected gains by category to draw, got none")
    rows.sort(key=lambda row: number(row["gain"]))
    if len(rows) > MOST_CATEGORIES:
        rows = rows[: MOST_CATEGORIES // 2] + rows[-MOST_CATEGORIES // 2 :]
    gains, lows, highs = (100 * _values(rows, name) for name in ("gain", "low", "high"))
    figure, (axis,) = blank(7.6, 1.0 + 0.25 * len(rows))
    places = np.arange(len(rows))
    for name, chosen, colour in (
        ("better than base", gains >= 0, LIGHT["tuned"]),
        ("worse than base", gains < 0, LIGHT["worse"]),
    ):
        if chosen.any():
            axis.barh(places[chosen], gains[chosen], 0.68, color=colour, label=name)
    errors = np.nan_to_num(np.stack([gains - lows, highs - gains])).clip(0)
    axis.errorbar(
        gains, places, xerr=errors, fmt="none", ecolor=LIGHT["ink"], elinewidth=1, capsize=2, label="95 % interval"
    )
    names = [f"{brief(words(row['category']))}  (n = {count(row['n'])})" for row in rows]
    axis.set_yticks(places, names)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.axvline(0, color=LIGHT["muted"], linewidth=0.9)
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", color=LIGHT["line"], linewidth=0.7)
    metric = str((key_row(report) or {}).get("metric", report.main_metric))
    label(axis, f"gain in {metric_name(metric)} (percent points)")
    legend(figure, axis)
    return figure


def categories_of(report: Report) -> list[TableRow]:
    """Lines of the categories with a finite gain, by the verdict's protocol (the table's first where it has none)."""
    protocols = by_protocol(rows_of(report.by_category), key_row(report))
    return [row for row in protocols[0][1] if np.isfinite(number(row["gain"]))] if protocols else []


def pairs_of(report: Report) -> tuple[_Values, _Values]:
    """(base, tuned) values of the same images or objects in percent, those with both finite."""
    rows = rows_of(report.pairs)
    base, tuned = 100 * _values(rows, "base"), 100 * _values(rows, "tuned")
    both = np.isfinite(base) & np.isfinite(tuned)
    return base[both], tuned[both]


def pairs_figure(report: Report) -> Figure:
    """Base against specialist, one point an image or object; above the diagonal the specialist gained."""
    base, tuned = pairs_of(report)
    if not len(base):
        raise DataError("expected pairs of base and specialist to draw, got none")
    figure, (axis,) = blank(4.4, 4.5)
    gained = tuned >= base
    size = float(np.clip(4000 / len(base), 5, 22))
    for name, chosen, colour, mark in (
        ("gained", gained, LIGHT["tuned"], "o"),
        ("lost", ~gained, LIGHT["worse"], "^"),
    ):
        points = axis.scatter(
            base[chosen], tuned[chosen], size, c=colour, marker=mark, alpha=0.55, linewidths=0,
            label=f"{name} ({int(chosen.sum()):,})",
        )  # fmt: skip
        points.set_rasterized(len(base) > MANY)
    axis.plot([0, 100], [0, 100], color=LIGHT["muted"], linewidth=0.9, linestyle=(0, (4, 3)), label="no change")
    axis.set(xlim=(-2, 102), ylim=(-2, 102), aspect="equal")
    axis.grid(axis="x", color=LIGHT["line"], linewidth=0.7)
    name = metric_name(report.main_metric)
    label(axis, f"base {name} (%)", f"specialist {name} (%)")
    legend(figure, axis, 3)
    return figure


def gains_figure(report: Report) -> Figure:
    """Histogram of the gains of single images or objects, with zero and the median marked."""
    base, tuned = pairs_of(report)
    if not len(base):
        raise DataError("expected pairs of base and specialist to draw, got none")
    gains = tuned - base
    width = next(
        step for step in (0.25, 0.5, 1, 2, 2.5, 5, 10) if step == 10 or np.ptp(np.append(gains, 0)) <= 40 * step
    )
    first, last = np.floor(min(gains.min(), 0) / width), np.ceil(max(gains.max(), 0) / width)
    edges = width * np.arange(min(first, -1), max(last, 1) + 1)
    figure, (axis,) = blank(4.4, 4.5)
    for name, chosen, colour in (("gained", gains >= 0, LIGHT["tuned"]), ("lost", gains < 0, LIGHT["worse"])):
        axis.hist(gains[chosen], edges.tolist(), color=colour, label=name, rwidth=0.88)
    axis.axvline(0, color=LIGHT["muted"], linewidth=0.9)
    median = float(np.median(gains))
    text = f"median {score(median / 100, sign=True)}"
    axis.axvline(median, color=LIGHT["ink"], linewidth=1.2, linestyle=(0, (4, 3)), label=text)
    label(axis, f"gain in {metric_name(report.main_metric)} (percent points)", f"{report.pair_unit}s")
    legend(figure, axis, 3)
    return figure


def sizes_figure(areas: npt.NDArray[np.floating]) -> Figure:
    """Histogram of object sizes: area in percent of the image on a logarithmic axis. DataError without any.

    `areas` (N,) are fractions 0..1 of the image; those that are not finite or not above 0 are left out.
    """
    values = np.asarray(areas, np.float64).ravel()
    values = 100 * values[np.isfinite(values) & (values > 0)]
    if not len(values):
        raise DataError("expected the areas of at least one object to draw, got none")
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    edges = np.logspace(low, max(high, low + 1), 8 * int(max(high - low, 1)) + 1)
    edges[0], edges[-1] = min(edges[0], values.min()), max(edges[-1], values.max())
    figure, (axis,) = blank(7.6, 2.5)
    axis.hist(values, edges.tolist(), color=LIGHT["base"], rwidth=0.9, label="objects")
    median = float(np.median(values))
    axis.axvline(median, color=LIGHT["ink"], linewidth=1.2, linestyle=(0, (4, 3)), label=f"median {median:.3g} %")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(which="minor", length=0)
    label(axis, "object area (% of the image, logarithmic)", "objects")
    legend(figure, axis)
    return figure


def _values(rows: Rows, name: str) -> _Values:
    return np.array([number(row[name]) for row in rows], np.float64)
