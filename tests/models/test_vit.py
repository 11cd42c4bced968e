"""SAM's ViT, prepared for inference: the answers are transformers' own (the oracle), however windows hang over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.models.architectures import build
from specialsam.models.segmenter import Segmenter
from specialsam.models.vit import FastViT, is_vit
from specialsam.models.zoo import CARDS, Card, VitNumbers


def card(cells: int = 6, window: int = 4, heads: int = 2, width: int = 32) -> Card:
    """A small ViT with a windowed and a global block."""
    numbers = VitNumbers(width, 2, heads, (1,), window)
    return Card("tiny", "T", "", "tiny.pth", None, "none", "none", 1, 16 * cells, "vit", numbers, 32)


def sam(of: Card, seed: int = 0) -> Any:
    """A SAM whose relative positions and biases matter."""
    torch.manual_seed(seed)
    model = build(of)
    with torch.no_grad():
        for name, weight in model.vision_encoder.named_parameters():
            if "rel_pos" in name or "bias" in name or "pos_embed" in name:
                weight.normal_(std=0.5)
    return model


def theirs(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        answer: torch.Tensor = model.vision_encoder(pixels).last_hidden_state
    return answer


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(1, 9), st.sampled_from([(2, 32), (4, 32), (3, 30)]), st.integers(1, 3))
def test_answers_are_those_of_transformers(cells: int, window: int, heads: tuple[int, int], count: int) -> None:
    of = card(cells, min(window, cells), *heads)
    model, pixels = sam(of), torch.randn(count, 3, of.side, of.side)
    torch.testing.assert_close(FastViT(model.vision_encoder)(pixels), theirs(model, pixels), atol=1e-5, rtol=1e-4)


def test_windows_without_their_padding_would_answer_something_else() -> None:
    """The padding's keys are not nothing: the test above must see them."""
    of = card(6, 4)
    model = sam(of)
    pixels = torch.randn(1, 3, of.side, of.side)
    before = theirs(model, pixels)
    with torch.no_grad():
        model.vision_encoder.layers[0].attn.qkv.bias.mul_(-1)
    assert (theirs(model, pixels) - before).abs().max() > 1e-2
    torch.testing.assert_close(FastViT(model.vision_encoder)(pixels), theirs(model, pixels), atol=1e-5, rtol=1e-4)


def test_half_precision_is_near() -> None:
    of = card()
    model, pixels = sam(of), torch.randn(2, 3, of.side, of.side)
    exact, near = theirs(model, pixels), FastViT(model.vision_encoder, torch.bfloat16)(pixels)
    assert near.dtype == torch.float32
    assert (near - exact).norm() / exact.norm() < 0.03


def test_a_segmenter_runs_its_frozen_vit_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    of = card()
    segmenter = Segmenter("tiny", sam(of), of.side)
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    expected = theirs(segmenter.sam, segmenter.pixels(image)[None])[0]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("transformers' own way was taken")

    monkeypatch.setattr(type(segmenter.encoder), "forward", refuse)
    torch.testing.assert_close(segmenter.encode(image).tensor, expected, atol=1e-5, rtol=1e-4)


def test_an_encoder_that_learns_runs_as_it_is_and_its_change_counts() -> None:
    of = card()
    segmenter = Segmenter("tiny", sam(of), of.side)
    pixels = torch.randn(1, 3, of.side, of.side)
    segmenter.encode_pixels(pixels)
    segmenter.encoder.requires_grad_(True)
    segmenter.encode_pixels(pixels).sum().backward()
    weight = segmenter.encoder.get_parameter("layers.0.attn.rel_pos_h")
    assert weight.grad is not None
    with torch.no_grad():
        weight.add_(1.0)
    segmenter.encoder.requires_grad_(False)
    segmenter.forget_ids()
    torch.testing.assert_close(segmenter.encode_pixels(pixels), theirs(segmenter.sam, pixels), atol=1e-5, rtol=1e-4)


def test_other_encoders_are_told_apart() -> None:
    assert is_vit(sam(card()).vision_encoder)
    assert not is_vit(build(CARDS["mobile_sam"], "meta").vision_encoder)
    assert not is_vit(torch.nn.Linear(2, 2))
    other = sam(card()).vision_encoder
    other.config.hidden_act = "relu"
    assert not is_vit(other)
