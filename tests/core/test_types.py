"""The shared types check themselves on construction and say what they expected and what came."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from specialsam.core.errors import DataError
from specialsam.core.geometry import Geometry
from specialsam.core.types import Dataset, Embedding, Prediction, Prompts, Record, Sample, joined

torch.set_num_threads(1)
RECORD = Record("a", Path("a.png"))
IMAGE = np.zeros((4, 6, 3), np.uint8)
MASKS = np.zeros((2, 4, 6), np.bool_)
POINTS = np.zeros((2, 3, 2), np.float32)
LABELS = np.ones((2, 3), np.int64)
BOXES = np.zeros((2, 4), np.float32)
LOGITS = np.zeros((2, 8, 8), np.float32)


def points(**changes: Any) -> Prompts:
    return Prompts(**({"strategy": "s", "points": POINTS, "labels": LABELS} | changes))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Record("", Path("a.png")), "expected a record id, got an empty one for a.png"),
        (lambda: Record("a", Path("a.png"), mask_kind="binary"), "binary needs a mask file, got none"),
        (lambda: Record("a", Path("a.png"), mask_kind="index"), "index needs a mask file, got none"),
        (lambda: Sample(RECORD, IMAGE[..., 0], MASKS), r"a: expected a uint8 .* got uint8 \(4, 6\)"),
        (lambda: Sample(RECORD, IMAGE[..., :2], MASKS), r"got uint8 \(4, 6, 2\)"),
        (lambda: Sample(RECORD, IMAGE.astype(np.float32), MASKS), "got float32"),
        (lambda: Sample(RECORD, IMAGE, MASKS[0]), r"expected bool \(P, H, W\) masks, got bool \(4, 6\)"),
        (lambda: Sample(RECORD, IMAGE, MASKS.astype(np.uint8)), "got uint8"),
        (lambda: Sample(RECORD, IMAGE, MASKS[:, :3]), "expected masks of the image's size 4x6, got 3x6"),
        (lambda: Sample(RECORD, IMAGE, MASKS, ("one",)), "one label an object, got 1 for 2"),
        (lambda: Prompts("s"), "expected points, boxes or masks, got none"),
        (lambda: Prompts("s", points=POINTS), "points and labels together"),
        (lambda: Prompts("s", labels=LABELS, boxes=BOXES), "points and labels together"),
        (lambda: points(points=POINTS[0], labels=LABELS[0]), r"expected float32 \(P, K, 2\) points, got .*\(3, 2\)"),
        (lambda: points(points=POINTS.astype(np.float64)), "got float64"),
        (lambda: points(labels=LABELS[:, :2]), r"expected labels \(2, 3\), got \(2, 2\)"),
        (lambda: points(labels=LABELS - 11), r"labels 0 .* or 1 .*, got \[-10\]"),
        (lambda: points(labels=LABELS + 1), r"got \[2\]"),
        (lambda: points(boxes=BOXES[:, :3]), r"expected float32 \(P, 4\) boxes, got float32 \(2, 3\)"),
        (lambda: points(boxes=BOXES.astype(np.int64)), r"expected float32 \(P, 4\) boxes, got int64 \(2, 4\)"),
        (lambda: points(masks=LOGITS[:, :7]), r"expected square float32 .* got float32 \(2, 7, 8\)"),
        (lambda: points(masks=LOGITS > 0), r"expected square float32 .* got bool \(2, 8, 8\)"),
        (lambda: points(boxes=BOXES[:1]), r"same number of objects everywhere, got \[2, 1\]"),
        (lambda: points(points=POINTS + np.nan), "expected finite s prompts"),
        (lambda: points(boxes=BOXES + np.inf), "expected finite s prompts"),
        (lambda: points(masks=LOGITS - np.inf), "expected finite s prompts"),
        (lambda: Embedding(torch.zeros(1, 8, 2, 2), Geometry(4, 6, 32)), r"\(C, h, w\) embedding, got \(1, 8, 2, 2\)"),
        (
            lambda: Prediction(torch.zeros(2, 8, 8), torch.zeros(2, 8), Geometry(4, 6, 32)),
            r"got \(2, 8, 8\) and \(2, 8\)",
        ),
        (
            lambda: Prediction(torch.zeros(2, 3, 8, 8), torch.zeros(2, 1), Geometry(4, 6, 32)),
            r"got \(2, 3, 8, 8\) and \(2, 1\)",
        ),
    ],
)
def test_wrong_values_are_refused_in_one_line(make: Any, expected: str) -> None:
    with pytest.raises(DataError, match=expected) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_types_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        RECORD.id = "b"  # type: ignore[misc]


def test_sample_knows_its_size() -> None:
    sample = Sample(RECORD, IMAGE, np.zeros((0, 4, 6), np.bool_))
    assert (sample.id, sample.size) == ("a", (4, 6))
    assert len(Dataset("d", Path(), "folder", (RECORD,))) == 1


def test_joined_prompts_are_cut_apart_again() -> None:
    """Oracle: slices of the whole; kinds that one part lacks are refused, whatever their order."""
    masks = np.arange(3 * 16, dtype=np.float32).reshape(3, 4, 4)
    whole = Prompts("s", np.arange(12, dtype=np.float32).reshape(3, 2, 2), np.array([[1, 0]] * 3), masks=masks)
    again = joined([whole[0:1], whole[1:1], whole[1:3]])
    assert again.boxes is None
    for part in ("points", "labels", "masks"):
        np.testing.assert_array_equal(getattr(again, part), getattr(whole, part))
    for pair in ([whole, replace(whole, masks=None)], [replace(whole, masks=None), whole]):
        with pytest.raises(DataError, match="expected prompts of the same kinds"):
            joined(pair)


def test_slicing_prompts_slices_every_part() -> None:
    whole = Prompts(
        "s",
        np.arange(12, dtype=np.float32).reshape(2, 3, 2),
        np.array([[1, 0, 1], [0, 1, 1]]),
        np.arange(8, dtype=np.float32).reshape(2, 4),
        np.arange(2 * 64, dtype=np.float32).reshape(2, 8, 8),
    )
    for index in (slice(1, None), [1], np.array([1]), np.array([False, True])):
        part = whole[index]
        assert len(part) == 1
        assert part.points is not None
        assert part.labels is not None
        assert part.boxes is not None
        assert part.masks is not None
        np.testing.assert_array_equal(part.points, [[[6, 7], [8, 9], [10, 11]]])
        np.testing.assert_array_equal(part.labels, [[0, 1, 1]])
        np.testing.assert_array_equal(part.boxes, [[4, 5, 6, 7]])
        assert part.masks[0, 0, 0] == 64
    assert len(whole[[1, 0, 1]]) == 3
    assert len(whole[0:0]) == 0
    box = replace(whole, points=None, labels=None, masks=None)[[0]]
    assert box.points is None
    assert box.strategy == "s"


def test_best_keeps_the_mask_with_the_highest_score_of_each_object() -> None:
    logits = torch.arange(2 * 3).float()[:, None, None].expand(6, 8, 8).reshape(2, 3, 8, 8)
    best = Prediction(logits, torch.tensor([[0.1, 0.9, 0.3], [0.5, 0.2, 0.7]]), Geometry(4, 6, 32)).best()
    assert best.logits[:, 0, 0, 0].tolist() == [1, 5]
    assert best.scores.tolist() == [[pytest.approx(0.9)], [pytest.approx(0.7)]]
    assert len(best) == 2
    nobody = Prediction(torch.zeros(0, 3, 8, 8), torch.zeros(0, 3), Geometry(4, 6, 32)).best()
    assert tuple(nobody.logits.shape) == (0, 1, 8, 8)


def test_masks_are_logits_above_the_threshold_and_probabilities_above_a_half() -> None:
    logits = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 4
    prediction = Prediction(logits, torch.zeros(3, 2), Geometry(20, 30, 32))
    masks, soft = prediction.masks(), prediction.probabilities()
    assert masks.shape == soft.shape == (3, 2, 20, 30)
    assert masks.dtype == np.bool_
    assert soft.dtype == np.float32
    assert 0 < masks.mean() < 1
    np.testing.assert_array_equal(masks, soft > 0.5)
    assert prediction.masks(2.0).sum() < masks.sum()
    assert not prediction.masks(1e6).any()
