"""Colours of the report, safe for colour-blind eyes (after Okabe and Ito 2008), and figures as SVG that follow them.

Figures are drawn in the light colours; in the SVG each becomes a CSS variable, so that the page can turn dark.
"""

from __future__ import annotations

import io
import re
import warnings

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text

from specialsam.report.facts import Rows
from specialsam.report.numbers import number

Values = npt.NDArray[np.float64]

LIGHT = {
    "ink": "#1b2430",
    "muted": "#5b6675",
    "line": "#dbe0e7",
    "surface": "#fefefe",
    "base": "#8b95a4",
    "tuned": "#0b6cb2",
    "rival": "#d8a31a",
    "worse": "#c4480e",
}
DARK = {
    "ink": "#e7eaef",
    "muted": "#a0abba",
    "line": "#353e4b",
    "surface": "#171c24",
    "base": "#8993a2",
    "tuned": "#5aaef0",
    "rival": "#e3b743",
    "worse": "#f2803d",
}
HIT, MISS, FALSE_ALARM = (86, 180, 233), (240, 228, 66), (213, 94, 0)
"""RGB of the picture overlays: sky blue, yellow and vermilion differ in lightness as well as in hue."""

SIZE = 8.5
"""Points of the figures' text."""


def css_variables(colours: dict[str, str]) -> str:
    """`--ink: #1b2430; ...` for a style sheet."""
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


class Plain(Figure):
    """A figure that draws every text as it stands: names from other people's disks hold `$`, `\\` and any script.

    Mathematics is switched off while it is drawn, for all texts, those of ticks too, which are made only then; that
    no font here has a letter leaves a box in its place and no warning. It is laid out once, for the page and the file
    alike: that takes as long as drawing it.
    """

    def draw(self, renderer: RendererBase) -> None:
        with rc_context({"text.parse_math": False}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph .* missing from|Matplotlib currently does not support")
            for text in self.findobj(Text):
                text.set_parse_math(False)
            super().draw(renderer)
        self.set_layout_engine("none")


def blank(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches and its `rows` x `columns` plain axes, row by row; no pyplot state."""
    figure = Plain(figsize=(width, height), layout="constrained", facecolor=LIGHT["surface"])
    axes = figure.subplots(rows, columns, squeeze=False)
    flat = [axis for row in axes for axis in row]
    for axis in flat:
        _dress(axis)
    return figure, flat


def _dress(axis: Axes) -> None:
    axis.set_facecolor("none")
    axis.set_axisbelow(True)
    axis.grid(axis="y", color=LIGHT["line"], linewidth=0.7)
    axis.tick_params(colors=LIGHT["muted"], labelcolor=LIGHT["muted"], labelsize=SIZE, length=0)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("bottom",))
        spine.set_color(LIGHT["muted"])
        spine.set_linewidth(0.8)


def label(axis: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Axis labels in quiet ink, the title left-aligned above."""
    axis.set_xlabel(x, color=LIGHT["muted"], fontsize=SIZE)
    axis.set_ylabel(y, color=LIGHT["muted"], fontsize=SIZE)
    if title:
        axis.set_title(title, color=LIGHT["ink"], fontsize=SIZE + 1, loc="left", fontweight="bold")


def band(
    axis: Axes, x: Values, middle: Values, low: Values, high: Values, colour: str, name: str, marker: str = "o"
) -> None:
    """A line with its interval as a band; values that are not finite leave a gap, a lone point gets a bar.

    `x`, `middle`, `low` and `high` are float64 (N,) in the axis's units.
    """
    order = np.argsort(x, kind="stable")
    x, middle, low, high = x[order], middle[order], low[order], high[order]
    axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    if len(x) == 1:
        axis.errorbar(x, middle, np.nan_to_num([middle - low, high - middle]).clip(0), fmt="none", ecolor=colour)
    size = 3.2 if len(x) <= 30 and marker else 0
    axis.plot(x, middle, color=colour, linewidth=1.6, marker=marker or None, markersize=size, label=name)


def column(rows: Rows, name: str, factor: float = 1.0) -> Values:
    """A column of a table's lines as float64 (n,), times `factor`; NaN for what is no number."""
    return factor * np.array([number(row.get(name)) for row in rows], np.float64)


def legend(figure: Figure, axis: Axes, columns: int = 4) -> None:
    """One row of legend above the axes, without a frame."""
    handles, names = axis.get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=SIZE,
        labelcolor=LIGHT["ink"],
        handlelength=1.4,
        markerscale=1.5,
        columnspacing=1.6,
    )


def to_svg(figure: Figure, name: str) -> str:
    """The figure as one `<svg>` element: scales to its place, uses the page's fonts and colours, loads nothing.

    `name` makes the ids of the element unique within a page.
    """
    buffer = io.StringIO()
    empty = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", facecolor="none", metadata=empty)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"|<svg ', r'<svg aria-hidden="true" \1', text, count=1)
    text = re.sub(r'(<svg [^>]*?) (?:width|height)="[\d.]+pt"', r"\1", text)
    text = re.sub(r'(<svg [^>]*?) (?:width|height)="[\d.]+pt"', r"\1", text)
    text = re.sub(r"font: ((?:\d+ )?)([\d.]+px) [^;\"]*", _font, text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for key, colour in LIGHT.items():
        text = text.replace(colour, f"var(--{key})")
    return re.sub(r"\n\s*", "\n", text).strip()


def _font(match: re.Match[str]) -> str:
    weight = match.group(1).strip()
    return f"font-size: {match.group(2)}" + (f"; font-weight: {weight}" if weight else "")
