"""The result tables as lines of printed cells, protocols kept apart: models, rivals, and upper bounds never mix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from specialsam.report.facts import PLACE, Report, rows_of, same_place
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
from specialsam.report.verdict import key_row

OUTPUTS = {
    "single": ("One mask", "the model gives one mask for each prompt"),
    "three_best": ("Best of three by own score", "the model gives three masks and picks one itself"),
    "rival": (
        "Trivial rival",
        "a rule that looks at no pixel; gain: the specialist's lead in means, without interval",
    ),
    "three_oracle": ("Upper bound", "the best of three chosen by looking at the truth: no model can do this in use"),
}
MODELS = ("single", "three_best")
"""Outputs that a user can have; everything else stands below a line."""


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
    """Lines of one protocol below a heading; `aside` is set for those that are no fair comparison of two models."""

    title: str
    note: str
    aside: bool
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class _Tables:
    """The report's tables as dictionaries, the verdict's line, and whether they hold several data sets or splits."""

    comparison: list[dict[str, Any]]
    summary: list[dict[str, Any]]
    models: tuple[str, str]
    key: dict[str, Any] | None
    several: bool


def result_tables(report: Report) -> tuple[tuple[str, tuple[Group, ...]], ...]:
    """(metric, groups) for each metric that was measured: the verdict's first, then in the tables' order."""
    comparison, summary = rows_of(report.comparison), rows_of(report.summary)
    places = {tuple(str(row[name]) for name in PLACE if name in row) for row in (*comparison, *summary)} - {()}
    key = key_row(report)
    tables = _Tables(comparison, summary, (report.base_model, report.tuned_model), key, len(places) > 1)
    metrics = [str(row["metric"]) for row in ([key] if key else []) + comparison + summary]
    return tuple((metric, tuple(_groups(tables, metric))) for metric in dict.fromkeys(metrics))


def _groups(tables: _Tables, metric: str) -> Iterator[Group]:
    """Groups of one metric: models that can be used, other outputs, each rival, the upper bound, further models."""
    comparison = [row for row in tables.comparison if row["metric"] == metric]
    summary = [row for row in tables.summary if row["metric"] == metric]
    done = {(row["strategy"], row["output"]) for row in comparison}
    measured = {str(row["output"]) for row in (*comparison, *summary)}
    for output in [*MODELS, *sorted(measured - set(OUTPUTS)), "rival", "three_oracle"]:
        title, note = OUTPUTS.get(output, (words(output).capitalize(), ""))
        lines = [_compared(tables, row) for row in comparison if row["output"] == output]
        own = [row for row in summary if row["output"] == output]
        if output == "rival":
            for model in dict.fromkeys(row["model"] for row in own):
                rival = [_alone(tables, row, _tuned_mean(comparison, row)) for row in own if row["model"] == model]
                yield Group(f"{title}: {words(model)}", note, True, tuple(rival))
            own = []
        alone = [r for r in own if r["model"] in tables.models and (r["strategy"], output) not in done]
        lines += [_alone(tables, row, math.nan, f"{words(row['model'])}, ") for row in alone]
        if lines:
            yield Group(title, note, output not in MODELS, tuple(lines))
    others = [row for row in summary if row["output"] != "rival" and row["model"] not in tables.models]
    for model, output in dict.fromkeys((row["model"], row["output"]) for row in others):
        title = OUTPUTS.get(output, (words(output), ""))[0].lower()
        lines = [_alone(tables, row, math.nan) for row in others if (row["model"], row["output"]) == (model, output)]
        yield Group(f"Further model: {model}, {title}", "not part of the verdict", True, tuple(lines))


def _label(tables: _Tables, row: dict[str, Any]) -> str:
    """The strategy in words, with the data set and split where the tables hold more than one."""
    where = ", ".join(str(row[name]) for name in PLACE if name in row) if tables.several else ""
    return strategy_name(str(row["strategy"])) + (f" ({where})" if where else "")


def _compared(tables: _Tables, row: dict[str, Any]) -> Line:
    metric = str(row["metric"])
    side: dict[str, dict[str, Any]] = {}
    for line in tables.summary:
        same = all(line[name] == row[name] for name in ("strategy", "output", "metric"))
        if same and same_place(line, row):
            side.setdefault(str(line["model"]), line)
    base, tuned = (side.get(model, {}) for model in tables.models)
    key = tables.key
    failures = [number(part.get("failed")) for part in (base, tuned)]
    return Line(
        label=_label(tables, row),
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
        and all(key[name] == row[name] for name in ("strategy", "output", "metric", *PLACE) if name in row),
    )


def _tuned_mean(comparison: Sequence[dict[str, Any]], rival: dict[str, Any]) -> float:
    for row in comparison:
        if row["strategy"] == rival["strategy"] and row["output"] == "single" and same_place(row, rival):
            return number(row["tuned"])
    return math.nan


def _alone(tables: _Tables, row: dict[str, Any], tuned: float, prefix: str = "") -> Line:
    metric = str(row["metric"])
    ahead = lead(tuned, row["mean"], metric)
    failed = number(row["failed"])
    return Line(
        label=prefix + _label(tables, row),
        base=score(row["mean"], metric),
        base_interval=interval(row["low"], row["high"], metric),
        gain=score(ahead, metric, sign=True) if math.isfinite(ahead) else "",
        n=count(row["n"]),
        failed=int(failed) if math.isfinite(failed) else 0,
    )
