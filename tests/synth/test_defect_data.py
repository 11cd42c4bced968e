"""Data sets of defects on disk. The oracles: the clean pictures, the adapter that reads a user's own folders."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from specialsam.core.errors import DataError, UsageError
from specialsam.core.types import Record
from specialsam.data.images import read_image, write_png
from specialsam.data.loading import load
from specialsam.data.open import open_dataset
from specialsam.synth.defect_data import DefectRecipe, good_records, link_real, run_synth_defects, write_defects

RECIPE = DefectRecipe(train=9, val=3, kinds={"hole": 1, "thread": 1, "patch": 1})


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    """MVTec AD's layout: ten good pictures, two defects of one type."""
    root = tmp_path / "grid"
    rng = np.random.default_rng(0)
    for name in ("train/good", "test/good", "test/bent", "ground_truth/bent"):
        (root / name).mkdir(parents=True)
    for number in range(10):
        cv2.imwrite(str(root / f"train/good/{number:03d}.png"), rng.integers(90, 140, (96, 96, 3)).astype(np.uint8))
    for number in range(2):
        mask = np.zeros((96, 96), np.uint8)
        mask[20:40, 30 : 50 + number] = 255
        cv2.imwrite(str(root / f"test/bent/{number:03d}.png"), rng.integers(90, 140, (96, 96, 3)).astype(np.uint8))
        cv2.imwrite(str(root / f"ground_truth/bent/{number:03d}_mask.png"), mask)
    return root


def test_a_folder_data_set_with_stated_splits(mvtec: Path, tmp_path: Path) -> None:
    dataset = open_dataset(str(mvtec))
    goods = good_records(dataset)
    assert len(goods) == 10
    out = tmp_path / "out"
    counts = write_defects(out, goods, RECIPE)
    assert link_real(out, dataset) == {"bent": 2}
    assert sum(counts.values()) == 12
    made = open_dataset(str(out))
    splits = [record.split for record in made.records]
    assert (splits.count("train"), splits.count("val"), splits.count("test")) == (9, 3, 2)
    assert {record.category for record in made.records if record.split == "test"} == {"bent"}
    plan = json.loads((out / "defects.json").read_text())["pictures"]
    by_id = {record.id: record.image for record in goods}
    for line in plan:
        name = f"{line['split']}/{line['kind']}/{line['number']:05d}"
        sample = load(next(record for record in made.records if record.id.endswith(name)))
        assert np.array_equal(sample.masks[0], (sample.image != read_image(by_id[line["source"]])).any(2))
    of = {split: {line["source"] for line in plan if line["split"] == split} for split in ("train", "val")}
    assert of["train"].isdisjoint(of["val"]), "no clean picture is under both"


def test_a_killed_call_goes_on_to_the_same_files(mvtec: Path, tmp_path: Path) -> None:
    goods = good_records(open_dataset(str(mvtec)))
    write_defects(tmp_path / "whole", goods, RECIPE)
    write_defects(tmp_path / "broken", goods, RECIPE)
    lost = sorted((tmp_path / "broken").glob("images/train/*/*.png"))[2]
    lost.unlink()
    write_defects(tmp_path / "broken", goods, RECIPE)
    twin = tmp_path / "whole" / lost.relative_to(tmp_path / "broken")
    assert lost.read_bytes() == twin.read_bytes()


def test_another_recipe_in_the_folder_is_refused(mvtec: Path, tmp_path: Path) -> None:
    goods = good_records(open_dataset(str(mvtec)))
    write_defects(tmp_path / "out", goods, RECIPE)
    with pytest.raises(UsageError, match=r"holds defects with another recipe"):
        write_defects(tmp_path / "out", goods, RECIPE.model_copy(update={"seed": 1}))


def test_augmented_pictures_differ_from_their_source(mvtec: Path, tmp_path: Path) -> None:
    goods = good_records(open_dataset(str(mvtec)))
    write_defects(tmp_path / "out", goods, RECIPE.model_copy(update={"augment": True, "train": 2, "val": 0}))
    made = sorted((tmp_path / "out").glob("images/train/*/*.png"))
    assert len(made) == 2
    assert all((read_image(path) != read_image(goods[0].image)).any(2).mean() > 0.5 for path in made)


def test_too_few_clean_pictures_and_unknown_kinds_are_one_line(mvtec: Path, tmp_path: Path) -> None:
    goods = good_records(open_dataset(str(mvtec)))
    with pytest.raises(DataError, match="expected at least 2 clean pictures"):
        write_defects(tmp_path / "out", goods[:1], RECIPE)
    with pytest.raises(ValueError, match="got rust"):
        DefectRecipe(kinds={"rust": 1})


def test_a_clean_picture_on_which_nothing_can_be_seen_is_one_line_that_names_it(tmp_path: Path) -> None:
    goods = [Record(f"good/{number}", tmp_path / f"{number}.png") for number in range(4)]
    for record in goods:
        write_png(record.image, np.zeros((96, 96, 3), np.uint8))
    with pytest.raises(DataError, match=r"good/[0-3] and 3 others: bent: expected a clean picture on which it can be"):
        write_defects(tmp_path / "data", goods, DefectRecipe(train=2, kinds={"bent": 1.0}))


def test_a_dark_picture_gives_way_to_another_and_that_is_said(tmp_path: Path) -> None:
    """Four pictures of which one is black: all eight are made, two of them on one that was not planned."""
    goods = [Record(f"good/{number}", tmp_path / f"{number}.png") for number in range(4)]
    for number, record in enumerate(goods):
        pixels = np.random.default_rng(number).integers(90, 140, (96, 96, 3)) * (number > 0)
        write_png(record.image, pixels.astype(np.uint8))
    recipe, folder = DefectRecipe(train=8, kinds={"bent": 1.0}), tmp_path / "data"
    assert write_defects(folder, goods, recipe) == {"bent": 8}
    plan = json.loads((folder / "defects.json").read_text())
    planned = [f"train/{line['number']}" for line in plan["pictures"] if line["source"] == "good/0"]
    assert sorted(plan["instead"]) == sorted(planned)
    assert len(planned) == 2
    assert "good/0" not in plan["instead"].values()
    (folder / "images/train/bent/00000.png").unlink()
    write_defects(folder, goods, recipe)
    assert json.loads((folder / "defects.json").read_text()) == plan, "and outlasts a call that goes on"


def test_groups_of_clean_pictures_are_not_cut_apart(mvtec: Path, tmp_path: Path) -> None:
    """Ten pictures in three groups: the plan's sources of training and validation share no group."""
    goods = [
        dataclasses.replace(record, group=f"roll {number % 3}")
        for number, record in enumerate(good_records(open_dataset(str(mvtec))))
    ]
    of = {record.id: record.group for record in goods}
    for seed in range(3):
        out = tmp_path / str(seed)
        write_defects(out, goods, RECIPE.model_copy(update={"seed": seed, "kinds": {"patch": 1.0}, "val": 5}))
        plan = json.loads((out / "defects.json").read_text())["pictures"]
        train, val = ({of[line["source"]] for line in plan if line["split"] == split} for split in ("train", "val"))
        assert train
        assert val
        assert train.isdisjoint(val)
    with pytest.raises(DataError, match="at least 2 groups of clean pictures to make defects on, got 1"):
        write_defects(tmp_path / "one", [dataclasses.replace(record, group="all") for record in goods], RECIPE)


def test_real_defects_of_another_data_set_are_refused(mvtec: Path, tmp_path: Path) -> None:
    dataset = open_dataset(str(mvtec))
    out = tmp_path / "out"
    link_real(out, dataset)
    before = {path: path.read_bytes() for path in out.rglob("*.png")}
    assert link_real(out, dataset) == {"bent": 2}, "a second call goes on"
    assert {path: path.read_bytes() for path in out.rglob("*.png")} == before
    fewer = dataclasses.replace(dataset, records=tuple(r for r in dataset.records if not r.id.endswith("bent/001")))
    assert len(fewer) < len(dataset)
    with pytest.raises(UsageError, match="holds real defects that are not of"):
        link_real(out, fewer)
    cv2.imwrite(str(mvtec / "test/bent/000.png"), np.zeros((96, 96, 3), np.uint8))
    with pytest.raises(UsageError, match=r"holds another picture than .*000\.png; choose another folder"):
        link_real(out, dataset)


def test_real_defects_whose_file_names_would_be_equal_are_refused(mvtec: Path, tmp_path: Path) -> None:
    dataset = open_dataset(str(mvtec))
    real = next(record for record in dataset.records if record.mask is not None)
    twins = tuple(dataclasses.replace(real, id=name) for name in ("a/b-c", "a-b/c"))
    with pytest.raises(DataError, match="ids differ as file names, got a/b-c and a-b/c"):
        link_real(tmp_path / "out", dataclasses.replace(dataset, records=twins))
    clean = tuple(record for record in dataset.records if record.mask is None)
    with pytest.raises(DataError, match="expected real defects with masks for the test, got none"):
        link_real(tmp_path / "none", dataclasses.replace(dataset, records=clean))


def test_an_unknown_kind_is_one_line(mvtec: Path, tmp_path: Path) -> None:
    for name in ("sheet.png", "folder"):
        with pytest.raises(UsageError, match=r"kinds: .*expected kinds of patch, .*, got rust"):
            run_synth_defects(str(mvtec), tmp_path / name, 2, ["hole", "rust"], 0)
        assert not (tmp_path / name).exists()


def test_the_command_writes_a_gallery_or_a_data_set(mvtec: Path, tmp_path: Path) -> None:
    lines = run_synth_defects(str(mvtec), tmp_path / "gallery.png", 3, ["hole", "metal"], 0)
    assert lines == (f"wrote {tmp_path / 'gallery.png'}",)
    assert read_image(tmp_path / "gallery.png").shape == (400, 1800, 3)
    lines = run_synth_defects(str(mvtec), tmp_path / "data", 4, [], 0)
    assert lines[0].startswith(f"wrote {tmp_path / 'data'}: ")
    assert len(list((tmp_path / "data").glob("masks/train/*/*.png"))) == 4


def test_the_plan_tells_the_covered_share_and_a_damaged_one_is_one_line(mvtec: Path, tmp_path: Path) -> None:
    """Oracle: the mask files themselves. A second call finds nothing to do and leaves the plan as it is."""
    goods, recipe = good_records(open_dataset(mvtec)), DefectRecipe(train=4, kinds={"hole": 1.0})
    out = tmp_path / "out"
    write_defects(out, goods, recipe)
    plan = json.loads((out / "defects.json").read_text())
    for line, area in zip(plan["pictures"], plan["areas"], strict=True):
        mask = read_image(out / "masks" / line["split"] / line["kind"] / f"{line['number']:05d}.png")[..., 0]
        assert area == pytest.approx((mask > 0).mean(), abs=1e-6)
    write_defects(out, goods, recipe)
    assert json.loads((out / "defects.json").read_text()) == plan
    (out / "defects.json").write_text("{}")
    with pytest.raises(DataError, match=r"expected the plan of defects in .*got a damaged one"):
        write_defects(out, goods, recipe)
