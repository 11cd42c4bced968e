"""The study's page: its data, its scores by prompt and group, and the published figures beside the measured ones."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from specialsam.core.files import write_whole
from specialsam.core.machine import machine, versions
from specialsam.evaluation.results import Results
from specialsam.pipeline.specialize import Outcome
from specialsam.report.facts import Rows, RunFacts
from specialsam.report.gallery import Plate, save_plates
from specialsam.report.numbers import DASH, MINUS, count, interval, metric_name, score, strategy_name, trend, words
from specialsam.report.page import Figured, environment, figured, prompt_note, write_page
from specialsam.studies.camouflage.prepare import FalseAlarms
from specialsam.studies.figures import Curve, groups_figure, losses_figure, strategies_figure
from specialsam.studies.measured import StudyFacts, beside, by_group, by_prompt, cod_lines, markdown
from specialsam.studies.published import EXPECTED, PublishedStudy, how_to_reproduce, published
from specialsam.studies.recipe import AnyRecipe, Prepared, Sheet, flat, load_recipe
from specialsam.studies.sheets import pictured, save_sheets

LEVELS = {"up": "use", "flat": "unclear", "down": "worse", "unknown": "weak"}
"""Colour of the verdict by the trend of the headline's gain."""
GROUPS = {"wood": "difficulty", "carpet": "type", "camouflage": "category"}


@dataclass(frozen=True)
class Finished:
    """A finished study: everything that its page shows, beside the run's own report."""

    folder: Path
    data: str
    model: str
    recipe: AnyRecipe
    prepared: Prepared
    outcome: Outcome
    rows: Results
    facts: StudyFacts
    answers: tuple[Sheet, ...]
    alarms: tuple[FalseAlarms, ...]

    @property
    def page(self) -> Path:
        return self.folder / "study.html"


@dataclass(frozen=True)
class Group:
    """A table by category with its figure."""

    title: str
    rows: Rows
    figure: Figured


def write_study(found: Finished) -> None:
    """Write `study.html`, `published.md` and `figures/` of a finished study."""
    told = published(found.recipe.study)
    facts, rows = found.facts, found.rows
    prompts = by_prompt(rows, found.recipe.strategies)
    lines, differ = beside(told, rows), differences(found)
    plates = {"prompts": _prompts_plate(prompts), "losses": _losses_plate(found, told)}
    groups, drawn = _groups(found)
    sheets = [*found.prepared.sheets, *found.answers]
    pictures = pictured(sheets)
    behind = len(found.prepared.sheets) + 1
    text = (
        environment()
        .get_template("study.html.j2")
        .render(
            run=_run_facts(found),
            level=_level(found),
            doubts=facts.doubts,
            headline=_headline(found, told),
            main=facts.scores,
            published=told,
            follows=found.recipe.follows,
            report_link="run/report.html",
            facts=found.prepared.facts,
            licence=found.prepared.licence,
            citation=found.prepared.citation,
            notes=facts.notes,
            sheets=pictures[:behind],
            answers=pictures[behind : behind + 1],
            figures={name: figured(name, plate) for name, plate in plates.items()},
            prompts=prompts,
            groups=groups,
            group_name=GROUPS[found.recipe.study],
            cod=cod_lines(rows),
            alarms=found.alarms,
            sides=pictures[behind + 1 :],
            beside=lines,
            published_lead=_lead(found, told),
            differences=differ,
            reproduce=how_to_reproduce(found.recipe.study, found.data),
            metric_title=metric_name,
            two=two_decimals,
            prompt_note=prompt_note("truth"),
        )
    )
    write_page(text, found.page)
    table = markdown(told, lines, differ)
    write_whole(found.folder / "published.md", lambda path: path.write_text(table, encoding="utf-8"))
    save_sheets(sheets, found.folder / "figures")
    save_plates([*plates.items(), *drawn], found.folder / "figures")


def _headline(found: Finished, told: PublishedStudy) -> str:
    facts = found.facts
    verb = {"up": "gains", "down": "loses", "flat": "is not shown to change", "unknown": "was measured on one image"}
    says = verb[trend(facts.scores.low, facts.scores.high)]
    by = "" if says.startswith(("is not", "was")) else f" {score(abs(facts.scores.gain))} points"
    where = facts.what[0].lower() + facts.what[1:] if facts.what != "Headline" else "the test images"
    return f"On {where}, {facts.model} {says}{by}; published: {score(told.headline.change, sign=True)}"


def _level(found: Finished) -> str:
    """Colour of the verdict: by the headline's interval, and no better than weak where there are doubts."""
    level = LEVELS[trend(found.facts.scores.low, found.facts.scores.high)]
    return "weak" if level == "use" and found.facts.doubts else level


def _lead(found: Finished, told: PublishedStudy) -> str:
    same = found.model == told.zoo
    model = "the published model" if same else f"{found.facts.model} in place of {told.model}"
    forecast = EXPECTED[found.recipe.study]
    return (
        f"Measured with {model}. Published: {told.samples} for training, tested on {told.test}; outcome as its "
        f"authors saw it: {told.outcome.lower()}. For the revised recipe {forecast}. The differences are listed below."
    )


def differences(found: Finished) -> list[tuple[str, str, str]]:
    """(what, published, here): what the model, the data and the recipe differ in, then what always differs."""
    told = published(found.recipe.study)
    seed, here = flat(load_recipe(found.recipe.study, "seed")), flat(found.recipe)
    said = ("title", "follows", "strategies")
    changed = [
        (f"Recipe: {words(name)}", _short(seed.get(name)), _short(here.get(name)))
        for name in dict.fromkeys([*seed, *here])
        if name not in said and seed.get(name) != here.get(name)
    ]
    millions = f"{found.facts.parameters / 1e6:.0f} M parameters"
    lines = [] if found.model == told.zoo else [("Model", told.model, f"{found.facts.model}, {millions}")]
    static = [(difference.what, difference.published, difference.here) for difference in told.differences]
    return [*lines, *found.prepared.differences, *static, *changed]


def _short(value: object) -> str:
    return "not set" if value is None else value if isinstance(value, str) else json.dumps(value)


def two_decimals(share: float | None, sign: bool = False) -> str:
    """A fraction in percent with the two decimals that were published; a dash for None."""
    if share is None or not math.isfinite(share):
        return DASH
    text = f"{100 * share:+.2f}" if sign else f"{100 * share:.2f}"
    return text.replace("-", MINUS)


def _prompts_plate(rows: Rows) -> Plate:
    said = "; ".join(
        f"{strategy_name(str(row['strategy']))} {score(row['base'])} to {score(row['tuned'])}, n = {count(row['n'])}"
        for row in rows
    )
    return Plate("Mean IoU by prompt with 95 % intervals over images.", f"Base and specialist by prompt: {said}.",
                 strategies_figure(rows))  # fmt: skip


def _losses_plate(found: Finished, told: PublishedStudy) -> Plate:
    curves = [
        Curve("here", tuple(loss if loss is not None else math.nan for loss in found.facts.losses)),
        Curve(f"published ({told.model})", told.losses, published=True),
    ]
    mix = " + ".join(f"{weight:g} {name}" for name, weight in found.facts.loss.items())
    caption = (
        f"Training loss after each epoch: here {mix}; the published one of the seed recipe. "
        "Losses of different mixes, models or data cannot be compared in height, only in their course."
    )
    return Plate(caption, f"Training losses here: {_numbers(curves[0])}; published: {_numbers(curves[1])}.",
                 losses_figure(curves))  # fmt: skip


def _numbers(curve: Curve) -> str:
    return ", ".join(f"{loss:.4f}" for loss in curve.losses)


def _groups(found: Finished) -> tuple[list[Group], list[tuple[str, Plate]]]:
    """Tables by category for each prompt, and their figures by name; super categories first where there are any."""
    out: list[Group] = []
    drawn: list[tuple[str, Plate]] = []
    levels = [True, False] if any("/" in str(name) for name in set(found.rows.frame["category"])) else [False]
    for outer in levels:
        shown_prompts = found.recipe.strategies if found.recipe.study != "camouflage" else found.recipe.strategies[:1]
        for strategy in shown_prompts:
            rows = by_group(found.rows, strategy, outer)
            if len(rows) < 2:
                continue
            name = f"groups-{'outer-' if outer else ''}{strategy}"
            title = strategy_name(strategy) + (", super categories" if outer else "")
            said = "; ".join(
                f"{row['category']} {score(row['gain'], sign=True)} {interval(row['low'], row['high'], sign=True)}"
                for row in rows
            )
            plate = Plate(f"Gain by {GROUPS[found.recipe.study]}, {title}; 95 % intervals.", f"Gains: {said}.",
                          groups_figure(rows))  # fmt: skip
            out.append(Group(title[0].upper() + title[1:], rows, figured(name, plate)))
            drawn.append((name, plate))
    return out, drawn


def _run_facts(found: Finished) -> RunFacts:
    recipe = found.recipe
    command = json.loads((found.outcome.folder / "run.json").read_text())["command"]
    return RunFacts(
        title=recipe.title,
        source=found.data,
        layout=recipe.study,
        model=found.facts.model,
        command=command,
        date=date.today().isoformat(),
        machine=machine(),
        versions=versions(),
        seed=recipe.specialize.seed,
        settings=recipe.model_dump(mode="json"),
        warnings=tuple(found.facts.warnings),
        licence=found.prepared.licence,
    )
