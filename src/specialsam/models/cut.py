"""An image encoder cut in two: what is computed once an image and stored, and the end of it that can be tuned.

Where a frozen encoder ends the gain, its last part may learn too. Images are still encoded only once, up to the cut:
what is stored there takes the place of the embedding. Of a ViT the last blocks and the neck come after the cut, of a
TinyViT its last stage and neck, of nano the neck, which fuses the backbone's levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from specialsam.core.errors import ModelError
from specialsam.models.efficientnet import WIDTHS
from specialsam.models.nano import LiteEncoder
from specialsam.models.segmenter import Backend, Segmenter
from specialsam.models.tinyvit import TinyViT
from specialsam.models.vit import is_vit

COARSEST = 32
"""Stride at which nano's levels are stored beside each other."""


@dataclass(frozen=True)
class Cut:
    """`head` takes pixels (B, 3, S, S) to features (B, F, h, w), `tail` takes these to embeddings (B, C, h, w).

    Both use the encoder's own modules: `tail(head(pixels))` is what the encoder answers. `learned` are the tail's.
    """

    head: Callable[[Tensor], Tensor]
    tail: Callable[[Tensor], Tensor]
    learned: tuple[nn.Module, ...]


def cut(encoder: nn.Module, blocks: int = 2) -> Cut:
    """The cut before the last `blocks` of a ViT, the last stage of a TinyViT, or nano's neck; ModelError for others."""
    if isinstance(encoder, LiteEncoder):
        return _nano_cut(encoder)
    if isinstance(encoder, TinyViT):
        return _tiny_vit_cut(encoder)
    if is_vit(encoder):
        return _vit_cut(encoder, blocks)
    raise ModelError(
        f"expected an encoder that can be cut (SAM's ViT, MobileSAM's TinyViT, nano), got {type(encoder).__name__}; "
        "tune the decoder, or the whole model (train.mode=all)"
    )


def features_of(segmenter: Segmenter, blocks: int = 2) -> Segmenter:
    """The same segmenter, whose `encode` stops at the cut: what it answers is stored under an id of its own."""
    own = cut(segmenter.encoder, blocks)

    def run(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return own.head(pixels)

    return replace(segmenter, backend=Backend("cut", f"cut{blocks}", run))


def embed_features(segmenter: Segmenter, features: Tensor, blocks: int = 2) -> Tensor:
    """Embeddings float32 (B, C, h, w) of stored features (B, F, h, w); gradients flow where the tail learns."""
    return cut(segmenter.encoder, blocks).tail(features.to(segmenter.device)).float()


def _nano_cut(encoder: LiteEncoder) -> Cut:
    """The backbone's levels, finer ones folded into channels at stride 32 (no value is lost), and the neck."""

    def head(pixels: Tensor) -> Tensor:
        levels = encoder.backbone(pixels)
        return torch.cat([functional.pixel_unshuffle(levels[s], COARSEST // s) for s in sorted(WIDTHS)], 1)

    def tail(features: Tensor) -> Tensor:
        widths = {stride: WIDTHS[stride] * (COARSEST // stride) ** 2 for stride in sorted(WIDTHS)}
        parts = torch.split(features, list(widths.values()), 1)
        levels = {s: functional.pixel_shuffle(part, COARSEST // s) for s, part in zip(widths, parts, strict=True)}
        out: Tensor = encoder.neck(levels)
        return out

    return Cut(head, tail, (encoder.neck,))


def _tiny_vit_cut(encoder: TinyViT) -> Cut:
    def head(pixels: Tensor) -> Tensor:
        x = encoder.patch_embed(pixels.contiguous(memory_format=torch.channels_last))
        for stage in encoder.layers[:-1]:
            x = stage(x)
        return x  # type: ignore[no-any-return]

    def tail(features: Tensor) -> Tensor:
        return encoder.neck(encoder.layers[-1](features))  # type: ignore[no-any-return]

    return Cut(head, tail, (encoder.layers[-1], encoder.neck))


def _vit_cut(vit: Any, blocks: int) -> Cut:
    if not 1 <= blocks < len(vit.layers):
        raise ModelError(f"expected a cut before the last 1 to {len(vit.layers) - 1} blocks, got {blocks}")

    def head(pixels: Tensor) -> Tensor:
        x = vit.patch_embed(pixels) + vit.pos_embed
        for layer in vit.layers[:-blocks]:
            x = layer(x)
        return x.permute(0, 3, 1, 2)  # type: ignore[no-any-return]

    def tail(features: Tensor) -> Tensor:
        x = features.permute(0, 2, 3, 1)
        for layer in vit.layers[-blocks:]:
            x = layer(x)
        return vit.neck(x)  # type: ignore[no-any-return]

    return Cut(head, tail, (*vit.layers[-blocks:], vit.neck))
