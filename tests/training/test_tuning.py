"""What each mode tunes, and low-rank terms that start as nothing and end as a plain layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from specialsam.core.types import Prompts
from specialsam.models.nano import FrozenBatchNorm, build_nano
from specialsam.models.segmenter import ALL, Segmenter, fingerprint
from specialsam.models.specialist import clone
from specialsam.training.tuning import KEY_BIAS, LoraLinear, merge, prepare

torch.set_num_threads(1)
SIDE = 128


@pytest.fixture(scope="module")
def base() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter("nano", build_nano("conv", SIDE), SIDE)


def logits(segmenter: Segmenter) -> Tensor:
    image = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    prompts = Prompts("click", np.array([[[50, 20]], [[9, 9]]], np.float32), np.ones((2, 1), np.int64))
    return segmenter.decode_outputs(segmenter.encode(image), prompts, ALL).logits


def names(sam: Any) -> set[str]:
    return {name for name, parameter in sam.named_parameters() if parameter.requires_grad}


def keys(sam: Any) -> set[str]:
    return {name for name, _ in sam.named_parameters() if name.startswith("mask_decoder.") and name.endswith(KEY_BIAS)}


def test_decoder_mode_tunes_the_mask_decoder_alone(base: Segmenter) -> None:
    sam: Any = clone(base).sam
    parameters = prepare(sam, "decoder")
    assert names(sam) == {name for name, _ in sam.named_parameters() if name.startswith("mask_decoder.")} - keys(sam)
    assert {id(p) for p in parameters} == {id(p) for p in sam.mask_decoder.parameters() if p.requires_grad}


def test_key_biases_have_no_effect_and_are_left_alone(base: Segmenter) -> None:
    """Oracle: the answers of a copy whose key biases are all others."""
    tuned = clone(base)
    sam: Any = tuned.sam
    assert len(keys(sam)) == 7, "two layers of three attentions, and the last one"
    before = logits(tuned)
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if name in keys(sam):
                parameter += torch.linspace(-3, 3, len(parameter))
    assert torch.allclose(logits(tuned), before, atol=1e-4 * float(before.abs().max()))
    prepare(sam, "all")
    assert not names(sam) & keys(sam)


def test_prompt_mode_adds_the_prompt_encoder_without_the_positional_encoding(base: Segmenter) -> None:
    sam: Any = clone(base).sam
    prepare(sam, "decoder+prompt")
    expected = {n for n, _ in sam.named_parameters() if n.startswith(("mask_decoder.", "prompt_encoder."))}
    assert names(sam) == expected - {"prompt_encoder.shared_embedding.positional_embedding"} - keys(sam)
    assert any(name.startswith("prompt_encoder.mask_embed") for name in names(sam))


def test_lora_mode_tunes_low_rank_terms_and_the_heads(base: Segmenter) -> None:
    sam: Any = clone(base).sam
    linear = [n for n, m in sam.mask_decoder.transformer.named_modules() if isinstance(m, nn.Linear)]
    parameters = prepare(sam, "lora", rank=4)
    heads = ("mask_decoder.output_hypernetworks_mlps.", "mask_decoder.iou_prediction_head.")
    low_rank = {f"mask_decoder.transformer.{name}.{part}" for name in linear for part in ("down", "up")}
    assert {name for name in names(sam) if not name.startswith(heads)} == low_rank
    assert any(name.startswith(heads[0]) for name in names(sam))
    assert any(name.startswith(heads[1]) for name in names(sam))
    tuned, whole = (sum(p.numel() for p in part) for part in (parameters, base.sam.parameters()))
    assert tuned < 0.3 * whole
    terms = [m for m in sam.modules() if isinstance(m, LoraLinear)]
    assert len(terms) == len(linear)
    assert all(m.down.shape[0] == m.up.shape[1] == 4 for m in terms)


def test_all_mode_tunes_everything_but_positions_on_an_encoder_of_its_own(base: Segmenter) -> None:
    """A clone shares its base's encoder; tuning it must not move the base."""
    before = fingerprint(base.sam)
    tuned = clone(base)
    sam: Any = tuned.sam
    parameters = prepare(sam, "all")
    assert tuned.encoder is not base.encoder
    assert names(sam) == {n for n, _ in sam.named_parameters() if "positional_embedding" not in n} - keys(sam)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1)
    assert fingerprint(base.sam) == before
    assert not any(p.requires_grad for p in base.sam.parameters())


@pytest.mark.parametrize(("kind", "free"), [("lite", "neck."), ("vit", ("layers.6.", "layers.7.", "neck."))])
def test_tail_modes_tune_the_end_of_an_encoder_of_its_own(kind: str, free: Any) -> None:
    torch.manual_seed(0)
    model = Segmenter(kind, build_nano(kind, SIDE), SIDE)
    tuned, terms = clone(model), clone(model)
    encoder: Any = tuned.sam.vision_encoder
    prepare(tuned.sam, "tail")
    assert tuned.encoder is not encoder
    assert names(tuned.encoder) == {name for name, _ in tuned.encoder.named_parameters() if name.startswith(free)}
    assert {"mask_decoder.iou_token.weight", "prompt_encoder.no_mask_embed.weight"} <= names(tuned.sam)
    prepare(terms.sam, "tail+lora", rank=2)
    low_rank = names(terms.encoder)
    assert low_rank
    assert all(name.startswith(free) and name.endswith((".down", ".up")) for name in low_rank)
    torch.testing.assert_close(logits(terms), logits(model), rtol=1e-4, atol=1e-4)
    merge(terms.sam)
    assert set(terms.sam.state_dict()) == set(model.sam.state_dict())
    assert fingerprint(model.encoder) == fingerprint(terms.encoder)


@pytest.mark.parametrize("mode", ["decoder", "decoder+prompt", "lora"])
def test_the_encoder_stays_frozen_and_shared(base: Segmenter, mode: Any) -> None:
    tuned = clone(base)
    prepare(tuned.sam, mode)
    assert tuned.encoder is base.encoder
    assert not any(p.requires_grad for p in tuned.encoder.parameters())
    assert not any(m.training for m in tuned.encoder.modules() if isinstance(m, FrozenBatchNorm))


def test_low_rank_terms_start_as_nothing_and_follow_the_seed(base: Segmenter) -> None:
    """Hu et al. 2021: B = 0 at the start. The same seed draws the same A, whatever was drawn before."""
    first, second, other = clone(base), clone(base), clone(base)
    prepare(first.sam, "lora", 4, seed=1)
    torch.rand(7)
    prepare(second.sam, "lora", 4, seed=1)
    prepare(other.sam, "lora", 4, seed=2)
    torch.testing.assert_close(logits(first), logits(base), rtol=0, atol=0)
    assert fingerprint(first.sam) == fingerprint(second.sam) != fingerprint(other.sam)
    downs = [m.down for m in first.sam.modules() if isinstance(m, LoraLinear)]
    assert all(float(down.detach().std()) > 0 for down in downs)
    assert not torch.equal(downs[0], downs[1])


def test_merged_is_a_plain_sam_with_the_same_answers(base: Segmenter) -> None:
    tuned = clone(base)
    prepare(tuned.sam, "lora", rank=4)
    with torch.no_grad():
        for module in tuned.sam.modules():
            if isinstance(module, LoraLinear):
                module.up.normal_(std=0.05)
    before = logits(tuned)
    assert float((before - logits(base)).abs().max()) > 1e-2
    merge(tuned.sam)
    assert set(tuned.sam.state_dict()) == set(base.sam.state_dict())
    assert not any(isinstance(m, LoraLinear) for m in tuned.sam.modules())
    assert not names(tuned.sam)
    torch.testing.assert_close(logits(tuned), before, rtol=1e-5, atol=1e-5)


def test_a_low_rank_layer_is_the_formula() -> None:
    """W x + b + alpha / r B A x, and only A and B learn."""
    torch.manual_seed(0)
    plain = nn.Linear(5, 3)
    weight, bias = plain.weight.detach().clone(), plain.bias.detach().clone()
    layer = LoraLinear(plain, rank=2, alpha=4.0)
    nn.init.normal_(layer.up)
    x = torch.randn(7, 5)
    expected = x @ weight.T + bias + 2.0 * (x @ layer.down.T) @ layer.up.T
    torch.testing.assert_close(layer(x), expected)
    layer(x).sum().backward()
    assert layer.down.grad is not None
    assert layer.up.grad is not None
    assert layer.base.weight.grad is None
    torch.testing.assert_close(layer.merged()(x), expected)


@pytest.mark.parametrize("mode", ["decoder", "decoder+prompt"])
def test_merging_other_modes_freezes_and_changes_nothing(base: Segmenter, mode: Any) -> None:
    tuned = clone(base)
    prepare(tuned.sam, mode)
    merge(tuned.sam)
    assert not names(tuned.sam)
    assert fingerprint(tuned.sam) == fingerprint(base.sam)
