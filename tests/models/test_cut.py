"""An encoder cut in two: both halves together are the encoder, and what is stored between them has an id of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from specialsam.core.errors import ModelError
from specialsam.models.cut import cut, embed_features, features_of
from specialsam.models.load import load_model
from specialsam.models.nano import build_nano
from specialsam.models.segmenter import Segmenter, encoded

torch.set_num_threads(1)
SIDE = 128


def segmenter(kind: str) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(kind, build_nano(kind, SIDE), SIDE)


@pytest.mark.parametrize("kind", ["lite", "tinyvit", "vit"])
def test_head_and_tail_are_the_encoder(kind: str) -> None:
    model = segmenter(kind)
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = cut(model.encoder).head(pixels)
        assert torch.allclose(embed_features(model, features), encoded(model.encoder, pixels), atol=1e-5)
    assert features.ndim == 4


def test_what_is_stored_at_the_cut_is_no_embedding_by_its_id() -> None:
    model = load_model("nano")
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    head = features_of(model)
    assert head.encoder_id != model.encoder_id
    stored, embedding = head.encode(image), model.encode(image)
    assert stored.geometry == embedding.geometry
    with torch.no_grad():
        made = embed_features(model, stored.tensor[None])[0]
    assert torch.allclose(made, embedding.tensor, atol=1e-4)
    with torch.no_grad():
        half = embed_features(model, stored.tensor.half()[None].float())[0]
    assert torch.allclose(half, embedding.tensor, atol=0.05)


@pytest.mark.parametrize("kind", ["lite", "tinyvit", "vit"])
def test_gradients_reach_the_tail_alone(kind: str) -> None:
    model = segmenter(kind)
    model.sam.requires_grad_(True)
    halves = cut(model.encoder, 3)
    with torch.no_grad():
        features = halves.head(torch.randn(1, 3, SIDE, SIDE))
    halves.tail(features).square().sum().backward()
    learned = {id(p) for part in halves.learned for p in part.parameters()}
    for parameter in model.encoder.parameters():
        assert (parameter.grad is not None) <= (id(parameter) in learned)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for part in halves.learned for p in part.parameters())


def test_an_encoder_without_a_cut_and_too_many_blocks_are_one_line() -> None:
    with pytest.raises(ModelError, match="an encoder that can be cut"):
        cut(nn.Identity())
    model: Any = segmenter("vit")
    with pytest.raises(ModelError, match="the last 1 to 7 blocks"):
        cut(model.encoder, 8)
