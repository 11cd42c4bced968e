"""Camouflage: COD10K-v3, SINet's package or CAMO as a plain folder with stated splits, and images that hold nothing."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specialsam.core.console import say, stage
from specialsam.core.errors import SpecialSamError, UsageError
from specialsam.core.files import write_whole
from specialsam.core.geometry import ImageArray
from specialsam.core.types import Dataset, Embedding, Problem, Prompts, Record, Split
from specialsam.data.census import counts, inspect_masks
from specialsam.data.duplicates import duplicate_groups, near_duplicates
from specialsam.data.images import write_png
from specialsam.data.loading import load_image_only, load_masks
from specialsam.data.open import open_dataset
from specialsam.data.splits import split_records, stable_hash
from specialsam.evaluation.statistics import bootstrap_mean
from specialsam.models.segmenter import Segmenter
from specialsam.studies.recipe import CamouflageData, CamouflageRecipe, Prepared

Chosen = Mapping[Split, Sequence[Record]]


@dataclass(frozen=True)
class _Found:
    """A data set looked through: `usable` records hold an object, `empty` ones are known to hold none."""

    dataset: Dataset
    usable: tuple[Record, ...]
    empty: tuple[Record, ...]
    numbers: Mapping[str, int]
    problems: tuple[Problem, ...]


def prepare_camouflage(data: str, recipe: CamouflageRecipe, model: str, base: str | None, folder: Path) -> Prepared:
    """Link the chosen images into `folder` as images/SPLIT/SUPER/SUB/NAME with their masks; `model` is not needed.

    Images without an object are left out, counted, and kept as `negatives`. UsageError where the data set states no
    test images and the recipe wants its own.
    """
    found = _look(data)
    chosen, left_out = choose(found.usable, recipe.data)
    with stage("linking images") as progress:
        total, done = sum(map(len, chosen.values())), 0
        for split, records in chosen.items():
            for record in records:
                place(record, split, folder)
                done += 1
                progress(done, total, record.id)
    negatives = _negatives(found.empty, recipe.data)
    sizes = ", ".join(f"{len(records)} {split}" for split, records in chosen.items())
    say(f"{found.dataset.name}: {len(found.usable)} images with an object, {len(found.empty)} without; {sizes}")
    return Prepared(
        source=f"folder:{folder}",
        name=found.dataset.name,
        licence=found.dataset.licence,
        citation=found.dataset.citation,
        facts=(
            ("images on disk", str(found.numbers["images"])),
            ("with an object (usable)", str(len(found.usable))),
            ("without an object", f"{len(found.empty)}, left out of training and scores"),
            ("unreadable or without a mask", str(found.numbers["broken"] + len(found.problems))),
            ("used", sizes),
            *(("near-duplicates", f"{left_out} training images left out") for _ in range(bool(left_out))),
            *(("false alarms", f"{len(negatives)} test images without an object") for _ in range(bool(negatives))),
        ),
        notes=found.dataset.notes,
        differences=(
            ("Data", "COD10K-v3", found.dataset.name),
            ("Test images", "200, all aquatic", f"{len(chosen['test'])}: {_supers(chosen['test'])}"),
        ),
        negatives=negatives,
    )


def _look(data: str) -> _Found:
    dataset = open_dataset(data)
    problems: list[Problem] = []
    with stage("reading masks") as progress:
        objects = inspect_masks(dataset.records, progress, problems)
    usable = tuple(record for record in dataset.records if objects.get(record.id, 0) > 0)
    empty = tuple(record for record in dataset.records if objects.get(record.id) == 0)
    return _Found(dataset, usable, empty, counts(dataset, objects), tuple(problems))


def _supers(records: Sequence[Record]) -> str:
    found = Counter(record.supercategory or record.category or "without a category" for record in records)
    return ", ".join(f"{number} {name}" for name, number in found.most_common())


def choose(records: Sequence[Record], recipe: CamouflageData) -> tuple[dict[Split, list[Record]], int]:
    """Records of train, val and test, and how many training images were left out as near-duplicates of the others."""
    groups: dict[str, str] = {}
    if recipe.duplicates:
        with stage("looking for near-duplicates") as progress:
            pairs = near_duplicates(records, progress=progress)
            groups = duplicate_groups(pairs)
    if recipe.split == "own":
        splits = split_records(records, _shares(recipe, recipe.own_test), recipe.seed, honour=False, groups=groups)
        test = [record for record in records if splits[record.id] == "test"]
        learned = [record for record in records if splits[record.id] != "test"]
    else:
        test = [record for record in records if record.split == "test" and _of_set(record, recipe.test_set)]
        learned = [record for record in records if record.split != "test"]
        if not test:
            where = f" in {recipe.test_set}" if recipe.test_set else ""
            raise UsageError(f"expected stated test images{where}, got none; add --set data.split=own to cut a test")
    tested = {groups[record.id] for record in test if record.id in groups}
    kept = [record for record in learned if groups.get(record.id) not in tested]
    parts = split_records(kept, _shares(recipe, 0.0), recipe.seed, honour=False, groups=groups)
    out: dict[Split, list[Record]] = {"train": [], "val": [], "test": stratified(test, recipe.test, recipe.seed)}
    for record in kept:
        out[parts[record.id]].append(record)
    out["train"] = stratified(out["train"], recipe.train, recipe.seed)
    return out, len(learned) - len(kept)


def _shares(recipe: CamouflageData, test: float) -> tuple[float, float, float]:
    """Shares of train, val and test; validation is a share of what the test leaves."""
    if test:
        return (1 - test, 0.0, test)
    return (1 - recipe.val, recipe.val, 0.0)


def _of_set(record: Record, name: str) -> bool:
    return not name or name.lower() in [part.lower() for part in record.id.split("/")[:-1]]


def stratified(records: Sequence[Record], count: int | None, seed: int) -> list[Record]:
    """`count` records in proportion to their categories, chosen by stable hash; all of them for None or too few.

    Systematic sampling with a random start (Cochran, Sampling Techniques, ch. 8) along the records ordered by category
    and, within it, by hash: each category has its share to within one record.
    """
    if count is None or count >= len(records):
        return list(records)
    order = sorted(
        records, key=lambda r: (r.supercategory, r.category, stable_hash(f"subset:{seed}:{r.id}"), r.id)
    )  # fmt: skip
    start = stable_hash(f"subset start:{seed}")
    taken = {order[int((number + start) * len(order) / count)].id for number in range(count)}
    return [record for record in records if record.id in taken]


def place(record: Record, split: Split, folder: Path) -> None:
    """Link the image and write its mask as a clean binary PNG, where they are not there yet."""
    below = Path(split, *(part for part in (record.supercategory, record.category) if part))
    name = record.id.replace("/", "--")
    image = folder / "images" / below / f"{name}{record.image.suffix.lower()}"
    mask = folder / "masks" / below / f"{name}.png"
    if not mask.exists():
        mask.parent.mkdir(parents=True, exist_ok=True)
        write_png(mask, np.asarray(load_masks(record).any(0), np.bool_))
    if not image.exists():
        write_whole(image, lambda beside: _link(record.image, beside))


def _link(image: Path, beside: Path) -> None:
    """A symbolic link, or a copy on systems that make none."""
    try:
        beside.symlink_to(image.resolve())
    except (OSError, NotImplementedError):
        shutil.copyfile(image, beside)


def _negatives(empty: Sequence[Record], recipe: CamouflageData) -> tuple[Record, ...]:
    stated = [record for record in empty if record.split == "test"] or list(empty)
    return tuple(stratified(stated, recipe.negatives, recipe.seed)) if recipe.negatives else ()


@dataclass(frozen=True)
class FalseAlarms:
    """Mean share 0..1 of `n` images without an object that a model predicts, with its 95 % bootstrap interval.

    `failed` of the images could not be read and count as all of the image.
    """

    model: str
    mean: float
    low: float
    high: float
    n: int
    failed: int


def false_alarms(
    models: Mapping[str, Segmenter],
    records: Sequence[Record],
    progress: Callable[[int, int, str], None] | None = None,
) -> list[FalseAlarms]:
    """Share of the image that each model predicts when its centre is clicked although nothing is hidden there.

    SAM has no way to answer "nothing": lower is better, 0 is right.
    """
    shares: dict[str, list[float]] = {name: [] for name in models}
    failed = 0
    for number, record in enumerate(records, 1):
        try:
            found = clicked_shares(models, load_image_only(record))
        except SpecialSamError:
            found, failed = dict.fromkeys(models, 1.0), failed + 1
        for name, share in found.items():
            shares[name].append(share)
        if progress:
            progress(number, len(records), record.id)
    out = []
    for name, values in shares.items():
        mean = bootstrap_mean(values)
        out.append(FalseAlarms(name, mean.mean, mean.low, mean.high, mean.n, failed))
    return out


def clicked_shares(models: Mapping[str, Segmenter], image: ImageArray) -> dict[str, float]:
    """Share 0..1 of an image (H, W, 3) in each model's single mask for a click at its centre."""
    height, width = image.shape[:2]
    point = np.array([[[width // 2, height // 2]]], np.float32)
    click = Prompts("centre", points=point, labels=np.ones((1, 1), np.int64))
    embeddings: dict[str, Embedding] = {}
    out = {}
    for name, model in models.items():
        if model.encoder_id not in embeddings:
            embeddings[model.encoder_id] = model.encode(image)
        out[name] = float(model.decode(embeddings[model.encoder_id], click).masks()[0, 0].mean())
    return out
