"""SAM's prompt encoder and mask decoder as modules of our own, for models whose encoder is ours.

Names and shapes of the weights are those of transformers' `SamModel` (Kirillov et al. 2023, appendix A), which is what
files hold; the pass itself is `models/decode.py`. transformers takes longer to import than the bundled model takes to
answer, so that it is left to models that need its encoders: `as_transformers` makes a `SamModel` of one of ours.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from specialsam.models.tinyvit import ChannelNorm

PATCH = 16
"""Model pixels on a side of an embedding's cell."""
MASK_CHANNELS = 16
"""Channels of a mask prompt before it has the embedding's width."""
MASKS = 4
"""Masks that a decoder answers with: the single one and the three."""


@dataclass(frozen=True)
class VisionConfig:
    """Of the encoder: side of the input in pixels, channels of the embedding."""

    image_size: int
    output_channels: int
    patch_size: int = PATCH


@dataclass(frozen=True)
class PromptConfig:
    """Of the prompt encoder: channels, side of the input in pixels, side of the embedding in cells."""

    hidden_size: int
    image_size: int
    image_embedding_size: int
    patch_size: int = PATCH
    layer_norm_eps: float = 1e-6


@dataclass(frozen=True)
class DecoderConfig:
    """Of the mask decoder."""

    hidden_size: int
    mlp_dim: int
    num_attention_heads: int
    iou_head_hidden_dim: int
    layer_norm_eps: float
    num_hidden_layers: int = 2
    attention_downsample_rate: int = 2
    iou_head_depth: int = 3


@dataclass(frozen=True)
class SamConfig:
    """What a model is built from; fields are called as in transformers' configuration."""

    vision_config: VisionConfig
    prompt_encoder_config: PromptConfig
    mask_decoder_config: DecoderConfig
    model_type: str = "sam"


def sam_config(
    side: int, channels: int, mlp: int = 2048, heads: int = 8, iou_width: int = 256, epsilon: float = 1e-6
) -> SamConfig:
    """The configuration of a SAM with an input of `side` pixels and `channels` of the embedding; the rest is SAM's."""
    return SamConfig(
        VisionConfig(side, channels),
        PromptConfig(channels, side, side // PATCH),
        DecoderConfig(channels, mlp, heads, iou_width, epsilon),
    )


class Positions(nn.Module):
    """Random Fourier features of places (Tancik et al. 2020)."""

    def __init__(self, channels: int):
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(2, channels // 2))

    def forward(self, places: Tensor) -> Tensor:
        """Places (..., 2) as (x, y) in 0..1 to (..., D)."""
        weights = self.positional_embedding
        turns = (2 * places - 1).to(weights.dtype) @ weights * (2 * torch.pi)
        return torch.cat([turns.sin(), turns.cos()], -1)


class MaskPrompt(nn.Module):
    """Low-res logits (N, 1, 4 h, 4 w) to (N, D, h, w)."""

    def __init__(self, config: PromptConfig):
        super().__init__()
        self.conv1 = nn.Conv2d(1, MASK_CHANNELS // 4, 2, 2)
        self.conv2 = nn.Conv2d(MASK_CHANNELS // 4, MASK_CHANNELS, 2, 2)
        self.conv3 = nn.Conv2d(MASK_CHANNELS, config.hidden_size, 1)
        self.layer_norm1 = ChannelNorm(MASK_CHANNELS // 4, config.layer_norm_eps)
        self.layer_norm2 = ChannelNorm(MASK_CHANNELS, config.layer_norm_eps)

    def forward(self, masks: Tensor) -> Tensor:
        """Logits (N, 1, 4 h, 4 w) to (N, D, h, w)."""
        halved = functional.gelu(self.layer_norm1(self.conv1(masks)))
        out: Tensor = self.conv3(functional.gelu(self.layer_norm2(self.conv2(halved))))
        return out


class PromptEncoder(nn.Module):
    """Points, boxes and masks as tokens and as a map."""

    def __init__(self, config: PromptConfig, positions: Positions):
        super().__init__()
        width = config.hidden_size
        self.side = config.image_size
        self.shared_embedding = Positions(width)
        self.shared_embedding.positional_embedding = positions.positional_embedding
        self.mask_embed = MaskPrompt(config)
        self.no_mask_embed = nn.Embedding(1, width)
        self.point_embed = nn.ModuleList(nn.Embedding(1, width) for _ in range(4))
        """Of a click on the background, one on the object, and the two corners of a box."""
        self.not_a_point_embed = nn.Embedding(1, width)

    def forward(
        self,
        input_points: Tensor | None,
        input_labels: Tensor | None,
        input_boxes: Tensor | None,
        input_masks: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Tokens (N, O, T, D) of points (N, O, K, 2) with labels (N, O, K) and of boxes (N, O, 4), in model pixels.

        Masks have a map of their own (`mask_embed`). Points without a box end with a token that says so.
        """
        kinds: list[Tensor] = [kind.weight for kind in self.point_embed]  # type: ignore[misc]
        tokens = []
        if input_points is not None and input_labels is not None:
            places, labels = input_points + 0.5, input_labels
            if input_boxes is None:
                places = functional.pad(places, (0, 0, 0, 1))
                labels = functional.pad(labels, (0, 1), value=-1)
            found = self.shared_embedding(places / self.side)
            found = torch.where(labels[..., None] == -1, self.not_a_point_embed.weight, found)
            for kind in (0, 1):
                found = torch.where(labels[..., None] == kind, found + kinds[kind], found)
            tokens.append(found)
        if input_boxes is not None:
            corners = (input_boxes + 0.5).reshape(*input_boxes.shape[:2], 2, 2) / self.side
            tokens.append(self.shared_embedding(corners) + torch.cat(kinds[2:]))
        return torch.cat(tokens, 2), None


class Attention(nn.Module):
    """Projections of an attention, to a width that is `rate` times smaller; `decode` makes the products."""

    def __init__(self, config: DecoderConfig, rate: int):
        super().__init__()
        width, inner = config.hidden_size, config.hidden_size // rate
        self.num_attention_heads = config.num_attention_heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)


class TwoLinear(nn.Module):
    """The perceptron within a layer."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.lin1 = nn.Linear(width, inner)
        self.lin2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T, D) to their like."""
        out: Tensor = self.lin2(functional.relu(self.lin1(x)))
        return out


class TwoWayLayer(nn.Module):
    """Tokens look at each other and at the image, the image at the tokens."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        width, epsilon, rate = config.hidden_size, config.layer_norm_eps, config.attention_downsample_rate
        self.self_attn = Attention(config, 1)
        self.layer_norm1 = nn.LayerNorm(width, epsilon)
        self.cross_attn_token_to_image = Attention(config, rate)
        self.layer_norm2 = nn.LayerNorm(width, epsilon)
        self.mlp = TwoLinear(width, config.mlp_dim)
        self.layer_norm3 = nn.LayerNorm(width, epsilon)
        self.layer_norm4 = nn.LayerNorm(width, epsilon)
        self.cross_attn_image_to_token = Attention(config, rate)


class TwoWayTransformer(nn.Module):
    """The layers, and a last look of the tokens at the image."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.layers = nn.ModuleList(TwoWayLayer(config) for _ in range(config.num_hidden_layers))
        self.final_attn_token_to_image = Attention(config, config.attention_downsample_rate)
        self.layer_norm_final_attn = nn.LayerNorm(config.hidden_size)


class Perceptron(nn.Module):
    """A chain of linear layers with ReLU between them."""

    def __init__(self, width: int, inner: int, out: int, depth: int):
        super().__init__()
        self.proj_in = nn.Linear(width, inner)
        self.proj_out = nn.Linear(inner, out)
        self.layers = nn.ModuleList(nn.Linear(inner, inner) for _ in range(depth - 2))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, D) to (N, C), the widths that the chain was made with."""
        x = functional.relu(self.proj_in(x))
        for layer in self.layers:
            x = functional.relu(layer(x))
        out: Tensor = self.proj_out(x)
        return out


class MaskDecoder(nn.Module):
    """Tokens, the two-way transformer, and what makes masks and scores of its answer."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        width = config.hidden_size
        self.hidden_size, self.num_mask_tokens = width, MASKS
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(MASKS, width)
        self.transformer = TwoWayTransformer(config)
        self.upscale_conv1 = nn.ConvTranspose2d(width, width // 4, 2, 2)
        self.upscale_conv2 = nn.ConvTranspose2d(width // 4, width // 8, 2, 2)
        self.upscale_layer_norm = ChannelNorm(width // 4)
        self.activation = nn.GELU()
        self.output_hypernetworks_mlps = nn.ModuleList(Perceptron(width, width, width // 8, 3) for _ in range(MASKS))
        self.iou_prediction_head = Perceptron(width, config.iou_head_hidden_dim, MASKS, config.iou_head_depth)


class Sam(nn.Module):
    """A SAM with an encoder of ours: pixels (B, 3, S, S) to embeddings (B, D, S / 16, S / 16)."""

    def __init__(self, config: SamConfig, encoder: nn.Module):
        super().__init__()
        self.config = config
        self.shared_image_embedding = Positions(config.prompt_encoder_config.hidden_size)
        self.vision_encoder = encoder
        self.prompt_encoder = PromptEncoder(config.prompt_encoder_config, self.shared_image_embedding)
        self.mask_decoder = MaskDecoder(config.mask_decoder_config)


def tied(sam: Any) -> Any:
    """The same model, whose prompt encoder has the image's positional encoding."""
    sam.prompt_encoder.shared_embedding.positional_embedding = sam.shared_image_embedding.positional_embedding
    return sam


def transformers_sam(config: SamConfig, vision: dict[str, Any]) -> Any:
    """A `SamModel` with the prompt encoder and mask decoder of a configuration, and its own vision encoder."""
    from transformers import SamConfig as TheirConfig
    from transformers import SamModel

    prompt, decoder = asdict(config.prompt_encoder_config), asdict(config.mask_decoder_config)
    return SamModel(TheirConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))


def as_transformers(sam: nn.Module) -> Any:
    """A `SamModel` with the prompt encoder and mask decoder of a `Sam` (copies), to be given embeddings.

    Its own vision encoder is as small as its shapes allow, and random.
    """
    config: Any = sam.config
    vision = asdict(config.vision_config) | {
        "hidden_size": 4,
        "num_hidden_layers": 0,
        "num_attention_heads": 1,
        "mlp_dim": 4,
        "use_abs_pos": False,
        "global_attn_indexes": [],
        "num_pos_feats": config.prompt_encoder_config.hidden_size // 2,
    }
    theirs = transformers_sam(config, vision)
    own = {name: value for name, value in sam.state_dict().items() if not name.startswith("vision_encoder.")}
    theirs.load_state_dict(own, strict=False)
    return tied(theirs).to(next(iter(own.values())).dtype).eval().requires_grad_(False)
