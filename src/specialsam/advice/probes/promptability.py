"""How a model's answer depends on where the prompt is: accuracy over clicks and boxes that get worse step by step.

Along each axis one thing about the prompt changes and the object stays: how deep in the object the click lies, how far
it misses, how large or shifted the box is, a click beside the object. `clicks_to` counts the clicks that a user needs
(NoC: Sofiiuk et al. 2021, "Reviving iterative training with mask guidance for interactive segmentation"). All levels of
all objects of an image are decoded in one call a kind of prompt, and every model sees the same prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import pandas as pd

from specialsam.advice.subject import Subject
from specialsam.core.console import Progress
from specialsam.core.errors import DataError, UsageError
from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.core.masks import interior_point, tight_boxes
from specialsam.core.place import Spread, alone
from specialsam.core.randomness import generator
from specialsam.core.types import Embedding, Prediction, Prompts, Record, Truth
from specialsam.evaluation.clicking import clicked_together, clicks_needed
from specialsam.evaluation.evaluate import PIECE_PIXELS
from specialsam.evaluation.statistics import bootstrap_mean
from specialsam.metrics.overlaps import overlap
from specialsam.models.segmenter import Segmenter
from specialsam.prompts.strategies import random_pixels

Point = tuple[float, float]
Found = TypeVar("Found")

CLICK_DEPTH, CLICK_NOISE, BOX_SCALE, BOX_SHIFT, BACKGROUND = (
    "click depth",
    "click noise",
    "box scale",
    "box shift",
    "background click",
)
LEVELS: dict[str, tuple[float, ...]] = {
    CLICK_DEPTH: (0.0, 0.25, 0.5, 0.75, 1.0),
    CLICK_NOISE: (0.0, 0.05, 0.1, 0.2, 0.4),
    BOX_SCALE: (0.8, 0.9, 1.0, 1.1, 1.25, 1.5),
    BOX_SHIFT: (0.0, 0.05, 0.1, 0.2),
    BACKGROUND: (1.0,),
}
"""Axes and their values: depth 0 is the deepest point and 1 the border, noise and shift are shares of `object_size`."""
MOST_OBJECTS = 8
"""Objects of an image that are looked at; more of them are drawn by the seed."""
FAR = 0.5
"""Distance of a background click from the object, in `object_size`, where the image has room for it."""
TOGETHER = 8
"""Images that `clicks_to` asks about at once: one click each is little work for a pass of the decoder."""
COLUMNS = ["model", "axis", "value", "record", "object", "iou", "predicted"]


@dataclass(frozen=True)
class Look:
    """One image as the checks see it: chosen objects (indices, masks bool (P, H, W)) and an embedding a model."""

    truth: Truth
    objects: list[int]
    masks: BoolArray
    embeddings: dict[str, Embedding]


@dataclass(frozen=True)
class Clicks:
    """`counts`: model, record, object and one column a target (noc85, noc90: clicks needed, failures count as the
    most); `curve`: model, record, object, click (from 1), iou. Both have every object of every image."""

    counts: pd.DataFrame
    curve: pd.DataFrame


def look(models: Mapping[str, Segmenter], record: Record, subject: Subject, seed: int) -> Look | None:
    """One image; None for one without an object, which has nothing to prompt for.

    The embedding is asked once an encoder.
    """
    truth = subject.true(record)
    kept = np.flatnonzero(truth.masks.any((1, 2)))
    if not len(kept):
        return None
    kept = np.sort(generator(seed, "objects", record.id).permutation(kept)[:MOST_OBJECTS])
    return Look(truth, kept.tolist(), truth.masks[kept], embeddings_by(models, truth, subject))


def embeddings_by(models: Mapping[str, Segmenter], truth: Truth, subject: Subject) -> dict[str, Embedding]:
    """The embedding of an image for each model, asked once an encoder."""
    by_encoder: dict[str, Embedding] = {}
    for segmenter in models.values():
        if segmenter.encoder_id not in by_encoder:
            by_encoder[segmenter.encoder_id] = subject.embed(truth, segmenter)
    return {name: by_encoder[segmenter.encoder_id] for name, segmenter in models.items()}


def of_each(
    work: Callable[[Sequence[Look]], list[Found]],
    models: Mapping[str, Segmenter],
    records: Sequence[Record],
    subject: Subject,
    seed: int,
    progress: Progress | None = None,
    spread: Spread = alone,
    together: int = 1,
) -> list[Found]:
    """What `work` finds in each image, in their order; it looks at up to `together` of them at once.

    Which ones follows from `records` alone. Raises DataError where no image has an object.
    """

    def seen(some: Sequence[Record]) -> list[Found] | None:
        images = [image for record in some if (image := look(models, record, subject, seed)) is not None]
        return work(images) if images else None

    parts = [records[start : start + together] for start in range(0, len(records), together)]
    answers, done = [], 0
    for part, answer in zip(parts, spread(seen, parts), strict=True):
        answers.append(answer)
        done += len(part)
        if progress:
            progress(done, len(records), part[-1].id)
    if all(answer is None for answer in answers):
        raise DataError(f"expected images with objects to prompt for, got {len(records)} images without any")
    return [found for answer in answers if answer is not None for found in answer]


def object_size(mask: BoolArray) -> float:
    """Geometric mean of the sides of a bool (H, W) mask's tight box, in pixels."""
    x0, y0, x1, y1 = tight_boxes(mask[None])[0].tolist()
    return float(np.sqrt((x1 - x0 + 1) * (y1 - y0 + 1)))


def within(point: tuple[float, float], size: tuple[int, int]) -> Point:
    """The point (x, y) moved to the nearest place in an image of `size` (height, width)."""
    return float(np.clip(point[0], 0, size[1] - 1)), float(np.clip(point[1], 0, size[0] - 1))


def click_at_depth(mask: BoolArray, depth: float, rng: np.random.Generator) -> Point:
    """A random pixel (x, y) of a bool (H, W) mask's largest component at a depth from 0 (deepest) to 1 (border)."""
    if not 0 <= depth <= 1:
        raise UsageError(f"expected a click depth from 0 (deepest) to 1 (border), got {depth}")
    x, y = interior_point(mask)
    if depth == 0:
        return float(x), float(y)
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    component = np.pad((labels == labels[y, x]).astype(np.uint8), 1)
    distance = cv2.distanceTransform(component, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    inside = distance > 0
    wanted = distance.max() * (1 - depth) + distance[inside].min() * depth
    miss = np.where(inside, np.abs(distance - wanted), np.inf)
    column, row = random_pixels(np.asarray(miss <= max(0.5, float(miss.min())) + 1e-4), 1, rng)[0]
    return float(column), float(row)


def moved_click(mask: BoolArray, offset: tuple[float, float]) -> Point:
    """The interior point of a bool (H, W) mask moved by `offset` (x, y) in object sizes, kept in the image.

    It may leave the object.
    """
    (x, y), size = interior_point(mask), object_size(mask)
    return within((x + offset[0] * size, y + offset[1] * size), (mask.shape[0], mask.shape[1]))


def background_click(mask: BoolArray, rng: np.random.Generator, others: BoolArray | None = None) -> Point | None:
    """A random pixel (x, y) beside the object, outside of `others` and FAR from it where there is room.

    `mask` is bool (H, W), `others` bool (P, H, W).
    None where the object fills the image.
    """
    outside = ~mask
    free = outside if others is None or not len(others) else outside & ~others.any(0)
    gap = cv2.distanceTransform(outside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    far = gap >= FAR * object_size(mask)
    for allowed in (free & far, free, outside & far, outside):
        if allowed.any():
            x, y = random_pixels(np.asarray(allowed, np.bool_), 1, rng)[0]
            return float(x), float(y)
    return None


def changed_box(mask: BoolArray, scale: float = 1.0, offset: tuple[float, float] = (0.0, 0.0)) -> FloatArray:
    """The tight box float32 (4,) of a bool (H, W) mask, scaled about its centre, moved by `offset` object sizes.

    It is cut at the image.
    """
    low, high = tight_boxes(mask[None])[0].astype(np.float64).reshape(2, 2)
    centre, half = (low + high) / 2, (high - low + 1) / 2 * scale - 0.5
    centre = centre + np.array(offset) * object_size(mask)
    corners = np.sort(np.stack([centre - half, centre + half]), axis=0)
    limit = np.array([mask.shape[1] - 1, mask.shape[0] - 1])
    return np.asarray(np.clip(corners, 0, limit).ravel(), np.float32)


def clicks_prompt(points: Sequence[Point], name: str = "click") -> Prompts:
    """Prompts of one foreground click each, for as many objects as there are points (x, y)."""
    array = np.asarray(points, np.float32).reshape(-1, 1, 2)
    return Prompts(name, points=array, labels=np.ones(array.shape[:2], np.int64))


def answers(segmenter: Segmenter, embedding: Embedding, prompts: Prompts) -> Iterator[tuple[BoolArray, float]]:
    """The single mask bool (H, W) and its predicted IoU for one prompt after another.

    All are decoded together; masks of full size are made in pieces, so that memory does not grow with their number.
    """
    low = segmenter.decode(embedding, prompts)
    frame = embedding.geometry
    most = max(1, PIECE_PIXELS // max(frame.side**2, frame.height * frame.width))
    for start in range(0, len(low), most):
        part = slice(start, start + most)
        piece = Prediction(low.logits[part], low.scores[part], frame)
        yield from zip(piece.masks()[:, 0], piece.scores[:, 0].tolist(), strict=True)


def promptability(
    models: Mapping[str, Segmenter],
    records: Sequence[Record],
    subject: Subject,
    seed: int = 0,
    progress: Progress | None = None,
    spread: Spread = alone,
) -> pd.DataFrame:
    """IoU with the object under prompts of falling quality: model, axis, value, record, object, iou, predicted.

    `predicted` is the model's own estimate of that IoU. On the axis "background click" the prompt lies beside the
    object and a low IoU is right; an object that fills its image has no such line.
    """

    def lines(images: Sequence[Look]) -> list[tuple[str, str, float, str, int, float, float]]:
        [seen], out = images, []
        for model, segmenter in models.items():
            for places, prompts in _prompts(seen, seed):
                found = answers(segmenter, seen.embeddings[model], prompts)
                for (place, axis, value), (mask, score) in zip(places, found, strict=True):
                    iou = overlap(mask, seen.masks[place])["iou"]
                    out.append((model, axis, value, seen.truth.id, seen.objects[place], iou, score))
        return out

    found = of_each(lines, models, records, subject, seed, progress, spread)
    return pd.DataFrame(found, columns=COLUMNS)


_Place = tuple[int, str, float]


def _prompts(seen: Look, seed: int) -> tuple[tuple[list[_Place], Prompts], tuple[list[_Place], Prompts]]:
    """All clicks and all boxes of an image, each with (index of the object, axis, value) of every prompt."""
    where: list[_Place] = []
    points: list[Point] = []
    framed: list[_Place] = []
    boxes: list[FloatArray] = []
    for place, mask in enumerate(seen.masks):
        rng = generator(seed, "promptability", seen.truth.id, seen.objects[place])
        noise, turn = rng.normal(size=2), rng.uniform(0, 2 * np.pi)
        for depth in LEVELS[CLICK_DEPTH]:
            where.append((place, CLICK_DEPTH, depth))
            points.append(click_at_depth(mask, depth, rng))
        for share in LEVELS[CLICK_NOISE]:  # one direction an object: along the axis only the distance grows
            where.append((place, CLICK_NOISE, share))
            points.append(moved_click(mask, (share * noise[0], share * noise[1])))
        beside = background_click(mask, rng, seen.truth.masks)
        if beside is not None:
            where.append((place, BACKGROUND, LEVELS[BACKGROUND][0]))
            points.append(beside)
        for scale in LEVELS[BOX_SCALE]:
            framed.append((place, BOX_SCALE, scale))
            boxes.append(changed_box(mask, scale))
        for share in LEVELS[BOX_SHIFT]:
            framed.append((place, BOX_SHIFT, share))
            boxes.append(changed_box(mask, offset=(share * np.cos(turn), share * np.sin(turn))))
    return (where, clicks_prompt(points)), (framed, Prompts("box", boxes=np.stack(boxes)))


def clicks_to(
    models: Mapping[str, Segmenter],
    records: Sequence[Record],
    subject: Subject,
    targets: tuple[float, ...] = (0.85, 0.9),
    most: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
    spread: Spread = alone,
) -> Clicks:
    """Clicks until the IoU reaches each target, the next one always in the middle of the largest error.

    The first click is the object's interior point; from the second on the earlier answer's logits are the mask prompt.
    Every object gets `most` clicks, so that the curve is complete; one that never reaches a target counts as `most`.
    """
    if most < 1 or not targets or not all(0 < target <= 1 for target in targets):
        raise UsageError(f"expected at least one click and targets in 0..1, got {most} and {targets}")

    def lines(seen: Sequence[Look]) -> list[tuple[str, str, int, FloatArray]]:
        curves = {model: _click_curves(segmenter, model, seen, most) for model, segmenter in models.items()}
        return [
            (model, image.truth.id, index, line)
            for place, image in enumerate(seen)
            for model, found in curves.items()
            for index, line in zip(image.objects, found[place], strict=True)
        ]

    counts: list[dict[str, object]] = []
    curve: list[tuple[str, str, int, int, float]] = []
    for model, record, index, line in of_each(lines, models, records, subject, seed, progress, spread, TOGETHER):
        key = {"model": model, "record": record, "object": index}
        counts.append(key | {f"noc{round(100 * goal)}": clicks_needed(line, goal) for goal in targets})
        curve += [(model, record, index, number, iou) for number, iou in enumerate(line.tolist(), 1)]
    return Clicks(pd.DataFrame(counts), pd.DataFrame(curve, columns=["model", "record", "object", "click", "iou"]))


def _click_curves(segmenter: Segmenter, model: str, seen: Sequence[Look], most: int) -> list[FloatArray]:
    """IoU (P, most) after each click, of each image."""
    embeddings, masks = [image.embeddings[model] for image in seen], [image.masks for image in seen]
    prompts = [clicks_prompt([interior_point(mask) for mask in own], "clicks") for own in masks]
    out = [np.zeros((len(own), most), np.float32) for own in masks]
    for number, every in enumerate(clicked_together(segmenter, embeddings, masks, prompts, most)):
        for curve, (_, _, found), own in zip(out, every, masks, strict=True):
            curve[:, number] = [overlap(mask, truth)["iou"] for mask, truth in zip(found, own, strict=True)]
    return out


def image_means(frame: pd.DataFrame, key: Sequence[str], seed: int = 0, level: float = 0.95) -> pd.DataFrame:
    """Mean IoU over images with bootstrap intervals for each `key`: of `promptability`, `Clicks.curve`, probes.

    Columns: those of `key`, mean, low, high, n (images). Objects of an image are averaged first. DataError names the
    columns that are missing.
    """
    missing = [name for name in (*key, "record", "iou") if name not in frame.columns]
    if missing:
        raise DataError(f"expected the columns {', '.join(missing)} beside {', '.join(frame.columns)}")
    lines: list[dict[str, object]] = []
    for names, part in frame.groupby(list(key), sort=False):
        interval = bootstrap_mean(part.groupby("record")["iou"].mean().to_numpy(float), seed, level=level)
        numbers = {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
        lines.append(dict(zip(key, names, strict=True)) | numbers)
    return pd.DataFrame(lines, columns=[*key, "mean", "low", "high", "n"])
