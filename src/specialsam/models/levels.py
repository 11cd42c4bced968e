"""Encoders that answer with several levels (SAM 2 and SAM 3's tracker): one tensor (C, h, w) that holds them all.

Their decoder adds two finer levels while it upscales, of half and a quarter of a cell (Ravi et al. 2024, "SAM 2",
section 4 and appendix C). Each cell of the embedding holds its own part of them as further channels, in the order in
which the decoder upscales a cell: C = 4 D, that is D of the cell itself, 4 places of D / 4 and 16 of D / 8. No value is
lost, stores, finders and memories need to know of nothing, and the decoder adds them without unfolding.

What is computed once an image belongs to the encoder: the two convolutions that make the finer levels, and the
embedding of "no memory" that a single image gets. Both are part of the encoder's identity and frozen with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

LEVELS = 3
MOVED = {
    "mask_decoder.conv_s0.": "vision_encoder.conv_s0.",
    "mask_decoder.conv_s1.": "vision_encoder.conv_s1.",
    "no_memory_embedding": "vision_encoder.no_memory_embedding",
}
"""What is the encoder's here, by transformers' names and ours."""

PARTS = ("vision_encoder.", "prompt_encoder.", "mask_decoder.", "shared_image_embedding.", "no_memory_embedding")


def adopt(sam: Any) -> Any:
    """A `Sam2Model` or `Sam3TrackerModel` whose encoder holds what it needs to answer with all levels.

    The coarsest of SAM 3's four levels is taken away. Its tracker has no use for it, and transformers'
    `Sam3TrackerModel` adds the embedding of "no memory" to that one, where `Sam3TrackerVideoModel` and Meta's own code
    add it to the last of three.
    """
    sam.config.model_type = type(sam).config_class.model_type  # where it came from a folder that is made for videos
    encoder, decoder = sam.vision_encoder, sam.mask_decoder
    if hasattr(encoder.neck, "fpn_layers"):
        encoder.neck.fpn_layers = encoder.neck.fpn_layers[:LEVELS]
        for config in (encoder.config, sam.config.vision_config):
            config.scale_factors = list(config.scale_factors[:LEVELS])
    encoder.conv_s0, encoder.conv_s1 = decoder.conv_s0, decoder.conv_s1
    encoder.no_memory_embedding = sam.no_memory_embedding
    del decoder.conv_s0, decoder.conv_s1, sam.no_memory_embedding
    return sam


def has_levels(sam: Any) -> bool:
    """Whether a model's encoder answers with several levels."""
    return hasattr(sam.vision_encoder, "conv_s0")


def channels(sam: Any) -> int:
    """Channels C of a model's embeddings, with those of finer levels."""
    width = int(sam.config.prompt_encoder_config.hidden_size)
    return 4 * width if has_levels(sam) else width


def ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by transformers' names of a model with several levels, by the names here; without what a video needs."""
    kept = {key: value for key, value in state.items() if key.startswith(PARTS)}
    return {_moved(key, MOVED): value for key, value in kept.items()}


def theirs(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `ours`."""
    return {_moved(key, {new: old for old, new in MOVED.items()}): value for key, value in state.items()}


def _moved(key: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        if key.startswith(old):
            return new + key[len(old) :]
    return key


def embedded(encoder: Any, levels: Sequence[Tensor]) -> Tensor:
    """Embeddings (B, 4 D, h, w) of an encoder's levels, (B, D, 4 h, 4 w), (B, D, 2 h, 2 w) and (B, D, h, w)."""
    fine, middle, coarse = levels
    alone = coarse + encoder.no_memory_embedding.reshape(1, -1, 1, 1)
    return folded(encoder.conv_s0(fine), encoder.conv_s1(middle), alone)


def folded(fine: Tensor, middle: Tensor, coarse: Tensor) -> Tensor:
    """Levels (B, D / 8, 4 h, 4 w), (B, D / 4, 2 h, 2 w) and (B, D, h, w) in one tensor (B, 4 D, h, w)."""
    count, _, height, width = coarse.shape
    middle = middle.reshape(count, -1, height, 2, width, 2).permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
    fine = fine.reshape(count, -1, height, 2, 2, width, 2, 2).permute(0, 3, 6, 4, 7, 1, 2, 5).flatten(1, 5)
    return torch.cat([coarse, middle, fine], 1)


def parted(embeddings: Tensor, width: int) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """The coarse level (B, D, h, w) of embeddings, and of each cell the finer: (B, hw, 4, D / 4), (B, hw, 4, 4, D / 8).

    None where there is but one level.
    """
    if embeddings.shape[1] == width:
        return embeddings, None
    finer = embeddings[:, width:].flatten(2).transpose(1, 2)
    middle, fine = finer[..., :width], finer[..., width:]
    cells = middle.shape[:2]
    return embeddings[:, :width], (middle.reshape(*cells, 4, -1), fine.reshape(*cells, 4, 4, -1))
