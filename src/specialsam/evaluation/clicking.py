"""Interactive segmentation as its literature measures it: click after click in the middle of the largest error.

Sofiiuk et al. 2021, "Reviving iterative training with mask guidance"; NoC is the mean number of clicks to an IoU.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.core.types import Embedding, Prediction, Prompts
from specialsam.models.segmenter import Segmenter
from specialsam.prompts import correction_clicks


def clicked(
    segmenter: Segmenter, embedding: Embedding, masks: BoolArray, prompts: Prompts, most: int
) -> Iterator[tuple[Prompts, Prediction, BoolArray]]:
    """The prompts, the single answers and their masks (P, H, W) after each of `most` clicks at the objects `masks`.

    `masks` are bool (P, H, W), `prompts` hold the first click; from the second on the earlier answer's logits are the
    mask prompt.
    """
    for number in range(most):
        answer = segmenter.decode(embedding, prompts)
        found = answer.masks()[:, 0]
        yield prompts, answer, found
        if number + 1 < most:
            given = np.asarray(answer.logits[:, 0].numpy(), np.float32)
            prompts = correction_clicks(masks, found, prompts, None, given)


def clicks_needed(curve: FloatArray, target: float) -> int:
    """The first click after which the IoU of `curve` (N,) reaches the target; N where none does."""
    reached = np.flatnonzero(curve >= target)
    return int(reached[0]) + 1 if len(reached) else len(curve)
