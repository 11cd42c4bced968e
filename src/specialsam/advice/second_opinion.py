"""What the base model, given the box and the click that a mask suggests, says of masks that are in doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from specialsam.advice.image_facts import ImageFacts
from specialsam.advice.subject import Subject
from specialsam.core.randomness import generator
from specialsam.core.types import Sample
from specialsam.metrics.overlap import overlap
from specialsam.prompts import draw

ASKED = 40
"""Suspects, and as many others, that the base is asked about."""
OBJECTS = 3
"""Objects of an image that are asked about, the largest first."""


@dataclass(frozen=True)
class Opinion:
    """Median IoU between masks and what the base finds in their boxes, of suspects and of others, and by image."""

    suspects: float
    others: float
    by_id: Mapping[str, float]


def second_opinion(subject: Subject, suspects: Sequence[ImageFacts], others: Sequence[ImageFacts]) -> Opinion:
    """Ask the base about the first 40 of each; a wrong mask's box holds no object of that shape."""
    records = {record.id: record for record in subject.of()}

    def ask(facts: Sequence[ImageFacts]) -> dict[str, float]:
        return {fact.id: boxed_iou(subject, subject.load(records[fact.id])) for fact in facts[:ASKED]}

    first, second = ask(suspects), ask(others)
    return Opinion(float(np.median(list(first.values()))), float(np.median(list(second.values()))), first)


def boxed_iou(subject: Subject, sample: Sample) -> float:
    """Mean IoU of an image's largest objects with the base's answer to their box and click."""
    order = np.argsort(-sample.masks.sum((1, 2)), kind="stable")[:OBJECTS]
    masks = sample.masks[np.sort(order)]
    embedding = subject.embed(sample, subject.segmenter)
    values = [0.0] * len(masks)
    for indices, prompts in draw("box_point", masks, generator(0, "second opinion", sample.id)):
        answers = subject.segmenter.decode(embedding, prompts).masks()[:, 0]
        for index, answer in zip(indices, answers, strict=True):
            values[index] = overlap(answer, masks[index])["iou"]
    return float(np.mean(values))
