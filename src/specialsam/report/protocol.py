"""Which protocol a line of a table was measured by: lines of different protocols never stand together unmarked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from specialsam.report.facts import Rows, TableRow
from specialsam.report.numbers import words

PLACE = ("dataset", "split", "prompt_source", "resolution", "soft", "subset", "variant")
"""Columns that a table may have; lines that differ in them are never compared."""

PROMPTS = {
    "truth": "prompts from the truth",
    "none": "no prompt",
    "user": "prompts placed by hand",
    "hand": "prompts placed by hand",
}

_Row = TypeVar("_Row", bound=TableRow)


def place(row: TableRow) -> dict[str, str]:
    """What a line says of its protocol, column by column, as text; what is absent, empty or NaN is left out."""
    return {name: _text(row[name]) for name in PLACE if name in row and not _nothing(row[name])}


def same_place(one: TableRow, other: TableRow) -> bool:
    """Whether two lines of tables were measured by the same protocol, as far as both name it."""
    first, second = place(one), place(other)
    return all(first[name] == second[name] for name in first.keys() & second.keys())


def differing(rows: Rows) -> tuple[str, ...]:
    """Columns of the protocol in which the lines differ; to leave out what others name is to differ."""
    places = [place(row) for row in rows]
    return tuple(name for name in PLACE if len({found.get(name, "") for found in places}) > 1)


def by_protocol(
    rows: Sequence[_Row], first: TableRow | None = None, columns: Sequence[str] | None = None
) -> list[tuple[str, list[_Row]]]:
    """(protocol in words, its lines) in order of appearance, the protocol of the line `first` before all others.

    Lines are kept apart by `columns` (None: those in which they differ). The words are those of the group's first
    line, and "" where it names nothing.
    """
    apart = differing(rows) if columns is None else columns
    groups: dict[tuple[str, ...], list[_Row]] = {}
    for row in rows:
        named = place(row)
        groups.setdefault(tuple(named.get(name, "") for name in apart), []).append(row)
    ordered = list(groups.values())
    if first is not None:
        ordered.sort(key=lambda group: not same_place(group[0], first))
    return [(protocol_words(group[0], apart), group) for group in ordered]


def protocol_words(row: TableRow, apart: Sequence[str] = ()) -> str:
    """A line's protocol in words: "data set camo, test split, prompts from the truth, scored at 512 px".

    Columns of `apart` that the line does not name are said to be missing, because other lines differ in them.
    """
    named = place(row)
    texts = [_in_words(name, named[name]) for name in PLACE if name in named]
    texts += [f"{words(name)} not told" for name in PLACE if name in apart and name not in named]
    text = ", ".join(texts)
    return text[:1].upper() + text[1:]


def _in_words(name: str, value: str) -> str:
    match name:
        case "dataset":
            return f"data set {value}"
        case "split":
            return f"{value} split" if value in ("train", "val", "test") else f"images: {value}"
        case "prompt_source":
            return PROMPTS.get(value, f"prompts from {words(value)}")
        case "resolution":
            return f"scored at {value} px" if value.replace(".", "", 1).isdigit() else f"scored at {value} resolution"
        case "soft":
            return "scored on soft answers" if value in ("True", "1", "soft") else "scored on thresholded answers"
        case _:
            return f"{name} {words(value)}"


def _text(value: object) -> str:
    """As text; a whole float, which a column with gaps makes of an integer, as the integer that it was."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _nothing(value: object) -> bool:
    return value is None or value == "" or bool(value != value)
