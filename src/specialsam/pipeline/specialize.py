"""The main job, top to bottom: data, embeddings, base, tuning, the same prompts again, specialist, report.

Each stage leaves its result in the run folder and is skipped or continued when the same run is started again:
`run.json` (what was done, with what), `embeddings/`, `targets.sqlite` (masks of the items), `training.pt` and
`log.jsonl` (tuning), `rows-base.jsonl` and `rows-specialist.jsonl` (evaluation as it comes), then `results.parquet`,
`summary.csv` (the seed's columns), `specialist/`, `figures/` and `report.html`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from specialsam import __version__
from specialsam.advice.guard.mixtures import Guarded
from specialsam.advice.probes.monitor import monitor
from specialsam.core.console import say, stage
from specialsam.core.errors import DataError, UsageError
from specialsam.core.findings import Finding
from specialsam.data.loading import load
from specialsam.evaluation.evaluate import RowFile, evaluate
from specialsam.evaluation.rivals import disc_radius
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import SpecialistCard, clone, save_specialist
from specialsam.pipeline.embedded import Embedded
from specialsam.pipeline.evidence import BASE, SPECIALIST, gather_evidence, guarded
from specialsam.pipeline.plan import Plan, plan
from specialsam.pipeline.reporting import write_run_report
from specialsam.pipeline.run import Run
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.training.loop import train
from specialsam.training.state import EpochFacts, TrainResult


@dataclass(frozen=True)
class Outcome:
    """What a finished run has to say; `findings` are those of the checks, none where nothing was probed."""

    folder: Path
    report: Path
    summary: Any
    comparison: Any
    result: TrainResult
    findings: tuple[Finding, ...] = ()


def run_folder(source: str, model: str, out: Path | None) -> Path:
    """The run folder asked for, or runs/SOURCE-MODEL."""
    if out is not None:
        return out
    return Path("runs") / f"{Path(source.rpartition(':')[2]).resolve().name}-{Path(model).name.partition('.')[0]}"


def run_specialize(
    source: str,
    model: str,
    folder: Path,
    settings: SpecializeSettings,
    store: Path | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    base_model: str | None = None,
    title: str = "",
    measure: bool = True,
) -> Outcome | None:
    """Run (or go on with) the whole job in `folder`; None after a dry run, and after tuning without `measure`."""
    segmenter = load_model(model, base_model)
    layout = plan(source, settings.fractions, settings.seed, limit, settings.duplicates)
    sizes = layout.split_sizes()
    if measure and not dry_run and not sizes["test"]:
        raise UsageError(f"expected images in the test split of {source} to measure on, got none; set other fractions")
    say(f"{source}: {sum(sizes.values())} images with objects, " + ", ".join(f"{n} {s}" for s, n in sizes.items()))
    embedded = Embedded(store or folder / "embeddings", segmenter, layout, settings, folder / "targets.sqlite")
    if dry_run:
        say(embedded.price())
        return None
    identity = {"source": source, "model": model, "encoder": segmenter.encoder_id, "limit": limit, "base": base_model}
    identity |= {"store": str(store) if store else None, "title": title}
    run = Run(folder, identity | {"settings": settings.model_dump(mode="json")})
    run.save(dataset=_dataset_facts(layout), splits=dict(layout.splits), licence=layout.dataset.licence)

    with run.timed("embed"):
        embedded.prepare()
    base_rows = _evaluated(run, BASE, segmenter, layout, embedded, settings) if measure else None
    tuned = clone(segmenter, SPECIALIST)
    with run.timed("train"):
        result = _tuned(run, tuned, embedded, settings)
    with run.timed("guard"):
        kept = guarded(segmenter, tuned, embedded, settings)
    tuned = replace(kept.segmenter, name=SPECIALIST) if kept else tuned
    _save_specialist(run, segmenter, tuned, model, result, kept, layout, settings)
    if base_rows is None:
        return None
    rows = _evaluated(run, SPECIALIST, tuned, layout, embedded, settings)
    title = title or f"{layout.dataset.name}: a specialist of {segmenter.name}"
    evidence = None
    if settings.probes:
        with run.timed("probes"):
            both = pd.concat([base_rows, rows], ignore_index=True)
            evidence = gather_evidence(segmenter, tuned, embedded, both, result, settings)
    with run.timed("report"):
        models = segmenter, tuned
        report = write_run_report(
            run, layout, embedded, settings, models, (base_rows, rows), result, kept, evidence, title
        )
    findings = evidence.findings if evidence else ()
    return Outcome(folder, report.path, report.summary, report.comparison, result, findings)


def resume(folder: Path) -> Outcome | None:
    """Go on with the run in `folder` as it was started, and write its report anew."""
    path = folder / "run.json"
    if not path.exists():
        raise UsageError(f"expected a run folder with run.json, found none in {folder}")
    try:
        identity = dict(json.loads(path.read_text())["identity"])
    except (ValueError, TypeError, KeyError) as error:  # not text, not JSON, or not these fields
        raise DataError(f"expected a readable {path}, got a damaged one; run specialize again elsewhere") from error
    if "model" not in identity:
        raise UsageError(f"expected a run of specialize in {folder}, got one of evaluate; run evaluate again instead")
    settings = SpecializeSettings.parse(identity["settings"])
    store = Path(identity["store"]) if identity["store"] else None
    names = identity["source"], identity["model"], folder, settings, store, identity["limit"], False
    return run_specialize(*names, identity["base"], identity["title"])


def _dataset_facts(layout: Plan) -> dict[str, Any]:
    dataset = layout.dataset
    return {
        "name": dataset.name,
        "layout": dataset.layout,
        "counts": layout.counts(),
        "fingerprint": layout.fingerprint,
        "citation": dataset.citation,
    }


def _evaluated(
    run: Run,
    name: str,
    segmenter: Segmenter,
    layout: Plan,
    embedded: Embedded,
    settings: SpecializeSettings,
) -> Any:
    """Rows of one model (with the base also of the trivial rivals) on the test split, from where a call stopped."""
    radius = disc_radius(embedded.relative_areas()) if name == BASE else None
    file = RowFile(run.folder / f"rows-{name}.jsonl")
    test, done = layout.of("test"), file.records()
    stamp = {"run": run.folder.name, "dataset": layout.dataset.name, "split": "test", "subset": layout.mix(test)}
    left = [record for record in test if record.id not in done]
    with run.timed(f"{name} evaluation"), stage(f"measuring the {name}") as progress:
        measured = evaluate({name: segmenter}, left, load, embedded.embed, settings.evaluate, stamp, radius)
        for number, (record, rows) in enumerate(zip(left, measured, strict=True), len(done) + 1):
            file.append(record.id, rows)
            progress(number, len(test), record.id)
    return file.frame()


def _tuned(run: Run, tuned: Segmenter, embedded: Embedded, settings: SpecializeSettings) -> TrainResult:
    from accelerate import Accelerator

    accelerator = Accelerator()
    with stage("tuning") as progress:
        result = train(
            tuned, embedded.training_data(), settings.train, run.folder, accelerator, progress, _aloud(settings)
        )
    say(f"tuning: {result.stop}; kept epoch {result.best_epoch}")
    history = [asdict(facts) for facts in result.history]
    run.save(
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


def _save_specialist(
    run: Run,
    base: Segmenter,
    tuned: Segmenter,
    model: str,
    result: TrainResult,
    kept: Guarded | None,
    layout: Plan,
    settings: SpecializeSettings,
) -> None:
    alpha = (kept.alpha if kept else 1.0) if result.best_epoch else 0.0
    note = "" if result.best_epoch else "no epoch was better than the base on validation: these are the base's weights"
    if kept and result.best_epoch:
        note = kept.says
    card = SpecialistCard(
        name=f"{layout.dataset.name}-{base.name}",
        base=str(Path(model).resolve()) if Path(model).exists() else model,
        base_encoder_id=base.encoder_id,
        base_decoder_id=base.decoder_id,
        side=base.side,
        tuned=settings.train.mode if alpha else "base",
        alpha=alpha,
        recipe=settings.model_dump(mode="json"),
        data_fingerprint=layout.fingerprint,
        data_licence=layout.dataset.licence,
        scores={"val_iou": {"base": result.history[0].val_iou, "kept": max(f.val_iou for f in result.history)}},
        note=note,
        version=__version__,
    )
    save_specialist(tuned, card, run.folder / "specialist")
