"""What the base model, given the box and the click that a mask suggests, says of masks that are in doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from specialsam.advice.checks.image_facts import ImageFacts
from specialsam.advice.subject import Subject
from specialsam.core.randomness import generator
from specialsam.core.types import Sample
from specialsam.metrics.overlaps import overlap
from specialsam.prompts import draw

ASKED = 60
"""Suspects, and as many others, that the base is asked about at most."""
OBJECTS = 3
"""Objects of an image that are asked about, the largest first."""


@dataclass(frozen=True)
class Opinion:
    """Median IoU between masks and what the base finds in their boxes, of suspects and of others; and each suspect's
    distance from the mean of all asked, in spreads, float64 (N,), low where the base contradicts the mask."""

    suspects: float
    others: float
    standing: npt.NDArray[np.float64]


def second_opinion(subject: Subject, suspects: Sequence[ImageFacts], others: Sequence[ImageFacts]) -> Opinion:
    """Ask the base about suspects and others, one of each at least: a wrong mask's box holds no such object."""
    records = {record.id: record for record in subject.of()}
    first, second = (
        np.array([boxed_iou(subject, subject.load(records[fact.id])) for fact in facts]) for facts in (suspects, others)
    )
    both = np.concatenate([first, second])
    return Opinion(float(np.median(first)), float(np.median(second)), (first - both.mean()) / max(both.std(), 1e-9))


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
