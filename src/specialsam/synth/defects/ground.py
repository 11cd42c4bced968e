"""What a clean picture looks like, measured once: its repeat, the direction of its threads, its grain, its wires."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from specialsam.core.geometry import FloatArray, ImageArray

REPEATS = 0.3
"""Autocorrelation from which a texture counts as repeating."""
PARTED = 0.65
"""Share of the variance between the two classes of Otsu's threshold from which wires stand apart from the rest."""
_LONGEST = 256


@dataclass(frozen=True)
class Ground:
    """A clean picture's facts: levels 0..255 a channel (`dark`, `mean`, `bright`: 3 values each), `grain` in levels.

    `period` is the repeat in pixels (a 40th of the shorter side where nothing repeats), `angle` the threads' direction
    in radians from x towards y, `order` 0..1 how much they keep to it, `wires` float32 (H, W) 0..1 where bars stand
    before a background, None where they do not. `grey` tells that all channels are equal.
    """

    dark: FloatArray
    mean: FloatArray
    bright: FloatArray
    grain: float
    period: float
    angle: float
    order: float
    grey: bool
    wires: FloatArray | None


def survey(image: ImageArray) -> Ground:
    """Facts of a clean picture uint8 (H, W, 3).

    Direction and order come from the structure tensor (Bigün and Granlund 1987), wires from Otsu's threshold (1979).
    """
    sample = image[::2, ::2].reshape(-1, 3)
    dark, bright = np.percentile(sample, [3, 97], axis=0).astype(np.float32)
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    residue = cv2.absdiff(grey, cv2.medianBlur(grey, 3))
    grain = float(np.clip(1.5 * residue.mean(), 0.4, 12))
    soft = cv2.GaussianBlur(grey, (0, 0), 1.0).astype(np.float32)
    dx, dy = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    both, difference, total = float((dx * dy).mean()), float((dx**2 - dy**2).mean()), float((dx**2 + dy**2).mean())
    across = 0.5 * np.arctan2(2 * both, difference)
    order = float(np.hypot(2 * both, difference)) / max(total, 1e-6)
    period, strength = _repeat(grey)
    wires = _wires(soft) if strength >= REPEATS else None
    equal = bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all())
    mean = sample.mean(0).astype(np.float32)
    return Ground(dark, mean, bright, grain, period, float(across + np.pi / 2), order, equal, wires)


def _repeat(grey: ImageArray) -> tuple[float, float]:
    """(repeat in pixels, autocorrelation there): the nearest of the strongest peaks; a default and 0 without any."""
    side = min(grey.shape)
    default = max(4.0, side / 40)
    scale = min(1.0, _LONGEST / max(grey.shape))
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= cv2.GaussianBlur(small, (0, 0), max(small.shape) / 16)
    correlation = np.fft.irfft2(np.abs(np.fft.rfft2(small)) ** 2, s=small.shape).astype(np.float32)
    if correlation[0, 0] <= 0:
        return default, 0.0
    correlation /= correlation[0, 0]
    rows, columns = (np.abs(np.fft.fftfreq(n, 1 / n)).astype(np.float32) for n in small.shape)
    radius = np.hypot(rows[:, None], columns[None])
    peak = correlation >= cv2.dilate(correlation, np.ones((5, 5), np.uint8))
    peak &= (radius >= 4) & (radius <= min(small.shape) / 3) & (correlation >= REPEATS)
    if not peak.any():
        return default, 0.0
    best = float(correlation[peak].max())
    near = float(radius[peak & (correlation >= 0.75 * best)].min())
    return float(np.clip(near / scale, 4, side / 4)), best


def _wires(soft: FloatArray) -> FloatArray | None:
    """Where bars stand before a background, 0..1 (H, W): one class hangs together, the other lies in cells.

    None where two classes do not part, or where both or neither hang together.
    """
    level, below = cv2.threshold(soft.astype(np.uint8), 0, 1, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    dark = np.asarray(below, np.uint8)
    share = float(dark.mean())
    if not 0.05 < share < 0.95:
        return None
    means = soft[dark > 0].mean(), soft[dark == 0].mean()
    if share * (1 - share) * float(means[1] - means[0]) ** 2 < PARTED * float(soft.var()):
        return None
    whole = [_largest(part) for part in (dark, 1 - dark)]
    if max(whole) < 0.6 or min(whole) > 0.3:
        return None
    way = 1 if whole[0] > whole[1] else -1
    edge = 0.18 * float(means[1] - means[0])
    return np.asarray(np.clip(0.5 + way * (level - soft) / (2 * edge), 0, 1), np.float32)


def _largest(part: ImageArray) -> float:
    """The largest connected piece's share of a class 0/1 (H, W)."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=4)
    return float(stats[1:, cv2.CC_STAT_AREA].max() / part.sum())
