"""The report as one HTML file that opens offline: styles, figures and pictures inside, and no script at all."""

from __future__ import annotations

import math
from pathlib import Path

from specialsam.report.difficulty import losses, said
from specialsam.report.facts import Comparison, DataFacts, Guard, History, Report, Rows, RunFacts, TableRow, rows_of
from specialsam.report.finding import found_lines
from specialsam.report.gallery import Drawn, drawn_once, save_figures
from specialsam.report.guard import guard_sentence, mixtures
from specialsam.report.numbers import metric_name, number
from specialsam.report.page import checked, environment, figured, problem_kinds, prompt_note, sides, write_page
from specialsam.report.probes import probe_lines, probe_titles
from specialsam.report.prompting import click_lines, models_of
from specialsam.report.protocol import by_protocol
from specialsam.report.search import search_lines
from specialsam.report.tables import result_tables
from specialsam.report.verdict import key_row, verdict_of


def write_report(report: Report, path: Path, figures: Path | None = None) -> None:
    """Write the page to `path`, whole or not at all, and its figures as files into a folder where one is given.

    SpecialSamError in one line when it cannot be written.
    """
    drawn = drawn_once(report)
    write_page(render(report, drawn), path)
    if figures is not None:
        save_figures(report, figures, drawn)


def render(report: Report, drawn: Drawn | None = None) -> str:
    """The whole page as text."""
    pictures = sides(report.comparisons)
    plates, further_plates = drawn or drawn_once(report)
    figures = {name: figured(name, plate) for name, plate in plates.items()}
    further = {
        name: [figured(f"{name}{index}", plate) for index, plate in enumerate(several)]
        for name, several in further_plates.items()
    }
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            run=report.run,
            data=report.data,
            history=report.history,
            verdict=verdict_of(report),
            tables=[(metric_name(metric), groups) for metric, groups in result_tables(report)],
            figures=figures,
            further=further,
            checks=checked(report.findings),
            categories=_categories(report),
            sides=pictures,
            problem_kinds=problem_kinds(report.data),
            prompt_note=prompt_note(report.prompt_source),
            **_parts(report),
        )
    )


def _parts(report: Report) -> dict[str, object]:
    """Tables and sentences of the parts that a report may leave out."""
    probes = rows_of(report.probes)
    models = models_of(report, probes)
    difficulty = by_protocol(rows_of(report.difficulty))
    by_interval = [(words, losses(rows)) for words, rows in difficulty]
    return {
        "mixtures": mixtures(report.guard) if report.guard else (),
        "guard_sentence": guard_sentence(report.guard) if report.guard else "",
        "search": search_lines(report.search) if report.search else None,
        "probe_titles": probe_titles(report, probes),
        "probes": [(words, probe_lines(rows, models)) for words, rows in by_protocol(probes)],
        "clicks": [(words, click_lines(report, rows)) for words, rows in by_protocol(rows_of(report.noc))],
        "losses": [("", said(report.losses))] if report.losses is not None else by_interval,
        "difficulty": difficulty,
        "found": found_lines(report.found),
    }


def _categories(report: Report) -> list[tuple[str, list[TableRow]]]:
    """(protocol in words, its lines by gain, best first, those without a gain last)."""
    groups = by_protocol(rows_of(report.by_category), key_row(report))
    return [(words, _sorted(rows)) for words, rows in groups]


def _sorted(rows: Rows) -> list[TableRow]:
    gains = [(number(row["gain"]), row) for row in rows]
    return [row for _, row in sorted(gains, key=lambda pair: -pair[0] if math.isfinite(pair[0]) else math.inf)]


__all__ = [
    "Comparison",
    "DataFacts",
    "Guard",
    "History",
    "Report",
    "RunFacts",
    "render",
    "save_figures",
    "write_report",
]
