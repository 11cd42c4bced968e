"""SAM 2.1 and SAM 3's tracker: from a card to transformers' model, and from the official names of its tensors to ours.

The official layout of SAM 2.1 is that of facebookresearch/sam2: `image_encoder.trunk.*`, `image_encoder.neck.*`,
`sam_prompt_encoder.*`, `sam_mask_decoder.*`, `no_mem_embed`; that of SAM 3 has its image encoder under
`detector.backbone.vision_backbone.*` and the rest under `tracker.*`. What a video or a text needs is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from specialsam.models.levels import LEVELS, adopt
from specialsam.models.zoo import Card, HieraNumbers, PerceptionNumbers

SAM3_TRUNK, SAM3_NECK = "detector.backbone.vision_backbone.trunk.", "detector.backbone.vision_backbone.sam2_convs."
POINTS = "prompt_encoder.point_embed.weight"
ATTENTIONS = ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")
HEADS = ("output_hypernetworks_mlps.#", "iou_prediction_head", "pred_obj_score_head")
PLACES = ((0, "proj_in"), (1, "layers.0"), (2, "proj_out"))
"""Layers of a head of three by their official number, and transformers' names for them."""

DECODER_NAMES = {
    "sam_prompt_encoder.mask_downscaling.0.": "prompt_encoder.mask_embed.conv1.",
    "sam_prompt_encoder.mask_downscaling.1.": "prompt_encoder.mask_embed.layer_norm1.",
    "sam_prompt_encoder.mask_downscaling.3.": "prompt_encoder.mask_embed.conv2.",
    "sam_prompt_encoder.mask_downscaling.4.": "prompt_encoder.mask_embed.layer_norm2.",
    "sam_prompt_encoder.mask_downscaling.6.": "prompt_encoder.mask_embed.conv3.",
    "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": "shared_image_embedding.positional_embedding",
    "sam_prompt_encoder.": "prompt_encoder.",
    **{
        f"sam_mask_decoder.transformer.layers.#.{part}.out_proj.": f"mask_decoder.transformer.layers.#.{part}.o_proj."
        for part in ATTENTIONS
    },
    "sam_mask_decoder.transformer.final_attn_token_to_image.out_proj.": (
        "mask_decoder.transformer.final_attn_token_to_image.o_proj."
    ),
    "sam_mask_decoder.transformer.layers.#.mlp.layers.0.": "mask_decoder.transformer.layers.#.mlp.proj_in.",
    "sam_mask_decoder.transformer.layers.#.mlp.layers.1.": "mask_decoder.transformer.layers.#.mlp.proj_out.",
    "sam_mask_decoder.transformer.layers.#.norm#.": "mask_decoder.transformer.layers.#.layer_norm#.",
    "sam_mask_decoder.transformer.norm_final_attn.": "mask_decoder.transformer.layer_norm_final_attn.",
    "sam_mask_decoder.output_upscaling.0.": "mask_decoder.upscale_conv1.",
    "sam_mask_decoder.output_upscaling.1.": "mask_decoder.upscale_layer_norm.",
    "sam_mask_decoder.output_upscaling.3.": "mask_decoder.upscale_conv2.",
    **{
        f"sam_mask_decoder.{head}.layers.{number}.": f"mask_decoder.{head}.{name}."
        for head in HEADS
        for number, name in PLACES
    },
    "sam_mask_decoder.conv_s": "vision_encoder.conv_s",
    "sam_mask_decoder.": "mask_decoder.",
    "no_mem_embed": "vision_encoder.no_memory_embedding",
}
SAM2_NAMES = {
    "image_encoder.trunk.patch_embed.proj.": "vision_encoder.backbone.patch_embed.projection.",
    "image_encoder.trunk.blocks.#.norm#.": "vision_encoder.backbone.blocks.#.layer_norm#.",
    "image_encoder.trunk.blocks.#.mlp.layers.0.": "vision_encoder.backbone.blocks.#.mlp.proj_in.",
    "image_encoder.trunk.blocks.#.mlp.layers.1.": "vision_encoder.backbone.blocks.#.mlp.proj_out.",
    "image_encoder.trunk.": "vision_encoder.backbone.",
    "image_encoder.neck.convs.#.conv.": "vision_encoder.neck.convs.#.",
    **DECODER_NAMES,
}
SAM3_NAMES = {
    f"{SAM3_TRUNK}pos_embed": "vision_encoder.backbone.embeddings.position_embeddings",
    f"{SAM3_TRUNK}patch_embed.proj.": "vision_encoder.backbone.embeddings.patch_embeddings.projection.",
    f"{SAM3_TRUNK}ln_pre.": "vision_encoder.backbone.layer_norm.",
    f"{SAM3_TRUNK}blocks.#.norm#.": "vision_encoder.backbone.layers.#.layer_norm#.",
    f"{SAM3_TRUNK}blocks.#.attn.proj.": "vision_encoder.backbone.layers.#.attention.o_proj.",
    f"{SAM3_TRUNK}blocks.#.attn.": "vision_encoder.backbone.layers.#.attention.",
    f"{SAM3_TRUNK}blocks.#.mlp.": "vision_encoder.backbone.layers.#.mlp.",
    f"{SAM3_NECK}0.dconv_2x2_0.": "vision_encoder.neck.fpn_layers.0.scale_layers.0.",
    f"{SAM3_NECK}0.dconv_2x2_1.": "vision_encoder.neck.fpn_layers.0.scale_layers.2.",
    f"{SAM3_NECK}1.dconv_2x2.": "vision_encoder.neck.fpn_layers.1.scale_layers.0.",
    f"{SAM3_NECK}#.conv_1x1.": "vision_encoder.neck.fpn_layers.#.proj1.",
    f"{SAM3_NECK}#.conv_3x3.": "vision_encoder.neck.fpn_layers.#.proj2.",
    **{f"tracker.{old}": new for old, new in DECODER_NAMES.items()},
}
"""Beginnings of official names and what they become; `#` is a number; the first that fits counts."""
_DECODER = ("sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed")
OF_IMAGES = ("image_encoder.", *_DECODER, SAM3_TRUNK, SAM3_NECK, *(f"tracker.{part}" for part in _DECODER))
"""Beginnings of official names of what a single image needs."""


def only_images(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a model's tensors, by official names, that a single image needs."""
    kept = {key: value for key, value in state.items() if key.startswith(OF_IMAGES)}
    return {k: v for k, v in kept.items() if not k.endswith("freqs_cis") and not k.startswith(f"{SAM3_NECK}{LEVELS}.")}


def split_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SAM 3's tensors as transformers cuts them: queries, keys and values apart, no position for a class token."""
    out = {}
    for key, value in state.items():
        if key.startswith(SAM3_TRUNK) and ".attn.qkv." in key:
            for name, part in zip("qkv", value.chunk(3), strict=True):
                out[key.replace(".qkv.", f".{name}_proj.")] = part
        elif key == f"{SAM3_TRUNK}pos_embed":
            count = value.shape[1]
            out[key] = value[:, 1:] if int(count**0.5) ** 2 != count else value
        else:
            out[key] = value
    return out


def joined_points(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in which the four embeddings of point labels (1, D) are one (4, D), as transformers has it."""
    parts = [f"prompt_encoder.point_embeddings.{number}.weight" for number in range(4)]
    out = {key: value for key, value in state.items() if key not in parts}
    if all(part in state for part in parts):
        out[POINTS] = torch.cat([state[part] for part in parts])
    return out


def parted_points(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `joined_points`."""
    out = {key: value for key, value in state.items() if key != POINTS}
    if POINTS in state:
        out |= {f"prompt_encoder.point_embeddings.{n}.weight": row[None] for n, row in enumerate(state[POINTS])}
    return out


def build_sam2(card: Card) -> Any:
    """transformers' model of a card with `HieraNumbers` or `PerceptionNumbers`, random weights, its levels adopted."""
    from transformers import Sam2Model, Sam3TrackerModel

    if isinstance(card.numbers, HieraNumbers):
        return adopt(Sam2Model(_sam2_config(card, card.numbers)))
    assert isinstance(card.numbers, PerceptionNumbers)
    return adopt(Sam3TrackerModel(_sam3_config(card, card.numbers)))


def _sam2_config(card: Card, numbers: HieraNumbers) -> Any:
    from transformers import Sam2Config, Sam2MaskDecoderConfig, Sam2PromptEncoderConfig, Sam2VisionConfig
    from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig

    widths = [numbers.width * 2**stage for stage in range(4)]
    backbone = Sam2HieraDetConfig(
        hidden_size=numbers.width,
        image_size=[card.side, card.side],
        num_attention_heads=numbers.heads,
        blocks_per_stage=list(numbers.blocks),
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[numbers.heads * 2**stage for stage in range(4)],
        window_size_per_stage=list(numbers.windows),
        global_attention_blocks=list(numbers.global_blocks),
        window_positional_embedding_background_size=[numbers.background, numbers.background],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[card.side // stride] * 2 for stride in (4, 8, 16)],
        fpn_hidden_size=card.channels,
    )
    return Sam2Config(
        vision_config=vision,
        prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=card.channels, image_size=card.side),
        mask_decoder_config=Sam2MaskDecoderConfig(hidden_size=card.channels, iou_head_hidden_dim=card.channels),
    )


def _sam3_config(card: Card, numbers: PerceptionNumbers) -> Any:
    from transformers import Sam3TrackerConfig
    from transformers.models.sam3.configuration_sam3 import Sam3VisionConfig, Sam3ViTConfig
    from transformers.models.sam3_tracker.configuration_sam3_tracker import (
        Sam3TrackerMaskDecoderConfig,
        Sam3TrackerPromptEncoderConfig,
    )

    backbone = Sam3ViTConfig(
        hidden_size=numbers.width,
        intermediate_size=numbers.inner,
        num_hidden_layers=numbers.blocks,
        num_attention_heads=numbers.heads,
        image_size=card.side,
        patch_size=numbers.patch,
        window_size=numbers.window,
        global_attn_indexes=list(numbers.global_blocks),
        pretrain_image_size=numbers.trained_side,
    )
    cells = card.side // numbers.patch
    vision = Sam3VisionConfig(
        backbone_config=backbone,
        fpn_hidden_size=card.channels,
        backbone_feature_sizes=[[cells * finer] * 2 for finer in (4, 2, 1)],
    )
    prompt = Sam3TrackerPromptEncoderConfig(hidden_size=card.channels, image_size=card.side, patch_size=numbers.patch)
    decoder = Sam3TrackerMaskDecoderConfig(hidden_size=card.channels, iou_head_hidden_dim=card.channels)
    return Sam3TrackerConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
