"""Several finished studies side by side: the performance summary, the five factors as measured, and the rules of thumb.

Writes `compare.html` and `compare.csv`. Each rule of the original study is held against the runs: it predicts of each
whether it should gain, and the interval of the measured gain confirms that, contradicts it, or leaves it open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pandas as pd

from specialsam.advice.forecast.factors import CAPACITY, ROOM, SAMPLES
from specialsam.advice.probes.monitor import CERTAINLY, PROBABLY
from specialsam.core.errors import UsageError
from specialsam.core.files import write_whole
from specialsam.report.facts import RunFacts
from specialsam.report.gallery import Plate, save_plates
from specialsam.report.numbers import count, score, trend
from specialsam.report.page import environment, figured, prompt_note, write_page
from specialsam.studies.figures import Curve, losses_figure, performance_figure
from specialsam.studies.line import SUCCESS, StudyLine, read_line
from specialsam.studies.published import PUBLISHED

PIXEL, REGION = frozenset({"bce", "focal", "boundary"}), frozenset({"dice"})
COLUMNS = (
    *(
        "experiment",
        "title",
        "study",
        "model",
        "parameters",
        "images",
        "objects",
        "samples",
        "test",
        "base",
        "base_low",
    ),
    *("base_high", "tuned", "tuned_low", "tuned_high", "gain", "low", "high", "n", "outcome", "published"),
    *("published_model", "loss", "first_loss", "final_loss", "largest_fall", "largest_rise", "best_epoch", "folder"),
)


@dataclass(frozen=True)
class Rule:
    """A rule of thumb: its words, what the runs say of it (`verdict`), and why, run by run."""

    name: str
    rule: str
    verdict: str
    says: str
    runs: tuple[str, ...]


def compare(folders: Sequence[Path], out: Path) -> Path:
    """Write `compare.html`, `compare.csv` and `figures/` into `out`; the page's path.

    UsageError for fewer than one study, the same folder twice, or a study that is not finished.
    """
    if not folders or len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("expected one or more different study folders to compare")
    rows = _named_apart([read_line(folder, out) for folder in folders])
    rules = [rule(rows) for rule in RULES]
    plates = {"performance": _performance(rows), "losses": _curves(rows)}
    table = pd.DataFrame([{name: getattr(row, name) for name in COLUMNS} for row in rows])
    write_whole(out / "compare.csv", lambda path: table.to_csv(path, index=False))
    page = out / "compare.html"
    sure = Counter(trend(row.low, row.high) for row in rows)
    text = (
        environment()
        .get_template("compare.html.j2")
        .render(
            run=_run_facts(rows),
            level=_level(rows, sure),
            headline=_headline(rows, sure),
            lead="Every number below was measured in these runs; what was published stands in its own column.",
            rows=rows,
            figures={name: figured(name, plate) for name, plate in plates.items()},
            factors=[(name, [cell(row) for row in rows]) for name, cell in FACTORS.items()],
            rules=rules,
            success=f"{100 * SUCCESS:.0f}",
            prompt_note=prompt_note("truth"),
        )
    )
    write_page(text, page)
    save_plates(plates.items(), out / "figures")
    return page


def _named_apart(rows: Sequence[StudyLine]) -> list[StudyLine]:
    """The second and third of equal names get " (2)", " (3)" behind them."""
    seen: Counter[str] = Counter()
    out = []
    for row in rows:
        seen[row.experiment] += 1
        nth = seen[row.experiment]
        out.append(replace(row, experiment=f"{row.experiment} ({nth})") if nth > 1 else row)
    return out


FACTORS: Mapping[str, Callable[[StudyLine], str]] = {
    "Room for improvement": lambda row: f"base {score(row.base)} %",
    "Training data": lambda row: (
        f"{count(row.images)} images, {count(row.objects)} objects, {count(row.samples)} with views"
    ),
    "Loss composition": lambda row: f"{row.loss}; final {row.final_loss:.4f}",
    "Model capacity": lambda row: f"{row.model}, {row.parameters / 1e6:.1f} M parameters",
    "Training stability": lambda row: (
        f"{row.first_loss:.4f} to {row.final_loss:.4f}; largest fall in an epoch "
        f"{100 * row.largest_fall:.0f} %, largest rise {100 * row.largest_rise:.0f} %"
    ),
}
"""The five factors of the original study, as one sentence a run."""


def held(
    rows: Sequence[StudyLine],
    predicts: Callable[[StudyLine], bool],
    why: Callable[[StudyLine], str],
) -> tuple[str, str, tuple[str, ...]]:
    """(verdict, sentence, lines): a rule that predicts a gain (or none) of each run against the measured intervals."""
    tally: Counter[str] = Counter()
    lines = []
    for row in rows:
        should, found = predicts(row), trend(row.low, row.high)
        said = (
            "says nothing" if found in ("flat", "unknown") else "agrees" if should == (found == "up") else "disagrees"
        )
        tally[said] += 1
        word = "a gain" if should else "no gain"
        lines.append(
            f"{row.experiment} ({why(row)}): the rule says {word}, measured {score(row.gain, sign=True)}: {said}"
        )
    sure = tally["agrees"] + tally["disagrees"]
    verdict = _verdict(tally)
    says = f"{tally['agrees']} of {sure} runs with a sure change agree, {tally['says nothing']} say nothing."
    if len({predicts(row) for row in rows}) < 2:
        says += " All runs lie on the same side of the rule, so that they cannot test it fully."
    return verdict, says, tuple(lines)


def _verdict(tally: Mapping[str, int]) -> str:
    """supported, contradicted, mixed, or not decided, by the runs that agree and disagree."""
    agrees, disagrees = tally.get("agrees", 0), tally.get("disagrees", 0)
    if not agrees and not disagrees:
        return "not decided"
    return "mixed" if agrees and disagrees else "supported" if agrees else "contradicted"


def _room(rows: Sequence[StudyLine]) -> Rule:
    found = held(rows, lambda row: row.base < ROOM, lambda row: f"base {score(row.base)} %")
    return Rule("Room for improvement", "Only specialise where the base is below 75 % mIoU.", *found)


def _data(rows: Sequence[StudyLine]) -> Rule:
    found = held(rows, lambda row: row.samples >= SAMPLES, lambda row: f"{count(row.samples)} samples")
    return Rule("Training data", "At least 5,000 diverse samples for fine-grained tasks.", *found)


def _losses(rows: Sequence[StudyLine]) -> Rule:
    def combined(row: StudyLine) -> bool:
        names = {name for name, weight in row.mix.items() if weight > 0}
        return bool(names & PIXEL) and bool(names & REGION)

    found = held(rows, combined, lambda row: row.loss)
    return Rule("Loss composition", "Never one loss alone: a pixel loss beside a region loss.", *found)


def _alike(row: StudyLine) -> tuple[object, ...]:
    """What two runs of a study must share if their models are to make the difference."""
    return row.title, tuple(sorted(row.mix.items())), row.samples, row.test


def _capacity(rows: Sequence[StudyLine]) -> Rule:
    rule = "The largest model for complex tasks; small ones do for simple tasks."
    pairs = [
        (small, large)
        for small in rows
        for large in rows
        if small.study == large.study and small.parameters < large.parameters and _alike(small) == _alike(large)
    ]
    if not pairs:
        sizes = ", ".join(dict.fromkeys(f"{row.model} ({row.parameters / 1e6:.0f} M)" for row in rows))
        says = f"No study was run with two sizes of model and the same recipe, which alone could tell. Here: {sizes}."
        return Rule("Model capacity", rule, "not decided", says, ())
    lines, tally = [], Counter[str]()
    for small, large in pairs:
        apart = small.low > large.high or large.low > small.high
        said = "says nothing" if not apart else "agrees" if large.gain > small.gain else "disagrees"
        tally[said] += 1
        lines.append(
            f"{large.study}: {large.model} gains {score(large.gain, sign=True)}, {small.model} "
            f"{score(small.gain, sign=True)}: {said}"
        )
    verdict = _verdict(tally)
    above = sum(row.parameters >= CAPACITY for row in rows)
    says = (
        f"{len(pairs)} pairs of the same study; {above} of {len(rows)} runs used a model above {CAPACITY / 1e6:.0f} M."
    )
    return Rule("Model capacity", rule, verdict, says, tuple(lines))


def _stability(rows: Sequence[StudyLine]) -> Rule:
    def healthy(row: StudyLine) -> bool:
        return not row.final_loss < PROBABLY

    def why(row: StudyLine) -> str:
        depth = "certainly overfitting" if row.final_loss < CERTAINLY else "probably overfitting"
        return f"final loss {row.final_loss:.4f}" + ("" if healthy(row) else f", {depth} by the rule")

    rule = "A training loss below 0.01 is probably overfitting, below 0.001 certainly; gradual curves generalise."
    return Rule("Training stability", rule, *held(rows, healthy, why))


RULES: tuple[Callable[[Sequence[StudyLine]], Rule], ...] = (_room, _data, _losses, _capacity, _stability)


def _level(rows: Sequence[StudyLine], sure: Mapping[str, int]) -> str:
    """Colour of the summary: good where all gain and nothing speaks against it, bad where all lose."""
    if sure["up"] == len(rows) and not any(row.doubts for row in rows):
        return "use"
    return "worse" if sure["down"] == len(rows) else "unclear"


def _headline(rows: Sequence[StudyLine], sure: Mapping[str, int]) -> str:
    parts = [(sure["up"], "gain"), (sure["down"], "lose"), (sure["flat"] + sure["unknown"], "show no sure change")]
    said = ", ".join(f"{number} {what}" for number, what in parts if number)
    return f"Of {len(rows)} studies {said}"


def _performance(rows: Sequence[StudyLine]) -> Plate:
    said = "; ".join(f"{row.experiment} {score(row.base)} to {score(row.tuned)}" for row in rows)
    caption = "Base and specialist of each study on its own test images. Studies differ in data: compare the changes."
    return Plate(caption, f"Mean IoU of base and specialist: {said}.", performance_figure([vars(row) for row in rows]))


def _curves(rows: Sequence[StudyLine]) -> Plate:
    curves = [Curve(row.experiment, row.losses) for row in rows]
    for study in dict.fromkeys(row.study for row in rows):
        told = PUBLISHED[study]
        like = next(row.experiment for row in rows if row.study == study)
        curves.append(Curve(f"{told.title}, published", told.losses, published=True, like=like))
    caption = "Training loss after each epoch. Losses of different mixes cannot be compared in height, only in course."
    return Plate(caption, f"Training losses of {len(rows)} studies and the published ones.", losses_figure(curves))


def _run_facts(rows: Sequence[StudyLine]) -> RunFacts:
    return RunFacts(
        title="When specialising works: the studies compared",
        source=f"{len(rows)} studies",
        layout="compare",
        model="",
        command="specialsam study compare " + " ".join(row.folder for row in rows),
        date=date.today().isoformat(),
    )
