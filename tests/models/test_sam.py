"""SAM's own parts. Oracle: transformers' `SamModel` of the same sizes; test_decode holds its forward pass equal."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import nn

from specialsam.models.sam import Sam, as_transformers, sam_config

SIZES: dict[str, dict[str, Any]] = {
    "nano": {"channels": 128, "mlp": 512, "heads": 4, "iou_width": 128},
    "SAM": {"channels": 256, "epsilon": 1e-5},
}


def drawn(size: str) -> Sam:
    torch.manual_seed(0)
    return Sam(sam_config(128, **SIZES[size]), nn.Identity()).requires_grad_(False)


@pytest.mark.parametrize("size", SIZES)
def test_names_shapes_and_order_are_those_of_transformers(size: str) -> None:
    theirs = as_transformers(drawn(size))
    wanted = {name: value.shape for name, value in theirs.state_dict().items() if not name.startswith("vision_")}
    assert {name: value.shape for name, value in drawn(size).state_dict().items()} == wanted
    assert [name for name, _ in drawn(size).mask_decoder.named_parameters()] == [
        name for name, _ in theirs.mask_decoder.named_parameters()
    ]


@pytest.mark.parametrize("size", SIZES)
def test_epsilons_and_heads_are_those_of_transformers(size: str) -> None:
    """What no tensor tells."""
    ours, theirs = drawn(size), as_transformers(drawn(size))

    def told(sam: Any) -> dict[str, float]:
        parts = [("prompt", sam.prompt_encoder), ("mask", sam.mask_decoder)]
        modules = [(f"{part}.{name}", module) for part, whole in parts for name, module in whole.named_modules()]
        return {name: m.eps for name, m in modules if isinstance(m, nn.LayerNorm)} | {
            name: m.num_attention_heads for name, m in modules if hasattr(m, "num_attention_heads")
        }

    assert told(ours) == told(theirs)
    defaults = theirs.config.mask_decoder_config
    assert {name: getattr(defaults, name) for name in asdict(ours.config.mask_decoder_config)} == asdict(
        ours.config.mask_decoder_config
    )


@pytest.mark.parametrize(("points", "boxes"), [(1, False), (3, False), (0, True), (1, True), (3, True)])
def test_prompts_become_the_tokens_of_transformers(points: int, boxes: bool) -> None:
    """Clicks of all kinds, padding among them, several objects an image."""
    ours, theirs = drawn("nano"), as_transformers(drawn("nano"))
    given = {
        "input_points": 128 * torch.rand(2, 3, points, 2) if points else None,
        "input_labels": torch.randint(-1, 2, (2, 3, points)) if points else None,
        "input_boxes": 128 * torch.rand(2, 3, 4) if boxes else None,
    }
    mine, _ = ours.prompt_encoder(**given)
    reference, _ = theirs.prompt_encoder(**given, input_masks=None)
    torch.testing.assert_close(mine, reference, rtol=1e-6, atol=1e-6)
    masks = torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(ours.prompt_encoder.mask_embed(masks), theirs.prompt_encoder.mask_embed(masks))


def test_points_and_image_share_one_positional_encoding() -> None:
    ours = drawn("nano")
    theirs = as_transformers(ours)
    for sam in (ours, theirs):
        shared: Any = sam.prompt_encoder.shared_embedding
        assert shared.positional_embedding is sam.shared_image_embedding.positional_embedding


def test_the_bundled_model_answers_without_transformers() -> None:
    """It takes longer to import than nano to answer: what brings it in makes every command slow."""
    program = """
import sys
import numpy as np
from specialsam import Prompts, load_model
import specialsam.pipeline.specialize, specialsam.apps.session
model = load_model("nano")
points = np.full((1, 1, 2), 50, np.float32)
embedding = model.encode(np.zeros((100, 100, 3), np.uint8))
model.decode(embedding, Prompts("click", points, np.ones((1, 1), np.int64))).masks()
print("transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
