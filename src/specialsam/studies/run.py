"""A study from raw data to its page: prepare a data folder, run the main job on it, hold it against what was published.

The folder holds `study.json` (recipe, data, model, and once finished the numbers that `compare` reads), `data/` (the
prepared images with stated splits), `run/` (the main job's run, with its own report), `figures/`, `published.md` and
`study.html`. The same command goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from specialsam import __version__
from specialsam.core.console import stage
from specialsam.core.errors import DataError, SpecialSamError
from specialsam.core.files import write_whole
from specialsam.core.ledger import Facts, open_ledger, read_facts
from specialsam.core.place import here
from specialsam.core.types import Record, Sample
from specialsam.data.folder import CARD
from specialsam.data.images import read_image
from specialsam.data.loading import load, load_masks
from specialsam.data.open import open_dataset
from specialsam.data.splits import stable_hash
from specialsam.data.views import views_for
from specialsam.evaluation.evaluate import Embed
from specialsam.evaluation.results import Results
from specialsam.metrics.overlaps import overlap
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import load_specialist
from specialsam.pipeline.embedded import embeddings_of
from specialsam.pipeline.evidence import BASE, SPECIALIST
from specialsam.pipeline.job import Request
from specialsam.pipeline.pictures import choose, object_pairs
from specialsam.pipeline.specialize import Outcome, run_specialize
from specialsam.prompts import draw, generator
from specialsam.report.numbers import score, strategy_name, words
from specialsam.studies.camouflage.prepare import false_alarms, prepare_camouflage
from specialsam.studies.carpet.prepare import prepare_carpet
from specialsam.studies.figures import Tile, pixels_of, sheet_figure
from specialsam.studies.measured import StudyFacts, complaints, doubts, headline, read_rows, texture_notes
from specialsam.studies.page import Finished, write_study
from specialsam.studies.published import published
from specialsam.studies.recipe import AnyRecipe, Prepared, Sheet
from specialsam.studies.wood.prepare import prepare_wood
from specialsam.training.losses import resolve_mix

FILE = "study.json"
PREPARE: Mapping[str, Callable[..., Prepared]] = {
    "wood": prepare_wood,
    "carpet": prepare_carpet,
    "camouflage": prepare_camouflage,
}
SHOWN = 4
"""Test images on the sheet of answers."""


def run_study(
    data: str, recipe: AnyRecipe, model: str, folder: Path, base: str | None = None, device: str = "auto"
) -> Finished | None:
    """Run (or go on with) a study on the raw data in `data`; UsageError where `folder` holds another one.

    None in every process but the main one.
    """
    identity = {"data": data, "model": model, "base": base, "recipe": recipe.model_dump(mode="json")}
    place = here(device)
    with open_ledger(folder, identity, FILE, "study", first=place.first, main=place.main) as ledger:
        ledger.save(version=__version__)
        prepared = place.first(lambda: _prepared(data, recipe, model, base, folder))
        request = Request(prepared.source, model, folder / "run", base, title=recipe.title, device=device)
        outcome = run_specialize(request, recipe.specialize)
        if outcome is None:  # not the main process
            return None
        found = _finished(folder, data, recipe, model, base, prepared, outcome)
        ledger.save(finished=found.facts.plain())
        return found


def _prepared(data: str, recipe: AnyRecipe, model: str, base: str | None, folder: Path) -> Prepared:
    """The study's own data set, written into `folder/data` with its card."""
    prepared = PREPARE[recipe.study](data, recipe, model, base, folder / "data")
    card = json.dumps({"name": prepared.name, "licence": prepared.licence, "citation": prepared.citation}, indent=1)
    write_whole(folder / "data" / CARD, lambda path: path.write_text(card + "\n", encoding="utf-8"))
    return prepared


def _finished(
    folder: Path, data: str, recipe: AnyRecipe, model: str, base: str | None, prepared: Prepared, outcome: Outcome
) -> Finished:
    """All that the page of a study shows, and the page."""
    rows = read_rows(outcome.folder)
    before = load_model(model, base)
    models = {BASE: before, SPECIALIST: load_specialist(outcome.folder / "specialist", before)}
    measured = set(rows.frame["record"])  # the test split without the images that hold nothing
    records = [record for record in open_dataset(prepared.source).records if record.id in measured]
    with embeddings_of(outcome.folder / "embeddings", recipe.specialize.precision) as embed:
        answers = (_samples(prepared), _answers(models, records, embed, recipe), *_sides(rows, outcome.folder, recipe))
    with stage("clicking where nothing is hidden") as progress:
        alarms = tuple(false_alarms(models, prepared.negatives, progress)) if prepared.negatives else ()
    facts = _facts(recipe, prepared, outcome, rows, before)
    found = Finished(folder, data, model, recipe, prepared, outcome, rows, facts, answers, alarms)
    write_study(found)
    return found


def read_study(folder: Path) -> Facts:
    """What `study.json` of a folder holds; UsageError where there is none, DataError for a damaged one."""
    stored = read_facts(folder, FILE, "study")
    try:
        study = {**stored["identity"], **stored}
        study["recipe"]["study"]
    except (TypeError, KeyError) as error:
        raise DataError(
            f"expected a readable {folder / FILE}, got a damaged one; run the study anew elsewhere"
        ) from error
    return study


def _facts(recipe: AnyRecipe, prepared: Prepared, outcome: Outcome, rows: Results, before: Segmenter) -> StudyFacts:
    """The numbers of a finished study that pages and comparisons read."""
    told = published(recipe.study)
    what, main = headline(told, rows, recipe.strategies)
    history = [epoch for epoch in outcome.result.history if epoch.epoch > 0]
    settings = recipe.specialize
    train = [record for record in open_dataset(prepared.source).records if record.split == "train"]
    objects = {record.id: len(load_masks(record)) for record in train}
    train = [record for record in train if objects[record.id]]
    views = sum(1 + len(views_for(record.id, settings.views, settings.seed)) for record in train)
    notes, unsure = texture_notes(rows, prepared.textures, recipe.strategies, told.headline)
    return StudyFacts(
        what=what,
        scores=main,
        doubts=doubts(told, rows, recipe.strategies, main) + unsure + complaints(outcome.findings),
        losses=[epoch.train_loss for epoch in history],
        val_iou=[_finite(epoch.val_iou) for epoch in outcome.result.history],
        best_epoch=outcome.result.best_epoch,
        stop=outcome.result.stop,
        warnings=[text for epoch in history for text in epoch.warnings],
        train={"images": len(train), "objects": sum(objects.values()), "views": views},
        loss=resolve_mix(settings.train.loss),
        lr=settings.train.lr,
        parameters=sum(parameter.numel() for parameter in before.sam.parameters()),
        model=before.name,
        test=prepared.facts[0][1],
        facts=[list(fact) for fact in prepared.facts],
        notes=[*notes, *prepared.notes],
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _chosen(records: Sequence[Record], count: int) -> list[Record]:
    """`count` records in turn from each category, within it by stable hash."""
    order = sorted(records, key=lambda record: stable_hash(f"shown:{record.id}"))
    turns: dict[str, int] = {}
    ranked = []
    for record in order:
        turns[record.category] = turns.get(record.category, -1) + 1
        ranked.append((turns[record.category], record.category, record))
    return [record for _, _, record in sorted(ranked, key=lambda line: line[:2])][:count]


def _samples(prepared: Prepared) -> Sheet:
    """Training and test images with the outlines of their objects."""
    tiles = []
    records = open_dataset(prepared.source).records
    for split in ("train", "test"):
        for record in _chosen([one for one in records if one.split == split], SHOWN):
            with suppress(SpecialSamError):  # an unreadable image is reported by the run itself
                sample = load(record)
                tiles.append(Tile(sample.image, f"{split}: {_title(record)}", outlines=sample.masks))
    return Sheet("samples", pixels_of(sheet_figure(tiles, SHOWN)), "Images of the data set with their true outlines.")


def _title(record: Record) -> str:
    name = words(record.category.rpartition("/")[2]) if record.category else record.id.rpartition("/")[2]
    return name if len(name) < 30 else name[:28] + "…"


def _answers(models: Mapping[str, Segmenter], records: Sequence[Record], embed: Embed, recipe: AnyRecipe) -> Sheet:
    """What base (above) and specialist (below) answer to the study's first prompt, with the IoU of each object."""
    strategy, seed = recipe.strategies[0], recipe.specialize.evaluate.seed
    samples = []
    for record in _chosen(records, SHOWN):
        with suppress(SpecialSamError):  # an unreadable image is a failed row of the run
            samples.append(load(record))
    tiles = [
        _answer(model, name, sample, embed, strategy, seed) for name, model in models.items() for sample in samples
    ]
    caption = (
        f"Above the base without any tuning, below the specialist, on the same images and prompts "
        f"({words(strategy)}): masks in colour, true borders white, IoU at each prompt, its mean in the title."
    )
    return Sheet("answers", pixels_of(sheet_figure(tiles, max(1, len(samples)))), caption)


def _sides(rows: Results, run: Path, recipe: AnyRecipe) -> tuple[Sheet, ...]:
    """The first side-by-side picture of each kind that the run chose by rule: best, median and worst gain, failure."""
    strategy = recipe.specialize.main_strategy
    table = object_pairs(rows, BASE, SPECIALIST, strategy)
    chosen, files = choose(table), sorted((run / "figures").glob("side-by-side-*.png"))
    if len(chosen) != len(files):
        raise DataError(f"expected {len(chosen)} side-by-side pictures in {run / 'figures'}, got {len(files)}")
    sheets: dict[str, Sheet] = {}
    for (kind, row), path in zip(chosen, files, strict=True):
        line = table.iloc[row]
        said = f"{kind[0].upper()}{kind[1:]} ({strategy_name(strategy)}): {line['record']}, {score(line['base'])} to "
        sheets.setdefault(
            kind, Sheet(f"side-{words(kind).replace(' ', '-')}", read_image(path), f"{said}{score(line['tuned'])}.")
        )
    return tuple(sheets.values())


def _answer(model: Segmenter, name: str, sample: Sample, embed: Embed, strategy: str, seed: int) -> Tile:
    kept = sample.masks[[bool(mask.any()) for mask in sample.masks]]
    masks = np.zeros_like(kept)
    points = np.zeros((len(kept), 2), np.float32)
    for indices, prompts in draw(strategy, kept, generator(seed, "evaluation", sample.id, strategy)):
        masks[indices] = model.decode(embed(sample, model), prompts).masks()[:, 0]
        if prompts.points is not None:
            points[indices] = prompts.points[:, 0]
        elif prompts.boxes is not None:
            points[indices] = prompts.boxes.reshape(-1, 2, 2).mean(1)
    ious = [overlap(found, truth)["iou"] for found, truth in zip(masks, kept, strict=True)]
    texts = tuple(f"{100 * iou:.0f}" for iou in ious)
    title = f"{name}, {_title(sample.record)}: {100 * float(np.mean(ious)):.1f}"
    return Tile(sample.image, title, masks, texts, points, kept)
