"""Prompts of falling quality, the clicks that a user needs, and whether predicted IoU can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.advice.probes.calibration import reliability
from specialsam.advice.probes.promptability import (
    BACKGROUND,
    BOX_SCALE,
    BOX_SHIFT,
    CLICK_DEPTH,
    CLICK_NOISE,
    LEVELS,
    MOST_OBJECTS,
    background_click,
    changed_box,
    click_at_depth,
    clicks_to,
    image_means,
    look,
    moved_click,
    object_size,
    promptability,
)
from specialsam.advice.subject import Subject
from specialsam.core.errors import DataError, UsageError
from specialsam.core.geometry import BoolArray, Geometry
from specialsam.core.masks import interior_point, tight_boxes
from specialsam.core.types import Dataset, Embedding, Prediction, Prompts, Record, Sample
from specialsam.evaluation.evaluate import live
from specialsam.models.load import load_model
from specialsam.models.segmenter import SINGLE, Segmenter

torch.set_num_threads(1)
SIDE = 64
WHOLE = 252 / 256
"""IoU of a 16 px square given exactly in logits: the upsampling cuts its four corners by a pixel each."""


class Flood(Segmenter):
    """A segmenter whose answers are known: the bright square under the click, the filled box, nothing elsewhere.

    The "embedding" is the label map of the squares at the resolution of the logits; correction clicks change nothing
    but the predicted IoU, which is always 0.75.
    """

    @property
    def encoder_id(self) -> str:  # type: ignore[override]
        return "flood"

    def decode_each(
        self, embeddings: Sequence[Embedding], prompts: Sequence[Prompts], outputs: slice = SINGLE
    ) -> list[Prediction]:
        return [self.decode(embedding, asked) for embedding, asked in zip(embeddings, prompts, strict=True)]

    def decode(self, embedding: Embedding, prompts: Prompts, multimask: bool = False) -> Prediction:
        frame = embedding.geometry
        labels = embedding.tensor[0]
        logits = torch.full((len(prompts), 1, frame.logits_side, frame.logits_side), -9.0)
        for index in range(len(prompts)):
            if prompts.boxes is not None:
                x0, y0, x1, y1 = (frame.boxes_to_model(prompts.boxes[index]) / 4).tolist()
                logits[index, 0, round(y0) : round(y1 + 0.25), round(x0) : round(x1 + 0.25)] = 9.0
            elif prompts.points is not None:
                x, y = (frame.points_to_model(prompts.points[index, 0]) / 4).astype(int).tolist()
                if labels[y, x]:
                    logits[index, 0][labels == labels[y, x]] = 9.0
        return Prediction(logits, torch.full((len(prompts), 1), 0.75), frame)


def squares(number: int, count: int = 2, empty: bool = False) -> Sample:
    """`count` squares of 16 px on a grid of 4 px cells, in an image of 64 px."""
    masks = np.zeros((0 if empty else count, SIDE, SIDE), np.bool_)
    for index in range(len(masks)):
        y, x = 4 + 32 * (index // 2) + 4 * (number % 2), 4 + 32 * (index % 2)
        masks[index, y : y + 16, x : x + 16] = True
    return Sample(Record(f"r{number}", Path(f"{number}.png")), np.zeros((SIDE, SIDE, 3), np.uint8), masks)


def embed(sample: Sample, segmenter: Segmenter) -> Embedding:
    labels = torch.zeros(1, SIDE // 4, SIDE // 4)
    for index, mask in enumerate(sample.masks, 1):
        labels[0][torch.from_numpy(mask[::4, ::4])] = index
    return Embedding(labels, Geometry(SIDE, SIDE, SIDE))


def subject_of(samples: list[Sample]) -> tuple[list[Record], Subject]:
    by_id = {sample.id: sample for sample in samples}
    records = tuple(sample.record for sample in samples)
    dataset = Dataset("squares", Path(), "folder", records)
    model: Any = Flood("flood", torch.nn.Module(), SIDE)
    return list(records), Subject(dataset, {}, lambda record: by_id[record.id], model, embed)


def flood() -> Flood:
    return Flood("flood", torch.nn.Module(), SIDE)


@st.composite
def blobs(draw: st.DrawFn) -> BoolArray:
    """One to three filled ellipses in an image of 24 to 90 px each way; never empty."""
    height, width = draw(st.integers(24, 90)), draw(st.integers(24, 90))
    plane = np.zeros((height, width), np.uint8)
    for _ in range(draw(st.integers(1, 3))):
        centre = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        axes = draw(st.integers(1, 20)), draw(st.integers(1, 20))
        cv2.ellipse(plane, centre, axes, draw(st.integers(0, 179)), 0, 360, 1, -1)
    return plane.astype(np.bool_)


@given(blobs(), st.sampled_from(LEVELS[CLICK_DEPTH]), st.integers(0, 99))
@settings(max_examples=30)
def test_clicks_lie_in_the_object_and_get_no_deeper_than_asked(mask: BoolArray, depth: float, seed: int) -> None:
    """Oracle: the distance transform of the whole mask, in which every component keeps its own depth."""
    x, y = click_at_depth(mask, depth, np.random.default_rng(seed))
    assert mask[int(y), int(x)]
    distance = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    deepest = interior_point(mask)
    if depth == 0:
        assert (x, y) == deepest
    if depth == 1:
        assert distance[int(y), int(x)] <= 1.5
    assert distance[int(y), int(x)] <= distance[deepest[1], deepest[0]] + 1e-4


@given(blobs(), st.integers(0, 99))
@settings(max_examples=30)
def test_a_background_click_is_background_and_far_where_there_is_room(mask: BoolArray, seed: int) -> None:
    found = background_click(mask, np.random.default_rng(seed))
    if mask.all():
        assert found is None
        return
    assert found is not None
    x, y = (int(value) for value in found)
    assert not mask[y, x]
    rows, columns = np.nonzero(mask)

    def gap(y: int, x: int) -> float:
        return float(np.hypot(rows - y, columns - x).min())

    corners = [gap(y, x) for y in (0, mask.shape[0] - 1) for x in (0, mask.shape[1] - 1)]
    if max(corners) > 0.5 * object_size(mask) + 0.5:
        assert gap(y, x) >= 0.5 * object_size(mask) - 0.5


@given(blobs(), st.floats(0.5, 2), st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
@settings(max_examples=30)
def test_boxes_and_moved_clicks_stay_in_the_image(mask: BoolArray, scale: float, offset: tuple[float, float]) -> None:
    x0, y0, x1, y1 = changed_box(mask, scale, offset).tolist()
    assert 0 <= x0 <= x1 <= mask.shape[1] - 1
    assert 0 <= y0 <= y1 <= mask.shape[0] - 1
    x, y = moved_click(mask, offset)
    assert 0 <= x <= mask.shape[1] - 1
    assert 0 <= y <= mask.shape[0] - 1
    np.testing.assert_allclose(changed_box(mask), tight_boxes(mask[None])[0], atol=1e-4)
    assert moved_click(mask, (0, 0)) == interior_point(mask)


def test_a_box_scales_about_its_centre() -> None:
    """By hand: a 20 px square has edges 9.5 to 29.5; half as large again they are 4.5 and 34.5, so pixels 5 to 34."""
    mask = np.zeros((60, 60), np.bool_)
    mask[10:30, 10:30] = True
    assert object_size(mask) == 20
    assert changed_box(mask, 1.5).tolist() == [5, 5, 34, 34]
    assert changed_box(mask, 1.0, (0.1, -0.2)).tolist() == [12, 6, 31, 25]


def test_a_known_model_gets_the_iou_that_follows_from_the_prompt() -> None:
    """Oracle: the flood answers with exactly the square under the click or the box, so each level's IoU is known."""
    records, subject = subject_of([squares(number) for number in range(3)] + [squares(3, empty=True)])
    seen: list[tuple[int, int, str]] = []
    frame = promptability({"flood": flood()}, records, subject, 0, lambda *a: seen.append(a))
    assert list(frame.columns) == ["model", "axis", "value", "record", "object", "iou", "predicted"]
    assert len(frame) == 3 * 2 * sum(len(levels) for levels in LEVELS.values())
    assert {axis: tuple(part["value"].unique()) for axis, part in frame.groupby("axis")} == LEVELS
    assert seen[-1] == (4, 4, "r3")
    by_axis = {str(axis): part for axis, part in frame.groupby("axis")}
    assert (by_axis[CLICK_DEPTH]["iou"] == WHOLE).all()
    assert (by_axis[BACKGROUND]["iou"] == 0).all()
    noise = by_axis[CLICK_NOISE].groupby("value")["iou"].mean()
    assert noise[0.0] == WHOLE
    assert noise.is_monotonic_decreasing  # farther along one direction never comes back into a square
    exact = by_axis[BOX_SCALE].groupby("value")["iou"].mean()
    assert exact[1.0] == WHOLE
    assert exact[1.5] == pytest.approx((16 / 24) ** 2, abs=0.12)  # the flood rounds to cells of 4 px
    shift = by_axis[BOX_SHIFT].groupby("value")["iou"].mean()
    assert shift[0.0] == WHOLE
    assert (frame["predicted"] == 0.75).all()
    assert frame.equals(promptability({"flood": flood()}, records, subject, 0))
    assert not frame["iou"].equals(promptability({"flood": flood()}, records, subject, 1)["iou"])


def test_all_models_get_the_same_prompts() -> None:
    records, subject = subject_of([squares(number) for number in range(3)])
    frame = promptability({"one": flood(), "other": flood()}, records, subject)
    key = ["axis", "value", "record", "object"]
    sides = [frame[frame["model"] == name].set_index(key)["iou"] for name in ("one", "other")]
    assert sides[0].equals(sides[1])


def test_large_images_are_answered_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    records, subject = subject_of([squares(0)])
    whole = promptability({"flood": flood()}, records, subject)
    monkeypatch.setattr("specialsam.advice.probes.promptability.PIECE_PIXELS", 1)
    assert promptability({"flood": flood()}, records, subject).equals(whole)


def test_of_many_objects_some_are_chosen_by_the_seed() -> None:
    masks = np.zeros((30, SIDE, SIDE), np.bool_)
    for index in range(30):
        masks[index, 2 * index : 2 * index + 2, :8] = True
    records, subject = subject_of([Sample(Record("many", Path("m.png")), np.zeros((SIDE, SIDE, 3), np.uint8), masks)])
    chosen = [look({"flood": flood()}, records[0], subject, seed).objects for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] == sorted(set(chosen[0]))
    assert len(chosen[0]) == MOST_OBJECTS
    assert chosen[0] != chosen[2]


def test_no_object_at_all_is_an_error() -> None:
    records, subject = subject_of([squares(0, empty=True)])
    with pytest.raises(DataError, match="expected images with objects"):
        promptability({"flood": flood()}, records, subject)


class Slow(Flood):
    """Answers with a square that is complete from the third click on, and half of it before."""

    def decode(self, embedding: Embedding, prompts: Prompts, multimask: bool = False) -> Prediction:
        answer = super().decode(embedding, prompts)
        points = prompts.points
        assert points is not None
        assert (prompts.masks is None) == (points.shape[1] == 1)  # earlier logits come back from the second click on
        logits = answer.logits.clone()
        if points.shape[1] < 3:
            for index in range(len(logits)):
                rows = np.flatnonzero((logits[index, 0] > 0).any(1).numpy())
                logits[index, 0, rows[len(rows) // 2] :] = -9.0
        return Prediction(logits, answer.scores, answer.geometry)


def test_clicks_are_counted_until_the_target_is_reached() -> None:
    """By hand: IoU 1/2 at clicks 1 and 2, the whole square at click 3; the flood needs one."""
    records, subject = subject_of([squares(number) for number in range(2)])
    found = clicks_to({"flood": flood(), "slow": Slow("slow", torch.nn.Module(), SIDE)}, records, subject, most=5)
    assert list(found.counts.columns) == ["model", "record", "object", "noc85", "noc90"]
    assert len(found.counts) == 2 * 2 * 2
    for model, needed in (("flood", 1), ("slow", 3)):
        part = found.counts[found.counts["model"] == model]
        assert (part[["noc85", "noc90"]] == needed).all(axis=None)
    curve = found.curve[found.curve["model"] == "slow"].groupby("click")["iou"].mean()
    assert curve.index.tolist() == [1, 2, 3, 4, 5]
    assert curve[3] == pytest.approx(WHOLE)
    assert curve[1] == pytest.approx(0.5, abs=0.1)


def test_several_images_at_once_are_clicked_as_each_alone() -> None:
    """With nano; the second image has no object, the third more of them than the others."""
    base = load_model("nano")
    images = [squares(0), squares(1, empty=True), squares(2, count=4), squares(3, count=1)]
    records, subject = subject_of(images)
    subject = replace(subject, segmenter=base, embed=live)
    together = clicks_to({"nano": base}, records, subject, most=3)
    alone = [clicks_to({"nano": base}, [record], subject, most=3) for record in (records[0], *records[2:])]
    key = ["record", "object", "click"]
    expected = pd.concat([one.curve for one in alone]).sort_values(key)
    found = together.curve.sort_values(key)
    assert found[key].to_numpy().tolist() == expected[key].to_numpy().tolist()
    assert found["iou"].to_numpy() == pytest.approx(expected["iou"].to_numpy(), abs=1e-3)


def test_who_never_reaches_the_target_counts_as_the_most() -> None:
    records, subject = subject_of([squares(0)])
    found = clicks_to({"slow": Slow("slow", torch.nn.Module(), SIDE)}, records, subject, targets=(0.85,), most=2)
    assert (found.counts["noc85"] == 2).all()
    with pytest.raises(UsageError, match="targets"):
        clicks_to({"flood": flood()}, records, subject, targets=(85,))


def test_means_are_over_images_and_not_over_objects() -> None:
    """By hand: images (0, 1 and 1) and (1) have means 2/3 and 1, so 5/6; over objects it would be 3/4."""
    frame = pd.DataFrame(
        {"model": "m", "axis": "a", "value": 0.0, "record": [*"xxxy"], "object": [0, 1, 2, 0], "iou": [0, 1, 1, 1.0]}
    )
    means = image_means(frame, ["model", "axis", "value"])
    assert means["mean"].tolist() == pytest.approx([5 / 6])
    assert means["n"].tolist() == [2]
    assert means["low"][0] == pytest.approx(2 / 3)
    assert means["high"][0] == pytest.approx(1)
    clicks = image_means(frame.rename(columns={"value": "click"}), ["model", "click"])
    assert list(clicks.columns) == ["model", "click", "mean", "low", "high", "n"]
    with pytest.raises(DataError, match="expected the columns value"):
        image_means(frame.drop(columns="value"), ["model", "value"])


def test_reliability_by_hand() -> None:
    """Bins of .5: (.2 -> .4, .4 -> .4) and (.9 -> .5): |.3 - .4| * 2/3 + |.9 - .5| * 1/3 = .2."""
    found = reliability([0.2, 0.4, 0.9], [0.4, 0.4, 0.5], bins=2)
    assert found.error == pytest.approx(0.2)
    assert found.bias == pytest.approx((-0.2 + 0.0 + 0.4) / 3)
    assert found.bins["n"].tolist() == [2, 1]
    assert found.bins["predicted"].tolist() == pytest.approx([0.3, 0.9])
    assert found.bins["actual"].tolist() == pytest.approx([0.4, 0.5])
    assert found.correlation == pytest.approx(np.sqrt(3) / 2)  # ranks 1 2 3 against 1.5 1.5 3


def test_reliability_of_values_outside_and_of_constant_ones() -> None:
    found = reliability([-0.1, 1.2], [0.0, 1.0])
    assert found.bins["n"].tolist() == [1, *[0] * 8, 1]
    assert found.bins["predicted"].iloc[[0, -1]].tolist() == pytest.approx([-0.1, 1.2])
    assert found.error == pytest.approx(0.15)
    assert np.isnan(reliability([0.5, 0.5], [0.1, 0.2]).correlation)
    for predicted, actual in (([], []), ([0.1], [0.1, 0.2]), ([float("nan")], [0.1]), ([0.1], [1.1])):
        with pytest.raises(DataError, match="expected"):
            reliability(predicted, actual)


@given(st.lists(st.tuples(st.floats(-0.5, 1.5), st.floats(0, 1)), min_size=1, max_size=40), st.integers(1, 12))
def test_calibration_error_lies_between_bias_and_mean_error(pairs: list[tuple[float, float]], bins: int) -> None:
    """Triangle inequality: binning can hide errors that cancel, but not more than one bin over all would."""
    predicted, actual = (np.array(side) for side in zip(*pairs, strict=True))
    found = reliability(predicted, actual, bins)
    assert int(found.bins["n"].sum()) == len(pairs)
    assert abs(found.bias) - 1e-9 <= found.error <= np.abs(predicted - actual).mean() + 1e-9
