"""Data sets of synthetic defects on disk: made on clean pictures for training, real ones beside them for the test.

The folder is a plain folder data set (`images/{train,val,test}/KIND/NAME.png`, `masks/...` with 0 and 255), so that
everything else takes it like a user's own; `defects.json` says of each picture what it was made of (`source`; where
nothing could be seen on that, `instead` names another by the defect's place), and once all are there which share of it
the defect covers.
"""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator

from specialsam.core.console import Progress
from specialsam.core.errors import DataError, UsageError
from specialsam.core.files import write_whole
from specialsam.core.geometry import BoolArray, ImageArray
from specialsam.core.ledger import settle
from specialsam.core.randomness import generator
from specialsam.core.settings import Settings, parse_settings
from specialsam.core.types import Dataset, Record, Sample
from specialsam.data.headers import image_size
from specialsam.data.images import read_mask_pixels, write_png
from specialsam.data.loading import load_image_only, load_masks
from specialsam.data.open import open_dataset
from specialsam.data.splits import stable_hash
from specialsam.data.views import ViewRecipe, apply, views_for
from specialsam.synth.defects import COMPOSITE, KINDS, PUBLISHED, REALISTIC, Defect, Unseen, gallery, make

PLAN = "defects.json"
STAND_INS = 20
"""Clean pictures that are tried in the place of one on which a kind cannot be seen."""
SHOWN = 24
"""Clean pictures that a gallery draws from."""


class DefectRecipe(Settings):
    """How many synthetic defects of which kinds are made on clean pictures, and how."""

    train: int = Field(500, description="training pictures with one defect each (or composite)", ge=1)
    val: int = Field(0, description="validation pictures, on clean pictures that training does not use", ge=0)
    kinds: dict[str, float] = Field(
        default_factory=lambda: dict.fromkeys(PUBLISHED, 1.0),
        description=f"kinds and their weights, of {', '.join(KINDS)}",
    )
    absolute_pixels: bool = Field(
        False, description="keep the published generators' pixels; otherwise they are scaled from 1024 px pictures"
    )
    augment: bool = Field(
        False,
        description="turn (any angle), scale (0.8-1.2), recolour and warp the clean picture before a defect is made",
    )
    val_share: float = Field(0.2, description="share of the clean pictures kept for validation", gt=0, lt=1)
    seed: int = Field(0, description="of every random choice")

    @field_validator("kinds")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(value) - set(KINDS))
        if unknown:
            raise ValueError(f"expected kinds of {', '.join(KINDS)}, got {', '.join(unknown)}")
        if not value or min(value.values()) < 0 or sum(value.values()) <= 0:
            raise ValueError(f"expected weights of at least 0 with a positive sum, got {value}")
        return value


GOOD = "good"
"""Folder of pictures that hold nothing, as MVTec AD calls it."""
AUGMENTED = ViewRecipe.model_validate("carpet").model_copy(update={"count": 1})
"""The study's own list of augmentations, as `data.views` has it."""


def write_defects(
    folder: Path, goods: Sequence[Record], recipe: DefectRecipe, progress: Progress | None = None
) -> dict[str, int]:
    """Write `recipe.train` and `recipe.val` pictures with defects; pictures of each kind. A killed call goes on.

    Clean pictures are split by a stable hash before anything is made, those of one `Record.group` together, so that
    nothing of a validation picture was trained on. Where a kind cannot be seen on its clean picture (a black one), it
    is made on another of the split. Raises DataError where there are too few clean pictures, or none on which a kind
    can be seen, UsageError where the folder holds another recipe.
    """
    sources = _sources(goods, recipe)
    plan = [
        {"split": split, "number": number, "kind": kind, "source": record.id}
        for split, count in (("train", recipe.train), ("val", recipe.val))
        for number, (kind, record) in enumerate(_drawn(split, count, sources[split], recipe))
    ]
    document = {"recipe": recipe.model_dump(mode="json"), "pictures": plan}
    told = settle(folder / PLAN, document, "defects", ("recipe", "pictures")).get("instead")
    instead: dict[str, str] = dict(told) if isinstance(told, dict) else {}
    areas: list[float] = []
    for done, line in enumerate(plan, 1):
        name = Path(str(line["split"])) / str(line["kind"]) / f"{line['number']:05d}.png"
        if not (folder / "images" / name).exists() or not (folder / "masks" / name).exists():
            found, source = _made(line, sources[str(line["split"])], recipe)
            if source != line["source"]:
                instead[place_of(line)] = source
                _write_plan(folder, {**document, "instead": instead})
            write_png(folder / "masks" / name, found.mask)
            write_png(folder / "images" / name, found.image)
        if progress:
            progress(done, len(plan), str(line["kind"]))
        areas.append(_area(folder / "masks" / name))
    _write_plan(folder, {**document, **({"instead": instead} if instead else {}), "areas": areas})
    counts: dict[str, int] = {}
    for line in plan:
        counts[str(line["kind"])] = counts.get(str(line["kind"]), 0) + 1
    return counts


def place_of(line: Mapping[str, object]) -> str:
    """The name of a planned picture in `instead`."""
    return f"{line['split']}/{line['number']}"


def _write_plan(folder: Path, document: Mapping[str, object]) -> None:
    text = json.dumps(document, indent=1) + "\n"
    write_whole(folder / PLAN, lambda place: place.write_text(text))


def _made(line: Mapping[str, object], goods: Sequence[Record], recipe: DefectRecipe) -> tuple[Defect, str]:
    """A planned defect and the clean picture it is on: the planned one, or the first other on which it can be seen."""
    for record in _in_turn(goods, str(line["source"]), f"instead:{recipe.seed}:{place_of(line)}"):
        rng = generator(recipe.seed, "defect", str(line["split"]), int(str(line["number"])))
        clean = _clean(record, recipe, rng)
        try:
            return make(str(line["kind"]), clean, rng, recipe.absolute_pixels), record.id
        except Unseen as error:
            unseen = error
    others = min(len(goods) - 1, STAND_INS)
    raise DataError(f"{line['source']} and {others} others: {unseen}") from unseen


def _in_turn(goods: Sequence[Record], first: str, seed: str) -> Iterator[Record]:
    """The record of the id `first`, then STAND_INS others in the order of a stable hash."""
    yield next(record for record in goods if record.id == first)
    others = (record for record in goods if record.id != first)
    yield from sorted(others, key=lambda record: stable_hash(f"{seed}:{record.id}"))[:STAND_INS]


def link_real(folder: Path, dataset: Dataset) -> dict[str, int]:
    """Copy the real defects of a data set into `images/test/CATEGORY/` and their masks beside; images of each category.

    A mask of several objects, or run-length encoded, becomes one binary file of their union. Raises DataError where no
    record has an object or two would have one name, UsageError where the folder holds other real defects already.
    """
    counts: dict[str, int] = {}
    expected: dict[Path, str] = {}
    for record in dataset.records:
        if record.mask_kind == "none":
            continue
        masks = load_masks(record)
        if not masks.any():
            continue
        category = record.category or "defect"
        mask = _link(folder, Path("test") / category, record, np.asarray(masks.any(0), np.bool_), expected)
        expected[mask] = record.id
        counts[category] = counts.get(category, 0) + 1
    there = {path for path in (folder / "masks" / "test").glob("*/*.png") if path.parent.name != GOOD}
    foreign = sorted(there - set(expected))
    if foreign:
        raise UsageError(
            f"{folder} holds real defects that are not of {dataset.root} ({foreign[0].name}); choose another"
        )
    if not counts:
        raise DataError(f"{dataset.root}: expected real defects with masks for the test, got none")
    return counts


def link_good(folder: Path, dataset: Dataset, goods: Sequence[Record], recipe: DefectRecipe) -> dict[str, int]:
    """Copy clean pictures into `images/SPLIT/good/` with empty masks beside: what holds nothing; pictures a split.

    Those of training and validation are the ones on which `write_defects` makes its defects, the test's all others.
    """
    used = {record.id for record in goods}
    others = [r for r in dataset.records if r.id not in used and r.mask_kind == "rle" and not r.rles]
    splits = {**_sources(goods, recipe), "test": others}
    expected: dict[Path, str] = {}
    for split, records in splits.items():
        for record in records:
            empty = np.zeros(image_size(record.image), np.bool_)
            expected[_link(folder, Path(split) / GOOD, record, empty, expected)] = record.id
    return {split: len(records) for split, records in splits.items()}


def _link(folder: Path, below: Path, record: Record, mask: BoolArray, taken: Mapping[Path, str]) -> Path:
    """Copy one picture and write its mask (H, W) under `images/BELOW` and `masks/BELOW`; the mask's path.

    DataError where another record has that name, UsageError where another picture lies there.
    """
    name = f"{record.id.replace('/', '-')}"
    image = folder / "images" / below / f"{name}{record.image.suffix.lower()}"
    path = folder / "masks" / below / f"{name}.png"
    if path in taken:
        raise DataError(f"expected records whose ids differ as file names, got {taken[path]} and {record.id}")
    if image.exists() and not filecmp.cmp(image, record.image, shallow=False):
        raise UsageError(f"{image} holds another picture than {record.image}; choose another folder")
    if not path.exists():
        write_png(path, mask)
    if not image.exists():
        write_whole(image, partial(shutil.copyfile, record.image))
    return path


def good_records(dataset: Dataset) -> list[Record]:
    """Pictures without a defect: those of training if the data set says which they are, else all without an object."""
    unlabelled = [r for r in dataset.records if r.mask_kind == "none" or not load_masks(r).any()]
    training = [record for record in unlabelled if record.split == "train"]
    return training or unlabelled


def run_synth_defects(
    source: str, out: Path, count: int, kinds: Sequence[str], seed: int, progress: Progress | None = None
) -> tuple[str, ...]:
    """A gallery (`out` ends in .png) or a data set of `count` pictures from a data set's clean ones; lines to print.

    No `kinds` are all but the published ones. UsageError names the kinds that there are where one is unknown.
    """
    chosen = tuple(dict.fromkeys(kinds)) or (*REALISTIC, COMPOSITE)
    recipe = parse_settings(DefectRecipe, {"train": count, "kinds": dict.fromkeys(chosen, 1.0), "seed": seed})
    goods = good_records(open_dataset(source))
    if not goods:
        raise DataError(f"{source}: expected pictures without defects, got none")
    if out.suffix.lower() == ".png":
        pictures = [load_image_only(record) for record in goods[:SHOWN]]
        write_png(out, gallery(pictures, chosen, seed))
        return (f"wrote {out}",)
    counts = write_defects(out, goods, recipe, progress)
    return (f"wrote {out}: " + ", ".join(f"{number} {kind}" for kind, number in counts.items()),)


def _sources(goods: Sequence[Record], recipe: DefectRecipe) -> dict[str, list[Record]]:
    units: dict[str, list[Record]] = {}
    for record in sorted(goods, key=lambda record: record.id):
        units.setdefault(f"group {record.group}" if record.group else record.id, []).append(record)
    order = sorted(units, key=lambda unit: (stable_hash(f"clean:{recipe.seed}:{unit}"), unit))
    cut = max(1, round(recipe.val_share * len(order))) if recipe.val else 0
    sources = {
        split: [record for unit in chosen for record in units[unit]]
        for split, chosen in (("val", order[:cut]), ("train", order[cut:]))
    }
    if not sources["train"]:
        what = "clean pictures" if len(units) == len(goods) else "groups of clean pictures"
        raise DataError(f"expected at least {1 + cut} {what} to make defects on, got {len(units)}")
    return sources


def _drawn(split: str, count: int, records: Sequence[Record], recipe: DefectRecipe) -> list[tuple[str, Record]]:
    """(kind, clean picture) of each picture of a split; every clean picture is used before one is used again."""
    rng = generator(recipe.seed, "defects", split)
    names = sorted(recipe.kinds)
    weights = np.array([recipe.kinds[name] for name in names])
    chosen = rng.choice(len(names), count, p=weights / weights.sum())
    return [(names[int(index)], records[number % len(records)]) for number, index in enumerate(chosen)]


def _clean(record: Record, recipe: DefectRecipe, rng: np.random.Generator) -> ImageArray:
    image = load_image_only(record)
    if not recipe.augment:
        return image
    view = views_for(f"{record.id}:{int(rng.integers(2**31))}", AUGMENTED, recipe.seed)[0]
    return apply(view, Sample(record, image, np.zeros((0, *image.shape[:2]), np.bool_))).image


def _area(mask: Path) -> float:
    """Share of a picture that a mask file covers."""
    return round(float((read_mask_pixels(mask) > 0).mean()), 6)
