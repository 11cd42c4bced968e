"""A model ready to answer questions about pictures: with prompts or without, once or from tiles, beside its base.

A `Session` holds no state of any picture, so that threads and a server share one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from specialsam.apps.answers import FoundObject, objects_of, surest_first
from specialsam.apps.asked import Asked
from specialsam.core.errors import ModelError, UsageError
from specialsam.core.geometry import BoolArray, FloatArray, ImageArray
from specialsam.core.sampling import evenly
from specialsam.core.types import Embedding, Prediction, Prompts, Reading
from specialsam.core.windows import Size, Window
from specialsam.data.look import readable
from specialsam.data.tiles import TileSettings
from specialsam.metrics.conformal import conformal_threshold
from specialsam.models.backends import AUTO, PLAIN, SAMPLED, fastest, with_backend
from specialsam.models.finder import INSIDE, PROPOSALS, SAME, find
from specialsam.models.finder_files import FinderParts
from specialsam.models.grid import find_on_grid
from specialsam.models.load import load_base, load_model
from specialsam.models.segmenter import Segmenter, weights_of
from specialsam.models.specialist import SpecialistCard, is_specialist, load_finder, read_card
from specialsam.models.stitching import stitch
from specialsam.models.zoom import zoom

GRID_THRESHOLD = 0.7
"""Score from which what a grid of points finds is shown, where nothing else is asked for."""
ROOM = 100_000_000
"""Pixels of probabilities of one picture that are in memory at once, whatever the number of its objects."""
Embed = Callable[[Segmenter, ImageArray, Window], Embedding]
"""Where the embedding of a window of a picture comes from."""


def encoded(segmenter: Segmenter, image: ImageArray, window: Window) -> Embedding:
    """The embedding of a window of a picture uint8 (H, W, 3), made now."""
    return segmenter.encode(np.ascontiguousarray(image[window.slices]))


@dataclass(frozen=True)
class Asking:
    """How pictures are asked: `zoom` looks a second time at each object, `tiles` cuts large pictures.

    Without prompts at most `most` objects of at least `threshold` (None: the finder's own) are kept; `false_alarms`
    sets the threshold so that a picture of nothing shows anything with at most that chance, looked at as a whole.
    By `surest` a finder that never saw a picture of nothing shows its surest find in any case, as it is measured; where
    most pictures may hold nothing that is to be left out.
    """

    zoom: bool = False
    tiles: TileSettings = field(default_factory=TileSettings)
    most: int = 10
    threshold: float | None = None
    false_alarms: float | None = None
    surest: bool = True


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
    def reading(self) -> Reading | None:
        """How deep images were read that the specialist learned from; None where there were none."""
        stated = self.card.recipe.get("reading") if self.card else None
        if not isinstance(stated, dict):
            return None
        whole: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in stated.items()
        }
        try:
            return Reading(**whole)
        except TypeError:
            raise ModelError(
                f"expected low, high, nodata and bands in the specialist's reading, got {stated}"
            ) from None

    @property
    def identity(self) -> list[str]:
        """What an answer follows from beside the picture and how it is asked."""
        finder, base = (self.card.finder if self.card else None), self.base
        models = [self.segmenter.encoder_id, self.segmenter.decoder_id]
        found_by = [finder.weights_sha256, finder.by] if finder else ["", ""]
        return [*models, *found_by, base.decoder_id if base else ""]

    @property
    def scores_alike(self) -> bool:
        """Whether the encoder answers in the arithmetic, fp32, in which good pictures were scored for alarms."""
        return self.segmenter.encoder_id == weights_of(self.segmenter.encoder_id)

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
        if not self.scores_alike:
            raise UsageError(
                "expected a backend of the arithmetic in which the specialist scored good pictures for a promise on "
                "false alarms, got bf16; take openvino, onnxruntime or compiled, or set --threshold"
            )
        if how.tiles.side:
            raise UsageError(
                "expected pictures that are looked at as a whole for a promise on false alarms, got tiles, which show "
                "more; leave out --tiles or set --threshold"
            )
        # above the threshold, not at it, is an alarm
        return float(np.nextafter(np.float32(conformal_threshold(scores, how.false_alarms)), np.float32(2)))


def open_session(
    model: str | Path, *, with_base: bool = False, device: torch.device | str = "cpu", trust_base: bool = False
) -> Session:
    """A session of any model that `load_model` takes; `with_base` loads a specialist's base beside it."""
    segmenter = load_model(model, device=device, trust_base=trust_base)
    folder = Path(segmenter.source or model)  # a specialist's; a folder here may be called as a known model is
    if not is_specialist(folder):
        if with_base:
            raise UsageError(f"expected a specialist folder to compare with its base, got {model}")
        return Session(segmenter, FinderParts())
    base = load_base(folder, device=device, trust_base=trust_base) if with_base else None
    return Session(segmenter, load_finder(folder), read_card(folder), base)


def sped_up(session: Session, backend: str, files: Sequence[Path]) -> Session:
    """The session whose encoder runs by a backend of `models.backends`; auto is measured on some of the files."""
    by = fastest(session.segmenter, lambda: readable(evenly(files, SAMPLED))) if backend == AUTO else backend
    if by == PLAIN and session.segmenter.backend is None:
        return session
    alike = session.base is not None and session.base.encoder_id == session.segmenter.encoder_id
    segmenter = with_backend(session.segmenter, by)
    base = replace(session.base, backend=segmenter.backend) if alike and session.base else session.base
    return replace(session, segmenter=segmenter, base=base)


def find_in(
    session: Session, image: ImageArray, how: Asking, embed: Embed = encoded
) -> tuple[tuple[FoundObject, ...], tuple[FoundObject, ...]]:
    """Objects in a picture uint8 (H, W, 3) without a prompt, the surest first, and the base's answers beside them.

    With tiles the picture is looked at as a whole and tile by tile; what both see is kept once. A model without a
    finder has no prompts that its base could answer. `embed` may keep embeddings from question to question.
    """
    size = (image.shape[0], image.shape[1])
    whole = Window(0, 0, *size)
    windows = [whole]
    if how.tiles.side and max(size) > how.tiles.side:
        windows += [window for window in how.tiles.windows(size) if window != whole]
    seen = [one for window in windows for one in _look(session, image, window, how, embed)]
    kept = _each_once(sorted(seen, key=lambda one: (one.cut, -one.score)), how.most)
    kept.sort(key=lambda one: -one.score)
    objects = tuple(one.found(one.mask, size) for one in kept)
    return objects, tuple(one.found(one.beside, size) for one in kept if one.beside is not None)


@dataclass(frozen=True)
class _Seen:
    """An object in a window: its mask and the base's, bool (h, w), score, and whether an inner border cuts it."""

    window: Window
    mask: BoolArray
    score: float
    beside: BoolArray | None
    cut: bool

    def found(self, mask: BoolArray, size: Size) -> FoundObject:
        """One of its masks in the frame of the picture of that size."""
        out = np.zeros((1, *size), np.bool_)
        out[0][self.window.slices] = mask
        return objects_of(out, np.array([self.score], np.float32), [0])[0]

    def shared(self, other: _Seen) -> int:
        """Pixels of the picture that are both objects'."""
        part = self.window.shared(other.window)
        if part is None:
            return 0
        own, others = (one.mask[part.within(one.window).slices] for one in (self, other))
        return int(np.count_nonzero(own & others))


def _look(session: Session, image: ImageArray, window: Window, how: Asking, embed: Embed) -> list[_Seen]:
    part = np.ascontiguousarray(image[window.slices])
    embedding = embed(session.segmenter, image, window)
    least, finder, base = session.threshold(how), session.parts.finder, session.base
    if finder is not None:
        # a promise holds for as many proposals as its scores were made of
        most = PROPOSALS if how.false_alarms is not None else max(how.most, PROPOSALS)
        every = find(finder, session.segmenter, embedding, most)
        whole = window.size == (image.shape[0], image.shape[1])
        by_rule = how.surest and whole and how.threshold is None and how.false_alarms is None
        found = every.above(None if by_rule else least)
        answers, scores = found.prediction, found.probabilities
        prompts = found.prompts(finder.by)
    else:
        answers, scores, prompts = find_on_grid(session.segmenter, embedding, how.most)
        kept = np.flatnonzero(scores >= least)
        answers = Prediction(answers.logits[kept], answers.scores[kept], answers.geometry)
        scores, prompts = scores[kept], prompts[kept]
    masks = _masks(session.segmenter, part, prompts, answers, how)
    beside: Sequence[BoolArray | None] = [None] * len(masks)
    if base is not None and finder is not None:
        theirs = embedding if base.encoder_id == session.segmenter.encoder_id else embed(base, image, window)
        beside = list(_masks(base, part, prompts, base.decode(theirs, prompts), how))
    cut = _cut(masks, window, image)
    return [_Seen(window, *one) for one in zip(masks, map(float, scores), beside, map(bool, cut), strict=True)]


def _masks(segmenter: Segmenter, image: ImageArray, prompts: Prompts, answers: Prediction, how: Asking) -> BoolArray:
    """Masks (P, H, W) of answers, after a second look where it is asked for."""
    out = np.zeros((len(answers), *image.shape[:2]), np.bool_)
    step = _room(image)
    for start in range(0, len(answers), step):
        some = slice(start, start + step)
        few = Prediction(answers.logits[some], answers.scores[some], answers.geometry)
        if how.zoom:
            out[some] = zoom(segmenter, image, prompts[some], few).masks()
        else:
            out[some] = few.masks()[:, 0]
    return out


def _room(image: ImageArray) -> int:
    """Objects of a picture whose probabilities are in memory at once."""
    return max(1, int(ROOM // (image.shape[0] * image.shape[1])))


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


def _each_once(seen: Sequence[_Seen], most: int) -> list[_Seen]:
    """The first `most` of those, in that order, that are neither empty nor the double or a part of one before.

    What a border cuts is a piece of something for sure: half of it suffices.
    """
    kept: list[_Seen] = []
    areas: list[int] = []
    for one in seen:
        area = int(one.mask.sum())
        if len(kept) == most:
            break
        shares = [one.shared(other) for other in kept] if area else []
        inside = (SAME if one.cut else INSIDE) * area
        double = any(s > SAME * (area + a - s) or s > inside for s, a in zip(shares, areas, strict=False))
        if area and not double:
            kept.append(one)
            areas.append(area)
    return kept


def answer_asked(
    session: Session, image: ImageArray, asked: Sequence[Asked], how: Asking, embed: Embed = encoded
) -> tuple[tuple[FoundObject, ...], tuple[FoundObject, ...]]:
    """The objects that are asked for in a picture uint8 (H, W, 3), and the base's answers to the same prompts.

    Prompts are in pixels (`Asked.in_pixels`). The surest come first, empty answers are left out. `embed` may keep
    embeddings from question to question.
    """
    embed_own, base = cache(partial(embed, session.segmenter, image)), session.base
    alike = base is None or base.encoder_id == session.segmenter.encoder_id
    embed_base = embed_own if alike or base is None else cache(partial(embed, base, image))
    objects: list[FoundObject] = []
    others: list[FoundObject] = []
    for group in _alike(asked, _room(image)):
        prompts = as_prompts(group)
        labels, sources = [one.label for one in group], [one.source for one in group]
        masks, scores = _answered(session.segmenter, embed_own, image, prompts, how)
        places = surest_first(masks, scores)
        objects += objects_of(masks, scores, places, labels, sources)
        if base is not None:
            others += objects_of(*_answered(base, embed_base, image, prompts, how), places, labels, sources)
    order = sorted(range(len(objects)), key=lambda place: -objects[place].score)
    return tuple(objects[place] for place in order), tuple(others[place] for place in order if others)


def _answered(
    segmenter: Segmenter, embed: Callable[[Window], Embedding], image: ImageArray, prompts: Prompts, how: Asking
) -> tuple[BoolArray, FloatArray]:
    """Masks bool (P, H, W) and own scores (P,) of prompts, by the closest look that is asked for."""
    size = (image.shape[0], image.shape[1])
    answers = segmenter.decode(embed(Window(0, 0, *size)), prompts)
    if how.tiles.side and max(size) > how.tiles.side:
        first = answers.probabilities()[:, 0]
        stitched = stitch(segmenter, size, how.tiles.windows(size), embed, prompts, first)
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


def _alike(asked: Sequence[Asked], most: int) -> list[list[Asked]]:
    """Objects by the kind of their prompt and the number of their points, at most so many at once."""
    groups: dict[tuple[int, bool], list[Asked]] = {}
    for one in asked:
        groups.setdefault((0 if one.points is None else len(one.points), one.box is None), []).append(one)
    return [group[start : start + most] for group in groups.values() for start in range(0, len(group), most)]
