"""nano: its size, its shapes, and batch normalisation that does not move by accident."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from specialsam.core.errors import ModelError
from specialsam.models.folder import encoder_kind, load_pretrained, save_pretrained
from specialsam.models.nano import (
    ENCODERS,
    EncoderKind,
    FrozenBatchNorm,
    OwnEncoder,
    build_nano,
    learn_statistics,
    nano_config,
)
from specialsam.models.segmenter import Segmenter, fingerprint

torch.set_num_threads(1)
SIDE = 128


@pytest.fixture(scope="module")
def sam() -> Any:
    torch.manual_seed(0)
    return build_nano("conv", SIDE)


def pixels(seed: int = 0, side: int = SIDE) -> Tensor:
    return 3 * torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed)) + 1


@pytest.mark.parametrize("kind", ["conv", "vit", "tinyvit"])
def test_at_most_six_million_parameters(kind: Any) -> None:
    sam = build_nano(kind)
    assert sum(p.numel() for p in sam.parameters()) <= 6_000_000
    assert not sam.training
    assert not any(p.requires_grad for p in sam.parameters())


@pytest.mark.parametrize("kind", ["conv", "vit", "tinyvit"])
def test_a_fresh_encoder_can_learn(kind: Any) -> None:
    """Weights of attention and MLPs that are nearly zero (transformers' fresh ViT) get and pass no gradient."""
    encoder = build_nano(kind, SIDE).vision_encoder
    spread = [float(p.std()) for p in encoder.parameters() if p.ndim > 1 and p.abs().max() > 0]
    assert min(spread) > 1e-3


def test_at_most_twelve_megabytes_in_half_precision(tmp_path: Path) -> None:
    folder = save_pretrained(Segmenter("nano", build_nano(), 512), tmp_path / "nano", half=True)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12_000_000


@pytest.mark.parametrize("kind", ["conv", "tinyvit", "vit"])
def test_embeddings_are_a_sixteenth_of_the_side(kind: Any) -> None:
    torch.manual_seed(0)
    sam = build_nano(kind, SIDE)
    with torch.no_grad():
        answer = sam.vision_encoder(pixels())
    tensor = answer if isinstance(answer, Tensor) else answer.last_hidden_state
    assert tuple(tensor.shape) == (2, 128, SIDE // 16, SIDE // 16)
    assert torch.isfinite(tensor).all()


def test_the_configuration_keeps_transformers_rule(sam: Any) -> None:
    """Trap 13: `num_pos_feats` is half of the hidden size."""
    config = nano_config(SIDE)
    assert sam.shared_image_embedding.positional_embedding.shape == (2, config.prompt_encoder_config.hidden_size // 2)
    assert config.prompt_encoder_config.image_embedding_size == SIDE // 16


def test_one_positional_encoding_for_points_and_image(sam: Any) -> None:
    assert sam.shared_image_embedding.positional_embedding is sam.prompt_encoder.shared_embedding.positional_embedding


def test_weights_follow_the_seed() -> None:
    torch.manual_seed(3)
    one = fingerprint(build_nano("conv", SIDE))
    torch.manual_seed(3)
    assert fingerprint(build_nano("conv", SIDE)) == one
    assert fingerprint(build_nano("conv", SIDE)) != one


def test_batch_normalisation_is_frozen_whatever_the_caller_does(sam: Any) -> None:
    """Trap 2: `train()` and a forward pass leave every buffer as it was, and answers independent of the batch."""
    before = fingerprint(sam.vision_encoder)
    sam.train()
    with torch.no_grad():
        together = sam.vision_encoder(pixels())
        alone = sam.vision_encoder(pixels()[:1])
    assert fingerprint(sam.vision_encoder) == before
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)
    assert not any(m.training for m in sam.modules() if isinstance(m, FrozenBatchNorm))
    sam.eval()


def test_pretraining_can_ask_for_statistics_and_freeze_them_again() -> None:
    torch.manual_seed(0)
    encoder = build_nano("conv", SIDE).vision_encoder
    norms = [m for m in encoder.modules() if isinstance(m, FrozenBatchNorm)]
    before = fingerprint(encoder)
    learn_statistics(encoder, True)
    assert all(norm.training for norm in norms)
    with torch.no_grad():
        encoder(pixels())
    moved = fingerprint(encoder)
    assert moved != before
    assert all(int(norm.num_batches_tracked) == 1 for norm in norms)  # type: ignore[arg-type]
    encoder.eval()
    assert not any(norm.training for norm in norms)
    encoder.train()
    assert all(norm.training for norm in norms)
    learn_statistics(encoder, False)
    encoder.train()
    assert not any(norm.training for norm in norms)
    with torch.no_grad():
        encoder(pixels(1))
    assert fingerprint(encoder) == moved


def test_frozen_normalisation_is_the_formula() -> None:
    """(x - mean) / sqrt(variance + epsilon) * weight + bias, with the stored mean and variance."""
    norm = FrozenBatchNorm(2).train()
    norm.running_mean, norm.running_var = torch.tensor([1.0, -1.0]), torch.tensor([4.0, 0.25])
    torch.nn.init.constant_(norm.weight, 3.0)
    torch.nn.init.constant_(norm.bias, 0.5)
    x = torch.tensor([3.0, 1.0]).reshape(1, 2, 1, 1)
    expected = [3 * 2 / (4 + 1e-5) ** 0.5 + 0.5, 3 * 2 / (0.25 + 1e-5) ** 0.5 + 0.5]
    torch.testing.assert_close(norm(x).flatten(), torch.tensor(expected))


def test_a_new_encoder_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built, recognised, saved and loaded again by its kind; a kind without an entry is refused in one line."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 128, 16, 16)

        def forward(self, pixel_values: Tensor, **_: Any) -> Tensor:
            answer: Tensor = self.patches(pixel_values)
            return answer

    monkeypatch.setitem(ENCODERS, "flat", OwnEncoder(Flat, lambda side: Flat()))
    flat = Segmenter("flat", build_nano("flat", SIDE), SIDE)
    assert encoder_kind(flat) == "flat"
    again = load_pretrained(save_pretrained(flat, tmp_path / "flat"))
    picture = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    assert torch.equal(again.encode(picture).tensor, flat.encode(picture).tensor)
    monkeypatch.delitem(ENCODERS, "flat")
    with pytest.raises(ModelError, match="expected an encoder of lite, conv, tinyvit, got 'flat'"):
        load_pretrained(tmp_path / "flat")
    with pytest.raises(ModelError, match="expected an encoder of vit, lite, conv, tinyvit, got 'flat'"):
        build_nano("flat", SIDE)


def test_pre_training_offers_every_encoder() -> None:
    assert set(get_args(EncoderKind)) == {"vit", *ENCODERS}
