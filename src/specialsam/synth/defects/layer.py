"""What all defects share: shapes, what a texture looks like, and how a painted layer becomes part of a picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.core.geometry import BoolArray, FloatArray, ImageArray

THIN = 0.08
"""Opacity below which a layer changes nothing: what cannot be seen is no part of a defect."""
SURE = 0.12
"""Opacity from which every pixel counts as changed, also where paint and ground are of one colour by chance."""


@dataclass(frozen=True)
class Defect:
    """A picture with a defect: `image` uint8 (H, W, 3), `mask` bool (H, W) of exactly the changed pixels, its kind."""

    image: ImageArray
    mask: BoolArray
    kind: str


@dataclass(frozen=True)
class Ground:
    """What a clean picture looks like: levels 0..255 a channel, and the grain's standard deviation.

    `period` is the texture's repeat in pixels, `angle` the direction of its main threads in radians.
    """

    dark: FloatArray
    bright: FloatArray
    mean: FloatArray
    grain: float
    period: float
    angle: float
    grey: bool


def survey(image: ImageArray) -> Ground:
    """Levels, grain, repeat and direction of a clean picture uint8 (H, W, 3)."""
    flat = image.reshape(-1, 3).astype(np.float32)
    dark, bright = np.percentile(flat, [5, 95], axis=0).astype(np.float32)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    noise = grey - cv2.GaussianBlur(grey, (0, 0), 1.0)
    grain = float(np.median(np.abs(noise)) * 1.48)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    across = 0.5 * np.arctan2(2 * float((dx * dy).mean()), float((dx**2).mean() - (dy**2).mean()))
    colourless = bool((image == image[..., :1]).all())
    return Ground(dark, bright, flat.mean(0), grain, _period(grey), float(across + np.pi / 2), colourless)


def _period(grey: FloatArray) -> float:
    """First repeat of the rows' autocorrelation in pixels; a 24th of the shorter side where nothing repeats."""
    side = min(grey.shape)
    default = float(max(4.0, side / 24))
    rows = grey - grey.mean(1, keepdims=True)
    power = (np.abs(np.fft.rfft(rows, axis=1)) ** 2).mean(0)
    correlation = np.fft.irfft(power)[: side // 3]
    if len(correlation) < 8 or correlation[0] <= 0:
        return default
    correlation = correlation / correlation[0]
    below = np.flatnonzero(correlation < 0)
    if not len(below):
        return default
    later = correlation[below[0] :]
    if later.max() < 0.15:
        return default
    first = int(np.argmax(later >= 0.7 * later.max()))  # not the highest: every multiple of the repeat is a peak
    while first + 1 < len(later) and later[first + 1] > later[first]:
        first += 1
    return float(np.clip(below[0] + first, 4, side / 4))


def noise(shape: tuple[int, int], scale: float, rng: np.random.Generator, along: float | None = None) -> FloatArray:
    """Smooth noise (H, W) of mean 0 and deviation 1, features of `scale` pixels, thrice as long `along` an angle."""
    height, width = shape
    rows, columns = max(2, round(height / scale)) + 2, max(2, round(width / scale)) + 2
    field = cv2.resize(
        rng.standard_normal((rows, columns)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    if along is not None:
        reach = max(3, round(scale) | 1)
        kernel = np.zeros((reach * 2 + 1, reach * 2 + 1), np.float32)
        step = (int(reach * np.cos(along)), int(reach * np.sin(along)))
        cv2.line(kernel, (reach - step[0], reach - step[1]), (reach + step[0], reach + step[1]), 1.0, 1)
        field = cv2.filter2D(field, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-6), np.float32)


def place(shape: tuple[int, int], reach: float, rng: np.random.Generator) -> tuple[float, float]:
    """A random centre (x, y) that is `reach` pixels from the border where the picture is large enough."""
    height, width = shape
    margins = [min(reach, side / 2 - 1) for side in (width, height)]
    x, y = (rng.uniform(margin, side - 1 - margin) for margin, side in zip(margins, (width, height), strict=True))
    return float(x), float(y)


def blob(
    shape: tuple[int, int],
    centre: tuple[float, float],
    radius: float,
    rng: np.random.Generator,
    ragged: float = 0.25,
    squeeze: float = 1.0,
    along: float | None = None,
) -> FloatArray:
    """Signed depth (H, W) in pixels of an irregular blob: positive inside, falling to 0 at its edge.

    `ragged` is the edge's unevenness as a share of the radius, `squeeze` under 1 flattens it across a random angle (or
    stretches it along `along`).
    """
    height, width = shape
    turn = rng.uniform(0, np.pi) if along is None else along
    x, y = (
        np.arange(width, dtype=np.float32)[None] - centre[0],
        np.arange(height, dtype=np.float32)[:, None] - centre[1],
    )
    u, v = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / squeeze
    uneven = 0.6 * noise(shape, max(4.0, radius * 0.8), rng) + 0.4 * noise(shape, max(2.0, radius * 0.25), rng)
    return np.asarray(radius * (1 + ragged * uneven) - np.hypot(u, v), np.float32)


def path(
    shape: tuple[int, int], length: float, rng: np.random.Generator, bend: float = 0.03, heading: float | None = None
) -> FloatArray:
    """A curve float32 (N, 2) as (x, y) a pixel apart, inside the picture; `bend` is radians a pixel."""
    height, width = shape
    steps = max(4, int(length))
    turns = np.cumsum(rng.normal(0, bend / 3, steps)) + np.cumsum(rng.normal(0, bend, steps)) / 6
    angles = (rng.uniform(0, 2 * np.pi) if heading is None else heading) + turns
    line = np.cumsum(np.stack([np.cos(angles), np.sin(angles)], 1), axis=0)
    line -= line.mean(0)
    line += place(shape, length / 3, rng)
    inside = (line >= 1).all(1) & (line[:, 0] < width - 2) & (line[:, 1] < height - 2)
    middle = int(np.argmin(np.abs(line - (width / 2, height / 2)).sum(1)))
    chosen = _run(inside, middle)
    points = line[chosen] if chosen.stop - chosen.start >= 4 else np.clip(line, 1, (width - 3, height - 3))
    return np.asarray(points, np.float32)


def _run(inside: npt.NDArray[np.bool_], middle: int) -> slice:
    """The longest run of True that holds `middle`, or else the longest one."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(np.int8), [0]])))
    runs = [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    holding = [run for run in runs if run.start <= middle < run.stop]
    return max(holding or runs or [slice(0, 0)], key=lambda run: run.stop - run.start)


def stroke(shape: tuple[int, int], points: FloatArray, widths: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coverage 0..1 and place along the curve in pixels, each (H, W), of a line of varying width."""
    cover, along = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for number, ((x, y), width) in enumerate(zip(points, widths, strict=True)):
        centre = (round(float(x) * 16), round(float(y) * 16))
        radius = max(8, round(float(width) * 8))
        cv2.circle(cover, centre, radius, 1.0, -1, cv2.LINE_AA, 4)
        cv2.circle(along, centre, radius, float(number), -1, cv2.LINE_8, 4)
    return cover, along


def relief(cover: FloatArray, height: float, light: float) -> FloatArray:
    """Shading -1..1 (H, W) of a round body that covers `cover`, lit from the angle `light`."""
    depth = cv2.distanceTransform((cover > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    body = np.sqrt(np.clip(1 - (1 - np.minimum(depth / max(height, 1e-3), 1)) ** 2, 0, 1)).astype(np.float32)
    body = cv2.GaussianBlur(body, (0, 0), max(0.6, height * 0.25))
    slope_x, slope_y = cv2.Sobel(body, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(body, cv2.CV_32F, 0, 1) / 8
    lit = -(slope_x * np.cos(light) + slope_y * np.sin(light)) * height
    return np.asarray(np.clip(lit * 0.9, -1, 1), np.float32)


def shadow(cover: FloatArray, distance: float, light: float, soft: float) -> FloatArray:
    """Opacity (H, W) of the shadow that a body casts away from the light, outside of the body."""
    shift = np.array([[1, 0, -distance * np.cos(light)], [0, 1, -distance * np.sin(light)]], np.float32)
    moved = cv2.warpAffine(cover, shift, cover.shape[::-1])
    return np.asarray(cv2.GaussianBlur(moved, (0, 0), max(0.5, soft)) * (1 - cover), np.float32)


def finish(
    clean: ImageArray, paint: FloatArray, opacity: FloatArray, ground: Ground, kind: str, rng: np.random.Generator
) -> Defect:
    """Lay `paint` (H, W, 3) with `opacity` (H, W) 0..1 over the clean picture, with its focus and its grain.

    Nothing changes where the opacity is under THIN; every pixel from SURE on is made to differ by at least a level, so
    that the mask, which is exactly what changed, has no holes where colours agree by chance.
    """
    soft = cv2.GaussianBlur(np.clip(opacity, 0, 1).astype(np.float32), (0, 0), 0.6)
    opacity = np.asarray(np.where(soft < THIN, 0, soft), np.float32)
    grain = rng.normal(0, ground.grain, clean.shape[:2]).astype(np.float32)[..., None]
    layer = paint + grain
    if ground.grey:
        layer = layer.mean(2, keepdims=True).repeat(3, 2)
    mixed = clean * (1 - opacity[..., None]) + layer * opacity[..., None]
    image = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    image[opacity == 0] = clean[opacity == 0]
    return exact(clean, image, np.asarray(opacity >= SURE, np.bool_), kind)


def exact(clean: ImageArray, image: ImageArray, region: BoolArray, kind: str) -> Defect:
    """The defect with a mask of exactly the changed pixels; one of `region` that stayed by chance moves by a level."""
    same = (image == clean).all(2) & region
    image[same] = np.where(clean[same] < 128, clean[same] + 1, clean[same] - 1)
    return Defect(image, np.asarray((image != clean).any(2), np.bool_), kind)
