"""Losses on logits (N, h, w) against soft targets (N, h, w) in 0..1; each answers with one value an object, (N,).

`valid` (N, h, w) in 0..1 weighs pixels (0 on padding). Per-object values let a caller take the least of three masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from specialsam.core.errors import UsageError

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

DICE_SMOOTH = 1.0
FOCAL_GAMMA = 2.0
FOCAL_ALPHA = 0.25
FALSE_WEIGHT = 0.3
THICKEST = 4
"""Half width in logits of the widest object whose centreline is followed to its middle."""
BOUNDARY_REACH = 2
"""Pixels by which a predicted and a true boundary may miss each other in the boundary loss."""


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    return (values * valid).sum((1, 2)) / valid.sum((1, 2)).clamp_min(1e-6)


def bce(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy (N,) of logits (N, h, w), mean over valid pixels."""
    return _mean(functional.binary_cross_entropy_with_logits(logits, target, reduction="none"), valid)


def dice(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """(N,) 1 - soft Dice with smoothing 1 (Milletari et al. 2016; sums instead of squares, as SAM has it)."""
    probability, truth = logits.sigmoid() * valid, target * valid
    overlap = (probability * truth).sum((1, 2))
    return 1 - (2 * overlap + DICE_SMOOTH) / (probability.sum((1, 2)) + truth.sum((1, 2)) + DICE_SMOOTH)


def focal(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """(N,) focal loss with gamma 2 and alpha .25 (Lin et al. 2017), mean over valid pixels."""
    cross = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    miss = probability + target - 2 * probability * target
    alpha = FOCAL_ALPHA * target + (1 - FOCAL_ALPHA) * (1 - target)
    return _mean(alpha * miss**FOCAL_GAMMA * cross, valid)


def boundary(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """(N,) 1 - soft boundary F1 (Bokhovkin and Burnaev 2019): boundaries by max pooling, misses of 2 pixels forgiven.

    Where the image ends there is no boundary, with padding beside it or without.
    """
    inside = (valid > 0).to(logits.dtype)

    def edge(mask: Tensor) -> Tensor:
        outside = ((1 - mask) * inside)[:, None]
        return (functional.max_pool2d(outside, 3, 1, 1) - outside)[:, 0] * valid

    def reach(line: Tensor) -> Tensor:
        return functional.max_pool2d(line[:, None], 2 * BOUNDARY_REACH + 1, 1, BOUNDARY_REACH)[:, 0]

    predicted, true = edge(logits.sigmoid()), edge(target)
    precision = ((predicted * reach(true)).sum((1, 2)) + 1) / (predicted.sum((1, 2)) + 1)
    recall = ((true * reach(predicted)).sum((1, 2)) + 1) / (true.sum((1, 2)) + 1)
    return 1 - 2 * precision * recall / (precision + recall)


def tversky(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """(N,) 1 - Tversky index with weights .3 for false and .7 for missed pixels (Salehi et al. 2017), smoothing 1."""
    probability, truth = logits.sigmoid() * valid, target * valid
    overlap = (probability * truth).sum((1, 2))
    false, missed = (probability * (valid - truth)).sum((1, 2)), ((valid - probability) * truth).sum((1, 2))
    return 1 - (overlap + DICE_SMOOTH) / (overlap + FALSE_WEIGHT * false + (1 - FALSE_WEIGHT) * missed + DICE_SMOOTH)


def centreline(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """(N,) 1 - soft clDice (Shit et al. 2021): does each mask's centreline lie in the other? For long, thin objects.

    Beside another loss only: what is wider than twice THICKEST has no line by which a wrong mask would show.
    """
    probability, truth = logits.sigmoid() * valid, target * valid
    thin, true_thin = _skeleton(probability), _skeleton(truth)
    precision = ((thin * truth).sum((1, 2)) + 1) / (thin.sum((1, 2)) + 1)
    recall = ((true_thin * probability).sum((1, 2)) + 1) / (true_thin.sum((1, 2)) + 1)
    return 1 - 2 * precision * recall / (precision + recall)


def _skeleton(mask: Tensor) -> Tensor:
    """Soft centreline (N, h, w) of masks (N, h, w) in 0..1: what opening removes, at every width up to THICKEST."""

    def eroded(x: Tensor) -> Tensor:
        x = functional.pad(x, (1, 1, 1, 1))  # nothing lies beyond the frame
        tall, wide = (-functional.max_pool2d(-x, kernel, 1) for kernel in ((3, 1), (1, 3)))
        return torch.minimum(tall[..., 1:-1], wide[..., 1:-1, :])

    def opened(x: Tensor) -> Tensor:
        return functional.max_pool2d(eroded(x), 3, 1, 1)

    rest = mask[:, None]
    line = functional.relu(rest - opened(rest))
    for _ in range(THICKEST):
        rest = eroded(rest)
        more = functional.relu(rest - opened(rest))
        line = line + functional.relu(more - line * more)
    return line[:, 0]


LOSSES: dict[str, Loss] = {
    "bce": bce,
    "dice": dice,
    "focal": focal,
    "boundary": boundary,
    "tversky": tversky,
    "centreline": centreline,
}
MIXES: dict[str, dict[str, float]] = {
    "dice": {"dice": 1.0},
    "half": {"bce": 0.5, "dice": 0.5},
    "half_boundary": {"bce": 0.5, "dice": 0.5, "boundary": 0.2},
    "sam": {"focal": 20.0, "dice": 1.0},
    "thin": {"bce": 0.5, "dice": 0.5, "centreline": 0.5},
    "missed": {"bce": 0.5, "tversky": 0.5},
}
"""Named mixes: the seed's Dice alone and half-half, half-half with a boundary term, SAM's 20:1 focal and Dice, one that
follows long thin objects, and one to which a missed pixel is worse than a false one."""


def resolve_mix(mix: str | Mapping[str, float]) -> dict[str, float]:
    """Weights by loss name, from a named mix or from weights that are checked."""
    if isinstance(mix, str):
        if mix not in MIXES:
            raise UsageError(f"expected a loss of {sorted(MIXES)} or weights of {sorted(LOSSES)}, got {mix!r}")
        return dict(MIXES[mix])
    unknown = sorted(set(mix) - set(LOSSES))
    if unknown or not mix or not all(0 <= weight < math.inf for weight in mix.values()) or sum(mix.values()) <= 0:
        raise UsageError(f"expected weights of 0 or more, not all 0, for losses of {sorted(LOSSES)}, got {dict(mix)}")
    return dict(mix)


def mixed(logits: Tensor, target: Tensor, valid: Tensor, weights: Mapping[str, float]) -> Tensor:
    """Weighted sum of losses, (N,)."""
    return torch.stack([w * LOSSES[name](logits, target, valid) for name, w in weights.items() if w]).sum(0)


def held(coverage: Tensor) -> Tensor:
    """Logits bool (N, L, L) that objects hold, from the share of each that they cover.

    Those that are covered by more than half of what the most covered one is: by more than half where the object fills
    one, by less of an object too thin for that, without a jump between. Nothing but an empty mask holds none.
    """
    return coverage > coverage.amax((1, 2), keepdim=True) / 2


def soft_iou(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """IoU (N,) of thresholded logits with what the target holds within the valid frame; no gradient. Empty: 1."""
    with torch.no_grad():
        mask, truth, inside = logits > 0, held(target), valid > 0.5
        overlap = (mask & truth & inside).sum((1, 2)).float()
        union = ((mask | truth) & inside).sum((1, 2)).float()
        return torch.where(union > 0, overlap / union.clamp_min(1), torch.ones_like(union))
