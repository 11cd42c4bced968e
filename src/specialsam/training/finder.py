"""Learn a finder on stored embeddings: where the objects of a domain are, and that nothing is there.

Images without an object are its negatives; every item's masks become four targets (`targets`). It takes a minute where
the decoder takes many, for the head is small and a step touches no decoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from specialsam.core.console import Progress
from specialsam.core.geometry import CELL_LOGITS, BoolArray, FloatArray, Geometry
from specialsam.metrics.overlaps import pairwise_iou
from specialsam.models.finder import (
    SAME,
    By,
    Finder,
    FinderMaps,
    features,
    find,
    propose,
    valid_cells,
)
from specialsam.models.segmenter import Segmenter
from specialsam.prompts import generator
from specialsam.training.losses import held
from specialsam.training.settings import FinderSettings
from specialsam.training.state import Item, TrainingData

EPOCHS, LEAST_STEPS = 20, 30
"""Epochs where none are asked for: more of them where they would be fewer steps (docs/finding.md)."""
LEAST = 0.2
"""Least probability from which an object may count as found: what is less likely is a guess that helps nobody."""


@dataclass(frozen=True)
class FinderTargets:
    """What the maps of one item should say: `middle` (h, w) in 0..1, 1 in the cell of each object's deepest pixel,
    `sides` (4, h, w) in model pixels where `near` (h, w) is true, `dense` (L, L) coverage, `presence` 0 or 1.
    """

    middle: Tensor
    sides: Tensor
    near: Tensor
    dense: Tensor
    presence: Tensor
    valid: Tensor


def targets(masks: BoolArray, geometry: Geometry) -> FinderTargets:
    """Targets from true masks bool (P, H, W), P = 0 where the image holds nothing.

    A cell's middle is the depth of its deepest logit within the object, as a share of the object's greatest depth, to
    the fourth power; where objects meet the smaller one counts.
    """
    valid = valid_cells(geometry)
    cells = len(valid)
    middle, near = np.zeros((cells, cells), np.float32), np.zeros((cells, cells), np.bool_)
    sides = np.zeros((4, cells, cells), np.float32)
    coverage = geometry.masks_to_logits(masks)
    dense = coverage.max(0, initial=0.0)
    centre = np.arange(cells, dtype=np.float32) * geometry.cell + geometry.cell / 2
    for plane in sorted(coverage, key=lambda plane: -float(plane.sum())):
        inside = _held(plane[None])[0]
        depth = cv2.distanceTransform(np.pad(inside.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        share = np.minimum(_by_cell(np.asarray(depth / depth.max(), np.float32)) ** 4, 0.99)
        deepest = np.unravel_index(int(depth.argmax()), depth.shape)
        share[deepest[0] // CELL_LOGITS, deepest[1] // CELL_LOGITS] = 1.0
        middle = np.maximum(middle, share)
        own = share > 0.4
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        (x0, x1), (y0, y1) = (np.array([on[0], on[-1] + 1]) * geometry.logits_stride for on in (columns, rows))
        span = np.broadcast_arrays(centre[None] - x0, centre[:, None] - y0, x1 - centre[None], y1 - centre[:, None])
        sides[:, own] = np.maximum(np.stack(span)[:, own], 1.0)
        near |= own
    return FinderTargets(
        torch.from_numpy(middle),
        torch.from_numpy(sides),
        torch.from_numpy(near),
        torch.from_numpy(dense),
        torch.tensor(float(len(masks) > 0)),
        torch.from_numpy(valid),
    )


def _held(coverage: FloatArray) -> BoolArray:
    """`losses.held` of coverage (P, L, L)."""
    return np.asarray(held(torch.from_numpy(coverage)).numpy())


def _by_cell(plane: FloatArray) -> FloatArray:
    """The largest value of each cell, (h, w), of a plane (L, L)."""
    cells = len(plane) // CELL_LOGITS
    return np.asarray(plane.reshape(cells, CELL_LOGITS, cells, CELL_LOGITS).max((1, 3)), np.float32)


def loss_of(maps: FinderMaps, truth: FinderTargets) -> Tensor:
    """Penalty-reduced focal loss of the middles (Law and Deng 2018), generalised IoU loss of the boxes, balanced
    cross-entropy with Dice of the dense map, cross-entropy of presence; `truth` holds batches (B, ...).
    """
    middle = _focal(maps.middle, truth.middle, truth.valid)
    boxes = _giou(maps.sides, truth.sides)[truth.near]
    sides = boxes.mean() if len(boxes) else maps.sides.sum() * 0
    shown = functional.interpolate(truth.valid[:, None].float(), scale_factor=CELL_LOGITS)[:, 0]
    soft = maps.dense.sigmoid() * shown
    cross = functional.binary_cross_entropy_with_logits(maps.dense, truth.dense, shown, reduction="sum") / shown.sum()
    overlap = 2 * (soft * truth.dense).sum((1, 2)) + 1
    dice = 1 - overlap / (soft.sum((1, 2)) + truth.dense.sum((1, 2)) + 1)
    presence = functional.binary_cross_entropy_with_logits(maps.presence, truth.presence)
    return middle + sides + cross + dice.mean() + 0.5 * presence


def _focal(logits: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    chance = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    peak = truth == 1
    positive = (1 - chance) ** 2 * chance.log() * peak
    negative = (1 - truth) ** 4 * chance**2 * (1 - chance).log() * (~peak & valid)
    return -(positive + negative).sum() / peak.sum().clamp(min=1)


def _giou(found: Tensor, true: Tensor) -> Tensor:
    """1 - generalised IoU (Rezatofighi et al. 2019) of boxes by distances (B, 4, h, w) from one cell: (B, h, w)."""
    least, most = torch.minimum(found, true), torch.maximum(found, true)
    shared = (least[:, 0] + least[:, 2]) * (least[:, 1] + least[:, 3])
    area = [(part[:, 0] + part[:, 2]) * (part[:, 1] + part[:, 3]) for part in (found, true)]
    union = area[0] + area[1] - shared
    hull = (most[:, 0] + most[:, 2]) * (most[:, 1] + most[:, 3])
    return 1 - shared / union.clamp(min=1e-6) + (hull - union) / hull.clamp(min=1e-6)


def learn_finder(
    data: TrainingData, settings: FinderSettings, channels: int, device: torch.device, progress: Progress | None = None
) -> Finder:
    """A finder of `data`'s objects; its weights are those of the epoch with the least loss on validation."""
    torch.manual_seed(settings.seed)
    finder = Finder(channels, settings.width, settings.blocks).to(device)
    optimizer = torch.optim.AdamW(finder.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    steps = math.ceil(len(data.train) / settings.batch)
    epochs = settings.epochs or max(EPOCHS, math.ceil(LEAST_STEPS / steps))
    batches = Batches(data, device)
    best, kept = math.inf, deepcopy(finder.state_dict())
    for epoch in range(epochs):
        rng = generator(settings.seed, "finder", epoch)
        order = rng.permutation(len(data.train))
        finder.train()
        for step in range(steps):
            number = epoch * steps + step
            for group in optimizer.param_groups:
                group["lr"] = _rate(number, epochs * steps, settings.lr)
            chosen = [data.train[i] for i in order[step * settings.batch :][: settings.batch]]
            embeddings, truth = batches.of(chosen)
            seen = rng.random(embeddings.shape[:2]) >= settings.dropout
            mask = torch.from_numpy(seen.astype(np.float32)).to(device)[..., None, None] / (1 - settings.dropout)
            loss = loss_of(finder(embeddings * mask, truth.valid), truth)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(finder.parameters(), 1.0)
            optimizer.step()
            if progress:
                progress(number + 1, epochs * steps, f"epoch {epoch + 1}, loss {float(loss.detach()):.3f}")
        held_out = validation_loss(finder, batches, data.val or data.train, settings.batch)
        if held_out <= best:
            best, kept = held_out, deepcopy(finder.state_dict())
    finder.load_state_dict(kept)
    return finder.eval().requires_grad_(False)


def validation_loss(finder: Finder, batches: Batches, items: Sequence[Item], batch: int) -> float:
    """Mean loss on items."""
    finder.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(items), batch):
            embeddings, truth = batches.of(items[start : start + batch])
            total += float(loss_of(finder(embeddings, truth.valid), truth)) * len(embeddings)
    return total / len(items)


class Batches:
    """Embeddings and targets of items; targets are made once and kept in half precision, some 50 KB an item."""

    def __init__(self, data: TrainingData, device: torch.device):
        self.data, self.device = data, device
        self.kept: dict[str, FinderTargets] = {}

    def of(self, items: Sequence[Item]) -> tuple[Tensor, FinderTargets]:
        """Embeddings (B, C, h, w) of items, and their targets as batches."""
        embeddings = self.data.embeddings(items)
        for item, one in zip(items, embeddings, strict=True):
            if item.id not in self.kept:
                made = targets(self.data.masks(item), one.geometry)
                self.kept[item.id] = replace(made, sides=made.sides.half(), dense=made.dense.half())
        parts = {
            part.name: torch.stack([getattr(self.kept[item.id], part.name) for item in items]).to(self.device)
            for part in fields(FinderTargets)
        }
        truth = FinderTargets(
            **{name: value if value.dtype == torch.bool else value.float() for name, value in parts.items()}
        )
        return torch.stack([one.tensor.float() for one in embeddings]).to(self.device), truth


def _rate(step: int, steps: int, peak: float) -> float:
    """Warm-up over a twentieth of all steps, then cosine to nothing."""
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@dataclass(frozen=True)
class _Asked:
    """Of the N proposals of one item and one way of asking: `known` (N, F) of each answer, its IoU (N, T) with each
    true object. The answers themselves are not kept: those of a large model's validation split take gigabytes.
    """

    known: FloatArray
    ious: FloatArray


def calibrate(finder: Finder, segmenter: Segmenter, data: TrainingData, progress: Progress | None = None) -> Finder:
    """Fit a copy of `finder` to the decoder of `segmenter` on validation (on training where that has no object).

    The way of asking is that whose answers cover the true objects best; the probability of an answer is a logistic
    regression of "IoU of at least .5 with an object" on `models.finder.FEATURES`; the threshold gives the best mean
    over images of the IoU of all that is found with all that is true, an image of nothing counting 1 where nothing is
    found. Where no training image is one of nothing, the surest find always counts.
    """
    items = [item for item in data.val or data.train if item.id == item.record]
    ways: dict[By, list[_Asked]] = {"box": [], "point": [], "both": []}
    for number, item in enumerate(items, 1):
        [embedding] = data.embeddings([item])
        truth = _held(embedding.geometry.masks_to_logits(data.masks(item)))
        proposals = propose(finder, embedding)
        for by, asked in ways.items():
            answers = segmenter.decode(embedding, proposals.prompts(by))
            found = np.asarray((answers.logits[:, 0] > 0).numpy())
            asked.append(_Asked(features(proposals, answers), pairwise_iou(found, truth)))
        if progress:
            progress(number, len(items), item.record)
    by = max(
        ways, key=lambda way: float(np.mean([one.ious.max(0).mean() for one in ways[way] if one.ious.size] or [0]))
    )
    fitted = deepcopy(finder)
    fitted.by = by
    fitted.calibration.copy_(torch.from_numpy(_logistic(ways[by])))
    fitted.always.fill_(all(len(data.masks(item)) for item in data.train))
    fitted.threshold.fill_(_threshold(fitted, segmenter, data, items))
    return fitted


def _logistic(asked: Sequence[_Asked]) -> FloatArray:
    """Weights and bias (F + 1,); those that take the middle's logit as it is where one outcome is missing."""
    from sklearn.linear_model import LogisticRegression

    known = np.concatenate([one.known for one in asked])
    good = np.concatenate([one.ious.max(1, initial=0.0) >= SAME for one in asked])
    if good.all() or not good.any():
        return np.array([1.0, *[0.0] * (known.shape[1])], np.float32)
    centre, spread = known.mean(0), known.std(0) + 1e-6
    fitted = LogisticRegression(C=1.0, max_iter=1000).fit((known - centre) / spread, good)
    weights = fitted.coef_[0] / spread
    return np.array([*weights, fitted.intercept_[0] - weights @ centre], np.float32)


def _threshold(finder: Finder, segmenter: Segmenter, data: TrainingData, items: Sequence[Item]) -> float:
    levels = np.linspace(LEAST, 0.95, 16)
    totals = np.zeros(len(levels))
    for item in items:
        [embedding] = data.embeddings([item])
        truth = _held(embedding.geometry.masks_to_logits(data.masks(item))).any(0)
        found = find(finder, segmenter, embedding)
        masks = np.asarray((found.prediction.logits[:, 0] > 0).numpy())
        for place, level in enumerate(levels):
            counted = replace(found, threshold=float(level)).counted()
            joint = masks[counted].any(0) if len(masks) else np.zeros_like(truth)
            union = (joint | truth).sum()
            totals[place] += (joint & truth).sum() / union if union else 1.0
    return float(levels[int(totals.argmax())])
