"""A model as plain functions of tensors that other runtimes take: encoder, decoder, finder, without a branch on data.

Names and meaning of the decoder's inputs are those of segment-anything's own ONNX export, for any number of objects:
point labels are 1 (foreground), 0 (background), 2 and 3 (corners of a box), -1 (padding, which a prompt without a box
ends with).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from specialsam.core.errors import ModelError
from specialsam.models.decode import decode
from specialsam.models.efficientnet import Conv, plain
from specialsam.models.finder import Finder
from specialsam.models.segmenter import ALL, Segmenter, encoded

OPSET = 18


class TracedEncoder(nn.Module):
    """Normalised pixels (B, 3, S, S) to embeddings (B, D, h, w)."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = plain(encoder) if any(isinstance(part, Conv) for part in encoder.modules()) else encoder

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels float32 (B, 3, S, S), normalised, to embeddings float32 (B, D, h, w)."""
        return encoded(self.encoder, pixels)


class TracedDecoder(nn.Module):
    """Prompts of P objects of one image to low-res logits (P, 4, L, L), the single mask first, and scores (P, 4)."""

    def __init__(self, segmenter: Segmenter):
        super().__init__()
        self.sam: Any = segmenter.sam
        self.side = segmenter.side

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Embeddings (1, D, h, w), points (P, K, 2) in model pixels, labels (P, K), logits (P, 1, L, L), (1,)."""
        sparse, dense = self.prompts(point_coords, point_labels, mask_input, has_mask_input)
        index = torch.zeros_like(point_labels[:, 0], dtype=torch.long)
        return decode(self.sam, image_embeddings, index, sparse, dense, ALL)

    def prompts(self, points: Tensor, labels: Tensor, masks: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """Sparse and dense prompt embeddings: points (P, K, 2), labels (P, K), mask logits (P, 1, L, L), given (1,)."""
        encoder = self.sam.prompt_encoder
        where = encoder.shared_embedding((points + 0.5) / self.side)
        padding = (labels == -1).to(where.dtype)[..., None]
        sparse = where * (1 - padding) + encoder.not_a_point_embed.weight * padding
        for number, kind in enumerate(encoder.point_embed):
            sparse = sparse + kind.weight * (labels == number).to(where.dtype)[..., None]
        drawn = encoder.mask_embed(masks)
        none = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        # `decode` adds nothing where it is given dense embeddings
        return sparse, drawn * given + none * (1 - given)


class TracedFinder(nn.Module):
    """Embeddings (1, D, h, w) of an image that fills its frame to the finder's maps."""

    def __init__(self, finder: Finder):
        super().__init__()
        self.finder = finder

    def forward(self, embeddings: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """And which cells show the image, bool (1, h, w); middle, sides, dense, presence, as in `FinderMaps`."""
        maps = self.finder(embeddings, valid)
        return maps.middle, maps.sides, maps.dense, maps.presence


def need(package: str, extra: str = "fast") -> Any:
    """A package that this project only uses where it is installed; ModelError in one line where it is not."""
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError as error:
        raise ModelError(
            f'expected the package {package} for this, it is not installed; pip install "specialsam[{extra}]"'
        ) from error
