"""Silhouettes: what objects, their parts and thin structures look like in outline.

A silhouette is drawn in its own frame, cropped to its extent: `mask` (h, w) uint8, anti-aliased, 255 inside, and parts
in the same frame. `radius` is about the half of its extent in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.synth.materials import GRAIN_SIDE, grain

ByteArray = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
MARGIN = 3


@dataclass(frozen=True)
class Silhouette:
    """An outline and its parts, uint8 (h, w) in one frame, 255 inside; `thin` for branches, poles and wires."""

    mask: ByteArray
    parts: tuple[tuple[str, ByteArray], ...] = ()
    thin: bool = False


@dataclass(frozen=True)
class Limb:
    """A tube along `points` (N, 2) with `radii` (N,)."""

    points: Points
    radii: npt.NDArray[np.float64]


Piece = Points | Limb  # a polygon's corners or a tube


def _turned(points: Points, angle: float) -> Points:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]))


@lru_cache(maxsize=64)
def _even(count: int) -> npt.NDArray[np.float64]:
    return np.linspace(0, 1, count)


@lru_cache(maxsize=16)
def _parabola(count: int) -> npt.NDArray[np.float64]:
    """Shares (count, 3) of three points in even steps of the parabola through them."""
    t = _even(count)
    return np.stack([2 * (t - 0.5) * (t - 1), 4 * t * (1 - t), 2 * t * (t - 0.5)], 1)


def _limb(points: Sequence[tuple[float, float]], radii: Sequence[float], samples: int = 11) -> Limb:
    """A smooth tube through a few points."""
    xy, t = np.array(points, float), _even(samples)
    if len(points) == 3:  # a parabola through the middle point bends like a limb
        along = _parabola(samples) @ xy
    else:
        along = np.stack([np.interp(t, _even(len(points)), xy[:, k]) for k in range(2)], 1)
    return Limb(along, np.interp(t, _even(len(radii)), radii))


def _draw_limb(plane: ByteArray, centres: list[list[float]], radii: list[float]) -> None:
    """A tube as close discs where it is fat, else as thick lines with round ends."""
    (x0, y0), (x1, y1) = centres[0], centres[-1]
    fixed = [(int(x * 8), int(y * 8)) for x, y in centres]
    if abs(x1 - x0) + abs(y1 - y0) < 0.35 * min(radii) * len(radii):
        for centre, radius in zip(fixed, radii, strict=True):
            cv2.circle(plane, centre, int(radius * 8), 255, -1, cv2.LINE_AA, 3)
        return
    for first, second, near, far in zip(fixed[:-1], fixed[1:], radii[:-1], radii[1:], strict=True):
        cv2.line(plane, first, second, 255, max(1, round(near + far)), cv2.LINE_AA, 3)
    for end in (0, -1):
        cv2.circle(plane, fixed[end], max(4, int(radii[end] * 8)), 255, -1, cv2.LINE_AA, 3)


def _drawn(
    groups: dict[str, list[Piece]], scale: float, angle: float = 0.0, flip: bool = False
) -> dict[str, ByteArray]:
    """Groups of pieces in unit coordinates (x forward, y down) as masks in one frame."""

    def placed(points: Points) -> Points:
        return _turned(points * (-scale if flip else scale, scale), angle)

    pieces = {
        name: [Limb(placed(p.points), p.radii * scale) if isinstance(p, Limb) else placed(p) for p in group]
        for name, group in groups.items()
    }
    corners = [
        np.concatenate([p.points - p.radii[:, None], p.points + p.radii[:, None]]) if isinstance(p, Limb) else p
        for group in pieces.values()
        for p in group
    ]
    low = np.concatenate(corners).min(0) - MARGIN
    width, height = np.ceil(np.concatenate(corners).max(0) + MARGIN - low).astype(int)
    masks = {}
    for name, group in pieces.items():
        plane = np.zeros((height, width), np.uint8)
        for piece in group:
            if isinstance(piece, Limb):
                _draw_limb(plane, (piece.points - low).tolist(), piece.radii.tolist())
            else:
                cv2.fillPoly(plane, [((piece - low) * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
        masks[name] = plane
    return masks


def _polygon(points: Points, radius: float, angle: float = 0.0) -> Silhouette:
    return Silhouette(_drawn({"it": [points]}, radius, angle)["it"])


def _radial(rng: np.random.Generator, roughness: float, terms: int, corners: int = 96) -> Points:
    t = _even(corners + 1)[:-1] * (2 * np.pi)
    k = np.arange(2, terms + 2)[:, None]
    size = rng.normal(0, roughness, (terms, 1)) / (k - 1) ** rng.uniform(0.7, 1.6)
    r = np.exp((size * np.cos(k * t + rng.uniform(0, 2 * np.pi, (terms, 1)))).sum(0).clip(-1, 0.7))
    stretch = np.exp(rng.normal(0, 0.25))
    return np.stack([r * np.cos(t) * stretch, r * np.sin(t) / stretch], 1) * 0.85


def blob(rng: np.random.Generator, radius: float) -> Silhouette:
    return _polygon(_radial(rng, rng.uniform(0.1, 0.45), 8), radius, rng.uniform(0, 6.3))


def jagged(rng: np.random.Generator, radius: float) -> Silhouette:
    points = _radial(rng, 0.25, 5, int(rng.integers(14, 50)))
    points *= 1 + rng.normal(0, rng.uniform(0.05, 0.25), (len(points), 1)).clip(-0.4, 0.4)
    return _polygon(points, radius, rng.uniform(0, 6.3))


def polygon(rng: np.random.Generator, radius: float) -> Silhouette:
    count = int(rng.integers(3, 8))
    t = np.sort(np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(-0.35, 0.35, count))
    return _polygon(np.stack([np.cos(t), np.sin(t) * rng.uniform(0.4, 1)], 1), radius, rng.uniform(0, 6.3))


def ellipse(rng: np.random.Generator, radius: float) -> Silhouette:
    t = _even(65)[:-1] * (2 * np.pi)
    return _polygon(np.stack([np.cos(t), np.sin(t) * rng.uniform(0.3, 1)], 1), radius, rng.uniform(0, 6.3))


def box(rng: np.random.Generator, radius: float) -> Silhouette:
    """A rectangle with rounded corners, sheared a little; sometimes with windows or panels in a grid."""
    t = _even(65)[:-1] * (2 * np.pi)
    power = 2 / rng.uniform(4, 20)
    corner = np.stack(
        [np.sign(np.cos(t)) * np.abs(np.cos(t)) ** power, np.sign(np.sin(t)) * np.abs(np.sin(t)) ** power], 1
    )
    shape = np.array([1.0, np.exp(rng.uniform(-1.2, 0))])[:: rng.choice([1, -1])]
    lean = np.array([[1, rng.normal(0, 0.1)], [rng.normal(0, 0.1), 1]])
    groups: dict[str, list[Piece]] = {"it": [(corner * shape) @ lean]}
    if rng.random() < 0.45:
        across, down = rng.integers(1, 4, 2)
        size = shape / (across, down) * rng.uniform(0.35, 0.75)
        for x in range(across):
            for y in range(down):
                middle = (np.array([x, y]) + 0.5) / (across, down) * 2 - 1
                groups[f"window {x} {y}"] = [(corner * size + middle * shape * 0.95) @ lean]
    masks = _drawn(groups, radius * 0.9, rng.normal(0, 0.1) if rng.random() < 0.7 else rng.uniform(0, 6.3))
    body = masks.pop("it")
    return Silhouette(body, tuple(("part", m) for m in masks.values()))


def ring(rng: np.random.Generator, radius: float) -> Silhouette:
    outer = _radial(rng, rng.choice([0.02, 0.2]), 5)
    masks = _drawn({"it": [outer], "hole": [outer * rng.uniform(0.35, 0.75)]}, radius, rng.uniform(0, 6.3))
    if rng.random() < 0.5:
        return Silhouette(np.asarray(cv2.subtract(masks["it"], masks["hole"])))
    return Silhouette(masks["it"], (("hole", masks["hole"]),))


def leaf(rng: np.random.Generator, radius: float) -> Silhouette:
    t = _even(24) * np.pi
    width, bow = rng.uniform(0.15, 0.6), rng.normal(0, 0.3)
    half = np.sin(t) ** rng.uniform(1, 2) * width
    x, spine = -np.cos(t), bow * np.sin(t)
    outline = np.concatenate([np.stack([x, spine + half], 1), np.stack([x, spine - half], 1)[::-1]])
    return _polygon(outline, radius, rng.uniform(0, 6.3))


def lump(rng: np.random.Generator, radius: float) -> Silhouette:
    """A ragged mass such as a bush, a rock or a cloud: a dome plus natural noise, cut at a height."""
    side = int(np.clip(radius * 2.4, 12, 400))
    y, x = np.mgrid[-1.2 : 1.2 : side * 1j, -1.2 : 1.2 : side * 1j].astype(np.float32)
    crop = int(rng.uniform(24, 120))
    at = rng.integers(0, GRAIN_SIDE - crop, 2)
    rough = cv2.resize(
        grain()[2][at[0] : at[0] + crop, at[1] : at[1] + crop], (side, side), interpolation=cv2.INTER_CUBIC
    )
    height = 0.9 - np.hypot(x, y * np.exp(rng.uniform(-0.1, 0.8))) + rough * rng.uniform(0.1, 0.35)
    height -= np.maximum(np.maximum(abs(x), abs(y)) - 1.05, 0) * 30
    return Silhouette((np.clip(height * side / 5 + 0.5, 0, 1) * 255).astype(np.uint8))


def tree(rng: np.random.Generator, radius: float) -> Silhouette:
    """A crown on a trunk."""
    tall, thick = rng.uniform(0.5, 1.1), rng.uniform(0.05, 0.16)
    trunk = _limb([(0, -0.2), (rng.normal(0, 0.08), tall * 0.5), (rng.normal(0, 0.1), tall)], [thick * 0.7, thick])
    crown = _radial(rng, 0.3, 12) * (rng.uniform(0.3, 0.8), 0.6)
    if rng.random() < 0.3:  # a conifer
        crown = np.array([[0, -1.1], [0.4, 0.3], [-0.4, 0.3]]) * (rng.uniform(0.6, 1.2), 1)
    masks = _drawn({"crown": [crown - (0, 0.35)], "trunk": [trunk]}, radius)
    return Silhouette(np.maximum(masks["crown"], masks["trunk"]), tuple(("part", m) for m in masks.values()))


def branch(rng: np.random.Generator, radius: float) -> Silhouette:
    """A branch with twigs, or a bare pole or wire."""
    thick, bend = np.exp(rng.uniform(np.log(0.012), np.log(0.12))), rng.choice([0.02, 0.2])
    pieces: list[Piece] = [
        _limb([(-1, 0), (0, rng.normal(0, bend)), (1, rng.normal(0, bend))], [thick, thick * rng.uniform(0.4, 1)], 24)
    ]
    for _ in range(int(rng.integers(0, 5)) if bend > 0.1 else 0):
        start = rng.uniform(-0.7, 0.8)
        reach, up = rng.uniform(0.2, 0.6), rng.choice([-1, 1])
        first = pieces[0]
        assert isinstance(first, Limb)
        foot = first.points[int((start + 1) / 2 * 23)]
        tip = foot + np.array([reach, up * reach * rng.uniform(0.3, 1)])
        middle = (foot + tip) / 2 + rng.normal(0, 0.08, 2)
        pieces.append(_limb([(*foot,), (*middle,), (*tip,)], [thick * 0.7, thick * 0.3], 12))
    return Silhouette(_drawn({"it": pieces}, radius, rng.uniform(0, 6.3))["it"], thin=True)


def crack(rng: np.random.Generator, radius: float, width: float | None = None) -> Silhouette:
    """A crack, a scratch or a hair: a thin line that wanders and may fork, `width` pixels wide where that is given."""

    def wander(start: Points, heading: float, steps: int, thick: float) -> Limb:
        turns = heading + np.cumsum(rng.normal(0, roughness, steps))
        path = start + np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1), 0) / 20
        return Limb(path, thick * np.linspace(1, rng.uniform(0.2, 1), steps) * np.exp(rng.normal(0, 0.2, steps)))

    roughness, thick = rng.uniform(0.05, 0.5), np.exp(rng.uniform(np.log(0.008), np.log(0.035)))
    if width is not None:
        thick = width / 2 / radius
    main = wander(np.zeros(2), 0.0, 40, thick)
    pieces: list[Piece] = [main]
    for _ in range(int(rng.integers(0, 4)) if roughness > 0.15 else 0):
        fork = rng.choice([-1, 1]) * rng.uniform(0.4, 1.2)
        pieces.append(wander(main.points[rng.integers(4, 36)], fork, int(rng.integers(6, 20)), thick * 0.7))
    return Silhouette(_drawn({"it": pieces}, radius, rng.uniform(0, 6.3))["it"], thin=True)


Shape = Callable[[np.random.Generator, float], Silhouette]

SHAPES: dict[str, tuple[Shape, float]] = {
    "blob": (blob, 3.0),
    "lump": (lump, 2.5),
    "jagged": (jagged, 1.5),
    "polygon": (polygon, 1.2),
    "ellipse": (ellipse, 1.0),
    "box": (box, 1.8),
    "ring": (ring, 0.6),
    "leaf": (leaf, 1.2),
    "tree": (tree, 0.8),
    "branch": (branch, 1.2),
    "crack": (crack, 0.6),
}
"""Each outline with its weight; animals are in `animals`."""
