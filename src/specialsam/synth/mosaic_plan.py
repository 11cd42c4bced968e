"""Which textures make which mosaic: difficulties, the recipe, and the plan that follows from it and a seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import Field, field_validator

from specialsam.core.errors import DataError
from specialsam.core.randomness import generator
from specialsam.core.settings import Settings
from specialsam.core.types import Split
from specialsam.synth.cells import Layout
from specialsam.synth.clusters import Clusters
from specialsam.synth.mosaics import SIDE, TILE

Order = Callable[[list[int], Clusters, np.random.Generator], list[int]]
"""From the indices of a split's textures to the same in the order in which a mosaic wants them."""

SPLITS: tuple[Split, ...] = ("train", "val", "test")

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


class MosaicRecipe(Settings):
    """Everything that decides a data set of mosaics but the textures and their clusters."""

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
    for split in SPLITS:
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
