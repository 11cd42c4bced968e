"""Figures have axes that are named and legends that are filled; pictures colour what masks drawn by hand say."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import report_builder as build
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from specialsam.core.errors import DataError
from specialsam.report.curves import training_figure
from specialsam.report.facts import Comparison, History
from specialsam.report.figures import categories_figure, models_figure, sizes_figure
from specialsam.report.gallery import plates, save_figures
from specialsam.report.palette import FALSE_ALARM, HIT, LIGHT, MISS, to_svg
from specialsam.report.pictures import _window, data_uris, panels


def legends(figure: Figure) -> list[str]:
    boxes = [*figure.legends, *(axis.get_legend() for axis in figure.axes if axis.get_legend())]
    return [text.get_text() for box in boxes for text in box.get_texts()]


def test_every_figure_has_axis_labels_and_a_legend() -> None:
    wanted = {
        "models": {"Base", "Specialist", "Rival: disc of median size", "Rival: filled box"},
        "pairs": {"no change"},
        "gains": {"gained", "lost"},
        "training": {"training", "validation", "base (47.1)", "kept: epoch 10", "warning"},
        "categories": {"95 % interval", "better than base"},
        "sizes": {"objects"},
    }
    drawn = plates(build.report())
    assert set(drawn) == set(wanted)
    for name, plate in drawn.items():
        assert plate.figure is not None, name
        assert plate.alt
        assert wanted[name] <= set(legends(plate.figure)), name
        assert any(axis.get_xlabel() for axis in plate.figure.axes), name
        assert all(axis.get_ylabel() for axis in plate.figure.axes) or name == "categories"


def test_bars_stand_at_their_means() -> None:
    """Oracle: the heights are the summary's means in percent, bars left out where a rival has no such prompt."""
    report = build.report()
    assert report.summary is not None
    axis = models_figure(report).axes[0]
    heights = sorted(round(float(bar.get_height()), 6) for bar in axis.patches)  # type: ignore[attr-defined]
    rows = report.summary[(report.summary["metric"] == "iou") & report.summary["output"].isin(["single", "rival"])]
    assert heights == sorted(round(100 * value, 6) for value in rows["mean"])


def test_categories_are_sorted_and_long_lists_show_both_ends() -> None:
    many = pd.concat([build.categories(0.1).assign(category=f"kind {i}", gain=i / 100) for i in range(60)])
    many = many.drop_duplicates("category")
    axis = categories_figure(build.report(by_category=many)).axes[0]
    names = [label.get_text().split("  ")[0] for label in axis.get_yticklabels()]
    assert names == [f"kind {i}" for i in (*range(20), *range(40, 60))]
    assert "20 best and the 20 worst of 60" in plates(build.report(by_category=many))["categories"].caption


def test_training_without_iou_or_with_epoch_zero_only() -> None:
    figure = training_figure(History(({"epoch": 1, "train_loss": 0.5},)))
    assert any("not measured" in text.get_text() for text in figure.axes[1].texts)
    with pytest.raises(DataError, match="at least one trained epoch"):
        training_figure(History(({"epoch": 0, "val_iou": 0.4},)))
    assert History(({"epoch": 0, "val_iou": 0.4},)).base_iou == 0.4


@pytest.mark.parametrize("areas", [[0.01], [1.0, 1.0], [1e-6, 0.9]])
def test_sizes_of_odd_lists(areas: list[float]) -> None:
    figure = sizes_figure(np.array(areas))
    counts = sum(bar.get_height() for bar in figure.axes[0].patches)  # type: ignore[attr-defined]
    assert counts == len(areas)


def test_svg_uses_the_page_and_no_colour_of_its_own() -> None:
    plate = plates(build.report())["models"]
    assert plate.figure is not None
    svg = to_svg(plate.figure, "models")
    assert svg.startswith("<svg ")
    assert "viewBox" in svg
    assert "var(--tuned)" in svg
    assert not any(colour in svg for colour in LIGHT.values())
    assert "DejaVu" not in svg
    assert "<metadata" not in svg


def test_figures_as_files(tmp_path: Path) -> None:
    paths = save_figures(build.report(), tmp_path / "figures")
    names = [path.name for path in paths]
    assert names[:6] == ["models.png", "pairs.png", "gains.png", "training.png", "categories.png", "sizes.png"]
    assert names[6] == "side-by-side-01-test-stone_fish-0011.png"
    assert sorted(names) == sorted(path.name for path in (tmp_path / "figures").iterdir())
    for path in paths:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.width > 600


def by_hand(**changes: object) -> Comparison:
    """200 x 200 grey, columns: truth 0-99, base 50-149, specialist right; so hit 50-99, miss 0-49, alarm 100-149."""
    truth, base = np.zeros((200, 200), bool), np.zeros((200, 200), bool)
    truth[:, :100], base[:, 50:150] = True, True
    image = np.full((200, 200, 3), 90, np.uint8)
    made = Comparison("r", "best gain", "interior", image, truth, base, truth, 1 / 3, 1.0, 2 / 3)
    return replace(made, **changes)  # type: ignore[arg-type]


def nearest(colour: np.ndarray) -> str:
    dim = (68, 68, 68)
    named = {"hit": HIT, "miss": MISS, "alarm": FALSE_ALARM, "none": dim}
    mixed = {
        name: np.array(value) if name == "none" else 0.65 * np.array(value) + 0.35 * np.array(dim)
        for name, value in named.items()
    }
    return min(mixed, key=lambda name: float(np.abs(mixed[name] - colour).sum()))


def test_error_colours_say_what_the_masks_say() -> None:
    _, _, base, tuned = panels(by_hand(), width=200)
    assert [nearest(base.image[100, x]) for x in (25, 75, 125, 175)] == ["miss", "hit", "alarm", "none"]
    assert [nearest(tuned.image[100, x]) for x in (25, 75, 125, 175)] == ["hit", "hit", "none", "none"]
    assert base.note == "IoU 33.3"


def test_no_answer_is_all_miss_and_says_so() -> None:
    _, _, base, _ = panels(by_hand(base=None), width=200)
    assert base.note == "no answer"
    assert [nearest(base.image[100, x]) for x in (25, 125)] == ["miss", "none"]


def test_an_empty_truth_and_empty_answers_are_drawn() -> None:
    empty = np.zeros((200, 200), bool)
    row = panels(by_hand(truth=empty, base=empty, tuned=empty), width=200)
    assert {panel.image.shape for panel in row} == {(200, 200, 3)}


def test_prompts_are_drawn_where_they_are() -> None:
    plain = panels(by_hand(), width=200)[0].image.astype(int)
    points = {"points": np.array([[150, 40]], np.float32), "labels": np.array([1])}
    changed = np.abs(panels(by_hand(**points), width=200)[0].image - plain).sum(2) > 0
    rows, columns = np.nonzero(changed)
    assert (rows.mean(), columns.mean()) == pytest.approx((40, 150), abs=1)
    boxed = panels(by_hand(box=np.array([20, 60, 120, 160], np.float32)), width=200)[0].image.astype(int)
    rows, columns = np.nonzero(np.abs(boxed - plain).sum(2) > 0)
    assert (rows.min(), rows.max()) == pytest.approx((60, 160), abs=3)
    assert (columns.min(), columns.max()) == pytest.approx((20, 120), abs=3)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(8, 90), st.integers(8, 90), st.integers(0, 89), st.integers(0, 89), st.integers(1, 30), st.booleans()
)
def test_the_window_holds_everything_and_stays_inside(
    height: int, width: int, top: int, left: int, side: int, click: bool
) -> None:
    truth = np.zeros((height, width), bool)
    truth[min(top, height - 1) :, min(left, width - 1) :][:side, :side] = True
    points = np.array([[width - 1, 0]], np.float32) if click else None
    made = Comparison(
        "r", "failure", "s", np.zeros((height, width, 3), np.uint8), truth, None, truth, 0, 1, 1, points=points
    )
    x0, y0, x1, y1 = _window(made)
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    outside = truth.copy()
    outside[y0:y1, x0:x1] = False
    assert not outside.any()
    assert not click or (x0 <= width - 1 < x1 and y0 == 0)
    for panel in panels(made, 120):
        assert panel.image.shape[1] <= 120
        assert panel.image.shape[0] <= 160


def test_pictures_keep_to_their_budget_and_none_goes_unsaid() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (120, 120, 3)).astype(np.uint8) for _ in range(6)]
    fine = data_uris(images, 10_000_000)
    assert len(fine) == 6
    with Image.open(io.BytesIO(base64.b64decode(str(fine[0]).split(",")[1]))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (120, 120))
    tight = data_uris(images, 30_000)
    assert sum(len(text or "") for text in tight) <= 30_000
    assert 0 < tight.count(None) < 6
    assert data_uris([]) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((4, 4), np.uint8)}, "uint8"),
        ({"truth": np.zeros((4, 4), bool)}, "truth"),
        ({"base": np.zeros((200, 200), np.uint8)}, "base"),
        ({"points": np.zeros(2, np.float32)}, "points"),
        ({"labels": np.array([1])}, "label"),
        ({"box": np.zeros((1, 4), np.float32)}, "box"),
    ],
)
def test_comparisons_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        by_hand(**changes)
