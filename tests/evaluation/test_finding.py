"""What is kept of an image without prompts, and the tables. Oracles: masks and maps drawn by hand, counts by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, FloatArray, Geometry
from specialsam.core.ledger import Journal
from specialsam.core.place import here
from specialsam.core.types import Embedding, Record, Sample, Truth
from specialsam.data.content import Content
from specialsam.evaluation.finding import Find, Finding, Finds, ImageFinds, by_saliency, image_finds, measure_finds
from specialsam.evaluation.found_tables import found_table, good_level
from specialsam.evaluation.saliency import spectral_residual
from specialsam.metrics.detection import PixelCounts
from specialsam.models.nano import build_nano
from specialsam.models.segmenter import Segmenter
from specialsam.report.finding import found_lines

SIZE = (20, 30)


def square(x0: int, y0: int, side: int) -> BoolArray:
    mask = np.zeros(SIZE, np.bool_)
    mask[y0 : y0 + side, x0 : x0 + side] = True
    return mask


def sample(name: str, *masks: BoolArray) -> Sample:
    image = np.zeros((*SIZE, 3), np.uint8)
    return Sample(Record(name, Path(f"{name}.png")), image, np.array(masks, np.bool_).reshape(-1, *SIZE))


EMBEDDING = Embedding(torch.zeros(4, 8, 8), Geometry(*SIZE, 128))


def says(*masks: BoolArray, scores: Sequence[float]) -> Find:
    stack = np.array(masks, np.bool_).reshape(-1, *SIZE)
    soft = np.max([m * s for m, s in zip(stack, scores, strict=True)], axis=0, initial=0).astype(np.float32)
    values: FloatArray = np.array(scores, np.float32)
    return lambda truth, embedding: Finds(
        stack, values, np.broadcast_to(soft, SIZE).copy(), max(scores, default=0), values >= 0.5
    )


def test_what_is_kept_of_an_image_by_hand() -> None:
    """Two true squares; one is found exactly and counts, half of the other is found and does not."""
    one, other = square(0, 0, 10), square(20, 0, 10)
    half = other.copy()
    half[5:] = False
    kept = image_finds(says(one, half, scores=(0.9, 0.3)), sample("a", one, other), EMBEDDING, pixels=True)
    assert kept.objects == 2
    assert kept.found == 1
    assert kept.score == pytest.approx(0.9)
    np.testing.assert_allclose(kept.ious, [[1, 0], [0, 0.5]])
    assert kept.values["iou"] == pytest.approx(0.5)  # 100 of 200 true pixels
    assert kept.values["mae"] == pytest.approx((100 * 0.1 + 50 * 0.7 + 50) / 600)
    counts = PixelCounts.read(kept.pixels or {})
    assert counts.inside.sum() == 200
    assert len(counts.regions) == 2


def test_nothing_in_an_image_of_nothing() -> None:
    kept = image_finds(says(scores=()), sample("b"), EMBEDDING, pixels=False)
    assert (kept.objects, kept.found, kept.score, kept.values, kept.pixels) == (0, 0, 0, {}, None)
    wrong = image_finds(says(square(0, 0, 4), scores=(0.8,)), sample("b"), EMBEDDING, pixels=False)
    assert (wrong.found, wrong.values) == (1, {})
    assert np.array(wrong.ious).size == 0


def test_the_table_by_hand() -> None:
    """Three images: an object found at IoU .6, one missed, and an image of nothing with a false find below both."""
    images = [
        ImageFinds("a", 1, 0.9, [0.9], [[0.6]], 1, {"iou": 0.6, "mae": 0.1}),
        ImageFinds("b", 1, 0.6, [0.6], [[0.1]], 1, {"iou": 0.1, "mae": 0.2}),
        ImageFinds("c", 0, 0.7, [0.7], [[]], 1),
    ]
    table = found_table({"finder": images}).set_index("metric")
    assert table.loc["iou", "mean"] == pytest.approx(0.35)
    assert table.loc["iou", "n"] == 2
    assert table.loc["recall10", "mean"] == pytest.approx(0.5)
    assert table.loc["ap50", "mean"] == pytest.approx(51 / 101)  # precision 1 up to a recall of a half
    assert table.loc["ap75", "mean"] == 0
    assert table.loc["image_auroc", "mean"] == pytest.approx(0.5)  # .9 is above .7, .6 is below
    assert table.loc["false_images", "mean"] == 1
    assert "aupro" not in table.index


def test_a_failed_image_counts_as_one_where_nothing_was_found() -> None:
    good = ImageFinds("a", 1, 0.9, [0.9], [[0.8]], 1, {"iou": 0.8, "mae": 0.1})
    table = found_table({"finder": [good, ImageFinds("b", 0, error="broken")]}).set_index("metric")
    assert table.loc["iou", "mean"] == pytest.approx(0.4)
    assert table.loc["mae", "mean"] == pytest.approx(0.55)
    assert table.loc["recall10", "mean"] == pytest.approx(0.5)
    assert (table.failed == 1).all()
    assert "image_auroc" not in table.index


def test_a_failed_image_never_makes_a_number_better() -> None:
    """Two of four are ordered right by chance; a failed one counts as an object that nothing was seen of."""
    truth = np.zeros(SIZE, np.bool_)
    truth[2:5, 2:5] = True
    counts = PixelCounts.of(truth.astype(np.float32), truth).as_json()
    every = [
        ImageFinds(name, int(name in "ab"), score, pixels=counts)
        for name, score in zip("abcd", (1, 0, 1, 0), strict=True)
    ]
    failed = [ImageFinds(name, 0, error="broken") for name in "efgh"]
    tables = [found_table({"f": finds}, {"f": 0.5}).set_index("metric") for finds in (every, every + failed)]
    assert [table.loc["image_auroc", "mean"] for table in tables] == pytest.approx([0.5, (0.5 * 2 + 0.25 * 4) / 6])
    assert [table.loc["iou_good", "mean"] for table in tables] == pytest.approx([1, 1 / 3])
    assert np.isnan(good_level(failed))


def test_a_pixel_threshold_of_good_images() -> None:
    """By hand: of 600 pixels a thousandth is none, so that the threshold lies just above the highest value."""
    soft = np.full(SIZE, 0.25, np.float32)
    soft[0, 0] = 0.5
    counts = PixelCounts.of(soft, np.zeros(SIZE, np.bool_)).as_json()
    level = good_level([ImageFinds("a", 0, pixels=counts)])
    assert 0.5 < level < 0.51
    assert 0.25 < good_level([ImageFinds("a", 0, pixels=counts)], 0.01) < 0.26


def test_what_stands_out_is_found_without_learning() -> None:
    """Oracle: a bright disc on an even ground, at which the surest piece must lie."""
    image = np.full((60, 80, 3), 90, np.uint8)
    rows, columns = np.mgrid[:60, :80]
    disc = (columns - 50) ** 2 + (rows - 30) ** 2 < 64
    image[disc] = 250
    seen = Sample(Record("d", Path("d.png")), image, disc[None])
    found = by_saliency(spectral_residual)(seen, EMBEDDING)
    assert (found.masks[0] & disc).any()
    assert found.soft.shape == (60, 80)


def test_a_run_keeps_what_it_has_and_repeats_an_error(tmp_path: Path) -> None:
    """Oracle: how often a finder was asked; a second call asks nothing, another finder's digest asks again."""
    asked: list[str] = []
    samples = {"a": sample("a", square(0, 0, 8)), "b": sample("b"), "c": sample("c", square(0, 0, 8))}

    def truth(record: Record) -> Truth:
        if record.id == "c":
            raise DataError("c: damaged")
        return samples[record.id]

    def ask(one: Truth, embedding: Embedding) -> Finds:
        asked.append(one.id)
        return says(square(0, 0, 8), scores=(0.7,))(one, embedding)

    records = [one.record for one in samples.values()]
    nano = Segmenter("nano", build_nano("conv", 128).eval(), 128)
    content = {name: Content(name, name) for name in samples}
    wanted = Finding(records, content, truth, lambda *_: EMBEDDING, nano, False)
    place = here("cpu")

    def run(made: str) -> dict[str, list[ImageFinds]]:
        return measure_finds({"x": (ask, made)}, wanted, Journal(tmp_path / "finds.jsonl"), place)

    first = run("one")["x"]
    assert [one.record for one in first] == ["a", "b", "c"]
    assert first[2].error == "c: damaged"
    assert asked == ["a", "b"]
    assert [asdict(one) for one in run("one")["x"]] == [asdict(one) for one in first]
    assert asked == ["a", "b"]
    run("two")
    assert asked == ["a", "b", "a", "b"]


def test_the_page_shows_what_was_measured_and_leaves_out_what_was_not() -> None:
    images = [ImageFinds("a", 1, 0.9, [0.9], [[0.6]], 1, {"iou": 0.6}, seconds=0.0123)]
    shown = found_lines(found_table({"one": images, "two": images}))
    assert shown is not None
    assert shown.finders == ("one", "two")
    titles = [line.title for line in shown.lines]
    assert titles[0] == "IoU of all that is found"
    assert not any("AUROC" in title for title in titles)
    assert shown.lines[-1].cells[0] == ("0.012", "")
    assert shown.images == ((1, 0), (1, 0))
    broken = ImageFinds("b", 1, error="expected an image, got none")
    shown = found_lines(found_table({"one": [*images, broken], "two": images}))
    assert shown is not None
    assert shown.images == ((2, 1), (1, 0))
    assert found_lines(None) is None
    assert math.isnan(found_table({"one": images}).set_index("metric").loc["iou", "low"])  # one image has no interval
