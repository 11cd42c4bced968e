"""Pictures larger than the model's frame: answers of overlapping tiles, put together to one mask an object.

What is thin or small does not survive the scaling of a large picture to the model's side. Here each tile is encoded by
itself at the model's side. An object is followed from the tile on which its prompt lies to those that share part of its
answer: there it is asked again by a click on that part (and the box's part), and a tile is believed where both answers
agree on what they share. Overlapping answers are blended with weights that fall to nothing at a tile's inner borders,
so that no join is seen. Archit et al. 2025, "Segment Anything for Microscopy", cut pictures into tiles with halos and
answer a prompt in the tile that holds it; the step from tile to tile is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.core.masks import deepest_pixel
from specialsam.core.types import Embedding, Prompts
from specialsam.core.windows import Size, Window, moved
from specialsam.models.segmenter import Segmenter

AGREED = 0.3
"""Share of two tiles' answers on what they share that must be common for them to speak of the same object."""
MOST = 4
"""Times that a tile is asked for pieces of one object."""
FEWEST = 4
"""Pixels of an answer on what a neighbour shares from which it is followed there."""

EmbedTile = Callable[[Window], Embedding]


@dataclass(frozen=True)
class Stitched:
    """Answers for P objects: `probabilities` float32 (P, H, W) in original pixels, own `scores` (P,).

    `tiles` counts for each object the tiles whose answers it is made of.
    """

    probabilities: FloatArray
    scores: FloatArray
    tiles: tuple[int, ...]

    def masks(self) -> BoolArray:
        """bool (P, H, W)."""
        return self.probabilities > 0.5


@dataclass(frozen=True)
class _Answer:
    """What one tile says of an object: probabilities float32 (h, w) in the tile's frame, own score."""

    soft: FloatArray
    score: float

    def on(self, part: Window) -> BoolArray:
        """Its mask (h, w) on a part of the tile, in the tile's frame."""
        return np.asarray(self.soft[part.slices] > 0.5)

    def beside(self, other: _Answer | None) -> _Answer:
        """Both answers of a tile as one: two pieces of the same object."""
        return self if other is None else _Answer(np.maximum(self.soft, other.soft), (self.score + other.score) / 2)


def stitch(
    segmenter: Segmenter,
    size: Size,
    windows: Sequence[Window],
    embed: EmbedTile,
    prompts: Prompts,
    first: FloatArray | None = None,
) -> Stitched:
    """Answers to `prompts` on a picture of `size`, from tiles at `windows`; `embed` gives a tile's embedding.

    Only tiles that an object's prompt or answer reaches are asked for. Mask prompts are left out: they belong to the
    whole picture's frame. `first`, float32 (P, H, W), are the probabilities of answers in that frame: where a box spans
    several tiles they say where to begin. A box that a tile cuts no longer says how large the object is: a click
    takes its place there.
    """
    soft = np.zeros((len(prompts), *size), np.float32)
    scores, counts = np.zeros(len(prompts), np.float32), []
    kept: dict[Window, Embedding] = {}

    def ask(window: Window, prompt: Prompts) -> _Answer:
        if window not in kept:
            kept[window] = embed(window)
        whole = replace(prompt, boxes=None) if prompt.points is not None and _cut(prompt, window) else prompt
        answer = segmenter.decode(kept[window], whole)
        return _Answer(answer.probabilities()[0, 0], float(answer.scores[0, 0]))

    for place in range(len(prompts)):
        found = _followed(ask, windows, prompts[[place]], None if first is None else first[place])
        counts.append(len(found))
        if found:
            soft[place] = blended(size, {window: answer.soft for window, answer in found.items()})
            scores[place] = np.mean([answer.score for answer in found.values()])
    return Stitched(soft, scores, tuple(counts))


def _followed(
    ask: Callable[[Window, Prompts], _Answer], windows: Sequence[Window], prompt: Prompts, first: FloatArray | None
) -> dict[Window, _Answer]:
    """The tiles that hold a part of one object, with their answers; none where no tile holds a part of the prompt."""
    parts = {window: part for window in windows if (part := moved(prompt, window)) is not None}
    start = _start(ask, parts, first)
    if start is None:
        return {}
    found = dict([start])
    asked: Counter[Window] = Counter()
    open_ends = [start[0]]
    while open_ends:
        here = open_ends.pop(0)
        for there in windows:
            shared = here.shared(there)
            if there == here or shared is None or (prompt.boxes is not None and there not in parts):
                continue
            seen, its = found[here].on(shared.within(here)), shared.within(there)
            known = found[there].on(its) if there in found else np.zeros_like(seen)
            piece = _thickest(seen & ~known)
            if piece is None or (there in found and not _core(piece)) or asked[there] >= MOST:
                continue
            asked[there] += 1
            answer = ask(there, _with_click(prompt, parts.get(there), deepest_pixel(piece), its))
            if _agree(answer.on(its), seen, piece):
                found[there] = answer.beside(found.get(there))
                open_ends.append(there)
    return found


def _agree(answer: BoolArray, seen: BoolArray, piece: BoolArray) -> bool:
    """Whether an answer holds the piece that was clicked, and little that its neighbour did not see (all (h, w))."""
    return bool((answer & piece).sum() >= AGREED * piece.sum() and (answer & seen).sum() >= AGREED * answer.sum())


def _thickest(mask: BoolArray) -> BoolArray | None:
    """The connected piece of a mask (h, w) that is thickest; None where it has fewer than FEWEST pixels."""
    if not mask.any():
        return None
    x, y = deepest_pixel(mask)
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    piece = np.asarray(labels == labels[y, x])
    return piece if piece.sum() >= FEWEST else None


def _core(mask: BoolArray) -> bool:
    """Whether a mask is more than the strip of a pixel by which two outlines of one thing miss each other."""
    return bool(cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).any())


def _start(
    ask: Callable[[Window, Prompts], _Answer], parts: dict[Window, Prompts], first: FloatArray | None
) -> tuple[Window, _Answer] | None:
    """The tile to begin with and its answer: the one in whose middle the foreground clicks lie most, or, of those
    that hold a good part of the box and whose answers are not small beside the largest, the one that is surest.
    """
    if not parts:
        return None
    clicked = [window for window, part in parts.items() if part.labels is not None and (part.labels == 1).any()]
    if clicked:
        window = max(clicked, key=lambda window: _room(window, parts[window]))
        return window, ask(window, parts[window])
    areas = {window: _area(part) for window, part in parts.items()}
    largest = max(areas.values())
    asked = {
        window: ask(window, _at_the_surest(parts[window], window, first))
        for window, area in areas.items()
        if 2 * area >= largest
    }
    sizes = {window: int((answer.soft > 0.5).sum()) for window, answer in asked.items()}
    sizable = [window for window, size in sizes.items() if 2 * size >= max(sizes.values())]  # no sliver at a border
    best = max(sizable, key=lambda window: asked[window].score)
    return best, asked[best]


def _cut(part: Prompts, window: Window) -> bool:
    """Whether a box reaches the border of its tile."""
    return part.boxes is not None and bool(
        (part.boxes[0, :2] <= 0).any() or (part.boxes[0, 2:] >= (window.width, window.height)).any()
    )


def _at_the_surest(part: Prompts, window: Window, first: FloatArray | None) -> Prompts:
    """A box that its tile cuts, with a click on the pixel within it of which the first answer (H, W) was surest."""
    if first is None or part.boxes is None or not _cut(part, window):
        return part
    x0, y0, x1, y1 = (int(value) for value in part.boxes[0])
    inside = first[window.slices][y0 : y1 + 1, x0 : x1 + 1]
    y, x = np.unravel_index(int(inside.argmax()), inside.shape)
    return _with_click(part, part, (float(x) + x0, float(y) + y0), Window(0, 0, *window.size))


def _room(window: Window, part: Prompts) -> tuple[int, float]:
    """How many foreground clicks a tile holds, and how far the nearest of its borders is from any of them."""
    assert part.points is not None
    assert part.labels is not None
    points = part.points[0][part.labels[0] == 1]
    borders = np.concatenate([points, np.array([window.width, window.height]) - points], 1)
    return len(points), float(borders.min())


def _area(part: Prompts) -> float:
    assert part.boxes is not None
    return float(np.prod(part.boxes[0, 2:] - part.boxes[0, :2]))


def _with_click(prompt: Prompts, part: Prompts | None, middle: tuple[float, float], shared: Window) -> Prompts:
    """What a further tile is asked: its own part of the prompt, and a click on what is known of the object there."""
    click = (np.array([[middle]], np.float32) + shared.corner).astype(np.float32)
    label = np.ones((1, 1), np.int64)
    if part is None:
        return replace(prompt, points=click, labels=label, boxes=None, masks=None)
    if part.points is not None and part.labels is not None:
        click, label = np.concatenate([part.points, click], 1), np.concatenate([part.labels, label], 1)
    return replace(part, points=click, labels=label)


def blended(size: Size, answers: dict[Window, FloatArray]) -> FloatArray:
    """Tiles' values (h, w) as one plane float32 (H, W) of a picture; 0 where no tile lies.

    Where tiles overlap it is their mean, each weighted by how far inside of the tile a pixel lies.
    """
    total, weights = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for window, values in answers.items():
        rows = _ramp(window.top, window.height, size[0])
        columns = _ramp(window.left, window.width, size[1])
        weight = np.minimum.outer(rows, columns).astype(np.float32)
        total[window.slices] += weight * values
        weights[window.slices] += weight
    return np.divide(total, weights, out=total, where=weights > 0)


def _ramp(start: int, length: int, limit: int) -> FloatArray:
    """Weights (length,) that grow from each inner border of a tile; the picture's own border is none."""
    place = np.arange(length, dtype=np.float32)
    low = place + 1 if start > 0 else np.full(length, length, np.float32)
    high = length - place if start + length < limit else np.full(length, length, np.float32)
    return np.minimum(low, high)
