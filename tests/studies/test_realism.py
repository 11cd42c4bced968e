"""The sim-to-real meter: vectors by hand, clouds whose distance is known, and a whole tiny study that goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from specialsam.core.errors import DataError, UsageError
from specialsam.core.geometry import Geometry
from specialsam.core.types import Embedding
from specialsam.report.facts import rows_of
from specialsam.studies.carpet import realism, transfer
from specialsam.studies.carpet.meter import facts, terminal
from specialsam.studies.carpet.realism import (
    ALL,
    TOO_FEW,
    Origin,
    Region,
    auc,
    nearest_ratio,
    region_vector,
    separability,
)
from specialsam.studies.carpet.realism_data import check_kinds
from specialsam.studies.carpet.realism_page import meter_sheet
from specialsam.studies.carpet.realism_run import RealismSettings, run_realism


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer folds and halves: what is tested here does not hang on their number."""
    monkeypatch.setattr(realism, "REPEATS", 1)
    monkeypatch.setattr(realism, "HALVES", 3)
    monkeypatch.setattr(realism, "BOOTSTRAP", 200)


def embedding(values: np.ndarray, height: int = 128, width: int = 128) -> Embedding:
    """An embedding (1, 8, 8) of a picture seen by a model of side 128: 16 px a cell."""
    return Embedding(torch.from_numpy(values.astype(np.float32))[None], Geometry(height, width, 128))


def region(
    origin: Origin, kind: str, number: int, vector: Sequence[float] | np.ndarray, group: str = "", area: float = 0.01
) -> Region:
    name = f"{origin}/{kind}/{number}"
    return Region(origin, kind, name, group or name, np.asarray(vector, np.float32), area)


def cloud(
    origin: Origin, kind: str, count: int, shift: float, seed: int, groups: Sequence[str] = (), area: float = 0.01
) -> list[Region]:
    """Normal vectors of 6 channels around `shift` in the first."""
    vectors = np.random.default_rng(seed).normal(size=(count, 6)) + np.eye(6)[0] * shift
    return [region(origin, kind, i, v, groups[i] if groups else "", area) for i, v in enumerate(vectors)]


def test_a_vector_is_inside_less_ground_weighted_by_area() -> None:
    """Oracle: by hand. The mask covers cell (3, 3) in full and a quarter of (3, 4): (8 + 4 / 4) / 1.25 - 1."""
    values = np.ones((8, 8))
    values[3, 3], values[3, 4] = 8, 4
    mask = np.zeros((128, 128), np.bool_)
    mask[48:64, 48:68] = True
    assert region_vector(embedding(values), mask) == pytest.approx([(8 + 4 / 4) / 1.25 - 1])


def test_light_that_is_added_everywhere_cancels_and_far_cells_do_not_count() -> None:
    rng = np.random.default_rng(0)
    values, mask = rng.normal(size=(8, 8)), np.zeros((128, 128), np.bool_)
    mask[5:9, 5:9] = True
    far = values.copy()
    far[5:, 5:] += 100
    expected = region_vector(embedding(values), mask)
    assert region_vector(embedding(values + 7), mask) == pytest.approx(expected, abs=1e-5)
    assert region_vector(embedding(far), mask) == pytest.approx(expected, abs=1e-5)


def test_ground_lies_on_the_image_and_not_on_padding() -> None:
    """A picture of 64 x 128 px fills the upper four rows of cells; what the padding holds must not count."""
    values, mask = np.ones((8, 8)), np.zeros((64, 128), np.bool_)
    mask[48:64, 48:64] = True
    values[4:] = 1000
    assert region_vector(embedding(values, 64, 128), mask) == pytest.approx([0])


def test_an_empty_mask_and_one_without_ground_are_refused() -> None:
    full = np.ones((128, 128), np.bool_)
    with pytest.raises(DataError, match="empty mask"):
        region_vector(embedding(np.ones((8, 8))), ~full)
    with pytest.raises(DataError, match="touches every cell"):
        region_vector(embedding(np.ones((8, 8))), full)


def found_auc(first: list[Region], second: list[Region], seed: int = 0) -> tuple[float, float, float]:
    vectors, lengths, _, labels, groups = realism._stacked(first, second)
    found = auc(vectors, lengths, labels, groups, seed)
    return found.mean, found.low, found.high


def test_equal_clouds_cannot_be_told_apart_and_far_ones_always_can() -> None:
    """Oracle: 0.5 and 1; between them the AUC of two normals 1.5 apart, Phi(1.5 / sqrt 2) = 0.856."""
    real = cloud("real", "a", 60, 0, 1)
    mean, low, high = found_auc(real, cloud("synthetic", "s", 60, 0, 2))
    assert low < 0.5 < high
    assert abs(mean - 0.5) < 0.12
    assert found_auc(real, cloud("synthetic", "s", 60, 9, 3)) == pytest.approx((1, 1, 1))
    found = [found_auc(cloud("real", "a", 60, 0, 20 + n), cloud("synthetic", "s", 60, 1.5, 30 + n)) for n in range(6)]
    assert np.mean([mean for mean, _, _ in found]) == pytest.approx(0.856, abs=0.06)
    assert sum(low < 0.856 < high for _, low, high in found) >= 4


def test_a_shell_is_told_from_its_middle_by_length() -> None:
    """Defects that differ from their ground in any direction: no plane divides them from what hardly differs."""
    shell = np.random.default_rng(5).normal(size=(40, 6))
    shell = 5 * shell / np.linalg.norm(shell, axis=1, keepdims=True)
    real = [region("real", "a", i, vector) for i, vector in enumerate(shell)]
    assert found_auc(real, cloud("clean", "clean", 40, 0, 6))[0] > 0.95


def test_what_shares_a_ground_never_stands_on_both_sides_of_a_fold() -> None:
    """Copies of one vector a ground would be recognised if they were split; grouped they are as good as noise."""
    rng = np.random.default_rng(7)
    grounds = rng.normal(size=(8, 40))
    copies = [region("synthetic", "s", i, grounds[i % 8], f"g{i % 8}") for i in range(64)]
    real = [region("real", "a", i, rng.normal(size=40)) for i in range(30)]
    assert found_auc(real, copies)[0] < 0.8
    alone = [region("synthetic", "s", i, one.vector) for i, one in enumerate(copies)]
    assert found_auc(real, alone)[0] > 0.9
    labels = np.array([True] * 30 + [False] * 64)
    names = np.array([one.group for one in (*real, *copies)])
    folds = realism._folds(labels, names, 4, np.random.default_rng(0))
    assert all(len(set(folds[names == name])) == 1 for name in names)
    assert all({True, False} == set(labels[folds == fold]) for fold in range(4))


def test_the_nearest_ratio_is_one_for_the_same_cloud_and_grows_with_distance() -> None:
    real = np.random.default_rng(8).normal(size=(40, 3))
    same, far = np.random.default_rng(9).normal(size=(200, 3)), real + np.array([50, 0, 0])
    found = nearest_ratio(real, same)
    assert found.low < 1.05
    assert found.high > 0.95
    assert nearest_ratio(real, far).low > 10


def test_the_nearest_of_a_few_is_its_expectation_over_all_choices() -> None:
    """Oracle: every subset counted."""
    distances = np.random.default_rng(10).uniform(size=(3, 7))
    expected = [np.mean([min(chosen) for chosen in combinations(row, 4)]) for row in distances]
    assert realism._nearest(distances, 4) == pytest.approx(expected)
    assert realism._nearest(distances, 7) == pytest.approx(distances.min(1))


def test_the_table_answers_every_question_and_says_where_there_are_too_few() -> None:
    real = [*cloud("real", "a", 12, 0, 11), *cloud("real", "b", 12, 0, 12), *cloud("real", "rare", 3, 0, 13)]
    grounds = [f"g{number}" for number in range(20)]
    near = cloud("synthetic", "near", 20, 0, 14, grounds)
    far = cloud("synthetic", "far", 20, 8, 15, grounds, area=0.2)
    clean = cloud("clean", "clean", 27, 4, 16, [one.group for one in real])
    table = pd.DataFrame(separability([*real, *near, *far, *clean], seed=1))
    kinds = {row["name"]: row for row in rows_of(table[table.question == "kind"])}
    assert set(kinds) == {"near", "far", ALL}
    assert kinds["far"]["auc"] > 0.98 > 0.75 > kinds["near"]["auc"]
    assert kinds["far"]["size"] == pytest.approx(1)
    assert kinds["far"]["nearest"] > 1.5 > kinds["near"]["nearest"]
    assert all(row["low"] <= row["auc"] <= row["high"] for row in kinds.values())
    assert table[table.question == "clean"]["auc"].item() > 0.9
    assert 0.2 < table[table.question == "real halves"]["auc"].item() < 0.8
    rare = table[(table.against == "rare") | ((table.question == "real type") & (table.name == "rare"))]
    assert set(rare.note) == {TOO_FEW}
    assert len(rare) == 4
    assert rare["auc"].isna().all()
    pd.testing.assert_frame_equal(table, pd.DataFrame(separability([*real, *near, *far, *clean], seed=1)))


def cloth(root: Path, defects: int = 4) -> Path:
    """A tiny category: 6 clean woven pictures, and two types of real defects, bright and dark squares."""
    rows, columns = np.mgrid[:96, :96]
    for number in range(6 + 2 * defects):
        rng = np.random.default_rng(number)
        wave = 120 + 30 * np.sin(rows / 3) + 30 * np.sin(columns / 3) + rng.normal(0, 6, (96, 96))
        kind = "good" if number < 6 else ("bright", "dark")[number % 2]
        mask = np.zeros((96, 96), np.uint8)
        if kind != "good":
            top, left = rng.integers(20, 60, 2)
            mask[top : top + 14, left : left + 10] = 255
            wave[mask > 0] = 235 if kind == "bright" else 15
            write(root / "ground_truth" / kind / f"{number:03d}_mask.png", mask)
        place = root / ("train" if kind == "good" else "test") / kind / f"{number:03d}.png"
        write(place, np.repeat(wave.clip(0, 255).astype(np.uint8)[..., None], 3, 2))
    return root


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_a_tiny_study_runs_goes_on_and_repeats(tmp_path: Path) -> None:
    """Oracle: finished cells keep their line and a second run its numbers; real defects are counted by type."""
    data, out = f"mvtec:{cloth(tmp_path / 'cloth')}", tmp_path / "out"
    first = run_realism(data, out, "nano", RealismSettings(("patch", "thread"), count=4, epochs=1))
    cells = (out / "cells.jsonl").read_text().splitlines()
    assert [json.loads(line.split(" ", 1)[1])[0] for line in cells] == ["patch", "thread", "all", "blind decoder"]
    gains = pd.read_csv(out / "transfer.csv")
    assert dict(zip(gains["type"], gains["n"], strict=True)) == {"bright": 4, "dark": 4, "all": 8}
    assert len(gains) == 4 * 3
    assert np.allclose(gains["tuned"] - gains["base"], gains["gain"])
    again = run_realism(data, out, "nano", RealismSettings(("patch", "thread"), count=4, epochs=1))
    assert cells == (out / "cells.jsonl").read_text().splitlines()
    pd.testing.assert_frame_equal(first.table, again.table)
    told = json.loads((out / "realism.json").read_text())
    assert told["headline"].startswith("Of 2 synthetic kinds")
    page = (out / "realism.html").read_text()
    assert told["headline"] in page
    assert "Which kind helps which type?" in page
    assert terminal(again).splitlines()[1].split()[0] in {"patch", "thread"}
    assert {path.name for path in (out / "figures").iterdir()} == {
        *("separability.png", "types.png", "transfer.png", "real-defects.png", "synthetic-defects.png")
    }


def test_a_mix_of_kinds_sees_as_many_grounds_as_one() -> None:
    """Picture 7 of every kind lies on clean picture 7: each turn takes the next number."""
    parts = [[(kind, number) for number in range(40)] for kind in range(13)]
    mixed = transfer._mixed(parts)
    assert [number for _, number in mixed] == list(range(40))
    assert {kind for kind, _ in mixed} == set(range(13))


def test_without_transfer_nothing_is_tuned(tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = RealismSettings(("patch",), count=4, transfer=False)
    found = run_realism(f"mvtec:{cloth(tmp_path / 'cloth')}", out, "nano", settings)
    assert found.transfer is None
    assert [name for name, _ in facts(found)] == ["told from real defects (AUC)", "for comparison (AUC)"]
    assert facts(found)[0][1].startswith("patch ")
    assert meter_sheet(found).image.shape[2] == 3
    assert not (out / "cells.jsonl").exists()
    assert not (out / "transfer.csv").exists()
    assert "Which kind helps which type?" not in (out / "realism.html").read_text()


def test_what_cannot_be_measured_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="got dirt"):
        check_kinds(("patch", "dirt"), 10)
    with pytest.raises(UsageError, match="at least 4 pictures"):
        check_kinds((), 3)
    settings = RealismSettings(("patch",), count=4)
    with pytest.raises(DataError, match="at least 4 real defects with masks, got 2"):
        run_realism(f"mvtec:{cloth(tmp_path / 'cloth', 1)}", tmp_path / "out", "nano", settings)
