"""Data sets of mosaics: read back by the plain folder's adapter, checked against the textures they were made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from specialsam.core.errors import DataError, UsageError
from specialsam.core.settings import parse_settings
from specialsam.core.types import Dataset
from specialsam.data.loading import load
from specialsam.data.open import open_dataset
from specialsam.studies.recipe import load_recipe
from specialsam.synth.clusters import Clusters, cluster_textures
from specialsam.synth.mosaic_data import (
    PLAN,
    difficulty_sheet,
    grain,
    run_synth_mosaic,
    write_mosaics,
)
from specialsam.synth.mosaic_plan import DIFFICULTIES, LADDER, MosaicRecipe

COLOURS = ((225, 215, 200), (120, 90, 60), (50, 40, 35), (190, 60, 40))
SIDE, TILE = 64, 32


def small(**changes: Any) -> MosaicRecipe:
    """A recipe of few small mosaics in all difficulties."""
    values: dict[str, Any] = {"train": 10, "val": 5, "test": 10, "side": SIDE, "tile": TILE, "clusters": 4, **changes}
    return parse_settings(MosaicRecipe, values)


def texture(number: int) -> npt.NDArray[np.uint8]:
    """Noise about one of the four colours, four in a row of each."""
    rng = np.random.default_rng(number)
    return rng.normal(COLOURS[number // 15], 12, (TILE, TILE, 3)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def wood(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 textures of four looks in the layout of wood data, two of them the same, one without grain."""
    root = tmp_path_factory.mktemp("wood")
    folder = root / "images" / "images"
    folder.mkdir(parents=True)
    for number in range(60):
        Image.fromarray(texture(7 if number == 8 else number)).save(folder / f"t{number:02d}.png")
    Image.fromarray(np.full((TILE, TILE, 3), 40, np.uint8)).save(folder / "t44.png")
    (root / "wood.csv").write_text("image,species\n" + "".join(f"t{i:02d}.png,oak\n" for i in range(60)))
    return root


def clusters_of(dataset: Dataset, k: int = 4) -> Clusters:
    """Clusters by mean colour: the four looks."""
    means = [np.asarray(Image.open(record.image)).mean((0, 1)) for record in dataset.records]
    return cluster_textures(dataset.records, np.stack(means).astype(np.float32), "mean colours", k)


@pytest.fixture(scope="module")
def made(wood: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Clusters]:
    """A small data set of mosaics, its plan as read from disk, and the clusters of its textures."""
    folder = tmp_path_factory.mktemp("mosaics")
    dataset = open_dataset(wood)
    clusters = clusters_of(dataset)
    written = write_mosaics(folder, dataset, small(), clusters)
    assert written.drawn == 25
    assert written.mosaics["test"] == dict.fromkeys(LADDER, 2)
    return folder, json.loads((folder / PLAN).read_text()), clusters


def test_the_plain_folder_adapter_reads_it(made: tuple[Path, dict[str, Any], Clusters]) -> None:
    """Splits and difficulties come back as the data set's own splits and categories, masks as a partition."""
    folder, plan, _ = made
    dataset = open_dataset(folder)
    assert dataset.layout == "folder"
    assert not dataset.problems
    assert {(r.id, r.split, r.category) for r in dataset.records} == {
        (one["id"], one["split"], one["difficulty"]) for one in plan["mosaics"]
    }
    cells = {one["id"]: len(one["textures"]) for one in plan["mosaics"]}
    for record in dataset.records:
        sample = load(record)
        assert record.mask_kind == "index"
        assert sample.image.shape == (SIDE, SIDE, 3)
        assert (sample.masks.sum(0) == 1).all()
        if record.category != "grain":
            assert len(sample.masks) == cells[record.id]


def test_what_each_object_is_made_of_is_said(made: tuple[Path, dict[str, Any], Clusters], wood: Path) -> None:
    """Oracle: the mean colour under each mask, whose nearest texture of the mosaic is the one that is named."""
    folder, _, clusters = made
    dataset, own = open_dataset(wood), open_dataset(folder)
    written = write_mosaics(folder, dataset, small(), clusters)
    colours = {record.id: load(record).image.mean((0, 1)) for record in dataset.records}
    hit = total = 0
    for record in own.records:
        sample, names = load(record), written.made_of[record.id]
        assert len(names) == len(sample.masks)
        if record.category == "standard":  # textures of different clusters: one a colour
            for name, mask in zip(names, sample.masks, strict=True):
                seen = sample.image[mask].mean(0)
                hit += name == min(names, key=lambda one: float(np.linalg.norm(colours[one] - seen)))
                total += 1
    assert hit >= 0.8 * total > 4


def test_no_texture_is_in_two_splits(made: tuple[Path, dict[str, Any], Clusters]) -> None:
    """Every mosaic's textures belong to its split; the two equal textures share one."""
    _, plan, _ = made
    home = {id: facts["split"] for id, facts in plan["textures"].items()}
    assert all(home[id] == one["split"] for one in plan["mosaics"] for id in one["textures"])
    assert home["t07"] == home["t08"]
    assert plan["textures"]["t07"]["sha256"] == plan["textures"]["t08"]["sha256"]
    shares = [list(home.values()).count(split) / 60 for split in ("train", "val", "test")]
    assert np.allclose(shares, (0.56, 0.14, 0.3), atol=0.05)


def test_difficulties_are_what_they_say(made: tuple[Path, dict[str, Any], Clusters]) -> None:
    """Clusters and distances worked out anew from the clusters' own features."""
    _, plan, clusters = made
    label = {id: facts["cluster"] for id, facts in plan["textures"].items()}
    place = {id: index for index, id in enumerate(clusters.ids)}
    for one in plan["mosaics"]:
        ids = one["textures"]
        kinds = {label[id] for id in ids}
        assert len(set(ids)) == len(ids)
        if one["difficulty"] == "standard":
            assert len(kinds) == min(4, len(ids))
        elif one["difficulty"] == "grain":
            assert len(ids) == 1
        elif one["difficulty"] in ("hard", "matched"):
            assert (len(kinds) == 1) != bool(one["notes"])
        if one["difficulty"] in ("grain", "matched"):
            assert "t44" not in ids
        if one["difficulty"] == "near" and not {"t07", "t08"} & set(ids):
            pool = [place[id] for id, facts in plan["textures"].items() if facts["split"] == one["split"]]
            sets = []
            for anchor in (place[id] for id in ids):
                far = np.linalg.norm(clusters.features[pool] - clusters.features[anchor], axis=1)
                sets.append({clusters.ids[pool[index]] for index in np.argsort(far)[: len(ids)]})
            assert set(ids) in sets


def test_matched_mosaics_share_their_colours(made: tuple[Path, dict[str, Any], Clusters]) -> None:
    """Mean colours of the cells (skimage's CIELAB): equal where matched, apart where textures differ most."""
    from skimage.color import rgb2lab

    folder, _, _ = made
    apart: dict[str, list[float]] = {"standard": [], "matched": []}
    for record in open_dataset(folder).records:
        if record.category in apart:
            sample = load(record)
            lab = rgb2lab(sample.image)
            apart[record.category].append(float(np.ptp([lab[mask].mean(0) for mask in sample.masks], axis=0).max()))
    assert max(apart["matched"]) < 1.5 < 20 < min(apart["standard"])


def test_a_stopped_run_goes_on(wood: Path, tmp_path: Path) -> None:
    """What is missing is drawn as it was, what is there is left alone, and no temporary file stays."""
    dataset = open_dataset(wood)
    recipe, clusters = small(train=5, val=0, test=5), clusters_of(dataset)
    write_mosaics(tmp_path, dataset, recipe, clusters)
    files = sorted(tmp_path.rglob("*.png"))
    before = {path: path.read_bytes() for path in files}
    lost = [files[0], next(path for path in files if "masks" in path.parts)]
    for path in lost:
        path.unlink()
    stamps = {path: path.stat().st_mtime_ns for path in files if path.exists() and path.stem != lost[1].stem}
    written = write_mosaics(tmp_path, dataset, recipe, clusters)
    assert written.drawn == len({path.stem for path in lost})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == before
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert not [path for path in tmp_path.rglob("*") if ".tmp" in path.name]


def _other_recipe(folder: Path, dataset: Dataset, clusters: Clusters) -> None:
    write_mosaics(folder, dataset, small(seed=1), clusters)


def _other_clusters(folder: Path, dataset: Dataset, clusters: Clusters) -> None:
    write_mosaics(folder, dataset, small(), replace(clusters, labels=np.roll(clusters.labels, 1)))


def _no_plan(folder: Path, dataset: Dataset, clusters: Clusters) -> None:
    (folder / PLAN).unlink()
    write_mosaics(folder, dataset, small(), clusters)


def _foreign_clusters(folder: Path, dataset: Dataset, clusters: Clusters) -> None:
    write_mosaics(folder, dataset, small(), replace(clusters, ids=("other", *clusters.ids[1:])))


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (_other_recipe, r"mosaics with another recipe\.seed"),
        (_other_clusters, r"mosaics with another textures\."),
        (_no_plan, "holds images without mosaics.json"),
        (_foreign_clusters, "expected 4 clusters of the 60 textures"),
    ],
)
def test_a_folder_of_something_else_is_refused(
    wood: Path, tmp_path: Path, act: Callable[[Path, Dataset, Clusters], None], says: str
) -> None:
    """One line that says what differs, and nothing is touched."""
    dataset = open_dataset(wood)
    clusters = clusters_of(dataset)
    write_mosaics(tmp_path, dataset, small(), clusters)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    with pytest.raises(UsageError, match=says) as caught:
        act(tmp_path, dataset, clusters)
    assert "\n" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before


def test_a_damaged_plan_is_named(wood: Path, tmp_path: Path) -> None:
    (tmp_path / PLAN).write_text("{")
    dataset = open_dataset(wood)
    with pytest.raises(DataError, match=r"expected a readable .*mosaics\.json, got a damaged one"):
        write_mosaics(tmp_path, dataset, small(), clusters_of(dataset))


def test_small_clusters_are_filled_and_counted(wood: Path, tmp_path: Path) -> None:
    """With a cluster of two textures, hard mosaics of it take the textures nearest to its centre, and say so."""
    dataset = open_dataset(wood)
    clusters = clusters_of(dataset)
    labels = clusters.labels.copy()
    rare = np.flatnonzero(labels == 0)[:2]
    labels[np.setdiff1d(np.flatnonzero(labels == 0), rare)] = 1
    recipe = small(train=0, val=0, test=60, difficulties=["hard"], layouts={"grid:2x2": 1})
    few = replace(clusters, labels=labels)
    written = write_mosaics(tmp_path, dataset, recipe, few)
    plan = json.loads((tmp_path / PLAN).read_text())
    filled = [one for one in plan["mosaics"] if one["notes"]]
    told = "hard mosaics filled with the nearest textures of other clusters"
    home = {id: facts for id, facts in plan["textures"].items() if facts["split"] == "test"}
    smallest = [number for number in range(4) if 0 < sum(f["cluster"] == number for f in home.values()) < 4]
    assert written.notes.get(told, 0) == len(filled)
    assert bool(filled) == bool(smallest)
    for one in plan["mosaics"]:
        kinds = {home[id]["cluster"] for id in one["textures"]}
        assert (len(kinds) > 1) == bool(one["notes"])


def test_copies_are_kept_apart_until_there_is_no_other(wood: Path) -> None:
    """Of two near-duplicates a mosaic takes one; where only copies are left, it says so."""
    from specialsam.synth.mosaic_plan import plan_mosaics

    clusters = clusters_of(open_dataset(wood))
    recipe = small(train=0, val=0, test=40, difficulties=["hard"], layouts={"grid:2x2": 1})
    test = dict.fromkeys(clusters.ids, "test")
    pairs = {id: f"pair {int(id[1:]) // 2}" for id in clusters.ids}
    for one in plan_mosaics(test, recipe, clusters, pairs, set()):  # type: ignore[arg-type]
        assert len({pairs[id] for id in one.textures}) == 4
        assert not one.notes
    same = dict.fromkeys(clusters.ids, "one board")
    told = {one.notes for one in plan_mosaics(test, recipe, clusters, same, set())}  # type: ignore[arg-type]
    assert told == {("near-duplicates in one mosaic",)}


def test_too_few_textures_is_one_line(wood: Path, tmp_path: Path) -> None:
    dataset = open_dataset(wood)
    recipe = small(layouts={"grid:5x5": 1})
    with pytest.raises(DataError, match=r"expected at least 25 textures in .* of grid:5x5, got"):
        write_mosaics(tmp_path, dataset, recipe, clusters_of(dataset))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"cells": 4}, "cells: Extra inputs"),
        ({"layouts": {"hexagon": 1}}, "expected a layout like"),
        ({"layouts": {"grid:2x2": 0}}, "positive sum"),
        ({"layouts": {}}, "positive sum"),
        ({"difficulties": ["easy"]}, "expected different names of random, standard"),
        ({"difficulties": []}, "expected different names"),
        ({"difficulties": ["hard", "hard"]}, "expected different names"),
        ({"texture_fractions": (0.7, 0.4)}, "sum to 1"),
        ({"val_share": 1.0}, "val_share"),
        ({"train": -1}, "train"),
    ],
)
def test_wrong_recipes_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_settings(MosaicRecipe, values)


def test_every_setting_and_difficulty_is_described() -> None:
    assert all(field.description for field in MosaicRecipe.model_fields.values())
    assert all(difficulty.says for difficulty in DIFFICULTIES.values())
    assert set(LADDER) == set(DIFFICULTIES) - {"random"}


def test_the_seed_recipe_is_the_study() -> None:
    """500 mosaics of random textures to train on, 50 of each kind in the test, 2x2 tiles of 256 px, 5 clusters."""
    recipe = load_recipe("wood", "seed").data
    assert isinstance(recipe, MosaicRecipe)
    assert (recipe.train, recipe.val, recipe.test, recipe.side, recipe.tile, recipe.clusters) == (
        500,
        0,
        100,
        512,
        256,
        5,
    )
    assert recipe.layouts == {"grid:2x2": 1.0}
    assert (recipe.names("train"), recipe.names("test")) == (("random",), ("standard", "hard"))
    assert recipe.fractions() == (0.7, 0.0, 0.3)


def test_grain_is_measured_beside_shading() -> None:
    """A slope of light has none; noise of 12 grey levels has about 12 / 255 of the range (by its definition)."""
    slope = np.repeat(np.linspace(60, 180, 256)[None, :, None].repeat(256, 0), 3, 2).astype(np.uint8)
    noisy = np.random.default_rng(0).normal(128, 12, (256, 256, 1)).clip(0, 255).astype(np.uint8).repeat(3, 2)
    assert grain(slope) < 1.0
    assert grain(noisy) == pytest.approx(12 / 255 * 100, rel=0.15)


def test_command_writes_a_sheet(tmp_path: Path) -> None:
    """From a folder of pictures to the sheet, through the features of the bundled model."""
    (tmp_path / "textures").mkdir()
    for number in range(0, 60, 6):
        Image.fromarray(texture(number)).save(tmp_path / "textures" / f"t{number:02d}.png")
    (line,) = run_synth_mosaic(tmp_path / "textures", tmp_path / "sheet.png", 5, small(clusters=3))
    assert line == f"wrote {tmp_path / 'sheet.png'}"
    assert Image.open(tmp_path / "sheet.png").size == (2 * SIDE, 5 * SIDE)


def test_command_writes_a_data_set(wood: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the wished number, 70, 10 and 20 per cent, with its clusters; the features are mean colours, for speed."""

    def colours(dataset: Dataset, k: int, model: str, progress: None) -> Clusters:
        return clusters_of(dataset, k)

    monkeypatch.setattr("specialsam.synth.mosaic_data.cluster_dataset", colours)
    recipe = small()
    lines = run_synth_mosaic(wood, tmp_path / "set", 20, recipe)
    assert lines[0] == f"wrote 20 mosaics of 60 textures to {tmp_path / 'set'} (0 were there)"
    assert [line.split(" mosaics")[0] for line in lines[1:4]] == ["train: 14", "val: 2", "test: 4"]
    assert (tmp_path / "set" / "clusters.png").exists()
    assert len(open_dataset(tmp_path / "set")) == 20


def test_sheet_has_a_row_a_difficulty(wood: Path) -> None:
    dataset = open_dataset(wood)
    sheet = difficulty_sheet(dataset, small(), clusters_of(dataset), 8)
    assert sheet.shape == (5 * SIDE, 2 * 2 * SIDE, 3)
