"""From a card to a model, and from the official names of its tensors to transformers' and back.

The official layout is that of segment-anything and MobileSAM: `image_encoder.*`, `prompt_encoder.*`, `mask_decoder.*`;
those of SAM 2 and 3 are in `sam2`.

transformers' modules deviate from the original implementations in these points, all mended here by configuration:

- the layer normalisations of the mask decoder's two-way transformer use epsilon 1e-6; SAM was trained with 1e-5;
- a fresh positional encoding is drawn with a standard deviation of half the encoder's width; SAM's has 1;
- a fresh vision encoder is drawn with a standard deviation of 1e-10, which no training leaves; here it is 0.02.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from specialsam.core.errors import ModelError
from specialsam.models.sam import Sam, sam_config, tied
from specialsam.models.sam2 import (
    SAM2_NAMES,
    SAM3_NAMES,
    build_sam2,
    joined_points,
    only_images,
    parted_points,
    split_official,
)
from specialsam.models.tinyvit import TinyViT
from specialsam.models.zoo import Card, HieraNumbers, PerceptionNumbers, TinyVitNumbers, VitNumbers

State = dict[str, Tensor]
DECODER_EPSILON = 1e-5


def vit_config(card: Card, epsilon: float = DECODER_EPSILON) -> Any:
    """The transformers `SamConfig` of a card of SAM's ViT; ModelError for another card."""
    from transformers import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

    numbers = card.numbers
    if not isinstance(numbers, VitNumbers):
        raise ModelError(f"expected the numbers of a ViT on the card of {card.name}, got {numbers}")
    vision = SamVisionConfig(
        hidden_size=numbers.width,
        num_hidden_layers=numbers.blocks,
        num_attention_heads=numbers.heads,
        global_attn_indexes=list(numbers.global_blocks),
        window_size=numbers.window,
        patch_size=numbers.patch,
        image_size=card.side,
        output_channels=card.channels,
        num_pos_feats=card.channels // 2,
        use_abs_pos=True,
        initializer_range=0.02,
    )
    vision.scale = 1.0
    prompt = SamPromptEncoderConfig(hidden_size=card.channels, image_size=card.side, patch_size=numbers.patch)
    decoder = SamMaskDecoderConfig(hidden_size=card.channels, iou_head_hidden_dim=card.channels, layer_norm_eps=epsilon)
    return SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)


def _tinyvit(card: Card) -> nn.Module:
    if not isinstance(card.numbers, TinyVitNumbers):
        raise ModelError(f"expected the numbers of a TinyViT on the card of {card.name}, got {card.numbers}")
    return TinyViT(side=card.side, out_channels=card.channels, **vars(card.numbers))


ENCODERS: dict[str, Callable[[Card], nn.Module]] = {"tinyvit": _tinyvit}
"""Encoders of ours in the place of SAM's ViT, by the kind that the card names."""


def build(card: Card, device: torch.device | str = "cpu", epsilon: float = DECODER_EPSILON) -> Any:
    """A model of this card's architecture with random weights, in eval mode and without gradients.

    A `Sam` where the encoder is one of ours, else transformers' model. `epsilon` is that of the mask decoder's layer
    normalisations. On the meta device nothing is allocated; fill it with `load_state_dict(state, assign=True)`: these
    models, but for SAM 3's, have no buffer outside their state. Raises ModelError for a card whose encoder is built
    elsewhere.
    """
    if isinstance(card.numbers, (HieraNumbers, PerceptionNumbers)):
        with torch.device(device):
            return tied(build_sam2(card)).eval().requires_grad_(False)
    if card.encoder != "vit" and card.encoder not in ENCODERS:
        raise ModelError(f"expected an encoder of vit, {', '.join(ENCODERS)} for {card.name}, got {card.encoder}")
    with torch.device(device):
        sam = _vit(card, epsilon) if card.encoder == "vit" else _ours(card, epsilon)
    return sam.eval().requires_grad_(False)


def _vit(card: Card, epsilon: float) -> Any:
    from transformers import SamModel

    return SamModel(vit_config(card, epsilon))


def _ours(card: Card, epsilon: float) -> Sam:
    config = sam_config(card.side, card.channels, iou_width=card.channels, epsilon=epsilon)
    return Sam(config, ENCODERS[card.encoder](card))


SHARED = "shared_image_embedding.positional_embedding"
SHARED_TOO = "prompt_encoder.shared_embedding.positional_embedding"
"""transformers names SAM's one positional encoding twice."""

VIT_NAMES = {
    "image_encoder.patch_embed.proj.": "vision_encoder.patch_embed.projection.",
    "image_encoder.blocks.#.norm#.": "vision_encoder.layers.#.layer_norm#.",
    "image_encoder.blocks.#.": "vision_encoder.layers.#.",
    "image_encoder.neck.0.": "vision_encoder.neck.conv1.",
    "image_encoder.neck.1.": "vision_encoder.neck.layer_norm1.",
    "image_encoder.neck.2.": "vision_encoder.neck.conv2.",
    "image_encoder.neck.3.": "vision_encoder.neck.layer_norm2.",
}
NAMES = {
    "image_encoder.": "vision_encoder.",
    "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": SHARED,
    "prompt_encoder.point_embeddings.#.": "prompt_encoder.point_embed.#.",
    "prompt_encoder.mask_downscaling.0.": "prompt_encoder.mask_embed.conv1.",
    "prompt_encoder.mask_downscaling.1.": "prompt_encoder.mask_embed.layer_norm1.",
    "prompt_encoder.mask_downscaling.3.": "prompt_encoder.mask_embed.conv2.",
    "prompt_encoder.mask_downscaling.4.": "prompt_encoder.mask_embed.layer_norm2.",
    "prompt_encoder.mask_downscaling.6.": "prompt_encoder.mask_embed.conv3.",
    "mask_decoder.transformer.norm_final_attn.": "mask_decoder.transformer.layer_norm_final_attn.",
    "mask_decoder.transformer.layers.#.norm#.": "mask_decoder.transformer.layers.#.layer_norm#.",
    "mask_decoder.output_upscaling.0.": "mask_decoder.upscale_conv1.",
    "mask_decoder.output_upscaling.1.": "mask_decoder.upscale_layer_norm.",
    "mask_decoder.output_upscaling.3.": "mask_decoder.upscale_conv2.",
    "mask_decoder.output_hypernetworks_mlps.#.layers.0.": "mask_decoder.output_hypernetworks_mlps.#.proj_in.",
    "mask_decoder.output_hypernetworks_mlps.#.layers.1.": "mask_decoder.output_hypernetworks_mlps.#.layers.0.",
    "mask_decoder.output_hypernetworks_mlps.#.layers.2.": "mask_decoder.output_hypernetworks_mlps.#.proj_out.",
    "mask_decoder.iou_prediction_head.layers.0.": "mask_decoder.iou_prediction_head.proj_in.",
    "mask_decoder.iou_prediction_head.layers.1.": "mask_decoder.iou_prediction_head.layers.0.",
    "mask_decoder.iou_prediction_head.layers.2.": "mask_decoder.iou_prediction_head.proj_out.",
}
"""Beginnings of official names and what they become; `#` is a number; the first that fits counts, other names stay."""


def _names(card: Card) -> dict[str, str]:
    if card.encoder in ("hiera", "perception"):
        return SAM2_NAMES if card.encoder == "hiera" else SAM3_NAMES
    return VIT_NAMES | NAMES if card.encoder == "vit" else NAMES


def _rename(names: Mapping[str, str], key: str) -> str:
    for old, new in names.items():
        found = re.match(re.escape(old).replace(r"\#", r"(\d+)"), key)
        if found:
            return new.replace("#", "{}").format(*found.groups()) + key[found.end() :]
    return key


def official_name(key: str, card: Card) -> str:
    """The official name of one tensor of a `SamModel`."""
    return _rename({new: old for old, new in _names(card).items()}, key)


def to_transformers(state: Mapping[str, Tensor], card: Card) -> State:
    """Names of the official layout to those of `SamModel`; the tensors are the same objects, none is dropped.

    Of SAM 2 and 3 (names as in `levels`) what a single image does not need is, and some are cut or joined.
    """
    names, several = _names(card), card.encoder in ("hiera", "perception")
    given = split_official(only_images(state)) if several else state
    out = {_rename(names, key): value for key, value in given.items()}
    out = joined_points(out) if several else out
    if SHARED in out:
        out[SHARED_TOO] = out[SHARED]
    return out


def to_official(state: Mapping[str, Tensor], card: Card) -> State:
    """Names of `SamModel` to those of the official layout, inverse of `to_transformers`.

    Raises ModelError where the two copies of the positional encoding differ: the official layout has one.
    """
    one, other = state.get(SHARED), state.get(SHARED_TOO)
    if one is not None and other is not None and not one.is_meta and not torch.equal(one, other):
        raise ModelError(f"expected one positional encoding for {card.name}, got two that differ; tie them first")
    names = {new: old for old, new in _names(card).items()}
    state = parted_points(state) if card.encoder == "hiera" else state
    return {_rename(names, key): value for key, value in state.items() if key != SHARED_TOO or one is None}
