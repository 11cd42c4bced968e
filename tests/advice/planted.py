"""A sound subject made of generated scenes, and the faults that are planted into it, one function each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch

from specialsam.advice.subject import Subject
from specialsam.core.geometry import BoolArray
from specialsam.core.types import Dataset, Embedding, Prompts, Record, Sample
from specialsam.data.content import digest_array
from specialsam.data.splits import split_records
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.prompts import Group, draw
from specialsam.synth.scenes import scene

_EMBEDDINGS: dict[tuple[str, str], Embedding] = {}
KINDS = ("Aquatic", "Flying", "Terrestrial", "Amphibian")


@cache
def nano() -> Segmenter:
    return load_model("nano")


@cache
def samples(count: int = 48, size: int = 128, seed: int = 1, camouflage: float = 0.5) -> tuple[Sample, ...]:
    """Scenes with the mask of one object each (the animal if there is one), of four categories in turn."""
    rank = {"animal": 3, "object": 2, "thin": 1}
    out = []
    for number in range(count):
        made = scene(seed + number, size, camouflage)
        best = max(range(len(made.kinds)), key=lambda i: (rank.get(made.kinds[i], 0), made.masks[i].sum()))
        record = Record(
            f"scene-{number:03d}", Path(f"scene-{number:03d}.png"), mask_kind="rle", rles=({"size": [size, size]},),
            category=KINDS[number % 4],
        )  # fmt: skip
        out.append(Sample(record, made.image, made.masks[best : best + 1]))
    return tuple(out)


def fresh(sample: Sample, segmenter: Segmenter) -> Embedding:
    """The embedding of these very pixels by this very encoder, made when it is first asked for."""
    key = segmenter.encoder_id, digest_array(sample.image)
    if key not in _EMBEDDINGS:
        _EMBEDDINGS[key] = segmenter.encode(sample.image)
    return _EMBEDDINGS[key]


def subject_of(of: Sequence[Sample]) -> Subject:
    """A subject over samples in memory, split by the project's own hash."""
    loaded = {sample.id: sample for sample in of}
    records = tuple(sample.record for sample in of)
    return Subject(
        Dataset("scenes", Path("scenes"), "folder", records),
        split_records(records),
        lambda record: loaded[record.id],
        nano(),
        fresh,
    )


def sound() -> Subject:
    return subject_of(samples())


def changed(subject: Subject, masks: Mapping[str, BoolArray]) -> Subject:
    """The subject with other masks for some ids."""
    before = subject.load

    def load(record: Record) -> Sample:
        sample = before(record)
        return replace(sample, masks=masks.get(record.id, sample.masks))

    return replace(subject, load=load)


def masks_of(subject: Subject) -> dict[str, BoolArray]:
    return {record.id: subject.load(record).masks for record in subject.of()}


def inverted(subject: Subject) -> Subject:
    return changed(subject, {id: ~masks for id, masks in masks_of(subject).items()})


def shifted(subject: Subject, dx: int, dy: int) -> Subject:
    """All masks moved right by dx and down by dy, as a block; what leaves the image is lost."""
    out = {}
    for id, masks in masks_of(subject).items():
        height, width = masks.shape[1:]
        moved = np.zeros_like(masks)
        moved[:, max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = masks[
            :, max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)
        ]
        if moved.any():
            out[id] = moved
    return changed(subject, out)


def shuffled(subject: Subject, seed: int = 0) -> Subject:
    """Every image gets the mask of another one."""
    masks = masks_of(subject)
    ids = list(masks)
    order = np.random.default_rng(seed).permutation(len(ids))
    return changed(subject, {ids[order[i - 1]]: masks[ids[order[i]]] for i in range(len(ids))})


def noisy(subject: Subject, share: float, kind: str, seed: int = 0) -> tuple[Subject, set[str]]:
    """A share of masks replaced by those of other images ("swap") or moved by a third of the image ("move")."""
    masks = masks_of(subject)
    ids = list(masks)
    bad = np.random.default_rng(seed).choice(len(ids), round(share * len(ids)), replace=False)
    out = {}
    for i in bad:
        own = masks[ids[i]]
        steps = own.shape[1] // 3, own.shape[2] // 3
        out[ids[i]] = masks[ids[(i + 5) % len(ids)]] if kind == "swap" else np.roll(own, steps, (1, 2))
    return changed(subject, out), set(out)


def model_made(subject: Subject, rounds: int = 6) -> Subject:
    """Labels that the base itself answers to a click, and answers again to the click in the middle of that answer."""
    out = {}
    for record in subject.of():
        sample = subject.load(record)
        embedding, masks = fresh(sample, subject.segmenter), sample.masks
        for _ in range(rounds):
            prompts = draw("interior", masks, np.random.default_rng(0))[0][1]
            answer = subject.segmenter.decode(embedding, prompts).masks()[:, 0]
            masks = answer if answer.any() else masks
        out[record.id] = masks
    return changed(subject, out)


def with_prompts(subject: Subject, change: Callable[[Prompts, tuple[int, int]], Prompts]) -> Subject:
    """The subject whose prompts go through `change(prompts, (height, width))`."""

    def crooked(strategy: str, masks: BoolArray, rng: np.random.Generator) -> list[Group]:
        size = (masks.shape[1], masks.shape[2])
        return [(indices, change(prompts, size)) for indices, prompts in draw(strategy, masks, rng)]

    return replace(subject, draw=crooked)


def swapped_prompts(prompts: Prompts, size: tuple[int, int]) -> Prompts:
    points = None if prompts.points is None else prompts.points[..., ::-1].copy()
    boxes = None if prompts.boxes is None else prompts.boxes[:, [1, 0, 3, 2]]
    return replace(prompts, points=points, boxes=boxes)


def scaled_prompts(factor: float) -> Callable[[Prompts, tuple[int, int]], Prompts]:
    def change(prompts: Prompts, size: tuple[int, int]) -> Prompts:
        points = None if prompts.points is None else (prompts.points * factor).astype(np.float32)
        boxes = None if prompts.boxes is None else (prompts.boxes * factor).astype(np.float32)
        return replace(prompts, points=points, boxes=boxes)

    return change


def mosaics(count: int = 24, tile: int = 48) -> Subject:
    """2x2 mosaics of plain textures: the same four masks in every image."""
    rng = np.random.default_rng(0)
    masks = np.zeros((4, 2 * tile, 2 * tile), np.bool_)
    for number in range(4):
        row, column = divmod(number, 2)
        masks[number, row * tile : (row + 1) * tile, column * tile : (column + 1) * tile] = True
    out = []
    for number in range(count):
        image = np.zeros((2 * tile, 2 * tile, 3), np.uint8)
        for mask in masks:
            image[mask] = rng.integers(30, 220, 3) + rng.integers(-20, 20, (int(mask.sum()), 3))
        rles = ({"size": [2 * tile, 2 * tile]},) * 4
        out.append(
            Sample(Record(f"m{number:02d}", Path(f"m{number:02d}.png"), mask_kind="rle", rles=rles), image, masks)
        )
    return subject_of(out)


def duplicated(subject: Subject, disguise: Callable[[np.ndarray], np.ndarray]) -> Subject:
    """Four test images whose pixels are those of training images, after `disguise`."""
    tests = [record.id for record in subject.of("test")[:4]]
    pairs = dict(zip(tests, subject.of("train")[:4], strict=True))
    before = subject.load

    def load(record: Record) -> Sample:
        if record.id not in pairs:
            return before(record)
        sample = before(pairs[record.id])
        image = disguise(sample.image)
        masks = disguise(sample.masks[0].astype(np.uint8)[..., None].repeat(3, 2))[..., 0] > 0
        return Sample(record, image, masks[None])

    return replace(subject, load=load)


def mirrored_copy(image: np.ndarray) -> np.ndarray:
    """Left to right, and half as large: what a second export of the same picture may look like."""
    return cv2.resize(np.ascontiguousarray(image[:, ::-1]), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def stored_as(precision: str) -> Callable[[Sample, Segmenter], Embedding]:
    """Embeddings as they come back from storage in half precision or in 8 bits a number with one scale a channel."""

    def embed(sample: Sample, segmenter: Segmenter) -> Embedding:
        exact = segmenter.encode(sample.image)
        if precision == "half":
            return replace(exact, tensor=exact.tensor.half().float())
        scale = exact.tensor.abs().amax((1, 2), keepdim=True).clamp_min(1e-8) / 127
        return replace(exact, tensor=torch.round(exact.tensor / scale) * scale)

    return embed
