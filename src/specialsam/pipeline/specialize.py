"""The main job, top to bottom: data, embeddings, base, tuning, the same prompts again, specialist, report.

Each stage leaves its result in the run folder and is skipped or continued when the same run is started again:
`run.json` (what was done, with what), `embeddings/`, `targets.sqlite` (packed masks), `training.pt` and `log.jsonl`
(tuning), `rows-base.jsonl` and `rows-specialist.jsonl` (evaluation as it comes), then `results.parquet`, `summary.csv`
(the seed's columns), `specialist/`, `figures/` and `report.html`. What was made from an image, a mask or weights that
have changed since is made again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from specialsam import __version__
from specialsam.advice.guard.mixtures import Guarded
from specialsam.advice.probes.monitor import monitor
from specialsam.core.console import say, stage
from specialsam.core.errors import ModelError, UsageError
from specialsam.core.findings import Finding
from specialsam.core.ledger import read_facts
from specialsam.core.place import here
from specialsam.data.look import look_at
from specialsam.evaluation.results import Asked, Results, measure
from specialsam.evaluation.rivals import disc_radius
from specialsam.models.finder_files import Alarm, is_calibrated
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import (
    SpecialistCard,
    clone,
    is_specialist,
    licence_of,
    read_card,
    save_specialist,
    write_card,
)
from specialsam.pipeline.evidence import BASE, SPECIALIST, gather_evidence, guarded
from specialsam.pipeline.finding import Learned, finding_lines, learn_to_find
from specialsam.pipeline.general import retention, training_data
from specialsam.pipeline.job import Job, Request, open_job, planned
from specialsam.pipeline.reporting import Told, write_run_report
from specialsam.pipeline.search import Searched, search
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.training.loop import train
from specialsam.training.state import EpochFacts, TrainingData, TrainResult

NAME = "specialize"


@dataclass(frozen=True)
class Outcome:
    """What a finished run has to say; `findings` are those of the checks, none where nothing was probed."""

    folder: Path
    report: Path
    summary: pd.DataFrame
    comparison: pd.DataFrame
    result: TrainResult
    findings: tuple[Finding, ...] = ()


def run_folder(source: str, model: str, out: Path | None) -> Path:
    """The run folder asked for, or runs/SOURCE-MODEL."""
    if out is not None:
        return out
    return Path("runs") / f"{Path(source.rpartition(':')[2]).resolve().name}-{Path(model).name.partition('.')[0]}"


def run_specialize(request: Request, settings: SpecializeSettings, measured: bool = True) -> Outcome | None:
    """Run (or go on with) the whole job; None where only tuning was asked for, and in processes but the main one."""
    with open_job(NAME, request, settings, needs=("test",) if measured else ()) as job:
        sizes = job.plan.split_sizes()
        say(f"{request.source}: {sum(sizes.values())} images with objects, {_sizes(sizes)}")
        with job.ledger.timed("embed"):
            job.prepare()
        base_rows = _evaluated(job, BASE, job.segmenter) if measured else None
        with job.ledger.timed("general images"):
            data = training_data(job)
        searched = _searched(job, data)
        job = job.with_training(searched.train) if searched else job
        tuned = clone(job.segmenter, SPECIALIST)
        with job.ledger.timed("train"):
            result = _tuned(job, tuned, data)
        with job.ledger.timed("guard"):
            kept = guarded(job, tuned)
        tuned = replace(kept.segmenter, name=SPECIALIST) if kept else tuned
        with job.ledger.timed("finder"):
            found = learn_to_find(job, tuned)
        if job.place.main:
            _save_specialist(job, tuned, result, kept, found)
            if found:
                say(finding_lines(found.table))
        if base_rows is None:
            return None
        results = base_rows + _evaluated(job, SPECIALIST, tuned)
        evidence = None
        if settings.probes:
            with job.ledger.timed("probes"):
                evidence = gather_evidence(job, tuned, results, result)
        if not job.place.main:
            return None
        with job.ledger.timed("report"):
            told = Told(result, kept, evidence, found.table if found else None, searched)
            report = write_run_report(job, tuned, results, told)
        findings = evidence.findings if evidence else ()
        return Outcome(job.folder, report.path, report.summary, report.comparison, result, findings)


def _sizes(sizes: dict[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in sizes.items())


def price_specialize(request: Request, settings: SpecializeSettings) -> str:
    """What the missing embeddings would cost, in a line; nothing is written."""
    embedded = planned(request, settings, here(request.device))
    layout = embedded.plan
    say(f"{request.source}: {len(layout.splits)} images with objects, {_sizes(layout.split_sizes())}")
    return embedded.price()


def resume(folder: Path, device: str = "auto") -> Outcome | None:
    """Go on with the run in `folder` as it was started, and write its report anew."""
    job = read_facts(folder)["identity"].get("job", NAME)
    if job != NAME:
        raise UsageError(f"expected a run of specialize in {folder}, got one of {job}; run {job} again instead")
    request, _, settings = Request.read(folder)
    return run_specialize(replace(request, device=device), SpecializeSettings.parse(settings))


def _evaluated(job: Job, name: str, segmenter: Segmenter) -> Results:
    """Rows of one model (with the base also of the trivial rivals) on the test split, from where a call stopped."""
    layout, embedded = job.plan, job.embedded
    radius = disc_radius(embedded.relative_areas()) if name == BASE else None
    test = layout.of("test")
    stamp = {"run": job.folder.name, "dataset": layout.dataset.name, "split": "test", "subset": layout.mix(test)}
    how = embedded.measuring(job.settings.measured, stamp)
    asked = Asked(test, layout.content, how, job.settings.precision)
    with job.ledger.timed(f"{name} evaluation"):
        results, again = measure(
            {name: segmenter}, asked, radius, job.folder / f"rows-{name}.jsonl", job.place, f"measuring the {name}"
        )
    if again:
        say(f"{name}: {again} of {len(test)} test images measured again: image, masks, weights or measures were others")
    return results


def _searched(job: Job, data: TrainingData) -> Searched | None:
    """The best training settings that a search finds, where one is asked for."""
    if not job.settings.search.minutes:
        return None
    with job.ledger.timed("search"):
        found = search(job, data, retention(job))
    job.ledger.save(search={"says": found.says, "importance": found.importance, "train": found.train.model_dump()})
    return found


def _tuned(job: Job, tuned: Segmenter, data: TrainingData) -> TrainResult:
    settings = job.settings
    with stage("tuning") as progress:
        result = train(tuned, data, settings.train, job.folder, job.place, progress, _aloud(settings))
    say(f"tuning: {result.stop}; kept epoch {result.best_epoch}")
    history = [asdict(facts) for facts in result.history]
    job.ledger.save(
        history=history,
        best_epoch=result.best_epoch,
        stop=result.stop,
        encoder={"before": result.encoder_before, "after": result.encoder_after},
    )
    return result


def _aloud(settings: SpecializeSettings) -> Callable[[list[EpochFacts]], tuple[list[str], bool]]:
    """The training monitor, whose warnings are also said while the run goes on."""
    watch = monitor(settings.monitor)

    def heard(history: list[EpochFacts]) -> tuple[list[str], bool]:
        warnings, stop = watch(history)
        for warning in warnings:
            say(f"warning: {warning}")
        return warnings, stop

    return heard


def _validated(result: TrainResult, kept: Guarded | None, alpha: float) -> dict[str, dict[str, float]]:
    """Validation IoU of the base and of the weights that are handed on; nothing where there was no validation."""
    by_epoch = {facts.epoch: facts.val_iou for facts in result.history}
    by_alpha = {row.alpha: row.iou for row in kept.rows} if kept else {}
    base = by_alpha.get(0.0, by_epoch.get(0, math.nan))
    handed = by_alpha.get(alpha, by_epoch.get(result.best_epoch, math.nan) if alpha else base)
    return {"val_iou": {"base": base, "kept": handed}} if math.isfinite(base) and math.isfinite(handed) else {}


def _save_specialist(
    job: Job, tuned: Segmenter, result: TrainResult, kept: Guarded | None, found: Learned | None
) -> None:
    base, layout, settings, model = job.segmenter, job.plan, job.settings, job.request.model
    alpha = (kept.alpha if kept else 1.0) if result.best_epoch else 0.0
    note = "" if result.best_epoch else "no epoch was better than the base on validation: these are the base's weights"
    if kept and result.best_epoch:
        note = kept.says
    card = SpecialistCard(
        name=f"{layout.dataset.name}-{base.name}",
        base=str(Path(model).resolve()) if Path(model).exists() else model,
        base_encoder_id=base.encoder_id,
        base_decoder_id=base.decoder_id,
        base_licence=licence_of(base),
        side=base.side,
        preprocessing=base.preprocessing.version,
        tuned=settings.train.mode if alpha else "base",
        alpha=alpha,
        recipe=settings.model_dump(mode="json") | layout.reading(),
        data_fingerprint=layout.fingerprint,
        data_licence=layout.dataset.licence,
        scores=_validated(result, kept, alpha),
        alarm=found.alarm if found else Alarm(),
        look=look_at([record.image for record in layout.of("train")]),
        note=note,
        version=__version__,
    )
    folder = job.folder / "specialist"
    before = None
    if is_specialist(folder):
        with suppress(ModelError):  # a damaged one is written anew
            before = read_card(folder)
    save_specialist(tuned, card, folder, found.parts if found else None)
    if before is not None:
        _keep_calibration(folder, before)


def _keep_calibration(folder: Path, before: SpecialistCard) -> None:
    """Keep what `calibrate` told the specialist that lay here, where the new one is the same."""
    now = read_card(folder)
    own, earlier = ((card.weights_sha256, card.finder, card.memory_sha256) for card in (now, before))
    if own == earlier and is_calibrated(before.alarm):
        write_card(folder, now.model_copy(update={"alarm": before.alarm}))
    elif is_calibrated(before.alarm):
        say(f"note: the specialist is another now: calibrate {folder} again for a promise on alarms")
