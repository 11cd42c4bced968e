"""The result tables as lines of printed cells, protocols kept apart: models, rivals, and upper bounds never mix."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
        "Trivial rivals",
        "rules that look at no pixel; here the gain is the specialist's lead in means, without an interval",
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


def metrics_of(report: Report) -> tuple[str, ...]:
    """Metrics that were measured, the verdict's first, then in the tables' order."""
    row = key_row(report)
    names = [str(row["metric"])] if row else []
    names += [str(line["metric"]) for line in (*rows_of(report.comparison), *rows_of(report.summary))]
    return tuple(dict.fromkeys(names))


def groups(report: Report, metric: str) -> tuple[Group, ...]:
    """All lines of one metric: models that can be used, then rivals and bounds, then further models."""
    comparison = [row for row in rows_of(report.comparison) if row["metric"] == metric]
    summary = [row for row in rows_of(report.summary) if row["metric"] == metric]
    compared = (report.base_model, report.tuned_model)
    measured = [str(row["output"]) for row in (*comparison, *summary)]
    order = [*MODELS, *sorted(set(measured) - set(OUTPUTS)), "rival", "three_oracle"]
    out = []
    for output in order:
        title, note = OUTPUTS.get(output, (words(output).capitalize(), ""))
        lines = [_compared(report, row, summary) for row in comparison if row["output"] == output]
        done = {(row["strategy"], row["output"]) for row in comparison}
        alone = [
            row
            for row in summary
            if row["output"] == output
            and (output == "rival" or (row["model"] in compared and (row["strategy"], output) not in done))
        ]
        lines += [
            _alone(report, row, _tuned_mean(report, comparison, row) if output == "rival" else math.nan)
            for row in alone
        ]
        if lines:
            out.append(Group(title, note, output not in MODELS, tuple(lines)))
    others = [row for row in summary if row["output"] != "rival" and row["model"] not in compared]
    if others:
        lines = [
            _alone(report, row, math.nan, f", {OUTPUTS.get(row['output'], (row['output'],))[0].lower()}")
            for row in others
        ]
        out.append(Group("Further models", "measured on the same images, not part of the verdict", True, tuple(lines)))
    return tuple(out)


def _label(report: Report, row: dict[str, Any]) -> str:
    """The strategy in words, and the data set and split where the tables hold more than one."""
    lines = (*rows_of(report.comparison), *rows_of(report.summary))
    places = {tuple(str(line[name]) for name in PLACE if name in line) for line in lines}
    where = ", ".join(str(row[name]) for name in PLACE if name in row) if len(places - {()}) > 1 else ""
    return strategy_name(str(row["strategy"])) + (f" ({where})" if where else "")


def _compared(report: Report, row: dict[str, Any], summary: Sequence[dict[str, Any]]) -> Line:
    metric = str(row["metric"])
    side: dict[str, dict[str, Any]] = {}
    for line in summary:
        same = all(line[name] == row[name] for name in ("strategy", "output", "metric"))
        if same and same_place(line, row):
            side.setdefault(str(line["model"]), line)
    base, tuned = side.get(report.base_model, {}), side.get(report.tuned_model, {})
    key = key_row(report)
    failures = [number(part.get("failed")) for part in (base, tuned)]
    return Line(
        label=_label(report, row),
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


def _tuned_mean(report: Report, comparison: Sequence[dict[str, Any]], rival: dict[str, Any]) -> float:
    for row in comparison:
        if row["strategy"] == rival["strategy"] and row["output"] == "single" and same_place(row, rival):
            return number(row["tuned"])
    return math.nan


def _alone(report: Report, row: dict[str, Any], tuned: float, suffix: str = "") -> Line:
    metric = str(row["metric"])
    ahead = lead(tuned, row["mean"], metric)
    failed = number(row["failed"])
    return Line(
        label=f"{words(str(row['model']))} \N{MIDDLE DOT} {_label(report, row)}{suffix}",
        base=score(row["mean"], metric),
        base_interval=interval(row["low"], row["high"], metric),
        gain=score(ahead, metric, sign=True) if math.isfinite(ahead) else "",
        n=count(row["n"]),
        failed=int(failed) if math.isfinite(failed) else 0,
    )
