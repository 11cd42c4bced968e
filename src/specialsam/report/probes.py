"""The probes' table: what each model answers when image or prompt is taken away or exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from specialsam.report.facts import Report, Rows
from specialsam.report.numbers import count, interval, score, words
from specialsam.report.prompting import model_title, models_of

PROBES = {
    "plain": ("as measured", "one click inside the object"),
    "blind": ("without the image", "the mean embedding of all probed images in its place: low is right"),
    "shuffled": ("another image", "the embedding of another image in its place: low is right"),
    "shift 10 %": ("click moved by 10 %", "of the object's size"),
    "shift 25 %": ("click moved by 25 %", "of the object's size"),
    "shift 50 %": ("click moved by 50 %", "of the object's size, off the object perhaps"),
    "background": ("click beside the object", "the object should not be the answer: low is right"),
    "moved": ("click on another object", "overlap with the answer to the first click: low is right"),
}
"""Names and notes of the probes that are known; any other is shown by its name in words."""


@dataclass(frozen=True)
class ProbeLine:
    """One probe: a (mean, interval) a model in the table's order, "" where it was not measured; images, and a note."""

    name: str
    note: str
    cells: tuple[tuple[str, str], ...]
    n: str


def probe_titles(report: Report, rows: Rows) -> tuple[str, ...]:
    """The models of the table as the page calls them, in the order of `models_of`."""
    return tuple(model_title(report, model) for model in models_of(report, rows))


def probe_lines(rows: Rows, models: Sequence[str]) -> tuple[ProbeLine, ...]:
    """One line a probe, in the table's order."""
    lines = []
    for probe in dict.fromkeys(str(row["probe"]) for row in rows):
        own = {str(row["model"]): row for row in rows if str(row["probe"]) == probe}
        cells = tuple(
            (score(own[model]["mean"]), interval(own[model]["low"], own[model]["high"])) if model in own else ("", "")
            for model in models
        )
        sizes = dict.fromkeys(count(own[model]["n"]) for model in models if model in own)
        notes = [told for row in own.values() if isinstance(told := row.get("note"), str) and told]
        name, note = PROBES.get(words(probe), (words(probe), ""))
        lines.append(ProbeLine(name, notes[0] if notes else note, cells, " / ".join(sizes)))
    return tuple(lines)
