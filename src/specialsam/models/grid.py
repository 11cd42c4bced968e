"""Everything in an image, by a grid of points: how a SAM that learned no domain is asked without a prompt.

Kirillov et al. 2023, "Segment Anything", section 5: three masks a point, kept where they change little with the
threshold, each object once. A score says how sure the model is of a mask, not that it is an object of any domain.
"""

from __future__ import annotations

import numpy as np
import torch

from specialsam.core.geometry import FloatArray, Geometry
from specialsam.core.types import Embedding, Prediction, Prompts
from specialsam.models.finder import PROPOSALS, distinct
from specialsam.models.segmenter import THREE, Segmenter

SIDE = 16
"""Points on a side of the grid."""
SHIFT = 1.0
"""Logits by which the threshold is moved to see whether a mask is stable."""
LEAST_STABLE = 0.8
"""IoU of a mask above the raised threshold with that above the lowered one, below which it is dropped."""


def grid_points(geometry: Geometry, side: int = SIDE) -> FloatArray:
    """side x side points (N, 2) spread over an image, as (x, y) in original pixels."""
    steps = (np.arange(side, dtype=np.float32) + 0.5) / side
    points = np.stack(np.meshgrid(steps * geometry.width, steps * geometry.height), -1).reshape(-1, 2) - 0.5
    return points.astype(np.float32)


def find_on_grid(
    segmenter: Segmenter, embedding: Embedding, most: int = PROPOSALS, side: int = SIDE
) -> tuple[Prediction, FloatArray, Prompts]:
    """At most `most` objects, the surest first: answers (P, 1, L, L), own score times stability (P,) in 0..1, prompts.

    The prompts are the points that were answered, one an object.
    """
    points = grid_points(embedding.geometry, side)
    prompts = Prompts("grid", points[:, None], np.ones((len(points), 1), np.int64))
    answer = segmenter.decode_outputs(embedding, prompts, THREE)
    logits = answer.logits.flatten(0, 1)
    wide, narrow = (logits > -SHIFT).sum((1, 2)), (logits > SHIFT).sum((1, 2))
    stability = (narrow / wide.clamp(min=1)).numpy()
    scores = np.clip(answer.scores.flatten().numpy(), 0, 1) * stability
    order = np.argsort(-scores, kind="stable")
    order = order[stability[order] >= LEAST_STABLE]
    kept = order[distinct(np.asarray((logits[order] > 0).numpy()), most)]
    found = Prediction(logits[kept][:, None], torch.from_numpy(scores[kept])[:, None], embedding.geometry)
    return found, scores[kept].astype(np.float32), prompts[kept // answer.logits.shape[1]]
