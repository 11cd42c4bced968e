"""What all pages share: the template environment, the style sheet, figures and pictures made ready, writing."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from specialsam.core.files import write_whole
from specialsam.core.findings import LEVELS, Finding, alarms
from specialsam.core.geometry import ImageArray
from specialsam.report.facts import Comparison, DataFacts
from specialsam.report.gallery import Plate
from specialsam.report.numbers import (
    DASH,
    MINUS,
    count,
    duration,
    interval,
    number,
    score,
    strategy_name,
    trend,
    words,
)
from specialsam.report.palette import DARK, FALSE_ALARM, HIT, LIGHT, MISS, css_variables, to_svg
from specialsam.report.pictures import data_uris, panels

FILES_SHOWN = 10
"""Files that a finding lists before it counts."""
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
    """One picture on the page; `uri` None when the page had no room left for it."""

    title: str
    note: str
    alt: str
    uri: str | None
    width: int
    height: int


@dataclass(frozen=True)
class Checked:
    """Findings as the page shows them: how many of each level, alarms (failures first), and what passed."""

    counts: tuple[tuple[str, int], ...]
    alarms: tuple[Finding, ...]
    passes: tuple[Finding, ...]


@cache
def environment() -> Environment:
    """The templates with the filters that print numbers and names."""
    made = Environment(
        loader=PackageLoader("specialsam.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        {
            "count": count, "duration": duration, "interval": interval, "number": number, "score": score,
            "strategy_name": strategy_name, "trend": trend, "words": words, "printed": printed, "fact": fact,
        }
    )  # fmt: skip
    css = made.get_template("report.css").render(
        light=css_variables(LIGHT),
        dark=css_variables(DARK),
        hit=_rgb(HIT),
        miss=_rgb(MISS),
        false_alarm=_rgb(FALSE_ALARM),
    )
    made.globals.update(css=Markup(css), files_shown=FILES_SHOWN, problems_shown=PROBLEMS_SHOWN)
    return made


def write_page(text: str, path: Path) -> None:
    """Write a page whole or not at all. SpecialSamError in one line when it cannot be written.

    Paths may hold bytes that are no UTF-8; on the page they stand as escapes.
    """
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8", errors="backslashreplace"))


def prompt_note(source: str) -> str:
    """Where prompts come from, in a sentence that stands beside every table."""
    return PROMPT_SOURCES.get(source, f"Prompt source: {source}.")


def problem_kinds(data: DataFacts | None) -> Counter[str]:
    """How many files have each kind of problem."""
    return Counter(problem.kind for problem in data.problems) if data else Counter()


def printed(value: object) -> str:
    """A setting or a fact as one line: text as it is, floats short, the rest as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def fact(value: float | int | str) -> str:
    """A number of a finding: four digits that count, thousands separated; words as they are."""
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return DASH
    text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return text.replace("-", MINUS) if text.startswith("-") else text


def checked(findings: Sequence[Finding]) -> Checked:
    """Findings sorted for the page."""
    counts = tuple((level, sum(finding.level == level for finding in findings)) for level in LEVELS)
    return Checked(counts, tuple(alarms(findings)), tuple(f for f in findings if f.level == "pass"))


def figured(name: str, plate: Plate) -> Figured:
    """A figure as SVG; `name` makes its ids unique within the page."""
    svg = "" if plate.figure is None else to_svg(plate.figure, name)
    return Figured(Markup(svg), plate.caption, plate.alt)


def sides(comparisons: Sequence[Comparison], tuned: str = "Specialist") -> list[tuple[Comparison, list[Shown]]]:
    """Panels of all comparisons with their pictures, as many as the page's size allows; a row is whole or not shown."""
    drawn = [panels(comparison, tuned=tuned) for comparison in comparisons]
    uris = iter(data_uris([panel.image for row in drawn for panel in row]))
    out = []
    for comparison, row in zip(comparisons, drawn, strict=True):
        texts = [next(uris) for _ in row]
        whole = None not in texts
        pictures = [
            shown(panel.title, panel.note, panel.alt, panel.image, uri if whole else None)
            for panel, uri in zip(row, texts, strict=True)
        ]
        out.append((comparison, pictures))
    return out


def shown(title: str, note: str, alt: str, image: ImageArray, uri: str | None) -> Shown:
    """A picture uint8 (h, w, 3) with its place on the page."""
    return Shown(title, note, alt, uri, image.shape[1], image.shape[0])


def _rgb(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
