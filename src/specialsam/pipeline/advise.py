"""Is specialising worth it? Audit, fair baseline, blind decoder, pilot runs and a forecast, before anything is tuned.

`run_advise` read from top to bottom is the order of the page `advice.html`. Embeddings are made once, and a later
`specialize --store` uses them again. The test split is neither encoded nor measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import Accelerator

from specialsam.advice.forecast.curve import Curves, Forecast, Needed, Pilot, curve_rows, fit, labels_needed
from specialsam.advice.forecast.factors import factors
from specialsam.advice.forecast.judgement import Decision, Judgement, decide
from specialsam.advice.guard.mixtures import per_image_iou
from specialsam.advice.probes.blind import blind, blind_decoder, blind_settings, rival_iou, shortcut
from specialsam.advice.probes.monitor import STABILITY, review
from specialsam.advice.subject import Subject
from specialsam.core.console import say, stage
from specialsam.core.errors import UsageError
from specialsam.core.files import write_whole
from specialsam.core.findings import Factor, Finding, alarms
from specialsam.data.loading import load
from specialsam.evaluation.rivals import disc_radius
from specialsam.evaluation.statistics import bootstrap_mean, paired_bootstrap
from specialsam.evaluation.tables import summary
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.pipeline.audit import examined, splits_as_stated
from specialsam.pipeline.embedded import Embedded
from specialsam.pipeline.pictures import comparisons, object_pairs
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
from specialsam.pipeline.plan import Plan, plan
from specialsam.pipeline.reporting import PROTOCOL, data_facts, run_facts
from specialsam.pipeline.run import Run
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.report import pages
from specialsam.report.advice import save_advice_figures, write_advice
from specialsam.report.facts import Advice as Verdict
from specialsam.report.facts import Decision as ReportDecision
from specialsam.report.facts import Kind
from specialsam.training.losses import resolve_mix
from specialsam.training.state import TrainResult

MODES = ("interior", "box", "clicks3")
"""Prompts of the fair baseline: the base in every mode that a user could choose, not only in its weakest."""
PICTURES: tuple[Kind, ...] = ("best gain", "median gain", "worst gain")
DECISIONS: dict[Decision, ReportDecision] = {"GO": "go", "NO-GO": "no-go", "UNSURE": "unsure"}


@dataclass(frozen=True)
class Advised:
    """What was found before tuning; `rows` are those of base and largest pilot on the images kept apart."""

    folder: Path
    judgement: Judgement
    findings: tuple[Finding, ...]
    factors: tuple[Factor, ...]
    pilots: tuple[Pilot, ...]
    now: Forecast
    doubled: Forecast
    needed: Needed
    rows: Any
    seconds: dict[str, float]


def run_advise(
    source: str,
    model: str,
    folder: Path,
    settings: SpecializeSettings,
    pilot: PilotSettings,
    store: Path | None = None,
    limit: int | None = None,
    believed: int | None = None,
    base_model: str | None = None,
) -> Advised:
    """Audit, baseline, pilots, blind decoder, forecast, verdict; writes `advice.html` and `advice.json` in `folder`."""
    segmenter = load_model(model, base_model)
    whole = plan(source, settings.fractions, settings.seed, limit, settings.duplicates)
    layout = replace(whole, splits={name: split for name, split in whole.splits.items() if split != "test"})
    identity: dict[str, Any] = {"job": "advise", "source": source, "model": model, "limit": limit}
    identity |= {"encoder": segmenter.encoder_id}
    identity |= {"settings": settings.model_dump(mode="json"), "pilot": pilot.model_dump(mode="json")}
    run = Run(folder, identity | {"store": str(store) if store else None, "base": base_model, "believed": believed})
    say(f"{source}: " + ", ".join(f"{count} {split}" for split, count in whole.split_sizes().items()))
    embedded = Embedded(store or folder / "embeddings", segmenter, layout, settings, folder / "targets.sqlite")
    with run.timed("embed"):
        embedded.prepare()
    with run.timed("audit"):
        subject = Subject(whole.dataset, splits_as_stated(whole), load, segmenter, embedded.embed, believed=believed)
        facts, findings = examined(subject, whole)
    field = ground(layout.of("train"), layout.groups, pilot, settings.seed)
    if len(field.pool) < 2 or not field.apart:
        raise UsageError(f"{source}: expected at least 4 training images for pilots, got {len(layout.of('train'))}")
    with run.timed("pilots"):
        pilots, largest, result, rows = _pilots(run, segmenter, embedded, field, settings, pilot)
    with run.timed("blind decoder"):
        findings.append(_blind(segmenter, largest, embedded, field, settings, pilot, folder))
    findings += review(result.history)
    main = settings.main_strategy
    means = summary(rows, metrics=("iou",))
    own, best = _base_modes(means, main)
    curves = fit(pilots, 1 - own, settings.seed)
    count = len(layout.of("train"))
    now, doubled = curves.forecast(count), curves.forecast(2 * count)
    needed = labels_needed(curves, pilot.wished)
    judgement = decide(findings, now, doubled, needed, (*best, own))
    judged = _factors(segmenter, largest, embedded, settings, own, best, (now, doubled), findings)
    done = Advised(
        folder, judgement, tuple(findings), judged, pilots, now, doubled, needed, rows, dict(run.facts["seconds"])
    )
    areas = np.array([one.area_share for fact in facts for one in fact.objects])
    with run.timed("page"):
        _write(run, done, curves, means, (segmenter, largest), embedded, whole, settings, areas)
    return done


def _pilots(
    run: Run,
    segmenter: Segmenter,
    embedded: Embedded,
    field: Ground,
    settings: SpecializeSettings,
    pilot: PilotSettings,
) -> tuple[tuple[Pilot, ...], Segmenter, TrainResult, Any]:
    """Every pilot, the largest one's model and history, and the rows of base and largest pilot in all modes."""
    data = embedded.training_data()
    total = len(embedded.plan.of("train"))
    radius = disc_radius(embedded.relative_areas())
    main = settings.evaluate.model_copy(update={"strategies": (settings.main_strategy,), "groups": ("overlap",)})
    modes = tuple(dict.fromkeys((settings.main_strategy, *MODES)))
    full = main.model_copy(update={"strategies": modes})
    found: list[Pilot] = []
    rows: Any = None
    for seed in range(settings.seed, settings.seed + pilot.seeds):
        for count in sizes(total, len(field.pool), pilot):
            chosen = limited(data, joined(field.pool, count, seed))
            own = pilot_training(settings.train, pilot, seed)
            with stage(f"pilot on {count} of {total} images") as progress:
                tuned, result = tuned_on(segmenter, chosen, own, run.folder / "pilots" / f"{count}-{seed}", progress)
            last = count == sizes(total, len(field.pool), pilot)[-1]
            with stage(f"measuring the pilot on {len(field.apart)} images kept apart") as progress:
                models = {BASE: segmenter, PILOT: tuned}
                rows = measured(
                    models, field.apart, embedded, full if last else main, radius if last else None, progress
                )
            gains = gains_of(rows, settings.main_strategy)
            found.append(Pilot(count, seed, gains))
            interval = bootstrap_mean(gains)
            say(
                f"pilot on {count} images: gain {100 * interval.mean:+.1f} IoU points "
                f"({100 * interval.low:+.1f} to {100 * interval.high:+.1f}, n {interval.n})"
            )
    return tuple(found), tuned, result, rows


def _blind(
    segmenter: Segmenter,
    largest: Segmenter,
    embedded: Embedded,
    field: Ground,
    settings: SpecializeSettings,
    pilot: PilotSettings,
    folder: Path,
) -> Finding:
    """The largest pilot against a decoder that was tuned alike without seeing any image, on the images kept apart."""
    data = embedded.training_data()
    count = sizes(len(embedded.plan.of("train")), len(field.pool), pilot)[-1]
    chosen = limited(data, joined(field.pool, count, settings.seed))
    own = pilot_training(settings.train, pilot, settings.seed)
    with stage("blind decoder: tuned without seeing any image") as progress:
        unseeing, _ = blind_decoder(segmenter, chosen, own, folder / "pilots", Accelerator(), progress=progress)
    apart = {record.id for record in field.apart}
    items = [item for item in data.train if item.id in apart]
    test = replace(chosen, val=items)
    return shortcut(
        per_image_iou(largest, test, own),
        per_image_iou(unseeing, blind(test), blind_settings(own)),
        rival_iou(test, own),
        [item.record for item in items],
    )


def _base_modes(means: Any, main: str) -> tuple[float, tuple[str, float]]:
    """The base's IoU by the main prompt's single mask, and (name, IoU) of its best other mode that needs no truth."""
    base = means[(means.model == BASE) & (means.output != "three_oracle")]
    own = base[(base.strategy == main) & (base.output == "single")]
    other = base.drop(own.index).sort_values("mean").iloc[-1]
    text = {"box": "by box", "clicks3": "by three clicks", main: "by one click"}.get(other.strategy, other.strategy)
    name = f"{text}, the best of three masks by its own score" if other.output == "three_best" else text
    return float(own["mean"].iloc[0]), (name, float(other["mean"]))


def _factors(
    segmenter: Segmenter,
    largest: Segmenter,
    embedded: Embedded,
    settings: SpecializeSettings,
    own: float,
    best: tuple[str, float],
    forecasts: tuple[Forecast, Forecast],
    findings: Sequence[Finding],
) -> tuple[Factor, ...]:
    data = embedded.training_data()
    objects = sum(len(data.masks(item)) for item in data.train if "|" not in item.id)
    samples = {"images": len(embedded.plan.of("train")), "objects": objects, "views": len(data.train)}
    encoder = sum(p.numel() for p in segmenter.encoder.parameters())
    before, after = segmenter.sam.state_dict(), largest.sam.state_dict()
    tuned = sum(value.numel() for name, value in after.items() if not value.equal(before[name]))
    stability = next((finding for finding in findings if finding.check == STABILITY), None)
    return factors(own, best, samples, resolve_mix(settings.train.loss), (encoder, tuned), *forecasts, stability)


def _write(
    run: Run,
    done: Advised,
    curves: Curves,
    means: Any,
    models: tuple[Segmenter, Segmenter],
    embedded: Embedded,
    whole: Plan,
    settings: SpecializeSettings,
    areas: Any,
) -> None:
    """advice.json for programs, rows.parquet, and the page."""
    rows = done.rows
    write_whole(done.folder / "rows.parquet", lambda path: rows.to_parquet(path, index=False))
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
    table = object_pairs(rows, BASE, PILOT, main)
    shown = comparisons(table, records, load, embedded.embed, models, main, settings.evaluate.seed)
    first = {comparison.kind: comparison for comparison in reversed(shown)}
    title = f"{whole.dataset.name}: is a specialist worth it?"
    page = pages.AdvicePage(
        run=run_facts(run, whole, settings, title),
        advice=Verdict(DECISIONS[done.judgement.decision], done.judgement.headline, done.judgement.reasons),
        curve=_curve(done, curves),
        factors=done.factors,
        baseline=means[means.model != PILOT],
        findings=done.findings,
        comparisons=tuple(first[kind] for kind in PICTURES if kind in first),
        commands=_commands(run),
        data=data_facts(whole, areas, embedded.problems()),
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


def _commands(run: Run) -> tuple[tuple[str, str], ...]:
    identity = run.facts["identity"]
    store = identity["store"] or str(run.folder / "embeddings")
    extra = f" --limit {identity['limit']}" if identity["limit"] else ""
    extra += f" --base {identity['base']}" if identity["base"] else ""
    text = f"specialsam specialize {identity['source']} --model {identity['model']} --store {store}{extra}"
    return (("Specialise, with the embeddings that are made already and the settings below", text),)


def advice_text(done: Advised) -> str:
    """The advice as plain text: the decision, the reasons, what spoke up, and where the page is."""
    lines = [f"{done.judgement.decision}: {done.judgement.headline}"]
    lines += [f"  - {reason}" for reason in done.judgement.reasons]
    lines += [f"  {finding.level}: {finding.check}: {finding.says}" for finding in alarms(done.findings)]
    return "\n".join([*lines, f"page: {done.folder / 'advice.html'}"])
