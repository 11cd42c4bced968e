"""Grey patterns found in photographs, and a bank of tiles composed from them.

A family draws one pattern: its value (n, n), zero mean and unit deviation, and for patterns made of separate things
(leaves, pebbles, cells) a variety (n, n) in 0..1 that is constant within each thing, so that each can have its own
colour. A tile blends, warps and lights one or two families; it is a pure function of its index and kept once drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy import fft

from specialsam.synth.kept import code, kept

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
Pattern = tuple[FloatArray, FloatArray | None]
Family = Callable[[np.random.Generator, int], Pattern]

TILE_SIDE = 384
TILE_COUNT = 288
SEAM = 32
BANK_SEED = 20_230_405


def standardised(field: npt.NDArray[np.integer | np.floating]) -> FloatArray:
    """A field (H, W) with zero mean and unit deviation, float32; zeros where it varies by rounding alone."""
    least = 1e-6 * float(np.abs(field).max()) or 1.0
    return np.asarray((field - field.mean()) / max(float(field.std()), least), np.float32)


def noise(
    rng: np.random.Generator,
    n: int,
    exponent: float = 1.0,
    stretch: float = 1.0,
    angle: float = 0.0,
    band: tuple[float, float] | None = None,
) -> FloatArray:
    """Periodic 1/f^exponent noise (n, n); `stretch` > 1 draws it out along `angle` (radians).

    `band` (cycles a tile, relative width) keeps a ring of frequencies only.
    """
    if n > 256 and exponent >= 1.5 and band is None and stretch < 3:  # smooth: half the resolution tells the same
        half = noise(rng, n // 2, exponent, stretch, angle)
        return standardised(cv2.resize(half, (n, n), interpolation=cv2.INTER_CUBIC))
    fy, fx = fft.fftfreq(n, 1 / n).astype(np.float32)[:, None], fft.rfftfreq(n, 1 / n).astype(np.float32)[None]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = (fx * cos + fy * sin) * np.float32(stretch), fy * cos - fx * sin
    radius = np.sqrt(along * along + across * across)
    amplitude = np.exp(np.float32(-exponent) * np.log1p(radius))
    if band is not None:
        amplitude = amplitude * np.exp(-(((radius / np.float32(band[0]) - 1) / np.float32(band[1])) ** 2))
    amplitude[0, 0] = 0
    phase = rng.random(amplitude.shape, np.float32) * np.float32(2 * np.pi)
    spectrum = np.empty(amplitude.shape, np.complex64)
    spectrum.real, spectrum.imag = amplitude * np.cos(phase), amplitude * np.sin(phase)
    return standardised(fft.irfft2(spectrum, (n, n)))


def warped(
    rng: np.random.Generator, fields: list[FloatArray], amplitude: float, exponent: float = 2.6
) -> list[FloatArray]:
    """`fields` (n, n) moved by a smooth random displacement of deviation `amplitude` pixels."""
    n = fields[0].shape[0]
    shift = [cv2.resize(noise(rng, 64, exponent), (n, n), interpolation=cv2.INTER_CUBIC) * amplitude for _ in range(2)]
    rows, columns = np.indices((n, n), np.float32)
    return [
        np.asarray(cv2.remap(f, columns + shift[0], rows + shift[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))
        for f in fields
    ]


def lit(rng: np.random.Generator, height: FloatArray, softness: float = 1.0) -> FloatArray:
    """A height field seen under slanting light (n, n)."""
    soft = cv2.GaussianBlur(height, (0, 0), softness)
    angle = rng.uniform(0, 2 * np.pi)
    slope = cv2.Scharr(soft, cv2.CV_32F, 1, 0) * np.cos(angle) + cv2.Scharr(soft, cv2.CV_32F, 0, 1) * np.sin(angle)
    return standardised(np.tanh(standardised(slope.astype(np.float32)) * 0.8))


def cells(
    rng: np.random.Generator, n: int, points: npt.NDArray[np.float64]
) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    """Distance (n, n) to the nearest of `points` (K, 2) in pixels and the number of that point (n, n)."""
    grid = np.full((n, n), 255, np.uint8)
    at = np.clip(points, 0, n - 1).astype(int)
    grid[at[:, 1], at[:, 0]] = 0
    distance, labels = cv2.distanceTransformWithLabels(grid, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    return np.asarray(distance, np.float32), np.asarray(labels, np.int32)


def _scatter(rng: np.random.Generator, n: int, spacing: float, jitter: float) -> npt.NDArray[np.float64]:
    """A staggered grid of points, jittered."""
    rows = np.arange(0, n + spacing, spacing * 0.87)
    columns = np.arange(0, n + spacing, spacing)
    x = columns[None] + (np.arange(len(rows)) % 2)[:, None] * spacing / 2
    y = np.broadcast_to(rows[:, None], x.shape)
    return np.stack([x, y], -1).reshape(-1, 2) + rng.normal(0, jitter * spacing, (x.size, 2))


def _clouds(rng: np.random.Generator, n: int) -> Pattern:
    return noise(rng, n, rng.uniform(1.5, 2.4), rng.uniform(1, 3)), None


def _grain(rng: np.random.Generator, n: int) -> Pattern:
    return noise(rng, n, rng.uniform(0.5, 1.5), rng.uniform(1, 4), rng.uniform(0, np.pi)), None


def _rock(rng: np.random.Generator, n: int) -> Pattern:
    height = noise(rng, n, rng.uniform(1.3, 2.0), rng.uniform(1, 2.5), rng.uniform(0, np.pi))
    if rng.random() < 0.5:
        height = -np.abs(height)
    return standardised(lit(rng, height, rng.uniform(0.6, 1.5)) + rng.uniform(0, 1) * height), None


def _bark(rng: np.random.Generator, n: int) -> Pattern:
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(3, 9)
    ridges = -np.abs(noise(rng, n, rng.uniform(0.9, 1.4), stretch, angle, (rng.uniform(8, 30), 1.0)))
    fine = noise(rng, n, 0.9, stretch / 2, angle)
    return standardised(np.tanh(ridges * 1.5 + 0.8) + 0.35 * fine + 0.3 * lit(rng, ridges)), None


def _fur(rng: np.random.Generator, n: int) -> Pattern:
    streaks = noise(rng, n, rng.uniform(0.4, 1.0), rng.uniform(6, 20), rng.uniform(0, np.pi))
    coarse = noise(rng, n, 1.6)
    streaks, coarse = warped(rng, [streaks, coarse], rng.uniform(5, 25))
    return standardised(streaks + coarse * rng.uniform(0.2, 1.0)), None


def _turing(rng: np.random.Generator, n: int) -> Pattern:
    stretch = rng.choice([1.0, rng.uniform(1.5, 5)])
    wave = noise(rng, n, 0, stretch, rng.uniform(0, np.pi), (rng.uniform(8, 40), rng.uniform(0.15, 0.5)))
    sharp = np.tanh((wave + rng.uniform(-0.9, 0.9)) * rng.uniform(1, 5))
    return standardised(sharp + rng.uniform(0.1, 0.5) * noise(rng, n, 1.0)), None


def _grating(rng: np.random.Generator, n: int) -> Pattern:
    rows, columns = np.indices((n, n), np.float32)
    angle = rng.uniform(0, np.pi)
    along = columns * np.cos(angle) + rows * np.sin(angle) + noise(rng, n, 2) * rng.uniform(0, 10)
    wave = np.tanh(np.sin(along * (2 * np.pi / rng.uniform(6, 40))) * rng.uniform(0.7, 4))
    return standardised((wave + rng.uniform(0.2, 0.8) * noise(rng, n, 1.2)).astype(np.float32)), None


def _wood(rng: np.random.Generator, n: int) -> Pattern:
    _, columns = np.indices((n, n), np.float32)
    drift = noise(rng, n, 2.2, rng.uniform(3, 8), np.pi / 2) * rng.uniform(10, 40)
    phase = (columns + drift) / rng.uniform(8, 30)
    rings = (phase - np.floor(phase)) ** rng.uniform(1, 3)
    return standardised((rings + 0.3 * noise(rng, n, 0.7, 25, np.pi / 2)).astype(np.float32)), None


def _weave(rng: np.random.Generator, n: int) -> Pattern:
    rows, columns = np.indices((n, n), np.float32)
    pitch = rng.uniform(4, 16)
    x, y = columns * (np.pi / pitch), rows * (np.pi / pitch / rng.uniform(0.6, 1.6))
    over = np.sin(x) * np.sin(y) > 0
    thread = np.where(over, np.abs(np.sin(x * rng.integers(1, 3))), np.abs(np.sin(y)) * rng.uniform(0.5, 1))
    return standardised((thread + 0.2 * noise(rng, n, 0.8)).astype(np.float32)), None


def _worley(rng: np.random.Generator, n: int) -> Pattern:
    spacing = rng.uniform(8, 40)
    distance, labels = cells(rng, n, rng.uniform(0, n, (int((n / spacing) ** 2), 2)))
    own = rng.random(labels.max() + 1, np.float32)[labels]
    mix = rng.random()
    return standardised(standardised(distance) * (mix - 0.5) * 2 + own * 2 * (1 - mix) + 0.3 * noise(rng, n, 1)), own


def _pebbles(rng: np.random.Generator, n: int) -> Pattern:
    spacing = rng.uniform(9, 36)
    distance, labels = cells(rng, n, _scatter(rng, n, spacing, rng.uniform(0.1, 0.35)))
    own = rng.random(labels.max() + 1, np.float32)[labels]
    dome = np.sqrt(np.maximum(0, 1 - (distance / spacing / 0.8) ** 2))
    gaps = cv2.GaussianBlur(
        (cv2.morphologyEx(own, cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0).astype(np.float32), (0, 0), 1
    )
    value = lit(rng, dome, 1.2) + 1.2 * own - 2.5 * gaps + 0.4 * noise(rng, n, 1)
    moved = warped(rng, [standardised(value), own], spacing * 0.15, 1.5)
    return standardised(moved[0]), moved[1]


def _scales(rng: np.random.Generator, n: int) -> Pattern:
    spacing = rng.uniform(8, 26)
    points = _scatter(rng, n, spacing, rng.uniform(0, 0.08))
    distance, labels = cells(rng, n, points)
    own = rng.random(labels.max() + 1, np.float32)[labels]
    shade = cv2.Sobel(cv2.GaussianBlur(distance, (0, 0), 1), cv2.CV_32F, 0, 1)
    value = standardised(distance) * rng.uniform(-1, 1) + standardised(shade) * rng.uniform(0.3, 1) + 0.6 * own
    moved = warped(rng, [value.astype(np.float32), own], rng.uniform(0, 8))
    return standardised(moved[0]), moved[1]


def _leaves(rng: np.random.Generator, n: int) -> Pattern:
    """Leaf litter and foliage: pointed ovals over each other, each with a vein and its own brightness."""
    value, own = np.full((n, n), -1.6, np.float32), np.zeros((n, n), np.float32)
    length, slender = rng.uniform(10, 40), rng.uniform(0.25, 0.6)
    t = np.linspace(0, np.pi, 7)
    outline = np.concatenate([np.stack([-np.cos(t), np.sin(t) ** 1.6 * s], 1)[:-1] for s in (slender, -slender)])
    outline[6:] *= (-1, 1)
    spread, main = rng.choice([0.4, 3.2]), rng.uniform(0, 2 * np.pi)
    count = int(min(700, 2.2 * n * n / (length * length * slender * 1.6)))
    for number in range(count):
        angle, scale = main + rng.normal(0, spread), length * np.exp(rng.normal(0, 0.3)) / 2
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * scale
        centre = rng.uniform(0, n, 2)
        polygon = ((outline @ turn + centre) * 8).astype(np.int32)
        tone = rng.normal(0, 0.7) + number / count
        cv2.fillConvexPoly(value, polygon + 12, tone - 1.2, cv2.LINE_AA, 3)
        cv2.fillConvexPoly(value, polygon, tone, cv2.LINE_AA, 3)
        cv2.fillConvexPoly(own, polygon, rng.random(), cv2.LINE_8, 3)
        if length > 18:
            ends = ((np.array([[-0.9, 0], [0.9, 0]]) @ turn + centre) * 8).astype(np.int32)
            cv2.line(value, ends[0].tolist(), ends[1].tolist(), tone + 0.5, 1, cv2.LINE_AA, 3)
    return standardised(value + 0.3 * noise(rng, n, 1)), own


def _grass(rng: np.random.Generator, n: int) -> Pattern:
    value = noise(rng, n, 1.2) * 0.6 - 1.5
    length, lean, width = rng.uniform(20, 90), rng.normal(0, 0.4), int(rng.integers(1, 4))
    spread, steps = rng.uniform(0.1, 0.6), np.linspace(0, 1, 5)[:, None]
    own = np.zeros((n, n), np.float32)
    for tone in np.linspace(-1, 1.5, 14):
        foot = rng.uniform(0, n * 1.2, (int(rng.uniform(25, 60)), 1, 2))
        angle = rng.normal(lean, spread, (len(foot), 1, 1)) + rng.normal(0, 0.4, (len(foot), 1, 1)) * steps
        size = length * rng.uniform(0.5, 1.3, (len(foot), 1, 1))
        blades = foot + np.concatenate([np.sin(angle), -np.cos(angle)], -1) * steps * size
        blades = list((blades * 8).astype(np.int32))
        cv2.polylines(value, blades, False, float(tone), width, cv2.LINE_AA, 3)
        cv2.polylines(own, blades, False, rng.random(), width, cv2.LINE_8, 3)
    return standardised(value), own


def _discs(rng: np.random.Generator, n: int) -> Pattern:
    """Dead leaves of discs with radii by a power law: the size statistics of natural images."""
    value, own = np.zeros((n, n), np.float32), np.zeros((n, n), np.float32)
    radii = rng.uniform(2, 4) * rng.random(700) ** -0.5
    for radius in np.minimum(radii, n / 5):
        centre = (rng.uniform(0, n, 2) * 8).astype(int).tolist()
        cv2.circle(value, centre, int(radius * 8), rng.normal(), -1, cv2.LINE_AA, 3)
        cv2.circle(own, centre, int(radius * 8), rng.random(), -1, cv2.LINE_8, 3)
    value, own = warped(rng, [value, own], rng.uniform(1, 8), 1.3)
    return standardised(value + rng.uniform(0.1, 0.5) * noise(rng, n, 1)), own


def _water(rng: np.random.Generator, n: int) -> Pattern:
    ripples = noise(rng, n, rng.uniform(0.3, 1.0), rng.uniform(3, 8), 0, (rng.uniform(15, 60), 0.9))
    glint = np.maximum(ripples, 0) ** rng.uniform(1, 3) * noise(rng, n, 1.5).clip(-0.5)
    return standardised(ripples * 0.7 + glint + 0.4 * noise(rng, n, 2)), None


def _bricks(rng: np.random.Generator, n: int) -> Pattern:
    rows, columns = np.indices((n, n), np.float32)
    height, width = rng.uniform(12, 40), rng.uniform(24, 90)
    course = np.floor(rows / height)
    across = columns / width + course * rng.choice([0.0, 0.5])
    number = (course * 31 + np.floor(across)).astype(int)
    own = rng.random(number.max() + 1, np.float32)[number]
    joint = (rows % height < rng.uniform(1, 3)) | ((across % 1) * width < rng.uniform(1, 3))
    value = own * rng.uniform(0.3, 1.5) + joint * rng.choice([-2.0, 1.0]) + 0.4 * noise(rng, n, 1)
    return standardised(cv2.GaussianBlur(value.astype(np.float32), (0, 0), 0.8)), own


def _spots(rng: np.random.Generator, n: int) -> Pattern:
    spacing = rng.uniform(10, 40)
    distance, labels = cells(rng, n, _scatter(rng, n, spacing, 0.25))
    own = rng.random(labels.max() + 1, np.float32)[labels]
    reach = spacing * (0.12 + 0.35 * own)
    inside = np.tanh((reach - distance) / 1.5)
    if rng.random() < 0.4:
        inside = inside - 0.8 * np.tanh((reach * 0.55 - distance) / 1.5)
    return standardised(warped(rng, [(inside + 0.4 * noise(rng, n, 1.1)).astype(np.float32)], spacing * 0.15)[0]), own


FAMILIES: dict[str, Family] = {
    "clouds": _clouds,
    "grain": _grain,
    "rock": _rock,
    "bark": _bark,
    "fur": _fur,
    "turing": _turing,
    "grating": _grating,
    "wood": _wood,
    "weave": _weave,
    "worley": _worley,
    "pebbles": _pebbles,
    "scales": _scales,
    "leaves": _leaves,
    "grass": _grass,
    "discs": _discs,
    "water": _water,
    "bricks": _bricks,
    "spots": _spots,
}
PER_FAMILY = TILE_COUNT // len(FAMILIES)


def tiles_of(family: str) -> range:
    """Numbers of the tiles whose first family is `family`."""
    first = list(FAMILIES).index(family) * PER_FAMILY
    return range(first, first + PER_FAMILY)


@lru_cache(maxsize=TILE_COUNT)
def tile(index: int) -> ByteArray:
    """Tile number `index` as uint8 (2, TILE_SIDE, TILE_SIDE): value and variety; it repeats without a seam.

    The same on every call, whatever was drawn before. Once drawn it is kept on this machine, 85 MB for the whole bank,
    which takes a process longer to draw than its first hundred scenes.
    """
    found = kept("textures", str(index), code(Path(__file__)), lambda: {"tile": _tile(index)})
    return np.asarray(found["tile"], np.uint8)


def _tile(index: int) -> ByteArray:
    rng = np.random.default_rng((BANK_SEED, index))
    families, side = list(FAMILIES.values()), TILE_SIDE + SEAM
    value, variety = families[index // PER_FAMILY](rng, side)
    if rng.random() < 0.4:
        other, _ = families[rng.integers(len(families))](rng, side)
        where = 1 / (1 + np.exp(-3 * (noise(rng, side, 1.6) + rng.uniform(-1, 0.5))))
        value = value + other * (where if rng.random() < 0.5 else rng.uniform(0.2, 0.6))
    if variety is None:
        variety = 0.5 + 0.22 * noise(rng, side, rng.uniform(1.2, 2.0))
    else:
        variety = 0.75 * variety + 0.12 + 0.1 * noise(rng, side, 1.5)
    if rng.random() < 0.4:
        value, variety = warped(rng, [value.astype(np.float32), variety.astype(np.float32)], rng.uniform(1, 14))
    value = value + rng.uniform(0, 0.7) * noise(rng, side, 2.0)
    both = np.stack([_seamless(0.5 + 0.21 * standardised(value)), _seamless(variety.astype(np.float32))])
    return np.asarray(both.clip(0, 1) * 255, np.uint8)


def _seamless(field: FloatArray) -> FloatArray:
    """A field (TILE_SIDE + SEAM, TILE_SIDE + SEAM) whose last SEAM rows and columns are faded into the first ones."""
    share = np.linspace(0, 1, SEAM, dtype=np.float32)[:, None]
    for _ in range(2):
        start = share * field[:SEAM] + (1 - share) * field[TILE_SIDE:]
        field = np.concatenate([start, field[SEAM:TILE_SIDE]]).T
    return np.ascontiguousarray(field)
