"""What made the original wood model collapse: a factorial experiment over the causes named, and one that was not.

The study lost 36 points and blamed overfitting and Dice alone. Its code, though, trained with points in a frame of half
the size and measured with points in the right one. Here every combination is trained alike: points in the right or the
half frame, a fixed 2x2 layout or layouts drawn anew, Dice or BCE + Dice, few or many mosaics, several seeds (of
training: the mosaics of a layout and number are drawn once). Few mosaics are seen several times, many once. All are
measured on the same mosaics of one cluster ("hard"), 2x2, by the centre of each tile, textures unseen. A decoder that
is tuned on one constant embedding stands beside the fixed and the drawn layout: what can be done there without looking.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from specialsam.core.console import stage
from specialsam.core.errors import UsageError
from specialsam.core.files import write_whole
from specialsam.core.geometry import BoolArray
from specialsam.core.ledger import Journal, Lock
from specialsam.core.place import here
from specialsam.core.types import Dataset
from specialsam.data.open import open_dataset
from specialsam.evaluation.results import save_table
from specialsam.evaluation.seeds import crossed
from specialsam.evaluation.statistics import Interval, points
from specialsam.models.load import load_model
from specialsam.pipeline.embedded import Embedded
from specialsam.pipeline.plan import plan
from specialsam.prompts import Group, draw
from specialsam.report.gallery import Plate, save_plates
from specialsam.studies.cells import Bench, cell_iou
from specialsam.studies.figures import groups_figure
from specialsam.studies.recipe import load_recipe
from specialsam.synth.clusters import Clusters
from specialsam.synth.mosaic_data import cluster_dataset, write_mosaics
from specialsam.synth.mosaic_plan import MosaicRecipe
from specialsam.training.loop import per_image_iou
from specialsam.training.settings import TrainSettings
from specialsam.training.state import TrainingData

STRATEGY = "center_of_mass"
FIXED = {"grid:2x2": 1.0}
LAYOUTS = {"fixed": FIXED, "random": {"lines:4": 1.0, "voronoi:4": 1.0, "curved:4": 1.0, "grid:2x2": 1.0}}
LOSSES = {"dice": "dice", "bce+dice": "half"}
TEST, SEED = 60, 42
"""Test mosaics of one cluster, and the seed of all mosaics (the study's own)."""


def half_frame(strategy: str, masks: BoolArray, rng: np.random.Generator) -> list[Group]:
    """`prompts.draw` for masks (P, H, W) with the original wood study's fault: points in a frame of half the size.

    A fault and no strategy, so that no settings can ask for it: only training data that are given it train with it.
    """
    return [
        (indices, replace(prompts, points=None if prompts.points is None else prompts.points / np.float32(2)))
        for indices, prompts in draw(strategy, masks, rng)
    ]


FRAMES = {"right": draw, "half": half_frame}


@dataclass(frozen=True)
class Cell:
    """One combination; `frame` "blind" stands for the decoder that sees one constant embedding."""

    frame: str
    layout: str
    loss: str
    size: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.frame}-{self.layout}-{self.loss}-{self.size}-{self.seed}"


def run_factorial(
    data: str,
    folder: Path,
    model: str,
    sizes: Sequence[int] = (500, 5000),
    seeds: int = 3,
    steps: int = 2500,
    device: str = "auto",
) -> str:
    """All cells on mosaics of the textures in `data`; the result as Markdown.

    Each cell takes about `steps` steps of one image, but sees every mosaic at least once: 500 mosaics five times, as in
    the original study, and 5,000 once. Finished cells are not trained again. Writes `factorial.csv` (a line a cell and
    test mosaic), `effects.csv`, `factorial.md` and `figures/factorial.png` in `folder`. UsageError for sizes, seeds or
    steps below 1.
    """
    if not sizes or min(*sizes, seeds, steps) < 1:
        raise UsageError(f"expected sizes, seeds and steps from 1 on, got {[*sizes]}, {seeds} and {steps}")
    place = here(device)
    with Lock(folder) if place.main else nullcontext():
        bench = Bench(Journal(folder / "cells.jsonl"), load_model(model, device=place.device), place)
        table = _table(data, model, bench, sizes, seeds, steps)
        effects = effects_of(table)
        text = report_text(table, effects, model)
        if place.main:
            save_table(table, folder / "factorial.csv")
            save_table(effects, folder / "effects.csv")
            write_whole(folder / "factorial.md", lambda path: path.write_text(text + "\n"))
            save_plates([("factorial", _plate(table))], folder / "figures")
        return text


def _table(data: str, model: str, bench: Bench, sizes: Sequence[int], seeds: int, steps: int) -> pd.DataFrame:
    """A line a cell and test mosaic: the cell's fields, mosaic, iou, base, gain."""
    dataset = open_dataset(data)
    clusters = cluster_dataset(dataset, MosaicRecipe().clusters, model)

    def ground(name: str, recipe: MosaicRecipe) -> TrainingData:
        return _ground(bench, name, dataset, recipe, clusters)

    test = ground("test", MosaicRecipe(train=0, val=0, test=TEST, difficulties=("hard",), layouts=FIXED, seed=SEED))
    drawn = {"val": 0, "test": 0, "train_difficulties": ("random",), "seed": SEED}
    grounds = {
        (layout, size): ground(f"{layout}-{size}", MosaicRecipe(train=size, layouts=weights, **drawn))
        for layout, weights in LAYOUTS.items()
        for size in sizes
    }
    cells = list(_cells(sizes, seeds))
    rows: list[dict[str, object]] = []
    base = per_image_iou(bench.segmenter, test, _settings(cells[0], steps), bench.place.spread)
    with stage("factorial") as progress:
        for number, cell in enumerate(cells, 1):
            found = _measured(cell, bench, grounds[cell.layout, cell.size], test, steps)
            for item, iou, before in zip(test.val, found, base, strict=True):
                rows.append(asdict(cell) | {"mosaic": item.id, "iou": iou, "base": before, "gain": iou - before})
            progress(number, len(cells), f"{cell.name}: {100 * float(np.mean(found)):.1f}")
    return pd.DataFrame(rows)


def _cells(sizes: Sequence[int], seeds: int) -> Iterator[Cell]:
    for seed, size, loss, layout, frame in product(range(seeds), sizes, LOSSES, LAYOUTS, FRAMES):
        yield Cell(frame, layout, loss, size, seed)
    for seed, layout in product(range(seeds), LAYOUTS):
        yield Cell("blind", layout, "dice", min(sizes), seed)


def _settings(cell: Cell, steps: int) -> TrainSettings:
    """The published recipe's own training (`recipes/wood-seed.yaml`), but for the cell's loss, seed and epochs."""
    published = load_recipe("wood", "seed").specialize.train
    epochs = max(1, steps // cell.size)
    return published.model_copy(update={"epochs": epochs, "loss": LOSSES[cell.loss], "seed": cell.seed})


def _ground(bench: Bench, name: str, dataset: Dataset, recipe: MosaicRecipe, clusters: Clusters) -> TrainingData:
    """The mosaics of a recipe, written and encoded; those of the test stand in the place of validation."""
    folder, place = bench.journal.path.parent, bench.place
    mosaics = folder / f"mosaics-{name}"
    with stage(f"mosaics: {name}") as progress:
        place.first(lambda: write_mosaics(mosaics, dataset, recipe, clusters, progress))
    stated = plan(f"folder:{mosaics}", (1.0, 0.0, 0.0), 0, duplicates=False)
    layout = replace(stated, splits={id: "val" if split == "test" else split for id, split in stated.splits.items()})
    embedded = Embedded(folder / "embeddings", bench.segmenter, layout, folder / f"targets-{name}.sqlite", place)
    embedded.prepare()
    return embedded.training_data()


def _measured(cell: Cell, bench: Bench, data: TrainingData, test: TrainingData, steps: int) -> list[float]:
    """IoU of each test mosaic after tuning as the cell says."""
    shown = replace(data, val=test.val, masks=test.masks)
    data = replace(data, draw=FRAMES.get(cell.frame, draw))
    return cell_iou(bench, cell.name, data, shown, _settings(cell, steps), blinded=cell.frame == "blind")


def effects_of(table: pd.DataFrame) -> pd.DataFrame:
    """What each factor changes by itself, in IoU: all cells at one level against all at the other.

    Differences are taken mosaic by mosaic between cells that agree in everything else, averaged over cells and seeds,
    with an interval over mosaics and seeds (`evaluation.seeds.crossed`); `seed_low` and `seed_high` are the means of
    the worst and the best seed.
    """
    seeing = table[table.frame != "blind"]
    sizes = sorted(seeing["size"].unique())
    questions = [
        ("points in the half frame", "frame", "right", "half"),
        ("layouts drawn anew", "layout", "fixed", "random"),
        ("BCE beside Dice", "loss", "dice", "bce+dice"),
    ]
    if len(sizes) > 1:
        questions.append((f"{sizes[-1]} mosaics instead of {sizes[0]}", "size", sizes[0], sizes[-1]))
    lines = []
    for says, factor, low, high in questions:
        means = seeing.groupby([factor, "seed", "mosaic"])["iou"].mean()
        gains = (means[high] - means[low]).unstack("mosaic").to_numpy(float)
        interval, by_seed = crossed(gains), gains.mean(1)
        lines.append(
            {"change": says, "factor": factor, "effect": interval.mean, "low": interval.low, "high": interval.high}
            | {"seed_low": float(by_seed.min()), "seed_high": float(by_seed.max()), "n": interval.n}
        )
    return pd.DataFrame(lines)


def report_text(table: pd.DataFrame, effects: pd.DataFrame, model: str) -> str:
    """The experiment in Markdown: two sentences, the effects, every combination, and the blind decoder."""
    seeing, blinded = table[table.frame != "blind"], table[table.frame == "blind"]
    lines_of = effects.to_dict("records")
    base = float(table["base"].mean())
    wrong, right = (_gain(seeing[seeing.frame == frame]) for frame in ("half", "right"))
    lines = [
        f"Tuned with points in the half frame, {model} changes by {points(wrong)} IoU points on mosaics of one "
        f"cluster (base {100 * base:.1f}); tuned alike with points in the right frame it changes by {points(right)}.",
        "By itself, with all else alike, each factor changes IoU by this many points: "
        + ", ".join(f"{row['change']} {points(_interval(row))}" for row in lines_of)
        + ".",
        "",
        "| change | effect, IoU points | between seeds | mosaics |",
        "|---|---|---|---|",
    ]
    for row in lines_of:
        spread = f"{100 * row['seed_low']:+.1f} to {100 * row['seed_high']:+.1f}"
        lines.append(f"| {row['change']} | {points(_interval(row))} | {spread} | {row['n']} |")
    lines += ["", "| points | layout | loss | mosaics | IoU | change against the base |", "|---|---|---|---|---|---|"]
    for part in (seeing, blinded):
        for names, group in part.groupby(["frame", "layout", "loss", "size"], sort=False):
            shown = " | ".join(str(name) for name in names)
            lines.append(f"| {shown} | {100 * group['iou'].mean():.1f} | {points(_gain(group))} |")
    lines += ["", "Intervals are over mosaics and seeds; mosaics share test textures, and for new ones they are wider."]
    return "\n".join(lines)


def _gain(table: pd.DataFrame) -> Interval:
    return crossed(table.groupby(["seed", "mosaic"])["gain"].mean().unstack("mosaic").to_numpy(float))


def _interval(row: Mapping[Hashable, float]) -> Interval:
    return Interval(row["effect"], row["low"], row["high"], int(row["n"]))


def _plate(table: pd.DataFrame) -> Plate:
    """Every combination as a dot with its interval, the blind decoder last."""
    rows = []
    for names, group in table.groupby(["frame", "layout", "loss", "size"], sort=False):
        gain = _gain(group)
        frame, layout, loss, size = (str(name) for name in names)
        said = "blind decoder" if frame == "blind" else f"{frame} frame"
        rows.append(
            {"category": f"{said}, {layout} layout, {loss}, {size}", "gain": gain.mean, "low": gain.low}
            | {"high": gain.high, "n": gain.n, "blind": frame == "blind"}
        )
    rows.sort(key=lambda row: (row["blind"], row["category"]))
    caption = "Change against the base on mosaics of one cluster, with the 95 % interval over mosaics and seeds."
    return Plate(caption, caption, groups_figure(rows))
