"""From a run's rows to a study's own tables: scores by prompt, by group, and beside the published ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from specialsam.core.errors import UsageError
from specialsam.core.findings import Finding, alarms
from specialsam.evaluation.results import Results
from specialsam.evaluation.statistics import Interval, points, two_way_mean
from specialsam.evaluation.tables import pairs, per_image
from specialsam.metrics import METRICS
from specialsam.pipeline.evidence import BASE, SPECIALIST
from specialsam.report.facts import TableRow, rows_of
from specialsam.report.numbers import strategy_name, trend
from specialsam.studies.published import PublishedScore, PublishedStudy

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Versus:
    """Base against specialist on the same images: means with 95 % limits, spreads over images (ddof 0), the gain."""

    base: float
    base_low: float
    base_high: float
    base_spread: float
    tuned: float
    tuned_low: float
    tuned_high: float
    tuned_spread: float
    gain: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class StudyFacts:
    """The numbers of a finished study that its page and comparisons read; `plain` as study.json holds them.

    `scores` are the headline's, which is about `what`. `losses` and `val_iou` have a value an epoch, `val_iou` the
    base's first; `train` counts images, objects and views, `loss` weighs the losses by name.
    """

    what: str
    scores: Versus
    doubts: list[str]
    losses: list[float | None]
    val_iou: list[float | None]
    best_epoch: int
    stop: str
    warnings: list[str]
    train: Mapping[str, int]
    loss: Mapping[str, float]
    lr: float
    parameters: int
    model: str
    test: str
    facts: list[list[str]]
    notes: list[str]

    def plain(self) -> dict[str, object]:
        rest = {name: value for name, value in vars(self).items() if name not in ("what", "scores")}
        return {"headline": {"what": self.what, **asdict(self.scores)}, **rest}


def read_rows(run: Path) -> Results:
    """The results of a finished run folder; UsageError where it has none."""
    path = run / "results.parquet"
    if not path.exists():
        raise UsageError(f"expected a finished run with {path.name} in {run}, found none; run the study again")
    return Results.read(path)


def _of(rows: Results, strategy: str, output: str, metric: str, category: str = "") -> Results:
    """Rows with one prompt, output and metric, and of one category and those below it ("": all)."""
    chosen = rows.only(strategy=strategy, output=output, metric=metric)
    if not category:
        return chosen
    names = chosen.frame["category"].astype(str)
    return Results(chosen.frame[(names == category) | names.str.startswith(f"{category}/")])


def versus(rows: Results, strategy: str, metric: str = "iou", category: str = "") -> Versus | None:
    """The single mask of both models with one prompt, in one category ("": all); None where it was not measured.

    A category takes in its sub-categories ("Aquatic" takes "Aquatic/Crab"). The image is the unit.
    """
    chosen = _of(rows, strategy, "single", metric, category).only(model=(BASE, SPECIALIST))
    if set(chosen.frame["model"]) != {BASE, SPECIALIST}:
        return None
    means = {str(line["model"]): line for line in chosen.summary().to_dict("records")}
    paired = chosen.comparison(BASE, SPECIALIST).iloc[0]
    spreads = per_image(chosen.frame).groupby("model")["value"].std(ddof=0)
    sides: dict[str, float] = {}
    for side, model in (("base", BASE), ("tuned", SPECIALIST)):
        line = means[model]
        sides |= {side: float(line["mean"]), f"{side}_low": float(line["low"]), f"{side}_high": float(line["high"])}
        sides[f"{side}_spread"] = float(spreads[model])
    return Versus(
        **sides, gain=float(paired["gain"]), low=float(paired["low"]), high=float(paired["high"]), n=int(paired["n"])
    )


def by_prompt(rows: Results, strategies: Sequence[str], metric: str = "iou") -> list[TableRow]:
    """One line a prompt: strategy, the fields of `Versus`, and `rival` with its `rival_name` ("" and NaN: none)."""
    found = [(strategy, versus(rows, strategy, metric)) for strategy in strategies]
    lines: list[TableRow] = []
    for strategy, line in found:
        if line:
            name, mean = rival(rows, strategy, metric)
            lines.append({"strategy": strategy} | vars(line) | {"rival": mean, "rival_name": name})
    return lines


def rival(rows: Results, strategy: str, metric: str = "iou", category: str = "") -> tuple[str, float]:
    """(name, mean) of the best rule that looks at no pixel, with the same prompt; ("", NaN) where none was measured."""
    chosen = _of(rows, strategy, "rival", metric, category)
    if not len(chosen):
        return "", math.nan
    best = max(chosen.summary().to_dict("records"), key=lambda line: float(line["mean"]))
    return str(best["model"]), float(best["mean"])


def by_group(rows: Results, strategy: str, outer: bool = False) -> list[TableRow]:
    """One line a category (category, base, tuned, gain, low, high, n), `outer`: by what stands before the slash."""
    chosen = _of(rows, strategy, "single", "iou").only(model=(BASE, SPECIALIST))
    if outer:
        names = chosen.frame["category"].astype(str).str.partition("/")[0]
        chosen = Results(chosen.frame.assign(category=names))
    return rows_of(chosen.by_category(BASE, SPECIALIST))


def cod_lines(rows: Results) -> list[TableRow]:
    """The measures of camouflaged object detection by prompt: strategy, title, metric, and the fields of `Versus`."""
    names = [name for name, metric in METRICS.items() if metric.group == "cod" and name in rows.metrics]
    strategies = list(dict.fromkeys(rows.only(metric=names).frame["strategy"]))
    found = [(s, name, versus(rows, s, name)) for s in strategies for name in names]
    return [{"strategy": s, "metric": n, "title": METRICS[n].title} | vars(line) for s, n, line in found if line]


@dataclass(frozen=True)
class Beside:
    """A published line and its counterpart here (None: not measured)."""

    published: PublishedScore
    here: Versus | None


def beside(told: PublishedStudy, rows: Results) -> list[Beside]:
    """Every published score with what was measured for it."""
    return [Beside(line, versus(rows, line.strategy, line.metric, line.category)) for line in told.scores]


def headline(told: PublishedStudy, rows: Results, strategies: Sequence[str]) -> tuple[str, Versus]:
    """(what it is, scores) of the study's headline; where its prompt or category was not measured, of the first prompt.

    UsageError where no prompt of the study was measured.
    """
    line = told.headline
    found = versus(rows, line.strategy, line.metric, line.category)
    if found:
        return line.what, found
    for strategy in strategies:
        if found := versus(rows, strategy):
            return f"all test images, {strategy}", found
    raise UsageError(f"expected scores of {', '.join(strategies)} in the run, found none; run the study again")


def doubts(told: PublishedStudy, rows: Results, strategies: Sequence[str], main: Versus) -> list[str]:
    """Why the headline may say less than it seems: a rule that looks at no pixel, or the base with another prompt."""
    line = told.headline
    out = []
    name, mean = rival(rows, line.strategy, line.metric, line.category)
    if mean >= main.tuned_low:
        than = "reaches more than" if mean > main.tuned else "lies within the interval of"
        out.append(
            f"A rule that looks at no pixel ({name}) {than} the specialist with the same prompt: {100 * mean:.1f}."
        )
    for strategy in strategies:
        other = versus(rows, strategy, line.metric, line.category)
        if strategy != line.strategy and other and other.base >= main.tuned:
            out.append(
                f"The base without any tuning reaches {100 * other.base:.1f} with another prompt "
                f"({strategy_name(strategy)}), at least as much as the specialist here."
            )
        if other and other.high < 0:
            out.append(
                f"With the prompt {strategy_name(strategy)} the specialist loses {100 * -other.gain:.1f} points, "
                "surely by its interval."
            )
    return out


def over_textures(rows: Results, textures: Mapping[str, Sequence[str]], strategy: str, category: str = "") -> Interval:
    """The gain in IoU with one prompt, its interval over other images and other `textures` of their objects.

    `textures` names those of each image's objects in their order, `category` is as in `versus`. An image that failed as
    a whole stands for itself.
    """
    chosen = _of(rows, strategy, "single", "iou", category).only(model=(BASE, SPECIALIST)).frame
    values = chosen["value"].where(chosen["error"].astype(str) == "", METRICS["iou"].worst)
    keys = {"record": chosen["record"].astype(str), "object": chosen["object"], "model": chosen["model"].astype(str)}
    wide = pd.DataFrame({**keys, "value": values}).pivot(index=["record", "object"], columns="model", values="value")
    each = (wide[SPECIALIST] - wide[BASE]).rename("gain").reset_index()
    each["part"] = [
        textures[record][number] if 0 <= number < len(textures.get(record, ())) else None
        for record, number in zip(each["record"], each["object"], strict=True)
    ]
    broken = set(each.loc[each[["gain", "part"]].isna().any(axis=1), "record"])
    whole = pairs(chosen, BASE, SPECIALIST, strategy)
    whole = whole[whole["record"].isin(broken)]
    whole = whole.assign(part=whole["record"])
    every = pd.concat([each[~each["record"].isin(broken)], whole])[["record", "part", "gain"]]
    return two_way_mean(every["gain"], every["record"], every["part"])


def texture_notes(
    rows: Results, textures: Mapping[str, Sequence[str]], strategies: Sequence[str], headline: PublishedScore
) -> tuple[list[str], list[str]]:
    """(notes, doubts) on what other textures would have given, of the headline and of all images with each prompt.

    Nothing where images share no textures.
    """
    if not textures:
        return [], []
    asked = {headline.what[:1].lower() + headline.what[1:]: (headline.strategy, headline.category)}
    asked |= {f"all, {strategy_name(name)}": (name, "") for name in strategies}
    lines = {what: line for what, (name, category) in asked.items() if (line := versus(rows, name, "iou", category))}
    found = {what: over_textures(rows, textures, *asked[what]) for what in lines}
    used = {name for record in set(rows.frame["record"].astype(str)) for name in textures.get(record, ())}
    said = "; ".join(f"{what} {points(gain)}" for what, gain in found.items())
    notes = [
        f"intervals are over mosaics, which share {len(used)} textures; over other mosaics and other textures the "
        f"gains in IoU are: {said}"
    ]
    doubts = [
        f"The gain may be that of these textures ({what}): over other textures as well it is {points(gain)}."
        for what, gain in found.items()
        if trend(lines[what].low, lines[what].high) == "up" and trend(gain.low, gain.high) != "up"
    ]
    return notes, doubts


def complaints(findings: Iterable[Finding]) -> list[str]:
    """The checks of the run that failed or warn, a sentence each: the last of those with one name, failures first."""
    last = {finding.check: finding for finding in findings if finding.level != "pass"}
    said = {"fail": "failed", "warn": "warns"}
    return [
        f"The check “{f.check}” {said[f.level]}: {f.says.removeprefix(f'{f.check}: ').rstrip('.')}."
        for f in alarms(last.values())
    ]


def markdown(told: PublishedStudy, lines: Sequence[Beside], differences: Sequence[Sequence[str]]) -> str:
    """Published against measured as Markdown: the scores, and every difference of the protocols."""
    head = [
        f"# {told.title}: published against measured",
        "",
        "Percent; standard deviation over images behind the published means, 95 % intervals behind the measured ones.",
        "",
        "| | metric | base, published | base, here | specialised, published | specialised, here | change, published | "
        "change, here | images |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    body = [_markdown_line(line) for line in lines]
    rest = ["", "## What differs", "", "| | published | here |", "|---|---|---|"]
    rest += [f"| {' | '.join(_cell(part) for part in difference)} |" for difference in differences]
    return "\n".join([*head, *body, *rest]) + "\n"


def _markdown_line(line: Beside) -> str:
    told, here = line.published, line.here
    cells = [
        f"{told.what}{f' ({told.note})' if told.note else ''}",
        METRICS[told.metric].title,
        _mean(told.base, told.base_spread),
        _limits(here.base, here.base_low, here.base_high) if here else DASH,
        _mean(told.tuned, told.tuned_spread),
        _limits(here.tuned, here.tuned_low, here.tuned_high) if here else DASH,
        DASH if told.change is None else f"{100 * told.change:+.2f}",
        f"{100 * here.gain:+.2f} [{100 * here.low:+.2f}, {100 * here.high:+.2f}]" if here else DASH,
        str(here.n) if here else DASH,
    ]
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _mean(mean: float | None, spread: float | None) -> str:
    if mean is None:
        return DASH
    return f"{100 * mean:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def _limits(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
