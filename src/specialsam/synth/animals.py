"""Outlines of animals: tubes along a curved spine with heads, limbs, wings, fins and tails."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from specialsam.synth.shapes import ByteArray, Limb, Piece, Points, Silhouette, _drawn, _limb

Groups = dict[str, list[Piece]]
Plan = Callable[[np.random.Generator], Groups]


def _ear(x: float, y: float, size: float, lean: float) -> Points:
    return np.array([[x - size * 0.5, y], [x + lean * size, y - size * 1.5], [x + size * 0.5, y]])


def _four_legged(rng: np.random.Generator) -> Groups:
    deep, legs, arch = rng.uniform(0.22, 0.42), rng.uniform(0.15, 1.0), rng.normal(0, 0.12)
    body = _limb([(-0.75, 0), (0, arch), (0.65, -0.05)], [deep * 0.85, deep * rng.uniform(0.75, 1.1), deep])
    rise = rng.uniform(-0.75, 0.1)
    head = (0.65 + rng.uniform(0.25, 0.6), rise)
    size, snout = rng.uniform(0.15, 0.28), rng.uniform(0.1, 0.4)
    muzzle = (head[0] + snout, head[1] + rng.uniform(-0.02, 0.25))
    thick, bend = rng.uniform(0.05, 0.11), rng.normal(0, 0.12)
    feet: list[Piece] = []
    for hip in (-0.75, -0.6, 0.5, 0.68):
        step = rng.normal(0, 0.15)
        knee = (hip + bend + step / 2, deep * 0.7 + legs * 0.5)
        feet.append(_limb([(hip, deep * 0.3), knee, (hip + step, deep * 0.8 + legs)], [thick * 2, thick, thick * 0.8]))
    tail_end = (-1.0 - rng.uniform(0.0, 0.7), rng.uniform(-0.6, 0.6))
    tail = _limb(
        [(-0.75, -0.1), (-1.0, tail_end[1] * rng.uniform(-0.3, 0.8)), tail_end], [thick * 1.2, rng.uniform(0.03, 0.16)]
    )
    lean = rng.uniform(-0.6, 0.3)
    ear = size * rng.uniform(0.4, 1.2)
    ears: list[Piece] = [_ear(head[0] - size * k, head[1] - size * 0.6, ear, lean) for k in (0.6, 0.0)]
    return {
        "body": [body, _limb([(0.55, -0.05), (0.8, rise * 0.5), head], [deep * 0.8, size * 0.9])],
        "tail": [tail],
        "legs": feet,
        "head": [_limb([head, muzzle], [size, size * rng.uniform(0.4, 0.7)]), *ears],
    }


def _fish(rng: np.random.Generator) -> Groups:
    deep, bend, t = rng.uniform(0.15, 0.5), rng.normal(0, 0.12), np.linspace(-1, 1, 24)
    spine = np.stack([t, bend * t * t], 1)
    girth = deep * np.maximum(np.sin((t + 1) / 2 * np.pi * 0.93 + 0.18) ** rng.uniform(0.6, 1.2), 0.06)
    spread, fork = rng.uniform(0.2, 0.5), rng.uniform(-0.1, 0.2)
    end = np.array([-1.0, bend])
    tail = end + np.array([[0.1, 0], [-0.35, -spread], [-0.3 + fork, 0], [-0.35, spread]])
    top = np.array([[0.35, -deep * 0.8], [0, -deep - rng.uniform(0.05, 0.4)], [-0.5, -deep * 0.9], [-0.6, -deep * 0.3]])
    low = np.array([[0.0, deep * 0.8], [-0.25, deep + rng.uniform(0.05, 0.3)], [-0.45, deep * 0.6]])
    return {"body": [Limb(spine, girth)], "tail": [tail], "fins": [top, low], "head": [Limb(spine[16:], girth[16:])]}


def _bird(rng: np.random.Generator) -> Groups:
    plump, lift = rng.uniform(0.25, 0.5), rng.uniform(0.1, 0.7)
    head = (0.55 + rng.uniform(-0.1, 0.25), -plump - lift)
    size = plump * rng.uniform(0.4, 0.75)
    beak = np.array(
        [
            [head[0], head[1] - size * 0.45],
            [head[0] + size + rng.uniform(0.1, 0.5), head[1] + rng.normal(0, 0.1)],
            [head[0], head[1] + size * 0.4],
        ]
    )
    tail = np.array(
        [
            [-0.3, -0.1],
            [-0.9 - rng.uniform(0, 0.5), rng.uniform(-0.1, 0.5)],
            [-0.8 - rng.uniform(0, 0.4), rng.uniform(0.1, 0.6)],
            [-0.2, plump * 0.6],
        ]
    )
    wing = _limb([(0.25, -0.05), (-0.2, plump * 0.3), (-0.75, rng.uniform(0.1, 0.4))], [plump * 0.6, plump * 0.5, 0.04])
    legs: list[Piece] = [
        _limb(
            [(x, plump * 0.5), (x + 0.05, plump + 0.1), (x + rng.normal(0, 0.1), plump + rng.uniform(0.1, 0.7))],
            [0.05, 0.03],
        )
        for x in (-0.05, 0.12)
    ]
    body = _limb([(-0.4, 0.1), (0, 0.05), (0.35, -0.15)], [plump * 0.6, plump, plump * 0.85])
    neck = _limb([(0.3, -0.15), (0.5, head[1] * 0.5), head], [plump * 0.8, size * 0.8])
    return {
        "legs": legs,
        "body": [body, neck],
        "tail": [tail],
        "wing": [wing],
        "head": [_limb([head, head], [size, size], 2), beak],
    }


def _serpent(rng: np.random.Generator) -> Groups:
    t = np.linspace(0, 1, 60)
    heading = np.cumsum(np.cos(t * rng.uniform(6, 20) + rng.uniform(0, 6)) * rng.uniform(0.05, 0.22)) + rng.uniform(
        0, 6
    )
    spine = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), 0)
    spine = (spine - spine.mean(0)) / np.abs(spine - spine.mean(0)).max()
    girth = rng.uniform(0.05, 0.14) * np.minimum(1, np.minimum(t * 3 + 0.15, 1.3 - 0.3 * t))
    return {"body": [Limb(spine, girth)], "head": [Limb(spine[-5:], girth[-5:] * 1.25)]}


def _lizard(rng: np.random.Generator) -> Groups:
    t = np.linspace(-1, 1, 40)
    spine = np.stack([t, rng.normal(0, 0.25) * np.sin(t * rng.uniform(2, 5))], 1)
    girth = np.interp(
        t, [-1, -0.2, 0.2, 0.55, 0.62, 0.8, 1], np.array([0.1, 0.5, 1, 0.85, 0.6, 0.85, 0.35]) * rng.uniform(0.09, 0.2)
    )
    legs: list[Piece] = []
    for at, way in ((22, 1), (22, -1), (31, 1), (31, -1)):
        x, y = spine[at]
        out = rng.uniform(0.2, 0.4)
        knee = (x + rng.normal(0, 0.12), y + way * out * 0.7)
        legs.append(_limb([(x, y), knee, (x + rng.normal(0, 0.2), y + way * out)], [0.07, 0.045, 0.035]))
    return {
        "legs": legs,
        "body": [Limb(spine[14:], girth[14:])],
        "tail": [Limb(spine[:18], girth[:18])],
        "head": [Limb(spine[33:], girth[33:])],
    }


def _crawler(rng: np.random.Generator) -> Groups:
    """Frogs, crabs, spiders, beetles: a round body with bent limbs on both sides."""
    pairs, wide, reach = int(rng.integers(2, 5)), rng.uniform(0.28, 0.6), rng.uniform(0.4, 1.0)
    thick = rng.uniform(0.025, 0.13) * 2.5 / pairs
    legs: list[Piece] = []
    for along in np.linspace(-0.4, 0.45, pairs):
        for way in (-1, 1):
            splay = along * rng.uniform(0.8, 1.8) + rng.normal(0, 0.08)
            knee = (along + splay * 0.6, way * (wide * 0.7 + reach * 0.45))
            legs.append(
                _limb(
                    [(along, 0), knee, (along + splay, way * (wide * 0.6 + reach * rng.uniform(0.4, 0.9)))],
                    [thick, thick, thick * 0.5],
                )
            )
    body = _limb([(-0.55, 0), (0, 0), (0.35, 0)], [wide * rng.uniform(0.5, 1), wide, wide * 0.7])
    return {"legs": legs, "body": [body], "head": [_limb([(0.5, 0), (0.68, 0)], [wide * 0.6, wide * 0.4])]}


def _upright(rng: np.random.Generator) -> Groups:
    """Owls, monkeys, people: a standing or sitting body, head above, arms at the sides."""
    wide, tall = rng.uniform(0.22, 0.5), rng.uniform(0.4, 0.8)
    size = rng.uniform(0.16, 0.34)
    head = (rng.normal(0, 0.08), -tall - size * 0.8)
    arms: list[Piece] = [
        _limb(
            [
                (way * wide * 0.75, -tall * 0.6),
                (way * (wide + rng.uniform(-0.1, 0.2)), -0.1),
                (way * wide * rng.uniform(0, 1.5), rng.uniform(-0.3, 0.4)),
            ],
            [0.11, 0.09, 0.07],
        )
        for way in (-1, 1)
    ]
    legs: list[Piece] = [
        _limb(
            [
                (way * wide * 0.5, tall * 0.5),
                (way * rng.uniform(0.1, 0.4), tall * 0.9),
                (way * rng.uniform(0.1, 0.4), tall + rng.uniform(0.1, 0.8)),
            ],
            [0.16, 0.11, 0.08],
        )
        for way in (-1, 1)
    ]
    ears: list[Piece] = [
        _ear(head[0] + way * size * 0.7, head[1] - size * 0.5, size * rng.uniform(0.2, 0.6), way * 0.3)
        for way in (-1, 1)
    ]
    body = _limb([(0, -tall * 0.65), (0, 0), (0, tall * 0.6)], [wide * 0.75, wide, wide * rng.uniform(0.7, 1)])
    return {"legs": legs, "body": [body], "arms": arms, "head": [_limb([head, head], [size, size], 2), *ears]}


def _winged(rng: np.random.Generator) -> Groups:
    """Moths, rays, birds seen from above: two wings and a slim body."""
    t = np.linspace(0, np.pi, 12)
    sweep, chord = rng.normal(0, 0.35), rng.uniform(0.3, 0.7)
    half = np.stack(
        [
            np.concatenate([np.cos(t) * chord - sweep * np.sin(t), [chord * 0.3]]),
            np.concatenate([np.sin(t) * rng.uniform(0.7, 1.1), [0]]),
        ],
        1,
    )
    half[:-1] *= 1 + rng.normal(0, 0.06, (len(half) - 1, 1))
    body = _limb([(-0.7, 0), (0.45, 0)], [0.05, rng.uniform(0.09, 0.18)])
    wings: list[Piece] = [half, half * (1, -1)]
    return {"wings": wings, "body": [body], "head": [_limb([(0.5, 0), (0.58, 0)], [0.12, 0.1])]}


PLANS: dict[str, tuple[Plan, float]] = {
    "four-legged": (_four_legged, 3.0),
    "fish": (_fish, 2.0),
    "bird": (_bird, 2.0),
    "serpent": (_serpent, 0.6),
    "lizard": (_lizard, 1.2),
    "crawler": (_crawler, 1.6),
    "upright": (_upright, 1.5),
    "winged": (_winged, 1.0),
}
_SHARES = np.cumsum([weight for _, weight in PLANS.values()]) / sum(weight for _, weight in PLANS.values())
FREE = {"fish", "serpent", "lizard", "crawler", "winged"}
"""Seen from any side; the others stand upright."""


def animal(rng: np.random.Generator, radius: float) -> Silhouette:
    """An animal of any build; its limbs melt into the body, and each group of limbs is a part."""
    name = list(PLANS)[int(np.searchsorted(_SHARES, rng.random() * 0.999999))]
    groups = PLANS[name][0](rng)
    extent = max(float(np.ptp(_corners(groups), 0).max()) / 2, 0.5)
    angle = rng.uniform(0, 6.3) if name in FREE else rng.normal(0, 0.2)
    masks = _drawn(groups, radius / extent, angle, bool(rng.random() < 0.5))
    whole: ByteArray = np.max(np.stack(list(masks.values())), 0)
    melt = max(0.8, radius * rng.uniform(0.01, 0.035))
    soft = cv2.GaussianBlur(whole, (0, 0), melt).astype(np.float32)
    steep = max(melt * 0.9, 128 / 108)  # nothing stays nothing
    joined = np.clip((soft - 108) * steep + 128, 0, 255).astype(np.uint8)
    parts = tuple(("part", np.minimum(mask, joined)) for group, mask in masks.items() if group != "body")
    return Silhouette(joined, parts)


def _corners(groups: Groups) -> Points:
    return np.concatenate([p.points if isinstance(p, Limb) else p for group in groups.values() for p in group])
