"""Plans of mosaics as properties of any textures, clusters and recipe; oracles are the definitions, worked out anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from specialsam.core.errors import DataError
from specialsam.core.types import Split
from specialsam.synth.cells import Layout
from specialsam.synth.clusters import Clusters
from specialsam.synth.mosaic_plan import (
    COPIES,
    DIFFICULTIES,
    OTHER_CLUSTERS,
    SAME_CLUSTER,
    SPLITS,
    MosaicRecipe,
    PlannedMosaic,
    plan_mosaics,
)

LAYOUTS = ("grid:2x2", "lines:3", "voronoi:5", "curved:2", "grid:1x3")


@dataclass(frozen=True)
class Given:
    """What a plan is made from."""

    splits: dict[str, Split]
    recipe: MosaicRecipe
    clusters: Clusters
    groups: dict[str, str]
    plain: set[str]

    def plan(self, **changes: object) -> list[PlannedMosaic]:
        recipe = self.recipe.model_copy(update=changes)
        return plan_mosaics(self.splits, recipe, self.clusters, self.groups, self.plain)

    def pool(self, planned: PlannedMosaic) -> set[str]:
        """Textures that a mosaic may use: those of its split, with grain where grain alone tells."""
        difficulty = DIFFICULTIES[planned.difficulty]
        grainy = difficulty.grain_only or difficulty.colour_match or self.recipe.colour_match
        return {id for id, split in self.splits.items() if split == planned.split} - (self.plain if grainy else set())


@st.composite
def givens(draw: st.DrawFn) -> Given:
    """20 to 60 textures in 2 to 5 clusters, near-duplicates within a cluster, some without grain."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    count, k = draw(st.integers(20, 60)), draw(st.integers(2, 5))
    features = rng.normal(size=(count, 3)).astype(np.float32)
    labels = np.concatenate([np.arange(k), rng.integers(0, k, count - k)]).astype(np.int64)
    centres = np.stack([features[labels == number].mean(0) for number in range(k)])
    distances = np.linalg.norm(features[:, None] - centres, axis=2).astype(np.float32)
    ids, none = tuple(f"t{number:02d}" for number in range(count)), np.zeros(count, np.float32)
    layouts = draw(st.lists(st.sampled_from(LAYOUTS), min_size=1, max_size=3, unique=True))
    return Given(
        {id: SPLITS[int(rng.choice(3, p=[0.5, 0.2, 0.3]))] for id in ids},
        MosaicRecipe(
            train=draw(st.integers(0, 8)),
            val=draw(st.integers(0, 4)),
            test=draw(st.integers(0, 8)),
            layouts={name: float(rng.uniform(0.1, 1)) for name in layouts},
            difficulties=tuple(draw(st.lists(st.sampled_from(sorted(DIFFICULTIES)), min_size=1, unique=True))),
            colour_match=draw(st.booleans()),
            clusters=k,
            seed=draw(st.integers(0, 2**31)),
        ),
        Clusters(ids, features, "made up", 0, labels, distances, none, none, none),
        {id: f"{label}-{rng.integers(0, count)}" for id, label in zip(ids, labels, strict=True)}
        if draw(st.booleans())
        else {},
        {id for id in ids if rng.random() < 0.1},
    )


def planned(from_: Given, **changes: object) -> list[PlannedMosaic]:
    """The plan, or nothing to check where a split has too few textures."""
    try:
        return from_.plan(**changes)
    except DataError:
        reject()


def test_too_few_textures_are_one_line() -> None:
    none = np.zeros(3, np.float32)
    clusters = Clusters(
        ("a", "b", "c"),
        np.eye(3, dtype=np.float32),
        "made up",
        0,
        np.arange(3),
        np.eye(3, dtype=np.float32),
        *[none] * 3,
    )
    recipe = MosaicRecipe(train=1, val=0, test=0, layouts={"grid:2x2": 1})
    with pytest.raises(
        DataError, match=r"expected at least 4 textures in train .*, got 3; add textures or take layouts"
    ):
        plan_mosaics(dict.fromkeys("abc", "train"), recipe, clusters, {}, set())


@settings(max_examples=25)
@given(from_=givens())
def test_counts_names_and_cells_are_those_of_the_recipe(from_: Given) -> None:
    recipe, plan = from_.recipe, planned(from_)
    assert len({one.id for one in plan}) == len(plan)
    for split in SPLITS:
        own = [one for one in plan if one.split == split]
        assert len(own) == recipe.count(split)
        by_name = [sum(one.difficulty == name for one in own) for name in recipe.names(split)]
        assert not own or np.ptp(by_name) <= 1, "dealt in turn"
        assert sum(by_name) == len(own)
    for one in plan:
        assert one.layout in recipe.layouts
        needed = 1 if DIFFICULTIES[one.difficulty].grain_only else Layout.parse(one.layout).cells
        assert len(one.textures) == len(set(one.textures)) == needed


@settings(max_examples=25)
@given(from_=givens())
def test_no_texture_is_in_two_splits_and_none_without_grain_where_grain_tells(from_: Given) -> None:
    plan = planned(from_)
    used = {split: {id for one in plan if one.split == split for id in one.textures} for split in SPLITS}
    assert sum(map(len, used.values())) == len(set().union(*used.values()))
    assert all(set(one.textures) <= from_.pool(one) for one in plan)


@settings(max_examples=25)
@given(from_=givens())
def test_a_difficulty_holds_or_its_note_says_why_not(from_: Given) -> None:
    """Hard: one cluster wherever it has enough textures without copies; standard: all apart where that many are."""
    label = dict(zip(from_.clusters.ids, from_.clusters.labels.tolist(), strict=True))
    for one in planned(from_):
        difficulty, cells = DIFFICULTIES[one.difficulty], len(one.textures)
        kinds = {label[id] for id in one.textures}
        assert (OTHER_CLUSTERS in one.notes) == (difficulty.one_cluster and len(kinds) > 1)
        assert (SAME_CLUSTER in one.notes) == (difficulty.apart and len(kinds) < cells)
        pool = from_.pool(one)
        if SAME_CLUSTER in one.notes:
            assert len({label[id] for id in pool}) < cells
        if OTHER_CLUSTERS in one.notes:
            distinct = {number: {from_.groups.get(id, id) for id in pool if label[id] == number} for number in kinds}
            assert any(len(groups) < cells for groups in distinct.values())


@settings(max_examples=25)
@given(from_=givens())
def test_copies_meet_only_where_there_is_no_other_texture(from_: Given) -> None:
    for one in planned(from_):
        groups = [from_.groups.get(id, id) for id in one.textures]
        assert (COPIES in one.notes) == (len(set(groups)) < len(groups))
        if COPIES in one.notes:
            assert len({from_.groups.get(id, id) for id in from_.pool(one)}) < len(one.textures)


@settings(max_examples=25)
@given(from_=givens())
def test_near_textures_are_the_nearest_of_one_of_them(from_: Given) -> None:
    """Distances worked out anew; without near-duplicates, which would be skipped."""
    clusters = from_.clusters
    place = {id: index for index, id in enumerate(clusters.ids)}
    bare = Given(from_.splits, from_.recipe, clusters, {}, from_.plain)
    for one in planned(bare, difficulties=("near",)):
        pool = sorted(place[id] for id in bare.pool(one))
        nearest = []
        for anchor in one.textures:
            far = np.linalg.norm(clusters.features[pool] - clusters.features[place[anchor]], axis=1)
            nearest.append({clusters.ids[pool[index]] for index in np.argsort(far)[: len(one.textures)]})
        assert set(one.textures) in nearest


@settings(max_examples=15)
@given(from_=givens(), more=st.integers(1, 5))
def test_a_plan_follows_from_its_seed_and_more_mosaics_leave_the_first_as_they_were(from_: Given, more: int) -> None:
    """A larger recipe adds mosaics behind; the draws of one split know nothing of the others."""
    assume(from_.recipe.train and from_.recipe.test)
    plan = planned(from_)
    assert plan == from_.plan()
    larger = planned(from_, train=from_.recipe.train + more)
    for split in SPLITS:
        before, after = ([one for one in some if one.split == split] for some in (plan, larger))
        assert after[: len(before)] == before
    assert {one.seed for one in planned(from_, seed=from_.recipe.seed + 1)} != {one.seed for one in plan}


@pytest.mark.parametrize("val", [0, 3])
@settings(max_examples=15)
@given(train=st.floats(0.05, 0.95), share=st.floats(0.05, 0.95))
def test_shares_of_textures_sum_to_one(val: int, train: float, share: float) -> None:
    recipe = MosaicRecipe(val=val, texture_fractions=(train, 1 - train), val_share=share)
    fractions = recipe.fractions()
    assert sum(fractions) == pytest.approx(1)
    assert min(fractions) >= 0
    assert fractions[1] == pytest.approx(train * share if val else 0)
