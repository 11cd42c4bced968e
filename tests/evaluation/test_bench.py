"""The bench on photographs: identical boxes are cut once, threads change nothing, a sample of segments is stable.

Oracles: one GrabCut at a time, IoU counted by hand, and small BSDS500 and CAMO trees drawn here.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from specialsam.core.errors import DataError, UsageError
from specialsam.core.geometry import BoolArray, ImageArray
from specialsam.core.masks import interior_point
from specialsam.core.types import Prompts
from specialsam.data.images import read_image, read_mask_pixels
from specialsam.data.splits import stable_hash
from specialsam.evaluation import region_rivals
from specialsam.evaluation.bench import BenchSettings, best_annotated, bsds_images, run_bench, sampled, segments
from specialsam.evaluation.clicking import clicks_needed
from specialsam.evaluation.region_rivals import felzenszwalb_maps, grabcut, grabcuts, regions_under
from specialsam.models.load import load_model
from specialsam.prompts import correction_clicks


def disc_photo(seed: int = 0, side: int = 64) -> tuple[ImageArray, BoolArray]:
    """A noisy photograph of a bright disc on dark ground, uint8 (side, side, 3), and the disc, bool (side, side)."""
    rows, columns = np.mgrid[:side, :side]
    inside = (rows - side // 2) ** 2 + (columns - side // 2) ** 2 < (side // 4) ** 2
    noise = np.random.default_rng(seed).integers(0, 40, (side, side, 3))
    return (noise + np.where(inside, 170, 30)[..., None]).astype(np.uint8), inside


def bsds_tree(root: Path) -> Path:
    """One image with two annotators in train, two in val: the disc and its ground, the ground once in two halves."""
    for split, names in (("train", ("11",)), ("val", ("21", "22"))):
        (root / "images" / split).mkdir(parents=True)
        (root / "masks" / split).mkdir(parents=True)
        for name in names:
            image, inside = disc_photo(int(name))
            halves = np.where(inside, 3, 1 + (np.arange(64) >= 32))
            cv2.imwrite(str(root / "images" / split / f"{name}.jpg"), image)
            for number, annotated in enumerate((np.where(inside, 2, 1), halves)):
                cv2.imwrite(str(root / "masks" / split / f"{name}_a{number}.png"), annotated.astype(np.uint8))
    return root


def test_grabcut_of_many_boxes_is_grabcut_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    image, inside = disc_photo()
    boxes = np.array([[14, 14, 50, 50], [10, 12, 40, 55], [14.2, 14, 50, 50], [5, 5, 60, 60]], np.float32)
    each = np.stack([grabcut(image, box) for box in boxes])
    seen: list[tuple[float, ...]] = []

    def counted(picture: ImageArray, box: np.ndarray) -> BoolArray:
        seen.append(tuple(box.tolist()))
        return grabcut(picture, box)

    monkeypatch.setattr(region_rivals, "grabcut", counted)
    for workers in (1, 3):
        assert np.array_equal(grabcuts(image, boxes, workers), each)
    assert sorted(seen) == sorted(2 * [(14.0, 14.0, 50.0, 50.0), (10.0, 12.0, 40.0, 55.0), (5.0, 5.0, 60.0, 60.0)])
    assert (each[0] & inside).sum() / (each[0] | inside).sum() > 0.95
    assert grabcuts(image, np.zeros((0, 4), np.float32)).shape == (0, 64, 64)


def test_graph_regions_hold_their_click() -> None:
    image, inside = disc_photo()
    regions = regions_under(felzenszwalb_maps(image), np.array([32, 32], np.float32))
    assert regions[:, 32, 32].all()
    assert max((r & inside).sum() / (r | inside).sum() for r in regions) > 0.9


def test_a_sample_of_segments_is_stable_and_in_order() -> None:
    truth = np.stack([np.arange(20) == index for index in range(20)])[:, None]
    few = sampled(truth, "3096", 5)
    places = few[:, 0].argmax(-1).tolist()
    assert len(places) == 5
    assert places == sorted(places)
    assert np.array_equal(few, sampled(truth, "3096", 5))
    assert set(places) <= set(sampled(truth, "3096", 6)[:, 0].argmax(-1).tolist())
    assert places != sampled(truth, "8023", 5)[:, 0].argmax(-1).tolist()
    assert sampled(truth, "3096", None) is truth


def test_a_click_counts_by_the_annotator_it_suits_best() -> None:
    maps = [np.array([[1, 1, 2, 2]]), np.array([[1, 1, 1, 2]])]
    assert segments(maps).shape == (4, 1, 4)
    mask = np.array([[[True, True, True, False]]])
    assert best_annotated(mask, np.array([0, 0], np.float32), maps) == 1.0  # the second annotator's, exactly
    assert best_annotated(mask, np.array([3, 0], np.float32), maps) == 0.25  # columns 2 and 3 against 0 to 2


def test_bench_measures_the_same_segments_for_all_and_says_so(tmp_path: Path) -> None:
    table = tmp_path / "bench.csv"
    text = run_bench("nano", bsds_tree(tmp_path / "bsds"), None, BenchSettings(2, 2), table).text
    assert text.startswith("measured: 2 images by stable hash, at most 2 segments of each by stable hash")
    rows = pd.read_csv(table)
    scales = [f"Felzenszwalb (scale {scale})" for scale in (100, 200, 400, 700, 1000)]
    best = "Felzenszwalb (best of 5)"
    assert set(rows["model"]) == {"nano", "disc of median size", "filled box", "GrabCut", best, *scales}
    means = rows.set_index("model")["mean"]
    assert means[best] >= max(means[scale] for scale in scales)
    assert (rows["n"] == 2).all()
    assert rows["subset"].str.contains("at most 2 segments").all()
    without = run_bench("nano", tmp_path / "bsds", None, BenchSettings(rivals=False)).text
    assert "GrabCut" not in without
    assert without.startswith("measured: every image and segment")


def test_the_click_curve_its_noc_and_a_second_look(tmp_path: Path) -> None:
    """Oracle: the loop of clicks written out here, with the model's own decode."""
    root, table = bsds_tree(tmp_path / "bsds"), tmp_path / "bench.csv"
    text = run_bench("nano", root, None, BenchSettings(1, 1, rivals=False, clicks=4, zoom=True), table).text
    rows = pd.read_csv(table).set_index(["strategy", "output"])
    assert {("4 clicks", "single"), ("1 click", "single"), ("click", "zoom"), ("box", "zoom")} <= set(rows.index)
    pairs = sorted(bsds_images(root, "val"), key=lambda pair: stable_hash(pair[0].stem))
    path, files = pairs[0]
    truth = sampled(segments([read_mask_pixels(file) for file in files]), path.stem, 1)
    nano = load_model("nano")
    embedding, curve = nano.encode(read_image(path)), []
    prompts = Prompts("click", points=np.array([[interior_point(truth[0])]], np.float32), labels=np.ones((1, 1), int))
    for _ in range(4):
        answer = nano.decode(embedding, prompts)
        curve.append(float((answer.masks()[0, 0] & truth[0]).sum() / (answer.masks()[0, 0] | truth[0]).sum()))
        prompts = correction_clicks(truth, answer.masks()[:, 0], prompts, None, answer.logits[:, 0].numpy())
    own = rows[rows["model"] == "nano"]["mean"]
    assert [own[f"{n} click{'s' if n > 1 else ''}", "single"] for n in range(1, 5)] == pytest.approx(curve, abs=1e-5)
    needed = next((n for n, value in enumerate(curve, 1) if value >= 0.85), 4)
    assert f"bsds500: clicks to 85%: {needed:.2f}" in text


def test_clicks_needed_is_the_first_that_reaches() -> None:
    curve = np.array([0.2, 0.86, 0.84, 0.91], np.float32)
    assert [clicks_needed(curve, target) for target in (0.1, 0.85, 0.9, 0.95)] == [1, 2, 4, 4]


def test_wrong_folders_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--bsds or --camo"):
        run_bench("nano", None, None, BenchSettings(rivals=False))
    with pytest.raises(DataError, match="images/val"):
        run_bench("nano", tmp_path, None, BenchSettings(rivals=False))
