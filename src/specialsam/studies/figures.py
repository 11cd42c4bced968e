"""Figures of the studies in the report's style: sheets of pictures, bars with intervals, and training curves.

Scores are shown in percent. A sheet of pictures becomes pixels (`pixels_of`), because photographs are no shapes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, FloatArray, ImageArray
from specialsam.report.facts import Rows, TableRow
from specialsam.report.numbers import brief, count, interval, number, score, strategy_name, words
from specialsam.report.palette import HIT, LIGHT, SIZE, blank, column, label, legend

LINES = ("#0b6cb2", "#c4480e", "#3d8b5f", "#8a4fa3", "#d8a31a", "#5b6675")
"""Colours of lines beside each other; each study has its own line style and mark as well."""
MARKS = ("o", "s", "^", "D", "v", "P")
CELLS = ("#0b6cb2", "#d8a31a", "#3d8b5f", "#c4480e", "#8a4fa3", "#5b6675", "#56b4e9", "#9a6324")
"""Colours of the objects of one picture."""
TILE = 2.2
"""Inches of one picture's side on a sheet."""
DPI = 130


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet: uint8 (H, W, 3), its title, masks bool (P, H, W) that are tinted, and their texts.

    `points` float32 (K, 2) are clicks in pixels of the image; `outlines` bool (Q, H, W) are drawn as white lines.
    """

    image: ImageArray
    title: str = ""
    masks: BoolArray | None = None
    texts: tuple[str, ...] = ()
    points: FloatArray | None = None
    outlines: BoolArray | None = None


@dataclass(frozen=True)
class Curve:
    """Training losses after each epoch of a run; `published` ones are dashed, in the colour of the curve `like`."""

    name: str
    losses: tuple[float, ...]
    published: bool = False
    like: str = ""


def sheet_figure(tiles: Sequence[Tile], columns: int = 4, tile: float = TILE) -> Figure:
    """Pictures in rows of `columns`. DataError without one."""
    if not tiles:
        raise DataError("expected at least one picture for a sheet, got none")
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    tall = max(shown.image.shape[0] / shown.image.shape[1] for shown in tiles)
    figure, axes = blank(columns * tile, rows * (tile * min(tall, 1.2) + 0.42), rows, columns)
    for axis in axes:
        axis.set_axis_off()
    for axis, shown in zip(axes, tiles, strict=False):
        _draw(axis, shown)
    return figure


def _draw(axis: Axes, shown: Tile) -> None:
    axis.imshow(shown.image, interpolation="antialiased")
    masks = shown.masks if shown.masks is not None else np.zeros((0, *shown.image.shape[:2]), np.bool_)
    for index, mask in enumerate(masks):
        colour = _rgb(CELLS[index % len(CELLS)]) if len(masks) > 1 else tuple(value / 255 for value in HIT)
        layer = np.zeros((*mask.shape, 4), np.float32)
        layer[mask] = (*colour, 0.45)
        axis.imshow(layer, interpolation="nearest")
        if mask.any():
            axis.contour(mask.astype(np.float32), levels=[0.5], colors=[colour], linewidths=1.2)
    for outline in shown.outlines if shown.outlines is not None else ():
        if outline.any() and not outline.all():
            axis.contour(outline.astype(np.float32), levels=[0.5], colors=["white"], linewidths=1.0)
    for index, text in enumerate(shown.texts):
        x, y = _anchor(masks, index, shown)
        box = {"boxstyle": "round,pad=0.2", "facecolor": LIGHT["ink"], "edgecolor": "none", "alpha": 0.75}
        axis.text(
            x, y, brief(text), color="white", fontsize=SIZE - 1, ha="center", va="center", bbox=box, in_layout=False
        )
    if shown.points is not None:
        axis.scatter(
            shown.points[:, 0], shown.points[:, 1], 34, color=LIGHT["tuned"], edgecolors="white", linewidths=1.2,
            zorder=5,
        )  # fmt: skip
    if shown.title:
        axis.set_title(brief(shown.title), color=LIGHT["ink"], fontsize=SIZE, loc="left", pad=3)


def _anchor(masks: BoolArray, index: int, shown: Tile) -> tuple[float, float]:
    """Where a text stands: below its click, else in the middle of its mask, else in the middle of the picture."""
    height, width = shown.image.shape[:2]
    if shown.points is not None and index < len(shown.points):
        x, y = (float(value) for value in shown.points[index])
        return min(max(x, 0.12 * width), 0.88 * width), min(y + 0.09 * height, 0.94 * height)
    if index < len(masks) and masks[index].any():
        rows, columns = np.nonzero(masks[index])
        return float(columns.mean()), float(rows.mean())
    return width / 2, height / 2


def _rgb(text: str) -> tuple[float, float, float]:
    red, green, blue = (int(text[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def pixels_of(figure: Figure, dpi: int = DPI) -> ImageArray:
    """A figure as uint8 RGB (H, W, 3)."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba(), np.uint8)[..., :3].copy()  # type: ignore[no-untyped-call]


def strategies_figure(rows: Rows, metric: str = "iou") -> Figure:
    """Base and specialist side by side for each prompt, with their intervals. DataError without a finite mean.

    `rows` have strategy, base, base_low, base_high, tuned, tuned_low, tuned_high (fractions).
    """
    drawn = [row for row in rows if math.isfinite(number(row["base"])) and math.isfinite(number(row["tuned"]))]
    if not drawn:
        raise DataError("expected scores by prompt to draw, got none")
    figure, (axis,) = blank(7.6, 3.2)
    spots = np.arange(len(drawn), dtype=np.float64)
    for shift, name, colour in ((-0.19, "base", LIGHT["base"]), (0.19, "tuned", LIGHT["tuned"])):
        heights = column(drawn, name, 100)
        low, high = column(drawn, f"{name}_low", 100), column(drawn, f"{name}_high", 100)
        errors = np.nan_to_num(np.stack([heights - low, high - heights])).clip(0)
        title = {"base": "base", "tuned": "specialist"}[name]
        axis.bar(spots + shift, heights, 0.34, color=colour, label=title)
        axis.errorbar(spots + shift, heights, errors, fmt="none", ecolor=LIGHT["ink"], elinewidth=1.1, capsize=3)
        for x, height, top in zip(spots + shift, heights, np.nan_to_num(high, nan=0.0), strict=True):
            axis.text(
                x, max(height, top) + 1, f"{height:.1f}",
                ha="center", va="bottom", fontsize=SIZE - 0.5, color=LIGHT["ink"],
            )  # fmt: skip
    axis.set_xticks(spots, [strategy_name(str(row["strategy"])) for row in drawn])
    axis.set_ylim(0, 109)
    label(axis, y=f"{'IoU' if metric == 'iou' else words(metric)} (%)")
    legend(figure, axis)
    return figure


def groups_figure(rows: Rows, title: str = "") -> Figure:
    """A dot and its interval for the gain in each group (category, base, tuned, gain, low, high, n), in their order."""
    drawn = [row for row in rows if math.isfinite(number(row["gain"]))]
    if not drawn:
        raise DataError("expected gains by group to draw, got none")
    figure, (axis,) = blank(7.6, 0.9 + 0.3 * len(drawn))
    spots = np.arange(len(drawn), dtype=np.float64)
    gains, low, high = (column(drawn, name, 100) for name in ("gain", "low", "high"))
    errors = np.nan_to_num(np.stack([gains - low, high - gains])).clip(0)
    colours = [_colour(row) for row in drawn]
    for spot, gain, error, colour in zip(spots, gains, errors.T, colours, strict=True):
        axis.errorbar(
            gain, spot, xerr=error[:, None], fmt="o", color=colour, ecolor=colour, markersize=5, elinewidth=1.5
        )
    axis.axvline(0, color=LIGHT["muted"], linewidth=0.9)
    names = [f"{brief(words(str(row['category'])), 48)}  (n = {count(row['n'])})" for row in drawn]
    axis.set_yticks(spots, names)
    axis.set_ylim(len(drawn) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", color=LIGHT["line"], linewidth=0.7)
    label(axis, "gain in IoU (percent points)", title=title)
    return figure


def _colour(row: TableRow) -> str:
    low, high = number(row["low"]), number(row["high"])
    return LIGHT["tuned"] if low > 0 else LIGHT["worse"] if high < 0 else LIGHT["base"]


def losses_figure(curves: Sequence[Curve]) -> Figure:
    """Training losses of several runs over epochs on one logarithmic axis, published ones dashed and hollow.

    Two lines mark the study's warnings, 0.01 (probably overfitting) and 0.001 (certainly). DataError without a loss.
    """
    drawn = [curve for curve in curves if any(math.isfinite(loss) and loss > 0 for loss in curve.losses)]
    if not drawn:
        raise DataError("expected training losses to draw, got none")
    figure, (axis,) = blank(7.6, 3.6)
    for limit, text in ((0.01, "probably overfitting"), (0.001, "certainly overfitting")):
        axis.axhline(limit, color=LIGHT["worse"], linewidth=1, linestyle=":")
        axis.text(
            0.995, limit, f"{limit:g}: {text}, by the study's rule", color=LIGHT["worse"],
            transform=axis.get_yaxis_transform(), ha="right", va="bottom", fontsize=SIZE - 1,
        )  # fmt: skip
    named = list(dict.fromkeys(curve.like or curve.name for curve in drawn))
    for index, curve in enumerate(drawn):
        colour = LINES[named.index(curve.like or curve.name) % len(LINES)]
        mark = MARKS[index % len(MARKS)]
        losses = np.array([loss if loss > 0 else np.nan for loss in curve.losses], np.float64)
        axis.plot(
            np.arange(1, len(losses) + 1), losses, color=colour, linewidth=1.6, label=brief(curve.name), marker=mark,
            markersize=4, linestyle=(0, (4, 3)) if curve.published else "-",
            markerfacecolor=LIGHT["surface"] if curve.published else colour,
        )  # fmt: skip
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(which="minor", length=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    label(axis, "epoch", "training loss (logarithmic)")
    legend(figure, axis, columns=3)
    return figure


def performance_figure(rows: Rows) -> Figure:
    """Base and specialist of several runs as an arrow a run, with the gain's interval in words. DataError without one.

    `rows` have experiment, base, tuned, gain, low, high (fractions).
    """
    drawn = [row for row in rows if math.isfinite(number(row["base"])) and math.isfinite(number(row["tuned"]))]
    if not drawn:
        raise DataError("expected runs with scores to draw, got none")
    figure, (axis,) = blank(7.6, 0.9 + 0.42 * len(drawn))
    for spot, row in enumerate(drawn):
        base, tuned, colour = 100 * number(row["base"]), 100 * number(row["tuned"]), _colour(row)
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", (tuned, spot), (base, spot), arrowprops=arrow)
        axis.plot(base, spot, "o", color=LIGHT["base"], markersize=7, label="base" if not spot else None)
        text = f"{score(row['gain'], sign=True)} {interval(row['low'], row['high'], sign=True)}"
        axis.text(max(base, tuned) + 2, spot, text, va="center", fontsize=SIZE, color=LIGHT["ink"])
    axis.set_yticks(range(len(drawn)), [brief(str(row["experiment"])) for row in drawn])
    axis.set_ylim(len(drawn) - 0.4, -0.6)
    axis.set_xlim(0, 125)
    axis.set_xticks(range(0, 101, 20))
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", color=LIGHT["line"], linewidth=0.7)
    label(axis, "mean IoU (%): base (dot) to specialist (arrowhead), gain with its 95 % interval")
    return figure
