"""Where to look without a prompt: a small head on the stored embedding, whose proposals the mask decoder answers.

One pass of the encoder, no grid of points. On the embedding (C, h, w) the head answers with a map of the objects'
middles (Zhou et al. 2019, "Objects as points"), the box around each (Tian et al. 2019, "FCOS": distances to its sides),
a map of all that is object at the decoder's low resolution, and whether there is any object at all. Peaks of the first
become prompts; the decoder's masks are scored by a calibrated probability and each object is kept once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from specialsam.core.geometry import CELL_LOGITS, BoolArray, FloatArray, Geometry
from specialsam.core.types import Embedding, Prediction, Prompts
from specialsam.models.nano import Mixer
from specialsam.models.segmenter import Segmenter

By = Literal["box", "point", "both"]
"""With what a proposal is put to the decoder."""
UNIT = 16
"""Model pixels in which the head answers with distances: about an embedding's cell."""
PROPOSALS = 10
"""Proposals an image at most, where nothing else is asked for."""
SAME = 0.5
"""IoU from which two answers are the same object."""
INSIDE = 0.8
"""Share of a smaller answer that a surer one holds from which it is a part of that."""
FEATURES = ("middle", "own score", "inside", "contrast", "presence")
"""What the calibrated probability of an answer is made of, see `features`."""


@dataclass(frozen=True)
class FinderMaps:
    """What the head says of B images, as logits but for the boxes; cells on padding are -30.

    `middle` (B, h, w), `sides` (B, 4, h, w) distances from a cell's centre to the box's left, top, right and bottom in
    model pixels, `dense` (B, L, L) with L = 4 h, `presence` (B,).
    """

    middle: Tensor
    sides: Tensor
    dense: Tensor
    presence: Tensor


class Finder(nn.Module):
    """The head: embeddings (B, `channels`, h, w) to `FinderMaps`.

    What belongs to a decoder: `by`, how a proposal is put to it; `calibration` (F + 1,), weights of FEATURES and a
    bias; `threshold` (), the probability from which an object counts as found; `always` (), whether the surest one
    counts in any case, because every image that it learned from held an object.
    """

    calibration: Tensor
    threshold: Tensor
    always: Tensor

    def __init__(self, channels: int, width: int = 64, blocks: int = 2, by: By = "both"):
        super().__init__()
        self.channels, self.width, self.blocks, self.by = channels, width, blocks, by
        self.enter = nn.Conv2d(channels, width, 1)
        self.body = nn.Sequential(*(Mixer(width) for _ in range(blocks)))
        self.context = nn.Linear(2 * width, width)
        self.after = Mixer(width)
        self.middle = nn.Conv2d(width, 1, 1)
        self.sides = nn.Conv2d(width, 4, 1)
        self.dense = nn.Conv2d(width, CELL_LOGITS**2, 1)
        self.presence = nn.Linear(2 * width, 1)
        self.register_buffer("calibration", torch.tensor([1.0, *[0.0] * (len(FEATURES) - 1), 0.0]))
        self.register_buffer("threshold", torch.tensor(0.5))
        self.register_buffer("always", torch.tensor(False))
        for layer in (self.middle, self.dense, self.presence):
            nn.init.constant_(cast(Tensor, layer.bias), -2.0)

    def forward(self, embeddings: Tensor, valid: Tensor) -> FinderMaps:
        """Embeddings (B, C, h, w) and which of their cells show the image, bool (B, h, w), to maps."""
        seen = valid[:, None].to(embeddings.dtype)
        # channels last: filters of single channels take two thirds of the time, forwards and backwards
        x = self.body(self.enter(embeddings.contiguous(memory_format=torch.channels_last)) * seen)
        x = self.after(x + self.context(_pooled(x, seen))[..., None, None])
        middle = self.middle(x)[:, 0].masked_fill(~valid, -30.0)
        sides = functional.softplus(self.sides(x)) * UNIT
        fine = valid[:, None].float()
        fine = functional.interpolate(fine, scale_factor=CELL_LOGITS, mode="nearest")[:, 0] > 0
        dense = functional.pixel_shuffle(self.dense(x), CELL_LOGITS)[:, 0].masked_fill(~fine, -30.0)
        return FinderMaps(middle, sides, dense, self.presence(_pooled(x, seen))[:, 0])


def _pooled(x: Tensor, seen: Tensor) -> Tensor:
    """Mean and maximum (B, 2 C) of features (B, C, h, w) over the cells (B, 1, h, w) that show the image."""
    mean = (x * seen).sum((2, 3)) / seen.sum((2, 3)).clamp(min=1)
    return torch.cat([mean, x.masked_fill(seen == 0, -30.0).amax((2, 3))], 1)


def valid_cells(geometry: Geometry) -> BoolArray:
    """Which cells of an embedding show a part of the image, bool (h, w)."""
    shown = geometry.valid_logits()
    cells = len(shown) // CELL_LOGITS
    return np.asarray(shown.reshape(cells, CELL_LOGITS, cells, CELL_LOGITS).max((1, 3)) > 0)


@dataclass(frozen=True)
class Proposals:
    """N places to look at in one image, the likeliest first: `points` (N, 2), `boxes` (N, 4) in original pixels.

    `logits` (N,) are those of the map of middles, `dense` (L, L) probabilities, `presence` the image's own logit.
    """

    points: FloatArray
    boxes: FloatArray
    logits: FloatArray
    dense: FloatArray
    presence: float

    def __len__(self) -> int:
        return len(self.logits)

    def prompts(self, by: By) -> Prompts:
        """As prompts of one point, of a box, or of both."""
        return _prompts(self.points, self.boxes, by)


def _prompts(points: FloatArray, boxes: FloatArray, by: By) -> Prompts:
    if by == "box":
        return Prompts("found", boxes=boxes)
    labels = np.ones((len(points), 1), np.int64)
    return Prompts("found", points[:, None], labels, None if by == "point" else boxes)


def propose(finder: Finder, embedding: Embedding, most: int = PROPOSALS) -> Proposals:
    """At most `most` proposals: peaks of the map of middles among their 3 x 3 neighbours."""
    geometry = embedding.geometry
    device = next(finder.parameters()).device
    valid = torch.from_numpy(valid_cells(geometry))
    with torch.no_grad():
        maps = finder(embedding.tensor[None].to(device, torch.float32), valid[None].to(device))
    middle, sides = maps.middle[0].cpu(), maps.sides[0].cpu()
    dense = maps.dense[0].sigmoid().cpu()
    peaks = (functional.max_pool2d(middle[None, None], 3, 1, 1)[0, 0] == middle) & valid
    order = torch.where(peaks, middle, -torch.inf).flatten().argsort(descending=True, stable=True)
    kept = order[: min(most, int(peaks.sum()))]
    rows, columns = kept // middle.shape[1], kept % middle.shape[1]
    centres = torch.stack([columns, rows], 1).float() * geometry.cell + geometry.cell / 2
    found = sides[:, rows, columns].T
    boxes = torch.cat([centres - found[:, :2], centres + found[:, 2:]], 1).numpy()
    limit = np.array([geometry.width - 1, geometry.height - 1] * 2, np.float32)
    boxes = np.clip(geometry.boxes_to_original(boxes), 0, limit)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], np.minimum(boxes[:, :2] + 1, limit[:2]))
    likeliest = _likeliest(dense, rows, columns, geometry.logits_stride)
    points = np.clip(geometry.points_to_original(likeliest), 0, limit[:2])
    return Proposals(
        points.astype(np.float32),
        boxes.astype(np.float32),
        np.asarray(middle.flatten()[kept].numpy(), np.float32),
        np.asarray(dense.numpy(), np.float32),
        float(maps.presence[0]),
    )


def _likeliest(dense: Tensor, rows: Tensor, columns: Tensor, stride: float) -> FloatArray:
    """In each cell (N,) the logit most likely on an object, as a point (N, 2) in model pixels, `stride` a logit."""
    cells = dense.reshape(len(dense) // CELL_LOGITS, CELL_LOGITS, -1, CELL_LOGITS)[rows, :, columns]
    place = cells.flatten(1).argmax(1)
    y = rows * CELL_LOGITS + place // CELL_LOGITS
    x = columns * CELL_LOGITS + place % CELL_LOGITS
    return np.asarray((torch.stack([x, y], 1).float() * stride + stride / 2 - 0.5).numpy(), np.float32)


@dataclass(frozen=True)
class Found:
    """P objects found in one image, the surest first: answers `prediction` (P, 1, L, L) and `probabilities` (P,).

    `points` (P, 2) and `boxes` (P, 4) are the prompts in original pixels; `dense` (L, L) is the map of all that is
    object, as probabilities. An object counts from the probability `threshold` on, the surest one `always` where true.
    """

    prediction: Prediction
    probabilities: FloatArray
    points: FloatArray
    boxes: FloatArray
    dense: FloatArray
    threshold: float
    always: bool = False

    def __len__(self) -> int:
        return len(self.probabilities)

    def counted(self, threshold: float | None = None) -> BoolArray:
        """Which count as found, bool (P,): by the finder's own rule, or those of at least `threshold`."""
        least = self.threshold if threshold is None else threshold
        out = self.probabilities >= least
        if threshold is None and self.always and len(out):
            out[0] = True
        return np.asarray(out, np.bool_)

    def above(self, threshold: float | None = None) -> Found:
        """Those that count as found, see `counted`."""
        kept = np.flatnonzero(self.counted(threshold))
        answers = Prediction(self.prediction.logits[kept], self.prediction.scores[kept], self.prediction.geometry)
        return replace(
            self,
            prediction=answers,
            probabilities=self.probabilities[kept],
            points=self.points[kept],
            boxes=self.boxes[kept],
        )

    def prompts(self, by: By) -> Prompts:
        """The prompts that were answered."""
        return _prompts(self.points, self.boxes, by)

    @property
    def score(self) -> float:
        """Probability that any object is there: that of the surest, 0 where nothing was found."""
        return float(self.probabilities.max(initial=0.0))

    def soft(self) -> FloatArray:
        """How much each original pixel looks like an object, float32 (H, W) in 0..1.

        The mean of the dense map and of the answers' masks, where an answer counts in full from the threshold on and
        below it by its share of that.
        """
        geometry = self.prediction.geometry
        joint = torch.from_numpy(self.dense) / 2
        if len(self):
            weights = torch.from_numpy(np.minimum(self.probabilities / max(self.threshold, 1e-6), 1))
            joint = joint + (self.prediction.logits[:, 0].sigmoid() * weights[:, None, None]).amax(0) / 2
        return np.asarray(geometry.logits_to_original(joint[None, None])[0, 0].numpy(), np.float32)


def find(finder: Finder, segmenter: Segmenter, embedding: Embedding, most: int = PROPOSALS) -> Found:
    """Objects in one image without a prompt: proposals, the decoder's answers, calibrated probabilities, each once."""
    proposals = propose(finder, embedding, most)
    answers = segmenter.decode(embedding, proposals.prompts(finder.by))
    weights = finder.calibration.cpu().numpy()
    logits = features(proposals, answers) @ weights[:-1] + weights[-1]
    probabilities = (1 / (1 + np.exp(-logits))).astype(np.float32)
    order = np.argsort(-probabilities, kind="stable")
    kept = order[distinct(np.asarray((answers.logits[order, 0] > 0).numpy()))]
    return Found(
        Prediction(answers.logits[kept], answers.scores[kept], answers.geometry),
        probabilities[kept],
        proposals.points[kept],
        proposals.boxes[kept],
        proposals.dense,
        float(finder.threshold),
        bool(finder.always),
    )


def features(proposals: Proposals, answers: Prediction) -> FloatArray:
    """What is known of each answer, float32 (N, F), in the order of FEATURES.

    The middle's logit, the decoder's own score, the mean of the dense map within the mask, how much that is above its
    mean outside, and the image's presence logit.
    """
    dense = torch.from_numpy(proposals.dense)
    shown = torch.from_numpy(answers.geometry.valid_logits())
    inside = (answers.logits[:, 0] > 0).float() * shown
    outside = shown - inside
    within = (inside * dense).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
    beyond = (outside * dense).sum((1, 2)) / outside.sum((1, 2)).clamp(min=1)
    presence = np.full(len(proposals), np.clip(proposals.presence, -10, 10), np.float32)
    columns = [
        np.clip(proposals.logits, -10, 10),
        answers.scores[:, 0].numpy(),
        within.numpy(),
        (within - beyond).numpy(),
        presence,
    ]
    return np.stack(columns, 1).astype(np.float32)


def distinct(masks: BoolArray, most: int | None = None) -> list[int]:
    """Places of low-res masks (N, L, L), the surest first, that are neither empty nor a surer one's double or part.

    `most` stops at that many.
    """
    kept: list[int] = []
    flat = masks.reshape(len(masks), masks.shape[1] * masks.shape[2]).astype(np.float32)
    areas = flat.sum(1)
    for place in range(len(masks)):
        if len(kept) == most:
            break
        if not areas[place]:
            continue
        shared = flat[kept] @ flat[place]
        union = areas[kept] + areas[place] - shared
        same = (shared > SAME * union) | (shared > INSIDE * areas[place])
        if not same.any():
            kept.append(place)
    return kept
