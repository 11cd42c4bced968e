"""Is specialising worth it? Audit, fair baseline, blind decoder, pilot runs and a forecast, before anything is tuned.

`run_advise` read from top to bottom is the order of the page `advice.html`. Embeddings are made once, and a later
`specialize --store` uses them again. The test split is neither encoded nor measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from specialsam.advice.forecast.curve import Curves, Forecast, Needed, Pilot, curve_rows, fit, labels_needed
from specialsam.advice.forecast.factors import Case, factors
from specialsam.advice.forecast.judgement import Decision, Judgement, decide
from specialsam.advice.probes.blind import blind, blind_decoder, blind_settings, rival_iou, shortcut
from specialsam.advice.probes.monitor import STABILITY, review
from specialsam.advice.subject import Subject
from specialsam.core.console import say, stage
from specialsam.core.errors import UsageError
from specialsam.core.files import write_whole
from specialsam.core.findings import Factor, Finding, alarms
from specialsam.core.geometry import FloatArray
from specialsam.data.loading import load
from specialsam.evaluation.evaluate import EvaluateSettings
from specialsam.evaluation.results import Results
from specialsam.evaluation.rivals import disc_radius
from specialsam.evaluation.statistics import bootstrap_mean, paired_bootstrap
from specialsam.models.segmenter import Segmenter
from specialsam.pipeline.audit import examined, splits_as_stated
from specialsam.pipeline.general import training_data
from specialsam.pipeline.job import Job, Request, open_job
from specialsam.pipeline.pictures import Shown, comparisons, object_pairs
from specialsam.pipeline.pilots import (
    BASE,
    PILOT,
    Ground,
    PilotSettings,
    gains_of,
    ground,
    joined,
    limited,
    measured,
    pilot_training,
    sizes,
    tuned_on,
)
from specialsam.pipeline.reporting import PROTOCOL, data_facts, run_facts
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.pipeline.tail_pilot import tail_pilot
from specialsam.report import pages
from specialsam.report.advice import save_advice_figures, write_advice
from specialsam.report.facts import Advice as Verdict
from specialsam.report.facts import Decision as ReportDecision
from specialsam.report.facts import Kind
from specialsam.training.loop import per_image_iou
from specialsam.training.losses import resolve_mix
from specialsam.training.state import TrainResult

MODES = ("interior", "box", "clicks3")
"""Prompts of the fair baseline: the base in every mode that a user could choose, not only in its weakest."""
PICTURES: tuple[Kind, ...] = ("best gain", "median gain", "worst gain")
DECISIONS: dict[Decision, ReportDecision] = {"GO": "go", "NO-GO": "no-go", "UNSURE": "unsure"}


@dataclass(frozen=True)
class Advised:
    """What was found before tuning; `results` are those of base and largest pilot on the images kept apart."""

    folder: Path
    judgement: Judgement
    findings: tuple[Finding, ...]
    factors: tuple[Factor, ...]
    pilots: tuple[Pilot, ...]
    now: Forecast
    doubled: Forecast
    needed: Needed
    results: Results
    seconds: dict[str, float]


def run_advise(request: Request, settings: SpecializeSettings, pilot: PilotSettings) -> Advised:
    """Audit, baseline, pilots, blind decoder, forecast, verdict; writes `advice.html` and `advice.json`."""
    with open_job("advise", request, settings, {"pilot": pilot.model_dump(mode="json")}) as opened:
        whole, timed = opened.plan, opened.ledger.timed
        untouched = {name: split for name, split in whole.splits.items() if split != "test"}
        job = opened.with_plan(replace(whole, splits=untouched))
        say(f"{request.source}: " + ", ".join(f"{count} {split}" for split, count in whole.split_sizes().items()))
        with timed("embed"):
            job.prepare()
        with timed("audit"):
            stated, embed = splits_as_stated(whole), job.embedded.embed
            subject = Subject(whole.dataset, stated, load, job.segmenter, embed, believed=request.believed)
            facts, findings = examined(subject, whole)
        train = job.plan.of("train")
        field = ground(train, job.plan.groups, pilot, settings.seed)
        if len(field.pool) < 2 or not field.apart:
            raise UsageError(f"{request.source}: expected at least 4 training images for pilots, got {len(train)}")
        with timed("pilots"):
            piloted = run_pilots(job, field, pilot)
        with timed("blind decoder"):
            findings.append(_blind(job, piloted.largest, field, pilot))
        if pilot.tail:
            with timed("tail pilot"):
                findings.append(tail_pilot(job, field, pilot, piloted.results))
        findings += review(piloted.result.history)
        means = piloted.results.summary(("iou",))
        own, best = _base_modes(means, settings.main_strategy)
        curves = fit(piloted.pilots, 1 - own, settings.seed)
        forecasts = curves.forecast(len(train)), curves.forecast(2 * len(train))
        needed = labels_needed(curves, pilot.wished)
        judgement = decide(findings, *forecasts, needed, (*best, own))
        judged = _factors(job, piloted.largest, (own, best), forecasts, findings)
        rows, seconds = piloted.results, dict(job.ledger.facts["seconds"])
        found = judgement, tuple(findings), judged, piloted.pilots
        done = Advised(job.folder, *found, *forecasts, needed, rows, seconds)
        if job.place.main:
            areas = np.array([one.area_share for fact in facts for one in fact.objects])
            with timed("page"):
                _write(replace(job, plan=whole), done, _curve(done, curves), piloted.largest, areas)
        return done


@dataclass(frozen=True)
class Piloted:
    """Every pilot; of the largest one of the first seed its model, its history, and base and pilot in all modes."""

    pilots: tuple[Pilot, ...]
    largest: Segmenter
    result: TrainResult
    results: Results


def run_pilots(job: Job, field: Ground, pilot: PilotSettings) -> Piloted:
    """Tune and measure pilots of all sizes and seeds."""
    settings, data = job.settings, training_data(job)
    total = len(job.plan.of("train"))
    radius = disc_radius(job.embedded.relative_areas())
    main = settings.evaluate.model_copy(update={"strategies": (settings.main_strategy,), "groups": ("overlap",)})
    modes = tuple(dict.fromkeys((settings.main_strategy, *MODES)))
    full = main.model_copy(update={"strategies": modes})
    counts, found = sizes(total, len(field.pool), pilot), []
    first: tuple[Segmenter, TrainResult, Results] | None = None
    for seed in range(settings.seed, settings.seed + pilot.seeds):
        for count in counts:
            chosen = limited(data, joined(field.pool, count, seed))
            own = pilot_training(settings.train, pilot, seed)
            with stage(f"pilot on {count} of {total} images") as progress:
                tuned, result = tuned_on(job, chosen, own, job.folder / "pilots" / f"{count}-{seed}", progress)
            largest = count == counts[-1] and first is None
            asked: tuple[EvaluateSettings, float | None] = (full, radius) if largest else (main, None)
            with stage(f"measuring the pilot on {len(field.apart)} images kept apart") as progress:
                results = measured(job, tuned, field.apart, *asked, progress)
            first = (tuned, result, results) if largest else first
            gains = gains_of(results, settings.main_strategy)
            found.append(Pilot(count, seed, gains))
            interval = bootstrap_mean(gains)
            say(
                f"pilot on {count} images: gain {100 * interval.mean:+.1f} IoU points "
                f"({100 * interval.low:+.1f} to {100 * interval.high:+.1f}, n {interval.n})"
            )
    assert first is not None
    return Piloted(tuple(found), *first)


def _blind(job: Job, largest: Segmenter, field: Ground, pilot: PilotSettings) -> Finding:
    """The largest pilot against a decoder that was tuned alike without seeing any image, on the images kept apart."""
    settings, place, data = job.settings, job.place, job.embedded.training_data()
    count = sizes(len(job.plan.of("train")), len(field.pool), pilot)[-1]
    chosen = limited(data, joined(field.pool, count, settings.seed))
    own = pilot_training(settings.train, pilot, settings.seed)
    with stage("blind decoder: tuned without seeing any image") as progress:
        unseeing, _ = blind_decoder(job.segmenter, chosen, own, job.folder / "pilots", place, progress=progress)
    apart = {record.id for record in field.apart}
    items = [item for item in data.train if item.id in apart]
    test = replace(chosen, val=items)
    return shortcut(
        per_image_iou(largest, test, own, place.spread),
        per_image_iou(unseeing, blind(test), blind_settings(own), place.spread),
        rival_iou(test, own),
        [item.record for item in items],
    )


def _base_modes(means: pd.DataFrame, main: str) -> tuple[float, tuple[str, float]]:
    """The base's IoU by the main prompt's single mask, and (name, IoU) of its best other mode that needs no truth."""
    base = means[(means.model == BASE) & (means.output != "three_oracle")]
    own = base[(base.strategy == main) & (base.output == "single")]
    other = base.drop(own.index).sort_values("mean").iloc[-1]
    text = {"box": "by box", "clicks3": "by three clicks", main: "by one click"}.get(other.strategy, other.strategy)
    name = f"{text}, the best of three masks by its own score" if other.output == "three_best" else text
    return float(own["mean"].iloc[0]), (name, float(other["mean"]))


def _factors(
    job: Job,
    largest: Segmenter,
    base_modes: tuple[float, tuple[str, float]],
    forecasts: tuple[Forecast, Forecast],
    findings: Sequence[Finding],
) -> tuple[Factor, ...]:
    data, segmenter = job.embedded.training_data(), job.segmenter
    objects = sum(len(data.masks(item)) for item in data.train if item.id == item.record)
    samples = {"images": len(job.plan.of("train")), "objects": objects, "views": len(data.train)}
    encoder = sum(p.numel() for p in segmenter.encoder.parameters())
    before, after = segmenter.sam.state_dict(), largest.sam.state_dict()
    tuned = sum(value.numel() for name, value in after.items() if not value.equal(before[name]))
    stability = next((finding for finding in findings if finding.check == STABILITY), None)
    case = Case(*base_modes, samples, resolve_mix(job.settings.train.loss), (encoder, tuned))
    return factors(case, *forecasts, stability)


def _write(job: Job, done: Advised, curve: pages.LearningCurve, largest: Segmenter, areas: FloatArray) -> None:
    """advice.json for programs, rows.parquet, and the page."""
    settings, whole = job.settings, job.plan
    done.results.save(done.folder / "rows.parquet")
    plain = {
        "decision": done.judgement.decision,
        "headline": done.judgement.headline,
        "reasons": done.judgement.reasons,
        "now": vars(done.now),
        "doubled": vars(done.doubled),
        "needed": vars(done.needed),
        "pilots": [{"n": p.n, "seed": p.seed, "gain": float(p.gains.mean())} for p in done.pilots],
        "factors": [asdict(factor) for factor in done.factors],
        "findings": [finding.plain() for finding in done.findings],
        "seconds": done.seconds,
    }
    write_whole(done.folder / "advice.json", lambda path: path.write_text(json.dumps(plain, indent=1) + "\n"))
    main = settings.main_strategy
    records = {record.id: record for record in whole.dataset.records}
    table = object_pairs(done.results, BASE, PILOT, main)
    pictures = Shown(records, load, job.embedded.embed, (job.segmenter, largest))
    shown = comparisons(table, pictures, main, settings.evaluate.seed)
    first = {comparison.kind: comparison for comparison in reversed(shown)}
    title = f"{whole.dataset.name}: is a specialist worth it?"
    means = done.results.summary(("iou",))
    page = pages.AdvicePage(
        run=run_facts(job, title),
        advice=Verdict(DECISIONS[done.judgement.decision], done.judgement.headline, done.judgement.reasons),
        curve=curve,
        factors=done.factors,
        baseline=means[means["model"] != PILOT],
        findings=done.findings,
        comparisons=tuple(first[kind] for kind in PICTURES if kind in first),
        commands=_commands(job.request),
        data=data_facts(whole, areas, job.embedded.problems()),
        protocol=PROTOCOL[:3],
    )
    write_advice(page, done.folder / "advice.html")
    save_advice_figures(page, done.folder / "figures")


def _curve(done: Advised, curves: Curves) -> pages.LearningCurve:
    points = []
    for pilot in done.pilots:
        interval = paired_bootstrap(np.zeros_like(pilot.gains), pilot.gains)
        points.append({"n": pilot.n, "gain": interval.mean, "low": interval.low, "high": interval.high})
    ns = sorted({round(n) for n in np.geomspace(done.pilots[0].n, 2 * done.now.n, 40)})
    needed = done.needed
    return pages.LearningCurve(
        pd.DataFrame(points),
        done.now.n,
        pd.DataFrame(curve_rows(curves, ns)),
        needed.wished,
        float("nan") if needed.n is None else needed.n,
        needed.low,
        needed.high,
        needed.says,
    )


def _commands(asked: Request) -> tuple[tuple[str, str], ...]:
    extra = f" --limit {asked.limit}" if asked.limit else ""
    extra += f" --base {asked.base}" if asked.base else ""
    text = f"specialsam specialize {asked.source} --model {asked.model} --store {asked.embeddings}{extra}"
    return (("Specialise, with the embeddings that are made already and the settings below", text),)


def advice_text(done: Advised) -> str:
    """The advice as plain text: the decision, the reasons, what spoke up, and where the page is."""
    lines = [f"{done.judgement.decision}: {done.judgement.headline}"]
    lines += [f"  - {reason}" for reason in done.judgement.reasons]
    lines += [f"  {finding.level}: {finding.check}: {finding.says}" for finding in alarms(done.findings)]
    return "\n".join([*lines, f"page: {done.folder / 'advice.html'}"])
