"""Interactive segmentation as its literature measures it: click after click in the middle of the largest error.

Sofiiuk et al. 2021, "Reviving iterative training with mask guidance"; NoC is the mean number of clicks to an IoU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.core.types import Embedding, Prediction, Prompts
from specialsam.models.segmenter import Segmenter
from specialsam.prompts import correction_clicks

Clicked = tuple[Prompts, Prediction, BoolArray]
"""Prompts of P objects, their single answers, and these as masks (P, H, W)."""


def clicked(
    segmenter: Segmenter, embedding: Embedding, masks: BoolArray, prompts: Prompts, most: int
) -> Iterator[Clicked]:
    """What is found after each of `most` clicks at the objects `masks`, bool (P, H, W).

    `prompts` hold the first click; from the second on the earlier answer's logits are the mask prompt.
    """
    for [found] in clicked_together(segmenter, [embedding], [masks], [prompts], most):
        yield found


def clicked_together(
    segmenter: Segmenter,
    embeddings: Sequence[Embedding],
    masks: Sequence[BoolArray],
    prompts: Sequence[Prompts],
    most: int,
) -> Iterator[list[Clicked]]:
    """As `clicked` for several images, of which all are asked at once after each click; `masks` (P, H, W) of each."""
    asked = list(prompts)
    for number in range(most):
        answers = segmenter.decode_each(embeddings, asked)
        found = [answer.masks()[:, 0] for answer in answers]
        yield list(zip(asked, answers, found, strict=True))
        if number + 1 < most:
            asked = [
                correction_clicks(truth, seen, before, None, np.asarray(answer.logits[:, 0].numpy(), np.float32))
                for truth, seen, before, answer in zip(masks, found, asked, answers, strict=True)
            ]


def clicks_needed(curve: FloatArray, target: float) -> int:
    """The first click after which the IoU of `curve` (N,) reaches the target; N where none does."""
    reached = np.flatnonzero(curve >= target)
    return int(reached[0]) + 1 if len(reached) else len(curve)
