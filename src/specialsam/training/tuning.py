"""What is tuned and what is frozen: mask decoder, prompt encoder, low-rank adapters, or the whole of a small model."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from specialsam.models.cut import cut
from specialsam.models.specialist import ENCODER_MODES

Mode = Literal["decoder", "decoder+prompt", "lora", "tail", "tail+lora", "all"]
TAIL_MODES = ("tail", "tail+lora")
"""Modes that tune the end of the encoder on features stored before it."""
KEY_BIAS = "k_proj.bias"
"""How the decoder's parameters without any effect are called."""


class LoraLinear(nn.Module):
    """A frozen linear layer plus a trained low-rank term: W x + (alpha / r) B A x (Hu et al. 2021, "LoRA")."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator | None = None):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5), generator=generator)
        self.to(base.weight.device)

    @property
    def weight(self) -> Tensor:
        """The base's weight with the low-rank change, (O, I), as `decode` reads it of any linear layer."""
        changed: Tensor = self.base.weight + self.scale * self.up @ self.down
        return changed

    @property
    def bias(self) -> Tensor:
        """The base's bias, (O,)."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        """Features (..., I) to (..., O), by the base's weight and the low-rank change."""
        return functional.linear(x, self.weight, self.bias)

    def merged(self) -> nn.Linear:
        """An ordinary linear layer that computes the same."""
        with torch.no_grad():
            self.base.weight += self.scale * self.up @ self.down
        return self.base


def prepare(sam: Any, mode: Mode, rank: int = 8, seed: int = 0, blocks: int = 2) -> list[nn.Parameter]:
    """Freeze `sam`, unfreeze (or add) what `mode` tunes, and return those parameters.

    decoder, with +prompt the prompt encoder too; lora: low-rank terms in the decoder; tail: prompt encoder, decoder and
    the end of the encoder (`models.cut`, the last `blocks` of a ViT), with +lora low-rank terms in that end; all.
    Modes that tune the encoder tune a copy, because a base model may share the one that is there. `seed` draws the
    low-rank terms. Key biases stay: they shift all scores of a query alike, which softmax does not see, so that their
    gradient is rounding alone, and Adam would make steps of it that differ with the number of processes.
    """
    sam.requires_grad_(False)
    terms = torch.Generator().manual_seed(seed)
    if mode in ENCODER_MODES:
        sam.vision_encoder = deepcopy(sam.vision_encoder)
    if mode == "lora":
        _add_low_rank(sam.mask_decoder.transformer, rank, terms)
        for head in (sam.mask_decoder.output_hypernetworks_mlps, sam.mask_decoder.iou_prediction_head):
            head.requires_grad_(True)
    elif mode == "all":
        sam.requires_grad_(True)
    else:
        sam.mask_decoder.requires_grad_(True)
        sam.prompt_encoder.requires_grad_(mode != "decoder")
        for part in cut(sam.vision_encoder, blocks).learned if mode in TAIL_MODES else ():
            if mode == "tail":
                part.requires_grad_(True)
            else:
                _add_low_rank(part, rank, terms)
    sam.shared_image_embedding.requires_grad_(False)
    sam.prompt_encoder.shared_embedding.requires_grad_(False)
    for name, parameter in sam.mask_decoder.named_parameters():
        if name.endswith(KEY_BIAS):
            parameter.requires_grad_(False)
    return [parameter for parameter in sam.parameters() if parameter.requires_grad]


def _add_low_rank(module: nn.Module, rank: int, generator: torch.Generator) -> None:
    """Give every linear layer of `module` a low-rank term, the only thing in it that learns."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, LoraLinear(child, rank, 2.0 * rank, generator))


def merge(sam: Any) -> None:
    """Fold low-rank terms into their layers, so that the model is a plain SAM again; nothing to do for other modes."""
    for parent in list(sam.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLinear):
                setattr(parent, name, child.merged())
    sam.requires_grad_(False)
