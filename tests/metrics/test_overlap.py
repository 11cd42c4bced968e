"""Overlap metrics against scikit-learn, hand-drawn masks and the properties that any overlap has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from specialsam.core.errors import DataError, UsageError
from specialsam.evaluation.evaluate import EvaluateSettings
from specialsam.metrics import GROUPS, METRICS, Group, check_groups, mae, overlap, score

shapes = st.tuples(st.integers(1, 16), st.integers(1, 16))
mask_pairs = shapes.flatmap(lambda shape: st.tuples(*[hnp.arrays(np.bool_, shape)] * 2))


def test_values_by_hand():
    # Two 4x4 squares that share 2x4: 8 shared, 24 in the union.
    mask, truth = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    mask[0:4, 0:4], truth[2:6, 0:4] = True, True
    assert overlap(mask, truth) == {"iou": 8 / 24, "dice": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5}


@settings(max_examples=80, deadline=None)
@given(mask_pairs)
def test_agrees_with_scikit_learn(pair):
    mask, truth = pair
    values = overlap(mask, truth)
    flat = truth.ravel(), mask.ravel()
    empty = float(not mask.any() and not truth.any())
    assert values["iou"] == pytest.approx(sk.jaccard_score(*flat, zero_division=empty))
    assert values["f1"] == pytest.approx(sk.f1_score(*flat, zero_division=empty))
    assert values["precision"] == pytest.approx(sk.precision_score(*flat, zero_division=empty))
    assert values["recall"] == pytest.approx(sk.recall_score(*flat, zero_division=empty))


@settings(max_examples=150, deadline=None)
@given(mask_pairs)
def test_properties(pair):
    mask, truth = pair
    values, swapped = overlap(mask, truth), overlap(truth, mask)
    assert all(0 <= value <= 1 for value in values.values())
    assert values["iou"] == swapped["iou"]
    assert values["precision"] == swapped["recall"]
    assert values["dice"] == pytest.approx(2 * values["iou"] / (1 + values["iou"]))
    assert set(overlap(truth, truth).values()) == {1.0}


@settings(max_examples=80, deadline=None)
@given(mask_pairs, st.integers(0, 255))
def test_finding_one_more_true_pixel_never_hurts(pair, which):
    mask, truth = pair
    missed = np.flatnonzero(truth & ~mask)
    if not len(missed):
        return
    more = mask.copy()
    more.flat[missed[which % len(missed)]] = True
    assert overlap(more, truth)["iou"] > overlap(mask, truth)["iou"]


def test_empty_masks_mean_the_same_in_every_metric():
    empty, some = np.zeros((32, 40), bool), np.zeros((32, 40), bool)
    some[5:25, 8:30] = True
    both = score(empty.astype(np.float32), empty, tuple(GROUPS))
    assert set(both) == set(METRICS)
    assert all(value == (0 if name == "mae" else 1) for name, value in both.items())
    for prediction, truth in [(empty, some), (some, empty)]:
        values = score(prediction.astype(np.float32), truth, ("overlap", "boundary", "canny"))
        assert set(values.values()) == {0.0}


def test_mae_is_the_plain_mean_and_never_stretched():
    truth = np.zeros((10, 10), bool)
    truth[:5] = True
    # A map of one value and a faint, noisy one stay what they are.
    assert mae(np.full((10, 10), 0.25, np.float32), truth) == pytest.approx(0.5)
    faint = np.linspace(0, 0.01, 100, dtype=np.float32).reshape(10, 10)
    assert mae(faint, np.zeros((10, 10), bool)) == pytest.approx(0.005, abs=1e-6)
    assert mae(truth.astype(np.float32), truth) == 0


def test_score_chooses_groups_in_the_registry_order():
    truth = np.zeros((20, 20), bool)
    truth[3:12, 4:15] = True
    soft = truth * np.float32(0.9)
    for group in GROUPS:
        assert list(score(soft, truth, (group,))) == [name for name, metric in METRICS.items() if metric.group == group]
    assert list(score(soft, truth, tuple(GROUPS)[::-1])) == list(METRICS)
    with pytest.raises(UsageError, match=r"overlap, boundary, canny, cod, got iou$"):
        score(soft, truth, ("overlap", "iou"))
    with pytest.raises(UsageError, match="got none"):
        score(soft, truth, ())


def test_score_thresholds_above_one_half_unless_a_mask_is_given():
    truth = np.ones((2, 2), bool)
    soft = np.array([[0.5, 0.51], [0.49, 1]], np.float32)
    assert score(soft, truth)["recall"] == 0.5
    assert score(soft, truth, mask=truth)["recall"] == 1


def test_score_passes_the_tolerance_to_the_exact_boundary_only():
    truth, moved = np.zeros((60, 60), bool), np.zeros((60, 60), bool)
    truth[10:40, 10:40], moved[14:44, 10:40] = True, True
    tight, loose = (score(moved.astype(np.float32), truth, ("boundary", "canny"), tolerance=t) for t in (1, 5))
    assert tight["boundary_f1"] < loose["boundary_f1"] == 1
    assert tight["canny_f1"] == loose["canny_f1"]


def test_a_new_group_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known by name, measured with what it was given, in the order of its titles, and gone with its entry."""
    area = Group(
        lambda soft, mask, truth, tolerance: {"reach": tolerance / 10, "size": float(mask.mean()), "more": 1.0},
        {"size": "Size", "reach": "Reach"},
    )
    truth = np.eye(4, dtype=bool)
    soft = truth * np.float32(0.9)
    with monkeypatch.context() as patch:
        patch.setitem(GROUPS, "area", area)
        check_groups(("area", "overlap"))
        assert score(soft, truth, ("area",), tolerance=2) == {"size": 0.25, "reach": 0.2}
        assert list(score(soft, truth, ("area", "overlap"))) == [*GROUPS["overlap"].titles, "size", "reach"]
        assert EvaluateSettings(groups=("area",)).groups == ("area",)
    with pytest.raises(UsageError, match=r"got area$"):
        check_groups(("area",))


def test_every_metric_belongs_to_its_group_alone() -> None:
    """Oracle: what the function of each group answers, and what is known of which direction is better."""
    truth = np.eye(40, dtype=bool)
    found = {name: set(group.measure(truth.astype(np.float32), truth, truth, 5.0)) for name, group in GROUPS.items()}
    assert found == {name: {key for key, metric in METRICS.items() if metric.group == name} for name in GROUPS}
    assert sum(map(len, found.values())) == len(METRICS) == 17
    assert METRICS["e_max"].title == "E-measure (max)"


def test_worst_values_are_those_of_a_failure():
    assert METRICS["iou"].worst == 0
    assert METRICS["mae"].worst == 1
    assert [name for name, metric in METRICS.items() if not metric.higher_is_better] == ["mae"]


def test_shapes_and_types_are_checked():
    truth = np.zeros((4, 5), bool)
    with pytest.raises(DataError, match=r"\(4, 5\), got \(5, 4\)"):
        overlap(truth.T, truth)
    with pytest.raises(DataError, match="bool"):
        overlap(truth, truth.astype(np.uint8))
