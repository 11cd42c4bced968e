"""Carpet: synthetic defects on clean images for training and validation, every real defect by type for the test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from specialsam.core.console import say, stage
from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Record
from specialsam.data.loading import load_image_only
from specialsam.data.open import open_dataset
from specialsam.data.splits import stable_hash
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.studies.carpet.meter import doubts, facts, measure
from specialsam.studies.carpet.realism_page import meter_sheet
from specialsam.studies.recipe import CarpetRecipe, Prepared, Sheet
from specialsam.synth.defect_data import DefectRecipe, good_records, link_good, link_real, write_defects
from specialsam.synth.defects import COMPOSITE, gallery

METERED = 24
"""Synthetic pictures of each kind that the sim-to-real meter compares with the real ones."""
SHOWN = 12
"""Clean images that the sheet of defects draws from."""


def prepare_carpet(data: str, recipe: CarpetRecipe, model: str, base: str | None, folder: Path) -> Prepared:
    """Write synthetic defects and copy the real ones into `folder`; `model` says how far apart they look to it.

    `data` is a category of MVTec AD, or any data set that holds images without a defect beside masks of real ones.
    DataError where either is missing. A folder that holds the same pictures already is gone on with.
    """
    dataset = open_dataset(data)
    goods = good_records(dataset)
    if not goods:
        raise DataError(f"{data}: expected images without defects to make synthetic ones on, got none")
    real = link_real(folder, dataset)
    with stage("making defects") as progress:
        made = write_defects(folder, goods, recipe.data, progress)
    clean = link_good(folder, dataset, goods, recipe.data)
    sizes = f"{recipe.data.train} train, {recipe.data.val} val, {sum(real.values())} test"
    say(f"{dataset.name}: {len(goods)} clean images; {sizes}")
    told, drawn, remarks = _meter(dataset, recipe.data, load_model(model, base), folder.parent / "realism")
    return Prepared(
        source=f"folder:{folder}",
        name=f"{dataset.name}, synthetic defects",
        licence=dataset.licence,
        citation=dataset.citation,
        facts=(
            ("clean images", f"{len(goods)}, and {clean['test']} for the test without prompts"),
            ("synthetic defects", f"{recipe.data.train} for training, {recipe.data.val} for validation: {_said(made)}"),
            ("real defects (test)", f"{sum(real.values())}: {_said(real)}"),
            *told,
        ),
        notes=(
            *(*dataset.notes, *remarks),
            *(problem.message for problem in dataset.problems),
        ),
        sheets=(_sheet(goods, recipe.data), *drawn),
        differences=(
            ("Data", "MVTec AD carpet, 280 clean images of 1024 px", f"{dataset.name}, {len(goods)} clean images"),
            ("Real defects", "89", f"{sum(real.values())}: {_said(real)}"),
        ),
    )


def _meter(
    dataset: Dataset, recipe: DefectRecipe, segmenter: Segmenter, folder: Path
) -> tuple[tuple[tuple[str, str], ...], tuple[Sheet, ...], tuple[str, ...]]:
    """Facts, figure and doubts of the sim-to-real meter, on pictures of its own in `folder`; a note alone where there
    are too few real defects for it.
    """
    kinds = [kind for kind, weight in recipe.kinds.items() if weight > 0 and kind != COMPOSITE]
    try:
        found = measure(dataset, segmenter, folder, kinds, METERED, recipe.seed)
        return facts(found), (meter_sheet(found),), tuple(doubts(found))
    except DataError as error:
        return (), (), (f"no sim-to-real meter: {error}",)


def _said(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in Counter(counts).most_common())


def _sheet(goods: list[Record], recipe: DefectRecipe) -> Sheet:
    """Each kind of synthetic defect three times: the clean image, the defect, and the outline of its mask."""
    chosen = sorted(goods, key=lambda record: stable_hash(f"sheet:{record.id}"))[:SHOWN]
    kinds = [kind for kind, weight in recipe.kinds.items() if weight > 0]
    picture = gallery([load_image_only(record) for record in chosen], kinds, recipe.seed, columns=2)
    return Sheet("defects", picture, "Synthetic defects, a row a kind, two each: clean, with the defect, its outline.")
