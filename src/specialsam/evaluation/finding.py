"""What is found without a prompt, image by image: scores, how far each find fits, maps; and rivals on the same images.

An image of nothing counts: what is found there is false. Everything that a table needs of an image is kept as plain
JSON (`ImageFinds`), so that a run goes on where it stopped; `evaluation.found_tables` makes the tables.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from specialsam.core.console import stage
from specialsam.core.errors import SpecialSamError
from specialsam.core.geometry import BoolArray, FloatArray, ImageArray
from specialsam.core.ledger import Journal, digest
from specialsam.core.place import Place
from specialsam.core.types import Embedding, Record, Truth
from specialsam.data.content import Content
from specialsam.evaluation.evaluate import Embed, TruthOf, image_of
from specialsam.metrics.camouflage import cod
from specialsam.metrics.detection import PixelCounts
from specialsam.metrics.overlaps import overlap, pairwise_iou
from specialsam.models.finder import PROPOSALS, Finder, find
from specialsam.models.grid import find_on_grid
from specialsam.models.memory import Memory, anomaly_map, image_score
from specialsam.models.segmenter import Segmenter

FINDS = 1
"""Version of what is kept of an image: part of what it is made from."""
RIVAL_THRESHOLD = 0.5
"""Score from which what a rival finds counts."""
MAP_METRICS = ("iou", "s_measure", "e_mean", "weighted_f", "mae")
"""What is measured of an image with objects: IoU of all that counts as found, and the measures of its soft map."""


@dataclass(frozen=True)
class Finds:
    """What one finder says of one image: masks bool (P, H, W), the surest first, with `scores` (P,) in 0..1.

    `soft` float32 (H, W) in 0..1 says how much each pixel looks like an object; `score` in 0..1 whether there is any.
    `counted` bool (P,) are those that count as found.
    """

    masks: BoolArray
    scores: FloatArray
    soft: FloatArray
    score: float
    counted: BoolArray


Find = Callable[[Truth, Embedding], Finds]


@dataclass(frozen=True)
class ImageFinds:
    """What is kept of one image and one finder.

    `ious` (P, T) of each find with each of the `objects` true ones, `found` how many finds count, `values` the
    MAP_METRICS of an image with objects, `pixels` a `PixelCounts` as JSON where they were asked for.
    """

    record: str
    objects: int
    score: float = 0.0
    scores: list[float] = field(default_factory=list)
    ious: list[list[float]] = field(default_factory=list)
    found: int = 0
    values: dict[str, float] = field(default_factory=dict)
    pixels: dict[str, Any] | None = None
    seconds: float = 0.0
    error: str = ""


def by_finder(finder: Finder, segmenter: Segmenter) -> Find:
    """The finder's proposals, answered by a decoder."""

    def ask(truth: Truth, embedding: Embedding) -> Finds:
        found = find(finder, segmenter, embedding)
        masks = found.prediction.masks()[:, 0]
        return Finds(masks, found.probabilities, found.soft(), found.score, found.counted())

    return ask


def by_grid(segmenter: Segmenter) -> Find:
    """A grid of points without any learning; its scores do not say that a mask is an object of the domain."""

    def ask(truth: Truth, embedding: Embedding) -> Finds:
        found, scores, _ = find_on_grid(segmenter, embedding)
        masks, soft = found.masks()[:, 0], np.zeros(truth.size, np.float32)
        for mask, score in zip(masks, scores, strict=True):
            soft[mask] = np.maximum(soft[mask], score)
        return Finds(masks, scores, soft, float(scores.max(initial=0.0)), scores >= RIVAL_THRESHOLD)

    return ask


def by_saliency(rule: Callable[[ImageArray], FloatArray]) -> Find:
    """What stands out in a picture uint8 (H, W, 3) by a rule that maps it to float32 (H, W) in 0..1 (`SALIENCY`)."""
    return lambda truth, embedding: _of_map(rule(image_of(truth)))


def by_memory(memory: Memory) -> Find:
    """Distance to the nearest neighbour among the cells of good images (Roth et al. 2022, PatchCore)."""

    def ask(truth: Truth, embedding: Embedding) -> Finds:
        return replace(_of_map(anomaly_map(memory, embedding)), score=image_score(memory, embedding))

    return ask


def _of_map(soft: FloatArray) -> Finds:
    """Objects as the connected pieces of a map above Otsu's threshold, each by its highest value."""
    grey = np.rint(soft * 255).astype(np.uint8)
    _, high = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    count, labels = cv2.connectedComponents(high, connectivity=8)
    peaks = np.zeros(count, np.float32)
    np.maximum.at(peaks, labels.ravel().astype(np.intp), soft.ravel())
    order = 1 + np.argsort(-peaks[1:], kind="stable")[:PROPOSALS]
    masks = np.asarray(labels[None] == order[:, None, None])
    return Finds(masks, peaks[order], soft, float(soft.max(initial=0.0)), peaks[order] >= RIVAL_THRESHOLD)


def image_finds(ask: Find, truth: Truth, embedding: Embedding, pixels: bool) -> ImageFinds:
    """What is kept of one image: `pixels` asks for the counts of its map's levels, too."""
    began = time.perf_counter()
    finds = ask(truth, embedding)
    seconds = time.perf_counter() - began
    masks = truth.masks[truth.masks.any((1, 2))]
    joint = np.asarray(masks.any(0), np.bool_)
    counted = finds.masks[finds.counted]
    together = np.asarray(counted.any(0), np.bool_)
    values: dict[str, float] = {}
    if len(masks):
        measured = cod(finds.soft, joint)
        values = {name: float(measured[name]) for name in MAP_METRICS if name in measured}
        values["iou"] = float(overlap(together, joint)["iou"])
    return ImageFinds(
        truth.id,
        len(masks),
        float(finds.score),
        [float(score) for score in finds.scores],
        pairwise_iou(finds.masks, masks).tolist(),
        len(counted),
        values,
        PixelCounts.of(finds.soft, joint).as_json() if pixels else None,
        seconds,
    )


@dataclass(frozen=True)
class Finding:
    """What is asked: which images, how their truth and embedding are got, and whether maps are counted by level.

    `encoder` is the one whose embeddings all finders work on, `content` the digests of image and masks by record.
    """

    records: Sequence[Record]
    content: Mapping[str, Content]
    truth: TruthOf
    embed: Embed
    encoder: Segmenter
    pixels: bool

    def of(self, record: Record, finders: Mapping[str, Find]) -> dict[str, ImageFinds]:
        """What each finder says of one image; a failed image says its error for each."""
        try:
            truth = self.truth(record)
            embedding = self.embed(truth, self.encoder)
            return {name: image_finds(ask, truth, embedding, self.pixels) for name, ask in finders.items()}
        except SpecialSamError as error:
            return {name: ImageFinds(record.id, 0, error=str(error)) for name in finders}


def measure_finds(
    finders: Mapping[str, tuple[Find, str]], asked: Finding, journal: Journal | None, place: Place
) -> dict[str, list[ImageFinds]]:
    """What each finder (with the digest of its weights) says of each image, by its name, in the order of the images.

    `journal` keeps what is finished; the processes of `place` share the images and all have the answers.
    """
    wanted = {
        f"{name}|{record.id}": digest(FINDS, asked.content[record.id].image, asked.content[record.id].masks, made)
        for record in asked.records
        for name, (_, made) in finders.items()
    }
    done = place.first(lambda: journal.finished(wanted) if journal else set())
    todo = [record for record in asked.records if any(f"{name}|{record.id}" not in done for name in finders)]
    work: Callable[[Record], dict[str, ImageFinds]] = lambda record: asked.of(  # noqa: E731
        record, {name: ask for name, (ask, _) in finders.items() if f"{name}|{record.id}" not in done}
    )
    with stage("finding") as progress:
        for number, (record, found) in enumerate(zip(todo, place.spread(work, todo), strict=True), 1):
            for name, one in found.items():
                if journal:
                    journal.put(f"{name}|{record.id}", wanted[f"{name}|{record.id}"], asdict(one))
            progress(number, len(todo), record.id)

    def kept() -> dict[str, ImageFinds]:
        if journal is None:
            return {}
        journal.forget(wanted)
        return {key: ImageFinds(**one) for key, one in journal.answers(wanted)}

    every = place.first(kept)
    return {name: [every[f"{name}|{record.id}"] for record in asked.records] for name in finders}
