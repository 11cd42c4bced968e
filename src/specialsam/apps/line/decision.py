"""What alarms in a picture: the specialist's finder, or the distance to what good pictures look like, and from when on.

The threshold is set on good pictures by split conformal prediction (`metrics.conformal`): a further good picture alarms
with a chance of at most the share that was asked for. `teach` scores good pictures on the spot and changes nothing in
the specialist; a model without a finder and without a memory remembers half of them and sets the threshold on the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from specialsam.apps.appearance import Appearance, appearance_of, check_appearance
from specialsam.apps.line.settings import LineSettings
from specialsam.apps.session import Session
from specialsam.core.console import complain, stage
from specialsam.core.errors import DataError, UsageError
from specialsam.core.geometry import BoolArray, FloatArray, ImageArray
from specialsam.core.types import Embedding, Prompts
from specialsam.metrics.conformal import conformal_threshold, false_alarm_interval
from specialsam.models import memory
from specialsam.models.finder import find
from specialsam.models.memory import Memory
from specialsam.models.segmenter import Segmenter

WITHIN = 0.9
"""Share of the decoder's answer that lies within the place that it was asked about."""
REMEMBERED = 1024
"""Cells of a memory that is made on the spot."""


@dataclass(frozen=True)
class Taught:
    """Scores of good pictures that nothing was learned from, what they look like, and a memory where one was made."""

    scores: tuple[float, ...]
    appearance: Appearance | None = None
    memory: Memory | None = None


@dataclass(frozen=True)
class Judged:
    """One picture: its `score` in 0..1, and P places, the surest first, as masks bool (P, H, W) and scores (P,)."""

    score: float
    masks: BoolArray
    scores: FloatArray


@dataclass(frozen=True)
class Judge:
    """A session with thresholds: a place alarms from `threshold`, and goes on alarming from `low`.

    The memory says where something is; where it alarms the decoder draws its outline, if that is wanted (`outlined`).
    """

    session: Session
    taught: Taught
    threshold: float
    low: float
    most: int
    outlined: bool = True

    @property
    def by(self) -> str:
        """What it decides by."""
        return "finder" if self.session.parts.finder is not None else "memory"

    def judge(self, image: ImageArray) -> Judged:
        """One picture uint8 (H, W, 3); DataError where it is of another kind than the good ones."""
        check_appearance(image, self.taught.appearance)
        return self.judge_embedding(self.session.segmenter.encode(image))

    def judge_embedding(self, embedding: Embedding) -> Judged:
        """One picture by its embedding (C, h, w)."""
        if self.session.parts.finder is not None:
            found = find(self.session.parts.finder, self.session.segmenter, embedding)
            above = found.above(self.low)
            masks = above.prediction.masks()[: self.most, 0]
            return Judged(found.score, masks, above.probabilities[: self.most])
        kept = self.taught.memory or self.session.parts.memory
        assert kept is not None, "a judge is opened with a finder or a memory"
        far = memory.anomaly_map(kept, embedding)
        masks, scores = regions(far, self.low, self.most)
        sure = int((scores >= self.threshold).sum()) if self.outlined else 0
        if sure:
            masks[:sure] = outlines(self.session.segmenter, embedding, far, masks[:sure])
        return Judged(float(far.max()), masks, scores)


def regions(far: FloatArray, least: float, most: int) -> tuple[BoolArray, FloatArray]:
    """Connected places of a map (H, W) of d / (1 + d): masks bool (P, H, W) and their highest values (P,), falling.

    A place is connected from `least` on; its mask is where the distance d is at least half of its highest, for a map
    as coarse as an embedding's cells has wide slopes.
    """
    count, labels = cv2.connectedComponents((far >= least).astype(np.uint8), connectivity=8)
    tops = np.array([far[labels == number].max() for number in range(1, count)], np.float32)
    order = np.argsort(-tops, kind="stable")[:most]
    half = tops[order] / (2 - tops[order])  # the squashed value of half the distance
    masks = [(labels == number + 1) & (far >= level) for number, level in zip(order, half, strict=True)]
    return np.array(masks, np.bool_).reshape(len(order), *far.shape), tops[order]


def outlines(segmenter: Segmenter, embedding: Embedding, far: FloatArray, masks: BoolArray) -> BoolArray:
    """Places of a map (H, W), masks bool (P, H, W), drawn closer: the decoder's answer to a click where each is surest.

    An answer that leaves its place is none: the place stays as it was.
    """
    peaks = [np.unravel_index(int(np.where(mask, far, -1.0).argmax()), far.shape) for mask in masks]
    points = np.array([[[x, y]] for y, x in peaks], np.float32)
    answers = segmenter.decode(embedding, Prompts("found", points, np.ones((len(points), 1), np.int64))).masks()[:, 0]
    inside = np.array([(answer & mask).sum() for answer, mask in zip(answers, masks, strict=True)])
    good = (inside > 0) & (inside >= WITHIN * answers.sum((1, 2)))
    return np.asarray(np.where(good[:, None, None], answers, masks), np.bool_)


def known_scores(session: Session) -> Taught:
    """What a specialist already knows of good pictures; UsageError where that is nothing, or by another arithmetic."""
    scores = session.card.alarm.good_scores if session.card is not None else []
    if session.parts.finder is None or not scores:
        raise UsageError(
            "expected a specialist that knows pictures of nothing for a promise on false alarms, got one without; "
            "give good pictures: --teach GOOD_FRAMES (99 or more for 1%)"
        )
    if not session.scores_alike:
        raise UsageError(
            "expected a backend of the arithmetic in which the specialist scored good pictures, got bf16; give good "
            "pictures to score anew (--teach GOOD_FRAMES), or take openvino, onnxruntime or compiled"
        )
    assert session.card is not None, "scores are the card's"
    alarm = session.card.alarm
    return Taught(tuple(scores), None if alarm.size is None else Appearance(alarm.size, alarm.grey))


def teach(session: Session, images: Sequence[tuple[str, ImageArray]]) -> Taught:
    """Scores of good pictures, uint8 (H, W, 3) by name; DataError where they are of several kinds."""
    if not images:
        raise UsageError("expected good pictures to teach, got none")
    first = appearance_of(images[0][1])
    grey = all(appearance_of(image).grey for _, image in images)
    own = session.parts.memory
    embeddings = []
    with stage("looking at good pictures") as progress:
        for number, (name, image) in enumerate(images, 1):
            if (image.shape[0], image.shape[1]) != first.size:
                raise DataError(f"expected good pictures of one size, got another in {name}; leave it out")
            embeddings.append(session.segmenter.encode(image))
            progress(number, len(images), name)
    rest = embeddings
    if session.parts.finder is None and own is None:
        if len(embeddings) < 4:
            raise UsageError(f"expected 4 good pictures or more to remember, got {len(embeddings)}")
        own, rest = memory.fit(embeddings[::2], REMEMBERED), embeddings[1::2]
    bare = Judge(session, Taught((), memory=own), 0.0, 2.0, 1)
    scores = tuple(bare.judge_embedding(one).score for one in rest)
    return Taught(scores, Appearance(first.size, grey), None if session.parts.memory is not None else own)


def open_judge(session: Session, taught: Taught, settings: LineSettings) -> Judge:
    """The thresholds that keep the promise of the settings; UsageError where the good pictures are too few for it."""
    high = _above(conformal_threshold(taught.scores, settings.false_alarms))
    low = _above(conformal_threshold(taught.scores, min(settings.keep * settings.false_alarms, 0.5)))
    if high > 1:
        complain(
            f"no alarm is possible: a good picture scored {max(taught.scores):.3f}; look through the good pictures"
        )
    return Judge(session, taught, high, low, settings.most)


def _above(threshold: float) -> float:
    """Above a conformal threshold, not at it, is an alarm."""
    return float(np.nextafter(np.float32(threshold), np.float32(2)))


@dataclass(frozen=True)
class Promise:
    """What a share of good pictures means on this line: alarms an hour, each with its bound at 95 %.

    `pictures` an hour that alarm falsely on average, `pictures_bound` where the good pictures were unlucky; `events`
    bounds what becomes of them: an event takes `confirm` pictures, a picture alarms at `most` places.
    """

    share: float
    good: int
    pictures: float
    pictures_bound: float
    events: float
    events_bound: float

    def says(self) -> str:
        """In a line."""
        return (
            f"{self.share:.2%} of good pictures alarm at most ({self.good} set it), {self.pictures:.0f} an hour "
            f"({self.pictures_bound:.0f} with 95 %), at most {self.events:.0f} ({self.events_bound:.0f}) false events"
        )


def promise(good: int, fps: float, settings: LineSettings) -> Promise:
    """The promise per picture, restated per hour and per event at `fps` pictures a second."""
    share, hour = settings.false_alarms, 3600 * fps
    upper = false_alarm_interval(good, share, 0.9)[1]  # 5 % beyond
    each = settings.most / settings.confirm
    return Promise(share, good, share * hour, upper * hour, share * hour * each, upper * hour * each)
