"""What is asked of a tuned model beside its scores: the guard's mixtures, probes, poor prompts, difficulty.

All of it comes from embeddings that are stored already. The guard decides on validation images and general ones; the
rest is measured on a stable random subset of the test split and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from specialsam.advice.checks.image_facts import ImageFacts, as_rows, facts_of
from specialsam.advice.guard.mixtures import Guarded, guard
from specialsam.advice.probes.calibration import reliability
from specialsam.advice.probes.difficulty import by_difficulty, where_it_loses
from specialsam.advice.probes.looks import ProbeRow, encoder_unchanged, probe_findings, probe_rows, validation_leak
from specialsam.advice.probes.monitor import review
from specialsam.advice.probes.ordering import more_prompts
from specialsam.advice.probes.promptability import clicks_to, image_means, promptability
from specialsam.advice.subject import Subject
from specialsam.core.console import say, stage
from specialsam.core.errors import DataError
from specialsam.core.findings import Finding
from specialsam.core.place import Spread
from specialsam.core.types import Record
from specialsam.data.duplicates import duplicate_groups, near_duplicates
from specialsam.data.loading import load
from specialsam.data.splits import stable_hash
from specialsam.evaluation.results import Results
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import ENCODER_MODES
from specialsam.pipeline.embedded import Embedded
from specialsam.pipeline.general import retention
from specialsam.pipeline.job import Job
from specialsam.training.loop import per_image_iou
from specialsam.training.state import TrainResult

if TYPE_CHECKING:
    import pandas as pd


BASE, SPECIALIST = "base", "specialist"
"""Names of the two models in the rows."""
FEWEST = 5
"""Test images below which nothing is probed: no interval would mean anything."""
CLICKS = 20
"""Most clicks of the interactive protocol (NoC), as its literature has it."""


@dataclass(frozen=True)
class Evidence:
    """What the report shows beside the scores; tables have the columns that `report.facts` names."""

    findings: tuple[Finding, ...]
    probes: pd.DataFrame
    promptability: pd.DataFrame
    clicks: pd.DataFrame
    noc: pd.DataFrame
    reliability: pd.DataFrame
    difficulty: pd.DataFrame
    loses: tuple[str, ...]


def guarded(job: Job, tuned: Segmenter) -> Guarded | None:
    """The mixture of base and tuned weights that is handed on; None without validation images to choose on."""
    base, settings, spread = job.segmenter, job.settings, job.place.spread
    data = job.learned.training_data()
    if not data.val:
        return None
    with stage("guard: mixtures of base and tuned weights") as progress:
        done, total = 0, len(settings.guard.alphas)

        def measure(model: Segmenter) -> list[float]:
            nonlocal done
            done += 1
            progress(done, total, "")
            return per_image_iou(model, data, settings.train, spread)

        found = guard(base, tuned, measure, retention(job), settings.guard, settings.seed)
    say(f"guard: {found.says}")
    return found


def gather_evidence(job: Job, tuned: Segmenter, results: Results, result: TrainResult) -> Evidence | None:
    """Probe both models on at most `settings.probes` test images; `results` are the evaluation's, of both models.

    None, and a line that says so, where there are too few, and in every process but the main one.
    """
    base, settings, layout, embedded = job.segmenter, job.settings, job.plan, job.embedded
    spread = job.place.spread
    subject = Subject(layout.dataset, layout.splits, load, base, embedded.embed, truth=embedded.truth)
    test = layout.of("test")
    order = sorted(test, key=lambda record: stable_hash(f"probes:{settings.seed}:{record.id}"))
    chosen = _readable(order, embedded)[: settings.probes]
    if len(chosen) < FEWEST:
        say(f"probes: left out, for {FEWEST} readable test images are the fewest to probe and there are {len(chosen)}")
        return None
    models = {BASE: base, SPECIALIST: tuned}
    with stage("probing: blind, moved and shifted prompts") as progress:
        probed = probe_rows(base, tuned, chosen, subject, settings.seed, progress, spread)
    with stage("probing: prompts of falling quality") as progress:
        quality = promptability(models, chosen, subject, settings.seed, progress, spread)
    with stage("probing: clicks to 85 and 90 % IoU") as progress:
        counted = clicks_to(models, chosen, subject, most=CLICKS, seed=settings.seed, progress=progress, spread=spread)
    facts = _object_facts(test, spread)
    if not job.place.main:
        return None
    ids = {split: [record.id for record in layout.of(split)] for split in ("train", "val", "test")}
    twins = _twins(layout.of("train"), chosen, layout.groups if settings.duplicates else None)
    findings = [
        *review(result.history),
        encoder_unchanged(result.encoder_before, result.encoder_after),
        validation_leak(ids["train"], ids["val"], ids["test"]),
        *probe_findings(probed, twins, settings.seed),
        more_prompts(SPECIALIST, counted.curve, quality, settings.seed),
    ]
    harder = by_difficulty(results.frame, facts, BASE, SPECIALIST, settings.main_strategy)
    return Evidence(
        tuple(
            finding
            for finding in findings
            if settings.train.mode not in ENCODER_MODES or finding.check != "encoder unchanged"
        ),
        _probe_table(probed),
        image_means(quality, ["model", "axis", "value"]),
        image_means(counted.curve, ["model", "click"]),
        _noc(counted.counts),
        _reliability(quality),
        harder,
        tuple(where_it_loses(harder)),
    )


def _readable(records: Sequence[Record], embedded: Embedded) -> list[Record]:
    return [record for record in records if (record.id, "") in embedded.keys]


def _twins(train: Sequence[Record], probed: Sequence[Record], groups: Mapping[str, str] | None) -> set[str]:
    """Ids of probed records with a near-duplicate in training: the split keeps none, but a stated split may.

    `groups` are those that the plan found; None where it did not look.
    """
    if groups is None:
        groups = duplicate_groups(near_duplicates([*train, *probed], problems=[]))
    learned = {groups[record.id] for record in train if record.id in groups}
    return {record.id for record in probed if groups.get(record.id) in learned}


def _object_facts(records: Sequence[Record], spread: Spread) -> pd.DataFrame:
    """Area, contrast and boundary of every object, in the columns of `by_difficulty`."""
    import pandas as pd

    def facts(record: Record) -> ImageFacts | None:
        try:
            return facts_of(load(record), "test")
        except DataError:
            return None  # its rows carry the error; `by_difficulty` puts it among the unknown

    found = []
    with stage("looking at objects") as progress:
        for number, one in enumerate(spread(facts, records), 1):
            found += [one] if one else []
            progress(number, len(records), "")
    table = pd.DataFrame(as_rows(found)).rename(columns={"area_share": "area"})
    return table[["record", "object", "area", "contrast", "boundary"]]


def _probe_table(rows: Sequence[ProbeRow]) -> pd.DataFrame:
    import pandas as pd

    return image_means(pd.DataFrame([vars(row) for row in rows]).replace({"tuned": SPECIALIST}), ["probe", "model"])


def _noc(counts: pd.DataFrame) -> pd.DataFrame:
    """Mean number of clicks an object to each target, and the share that never reached 90 %."""
    import pandas as pd

    lines = [
        {
            "model": model,
            "noc85": part["noc85"].mean(),
            "noc90": part["noc90"].mean(),
            "failures": int((part["noc90"] >= CLICKS).sum()),
            "n": len(part),
        }
        for model, part in counts.groupby("model", sort=False)
    ]
    return pd.DataFrame(lines)


def _reliability(quality: pd.DataFrame) -> pd.DataFrame:
    """Predicted against actual IoU of each model in bins, all prompts of good and bad quality together."""
    import pandas as pd

    parts = []
    for model, part in quality.groupby("model", sort=False):
        found = reliability(np.asarray(part["predicted"]), np.asarray(part["iou"]))
        parts.append(found.bins.assign(model=model))
    return pd.concat(parts, ignore_index=True)
