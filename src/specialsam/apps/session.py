"""A model ready to answer questions about pictures: with prompts or without, once or from tiles, beside its base.

A `Session` holds no state of any picture, so that threads and a server share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from specialsam.apps.answers import FoundObject, objects_of, surest_first
from specialsam.apps.asked import Asked
from specialsam.core.errors import UsageError
from specialsam.core.geometry import BoolArray, FloatArray, ImageArray
from specialsam.core.types import Embedding, Prediction, Prompts
from specialsam.core.windows import Window
from specialsam.data.tiles import TileSettings
from specialsam.metrics.conformal import conformal_threshold
from specialsam.models.finder import INSIDE, SAME, find
from specialsam.models.grid import find_on_grid
from specialsam.models.load import load_base, load_model
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import FinderParts, SpecialistCard, is_specialist, load_finder, read_card
from specialsam.models.stitching import stitch
from specialsam.models.zoom import zoom

GRID_THRESHOLD = 0.7
"""Score from which what a grid of points finds is shown, where nothing else is asked for."""


@dataclass(frozen=True)
class Asking:
    """How pictures are asked: `zoom` looks a second time at each object, `tiles` cuts large pictures.

    Without prompts at most `most` objects of at least `threshold` (None: the finder's own) are kept; `false_alarms`
    sets the threshold so that a picture of nothing shows anything with at most that chance.
    """

    zoom: bool = False
    tiles: TileSettings = field(default_factory=TileSettings)
    most: int = 10
    threshold: float | None = None
    false_alarms: float | None = None


@dataclass(frozen=True)
class Session:
    """A segmenter, what it finds with where it is a specialist with a finder, and its base where that is to answer too.

    `card` is the specialist's, None for any other model.
    """

    segmenter: Segmenter
    parts: FinderParts
    card: SpecialistCard | None = None
    base: Segmenter | None = None

    @property
    def identity(self) -> list[str]:
        """What an answer follows from beside the picture and how it is asked."""
        finder, base = (self.card.finder if self.card else None), self.base
        models = [self.segmenter.encoder_id, self.segmenter.decoder_id]
        return [*models, finder.weights_sha256 if finder else "", base.decoder_id if base else ""]

    def threshold(self, how: Asking) -> float:
        """Probability from which an object is shown; UsageError where no promise on alarms can be kept."""
        if how.false_alarms is None:
            if how.threshold is not None:
                return how.threshold
            return float(self.parts.finder.threshold) if self.parts.finder is not None else GRID_THRESHOLD
        if self.parts.finder is None or self.card is None:
            raise UsageError("expected a specialist with a finder for a promise on false alarms, got a model without")
        scores = self.card.alarm.good_scores
        if not scores:
            raise UsageError(
                "expected a specialist that knows pictures of nothing for a promise on false alarms, got one without; "
                "give it some: specialsam calibrate SPECIALIST PICTURES"
            )
        # above the threshold, not at it, is an alarm
        return float(np.nextafter(np.float32(conformal_threshold(scores, how.false_alarms)), np.float32(2)))


def open_session(
    model: str | Path, *, with_base: bool = False, device: torch.device | str = "cpu", trust_base: bool = False
) -> Session:
    """A session of any model that `load_model` takes; `with_base` loads a specialist's base beside it."""
    segmenter = load_model(model, device=device, trust_base=trust_base)
    folder = Path(model)
    if not is_specialist(folder):
        if with_base:
            raise UsageError(f"expected a specialist folder to compare with its base, got {model}")
        return Session(segmenter, FinderParts())
    base = load_base(folder, device=device, trust_base=trust_base) if with_base else None
    return Session(segmenter, load_finder(folder), read_card(folder), base)


def find_in(
    session: Session, image: ImageArray, how: Asking
) -> tuple[tuple[FoundObject, ...], tuple[FoundObject, ...]]:
    """Objects in a picture uint8 (H, W, 3) without a prompt, the surest first, and the base's answers beside them.

    With tiles the picture is looked at as a whole and tile by tile; what both see is kept once.
    """
    height, width = image.shape[:2]
    whole = Window(0, 0, height, width)
    windows = [whole]
    if how.tiles.side and max(height, width) > how.tiles.side:
        windows += [window for window in how.tiles.windows((height, width)) if window != whole]
    seen = [_look(session, image, window, how) for window in windows]
    masks, scores = np.concatenate([one.masks for one in seen]), np.concatenate([one.scores for one in seen])
    beside = np.concatenate([one.beside for one in seen])
    order = np.lexsort((-scores, np.concatenate([one.cut for one in seen])))
    kept = _each_once(masks, order)[: how.most]
    kept = sorted(kept, key=lambda place: -scores[place])
    return objects_of(masks, scores, kept), objects_of(beside, scores, kept) if session.base is not None else ()


@dataclass(frozen=True)
class _Seen:
    """What a window shows, in the picture's frame: masks bool (P, H, W), scores (P,), the base's masks, and whether an
    inner border of the window cuts it."""

    masks: BoolArray
    scores: FloatArray
    beside: BoolArray
    cut: BoolArray


def _look(session: Session, image: ImageArray, window: Window, how: Asking) -> _Seen:
    part = np.ascontiguousarray(image[window.slices])
    embedding = session.segmenter.encode(part)
    least = session.threshold(how)
    if session.parts.finder is not None:
        found = find(session.parts.finder, session.segmenter, embedding, how.most).above(least)
        answers, scores = found.prediction, found.probabilities
        prompts = Prompts("found", found.points[:, None], np.ones((len(found), 1), np.int64), found.boxes)
    else:
        answers, scores = find_on_grid(session.segmenter, embedding, how.most)
        answers, scores = _above(answers, scores, least)
        prompts = None
    masks = answers.masks()[:, 0]
    if how.zoom and prompts is not None and len(prompts):
        masks = zoom(session.segmenter, part, prompts, answers).masks()
    beside = np.zeros_like(masks)
    if session.base is not None and prompts is not None and len(prompts):
        beside = session.base.decode(_for(session.base, session.segmenter, embedding, part), prompts).masks()[:, 0]
    placed, theirs = _placed(masks, window, image), _placed(beside, window, image)
    return _Seen(placed, scores, theirs, _cut(masks, window, image))


def _above(answers: Prediction, scores: FloatArray, least: float) -> tuple[Prediction, FloatArray]:
    kept = np.flatnonzero(scores >= least)
    return Prediction(answers.logits[kept], answers.scores[kept], answers.geometry), scores[kept]


def _for(base: Segmenter, segmenter: Segmenter, embedding: Embedding, part: ImageArray) -> Embedding:
    """The embedding for a base: the specialist's where they share the encoder."""
    return embedding if base.encoder_id == segmenter.encoder_id else base.encode(part)


def _placed(masks: BoolArray, window: Window, image: ImageArray) -> BoolArray:
    """Masks (P, h, w) of a window in the picture's frame (P, H, W)."""
    out = np.zeros((len(masks), *image.shape[:2]), np.bool_)
    out[(slice(None), *window.slices)] = masks
    return out


def _cut(masks: BoolArray, window: Window, image: ImageArray) -> BoolArray:
    """Which masks (P, h, w) reach a border of their window that is none of the picture: bool (P,)."""
    out = np.zeros(len(masks), np.bool_)
    if window.top > 0:
        out |= masks[:, 0].any(1)
    if window.left > 0:
        out |= masks[:, :, 0].any(1)
    if window.top + window.height < image.shape[0]:
        out |= masks[:, -1].any(1)
    if window.left + window.width < image.shape[1]:
        out |= masks[:, :, -1].any(1)
    return out


def _each_once(masks: BoolArray, order: npt.NDArray[np.intp]) -> list[int]:
    """Places of masks (P, H, W), in that order, that are neither empty nor the double or a part of one before."""
    kept: list[int] = []
    areas = masks.sum((1, 2))
    for place in map(int, order):
        if not areas[place]:
            continue
        shared = [int((masks[place] & masks[other]).sum()) for other in kept]
        double = any(
            s > SAME * (areas[place] + areas[other] - s) or s > INSIDE * areas[place]
            for s, other in zip(shared, kept, strict=True)
        )
        if not double:
            kept.append(place)
    return kept


def answer_asked(
    session: Session, image: ImageArray, asked: Sequence[Asked], how: Asking
) -> tuple[tuple[FoundObject, ...], tuple[FoundObject, ...]]:
    """The objects that are asked for in a picture uint8 (H, W, 3), and the base's answers to the same prompts.

    Prompts are in pixels (`Asked.in_pixels`). Empty answers are left out.
    """
    embedding = session.segmenter.encode(image)
    objects: list[FoundObject] = []
    others: list[FoundObject] = []
    for group in _alike(asked):
        prompts = as_prompts(group)
        labels, sources = [one.label for one in group], [one.source for one in group]
        masks, scores = _answered(session.segmenter, embedding, image, prompts, how)
        places = surest_first(masks, scores)
        objects += objects_of(masks, scores, places, labels, sources)
        if session.base is not None:
            theirs = _answered(
                session.base, _for(session.base, session.segmenter, embedding, image), image, prompts, how
            )
            others += objects_of(*theirs, places, labels, sources)
    return tuple(objects), tuple(others)


def _answered(
    segmenter: Segmenter, embedding: Embedding, image: ImageArray, prompts: Prompts, how: Asking
) -> tuple[BoolArray, FloatArray]:
    """Masks bool (P, H, W) and own scores (P,) of prompts, by the closest look that is asked for."""
    size = (image.shape[0], image.shape[1])
    answers = segmenter.decode(embedding, prompts)
    if how.tiles.side and max(size) > how.tiles.side:
        stitched = stitch(
            segmenter,
            size,
            how.tiles.windows(size),
            lambda window: segmenter.encode(np.ascontiguousarray(image[window.slices])),
            prompts,
            answers.probabilities()[:, 0],
        )
        return stitched.masks(), np.clip(stitched.scores, 0, 1)
    if how.zoom:
        closer = zoom(segmenter, image, prompts, answers)
        return closer.masks(), np.clip(closer.scores, 0, 1)
    return answers.masks()[:, 0], np.clip(answers.scores[:, 0].numpy(), 0, 1).astype(np.float32)


def as_prompts(group: Sequence[Asked]) -> Prompts:
    """Objects that are asked for in the same way as prompts, in their order."""
    points = labels = boxes = None
    if group[0].points is not None:
        points = np.stack([one.points for one in group if one.points is not None]).astype(np.float32)
        labels = np.stack([one.point_labels for one in group if one.point_labels is not None])
    if group[0].box is not None:
        boxes = np.array([one.box for one in group], np.float32)
    return Prompts("user", points, labels, boxes)


def _alike(asked: Sequence[Asked]) -> list[list[Asked]]:
    """Objects by the kind of their prompt and the number of their points, for one pass of the decoder each."""
    groups: dict[tuple[int, bool], list[Asked]] = {}
    for one in asked:
        groups.setdefault((0 if one.points is None else len(one.points), one.box is None), []).append(one)
    return list(groups.values())
