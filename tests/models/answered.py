"""A model's answers by transformers' own forward pass, whoever holds its weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from specialsam.models.sam import Sam, as_transformers
from specialsam.models.segmenter import encoded


def theirs_of(sam: Any) -> Any:
    """The `SamModel` of a model, to be given embeddings."""
    return as_transformers(sam) if isinstance(sam, Sam) else sam


def masks_at(sam: Any, pixels: Tensor, points: Tensor) -> Tensor:
    """Logits (B, 1, C, L, L) of pixels (B, 3, S, S) and a click (B, 1, 1, 2) each."""
    answer: Tensor = theirs_of(sam)(
        image_embeddings=encoded(sam.vision_encoder, pixels), input_points=points
    ).pred_masks
    return answer
