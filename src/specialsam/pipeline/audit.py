"""`specialsam audit`: every check that can be made before training, on the terminal and as a page with pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specialsam.advice.checks.audit import audit_findings
from specialsam.advice.checks.image_facts import ImageFacts, gather
from specialsam.advice.subject import Subject
from specialsam.core.console import say, stage
from specialsam.core.errors import DataError
from specialsam.core.files import write_whole
from specialsam.core.findings import Finding, alarms, worst
from specialsam.core.types import Record, Split
from specialsam.data.loading import load
from specialsam.pipeline.embedded import embeddings_of
from specialsam.pipeline.job import Request, open_job
from specialsam.pipeline.plan import Plan
from specialsam.pipeline.reporting import data_facts, run_facts
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.report.audit import write_audit
from specialsam.report.pages import AuditPage, Suspect

SUSPECTS = 12
"""Pictures on the page."""
MARKS = {"pass": "ok", "warn": "WARN", "fail": "FAIL"}


@dataclass(frozen=True)
class Audited:
    """What an audit found, and where its page is."""

    findings: tuple[Finding, ...]
    page: Path


def run_audit(request: Request, settings: SpecializeSettings) -> Audited:
    """Make every check on the data, print what they say, and write `audit.html` and `audit.json` in the folder."""
    with open_job("audit", request, settings) as job:
        layout = job.plan
        with job.ledger.timed("audit"), embeddings_of(request.embeddings, settings.precision) as embed:
            splits = splits_as_stated(layout)
            subject = Subject(layout.dataset, splits, load, job.segmenter, embed, believed=request.believed)
            facts, findings = examined(subject, layout)
        say(findings_text(findings))
        page = job.folder / "audit.html"
        if job.place.main:
            data = data_facts(layout, np.array([o.area_share for fact in facts for o in fact.objects]))
            shown = suspects(findings, {record.id: record for record in layout.dataset.records})
            about = run_facts(job, f"Audit of {layout.dataset.name}")
            write_audit(AuditPage(about, tuple(findings), data, shown), page)
            text = json.dumps([finding.plain() for finding in findings], indent=1)
            write_whole(job.folder / "audit.json", lambda path: path.write_text(text + "\n"))
        return Audited(tuple(findings), page)


def examined(subject: Subject, layout: Plan) -> tuple[list[ImageFacts], list[Finding]]:
    """Facts of every image of the splits and what the checks make of them, with progress."""
    with stage("looking at images") as progress:
        facts = gather(subject, progress)
    with stage("checking") as progress:
        return facts, audit_findings(subject, facts, progress, layout.problems)


def splits_as_stated(layout: Plan) -> Mapping[str, Split]:
    """The split that the data set states, where it states one for every image (its own leaks show), else ours."""
    used = [record for record in layout.dataset.records if record.id in layout.splits]
    stated: dict[str, Split] = {record.id: record.split for record in used if record.split is not None}
    return stated if len(stated) == len(used) and len(set(stated.values())) > 1 else layout.splits


def suspects(findings: Sequence[Finding], records: Mapping[str, Record]) -> tuple[Suspect, ...]:
    """Pictures of the images that alarms name, those of the worst alarm first; one picture an image."""
    by_name = {str(record.image): record for record in records.values()} | dict(records)
    chosen: dict[str, Suspect] = {}
    for finding in alarms(findings):
        for name in finding.files:
            record = by_name.get(name)
            if record is None or record.id in chosen or len(chosen) == SUSPECTS:
                continue
            try:
                sample = load(record)
            except DataError:
                continue  # "image counts" names it; there is no picture to show
            mask = np.asarray(sample.masks.any(0), np.bool_) if len(sample.masks) else None
            chosen[record.id] = Suspect(sample.image, mask, f"{record.id}: {finding.check}")
    return tuple(chosen.values())


def findings_text(findings: Sequence[Finding]) -> str:
    """Findings as plain text, a line each, what to do below alarms, and one line of counts."""
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{MARKS[finding.level]:5} {finding.check}: {finding.says}")
        if finding.level != "pass":
            shown = ", ".join(Path(name).name for name in finding.files[:3])
            more = f" and {len(finding.files) - 3} more" if len(finding.files) > 3 else ""
            lines += [f"      {shown}{more}"] if shown else []
            lines.append(f"      -> {finding.remedy}")
    counts = {level: sum(finding.level == level for finding in findings) for level in MARKS}
    summary = ", ".join(f"{count} {level}" for level, count in counts.items())
    lines.append(f"{len(findings)} checks: {summary}; worst: {worst(findings)}")
    return "\n".join(lines)
