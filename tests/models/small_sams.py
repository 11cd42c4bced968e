"""Small random models of SAM 2.1's and SAM 3's architecture, and transformers' own with the same weights."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from specialsam.core.geometry import Geometry
from specialsam.core.types import Prompts
from specialsam.models import levels
from specialsam.models.architectures import build
from specialsam.models.segmenter import Segmenter
from specialsam.models.zoo import Card, HieraNumbers, PerceptionNumbers

TOLERANCE = 1e-4
HIERA = HieraNumbers(width=8, heads=1, blocks=(1, 1, 2, 1), global_blocks=(3,), windows=(8, 4, 4, 2), background=2)
PERCEPTION = PerceptionNumbers(16, 32, 2, 2, (1,), window=2, trained_side=56)
SAM2 = Card("tiny", "T", "", "tiny.pt", None, "none", "none", 1, 128, "hiera", HIERA, 16)
SAM3 = Card("tiny3", "T", "", "tiny3.pt", None, "none", "none", 1, 112, "perception", PERCEPTION, 16)
CARDS = {"sam2": SAM2, "sam3": SAM3}
SIZES = ((90, 90), (60, 97), (131, 70))
MODELS = pytest.mark.parametrize("kind", CARDS)


def random_model(card: Card) -> Any:
    """A model of a card, no weight of which is at rest where training would have moved it."""
    torch.manual_seed(7)
    sam = build(card)
    with torch.no_grad():
        for name, value in sam.named_parameters():
            if not name.endswith("norm.weight") and "layer_norm" not in name:
                value.copy_(torch.randn_like(value) * (0.6 if value.ndim < 2 else 1.2 / value[0].numel() ** 0.5))
    return sam


@functools.cache
def segmenter(kind: str) -> Segmenter:
    """One of these tests' models, to be read only."""
    card = CARDS[kind]
    return Segmenter(card.name, random_model(card).requires_grad_(False), card.side)


@functools.cache
def reference(kind: str) -> Any:
    """transformers' own model with the same weights, built by its own configuration."""
    from transformers import Sam2Model, Sam3TrackerModel

    own = segmenter(kind)
    kinds = {"sam2": Sam2Model, "sam3_tracker": Sam3TrackerModel}
    other: Any = kinds[own.sam.config.model_type](own.sam.config).eval()  # type: ignore[union-attr, index]
    other.load_state_dict(levels.theirs(own.sam.state_dict()))
    return other


def image(size: tuple[int, int], seed: int = 0) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.integers(0, 256, (*size, 3)), np.uint8)


def prompts(kind: str, size: tuple[int, int], side: int) -> Prompts:
    """Prompts of a kind for three objects."""
    rng = np.random.default_rng(1)
    extent = np.array(size[::-1], np.float32)
    points = (rng.random((3, 2, 2)) * extent).astype(np.float32)
    labels = np.array([[1, 0], [1, 1], [1, 0]], np.int64)
    boxes = np.concatenate([points.min(1), points.max(1) + 1], 1).astype(np.float32)
    masks = rng.normal(0, 4, (3, side, side)).astype(np.float32)
    parts: dict[str, Any] = {}
    if "point" in kind:
        parts |= {"points": points, "labels": labels}
    if "box" in kind:
        parts["boxes"] = boxes
    if "mask" in kind:
        parts["masks"] = masks
    return Prompts(kind, **parts)


KINDS = ("point", "box", "point and box", "mask", "point and mask", "box and mask")


def answered(other: Any, pixels: Tensor, geometry: Geometry, given: Prompts, multimask: bool) -> tuple[Tensor, ...]:
    """Logits (P, C, L, L), scores (P, C) and presence (P,) of transformers' model, its objects one after another.

    Its coordinates are scaled as its processor does it: each axis by itself.
    """
    scale = np.array([geometry.side / geometry.width, geometry.side / geometry.height], np.float32)
    out = []
    for place in range(len(given)):
        inputs: dict[str, Any] = {}
        if given.points is not None and given.labels is not None:
            inputs["input_points"] = torch.from_numpy(given.points[place] * scale)[None, None]
            inputs["input_labels"] = torch.from_numpy(given.labels[place])[None, None]
        if given.boxes is not None:
            inputs["input_boxes"] = torch.from_numpy(given.boxes[place] * np.tile(scale, 2))[None, None]
        if given.masks is not None:
            inputs["input_masks"] = torch.from_numpy(given.masks[place])[None, None]
        with torch.no_grad():
            answer = other(pixel_values=pixels[None], multimask_output=multimask, **inputs)
        out.append((answer.pred_masks[0, 0], answer.iou_scores[0, 0], answer.object_score_logits[0, 0, 0]))
    return tuple(torch.stack(parts) for parts in zip(*out, strict=True))
