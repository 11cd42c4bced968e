"""From the mask of an object to the prompt that a user might have given for it: the strategies, by name.

Points are (x, y) of the pixel's index in the original image, float32 (the segmenter adds the half pixel itself); boxes
are (x0, y0, x1, y1) of the outermost pixels, inclusive. Every point placed here is a foreground point (label 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.core.errors import DataError, UsageError
from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.core.masks import interior_point, tight_boxes
from specialsam.core.types import Prompts

Group = tuple[list[int], Prompts]
"""Indices of the objects that a `Prompts` is for, and the prompts, in the same order."""

Draw = Callable[[str, BoolArray, np.random.Generator], list[Group]]
"""`draw`, or what stands in its place where prompts are to be placed wrongly on purpose."""

Place = Callable[[BoolArray, np.random.Generator], tuple[FloatArray | None, FloatArray | None]]
"""From one non-empty bool (H, W) mask to its points float32 (K, 2) and its box float32 (4,), either may be None."""

BOX_NOISE = 0.1
"""Standard deviation of the noise on a box side, in sides; Kirillov et al. 2023, "Segment Anything", appendix A."""

BOX_NOISE_LIMIT = 20.0
"""Most that the noise moves a box side, in pixels; same source."""

SPREAD_CANDIDATES = 8
"""Random pixels among which each further point of `points2/3/5` is the one farthest from the points before it."""


def random_pixels(mask: BoolArray, count: int, rng: np.random.Generator) -> FloatArray:
    """`count` random foreground pixels, float32 (count, 2) as (x, y), of a bool (H, W) mask, repeated if too few."""
    pixels = np.flatnonzero(mask)
    if not len(pixels):
        raise DataError("expected a non-empty mask for a point, got an empty one")
    rows, columns = np.divmod(rng.choice(pixels, count, replace=len(pixels) < count), mask.shape[1])
    return np.stack([columns, rows], 1).astype(np.float32)


def center_of_mass(mask: BoolArray) -> FloatArray:
    """Whole part of the mean (x, y) of a bool (H, W) mask's foreground, float32 (1, 2); it may lie off the object."""
    rows, columns = np.nonzero(mask)
    return np.array([[int(columns.mean()), int(rows.mean())]], np.float32)


def _edge(mask: BoolArray) -> FloatArray:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    largest = max(contours, key=cv2.contourArea)
    return np.asarray(largest[0], np.float32).reshape(1, 2)


def _grid4(mask: BoolArray) -> FloatArray:
    x0, y0, x1, y1 = (int(side) for side in _box(mask))
    thirds = [(x0 + (x1 - x0) * i // 3, y0 + (y1 - y0) * j // 3) for j in (1, 2) for i in (1, 2)]
    kept = [(x, y) for x, y in thirds if mask[y, x]]
    if not kept:
        return center_of_mass(mask)
    return np.array(kept, np.float32)


def _spread(mask: BoolArray, count: int, rng: np.random.Generator) -> FloatArray:
    points = [_interior(mask)[0]]
    for _ in range(count - 1):
        candidates = random_pixels(mask, SPREAD_CANDIDATES, rng)
        gaps = np.linalg.norm(candidates[:, None] - np.stack(points)[None], axis=2).min(1)
        points.append(candidates[int(np.argmax(gaps))])
    return np.asarray(np.stack(points), np.float32)


def _interior(mask: BoolArray) -> FloatArray:
    return np.array([interior_point(mask)], np.float32)


def _box(mask: BoolArray) -> FloatArray:
    return np.asarray(tight_boxes(mask[None])[0], np.float32)


def jitter_box(box: npt.ArrayLike, size: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Move each side of a box (4,) by N(0, 0.1 x its extent), 20 px at most, inside an image of `size` (height, width).

    Boxes are (x0, y0, x1, y1); the answer is float32 (4,) and spans at least one pixel step in x and in y wherever
    the image is that large.
    """
    x0, y0, x1, y1 = (float(side) for side in np.asarray(box))
    extent = np.array([x1 - x0 + 1, y1 - y0 + 1] * 2)
    noise = np.clip(rng.normal(0, BOX_NOISE, 4) * extent, -BOX_NOISE_LIMIT, BOX_NOISE_LIMIT)
    corners = (np.array([x0, y0, x1, y1]) + noise).reshape(2, 2)
    limit = np.array([size[1] - 1, size[0] - 1], np.float64)
    corners = np.clip(np.sort(corners, axis=0), 0, limit)
    low = np.maximum(np.minimum(corners[0], limit - 1), 0)
    high = np.minimum(np.maximum(corners[1], low + 1), limit)
    return np.asarray(np.concatenate([low, high]), np.float32)


def _box_jitter(mask: BoolArray, rng: np.random.Generator) -> FloatArray:
    return jitter_box(_box(mask), (mask.shape[0], mask.shape[1]), rng)


@dataclass(frozen=True)
class Strategy:
    """A strategy's title, in words for people who do not know its name, and how it places prompts on one mask."""

    title: str
    place: Place


STRATEGIES: dict[str, Strategy] = {
    "center_of_mass": Strategy("click at centre of mass", lambda mask, rng: (center_of_mass(mask), None)),
    "edge": Strategy("click on the edge", lambda mask, rng: (_edge(mask), None)),
    "grid4": Strategy("grid of up to 4 clicks", lambda mask, rng: (_grid4(mask), None)),
    "random3": Strategy("3 random clicks", lambda mask, rng: (random_pixels(mask, 3, rng), None)),
    "interior": Strategy("click inside", lambda mask, rng: (_interior(mask), None)),
    "random": Strategy("one random click", lambda mask, rng: (random_pixels(mask, 1, rng), None)),
    "points2": Strategy("2 spread clicks", lambda mask, rng: (_spread(mask, 2, rng), None)),
    "points3": Strategy("3 spread clicks", lambda mask, rng: (_spread(mask, 3, rng), None)),
    "points5": Strategy("5 spread clicks", lambda mask, rng: (_spread(mask, 5, rng), None)),
    "box": Strategy("box", lambda mask, rng: (None, _box(mask))),
    "box_jitter": Strategy("box, loosely drawn", lambda mask, rng: (None, _box_jitter(mask, rng))),
    "box_point": Strategy("box and click", lambda mask, rng: (_interior(mask), _box(mask))),
}
"""Every strategy by name; an entry here is all that a new one needs. `draw` places its prompts."""

SEED_TITLES: dict[str, str] = {
    "center_of_mass": "Center-of-Mass (Single)",
    "edge": "Edge (Single)",
    "grid4": "Multi-Point Grid (4 pts)",
    "random3": "Random (3 pts)",
}
"""Titles of the original study's strategies, which the summary in its columns shows instead of their names."""


def draw(strategy: str, masks: BoolArray, rng: np.random.Generator) -> list[Group]:
    """Prompts by the named strategy for each of the bool (P, H, W) non-empty masks, grouped by their number of points.

    Only `grid4` places a varying number of points, so that the list mostly has one group of all P objects; nothing is
    padded, because a padded point list changes SAM's answer. Each object is in exactly one group; P = 0 gives [].
    Raises UsageError for an unknown name and DataError for an empty mask.
    """
    if strategy not in STRATEGIES:
        raise UsageError(f"expected a prompt strategy of {', '.join(STRATEGIES)}, got {strategy!r}")
    if masks.ndim != 3 or masks.dtype != np.bool_:
        raise DataError(f"expected bool (P, H, W) masks, got {masks.dtype} {masks.shape}")
    placed: list[tuple[FloatArray | None, FloatArray | None]] = []
    for index, mask in enumerate(masks):
        if not mask.any():
            raise DataError(f"expected non-empty masks to place prompts on, got an empty one (object {index})")
        placed.append(STRATEGIES[strategy].place(mask, rng))
    by_count: dict[int, list[int]] = {}
    for index, (found, _) in enumerate(placed):
        by_count.setdefault(0 if found is None else len(found), []).append(index)
    groups: list[Group] = []
    for count, indices in sorted(by_count.items()):
        points = [part for part, _ in (placed[index] for index in indices) if part is not None]
        boxes = [part for _, part in (placed[index] for index in indices) if part is not None]
        prompts = Prompts(
            strategy,
            points=np.stack(points) if points else None,
            labels=np.ones((len(indices), count), np.int64) if points else None,
            boxes=np.stack(boxes) if boxes else None,
        )
        groups.append((indices, prompts))
    return groups


def check_mixture(mixture: Mapping[str, float]) -> dict[str, float]:
    """The mixture {strategy: probability} sorted by name and scaled to sum 1; UsageError says what is wrong with it."""
    unknown = sorted(set(mixture) - set(STRATEGIES))
    if unknown:
        raise UsageError(f"expected prompt strategies of {', '.join(STRATEGIES)}, got {', '.join(map(repr, unknown))}")
    wrong = {name: weight for name, weight in mixture.items() if not (0 <= weight < float("inf"))}
    if wrong:
        raise UsageError(f"expected prompt probabilities of at least 0, got {wrong}")
    total = sum(mixture.values())
    if not total > 0:
        raise UsageError(f"expected prompt probabilities with a positive sum, got {dict(mixture)}")
    return {name: mixture[name] / total for name in sorted(mixture)}


def draw_mixed(mixture: Mapping[str, float], masks: BoolArray, rng: np.random.Generator) -> list[Group]:
    """Draw one strategy by the mixture {name: probability} for all of the bool (P, H, W) masks, then `draw` by it."""
    checked = check_mixture(mixture)
    name = list(checked)[int(rng.choice(len(checked), p=list(checked.values())))]
    return draw(name, masks, rng)
