"""Which textures look alike: features of a network, K-means clusters of them, and a sheet that shows the clusters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from specialsam.core.errors import DataError, ModelError, UsageError
from specialsam.core.geometry import FloatArray, ImageArray
from specialsam.core.types import Record
from specialsam.data.loading import load_image_only
from specialsam.models.segmenter import Segmenter

IntArray = npt.NDArray[np.int64]

RESNET = "microsoft/resnet-18"
"""The network of the original study (He et al. 2016, arXiv:1512.03385), as transformers knows it."""
RESNET_SIDE = 224
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 16
EXAMPLES = 5
"""Nearest examples that a row of the table names."""

LIGHTNESS = ((25.0, "very dark"), (42.0, "dark"), (60.0, "medium"), (75.0, "light"), (101.0, "very light"))
"""Words for a mean CIELAB lightness below each bound."""
CHROMA = ((10.0, "greyish"), (22.0, "muted"), (38.0, "coloured"), (200.0, "vivid"))
"""Words for a mean CIELAB chroma (distance from grey; saturation) below each bound."""


@dataclass(frozen=True)
class ClusterRow:
    """One line of the table: `share` of all textures, mean silhouette (-1..1), ids nearest to the centre first.

    `lightness` (0..100) and `chroma` are means over the cluster's pixels in CIELAB, `look` says them in words.
    """

    cluster: int
    n: int
    share: float
    silhouette: float
    nearest: tuple[str, ...]
    lightness: float
    chroma: float
    look: str


@dataclass(frozen=True)
class Clusters:
    """Textures grouped by likeness: cluster 0 is the largest.

    `ids` (N), `labels` int64 (N,), `features` float32 (N, D) and what they are, `distances` float32 (N, k) to the
    centres, `silhouettes` float32 (N,) in -1..1 (Rousseeuw 1987: above 0 where a texture is nearer to its own cluster
    than to the next), `lightness` and `chroma` float32 (N,) of each texture in CIELAB.
    """

    ids: tuple[str, ...]
    features: FloatArray = field(repr=False)
    source: str
    seed: int
    labels: IntArray = field(repr=False)
    distances: FloatArray = field(repr=False)
    silhouettes: FloatArray = field(repr=False)
    lightness: FloatArray = field(repr=False)
    chroma: FloatArray = field(repr=False)

    @property
    def count(self) -> int:
        """Number k of clusters."""
        return int(self.distances.shape[1])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Textures of each cluster, largest first."""
        return tuple(int(size) for size in np.bincount(self.labels, minlength=self.count))

    def members(self, cluster: int) -> list[int]:
        """Indices of a cluster's textures, nearest to its centre first."""
        inside = np.flatnonzero(self.labels == cluster)
        return [int(index) for index in inside[np.argsort(self.distances[inside, cluster], kind="stable")]]

    def rows(self) -> list[ClusterRow]:
        """The table of the clusters, one row each."""
        out = []
        for cluster in range(self.count):
            inside = self.members(cluster)
            lightness, chroma = float(self.lightness[inside].mean()), float(self.chroma[inside].mean())
            out.append(
                ClusterRow(
                    cluster=cluster,
                    n=len(inside),
                    share=len(inside) / len(self.ids),
                    silhouette=float(self.silhouettes[inside].mean()),
                    nearest=tuple(self.ids[index] for index in inside[:EXAMPLES]),
                    lightness=lightness,
                    chroma=chroma,
                    look=look(lightness, chroma),
                )
            )
        return out


def texture_features(
    records: Sequence[Record],
    segmenter: Segmenter | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    resnet: str | Path = RESNET,
) -> tuple[FloatArray, str]:
    """Features float32 (N, D) of the textures, and the name of what they are.

    ResNet-18's pooled features (D = 512, images squashed to 224 px) where its weights lie in the local cache of
    transformers or in the folder `resnet`; else the mean and the standard deviation over space of the segmenter's image
    embedding and of the colours (D = 2 C + 6), the two parts with equal variance: a segmenter's embedding of a plain
    surface says how it is divided and hardly what colour it has. Nothing is downloaded. Raises ModelError where neither
    can be had, DataError for an unreadable image.
    """
    describe, name, parts = _describer(segmenter, resnet)
    out: list[FloatArray] = []
    for start in range(0, len(records), BATCH):
        part = records[start : start + BATCH]
        out.append(describe([load_image_only(record) for record in part]))
        if progress:
            progress(start + len(part), len(records), part[-1].id)
    if not out:
        raise DataError("expected at least one texture, got none")
    whole = np.concatenate(out)
    return (whole if parts is None else _balanced(whole, parts)), name


def cluster(features: FloatArray, k: int = 5, seed: int = 42) -> tuple[IntArray, FloatArray, tuple[int, ...]]:
    """K-means (best of 10 starts): labels int64 (N,), distances float32 (N, k) to the centres, sizes.

    Clusters are numbered by falling size, so that their numbers do not depend on the starts' order. Raises UsageError
    for fewer than two clusters, or for more than there are different textures.
    """
    from sklearn.cluster import KMeans

    different = len(np.unique(features, axis=0))
    if not 2 <= k <= different:
        raise UsageError(f"expected 2 to {different} clusters (textures that differ), got {k}")
    model = KMeans(n_clusters=k, n_init=10, random_state=seed).fit(features.astype(np.float64))
    labels = np.asarray(model.labels_)
    sizes = np.bincount(labels, minlength=k)
    first = [int(np.flatnonzero(labels == number)[0]) for number in range(k)]
    order = sorted(range(k), key=lambda number: (-sizes[number], first[number]))
    distances = np.linalg.norm(features[:, None].astype(np.float64) - model.cluster_centers_[order][None], axis=2)
    renumbered = np.argsort(order)[labels].astype(np.int64)
    return renumbered, distances.astype(np.float32), tuple(int(sizes[number]) for number in order)


def cluster_textures(
    records: Sequence[Record],
    features: FloatArray,
    source: str,
    k: int = 5,
    seed: int = 42,
) -> Clusters:
    """The N records' clusters by features (N, F), as `texture_features` gives both, with silhouettes and looks.

    A silhouette is 0 by convention in a cluster of one, and everywhere where all clusters are such.
    """
    from sklearn.metrics import silhouette_samples

    if len(records) != len(features):
        raise DataError(f"expected one row of features a texture, got {len(features)} for {len(records)}")
    labels, distances, _ = cluster(features, k, seed)
    single = k == len(records)
    silhouettes = np.zeros(len(records)) if single else silhouette_samples(features.astype(np.float64), labels)
    colours = np.array([_colour(load_image_only(record)) for record in records], np.float32)
    ids = tuple(record.id for record in records)
    return Clusters(
        ids, features, source, seed, labels, distances, silhouettes.astype(np.float32), colours[:, 0], colours[:, 1]
    )


def look(lightness: float, chroma: float) -> str:
    """A mean CIELAB lightness and chroma in words: "dark, muted"."""
    light = next(word for bound, word in LIGHTNESS if lightness < bound)
    return f"{light}, {next(word for bound, word in CHROMA if chroma < bound)}"


def cluster_sheet(records: Sequence[Record], clusters: Clusters, columns: int = 10, side: int = 96) -> ImageArray:
    """A row a cluster: what it is, and its textures, `columns` at most, evenly from the nearest to its centre outwards.

    uint8 RGB; textures are cut to their central square and shown at `side` pixels.
    """
    by_id = {record.id: record for record in records}
    gap, text, head = 6, 210, 30
    large, small = ImageFont.load_default(15), ImageFont.load_default(13)
    title = f"{len(clusters.ids)} textures, {clusters.count} clusters by {clusters.source}; left: nearest to the centre"
    width = max(text + columns * (side + gap), math.ceil(large.getlength(title)) + gap) + gap
    sheet = Image.new("RGB", (width, head + clusters.count * (side + gap) + gap), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((gap, gap), title, fill=(27, 36, 48), font=large)
    for row in clusters.rows():
        top = head + row.cluster * (side + gap)
        lines = (f"{row.n} textures ({row.share:.1%})", row.look, f"silhouette {row.silhouette:.2f}")
        pen.text((gap, top + 4), f"Cluster {row.cluster}", fill=(27, 36, 48), font=large)
        for number, line in enumerate(lines):
            pen.text((gap, top + 28 + 20 * number), line, fill=(91, 102, 117), font=small)
        inside = clusters.members(row.cluster)
        steps = np.unique(np.linspace(0, len(inside) - 1, min(columns, len(inside))).round().astype(int))
        for column, step in enumerate(steps):
            shown = _square(load_image_only(by_id[clusters.ids[inside[step]]]), side)
            sheet.paste(Image.fromarray(shown), (text + column * (side + gap), top))
    return np.asarray(sheet)


def _square(image: ImageArray, side: int) -> ImageArray:
    """The central square at `side` pixels."""
    height, width = image.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    cut = np.ascontiguousarray(image[top : top + edge, left : left + edge])
    mode = cv2.INTER_AREA if edge > side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(cut, (side, side), interpolation=mode), np.uint8)


def _colour(image: ImageArray) -> tuple[float, float]:
    """Mean CIELAB lightness and chroma of an image."""
    lab = _lab(image)
    return float(lab[..., 0].mean()), float(np.hypot(lab[..., 1], lab[..., 2]).mean())


def _lab(image: ImageArray) -> FloatArray:
    """CIELAB float32 (H, W, 3): lightness 0..100, two colour axes about -100..100."""
    return np.asarray(cv2.cvtColor(image.astype(np.float32) * np.float32(1 / 255), cv2.COLOR_RGB2LAB), np.float32)


def _balanced(features: FloatArray, cut: int) -> FloatArray:
    """The features with the columns before and from `cut` on each scaled to a total variance of 1."""
    scaled = [part / np.float32(np.sqrt(part.var(0).sum()) + 1e-9) for part in np.split(features, [cut], axis=1)]
    return np.asarray(np.hstack(scaled), np.float32)


def _describer(
    segmenter: Segmenter | None, resnet: str | Path
) -> tuple[Callable[[list[ImageArray]], FloatArray], str, int | None]:
    """The function from images to features (n, D) that can be had here, its name, and where its second part begins."""
    import torch
    from transformers import ResNetModel

    try:
        network = ResNetModel.from_pretrained(str(resnet), local_files_only=True).eval()
    except OSError as error:  # what transformers raises where the weights are not in its cache
        if segmenter is None:
            raise ModelError(
                f"expected the weights of {resnet} in the local cache, or a model to take features from; got neither: "
                f"fetch them once with `hf download {RESNET}`, or name a model"
            ) from error
        config: Any = segmenter.sam.config
        width = 2 * int(config.prompt_encoder_config.hidden_size)
        name = f"the mean and spread of {segmenter.name}'s embedding and of the colours"
        return lambda images: _embedding_facts(segmenter, images), name, width
    mean, std = (torch.tensor(part)[:, None, None] for part in (IMAGENET_MEAN, IMAGENET_STD))

    def pooled(images: list[ImageArray]) -> FloatArray:
        size = (RESNET_SIDE, RESNET_SIDE)
        small = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)) for image in images]
        pixels = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            answer = network((pixels - mean) / std).pooler_output.flatten(1)
        return np.asarray(answer.numpy(), np.float32)

    return pooled, "ResNet-18's pooled features", None


def _embedding_facts(segmenter: Segmenter, images: list[ImageArray]) -> FloatArray:
    """Mean and spread over space of each image's embedding (without padding) and CIELAB: float32 (n, 2 C + 6)."""
    out = []
    for image, embedding in zip(images, segmenter.encode_batch(images), strict=True):
        height, width = embedding.geometry.resized
        cells = np.array(embedding.tensor.shape[1:])
        rows, columns = np.maximum(1, np.rint(cells * (height, width) / embedding.geometry.side).astype(int))
        seen = embedding.tensor[:, :rows, :columns].float().numpy().reshape(len(embedding.tensor), -1)
        colours = _lab(image).reshape(-1, 3)
        out.append(np.concatenate([seen.mean(1), seen.std(1), colours.mean(0), colours.std(0)]))
    return np.asarray(np.stack(out), np.float32)
