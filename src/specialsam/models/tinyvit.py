"""TinyViT, the image encoder of MobileSAM, under the parameter names of its official checkpoint.

Architecture: Wu et al. 2022, "TinyViT: Fast Pretraining Distillation for Small Vision Transformers" (arXiv:2207.10666);
as SAM's image encoder: Zhang et al. 2023, "Faster Segment Anything" (arXiv:2306.14289). Feature maps are kept as
(B, H, W, C), which is a channels-last (B, C, H, W) seen from the other side, so that nothing is copied between the
convolutional and the attention parts. Batch normalisation always uses its stored statistics and is therefore folded
into the convolution before it, with gradients as without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from specialsam.core.errors import ModelError

STRIDE = 16
"""Input pixels per cell of the embedding."""


class ConvNorm(nn.Module):
    """Convolution without bias (`c`) and batch normalisation (`bn`) in eval mode, computed as one convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.bn.train(False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, h, w) to (B, D, h / stride, w / stride)."""
        mean, variance = self.bn.running_mean, self.bn.running_var
        assert mean is not None
        assert variance is not None
        scale = self.bn.weight * torch.rsqrt(variance + self.bn.eps)
        weight, bias = self.c.weight * scale[:, None, None, None], self.bn.bias - mean * scale
        if self.c.kernel_size == (1, 1):
            return functional.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
        return functional.conv2d(x, weight, bias, self.c.stride, self.c.padding, groups=self.c.groups)


class PatchEmbed(nn.Module):
    """Two 3x3 convolutions of stride 2: (B, 3, S, S) to (B, `outputs`, S / 4, S / 4)."""

    def __init__(self, outputs: int):
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, outputs // 2, 3, 2), nn.GELU(), ConvNorm(outputs // 2, outputs, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) to features (B, C, S / 4, S / 4)."""
        out: Tensor = self.seq(x)
        return out


class MBConv(nn.Module):
    """Inverted residual block 1x1, depthwise 3x3, 1x1, four times as wide inside; (B, C, H, W) to the same."""

    def __init__(self, channels: int, expansion: int = 4):
        super().__init__()
        hidden = channels * expansion
        self.conv1 = ConvNorm(channels, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, h, w) to their like."""
        inner = functional.gelu(self.conv2(functional.gelu(self.conv1(x))))
        return functional.gelu(x + self.conv3(inner))


class PatchMerging(nn.Module):
    """1x1, depthwise 3x3 with `stride`, 1x1: (B, C, H, W) to (B, `outputs`, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs)
        self.conv2 = ConvNorm(outputs, outputs, 3, stride, groups=outputs)
        self.conv3 = ConvNorm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, h, w) to (B, D, h / stride, w / stride)."""
        out: Tensor = self.conv3(functional.gelu(self.conv2(functional.gelu(self.conv1(x)))))
        return out


class Attention(nn.Module):
    """Pre-norm attention within windows of `window` x `window` cells, a learned bias a head, |dy| and |dx|.

    `attention_bias_idxs` (N, N) says which bias is that of a pair of the window's N cells.
    """

    attention_bias_idxs: Tensor

    def __init__(self, channels: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        axis = torch.arange(window, device="cpu")  # real even where the module is made on the meta device
        apart = (axis[:, None] - axis[None, :]).abs()
        index = (apart[:, None, :, None] * window + apart[None, :, None, :]).reshape(window**2, -1)
        self.register_buffer("attention_bias_idxs", index, persistent=False)

    def bias(self) -> Tensor:
        """Bias (1, H, N, N), a head each, of all pairs of the N cells of a window, row by row."""
        return self.attention_biases[None, :, self.attention_bias_idxs]

    def forward(self, x: Tensor) -> Tensor:
        """Windows (M, N, C) to the same."""
        count, cells, channels = x.shape
        query, key, value = self.qkv(self.norm(x)).reshape(count, cells, self.heads, 3, -1).permute(3, 0, 2, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=self.bias().to(query.dtype))
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(count, cells, channels))
        return out


class Mlp(nn.Module):
    """Pre-norm two-layer perceptron, four times as wide inside."""

    def __init__(self, channels: int, expansion: int = 4):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, channels * expansion)
        self.fc2 = nn.Linear(channels * expansion, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, N, C) to their like."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(self.norm(x))))
        return out


class Block(nn.Module):
    """Window attention, depthwise 3x3 convolution, perceptron: (B, C, H, W) channels-last to the same.

    A map that the window does not divide is padded right and below with zeros, which take part in the attention (as in
    the original, which the weights expect).
    """

    def __init__(self, channels: int, heads: int, window: int):
        super().__init__()
        self.window = window
        self.attn = Attention(channels, heads, window)
        self.mlp = Mlp(channels)
        self.local_conv = ConvNorm(channels, channels, 3, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, h, w) to their like."""
        x = x + self._windows(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.local_conv(x).permute(0, 2, 3, 1)
        x = x + self.mlp(x)
        return x.permute(0, 3, 1, 2)

    def _windows(self, x: Tensor) -> Tensor:
        """Attention within windows of (B, H, W, C)."""
        batch, height, width, channels = x.shape
        side = self.window
        if (height, width) == (side, side):
            return self.attn(x.reshape(batch, -1, channels)).reshape(x.shape)  # type: ignore[no-any-return]
        below, right = -height % side, -width % side
        if below or right:
            x = functional.pad(x, (0, 0, 0, right, 0, below))
        rows, columns = (height + below) // side, (width + right) // side
        x = x.reshape(batch, rows, side, columns, side, channels).transpose(2, 3)
        x = self.attn(x.reshape(-1, side * side, channels))
        x = x.reshape(batch, rows, columns, side, side, channels).transpose(2, 3)
        return x.reshape(batch, rows * side, columns * side, channels)[:, :height, :width]


class Stage(nn.Module):
    """Blocks of one resolution and, but for the last stage, the merging that leads to the next."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, h, w) to (B, D, h / stride, w / stride) of the stage's merging, if it has one."""
        out: Tensor = self.blocks(x)
        return out if self.downsample is None else self.downsample(out)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (B, C, H, W), with its default SAM's `LayerNorm2d`."""

    def __init__(self, channels: int, epsilon: float = 1e-6):
        super().__init__(channels, eps=epsilon)

    def forward(self, input: Tensor) -> Tensor:
        """Features (B, C, h, w), each cell normalised over its channels."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TinyViT(nn.Module):
    """TinyViT with SAM's neck: float (B, 3, `side`, `side`) to (B, `out_channels`, `side` / 16, `side` / 16).

    The defaults are MobileSAM's TinyViT-5M. `dims`, `depths`, `heads` and `windows` describe the four stages; the first
    one is convolutional and ignores its head count and window. The last merging keeps the resolution. `classes` is the
    width of the unused classification head that MobileSAM's checkpoint carries; 0 leaves it and its norm out.
    Raises ModelError for numbers that do not fit together and for an input of another side.
    """

    def __init__(
        self,
        side: int = 1024,
        dims: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (2, 4, 5, 10),
        windows: Sequence[int] = (7, 7, 14, 7),
        out_channels: int = 256,
        classes: int = 1000,
    ):
        super().__init__()
        if not len(dims) == len(depths) == len(heads) == len(windows) == 4:
            raise ModelError(f"expected four stages, got {len(dims)}, {len(depths)}, {len(heads)}, {len(windows)}")
        if side < STRIDE or side % STRIDE:
            raise ModelError(f"expected a side that is a positive multiple of {STRIDE}, got {side}")
        if any(dim % head for dim, head in zip(dims[1:], heads[1:], strict=True)):
            raise ModelError(
                f"expected widths that the heads divide, got widths {tuple(dims)} and heads {tuple(heads)}"
            )
        self.side = side
        self.patch_embed = PatchEmbed(dims[0])
        strides = (2, 2, 1)
        self.layers = nn.ModuleList()
        for i, dim in enumerate(dims):
            blocks = [MBConv(dim) if i == 0 else Block(dim, heads[i], windows[i]) for _ in range(depths[i])]
            self.layers.append(Stage(blocks, PatchMerging(dim, dims[i + 1], strides[i]) if i < 3 else None))
        if classes:
            self.norm_head = nn.LayerNorm(dims[-1])
            self.head = nn.Linear(dims[-1], classes)
        self.neck = nn.Sequential(
            nn.Conv2d(dims[-1], out_channels, 1, bias=False),
            ChannelNorm(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            ChannelNorm(out_channels),
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels (B, 3, side, side) to embeddings (B, D, side / 16, side / 16); ModelError for another size."""
        if tuple(pixel_values.shape[1:]) != (3, self.side, self.side):
            raise ModelError(f"expected (B, 3, {self.side}, {self.side}) pixels, got {tuple(pixel_values.shape)}")
        x = self.patch_embed(pixel_values.contiguous(memory_format=torch.channels_last))
        for stage in self.layers:
            x = stage(x)
        out: Tensor = self.neck(x)
        return out
