"""The probes' table: what each model answers when image or prompt is taken away or exchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specialsam.report.facts import Report
from specialsam.report.numbers import count, interval, score, words
from specialsam.report.prompting import model_title


@dataclass(frozen=True)
class ProbeLine:
    """One probe: a (mean, interval) a model in the table's order, "" where it was not measured; images, and a note."""

    name: str
    note: str
    cells: tuple[tuple[str, str], ...]
    n: str


def probe_models(report: Report, rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Models of the table by name, base first, specialist second."""
    models = list(dict.fromkeys(str(row["model"]) for row in rows))
    return tuple(sorted(models, key=lambda model: (model != report.base_model, model != report.tuned_model)))


def probe_titles(report: Report, rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The same as the page calls them."""
    return tuple(model_title(report, model) for model in probe_models(report, rows))


def probe_lines(rows: Sequence[Mapping[str, Any]], models: Sequence[str]) -> tuple[ProbeLine, ...]:
    """One line a probe, in the table's order."""
    lines = []
    for probe in dict.fromkeys(str(row["probe"]) for row in rows):
        own = {str(row["model"]): row for row in rows if str(row["probe"]) == probe}
        cells = tuple(
            (score(own[model]["mean"]), interval(own[model]["low"], own[model]["high"])) if model in own else ("", "")
            for model in models
        )
        sizes = dict.fromkeys(count(own[model]["n"]) for model in models if model in own)
        notes = [str(row["note"]) for row in own.values() if isinstance(row.get("note"), str)]
        lines.append(ProbeLine(words(probe), notes[0] if notes else "", cells, " / ".join(sizes)))
    return tuple(lines)
