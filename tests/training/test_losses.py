"""Losses: values by hand, torch's own formulas, minima at the truth, and padding that has no say."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, jaccard_score, log_loss
from torch import Tensor
from torch.nn import functional

from specialsam.core.errors import UsageError
from specialsam.core.geometry import Geometry
from specialsam.training.losses import (
    LOSSES,
    MIXES,
    bce,
    boundary,
    centreline,
    dice,
    focal,
    held,
    mixed,
    resolve_mix,
    soft_iou,
    tversky,
)

torch.set_num_threads(1)
SURE = 60.0
"""A logit whose probability is 1 in single precision."""


def one(*rows: list[float]) -> Tensor:
    return torch.tensor([rows])


def ones(like: Tensor) -> Tensor:
    return torch.ones_like(like)


def square(top: int, left: int, size: int = 8, side: int = 32) -> Tensor:
    mask = torch.zeros(1, side, side)
    mask[:, top : top + size, left : left + size] = 1
    return mask


def certain(mask: Tensor) -> Tensor:
    return (2 * mask - 1) * SURE


def test_by_hand() -> None:
    """Two pixels, probabilities 3/4 and 1/2, truth 1 and 0."""
    logits, target = one([math.log(3), 0.0]), one([1.0, 0.0])
    valid = ones(target)
    assert float(bce(logits, target, valid)) == pytest.approx((-math.log(0.75) - math.log(0.5)) / 2)
    assert float(dice(logits, target, valid)) == pytest.approx(1 - (2 * 0.75 + 1) / (0.75 + 0.5 + 1 + 1))
    expected = (0.25 * 0.25**2 * -math.log(0.75) + 0.75 * 0.5**2 * -math.log(0.5)) / 2
    assert float(focal(logits, target, valid)) == pytest.approx(expected)


def test_valid_shares_weigh_pixels() -> None:
    logits, target = one([math.log(3), 0.0]), one([1.0, 0.0])
    valid = one([1.0, 0.5])
    assert float(bce(logits, target, valid)) == pytest.approx((-math.log(0.75) - 0.5 * math.log(0.5)) / 1.5)
    assert float(dice(logits, target, valid)) == pytest.approx(1 - (2 * 0.75 + 1) / (0.75 + 0.25 + 1 + 1))


def test_bce_is_torchs_and_sklearns() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(3, 9, 7, generator=generator), (torch.rand(3, 9, 7, generator=generator) > 0.5).float()
    each = bce(logits, target, ones(target))
    assert tuple(each.shape) == (3,)
    for i in range(3):
        reference = functional.binary_cross_entropy(logits[i].sigmoid(), target[i])
        assert float(each[i]) == pytest.approx(float(reference), rel=1e-5)
        by_sklearn = log_loss(target[i].flatten().numpy(), logits[i].double().sigmoid().flatten().numpy())
        assert float(each[i]) == pytest.approx(by_sklearn, rel=1e-5)


def test_dice_of_certain_masks_is_one_minus_f1() -> None:
    """F1 of scikit-learn, with the smoothing of 1 put on by hand."""
    mask, truth = square(4, 4), square(6, 7)
    overlap, sizes = float((mask * truth).sum()), float(mask.sum() + truth.sum())
    f1 = f1_score(truth.flatten().numpy(), mask.flatten().numpy())
    assert 2 * overlap / sizes == pytest.approx(f1)
    assert float(dice(certain(mask), truth, ones(truth))) == pytest.approx(
        1 - (2 * overlap + 1) / (sizes + 1), rel=1e-5
    )


def test_focal_is_cross_entropy_that_looks_at_hard_pixels() -> None:
    """Lin et al. 2017, eq. 5: -alpha_t (1 - p_t)^2 log p_t, pixel by pixel."""
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 5, 5, generator=generator), (torch.rand(2, 5, 5, generator=generator) > 0.5).float()
    p = logits.sigmoid().numpy().astype(np.float64)
    truth = target.numpy() > 0.5
    p_t, alpha_t = np.where(truth, p, 1 - p), np.where(truth, 0.25, 0.75)
    expected = (-alpha_t * (1 - p_t) ** 2 * np.log(p_t)).mean((1, 2))
    np.testing.assert_allclose(focal(logits, target, ones(target)).numpy(), expected, rtol=1e-5)


def test_tversky_by_hand_and_that_missing_is_worse_than_adding() -> None:
    """Probabilities 3/4 and 1/2, truth 1 and 0: overlap .75, false .5, missed .25."""
    logits, target = one([math.log(3), 0.0]), one([1.0, 0.0])
    value = float(tversky(logits, target, ones(target)))
    assert value == pytest.approx(1 - 1.75 / (0.75 + 0.3 * 0.5 + 0.7 * 0.25 + 1))
    truth = square(8, 8, 8)
    smaller, larger = certain(square(8, 8, 6)), certain(square(8, 8, 9))
    assert float(tversky(smaller, truth, ones(truth))) > float(tversky(larger, truth, ones(truth)))
    assert float(dice(certain(truth), truth, ones(truth))) == pytest.approx(0, abs=1e-5)


def test_a_line_that_is_cut_costs_more_than_one_that_is_thick() -> None:
    """What the centreline sees and Dice does not: a gap in a crack, against a rim of the same number of pixels."""
    crack = torch.zeros(1, 32, 32)
    crack[:, 14:17, 2:30] = 1
    cut, thick = crack.clone(), crack.clone()
    cut[:, :, 12:16] = 0
    thick[:, 17, 10:22] = 1
    assert int(crack.sum() - cut.sum()) == int(thick.sum() - crack.sum()) == 12
    valid = ones(crack)
    worse, better = (float(centreline(certain(mask), crack, valid)) for mask in (cut, thick))
    assert worse > 2 * better
    assert float(centreline(certain(crack), crack, valid)) < 0.01
    ratio = float(dice(certain(cut), crack, valid)) / float(dice(certain(thick), crack, valid))
    assert ratio < 1.5


@pytest.mark.parametrize("name", LOSSES)
def test_the_truth_is_the_minimum_and_gradients_lead_there(name: str) -> None:
    truth = square(10, 12)
    valid = ones(truth)
    loss = LOSSES[name]
    assert float(loss(certain(truth), truth, valid)) == pytest.approx(0, abs=1e-5)
    full = [] if name == "centreline" else [ones(truth)]  # too wide for a line
    for other in (square(16, 12), square(10, 12, 4), torch.zeros_like(truth), *full):
        assert float(loss(certain(other), truth, valid)) > 1e-3
    logits = (torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.5).requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    first = float(loss(logits.detach(), truth, valid))
    for _ in range(80):
        optimizer.zero_grad()
        torch.autograd.backward(loss(logits, truth, valid).sum())
        optimizer.step()
    assert float(loss(logits.detach(), truth, valid)) < 0.3 * first


@pytest.mark.parametrize("name", LOSSES)
def test_an_empty_truth_and_extreme_logits_stay_finite(name: str) -> None:
    for truth in (torch.zeros(1, 8, 8), torch.ones(1, 8, 8)):
        for value in (-1e4, 0.0, 1e4):
            logits = torch.full((1, 8, 8), value, requires_grad=True)
            loss = LOSSES[name](logits, truth, ones(truth))
            torch.autograd.backward(loss.sum())
            assert torch.isfinite(loss).all()
            assert logits.grad is not None
            assert torch.isfinite(logits.grad).all()
    assert float(LOSSES[name](torch.full((1, 8, 8), -SURE), torch.zeros(1, 8, 8), torch.ones(1, 8, 8))) < 1e-5


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(LOSSES)),
    st.integers(1, 200),
    st.integers(1, 200),
    st.integers(0, 2**31),
    st.floats(-30, 30),
)
def test_logits_on_padding_have_no_influence(name: str, height: int, width: int, seed: int, level: float) -> None:
    """On the frames that images really have: whatever the decoder says of the padding, loss and gradient stay."""
    generator = torch.Generator().manual_seed(seed)
    valid = torch.from_numpy(Geometry(height, width, 64).valid_logits())[None]
    target = (torch.rand(1, 16, 16, generator=generator) > 0.5).float() * (valid > 0)
    logits = torch.randn(1, 16, 16, generator=generator) * 3
    noise = torch.randn(1, 16, 16, generator=generator) * 5 + level
    padded = torch.where(valid > 0, logits, noise).requires_grad_(True)
    loss = LOSSES[name](padded, target, valid)
    torch.testing.assert_close(loss.detach(), LOSSES[name](logits, target, valid), rtol=1e-5, atol=1e-6)
    torch.autograd.backward(loss.sum())
    assert padded.grad is not None
    assert (padded.grad[valid == 0] == 0).all()


def test_the_borders_of_the_image_are_no_boundary() -> None:
    """An object that ends with the image has the same boundary loss with padding beside it and without."""
    truth, wrong = torch.zeros(1, 12, 12), torch.zeros(1, 12, 12)
    truth[:, 3:], wrong[:, 7:] = 1, 1
    alone = boundary(certain(wrong), truth, ones(truth))
    padded = [functional.pad(mask, (0, 4, 0, 4)) for mask in (wrong, truth, ones(truth))]
    assert float(boundary(certain(padded[0]), padded[1], padded[2])) == pytest.approx(float(alone), rel=1e-5)


def test_a_closer_boundary_costs_less() -> None:
    """A square shifted by 0 to 8 pixels: free within the reach of 2, then dearer until nothing is near."""
    truth = square(10, 8, 12)
    costs = [float(boundary(certain(square(10, 8 + shift, 12)), truth, ones(truth))) for shift in range(9)]
    assert costs[0] == pytest.approx(0, abs=1e-5)
    assert costs[2] == pytest.approx(0, abs=1e-5)
    assert 0.05 < costs[4] < 1
    assert all(a <= b + 1e-6 for a, b in pairwise(costs))
    # Same IoU, another outline: a ragged edge costs more than a smooth one that misses as many pixels.
    ragged, smooth = truth.clone(), truth.clone()
    ragged[:, 12:20:2, 12:16] = 0
    smooth[:, 21, 8:20] = 0
    smooth[:, 20, 8:12] = 0
    assert ragged.sum() == smooth.sum()
    valid = ones(truth)
    assert float(boundary(certain(ragged), truth, valid)) > float(boundary(certain(smooth), truth, valid)) + 0.05


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(0.05, 0.95))
def test_soft_iou_is_numpys(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, target = (
        torch.randn(3, 6, 6, generator=generator),
        (torch.rand(3, 6, 6, generator=generator) < share).float(),
    )
    valid = (torch.rand(3, 6, 6, generator=generator) > 0.3).float()
    found = soft_iou(logits, target, valid)
    for i in range(3):
        inside = valid[i].numpy() > 0.5
        mask, truth = logits[i].numpy()[inside] > 0, target[i].numpy()[inside] > 0.5
        expected = jaccard_score(truth, mask, zero_division=1.0)
        assert float(found[i]) == pytest.approx(expected)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1))
def test_an_object_holds_logits_however_thin(seed: int, most: float) -> None:
    """Those covered by more than half of the most covered one; an empty mask none. Nothing else decides."""
    coverage = torch.from_numpy(np.random.default_rng(seed).random((1, 6, 6), np.float32)) * most
    found = held(coverage)
    assert torch.equal(found, coverage > float(coverage.max()) / 2)
    assert found.any()
    assert not held(coverage * 0).any()


def test_the_iou_of_a_thin_object_is_that_of_its_answer() -> None:
    """A scratch of 4 px in a picture of 1024 px covers a third of its logits; nothing is no answer to it."""
    mask = np.zeros((1, 1024, 1024), np.bool_)
    mask[0, 500:504, 100:900] = True
    target = torch.from_numpy(Geometry(1024, 1024, 384).masks_to_logits(mask))
    assert 0 < float(target.max()) < 0.5
    valid = torch.ones_like(target)
    assert float(soft_iou(torch.full_like(target, -9.0), target, valid)) == 0
    assert float(soft_iou(18 * (target > 0.2).float() - 9, target, valid)) > 0.9


@pytest.mark.parametrize("width", [2.0, 2.4, 2.6, 3.0, 4.0])
@pytest.mark.parametrize("degrees", [0, 11, 30, 45, 71])
def test_a_scratch_of_any_width_is_an_answer_to_itself(width: float, degrees: float) -> None:
    """A logit is 5.3 px; at half a logit's width nothing jumps. Oracle: the drawn scratch is its own answer."""
    turn = np.deg2rad(degrees)
    rows, columns = np.mgrid[:512, :512] - 255.7
    along, across = columns * np.cos(turn) + rows * np.sin(turn), rows * np.cos(turn) - columns * np.sin(turn)
    mask = (np.abs(along) < 120) & (np.abs(across) < width / 2)
    target = torch.from_numpy(Geometry(512, 512, 384).masks_to_logits(mask[None]))
    answer = 18 * (target > 0.15).float() - 9
    assert float(soft_iou(answer, target, torch.ones_like(target))) > 0.4


def test_soft_iou_has_no_gradient_and_two_empty_masks_agree() -> None:
    logits = torch.full((1, 4, 4), -1.0, requires_grad=True)
    found = soft_iou(logits, torch.zeros(1, 4, 4), torch.ones(1, 4, 4))
    assert not found.requires_grad
    assert float(found) == 1
    assert float(soft_iou(-logits, torch.zeros(1, 4, 4), torch.ones(1, 4, 4))) == 0


def test_mixes_are_weighted_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(4, 9, 9, generator=generator), (torch.rand(4, 9, 9, generator=generator) > 0.5).float()
    valid = ones(target)
    for name, weights in MIXES.items():
        assert resolve_mix(name) == weights
        expected = sum(w * LOSSES[part](logits, target, valid) for part, w in weights.items())
        torch.testing.assert_close(mixed(logits, target, valid, weights), expected)
    assert MIXES["half"] == {"bce": 0.5, "dice": 0.5}
    assert MIXES["sam"] == {"focal": 20.0, "dice": 1.0}
    assert resolve_mix({"dice": 1, "bce": 0}) == {"dice": 1, "bce": 0}
    torch.testing.assert_close(
        mixed(logits, target, valid, {"dice": 2.0, "focal": 0.0}), 2 * dice(logits, target, valid)
    )


@pytest.mark.parametrize(
    "mix",
    ["no such", {}, {"dise": 1.0}, {"dice": -1.0, "bce": 2.0}, {"dice": 0.0}, {"dice": math.nan}, {"dice": math.inf}],
)
def test_wrong_mixes_are_one_line(mix: str | dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"expected .*bce.*boundary.*dice.*focal") as caught:
        resolve_mix(mix)
    assert "\n" not in str(caught.value)
