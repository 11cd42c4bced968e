"""From rows and history to what people read: results.parquet, summary.csv, figures and report.html."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from specialsam.core.types import Problem
from specialsam.data.loading import load
from specialsam.evaluation.results import Results, save_table
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import ENCODER_MODES
from specialsam.pipeline.job import Job
from specialsam.pipeline.pictures import Shown, comparisons, object_pairs
from specialsam.pipeline.plan import Plan
from specialsam.report.facts import GUARD_COLUMNS, DataFacts, Guard, History, Report, RunFacts, Search

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from specialsam.advice.guard.mixtures import Guarded
    from specialsam.pipeline.evidence import Evidence
    from specialsam.pipeline.search import Searched
    from specialsam.pipeline.settings import SpecializeSettings
    from specialsam.training.state import TrainResult

COMPARED = ("iou", "dice", "boundary_f1")
"""Metrics of the table of gains, where they were measured."""
PROTOCOL = (
    "Prompts are derived from the ground-truth masks, the same for every model: a result says how well a model "
    "outlines an object that somebody points at, not whether it finds one.",
    "single: the decoder's one-mask output. three_best: of three masks the one that the model itself scores highest. "
    "three_oracle: the best of three by the truth, an upper bound that no user gets. rival: no model, no pixels. "
    "zoom (where it was asked for): the region of the single mask, encoded at the model's full side and asked again. "
    "tiles (likewise): one mask put together from overlapping tiles of the image's own pixels.",
    "IoU at the image's own resolution; a mean is over images (each image's mean over its objects), intervals are 95 % "
    "bootstrap intervals over images; a failed image counts with the worst value and is listed.",
    "Images are split by a stable hash, near-duplicates together; epochs are chosen on the validation split, and the "
    "test split is used once, for this page.",
)


@dataclass(frozen=True)
class Written:
    """The report's place and its two main tables."""

    path: Path
    summary: pd.DataFrame
    comparison: pd.DataFrame


@dataclass(frozen=True)
class Told:
    """What a finished run has to tell beside its results; None for what was not asked for."""

    result: TrainResult
    kept: Guarded | None = None
    evidence: Evidence | None = None
    found: pd.DataFrame | None = None
    searched: Searched | None = None


def write_run_report(job: Job, tuned: Segmenter, results: Results, told: Told) -> Written:
    """Write every table, figure and page of a finished run into its folder."""
    result, kept, evidence = told.result, told.kept, told.evidence
    from specialsam.report.html import write_report

    folder, settings, layout, names = job.folder, job.settings, job.plan, ("base", "specialist")
    results.save(folder / "results.parquet")
    both = results.only(model=names)
    own = both.only(output="single")
    save_table(own.seed_summary(), folder / "summary.csv")
    means = results.summary()
    save_table(means, folder / "means.csv")
    paired = both.comparison(*names, metrics=tuple(metric for metric in COMPARED if metric in both.metrics))
    save_table(paired, folder / "comparison.csv")
    categories = own.only(strategy=settings.main_strategy).by_category(*names)
    if len(categories):
        save_table(categories, folder / "by_category.csv")
    records = {record.id: record for record in layout.dataset.records}
    side_by_side = comparisons(
        object_pairs(results, *names, settings.main_strategy),
        Shown(records, load, job.embedded.embed, (job.segmenter, tuned)),
        settings.main_strategy,
        settings.evaluate.seed,
    )
    title = job.request.title or f"{layout.dataset.name}: a specialist of {job.segmenter.name}"
    report = Report(
        run=run_facts(job, title, _training_warnings(settings, result)),
        data=data_facts(layout, job.embedded.areas(), job.embedded.problems()),
        summary=means,
        comparison=paired,
        by_category=categories if len(categories) > 1 else None,
        pairs=own.pairs(*names, settings.main_strategy),
        leads=results.leads(*names),
        history=History(
            tuple(asdict(facts) for facts in result.history), result.history[0].val_iou, result.best_epoch, result.stop
        ),
        comparisons=side_by_side,
        protocol=PROTOCOL,
        base_model=names[0],
        tuned_model=names[1],
        main_strategy=settings.main_strategy,
        pair_unit="image",
        guard=_guard(kept, settings),
        findings=(kept.finding,) if kept else (),
        found=told.found,
        search=_search(told.searched),
    )
    if evidence is not None:
        report = _with_evidence(report, evidence)
    path = folder / "report.html"
    write_report(report, path, folder / "figures")
    return Written(path, means, paired)


def _guard(kept: Guarded | None, settings: SpecializeSettings) -> Guard | None:
    """The guard's table, where it compared mixtures."""
    import pandas as pd

    if kept is None or not kept.rows:
        return None
    table = pd.DataFrame([row.plain() for row in kept.rows]).reindex(columns=list(GUARD_COLUMNS))
    return Guard(table, kept.alpha, kept.says, settings.guard.allowed_loss)


def _search(found: Searched | None) -> Search | None:
    return Search(found.says, found.trials, found.importance) if found else None


def _with_evidence(report: Report, evidence: Evidence) -> Report:
    """The report with what the probes found, behind the findings that it has."""
    return replace(
        report,
        findings=(*report.findings, *evidence.findings),
        probes=evidence.probes,
        promptability=evidence.promptability,
        clicks=evidence.clicks,
        noc=evidence.noc,
        reliability=evidence.reliability,
        difficulty=evidence.difficulty,
        losses=evidence.loses,
    )


def run_facts(job: Job, title: str, warnings: tuple[str, ...] = ()) -> RunFacts:
    """How a run of any job came about."""
    facts, settings = job.ledger.facts, job.settings
    return RunFacts(
        title=title,
        source=job.request.source,
        layout=job.plan.dataset.layout,
        model=job.request.model,
        command=facts["command"],
        date=date.today().isoformat(),
        seconds=facts["seconds"],
        machine=facts["machine"],
        versions=facts["versions"],
        seed=settings.seed,
        settings=settings.model_dump(mode="json"),
        warnings=warnings,
        licence=job.plan.dataset.licence,
    )


def data_facts(layout: Plan, areas: npt.NDArray[np.floating], problems: Sequence[Problem] = ()) -> DataFacts:
    """What lay on disk; `areas` (N,) of the objects as shares of their images, `problems` beside the plan's own."""
    counts = layout.counts()
    lost = {problem.path for problem in problems}  # that could not be encoded
    empty = sum(layout.objects.get(record.id) == 0 for record in layout.dataset.records if record.image in lost)
    for name, change in (("with_objects", empty - len(lost)), ("empty", -empty), ("usable", -len(lost))):
        counts[name] += change
    counts["broken"] += len(lost)
    return DataFacts(
        on_disk=counts["images"],
        usable=counts["usable"],
        with_objects=counts["with_objects"],
        labelled_empty=counts["empty"],
        unlabelled=counts["unlabelled"],
        broken=counts["broken"],
        problems=(*layout.problems, *problems),
        splits=layout.split_sizes(),
        categories=layout.categories(),
        areas=areas,
        notes=layout.dataset.notes,
    )


def _training_warnings(settings: SpecializeSettings, result: TrainResult) -> tuple[str, ...]:
    warnings = [warning for facts in result.history for warning in facts.warnings]
    if settings.train.mode not in ENCODER_MODES and not result.encoder_unchanged:
        warnings.append("the image encoder changed during training although it should be frozen")
    return tuple(warnings)


def terminal_table(means: pd.DataFrame, paired: pd.DataFrame, metric: str = "iou") -> str:
    """The main result as plain text: IoU in points with 95 % intervals, rivals below a line."""
    lines = [f"{'prompt':16}{'base':>8}{'specialist':>12}{'gain':>8}  {'95 % interval':18}{'won-lost':>10}{'n':>6}"]
    for row in paired[(paired.metric == metric) & (paired.output == "single")].to_dict("records"):
        interval = f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
        lines.append(
            f"{row['strategy']:16}{100 * row['base']:8.1f}{100 * row['tuned']:12.1f}{100 * row['gain']:+8.1f}  "
            f"{interval:18}{row['wins']:>5}-{row['losses']:<4}{row['n']:>6}"
        )
    rivals = means[(means.output == "rival") & (means.metric == metric)]
    if len(rivals):
        lines.append("-- trivial rivals, same prompts")
    for row in rivals.to_dict("records"):
        interval = f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"
        lines.append(f"{row['strategy']:16}{100 * row['mean']:8.1f}  {row['model']} ({interval}, n {row['n']})")
    return "\n".join(lines)
