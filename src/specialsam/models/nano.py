"""`nano`: SAM's architecture, small enough for a laptop CPU and for the package.

The prompt encoder and the two-way mask decoder are SAM's, 128 wide. The image encoder is a small convolutional pyramid
with global attention at its coarsest level; its levels (strides 4 to 32) are fused at stride 16, so that the embedding
is (128, S / 16, S / 16) for an input side S. Batch normalisation stays in eval mode whatever the caller does, unless
pre-training asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from specialsam.core.errors import ModelError
from specialsam.models.efficientnet import WIDTHS, Backbone
from specialsam.models.sam import Sam, SamConfig, sam_config, tied, transformers_sam
from specialsam.models.tinyvit import ChannelNorm, TinyViT

NANO_SIDE = 512
NANO_CHANNELS = 128
EPSILON = 1e-5
"""Of the neck's layer normalisations."""
EncoderKind = Literal["lite", "conv", "vit", "tinyvit"]


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch normalisation that leaves eval mode only through `learn_statistics`."""

    learning: bool = False

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        super().train(mode and self.learning)
        return self


def learn_statistics(module: nn.Module, learning: bool) -> None:
    """Let the batch normalisations of `module` follow `train()` and `eval()` (pre-training), or freeze them again."""
    for part in module.modules():
        if isinstance(part, FrozenBatchNorm):
            part.learning = learning
            part.train(learning)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch normalisation, and optionally ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True):
        conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        super().__init__(conv, FrozenBatchNorm(outputs), nn.ReLU(inplace=True) if act else nn.Identity())


class Bottleneck(nn.Module):
    """Residual 1x1 - kxk - 1x1 block; `groups=0` makes the middle depthwise."""

    def __init__(self, channels: int, hidden: int, kernel: int = 3, depthwise: bool = False):
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(channels, hidden),
            ConvNorm(hidden, hidden, kernel, groups=hidden if depthwise else 1),
            ConvNorm(hidden, channels, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, h, w) to their like."""
        out: Tensor = x + self.body(x)
        return out


class GlobalBlock(nn.Module):
    """Pre-norm transformer block with a depthwise 3x3 positional term, over all cells of a (B, C, h, w) map."""

    def __init__(self, channels: int, heads: int, expansion: int = 3):
        super().__init__()
        self.heads = heads
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, expansion * channels), nn.GELU(), nn.Linear(expansion * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, h, w) to their like, each cell having seen all."""
        height, width = x.shape[2:]
        x = (x + self.position(x)).flatten(2).transpose(1, 2)
        query, key, value = (
            self.qkv(self.norm1(x)).reshape(x.shape[0], height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        x = x + self.mlp(self.norm2(x))
        return x.transpose(1, 2).reshape(x.shape[0], -1, height, width)


class ConvEncoder(nn.Module):
    """Convolutional pyramid: (B, 3, S, S) to (B, `channels`, S / 16, S / 16), for any S that 32 divides."""

    def __init__(
        self,
        channels: int = NANO_CHANNELS,
        widths: tuple[int, int, int, int, int] = (24, 48, 96, 192, 256),
        depths: tuple[int, int, int, int] = (1, 2, 4, 3),
    ):
        super().__init__()
        stem, c4, c8, c16, c32 = widths
        self.stem = nn.Sequential(ConvNorm(3, stem, 3, 2), ConvNorm(stem, c4, 3, 2))
        self.stage4 = nn.Sequential(*(Bottleneck(c4, c4 // 2) for _ in range(depths[0])))
        self.stage8 = nn.Sequential(ConvNorm(c4, c8, 3, 2), *(Bottleneck(c8, c8 // 2) for _ in range(depths[1])))
        self.stage16 = nn.Sequential(
            ConvNorm(c8, c16, 3, 2), *(Bottleneck(c16, 2 * c16, 5, depthwise=True) for _ in range(depths[2]))
        )
        self.stage32 = nn.Sequential(ConvNorm(c16, c32, 3, 2), *(GlobalBlock(c32, 4) for _ in range(depths[3])))
        self.from4 = nn.Conv2d(c4, channels, 4, 4)
        self.from8 = nn.Conv2d(c8, channels, 2, 2)
        self.from16 = nn.Conv2d(c16, channels, 1)
        self.from32 = nn.Conv2d(c32, channels, 1)
        self.mix = Bottleneck(channels, channels)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.LayerNorm(channels)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) to embeddings (B, 128, S / 16, S / 16)."""
        x4 = self.stage4(self.stem(pixel_values.contiguous(memory_format=torch.channels_last)))
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        x32 = functional.interpolate(self.from32(self.stage32(x16)), scale_factor=2.0, mode="nearest")
        fused = self.mix(self.from4(x4) + self.from8(x8) + self.from16(x16) + x32)
        out: Tensor = self.norm(self.out(fused).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


class Mixer(nn.Module):
    """Residual block: filter each channel, normalise, widen and narrow (Liu et al. 2022, ConvNeXt)."""

    def __init__(self, channels: int, kernel: int = 5, expansion: int = 3):
        super().__init__()
        self.filter = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = ChannelNorm(channels, EPSILON)
        self.widen = nn.Conv2d(channels, expansion * channels, 1)
        self.narrow = nn.Conv2d(expansion * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, h, w) to their like."""
        out: Tensor = x + self.narrow(functional.gelu(self.widen(self.norm(self.filter(x)))))
        return out


class Neck(nn.Module):
    """The backbone's four levels fused at stride 16: (B, `channels`, S / 16, S / 16).

    Two global blocks look over the whole image at stride 32, one more at stride 16 after the levels are summed.
    """

    def __init__(self, channels: int, coarse: int = 192, mixers: int = 2):
        super().__init__()
        self.from4 = nn.Sequential(nn.Conv2d(WIDTHS[4], channels, 4, 4), ChannelNorm(channels, EPSILON))
        self.from8 = nn.Sequential(nn.Conv2d(WIDTHS[8], channels, 2, 2), ChannelNorm(channels, EPSILON))
        self.from16 = nn.Sequential(nn.Conv2d(WIDTHS[16], channels, 1), ChannelNorm(channels, EPSILON))
        self.into32 = nn.Sequential(nn.Conv2d(WIDTHS[32], coarse, 1), ChannelNorm(coarse, EPSILON))
        self.overview = nn.Sequential(GlobalBlock(coarse, 6), GlobalBlock(coarse, 6))
        self.from32 = nn.Sequential(nn.Conv2d(coarse, channels, 1), ChannelNorm(channels, EPSILON))
        self.mix = nn.Sequential(
            *(Mixer(channels) for _ in range(mixers)), GlobalBlock(channels, 4), *(Mixer(channels) for _ in range(1))
        )
        self.out = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = ChannelNorm(channels, EPSILON)

    def forward(self, levels: dict[int, Tensor]) -> Tensor:
        """Levels by stride s, each (B, C, S / s, S / s), to embeddings (B, 128, S / 16, S / 16)."""
        coarse = self.from32(self.overview(self.into32(levels[32])))
        coarse = functional.interpolate(coarse, scale_factor=2.0, mode="bilinear")
        fused = self.from4(levels[4]) + self.from8(levels[8]) + self.from16(levels[16]) + coarse
        out: Tensor = self.norm(self.out(self.mix(fused)))
        return out


class LiteEncoder(nn.Module):
    """Backbone and neck: (B, 3, S, S) SAM pixels to (B, `channels`, S / 16, S / 16), for any S that 32 divides."""

    def __init__(self, channels: int = NANO_CHANNELS):
        super().__init__()
        self.backbone = Backbone()
        self.neck = Neck(channels)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) to embeddings (B, 128, S / 16, S / 16)."""
        out: Tensor = self.neck(self.backbone(pixel_values))
        return out


def nano_config(side: int = NANO_SIDE) -> SamConfig:
    """The configuration of nano: SAM's with a 128-wide decoder of four heads."""
    return sam_config(side, NANO_CHANNELS, mlp=512, heads=4, iou_width=NANO_CHANNELS)


@dataclass(frozen=True)
class OwnEncoder:
    """An encoder of our own: what it is an instance of, and how it is built for an input side in pixels."""

    module: type[nn.Module]
    build: Callable[[int], nn.Module]


ENCODERS: dict[str, OwnEncoder] = {
    "lite": OwnEncoder(LiteEncoder, lambda side: LiteEncoder()),
    "conv": OwnEncoder(ConvEncoder, lambda side: ConvEncoder()),
    "tinyvit": OwnEncoder(TinyViT, lambda side: _tiny_vit(side)),
}
"""Encoders of our own by kind, which is also what a saved folder calls them; "vit" is transformers'."""


def build_nano(encoder: str = "conv", side: int = NANO_SIDE) -> Any:
    """A randomly initialised nano with the encoder asked for, in eval mode and without gradients.

    `encoder` is "vit" (a transformers `SamModel`) or a kind of ENCODERS (a `Sam`), `side` the model's input side in
    pixels. Raises ModelError for any other.
    """
    if encoder != "vit" and encoder not in ENCODERS:
        raise ModelError(f"expected an encoder of vit, {', '.join(ENCODERS)}, got {encoder!r}")
    sam = _vit(side) if encoder == "vit" else Sam(nano_config(side), ENCODERS[encoder].build(side))
    _initialise(sam)
    return sam.eval().requires_grad_(False)


def _vit(side: int) -> Any:
    """The plain-ViT candidate, as a `SamModel`."""
    vision = {
        "hidden_size": 192,
        "output_channels": NANO_CHANNELS,
        "num_hidden_layers": 8,
        "num_attention_heads": 6,
        "image_size": side,
        "patch_size": 16,
        "window_size": 8,
        "global_attn_indexes": [3, 7],
        "num_pos_feats": NANO_CHANNELS // 2,
        "mlp_dim": 768,
        "initializer_range": 0.02,  # transformers' 1e-10 is never left, and its products are denormal: very slow
    }
    return transformers_sam(nano_config(side), vision)


def _initialise(sam: Any) -> None:
    """PyTorch's own initialisation of decoder and prompt encoder; transformers' .02 starts too slowly from nothing."""
    for part in (sam.prompt_encoder, sam.mask_decoder):
        for module in part.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                module.reset_parameters()
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight)
    torch.nn.init.normal_(sam.shared_image_embedding.positional_embedding)
    tied(sam)


def _tiny_vit(side: int) -> nn.Module:
    """The TinyViT candidate: MobileSAM's encoder at half its width. Its normalisations learn scale and shift only."""
    return TinyViT(
        side=side,
        dims=(32, 64, 128, 192),
        depths=(2, 2, 4, 2),
        heads=(1, 2, 4, 6),
        classes=0,
        out_channels=NANO_CHANNELS,
    )
