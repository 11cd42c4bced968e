"""SAM's ViT prepared for inference: transformers' weights and answers; faster than its own way in bf16 and compiled.

Three things differ from the reference, none of them in exact arithmetic:

- Relative positions enter the attention by wider queries and keys. The bias of query q for the key in row y and column
  x is q . R_h[y] + q . R_w[x]; with q' = [s q, q R_h, q R_w] and k' = [k, onehot(y), onehot(x)] it is a part of
  q' . k', so that no bias of (heads, 4096, 4096) is ever written and any fused attention kernel will do.
- Windows that hang over the edge hold zeros, whose queries, keys and values are the bias of their layer: they are put
  in after the projection, and the answers for them are dropped before the next; no product is spent on them.
- A block is a plain function of tensors, prepared once (type, relative positions by pair), which `torch.compile` takes
  once for all windowed and once for all global blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-6
"""Of the blocks' layer normalisations (segment-anything; transformers' `layer_norm_eps`)."""
LANES = 8
"""Head widths are padded to a multiple of this: the kernels for half precision ask for it."""


class Block(NamedTuple):
    """The tensors of one block: weights as `torch.nn` holds them, relative positions (S, S, d) by row and by column."""

    norm1: tuple[Tensor, Tensor]
    qkv: tuple[Tensor, Tensor]
    rows: Tensor
    columns: Tensor
    proj: tuple[Tensor, Tensor]
    norm2: tuple[Tensor, Tensor]
    widen: tuple[Tensor, Tensor]
    narrow: tuple[Tensor, Tensor]
    heads: int
    window: int
    """Side of the windows in cells; 0 for global attention."""


class FastViT:
    """A prepared copy of the weights of transformers' `SamVisionEncoder`, callable like it; for inference alone."""

    def __init__(self, encoder: Any, dtype: torch.dtype = torch.float32, compiled: bool = False):
        self.dtype = dtype
        self.patch = _pair(encoder.patch_embed.projection, dtype)
        self.stride = encoder.patch_embed.projection.stride
        self.position = encoder.pos_embed.detach().to(dtype)
        cells = self.position.shape[1]
        self.blocks = [_prepared(layer, cells, dtype) for layer in encoder.layers]
        self.neck: nn.Module = encoder.neck
        self.block: Callable[[Tensor, Block], Tensor] = _compiled() if compiled else run_block

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels float32 (B, 3, S, S) to embeddings float32 (B, C, S / 16, S / 16)."""
        x = functional.conv2d(pixels.to(self.dtype), *self.patch, stride=self.stride).permute(0, 2, 3, 1)
        x = (x + self.position).contiguous()
        for block in self.blocks:
            x = self.block(x, block)
        embeddings: Tensor = self.neck(x.float())
        return embeddings


def is_vit(encoder: nn.Module) -> bool:
    """Whether an encoder is transformers' SAM ViT with all that `FastViT` counts on."""
    config: Any = getattr(encoder, "config", None)
    wanted = {
        "model_type": "sam_vision_model",
        "use_abs_pos": True,
        "use_rel_pos": True,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": EPSILON,
    }
    if any(getattr(config, name, None) != value for name, value in wanted.items()):
        return False
    return all(hasattr(layer, "window_size") for layer in getattr(encoder, "layers", [None]))


@cache
def _compiled() -> Callable[[Tensor, Block], Tensor]:
    return torch.compile(run_block, dynamic=False)


def _pair(module: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return module.weight.detach().to(dtype), module.bias.detach().to(dtype)


def _prepared(layer: Any, cells: int, dtype: torch.dtype) -> Block:
    attention, side = layer.attn, layer.window_size or cells
    places = torch.arange(side, device=attention.rel_pos_h.device)
    pairs = places[:, None] - places[None, :] + side - 1
    return Block(
        _pair(layer.layer_norm1, dtype),
        _pair(attention.qkv, dtype),
        attention.rel_pos_h.detach()[pairs].to(dtype),
        attention.rel_pos_w.detach()[pairs].to(dtype),
        _pair(attention.proj, dtype),
        _pair(layer.layer_norm2, dtype),
        _pair(layer.mlp.lin1, dtype),
        _pair(layer.mlp.lin2, dtype),
        attention.num_attention_heads,
        layer.window_size,
    )


def run_block(x: Tensor, block: Block) -> Tensor:
    """One transformer block on cells (B, h, w, C)."""
    width = x.shape[-1:]
    qkv = functional.linear(functional.layer_norm(x, width, *block.norm1, EPSILON), *block.qkv)
    x = x + functional.linear(_attention(qkv, block), *block.proj)
    hidden = functional.linear(functional.layer_norm(x, width, *block.norm2, EPSILON), *block.widen)
    return x + functional.linear(functional.gelu(hidden), *block.narrow)


def _attention(qkv: Tensor, block: Block) -> Tensor:
    """Answers (B, h, w, C) of the heads for queries, keys and values (B, h, w, 3 C), in windows or over all cells."""
    count, height, width, channels = qkv.shape
    side = block.window or height
    down, across = -(-height // side), -(-width // side)
    if (down * side, across * side) != (height, width):
        whole = block.qkv[1].expand(count, down * side, across * side, channels).clone()
        whole[:, :height, :width] = qkv
        qkv = whole
    parts = qkv.view(count, down, side, across, side, 3, block.heads, -1).permute(5, 0, 1, 3, 6, 2, 4, 7)
    query, key, value = parts.reshape(3, count * down * across, block.heads, side, side, -1).unbind(0)
    answer = _attend(query, key, value, block.rows, block.columns)
    answer = answer.view(count, down, across, block.heads, side, side, -1).permute(0, 1, 4, 2, 5, 3, 6)
    return answer.reshape(count, down * side, across * side, -1)[:, :height, :width]


def _attend(query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Attention (N, heads, side * side, d) among the cells (N, heads, side, side, d), with relative positions."""
    side, depth = query.shape[-2], query.shape[-1]
    by_row = torch.einsum("nhyxd,ykd->nhyxk", query, rows)
    by_column = torch.einsum("nhyxd,xkd->nhyxk", query, columns)
    eye = torch.eye(side, dtype=key.dtype, device=key.device)
    shape = (*key.shape[:-1], side)
    row, column = eye[:, None].expand(shape), eye[None].expand(shape)
    lacking = -(depth + 2 * side) % LANES
    wide_query = torch.cat([query * depth**-0.5, by_row, by_column], -1)
    wide_key = torch.cat([key, row, column], -1)
    if lacking:
        wide_query, wide_key = functional.pad(wide_query, (0, lacking)), functional.pad(wide_key, (0, lacking))
    wide_value = functional.pad(value, (0, wide_query.shape[-1] - depth))
    answer = functional.scaled_dot_product_attention(
        wide_query.flatten(2, 3), wide_key.flatten(2, 3), wide_value.flatten(2, 3), scale=1.0
    )
    return answer[..., :depth]
