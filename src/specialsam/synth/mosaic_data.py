"""Data sets of texture mosaics on disk: textures are split first, so that none is in two splits, then mosaics drawn.

The folder is a plain folder data set (`images/`, `masks/` with label maps) whose category is the difficulty, and
`mosaics.json` says of each mosaic what it is made of.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from specialsam.core.console import Progress
from specialsam.core.errors import UsageError
from specialsam.core.geometry import ImageArray
from specialsam.core.ledger import settle
from specialsam.core.randomness import generator
from specialsam.core.types import Dataset, Split
from specialsam.data.duplicates import duplicate_groups, near_duplicates
from specialsam.data.images import write_png
from specialsam.data.loading import load_image_only
from specialsam.data.splits import split_records
from specialsam.synth.cells import Layout
from specialsam.synth.clusters import Clusters, cluster_sheet, cluster_textures, texture_features
from specialsam.synth.mosaic_plan import (
    DIFFICULTIES,
    SPLITS,
    MosaicRecipe,
    PlannedMosaic,
    plan_mosaics,
)
from specialsam.synth.mosaics import Mosaic, contact_sheet, fit, mosaic

PLAN = "mosaics.json"
LEAST_GRAIN = 1.0
"""CIELAB lightness (0..100) by which a texture varies at least, beside its own blur, to count as grain."""
_GRAIN_SIGMA = 8.0


@dataclass(frozen=True)
class WrittenMosaics:
    """What `write_mosaics` did: mosaics per split and difficulty, textures per split, `drawn` now (the rest was there).

    `notes` counts the mosaics that are not what their difficulty says, and the textures that were left out; `made_of`
    names the texture of each object of a mosaic, by the mosaic's id.
    """

    folder: Path
    mosaics: Mapping[Split, Mapping[str, int]]
    textures: Mapping[Split, int]
    notes: Mapping[str, int]
    drawn: int
    made_of: Mapping[str, tuple[str, ...]]


def draw_mosaic(planned: PlannedMosaic, recipe: MosaicRecipe, textures: Sequence[ImageArray]) -> Mosaic:
    """The picture of a planned mosaic from its textures (in the order of its cells): the same on every call."""
    difficulty = DIFFICULTIES[planned.difficulty]
    return mosaic(
        textures,
        Layout.parse(planned.layout),
        generator(planned.seed, "draw"),
        recipe.side,
        rotate=recipe.rotate,
        colour_match=difficulty.colour_match or recipe.colour_match,
        grain_only=difficulty.grain_only,
        tile=recipe.tile,
    )


def write_mosaics(
    folder: Path, dataset: Dataset, recipe: MosaicRecipe, clusters: Clusters, progress: Progress | None = None
) -> WrittenMosaics:
    """Write the recipe's mosaics as `images/SPLIT/DIFFICULTY/NAME.png`, `masks/...` (cell + 1) and `mosaics.json`.

    `clusters` are those of the data set's textures. `mosaics.json` comes first, so that a run that was stopped goes on
    where it was: mosaics that are there stay as they are. Raises UsageError where the folder holds something else:
    another recipe, other textures, or images that no plan speaks of.
    """
    records = {record.id: record for record in dataset.records}
    if set(clusters.ids) != set(records) or clusters.count != recipe.clusters:
        raise UsageError(
            f"expected {recipe.clusters} clusters of the {len(records)} textures of {dataset.name}, "
            f"got {clusters.count} of {len(clusters.ids)}; cluster the textures of this data set anew"
        )
    groups = duplicate_groups(near_duplicates(dataset.records)) if recipe.duplicates else {}
    splits = split_records(dataset.records, recipe.fractions(), recipe.seed, groups=groups)
    plain = {id for id, record in records.items() if grain(load_image_only(record)) < LEAST_GRAIN}
    plan = plan_mosaics(splits, recipe, clusters, groups, plain)
    document = _document(dataset, recipe, clusters, splits, plain, plan)
    settle(folder / PLAN, document, "mosaics", ("recipe", "textures", "mosaics"))

    @cache
    def texture(id: str) -> ImageArray:
        return fit(load_image_only(records[id]), recipe.tile)

    drawn = 0
    for number, planned in enumerate(plan):
        if progress:
            progress(number, len(plan), planned.id)
        image, mask = folder / "images" / f"{planned.id}.png", folder / "masks" / f"{planned.id}.png"
        if image.exists() and mask.exists():
            continue
        made = draw_mosaic(planned, recipe, [texture(id) for id in planned.textures])
        write_png(mask, made.labels + np.uint8(1))
        write_png(image, made.image)
        drawn += 1
    if progress:
        progress(len(plan), len(plan), "")
    return _summary(folder, recipe, splits, plain, plan, drawn)


def grain(image: ImageArray) -> float:
    """How much lightness (0..100) varies at a scale of a few pixels: the spread of what a blur of 8 px takes away."""
    light = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[..., 0].astype(np.float32) * np.float32(100 / 255)
    return float((light - cv2.GaussianBlur(light, (0, 0), _GRAIN_SIGMA)).std())


def _document(
    dataset: Dataset,
    recipe: MosaicRecipe,
    clusters: Clusters,
    splits: Mapping[str, Split],
    plain: set[str],
    plan: Sequence[PlannedMosaic],
) -> dict[str, object]:
    """What `mosaics.json` holds."""
    place = dict(zip(clusters.ids, clusters.labels.tolist(), strict=True))
    textures = {
        record.id: {
            "split": splits[record.id],
            "cluster": place[record.id],
            "category": record.category,
            "grain": record.id not in plain,
            "sha256": hashlib.sha256(record.image.read_bytes()).hexdigest(),
        }
        for record in sorted(dataset.records, key=lambda record: record.id)
    }
    return {
        "recipe": recipe.model_dump(mode="json"),
        "source": {"name": dataset.name, "licence": dataset.licence, "citation": dataset.citation},
        "problems": [problem.message for problem in dataset.problems],
        "features": clusters.source,
        "clusters": [asdict(row) for row in clusters.rows()],
        "textures": textures,
        "mosaics": [asdict(planned) for planned in plan],
    }


def _summary(
    folder: Path,
    recipe: MosaicRecipe,
    splits: Mapping[str, Split],
    plain: set[str],
    plan: Sequence[PlannedMosaic],
    drawn: int,
) -> WrittenMosaics:
    mosaics = {
        split: dict(Counter(planned.difficulty for planned in plan if planned.split == split))
        for split in SPLITS
        if recipe.count(split)
    }
    notes = Counter(f"{planned.difficulty} mosaics {note}" for planned in plan for note in planned.notes)
    if plain:
        notes["textures without grain, left out where colours are matched or grain alone tells"] = len(plain)
    made_of = {one.id: one.textures * (Layout.parse(one.layout).cells // len(one.textures)) for one in plan}
    return WrittenMosaics(folder, mosaics, dict(Counter(splits.values())), dict(notes), drawn, made_of)


def cluster_dataset(
    dataset: Dataset, k: int = 5, model: str | Path = "nano", progress: Progress | None = None
) -> Clusters:
    """Clusters of a data set's textures by ResNet-18 where it is in the local cache, else by the named model."""
    from specialsam.models.load import load_model

    features, source = texture_features(dataset.records, load_model(model), progress)
    return cluster_textures(dataset.records, features, source, k)


def run_synth_mosaic(
    source: Path,
    out: Path,
    count: int | None = None,
    recipe: MosaicRecipe | None = None,
    model: str | Path = "nano",
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Mosaics of the textures in `source`: a contact sheet if `out` ends in .png, else a data set; lines for the user.

    `count` mosaics in all: on the sheet 20 where left out, of a data set as the recipe says, and where given 70, 10 and
    20 per cent for train, val and test. The sheet is drawn from all textures by the difficulties of the test, row by
    row. Beside a data set's `mosaics.json` lies `clusters.png`.
    """
    from specialsam.data.open import open_dataset

    recipe = recipe or MosaicRecipe()
    dataset = open_dataset(source)
    clusters = cluster_dataset(dataset, recipe.clusters, model, progress)
    if out.suffix.lower() == ".png":
        sheet = difficulty_sheet(dataset, recipe, clusters, 20 if count is None else count)
        write_png(out, sheet)
        return (f"wrote {out}",)
    if count is not None:
        val, test = round(0.1 * count), round(0.2 * count)
        recipe = recipe.model_copy(update={"train": count - val - test, "val": val, "test": test})
    written = write_mosaics(out, dataset, recipe, clusters, progress)
    write_png(out / "clusters.png", cluster_sheet(dataset.records, clusters))
    total = sum(sum(part.values()) for part in written.mosaics.values())
    lines = [f"wrote {total} mosaics of {len(dataset)} textures to {out} ({total - written.drawn} were there)"]
    lines += [
        f"{split}: {sum(part.values())} mosaics of {written.textures[split]} textures"
        for split, part in written.mosaics.items()
    ]
    return (*lines, *(f"{number} {what}" for what, number in written.notes.items()))


def difficulty_sheet(dataset: Dataset, recipe: MosaicRecipe, clusters: Clusters, count: int = 20) -> ImageArray:
    """A contact sheet of `count` mosaics (at least one a difficulty) of all textures, uint8 RGB, a row a difficulty."""
    records = {record.id: record for record in dataset.records}
    names = recipe.difficulties
    each = -(-count // len(names))
    wanted = recipe.model_copy(update={"train": 0, "val": 0, "test": each * len(names)})
    plain = {id for id, record in records.items() if grain(load_image_only(record)) < LEAST_GRAIN}
    splits: dict[str, Split] = dict.fromkeys(records, "test")
    plan = sorted(plan_mosaics(splits, wanted, clusters, {}, plain), key=lambda one: names.index(one.difficulty))
    drawn = [draw_mosaic(one, recipe, [load_image_only(records[id]) for id in one.textures]) for one in plan]
    return contact_sheet(drawn, columns=each)
