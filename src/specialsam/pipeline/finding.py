"""The finder within the main job: learned on the stored embeddings, calibrated, measured beside its rivals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any

import pandas as pd

from specialsam.core.console import say, stage
from specialsam.core.files import write_whole
from specialsam.core.ledger import Journal, digest
from specialsam.data.splits import stable_hash
from specialsam.evaluation.finding import (
    Find,
    Finding,
    ImageFinds,
    by_finder,
    by_grid,
    by_memory,
    by_saliency,
    measure_finds,
)
from specialsam.evaluation.found_tables import found_table, good_level
from specialsam.evaluation.results import save_table
from specialsam.evaluation.saliency import SALIENCY
from specialsam.models.finder import Finder
from specialsam.models.finder_files import Alarm, FinderParts
from specialsam.models.memory import Memory, fit, tensors
from specialsam.models.segmenter import Segmenter, fingerprint, tensors_sha256
from specialsam.pipeline.evidence import BASE, SPECIALIST
from specialsam.pipeline.job import Job
from specialsam.training.finder import calibrate, learn_finder
from specialsam.training.state import Item, TrainingData

LEARNED = "finder.safetensors"
"""The head in a run's folder before it is calibrated to a decoder."""
FEWEST_GOOD = 8
"""Images of nothing from which a memory of them is fitted."""
GRID, NEIGHBOURS = "point grid", "nearest neighbours"
"""Names of the rivals in the column `model`."""


@dataclass(frozen=True)
class Learned:
    """What finds without a prompt, what an alarm's threshold may be set on, and the numbers of the test split."""

    parts: FinderParts
    alarm: Alarm
    table: pd.DataFrame


def learn_to_find(job: Job, tuned: Segmenter) -> Learned | None:
    """Learn, calibrate and measure what finds without a prompt; None where it is not asked for."""
    if not job.settings.finder.enabled:
        return None
    data, held = job.embedded.finder_data()
    blank = [item for item in data.train if item.record in job.plan.blank]
    finder = job.place.first(lambda: _learned(job, data))
    with stage("calibrating the finder") as progress:
        finder = job.place.first(lambda: calibrate(finder, tuned, data, progress))
    memory = job.place.first(lambda: _memory(job, blank))
    table, alarm = _measured(job, tuned, FinderParts(finder, memory), held)
    count = {"images": len({item.record for item in data.train}) - len(blank), "blank": len(blank)}
    return Learned(FinderParts(finder, memory, count), alarm, table)


def _learned(job: Job, data: TrainingData) -> Finder:
    """The head as an earlier call learned it from the same, or learned now."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file, save_file

    settings, path = job.settings.finder, job.folder / LEARNED
    items = [[item.id, item.key, item.masks] for item in [*data.train, *data.val]]
    made_from = digest(settings.model_dump(mode="json"), items)
    channels = int(data.embeddings(data.train[:1])[0].tensor.shape[0])
    if path.exists():
        try:
            with safe_open(path, "pt") as file:
                same = (file.metadata() or {}).get("made_from") == made_from
            if same:
                finder = Finder(channels, settings.width, settings.blocks)
                finder.load_state_dict(load_file(path))
                return finder.eval().requires_grad_(False)
        except (OSError, SafetensorError, RuntimeError):
            say(f"note: {path} is damaged; the finder is learned anew")
    with stage("learning to find") as progress:
        finder = learn_finder(data, settings, channels, job.place.device, progress).cpu()
    kept = {name: value.contiguous() for name, value in finder.state_dict().items()}
    write_whole(path, lambda beside: save_file(kept, beside, {"made_from": made_from}))
    return finder


def _memory(job: Job, blank: Sequence[Item]) -> Memory | None:
    if len(blank) < FEWEST_GOOD:
        return None
    say(f"remembering {len(blank)} images of nothing")
    return fit((job.embedded.store.get(item.key) for item in blank), seed=job.settings.finder.seed)


def _measured(job: Job, tuned: Segmenter, parts: FinderParts, held: Sequence[Item]) -> tuple[pd.DataFrame, Alarm]:
    """The table of all finders on the test split, and the scores of good images that nothing was learned from."""
    layout = job.plan
    finders = finders_of(SPECIALIST, tuned, parts)
    finders |= finders_of(BASE, job.segmenter, FinderParts(parts.finder)) | rules()
    test = [*layout.of("test"), *layout.blanks("test")]
    asked = Finding(test, layout.content, job.embedded.truth, job.embedded.embed, job.segmenter, bool(layout.blank))
    finds = measure_finds(finders, asked, _journal(job, "finds"), job.place)
    finds |= _by_grid(job, tuned, asked)
    good, levels = _good(job, finders, held, asked)
    table = found_table(finds, levels, job.settings.seed)
    if job.place.main:
        save_table(table, job.folder / "finding.csv")
    where = f"{len(held)} images of nothing of {layout.dataset.name}, none of which was learned from" if held else ""
    return table, Alarm(good_scores=good, source=where)


def finders_of(name: str, segmenter: Segmenter, parts: FinderParts) -> dict[str, tuple[Find, str]]:
    """What a specialist finds with, by names of tables: its finder as `name`, its memory of good images; digests."""
    out: dict[str, tuple[Find, str]] = {}
    if parts.finder is not None:
        head = fingerprint(parts.finder, parts.finder.by)
        out[name] = by_finder(parts.finder, segmenter), digest(head, segmenter.decoder_id)
    if parts.memory is not None:
        out[NEIGHBOURS] = by_memory(parts.memory), tensors_sha256(tensors(parts.memory))
    return out


def rules() -> dict[str, tuple[Find, str]]:
    """Rivals that need no learning, by names of tables, with what their answers follow from beside the picture."""
    return {name: (by_saliency(rule), "") for name, rule in SALIENCY.items()}


def _journal(job: Job, name: str) -> Journal | None:
    """Where the main process keeps what was found, image by image."""
    return Journal(job.folder / f"{name}.jsonl") if job.place.main else None


def _by_grid(job: Job, tuned: Segmenter, asked: Finding) -> dict[str, list[ImageFinds]]:
    """What the grid of points finds on a stable part of the images, for it takes seconds an image."""
    few = sorted(asked.records, key=lambda record: stable_hash(f"grid:{record.id}"))[: job.settings.finder.grid]
    if not few:
        return {}
    finder = {GRID: (by_grid(tuned), digest(tuned.decoder_id))}
    return measure_finds(finder, replace(asked, records=few), _journal(job, "finds-grid"), job.place)


def _good(
    job: Job, finders: dict[str, tuple[Find, str]], held: Sequence[Item], asked: Finding
) -> tuple[list[float], dict[str, float]]:
    """The specialist's scores of good images held out for alarms, and each finder's pixel threshold from them."""
    if not held:
        return [], {}
    kept = {item.record for item in held}
    records = [record for record in job.plan.blanks("val") if record.id in kept]
    found = measure_finds(finders, replace(asked, records=records), _journal(job, "finds-good"), job.place)
    good = [one.score for one in found[SPECIALIST] if not one.error]
    levels = {name: good_level(every) for name, every in found.items()}
    return good, {name: level for name, level in levels.items() if not isnan(level)}


def finding_lines(table: pd.DataFrame) -> str:
    """The main numbers of the table as plain text: a line a finder."""
    lines = [f"{'without a prompt':22}{'IoU':>6}  {'95 % interval':15}{'recall@10':>10}{'AUROC':>7}{'seconds':>9}"]
    for name in dict.fromkeys(table.model):
        own = {row["metric"]: row for row in table[table.model == name].to_dict("records")}

        def shown(metric: str, scale: float = 100, places: int = 1, own: dict[str, Any] = own) -> str:
            return f"{scale * own[metric]['mean']:.{places}f}" if metric in own else "-"

        limits = f"{100 * own['iou']['low']:.1f} to {100 * own['iou']['high']:.1f}" if "iou" in own else "-"
        lines.append(
            f"{name:22}{shown('iou'):>6}  {limits:15}{shown('recall10'):>10}{shown('image_auroc'):>7}"
            f"{shown('seconds', 1, 3):>9}"
        )
    return "\n".join(lines)


__all__ = ["GRID", "NEIGHBOURS", "Learned", "finding_lines", "learn_to_find"]
