"""Image files to arrays and back: every mode and depth that PIL reads, upright by EXIF, sizes checked first."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from specialsam.core.errors import DataError
from specialsam.core.files import write_whole
from specialsam.core.geometry import ImageArray

PIXEL_LIMIT = 200_000_000
"""Images with more pixels than this are refused before they are decoded."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pbm"})
"""Endings (lower case) of the files that count as images in a folder."""

_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What PIL's decoders raise on damaged files."""

_ORIENTATION = 0x0112
_guard = threading.Lock()
_guard_state: dict[str, Any] = {"users": 0, "limit": None}


@contextmanager
def _without_pil_limit() -> Iterator[None]:
    """Lift PIL's global bomb check while our own limit is in charge; nests and works across threads."""
    with _guard:
        if not _guard_state["users"]:
            _guard_state["limit"] = Image.MAX_IMAGE_PIXELS
            Image.MAX_IMAGE_PIXELS = None
        _guard_state["users"] += 1
    try:
        yield
    finally:
        with _guard:
            _guard_state["users"] -= 1
            if not _guard_state["users"]:
                Image.MAX_IMAGE_PIXELS = _guard_state["limit"]


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open the header of an image file; whatever goes wrong within becomes one DataError that names the file."""
    try:
        with _without_pil_limit(), Image.open(path) as image:
            yield image
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: expected an image file, found nothing there") from None
    except IsADirectoryError:
        raise DataError(f"{path}: expected an image file, got a folder") from None
    except PermissionError:
        raise DataError(f"{path}: expected a readable image file, permission was denied") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: expected an image file, got something else ({_content(path)})") from None
    except _DECODING_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: the image is damaged or cut short ({reason}); replace or remove it") from error


def _content(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(16)
    return f"it begins with {head!r}" if head else "the file is empty"


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8 from the header; 1 for TIFF, which PIL turns by itself."""
    if image.format == "TIFF":
        return 1
    try:
        # The method of the base class: PNG's own would decode all pixels to look for EXIF behind them.
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except _DECODING_ERRORS:
        return 1  # A damaged EXIF block says nothing about the orientation; the pixels are still good.
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn and mirror (H, W[, C]) pixels as EXIF orientation 1..8 asks."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def check_size(path: Path, size: tuple[int, int], limit: int = PIXEL_LIMIT) -> None:
    """Raise DataError for (height, width) of no pixel or of more than `limit` pixels, saying what to do."""
    height, width = size
    if height < 1 or width < 1:
        raise DataError(f"{path}: expected an image of at least 1x1 pixels, got {height}x{width}")
    if height * width > limit:
        raise DataError(
            f"{path}: {width}x{height} pixels (width x height) are {height * width / 1e6:.0f} megapixels, "
            f"more than the limit of {limit / 1e6:g}; cut it into tiles, scale it down or raise the pixel limit"
        )


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels after EXIF orientation, from the header alone; DataError if it is unreadable."""
    with _opened(path) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def exif_orientation(path: Path) -> int:
    """EXIF orientation 1..8 of an image file, 1 where none is stated."""
    with _opened(path) as image:
        return _orientation(image)


def is_palette(path: Path) -> bool:
    """True for a file whose pixels are indices into a palette (of a PNG, GIF, BMP or TIFF)."""
    with _opened(path) as image:
        return image.mode == "P"


def _grey_to_bytes(pixels: npt.NDArray[Any]) -> ImageArray:
    """Grey (H, W) of any depth to uint8.

    Unsigned 16-bit is scaled by its range (65535 becomes 255). 32-bit integers count as 16-bit where they fit. Floats
    in 0..1 are scaled to 0..255, floats in 0..255 rounded, in 0..65535 scaled as 16-bit. Anything wider is stretched
    from its smallest to its largest value; NaN and infinity become 0.
    """
    values = np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    floating = np.issubdtype(pixels.dtype, np.floating)
    if floating and low >= 0 and high <= 1:
        values *= 255
    elif floating and low >= 0 and high <= 255:
        pass
    elif low >= 0 and high <= 65535:
        values /= 257
    else:
        values = (values - low) * (255 / (high - low) if high > low else 0)
    return np.asarray(np.rint(values), np.uint8)


def _to_rgb(image: Image.Image) -> ImageArray:
    """A decoded PIL image of any mode to uint8 (H, W, 3), not yet turned upright."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return np.repeat(_grey_to_bytes(np.asarray(image))[..., None], 3, axis=2)
    if image.has_transparency_data or image.mode in ("LA", "La", "PA", "RGBa"):
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, rgba).convert("RGB"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def read_image(path: Path, *, pixel_limit: int = PIXEL_LIMIT) -> ImageArray:
    """Read an image file as uint8 (H, W, 3) RGB, EXIF orientation applied.

    Grey, palette, 1-bit, CMYK, YCbCr and LAB are converted; deeper grey is scaled as `_grey_to_bytes` says; of an
    animation the first frame counts. Transparent pixels are laid over black: the colour that a file stores under full
    transparency is left over from editing and shows nothing.

    Raises DataError, in one line with the file's name, for a missing, foreign or damaged file, and for an image of
    more than `pixel_limit` pixels, which is not decoded.
    """
    with _opened(path) as image:
        check_size(path, (image.height, image.width), pixel_limit)
        orientation = _orientation(image)
        image.load()
        return np.asarray(_upright(_to_rgb(image), orientation), np.uint8)


def read_mask_pixels(path: Path, *, pixel_limit: int = PIXEL_LIMIT) -> npt.NDArray[Any]:
    """Read a mask file without interpretation: (H, W) or (H, W, C) raw values, EXIF orientation applied.

    A palette file keeps its indices (uint8), a 1-bit file is bool, 16-bit stays uint16, colour stays uint8 (H, W, C).
    32-bit integers become uint8 or uint16 where all values fit. Floats become the integers that they are, or, where
    they are fractions in 0..1, uint8 in 0..255. Errors as in `read_image`.
    """
    with _opened(path) as image:
        check_size(path, (image.height, image.width), pixel_limit)
        orientation, format_name = _orientation(image), image.format
        image.load()
        pixels = np.asarray(image)
    if pixels.dtype.byteorder == ">":
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if pixels.dtype in (np.int32, np.float32):
        pixels = _narrowed(path, pixels, smallest=np.uint16 if format_name == "PNG" else np.uint8)
    return _upright(pixels, orientation)


def _narrowed(path: Path, pixels: npt.NDArray[Any], smallest: type[np.uint8] | type[np.uint16]) -> npt.NDArray[Any]:
    """32-bit mask values to the narrowest unsigned type that holds them, at least `smallest`."""
    low, high = float(pixels.min()), float(pixels.max())
    if np.isfinite([low, high]).all() and (pixels == np.rint(pixels)).all():
        for dtype in (np.uint8, np.uint16):
            if low >= 0 and high <= np.iinfo(dtype).max and np.iinfo(dtype).max >= np.iinfo(smallest).max:
                return pixels.astype(dtype)
    elif low >= 0 and high <= 1:
        return np.asarray(np.rint(pixels * 255), np.uint8)
    raise DataError(f"{path}: expected a mask of integers in 0..65535 or fractions in 0..1, got {low}..{high}")


def write_png(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a PNG: bool (H, W) as 0/255, uint8 or uint16 (H, W) grey, uint8 (H, W, 3) RGB or (H, W, 4) RGBA.

    The file appears whole or not at all. Compressed lightly: several times as fast as PIL's default, a tenth larger.
    """
    pixels = array.astype(np.uint8) * 255 if array.dtype == np.bool_ else array
    grey = pixels.ndim == 2 and pixels.dtype in (np.uint8, np.uint16)
    colour = pixels.ndim == 3 and pixels.shape[2] in (3, 4) and pixels.dtype == np.uint8
    if not (grey or colour) or not pixels.size:
        raise DataError(f"{path}: expected grey or RGB pixels for a PNG, got {array.dtype} {array.shape}")
    order = slice(None) if grey else [2, 1, 0, 3][: pixels.shape[2]]
    _, packed = cv2.imencode(".png", np.ascontiguousarray(pixels[..., order]), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    write_whole(path, lambda beside: beside.write_bytes(packed.tobytes()))
