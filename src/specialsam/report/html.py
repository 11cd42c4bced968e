"""The report as one HTML file that opens offline: styles, figures and pictures inside, and no script at all."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from specialsam.core.files import write_whole
from specialsam.report.facts import (
    Comparison,
    DataFacts,
    History,
    Report,
    RunFacts,
    rows_of,
)
from specialsam.report.gallery import Plate, plates, save_figures
from specialsam.report.numbers import (
    count,
    duration,
    interval,
    metric_name,
    number,
    score,
    strategy_name,
    trend,
    words,
)
from specialsam.report.palette import DARK, FALSE_ALARM, HIT, LIGHT, MISS, css_variables, to_svg
from specialsam.report.pictures import data_uris, panels
from specialsam.report.tables import result_tables
from specialsam.report.verdict import judge, key_row

PROBLEMS_SHOWN = 20

PROMPT_SOURCES = {
    "truth": "Prompts are derived from the ground truth (prompt source \N{LEFT DOUBLE QUOTATION MARK}truth"
    "\N{RIGHT DOUBLE QUOTATION MARK}), the same for every model: results with hand-placed prompts can be lower.",
}


@dataclass(frozen=True)
class Figured:
    """A figure ready for the page: its SVG ("" when there is none), caption and alternative text."""

    svg: Markup
    caption: str
    alt: str


@dataclass(frozen=True)
class Shown:
    """One panel on the page; `uri` None when the page had no room left for it."""

    title: str
    note: str
    alt: str
    uri: str | None
    width: int
    height: int


def write_report(report: Report, path: Path) -> None:
    """Write the page to `path`, whole or not at all. SpecialSamError in one line when it cannot be written."""
    text = render(report)
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def render(report: Report) -> str:
    """The whole page as text."""
    environment = Environment(
        loader=PackageLoader("specialsam.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = {
        "count": count, "duration": duration, "interval": interval, "number": number, "score": score,
        "strategy_name": strategy_name, "trend": trend, "words": words, "printed": printed,
    }  # fmt: skip
    environment.filters.update(names)
    css = environment.get_template("report.css").render(
        light=css_variables(LIGHT),
        dark=css_variables(DARK),
        hit=_rgb(HIT),
        miss=_rgb(MISS),
        false_alarm=_rgb(FALSE_ALARM),
    )
    sides = _sides(report)
    return environment.get_template("report.html.j2").render(
        report=report,
        run=report.run,
        data=report.data,
        history=report.history,
        verdict=judge(report),
        key=key_row(report),
        tables=[(metric_name(metric), groups) for metric, groups in result_tables(report)],
        figures={name: _figured(name, plate) for name, plate in plates(report).items()},
        categories=_categories(report),
        sides=sides,
        unshown=sum(any(panel.uri is None for panel in side) for _, side in sides),
        problem_kinds=Counter(problem.kind for problem in report.data.problems) if report.data else {},
        problems_shown=PROBLEMS_SHOWN,
        prompt_note=PROMPT_SOURCES.get(report.prompt_source, f"Prompt source: {report.prompt_source}."),
        metric=metric_name(report.main_metric),
        css=Markup(css),
    )


def printed(value: Any) -> str:
    """A setting or a fact as one line: text as it is, floats short, the rest as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _rgb(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _figured(name: str, plate: Plate) -> Figured:
    svg = "" if plate.figure is None else to_svg(plate.figure, name)
    return Figured(Markup(svg), plate.caption, plate.alt)


def _categories(report: Report) -> list[dict[str, Any]]:
    """Lines by gain, best first, those without a gain last."""
    gains = [(number(row["gain"]), row) for row in rows_of(report.by_category)]
    return [row for _, row in sorted(gains, key=lambda pair: -pair[0] if math.isfinite(pair[0]) else math.inf)]


def _sides(report: Report) -> list[tuple[Comparison, list[Shown]]]:
    """Panels of all comparisons with their pictures, as many as the page's size allows; a row is whole or not shown."""
    drawn = [panels(comparison) for comparison in report.comparisons]
    uris = iter(data_uris([panel.image for row in drawn for panel in row]))
    out = []
    for comparison, row in zip(report.comparisons, drawn, strict=True):
        texts = [next(uris) for _ in row]
        whole = None not in texts
        shown = [
            Shown(
                panel.title, panel.note, panel.alt, uri if whole else None, panel.image.shape[1], panel.image.shape[0]
            )
            for panel, uri in zip(row, texts, strict=True)
        ]
        out.append((comparison, shown))
    return out


__all__ = ["Comparison", "DataFacts", "History", "Report", "RunFacts", "render", "save_figures", "write_report"]
