"""Rivals that find something without a prompt and without training: what stands out from the rest of its own image."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.core.geometry import FloatArray, ImageArray

_Pixels = npt.NDArray[np.integer | np.floating]
_Channels = npt.NDArray[np.float32]

SPECTRAL_SIDE = 64
"""Longest side in pixels at which the spectrum is taken."""
SPECTRAL_BLUR = 2.5
"""Sigma in pixels of that size, as in the authors' code."""
GREYS = 1024
"""Steps that a level of grey is rounded to, because scaling alone makes noise of a flat image."""
ABSENT = 1e-10
"""Amplitude over the largest one below which a frequency is rounding and no part of the image."""

BARRIER_SIDE = 200
"""Longest side in pixels at which barriers are measured."""
BARRIER_PASSES = 3


def spectral_residual(image: ImageArray) -> FloatArray:
    """What the spectrum of an image does not share with its neighbourhood: saliency float32 (H, W) in 0..1.

    Hou and Zhang 2007, "Saliency Detection: A Spectral Residual Approach": the grey image, its longest side scaled to
    64 pixels, keeps its phases, while the logarithm of its amplitudes loses its own 3x3 average (over the edges of the
    spectrum, which is periodic); what comes back is squared, blurred, and stretched to 0..1. Left out, of the averages
    too, are frequencies that the image does not hold, whose phases are rounding, and its mean, which is nowhere and
    would turn what is darker than the rest into the opposite of salient. Zero everywhere where nothing stands out.
    """
    from scipy import ndimage

    grey = _shrunk(cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2GRAY), SPECTRAL_SIDE).astype(np.float64)
    spectrum = np.fft.fft2(np.rint(grey * GREYS) / GREYS)
    amplitude = np.abs(spectrum)
    held = amplitude > ABSENT * max(float(amplitude.max()), 1.0)
    held[0, 0] = False
    logarithm = np.log(np.where(held, amplitude, 1))
    around, share = (ndimage.uniform_filter(part, 3, mode="wrap") for part in (logarithm, held.astype(np.float64)))
    residual = logarithm - around / np.maximum(share, ABSENT)
    kept = np.where(held, np.exp(residual + 1j * np.angle(spectrum)), 0)
    saliency = cv2.GaussianBlur(np.abs(np.fft.ifft2(kept)) ** 2, (0, 0), SPECTRAL_BLUR)
    return _stretched(saliency, image.shape[:2])


def minimum_barrier(image: ImageArray) -> FloatArray:
    """Distance of each pixel from the image's border in terms of colour: saliency float32 (H, W) in 0..1.

    The barrier of a path is the range of values on it, the distance the lowest barrier of all paths to the border:
    Zhang et al. 2015, "Minimum Barrier Salient Object Detection at 80 FPS", algorithm 1 (FastMBD) in three passes at
    200 pixels longest side or fewer, here with the distances of the three Lab channels added and divided by the largest
    sum. Their backgroundness and their sharpening of the map are left out.
    """
    lab = cv2.cvtColor(_shrunk(image, BARRIER_SIDE), cv2.COLOR_RGB2LAB).astype(np.float32)
    return _stretched(barriers(lab).sum(2, dtype=np.float64), image.shape[:2])


SALIENCY: dict[str, Callable[[ImageArray], FloatArray]] = {
    "spectral residual": spectral_residual,
    "minimum barrier": minimum_barrier,
}
"""Rules that make a map float32 (H, W) in 0..1 of an image uint8 (H, W, 3), by name."""


def barriers(values: FloatArray) -> FloatArray:
    """FastMBD distances of each channel from the border, float32 (H, W, C), of values float32 (H, W, C).

    A scan in reading order needs of a pixel the ones above and to its left, both on the diagonal before: diagonals are
    done as a whole, one after the other, with the same answer. The passes alternate in direction.
    """
    height, width = values.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    at = rows + columns, rows + 1  # a diagonal a row, with a column to spare on both sides
    size = height + width - 1, height + 2, values.shape[2]
    seed = (rows == 0) | (columns == 0) | (rows == height - 1) | (columns == width - 1)
    own, high, low = (np.zeros(size, np.float32) for _ in range(3))
    distance = np.full(size, np.inf, np.float32)
    reached = np.where(seed[..., None], np.float32(0), np.float32(np.inf))
    own[at], high[at], low[at], distance[at] = values, values, values, reached
    for number in range(BARRIER_PASSES):
        forward = number % 2 == 0
        for diagonal in range(1, size[0]) if forward else range(size[0] - 2, -1, -1):
            for beside in (-1, 0) if forward else (1, 0):
                _relax(own, high, low, distance, diagonal, beside, forward)
    return np.asarray(distance[at])


def _relax(
    own: _Channels, high: _Channels, low: _Channels, distance: _Channels, diagonal: int, beside: int, forward: bool
) -> None:
    """Reach the pixels of a diagonal through their neighbours on the one before, where that lowers their barrier."""
    to = slice(1, own.shape[1] - 1)
    source = diagonal - 1 if forward else diagonal + 1, slice(1 + beside, own.shape[1] - 1 + beside)
    upper = np.maximum(high[source], own[diagonal, to])
    lower = np.minimum(low[source], own[diagonal, to])
    barrier = np.where(np.isinf(distance[source]), np.inf, upper - lower)
    better = barrier < distance[diagonal, to]
    for array, value in ((high, upper), (low, lower), (distance, barrier)):
        np.copyto(array[diagonal, to], value, where=better, casting="same_kind")


def _shrunk(image: _Pixels, longest: int) -> _Pixels:
    """The image scaled so that its longest side is at most `longest` pixels."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _stretched(saliency: _Pixels, size: tuple[int, ...]) -> FloatArray:
    """A map from its minimum and maximum to 0..1, at (height, width); zeros where it has one value only."""
    low, high = float(saliency.min()), float(saliency.max())
    if high - low <= 1e-9 * max(abs(high), abs(low)):
        return np.zeros(size, np.float32)
    unit = ((saliency - low) / (high - low)).astype(np.float32)
    wide = cv2.resize(unit, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.clip(wide, 0, 1), np.float32)
