"""The click that a user would add after looking at the answer: in the middle of the largest mistake.

The loop of interactive segmentation: Sofiiuk et al. 2021, "Reviving iterative training with mask guidance", and the
training of Kirillov et al. 2023, "Segment Anything", which draws the click at random from the error region instead.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.core.masks import interior_point
from specialsam.core.types import Prompts
from specialsam.prompts.strategies import random_pixels


def largest_component_area(mask: BoolArray) -> int:
    """Pixels of the largest 8-connected component of a bool (H, W) mask, 0 when it is empty."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return int(stats[1:, cv2.CC_STAT_AREA].max()) if count > 1 else 0


def correction_click(
    truth: BoolArray, predicted: BoolArray, rng: np.random.Generator | None = None
) -> tuple[tuple[float, float], int]:
    """The next click ((x, y), label) for one object, from its true and its predicted mask, both bool (H, W).

    Without `rng`: the interior point of the largest component among the false negatives (label 1) and the false
    positives (label 0), false negatives first when equal. With `rng`: a random pixel of all wrong pixels. Where nothing
    is wrong: the interior point of the object, label 1.
    """
    if not truth.any():
        raise DataError("expected a non-empty true mask to correct, got an empty one")
    missed, surplus = truth & ~predicted, predicted & ~truth
    wrong = missed | surplus
    if not wrong.any():
        return interior_point(truth), 1
    if rng is not None:
        x, y = (int(value) for value in random_pixels(wrong, 1, rng)[0])
        return (x, y), int(missed[y, x])
    if largest_component_area(missed) >= largest_component_area(surplus):
        return interior_point(missed), 1
    return interior_point(surplus), 0


def correction_clicks(
    masks: BoolArray,
    predicted: BoolArray,
    previous: Prompts,
    rng: np.random.Generator | None = None,
    previous_logits: FloatArray | None = None,
) -> Prompts:
    """The previous prompts of P objects with one more click each: K + 1 points, the boxes kept.

    `masks` and `predicted` are bool (P, H, W), the truth and the answer to `previous`. `previous_logits`, float32
    (P, L, L), are that answer's low-res logits: given, they become the mask prompts; otherwise `previous.masks` stay.
    Raises DataError when the numbers of objects or the sizes differ, or a true mask is empty.
    """
    if masks.shape != predicted.shape or masks.ndim != 3 or masks.dtype != np.bool_ or predicted.dtype != np.bool_:
        raise DataError(
            f"expected true and predicted masks of the same bool (P, H, W), got {masks.dtype} {masks.shape} "
            f"and {predicted.dtype} {predicted.shape}"
        )
    if len(previous) != len(masks):
        raise DataError(f"expected previous prompts for {len(masks)} objects, got {len(previous)}")
    clicks = [correction_click(truth, answer, rng) for truth, answer in zip(masks, predicted, strict=True)]
    points = np.array([point for point, _ in clicks], np.float32).reshape(-1, 1, 2)
    labels = np.array([label for _, label in clicks], np.int64).reshape(-1, 1)
    if previous.points is not None and previous.labels is not None:
        points = np.concatenate([previous.points, points], 1)
        labels = np.concatenate([previous.labels, labels], 1)
    logits = previous.masks if previous_logits is None else previous_logits
    return replace(previous, points=points, labels=labels, masks=logits)
