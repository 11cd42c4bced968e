"""A memory of what good images look like: how far is each place of an image from the nearest place ever seen?

Roth et al. 2022, "Towards Total Recall in Industrial Anomaly Detection" (PatchCore), on the embeddings that a segmenter
stores anyway: each cell's features averaged over its 3x3 neighbourhood, a greedy k-centre selection of all cells as
memory, and the distance to the nearest of them as the anomaly of a cell. Cells on the padding beside an image are no
part of it: they are neither remembered nor averaged in, and have no anomaly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from specialsam.core.errors import DataError, ModelError, UsageError
from specialsam.core.geometry import FloatArray
from specialsam.core.randomness import generator
from specialsam.core.types import Embedding

_Draws = npt.NDArray[np.float64]

CANDIDATES = 20_000
"""Cells of all images, drawn at random, that the memory is selected from; they bound its time and room."""
PROJECTED = 64
"""Dimensions of the random projection in which the selection measures distances."""
QUANTILE = 0.99
"""Share of left-out good cells whose distance is at most 1."""
CHUNK = 2048
"""Cells compared with the memory at a time."""


@dataclass(frozen=True)
class Memory:
    """Remembered cells: `features` float32 (M, C), and the distance `scale` that counts as 1."""

    features: Tensor
    scale: float


def fit(embeddings: Iterable[Embedding], most: int = 4096, seed: int = 0) -> Memory:
    """A memory of at most `most` cells of good images, whose embeddings are (C, h, w) with one C.

    `scale` is the 0.99 quantile of the distances of cells to the memory without what it holds of their own image (of a
    single image: without the cell itself), so that values of different encoders compare: a new good image is as far
    from the memory as one left out. Images are read one at a time. The same seed and images give the same memory, and
    their order plays no part where their embeddings have keys. Raises DataError for no image, for embeddings of
    different channels or that are not finite, UsageError for a `most` below 1.
    """
    if most < 1:
        raise UsageError(f"expected a memory of at least 1 cell, got {most}")
    features, owners = _candidates(embeddings, seed)
    kept = _spread(features, most, seed)
    return Memory(features[kept].contiguous(), _scale(features, owners, kept))


def distances(memory: Memory, embedding: Embedding) -> Tensor:
    """Distance of each cell of an embedding (C, h, w) to its nearest neighbour in memory, in scales: float32 (h, w).

    Cells on padding have 0. Raises DataError for embeddings of other channels than the memory's.
    """
    cells = _cells(embedding).to(memory.features)
    rows, columns, channels = cells.shape
    if channels != memory.features.shape[1]:
        raise DataError(f"expected embeddings of {memory.features.shape[1]} channels like the memory, got {channels}")
    out = cells.new_zeros(embedding.tensor.shape[1:])
    out[:rows, :columns] = _nearest(cells.flatten(0, 1), memory.features).reshape(rows, columns) / memory.scale
    return out


def anomaly_map(memory: Memory, embedding: Embedding) -> FloatArray:
    """Anomaly of each pixel of the original image, float32 (H, W) in 0..1, from its embedding (C, h, w).

    A distance of d scales is d / (1 + d). Between cells it is bilinear, smoothed by a Gaussian of half a cell.
    """
    geometry = embedding.geometry
    rows, columns = _extent(embedding)
    cells = _squashed(distances(memory, embedding)[:rows, :columns]).cpu().numpy()
    height, width = embedding.tensor.shape[1:]
    # what lies beyond the image goes on as its last cells, so that the smoothing takes nothing from the border
    square = np.pad(cells, ((0, height - rows), (0, width - columns)), mode="edge")
    wide = cv2.resize(square, (geometry.side, geometry.side), interpolation=cv2.INTER_LINEAR)
    smooth = cv2.GaussianBlur(wide, (0, 0), geometry.side / max(height, width) / 2)
    seen = smooth[: geometry.resized[0], : geometry.resized[1]]
    out = cv2.resize(seen, (geometry.width, geometry.height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.clip(out, 0, 1), np.float32)


def image_score(memory: Memory, embedding: Embedding) -> float:
    """Anomaly of an image in 0..1, that of the most anomalous cell of its embedding (C, h, w): d / (1 + d)."""
    return float(_squashed(distances(memory, embedding).max()))


def tensors(memory: Memory) -> dict[str, Tensor]:
    """The memory as tensors by name, for a file; `read` makes it again."""
    return {"features": memory.features, "scale": torch.tensor(memory.scale, dtype=torch.float64)}


def read(tensors: Mapping[str, Tensor]) -> Memory:
    """The memory that `tensors` wrote; ModelError where they are missing, not finite, or of other shapes."""
    features, scale = tensors.get("features"), tensors.get("scale")
    if features is None or scale is None:
        raise ModelError(f"expected the tensors features and scale of a memory, got {', '.join(tensors) or 'none'}")
    if features.ndim != 2 or not features.numel() or scale.numel() != 1:
        shapes = f"{tuple(features.shape)} and {tuple(scale.shape)}"
        raise ModelError(f"expected (M, C) features and one scale of a memory, got {shapes}; fit the memory anew")
    size = float(scale)
    if not (features.isfinite().all() and 0 < size < math.inf):
        raise ModelError("expected finite features and a positive scale of a memory, got others; fit the memory anew")
    return Memory(features.float(), size)


def _extent(embedding: Embedding) -> tuple[int, int]:
    """(rows, columns) of the cells at least half of which lies on the image, at least one each."""
    side = embedding.geometry.side
    height, width = (
        max(1, math.floor(pixels * cells / side + 0.5))
        for pixels, cells in zip(embedding.geometry.resized, embedding.tensor.shape[1:], strict=True)
    )
    return height, width


def _cells(embedding: Embedding) -> Tensor:
    """Features of the cells on the image, each the mean of its 3x3 neighbours there: float32 (rows, columns, C)."""
    rows, columns = _extent(embedding)
    seen = embedding.tensor.detach()[None, :, :rows, :columns].float()
    if not seen.isfinite().all():
        raise DataError("expected a finite embedding, got NaN or infinity; encode the image anew")
    return functional.avg_pool2d(seen, 3, stride=1, padding=1, count_include_pad=False)[0].permute(1, 2, 0)


def _candidates(embeddings: Iterable[Embedding], seed: int) -> tuple[Tensor, Tensor]:
    """Random cells of all images, float32 (N, C) with N of 20,000 at most, and the number int64 (N,) of their image.

    Each cell draws a number, those with the lowest stay: every cell is as likely to, and an image need be seen once.
    """
    features, owners, draws = torch.zeros(0), torch.zeros(0, dtype=torch.int64), np.zeros(0)
    for number, embedding in enumerate(embeddings):
        cells = _cells(embedding).flatten(0, 1)
        if number and cells.shape[1] != features.shape[1]:
            raise DataError(f"expected embeddings of {features.shape[1]} channels, got one of {cells.shape[1]}")
        own = generator(seed, "memory", embedding.key or number).random(len(cells))
        features = torch.cat([features, cells]) if number else cells
        owners = torch.cat([owners, torch.full((len(cells),), number)])
        draws = np.concatenate([draws, own])
        if len(draws) > 2 * CANDIDATES:
            features, owners, draws = _lowest(features, owners, draws)
    if not len(draws):
        raise DataError("expected the embeddings of at least one good image to remember, got none")
    features, owners, _ = _lowest(features, owners, draws)
    return features, owners.to(features.device)


def _lowest(features: Tensor, owners: Tensor, draws: _Draws) -> tuple[Tensor, Tensor, _Draws]:
    order = np.argsort(draws, kind="stable")[:CANDIDATES]
    index = torch.from_numpy(order)
    return features[index.to(features.device)], owners[index], draws[order]


def _spread(features: Tensor, most: int, seed: int) -> Tensor:
    """Indices int64 (K,) of at most `most` features (N, C) that lie apart: each the farthest from those before it.

    Greedy k-centre (Gonzalez 1985; PatchCore's algorithm 1) in a random projection, from the farthest from the mean on.
    """
    count, channels = features.shape
    if count <= most:
        return torch.arange(count, device=features.device)
    points = features - features.mean(0)
    if channels > PROJECTED:
        matrix = generator(seed, "projection", channels).standard_normal((channels, PROJECTED)) / math.sqrt(PROJECTED)
        points = points @ torch.from_numpy(matrix).to(points)
    norms = points.square().sum(1)
    chosen = [int(norms.argmax())]
    away = torch.full_like(norms, math.inf)
    while len(chosen) < most:
        last = chosen[-1]
        away = torch.minimum(away, norms + norms[last] - 2 * (points @ points[last]))
        away[last] = -math.inf
        chosen.append(int(away.argmax()))
    return torch.tensor(chosen, device=features.device)


def _scale(features: Tensor, owners: Tensor, kept: Tensor) -> float:
    """High quantile of the distances of cells (N, C) to the kept ones of other images; 1 where there is no distance."""
    if bool((owners == owners[0]).all()):
        owners = torch.arange(len(features), device=features.device)
    found = _nearest(features, features[kept], owners, owners[kept])
    found = found[found.isfinite()]
    size = float(found.quantile(QUANTILE)) if len(found) else 0.0
    return size if size > 0 else 1.0


def _nearest(cells: Tensor, memory: Tensor, owners: Tensor | None = None, held: Tensor | None = None) -> Tensor:
    """Distance float32 (N,) of cells (N, C) to the nearest of (M, C); with owners (N,), (M,) to that of another owner.

    The nearest is looked up by products, which round; its distance is then measured, so that a cell's to itself is 0.
    """
    out = []
    for start in range(0, len(cells), CHUNK):
        part = cells[start : start + CHUNK]
        squares = torch.addmm(memory.square().sum(1)[None], part, memory.T, alpha=-2)
        if owners is not None and held is not None:
            squares = squares.masked_fill(owners[start : start + CHUNK, None] == held[None], math.inf)
        low, index = squares.min(1)
        away = (part - memory[index]).square().sum(1).sqrt()
        out.append(away.masked_fill(low.isposinf(), math.inf))
    return torch.cat(out)


def _squashed(distance: Tensor) -> Tensor:
    return distance / (1 + distance)
