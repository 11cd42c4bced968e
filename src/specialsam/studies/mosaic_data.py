"""Data sets of texture mosaics on disk: textures are split first, so that none is in two splits, then mosaics drawn.

The folder is a plain folder data set (`images/`, `masks/` with label maps) whose category is the difficulty, and
`mosaics.json` says of each mosaic what it is made of.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from specialsam.console import Progress
from specialsam.core.errors import DataError, UsageError
from specialsam.core.files import write_whole
from specialsam.core.geometry import ImageArray
from specialsam.core.randomness import generator
from specialsam.core.types import Dataset, Split
from specialsam.data.duplicates import duplicate_groups, near_duplicates
from specialsam.data.images import write_png
from specialsam.data.load import load_image_only
from specialsam.data.splits import split_records
from specialsam.studies.textures import Clusters, cluster_sheet, cluster_textures, texture_features
from specialsam.synth.cells import Layout
from specialsam.synth.mosaics import SIDE, TILE, Mosaic, contact_sheet, fit, mosaic

Order = Callable[[list[int], Clusters, np.random.Generator], list[int]]
"""From the indices of a split's textures to the same in the order in which a mosaic wants them."""

PLAN = "mosaics.json"
LEAST_GRAIN = 1.0
"""CIELAB lightness (0..100) by which a texture varies at least, beside its own blur, to count as grain."""
_GRAIN_SIGMA = 8.0
_SPLITS: tuple[Split, ...] = ("train", "val", "test")

OTHER_CLUSTERS = "filled with the nearest textures of other clusters"
SAME_CLUSTER = "some textures of one cluster"
COPIES = "near-duplicates in one mosaic"


@dataclass(frozen=True)
class Difficulty:
    """How a mosaic's textures are chosen (`order`, `one_cluster` or all `apart`), and what its cells share besides."""

    order: Order
    says: str
    one_cluster: bool = False
    apart: bool = False
    colour_match: bool = False
    grain_only: bool = False


def _random(pool: list[int], clusters: Clusters, rng: np.random.Generator) -> list[int]:
    return [pool[index] for index in rng.permutation(len(pool))]


def _standard(pool: list[int], clusters: Clusters, rng: np.random.Generator) -> list[int]:
    """One of each cluster in random order, then a second of each, and so on."""
    seen: Counter[int] = Counter()
    turns = {}
    for index in (shuffled := _random(pool, clusters, rng)):
        turns[index] = seen[int(clusters.labels[index])]
        seen[int(clusters.labels[index])] += 1
    return sorted(shuffled, key=lambda index: turns[index])


def _hard(pool: list[int], clusters: Clusters, rng: np.random.Generator) -> list[int]:
    """A random cluster's textures in random order, then the others by their distance to its centre."""
    shuffled = _random(pool, clusters, rng)
    one = int(rng.choice(np.unique(clusters.labels[pool])))
    far = clusters.distances[:, one]
    return sorted(shuffled, key=lambda index: 0.0 if clusters.labels[index] == one else 1.0 + float(far[index]))


def _near(pool: list[int], clusters: Clusters, rng: np.random.Generator) -> list[int]:
    """A random texture, then the others by the distance of their features to it."""
    anchor = int(rng.choice(pool))
    far = np.linalg.norm(clusters.features - clusters.features[anchor], axis=1)
    return sorted(pool, key=lambda index: (index != anchor, float(far[index]), index))


DIFFICULTIES: dict[str, Difficulty] = {
    "random": Difficulty(_random, "any textures"),
    "standard": Difficulty(_standard, "textures of different clusters", apart=True),
    "hard": Difficulty(_hard, "textures of one cluster", one_cluster=True),
    "near": Difficulty(_near, "a texture and those nearest to it by their features"),
    "matched": Difficulty(_hard, "textures of one cluster with equal colours", one_cluster=True, colour_match=True),
    "grain": Difficulty(_random, "one texture in all cells, turned", grain_only=True),
}
"""From easy to hard, "random" (the original study's training mosaics) beside them; the categories of the data set."""
LADDER = ("standard", "hard", "near", "matched", "grain")


class MosaicRecipe(BaseModel):
    """Everything that decides a data set of mosaics but the textures and their clusters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: int = Field(500, description="mosaics for training, dealt to their difficulties in turn", ge=0)
    val: int = Field(100, description="mosaics for validation, dealt likewise", ge=0)
    test: int = Field(250, description="mosaics for the test, dealt likewise", ge=0)
    side: int = Field(SIDE, description="pixels of a mosaic's side", ge=64, le=4096)
    tile: int = Field(TILE, description="pixels to which a texture's shorter side is scaled", ge=16, le=4096)
    layouts: dict[str, float] = Field(
        default_factory=lambda: {"grid:2x2": 0.25, "lines:5": 0.25, "voronoi:5": 0.25, "curved:4": 0.25},
        description="layouts (grid:RxC, lines:N, voronoi:N, curved:N) and their weights, one drawn a mosaic",
    )
    difficulties: tuple[str, ...] = Field(LADDER, description="difficulties of validation and test")
    train_difficulties: tuple[str, ...] | None = Field(None, description="those of training, the same if left out")
    rotate: bool = Field(False, description="turn every texture by a random angle")
    colour_match: bool = Field(False, description="match the cells' colours in every mosaic, not in matched alone")
    texture_fractions: tuple[float, float] = Field((0.7, 0.3), description="shares of textures for train and test")
    val_share: float = Field(0.2, description="share of train's textures that validation takes", gt=0, lt=1)
    duplicates: bool = Field(True, description="keep near-duplicate textures in one split")
    clusters: int = Field(5, description="clusters of textures", ge=2)
    seed: int = Field(0, description="of the split of textures and of every mosaic")

    @field_validator("layouts")
    @classmethod
    def _known_layouts(cls, value: dict[str, float]) -> dict[str, float]:
        for name in value:
            Layout.parse(name)
        if not sum(value.values()) > 0 or not all(0 <= weight < float("inf") for weight in value.values()):
            raise ValueError(f"expected weights of at least 0 with a positive sum, got {value}")
        return value

    @field_validator("difficulties", "train_difficulties")
    @classmethod
    def _known_difficulties(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = [name for name in value or () if name not in DIFFICULTIES]
        if unknown or value == () or (value and len(set(value)) < len(value)):
            got = ", ".join(value or ()) or "none"
            raise ValueError(f"expected different names of {', '.join(DIFFICULTIES)}, got {got}")
        return value

    @field_validator("texture_fractions")
    @classmethod
    def _whole(cls, value: tuple[float, float]) -> tuple[float, float]:
        if abs(sum(value) - 1) > 1e-6 or not 0 < value[0] < 1:
            raise ValueError(f"expected two shares above 0 that sum to 1, got {value}")
        return value

    def count(self, split: Split) -> int:
        """Mosaics of a split."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    def names(self, split: Split) -> tuple[str, ...]:
        """Difficulties of a split."""
        return self.train_difficulties or self.difficulties if split == "train" else self.difficulties

    def fractions(self) -> tuple[float, float, float]:
        """Shares of textures of train, val and test; a split without mosaics takes none from validation's part."""
        val = self.texture_fractions[0] * self.val_share if self.val else 0.0
        return self.texture_fractions[0] - val, val, self.texture_fractions[1]


@dataclass(frozen=True)
class PlannedMosaic:
    """A mosaic before it is drawn: `textures` are ids in the order of cells, `seed` decides all else that is random."""

    id: str
    split: Split
    difficulty: str
    layout: str
    textures: tuple[str, ...]
    seed: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class WrittenMosaics:
    """What `write_mosaics` did: mosaics per split and difficulty, textures per split, `drawn` now (the rest was there).

    `notes` counts the mosaics that are not what their difficulty says, and the textures that were left out.
    """

    folder: Path
    mosaics: Mapping[Split, Mapping[str, int]]
    textures: Mapping[Split, int]
    notes: Mapping[str, int]
    drawn: int


def plan_mosaics(
    splits: Mapping[str, Split], recipe: MosaicRecipe, clusters: Clusters, groups: Mapping[str, str], plain: set[str]
) -> list[PlannedMosaic]:
    """All mosaics of a recipe, from textures of their own split alone; DataError where a split has too few.

    `groups` names near-duplicates, of which a mosaic takes one as long as there are others. `plain` are textures
    without grain, which difficulties that show grain alone leave out.
    """
    out = []
    layouts = {name: Layout.parse(name) for name in sorted(recipe.layouts)}
    weights = np.array([recipe.layouts[name] for name in layouts])
    for split in _SPLITS:
        pool = [index for index, id in enumerate(clusters.ids) if splits.get(id) == split]
        names = recipe.names(split)
        for number in range(recipe.count(split)):
            name = names[number % len(names)]
            difficulty = DIFFICULTIES[name]
            title = f"{name}-{number // len(names):05d}"
            rng = generator(recipe.seed, "mosaic", split, title)
            layout = layouts[list(layouts)[int(rng.choice(len(layouts), p=weights / weights.sum()))]]
            wanted = 1 if difficulty.grain_only else layout.cells
            grainy = difficulty.grain_only or difficulty.colour_match or recipe.colour_match
            usable = [index for index in pool if not (grainy and clusters.ids[index] in plain)]
            if len(usable) < wanted:
                raise DataError(
                    f"expected at least {wanted} textures in {split} for {name} mosaics of {layout.name}, "
                    f"got {len(usable)}; add textures or take layouts with fewer cells"
                )
            chosen, notes = _choose(difficulty, usable, wanted, clusters, groups, rng)
            textures = tuple(clusters.ids[index] for index in chosen)
            seed = int(rng.integers(2**31))
            out.append(PlannedMosaic(f"{split}/{name}/{title}", split, name, layout.name, textures, seed, notes))
    return out


def _choose(
    difficulty: Difficulty,
    pool: list[int],
    count: int,
    clusters: Clusters,
    groups: Mapping[str, str],
    rng: np.random.Generator,
) -> tuple[list[int], tuple[str, ...]]:
    """The textures of one mosaic in random order, and in which way they are not what the difficulty says."""
    taken: set[str] = set()
    first: list[int] = []
    copies: list[int] = []
    for index in difficulty.order(pool, clusters, rng):
        group = groups.get(clusters.ids[index], clusters.ids[index])
        (copies if group in taken else first).append(index)
        taken.add(group)
    chosen = (first + copies)[:count]
    kinds = {int(clusters.labels[index]) for index in chosen}
    notes = [COPIES] if count > len(first) else []
    notes += [OTHER_CLUSTERS] if difficulty.one_cluster and len(kinds) > 1 else []
    notes += [SAME_CLUSTER] if difficulty.apart and len(kinds) < count else []
    return [chosen[index] for index in rng.permutation(count)], tuple(notes)


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
    _begin(folder, _document(dataset, recipe, clusters, splits, plain, plan))

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
) -> dict[str, Any]:
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


def _begin(folder: Path, document: dict[str, Any]) -> None:
    """Write the plan into an empty folder; pass where the same one is there, UsageError where anything else is."""
    path = folder / PLAN
    if not path.exists():
        if any((folder / name).exists() for name in ("images", "masks")):
            raise UsageError(f"expected an empty folder for mosaics, {folder} holds images without {PLAN}")
        write_whole(path, lambda beside: beside.write_text(json.dumps(document, indent=1), encoding="utf-8"))
        return
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        before = dict(stored["recipe"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: expected the plan of a mosaic data set, cannot read it ({error})") from error
    now = document["recipe"]
    other = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if other:
        told = "; ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in other)
        raise UsageError(f"{folder} holds mosaics of another recipe ({told}); choose another folder")
    fresh = json.loads(json.dumps(document))
    for part in ("textures", "mosaics"):
        if stored.get(part) != fresh[part]:
            raise UsageError(f"{folder} holds mosaics of other textures or clusters; choose another folder")


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
        for split in _SPLITS
        if recipe.count(split)
    }
    notes = Counter(f"{planned.difficulty} mosaics {note}" for planned in plan for note in planned.notes)
    if plain:
        notes["textures without grain, left out where colours are matched or grain alone tells"] = len(plain)
    return WrittenMosaics(folder, mosaics, dict(Counter(splits.values())), dict(notes), drawn)


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
