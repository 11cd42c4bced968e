"""The map of a roll, at its end: where every event lies along it and across, as a picture and as an offline page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from specialsam.apps.line.events import SEVERITIES, Event
from specialsam.core.files import write_whole
from specialsam.core.names import printable
from specialsam.report.page import environment, write_page
from specialsam.report.palette import LIGHT, SIZE, blank, label, legend, to_svg

PAGE, PICTURE = "roll.html", "roll.png"
NUMBERED = 60
"""Events up to which each is numbered on the map."""
LISTED = 500
"""Events in the page's table; all are in the files of events."""
STYLES = {"minor": ("o", LIGHT["base"]), "major": ("s", LIGHT["rival"]), "critical": ("D", LIGHT["worse"])}
"""Marker and colour of each severity."""


@dataclass(frozen=True)
class Roll:
    """What ran past: its `title`, `metres` and `width_mm`, its events in their order, and facts by name."""

    title: str
    metres: float
    width_mm: float
    events: Sequence[Event]
    facts: Mapping[str, str]


def write_roll(roll: Roll, out: Path) -> Path:
    """Write roll.png and roll.html into `out`; the page. SpecialSamError where they cannot be written."""
    figure = drawn(roll)
    write_whole(out / PICTURE, lambda path: figure.savefig(path, dpi=130, facecolor=LIGHT["surface"]))
    listed = [(number, one) for number, one in enumerate(roll.events, 1)][:LISTED]
    counts = {name: sum(one.severity == name for one in roll.events) for name in reversed(SEVERITIES)}
    text = (
        _environment()
        .get_template("roll.html.j2")
        .render(
            title=printable(roll.title),
            svg=Markup(to_svg(figure, "roll")),
            metres=roll.metres,
            width=roll.width_mm,
            counts=counts,
            total=len(roll.events),
            listed=listed,
            facts={printable(name): printable(value) for name, value in roll.facts.items()},
        )
    )
    write_page(text, out / PAGE)
    return out / PAGE


def drawn(roll: Roll) -> Figure:
    """The web as a strip, its events on it."""
    figure, [axis] = blank(10.5, 3.1)
    length = max(roll.metres, 1e-3)
    axis.add_patch(Rectangle((0, 0), length, roll.width_mm, facecolor=LIGHT["line"], alpha=0.45, linewidth=0, zorder=0))
    for severity in SEVERITIES:
        _marks(axis, [one for one in roll.events if one.severity == severity], severity)
    if len(roll.events) <= NUMBERED:
        for number, one in enumerate(roll.events, 1):
            place = (one.metre, sum(one.across_mm) / 2)
            axis.annotate(str(number), place, (5, 4), textcoords="offset points", fontsize=SIZE - 1, color=LIGHT["ink"])
    axis.set_xlim(0, length)
    axis.set_ylim(roll.width_mm, 0)
    axis.grid(axis="x", color=LIGHT["surface"], linewidth=0.9)
    axis.grid(axis="y", visible=False)
    label(axis, "metres along the roll", "millimetres across")
    if roll.events:
        legend(figure, axis)
    return figure


def _marks(axis: Axes, events: Sequence[Event], severity: str) -> None:
    marker, colour = STYLES[severity]
    for one in events:
        corner = (one.along_m[0], one.across_mm[0])
        size = (one.along_m[1] - one.along_m[0], one.across_mm[1] - one.across_mm[0])
        axis.add_patch(Rectangle(corner, *size, facecolor=colour, alpha=0.35, linewidth=0))
    if events:
        along, across = [one.metre for one in events], [sum(one.across_mm) / 2 for one in events]
        name = f"{severity} ({len(events)})"
        axis.scatter(
            along, across, s=22, marker=marker, color=colour, edgecolors=LIGHT["surface"], label=name, zorder=3
        )


@cache
def _environment() -> Environment:
    """The report's environment with this room's templates."""
    return environment().overlay(loader=PackageLoader("specialsam.apps"))
