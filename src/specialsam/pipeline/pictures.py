"""Side-by-side comparisons, chosen by rule and not by hand: best, median and worst gains, and failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from specialsam.core.types import Record, Sample
from specialsam.evaluation.evaluate import Embed
from specialsam.evaluation.results import Results
from specialsam.metrics.overlaps import overlap
from specialsam.models.segmenter import Segmenter
from specialsam.prompts import draw, generator
from specialsam.report.facts import Comparison, Kind

EACH = 3
"""Comparisons of each kind."""


@dataclass(frozen=True)
class Shown:
    """What pictures are made of: records by id, how to load one and get its embedding, and base and tuned model."""

    records: Mapping[str, Record]
    load: Callable[[Record], Sample]
    embed: Embed
    models: tuple[Segmenter, Segmenter]


def object_pairs(results: Results, base: str, tuned: str, strategy: str, metric: str = "iou") -> pd.DataFrame:
    """One line an object, by rising gain: record, object, category, base, tuned, gain; without failed images."""
    chosen = results.only(model=(base, tuned), strategy=strategy, output="single", metric=metric, error="").frame
    index = ["record", "object", "category"]
    table = chosen.pivot_table(index=index, columns="model", values="value")
    table = table.dropna().reset_index().rename(columns={base: "base", tuned: "tuned"})
    table["gain"] = table["tuned"] - table["base"]
    return table.sort_values(["gain", "record", "object"], ignore_index=True)


def choose(table: pd.DataFrame, each: int = EACH) -> list[tuple[Kind, int]]:
    """(kind, row of the `object_pairs` table): the highest gains, the median ones, the lowest, the worst results."""
    count = len(table)
    middle = max(0, count // 2 - each // 2)
    order: list[tuple[Kind, list[int]]] = [
        ("best gain", list(range(count - 1, max(-1, count - 1 - each), -1))),
        ("median gain", list(range(middle, min(count, middle + each)))),
        ("worst gain", list(range(min(count, each)))),
        ("failure", [int(i) for i in np.argsort(table["tuned"].to_numpy(), kind="stable")[:each]]),
    ]
    taken: set[int] = set()
    out: list[tuple[Kind, int]] = []
    for kind, rows in order:
        out += [(kind, row) for row in rows if row not in taken]
        taken.update(rows)
    return out


def comparisons(table: pd.DataFrame, shown: Shown, strategy: str, seed: int) -> tuple[Comparison, ...]:
    """Predict the chosen objects once more, with the evaluation's own prompts, and put the masks side by side."""
    out = []
    for kind, row in choose(table):
        line = table.iloc[row]
        sample = shown.load(shown.records[str(line["record"])])
        kept = [index for index, mask in enumerate(sample.masks) if mask.any()]
        rng = generator(seed, "evaluation", sample.id, strategy)
        for indices, prompts in draw(strategy, sample.masks[kept], rng):
            objects = [kept[index] for index in indices]
            if int(line["object"]) not in objects:
                continue
            place = objects.index(int(line["object"]))
            truth = sample.masks[int(line["object"])]
            one = prompts[[place]]
            masks = [model.decode(shown.embed(sample, model), one).masks()[0, 0] for model in shown.models]
            ious = [overlap(mask, truth)["iou"] for mask in masks]
            out.append(
                Comparison(
                    record=sample.id,
                    kind=kind,
                    strategy=strategy,
                    image=sample.image,
                    truth=truth,
                    base=masks[0],
                    tuned=masks[1],
                    base_iou=ious[0],
                    tuned_iou=ious[1],
                    gain=ious[1] - ious[0],
                    category=str(line["category"]),
                    points=None if one.points is None else one.points[0],
                    labels=None if one.labels is None else one.labels[0],
                    box=None if one.boxes is None else one.boxes[0],
                )
            )
    return tuple(out)
