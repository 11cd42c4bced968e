"""The result tables as lines of printed cells, protocols kept apart: models, rivals, and upper bounds never mix."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from specialsam.report.facts import Report, Rows, TableRow, rows_of
from specialsam.report.numbers import (
    count,
    interval,
    lead,
    number,
    probability,
    score,
    strategy_name,
    trend,
    words,
)
from specialsam.report.protocol import by_protocol, differing, same_place
from specialsam.report.verdict import key_row

if TYPE_CHECKING:
    import pandas as pd

OUTPUTS = {
    "single": ("One mask", "the model gives one mask for each prompt"),
    "three_best": ("Best of three by own score", "the model gives three masks and picks one itself"),
    "zoom": ("A second look", "one mask, asked again where it lies: up to one encoder pass an object more"),
    "tiles": ("From tiles", "one mask, put together from overlapping tiles of the image at its own resolution"),
    "rival": ("Trivial rival", "a rule that looks at no pixel"),
    "blind": (
        "Blind decoder",
        "tuned like a specialist, but on embeddings that say nothing of the image: what prompts alone give away",
    ),
    "three_oracle": ("Upper bound", "the best of three chosen by looking at the truth: no model can do this in use"),
}
MODELS = ("single", "three_best", "zoom", "tiles")
"""Outputs that a user can have; everything else stands below a line."""
TRIVIAL = ("rival", "blind")
"""Outputs of what looks at no image: the disc, the filled box, the decoder tuned blind."""


@dataclass(frozen=True)
class Line:
    """One printed line; `tuned` "" means that `base` is a single value that spans both columns."""

    label: str
    base: str
    base_interval: str = ""
    tuned: str = ""
    tuned_interval: str = ""
    gain: str = ""
    gain_interval: str = ""
    trend: str = "unknown"
    p: str = ""
    record: str = ""
    n: str = ""
    failed: int = 0
    key: bool = False


@dataclass(frozen=True)
class Group:
    """Lines of one output below a heading; `aside` is set for those that are no fair comparison of two models.

    `protocol`, where it is not "", is the line in words that must stand above this group: another protocol begins.
    """

    title: str
    note: str
    aside: bool
    lines: tuple[Line, ...]
    protocol: str = ""


@dataclass(frozen=True)
class _Tables:
    """The tables' lines of one metric and one protocol as dictionaries, and the verdict's line."""

    comparison: Rows
    summary: Rows
    models: tuple[str, ...]
    key: TableRow | None


def result_tables(report: Report) -> tuple[tuple[str, tuple[Group, ...]], ...]:
    """(metric, groups) for each metric that was measured: the verdict's first, then in the tables' order.

    Lines of different protocols are in different groups; the first group of each says so in words.
    """
    comparison, summary = rows_of(report.comparison), rows_of(report.summary)
    key = key_row(report)
    whole = _Tables(comparison, summary, (report.base_model, report.tuned_model), key)
    metrics = dict.fromkeys(str(row["metric"]) for row in ([key] if key else []) + comparison + summary)
    return tuple((metric, tuple(_apart(whole, metric))) for metric in metrics)


def mean_tables(summary: pd.DataFrame | None, model: str) -> tuple[tuple[str, tuple[Group, ...]], ...]:
    """(metric, groups) of a summary alone: what `model` reaches in each mode, beside rivals and the blind decoder."""
    rows = rows_of(summary)
    whole = _Tables([], rows, (model,), None)
    return tuple((metric, tuple(_apart(whole, metric))) for metric in dict.fromkeys(str(row["metric"]) for row in rows))


def _apart(whole: _Tables, metric: str) -> Iterator[Group]:
    """Groups of all protocols, the verdict's first; where there are several, the first group of each has its words."""
    comparison = [{**row, "_compared": True} for row in whole.comparison if row["metric"] == metric]
    summary = [{**row, "_compared": False} for row in whole.summary if row["metric"] == metric]
    protocols = by_protocol([*comparison, *summary], whole.key, _told_apart(comparison, summary))
    for protocol, rows in protocols:
        sides = [[row for row in rows if row["_compared"] is compared] for compared in (True, False)]
        for index, group in enumerate(_groups(replace(whole, comparison=sides[0], summary=sides[1]))):
            yield replace(group, protocol=protocol) if len(protocols) > 1 and not index else group


def _told_apart(one: Rows, other: Rows) -> list[str]:
    """Columns of the protocol that differ, but for those that one table lacks and the other fills with one value."""
    within = {*differing(one), *differing(other)}
    shared = set(one[0]) & set(other[0]) if one and other else set()
    return [name for name in differing([*one, *other]) if name in within | shared]


def _groups(tables: _Tables) -> Iterator[Group]:
    """Groups in order: models that can be used, other outputs, each rival, the upper bound, further models."""
    comparison, summary = tables.comparison, tables.summary
    done = {(row["strategy"], row["output"]) for row in comparison}
    measured = {str(row["output"]) for row in (*comparison, *summary)}
    for output in [*MODELS, *sorted(measured - set(OUTPUTS)), *TRIVIAL, "three_oracle"]:
        title, note = OUTPUTS.get(output, (words(output).capitalize(), ""))
        lines = [_compared(tables, row) for row in comparison if row["output"] == output]
        own = [row for row in summary if row["output"] == output]
        if output in TRIVIAL:
            for model in dict.fromkeys(row["model"] for row in own):
                rival = [_alone(row, _tuned_mean(comparison, row)) for row in own if row["model"] == model]
                name = words(model)
                name = name[:1].upper() + name[1:] if name.lower().startswith(title.lower()) else f"{title}: {name}"
                lead_note = "; gain: the specialist's lead in means, without interval" if comparison else ""
                yield Group(name, note + lead_note, True, tuple(rival))
            own = []
        alone = [r for r in own if r["model"] in tables.models and (r["strategy"], output) not in done]
        lines += [_alone(row, math.nan, named=len(tables.models) > 1) for row in alone]
        if lines:
            yield Group(title, note, output not in MODELS, tuple(lines))
    others = [row for row in summary if row["output"] not in TRIVIAL and row["model"] not in tables.models]
    for model, output in dict.fromkeys((str(row["model"]), str(row["output"])) for row in others):
        title = OUTPUTS.get(output, (words(output), ""))[0].lower()
        lines = [_alone(row, math.nan) for row in others if (row["model"], row["output"]) == (model, output)]
        yield Group(f"Further model: {model}, {title}", "not part of the verdict", True, tuple(lines))


def _compared(tables: _Tables, row: TableRow) -> Line:
    metric = str(row["metric"])
    side: dict[str, TableRow] = {}
    for line in tables.summary:
        if all(line[name] == row[name] for name in ("strategy", "output")):
            side.setdefault(str(line["model"]), line)
    base, tuned = (side.get(model, {}) for model in tables.models)
    key = tables.key
    failures = [number(part.get("failed")) for part in (base, tuned)]
    return Line(
        label=strategy_name(str(row["strategy"])),
        base=score(row["base"], metric),
        base_interval=interval(base.get("low"), base.get("high"), metric),
        tuned=score(row["tuned"], metric),
        tuned_interval=interval(tuned.get("low"), tuned.get("high"), metric),
        gain=score(row["gain"], metric, sign=True),
        gain_interval=interval(row["low"], row["high"], metric, sign=True),
        trend=trend(row["low"], row["high"]),
        p=probability(row["p_holm"]),
        record=" / ".join(count(row[name]) for name in ("wins", "losses", "ties")),
        n=count(row["n"]),
        failed=int(max((value for value in failures if math.isfinite(value)), default=0)),
        key=key is not None
        and all(key[name] == row[name] for name in ("strategy", "output", "metric"))
        and same_place(key, row),
    )


def _tuned_mean(comparison: Rows, rival: TableRow) -> float:
    for row in comparison:
        if row["strategy"] == rival["strategy"] and row["output"] == "single":
            return number(row["tuned"])
    return math.nan


def _alone(row: TableRow, tuned: float, named: bool = False) -> Line:
    metric = str(row["metric"])
    ahead = lead(tuned, row["mean"], metric)
    failed = number(row["failed"])
    return Line(
        label=(f"{words(row['model'])}, " if named else "") + strategy_name(str(row["strategy"])),
        base=score(row["mean"], metric),
        base_interval=interval(row["low"], row["high"], metric),
        gain=score(ahead, metric, sign=True) if math.isfinite(ahead) else "",
        n=count(row["n"]),
        failed=int(failed) if math.isfinite(failed) else 0,
    )
