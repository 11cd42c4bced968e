"""Values of any depth to uint8: by the file's own depth, or by the one range that a data set is read with."""

from __future__ import annotations

import numpy as np

from specialsam.core.geometry import ImageArray, PixelArray
from specialsam.core.types import Reading

Span = tuple[float, float]


def own_span(pixels: PixelArray) -> Span:
    """The values that the depth of a file's pixels (H, W[, C]) takes for black and white.

    Unsigned 16-bit goes by its range. Wider integers count as 16-bit where they fit. Floats in 0..1, 0..255 and
    0..65535 go by these ranges. Anything wider goes from its smallest to its largest value.
    """
    if pixels.dtype == np.bool_:
        return 0.0, 1.0
    if pixels.dtype == np.uint8:
        return 0.0, 255.0
    values = finite(pixels)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    floating = np.issubdtype(pixels.dtype, np.floating)
    if low >= 0 and high <= 65535:
        if floating and high <= 255:
            return 0.0, 1.0 if high <= 1 else 255.0
        return 0.0, 65535.0
    return low, high


def finite(pixels: PixelArray) -> PixelArray:
    """The pixels (H, W[, C]) without NaN and infinity; (N,) where there were some."""
    if not np.issubdtype(pixels.dtype, np.floating):
        return pixels
    good = np.isfinite(pixels)
    return pixels if good.all() else pixels[good]


def shade(pixels: PixelArray, reading: Reading | None = None) -> ImageArray:
    """Values (...,) of any depth to uint8 of the same shape: `reading.low` becomes 0, `reading.high` 255.

    What lies outside is clipped.
    NaN, infinity and the values of `reading.nodata` become 0. Without a range the file's own depth counts.
    """
    if reading is None or reading.low is None or reading.high is None:
        if pixels.dtype == np.uint8:
            return np.asarray(pixels, np.uint8)
        low, high = own_span(_without(pixels, reading.nodata if reading else ()))
    else:
        low, high = reading.low, reading.high
    with np.errstate(invalid="ignore", over="ignore"):
        values = pixels.astype(np.float64)
        void = ~np.isfinite(values)
        for nothing in reading.nodata if reading else ():
            void |= np.isclose(values, nothing, rtol=1e-6, atol=0)
        values = (values - low) * (255 / (high - low) if high > low else 0)
    values[void] = 0
    return np.asarray(np.rint(np.clip(values, 0, 255)), np.uint8)


def _without(pixels: PixelArray, nodata: tuple[float, ...]) -> PixelArray:
    if not nodata:
        return pixels
    return pixels[~np.isin(pixels, np.array(nodata, pixels.dtype if pixels.dtype.kind == "f" else np.float64))]


def as_rgb(pixels: PixelArray, bands: tuple[int, ...] = ()) -> PixelArray:
    """Values (H, W[, C]) to (H, W, 3): `bands` of them, else the first three, else the first one as grey."""
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    count = pixels.shape[2]
    chosen = [band for band in bands if band < count] or ([0, 1, 2] if count >= 3 else [0])
    if len(chosen) < 3:
        chosen = [chosen[0]] * 3
    return np.ascontiguousarray(pixels[..., chosen[:3]])
