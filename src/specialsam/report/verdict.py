"""The first paragraph of the report: was it worth it, in plain words, with the number, its interval and its guards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from specialsam.report.facts import Report, TableRow, rows_of
from specialsam.report.numbers import (
    RAW,
    count,
    interval,
    lead,
    metric_name,
    number,
    probability,
    score,
    strategy_name,
    trend,
    words,
)
from specialsam.report.protocol import by_protocol, protocol_words, same_place

Level = Literal["use", "weak", "unclear", "worse", "unknown"]

FEW = 20
"""Below this number of images a percentile bootstrap interval is too narrow to be trusted."""
SMALL = 0.01
"""A gain below one percent point is called small however sure it is."""

HEADLINES = {
    "use": "Use the specialist.",
    "checks": "The numbers say yes, but a check FAILED: mend that and measure again before you rely on them.",
    "few": "Promising, but measured on very few images: measure more before you rely on it.",
    "small": "A real but small gain: weigh it against the work of keeping a second model.",
    "rival": "Better than the base, but no better than a rule that looks at no pixel: do not rely on it.",
    "ahead": "Better than the base, but not surely better than a rule that looks at no pixel: measure more.",
    "three": "Better mask for mask, but the base does as well when it may offer three masks: try that first.",
    "three_ahead": "Better mask for mask, but not surely better than the base with three masks: try that first.",
    "unclear": "No gain that can be told from chance: keep the base model.",
    "worse": "Do not use the specialist: it is WORSE than the base model.",
    "few_worse": "It looks worse than the base model, but on very few images: keep the base, or measure more.",
    "unknown": "No verdict: base and specialist were not compared.",
    "one": "No verdict: the gain has no interval, so nothing can be said of chance.",
}


@dataclass(frozen=True)
class Verdict:
    """`headline` to act on, `sentences` that back it, and the key numbers as printed ("" where not known)."""

    level: Level
    headline: str
    sentences: tuple[str, ...]
    gain: str = ""
    interval: str = ""
    base: str = ""
    tuned: str = ""
    n: str = ""
    metric: str = ""
    strategy: str = ""


def key_row(report: Report) -> TableRow | None:
    """The line of the comparison that the verdict rests on: main metric, main strategy, one mask; None without one.

    What the report does not name, or names in vain, is taken from the comparison's first fitting line.
    """
    rows = rows_of(report.comparison)
    for wanted in (
        {"output": "single", "metric": report.main_metric, "strategy": report.main_strategy},
        {"output": "single", "metric": report.main_metric},
        {"metric": report.main_metric},
        {"output": "single"},
        {},
    ):
        for row in rows:
            if all(row[name] == value for name, value in wanted.items()):
                return row
    return None


def mean_of(report: Report, model: str, row: TableRow, output: str) -> float:
    """A model's mean in another output, else as in `row`, from the summary; NaN when it was not measured."""
    for line in rows_of(report.summary):
        wanted = (model, row["strategy"], output, row["metric"])
        if (line["model"], line["strategy"], line["output"], line["metric"]) == wanted and same_place(line, row):
            return number(line["mean"])
    return math.nan


def verdict_of(report: Report) -> Verdict:
    """The verdict on a report: what its numbers allow to say, and what to do."""
    row = key_row(report)
    if row is None:
        return Verdict("unknown", HEADLINES["unknown"], report.run.verdict)
    metric = str(row["metric"])
    direction = trend(row["low"], row["high"])
    reason, level = _reason(report, row, direction)
    sentences = [
        _checks_sentence(report),
        _result(row, direction),
        _protocol_sentence(report, row),
        _rival_sentence(report, row),
        _three_sentence(report, row),
    ]
    sentences += [*_others(report, row), *_cautions(report, row, direction), *report.run.verdict]
    return Verdict(
        level=level,
        headline=HEADLINES[reason],
        sentences=tuple(sentence for sentence in sentences if sentence),
        gain=score(row["gain"], metric, sign=True),
        interval=interval(row["low"], row["high"], metric, sign=True),
        base=_percent(row["base"], metric),
        tuned=_percent(row["tuned"], metric),
        n=count(row["n"]),
        metric=metric_name(metric),
        strategy=strategy_name(str(row["strategy"])),
    )


def _reason(report: Report, row: TableRow, direction: str) -> tuple[str, Level]:
    if direction == "down" and number(row["n"]) < FEW:
        return "few_worse", "unclear"
    if direction == "down":
        return "worse", "worse"
    if direction == "flat":
        return "unclear", "unclear"
    if direction == "unknown":
        return "one", "unknown"
    if _failed_checks(report):
        return "checks", "weak"
    rival = best_rival(report, row)
    metric = str(row["metric"])
    if rival is not None and not lead(row["tuned"], rival["mean"], metric) > 0:
        return "rival", "weak"
    if rival is not None and not _sure(_ahead_of(report, row, rival)):
        return "ahead", "weak"
    base_three, tuned_best, output = _three(report, row)
    if lead(base_three, tuned_best, metric) >= 0:
        return "three", "weak"
    if not _sure(_paired_lead(report, row, report.base_model, output)):
        return "three_ahead", "weak"
    if number(row["n"]) < FEW:
        return "few", "weak"
    return ("small", "weak") if number(row["gain"]) < SMALL else ("use", "use")


def _failed_checks(report: Report) -> list[str]:
    return [finding.check for finding in report.findings if finding.level == "fail"]


def _checks_sentence(report: Report) -> str:
    failed = [words(check) for check in _failed_checks(report)]
    return f"What FAILED among the checks: {', '.join(failed)}." if failed else ""


def _protocol_sentence(report: Report, row: TableRow) -> str:
    """Which protocol this is about, where the comparison holds several."""
    if len(by_protocol(rows_of(report.comparison))) < 2:
        return ""
    return f"This is about one of several protocols in the tables: {protocol_words(row)}."


def best_rival(report: Report, row: TableRow) -> TableRow | None:
    """The trivial rival with the best mean on the row's strategy and metric (any strategy where none has this one)."""
    rivals = [
        other
        for other in rows_of(report.summary)
        if (other["output"], other["metric"]) == ("rival", row["metric"])
        and math.isfinite(number(other["mean"]))
        and same_place(other, row)
    ]
    same = [other for other in rivals if other["strategy"] == row["strategy"]]
    metric = str(row["metric"])
    return max(same or rivals, key=lambda other: lead(other["mean"], 0.0, metric), default=None)


def _paired_lead(report: Report, row: TableRow, rival: str, output: str = "single") -> TableRow | None:
    """How far an output of the specialist is ahead of a rival, image by image; None where it was not paired."""
    for line in rows_of(report.leads):
        wanted = (row["strategy"], output, row["metric"], rival)
        if (line["strategy"], line["output"], line["metric"], line["rival"]) == wanted and same_place(line, row):
            return line
    return None


def _ahead_of(report: Report, row: TableRow, rival: TableRow) -> TableRow | None:
    """`_paired_lead` over a trivial rival; None where it was measured with another prompt."""
    return _paired_lead(report, row, str(rival["model"])) if rival["strategy"] == row["strategy"] else None


def _sure(paired: TableRow | None) -> bool:
    """Whether a lead in the means is more than chance: its interval above zero; without one the means must do."""
    return paired is None or trend(paired["low"], paired["high"]) == "up"


def _three(report: Report, row: TableRow) -> tuple[float, float, str]:
    """(base's mean with the best of three by its own score, the specialist's best honest mean, of which output).

    NaN where the base's was not measured.
    """
    base = mean_of(report, report.base_model, row, "three_best")
    single, three = number(row["tuned"]), mean_of(report, report.tuned_model, row, "three_best")
    better = lead(three, single, str(row["metric"])) > 0
    return base, three if better else single, "three_best" if better else "single"


def _percent(value: object, metric: str) -> str:
    return score(value, metric) + ("" if metric in RAW else " %")


def _result(row: TableRow, direction: str) -> str:
    metric, strategy = str(row["metric"]), str(row["strategy"])
    limits = interval(row["low"], row["high"], metric, sign=True)
    tail = {
        "up": "the interval lies above zero",
        "down": "the interval lies BELOW ZERO",
        "flat": "the interval includes zero",
        "unknown": "no interval can be given",
    }[direction]
    return (
        f"On {count(row['n'])} held-out images (prompt: {strategy_name(strategy)}; one mask) the specialist reaches "
        f"{_percent(row['tuned'], metric)} {metric_name(metric)} where the base reaches "
        f"{_percent(row['base'], metric)}: {score(row['gain'], metric, sign=True)}"
        + ("" if metric in RAW else " percent points")
        + (f", 95 % interval {limits}; {tail}." if limits else f"; {tail}.")
    )


def _rival_sentence(report: Report, row: TableRow) -> str:
    rival = best_rival(report, row)
    if rival is None:
        return "No trivial rival was measured, so it is not known whether a rule without a model would do as well."
    metric = str(row["metric"])
    wins, paired = lead(row["tuned"], rival["mean"], metric) > 0, _ahead_of(report, row, rival)
    where = "" if rival["strategy"] == row["strategy"] else f" with {strategy_name(str(rival['strategy']))}"
    by = _image_by_image(paired, metric)
    if wins and not _sure(paired):
        return (
            f"The best trivial rival ({rival['model']}: looks at no pixel) reaches {_percent(rival['mean'], metric)}; "
            f"that the specialist is ahead of it{by} may be chance."
        )
    text = (
        f"The best trivial rival ({rival['model']}{where}: looks at no pixel) reaches "
        f"{_percent(rival['mean'], metric)}; the specialist {'beats it' if wins else 'does NOT beat it'}{by}"
    )
    base = lead(row["base"], rival["mean"], metric) > 0
    return text + (", and so does the base." if wins and base else ", which the base does not." if wins else ".")


def _image_by_image(paired: TableRow | None, metric: str) -> str:
    if paired is None:
        return ""
    limits = interval(paired["low"], paired["high"], metric, sign=True)
    return f" (image by image {score(paired['lead'], metric, sign=True)} {limits})" if limits else ""


def _three_sentence(report: Report, row: TableRow) -> str:
    base, tuned, output = _three(report, row)
    if not math.isfinite(base):
        return ""
    metric = str(row["metric"])
    paired = _paired_lead(report, row, report.base_model, output)
    how = "NOT" if not lead(tuned, base, metric) > 0 else "still" if _sure(paired) else "not surely"
    return (
        f"Allowed three masks and its own choice among them, the base reaches {_percent(base, metric)}; "
        f"the specialist, at {_percent(tuned, metric)} in its better mode, is {how} ahead of that"
        f"{_image_by_image(paired, metric)}."
    )


def _others(report: Report, row: TableRow) -> list[str]:
    trends: dict[str, list[str]] = {"up": [], "flat": [], "down": [], "unknown": []}
    for other in rows_of(report.comparison):
        same = all(other[name] == row[name] for name in ("output", "metric"))
        if same and same_place(other, row) and other["strategy"] != row["strategy"]:
            trends[trend(other["low"], other["high"])].append(strategy_name(str(other["strategy"])))
    total = sum(map(len, trends.values()))
    if not total:
        return []
    parts = [
        f"{word} in {len(trends[name])}"
        for name, word in (("up", "better"), ("flat", "not different"), ("down", "worse"), ("unknown", "unknown"))
        if trends[name]
    ]
    if total == 1:
        text = f"With {next(name for names in trends.values() for name in names)} it is {parts[0].rsplit(' in ', 1)[0]}"
    elif len(parts) == 1:
        text = f"With each of the other {total} kinds of prompt it is {parts[0].rsplit(' in ', 1)[0]}"
    else:
        text = f"With the other {total} kinds of prompt it is {', '.join(parts)}"
    return [text + (f" (WORSE with: {', '.join(trends['down'])})." if trends["down"] and len(parts) > 1 else ".")]


def _cautions(report: Report, row: TableRow, direction: str) -> list[str]:
    out = []
    n = number(row["n"])
    if n < FEW:
        out.append(f"Only {count(n)} images were measured: the interval is too narrow at this size, take it as a hint.")
    adjusted = number(row["p_holm"])
    if direction == "up" and adjusted > 0.05:
        out.append(
            f"The rank test does not agree once corrected for the number of comparisons (p = {probability(adjusted)})."
        )
    failed = sum(
        int(number(other["failed"]))
        for other in rows_of(report.summary)
        if other["model"] == report.tuned_model
        and all(other[name] == row[name] for name in ("strategy", "output", "metric"))
        and same_place(other, row)
        and math.isfinite(number(other["failed"]))
    )
    if failed:
        out.append(f"{count(failed)} of the images failed and count with the worst value, not as missing.")
    return out
