"""What an image file says before its pixels are read: opened with every guard, its size, orientation, depth, palette.

Every reader of pictures opens them by `opened` and nothing else (`data.images` for their pixels).
"""

from __future__ import annotations

import ctypes
import io
import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin, _imaging  # noqa: F401 - plugins

from specialsam.core.errors import DataError
from specialsam.core.files import open_regular
from specialsam.core.geometry import ImageArray
from specialsam.data.tiffs import MAGIC, is_tiff, tiff_head

PIXEL_LIMIT = 200_000_000
"""Images with more pixels than this are refused before they are decoded."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pbm"})
"""Endings (lower case) of the files that count as images in a folder."""

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM")
"""Formats that are read, whatever a file's name: none starts another program, as PostScript would start Ghostscript.

JPEG includes the MPO of stereo cameras. With the plugins for TIFF and WEBP imported above PIL knows all of them; else
it would import every plugin that it has.
"""

ON_REQUEST = "HEIF"
"""Read as well in a process that has registered it with PIL (`pillow_heif.register_heif_opener()`)."""

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


@dataclass
class _Lifted:
    """Who is reading now, and PIL's own limit, to be put back by the last one."""

    users: int = 0
    limit: int | None = None


_lifted = _Lifted()


@contextmanager
def _without_pil_limit() -> Iterator[None]:
    """Lift PIL's global bomb check while our own limit is in charge; nests and works across threads."""
    with _guard:
        if not _lifted.users:
            _lifted.limit = Image.MAX_IMAGE_PIXELS
            Image.MAX_IMAGE_PIXELS = None
        _lifted.users += 1
    try:
        yield
    finally:
        with _guard:
            _lifted.users -= 1
            if not _lifted.users:
                Image.MAX_IMAGE_PIXELS = _lifted.limit


def _silence_decoders() -> None:
    """What is damaged becomes an error or nothing at all: no line of PIL's or libtiff's lands between those of a run.

    Once for the process, not around each file: filters of warnings belong to all threads. libtiff prints each error
    before PIL raises it, and PIL has no switch for that; where libtiff cannot be reached its lines stay.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with suppress(OSError, AttributeError):
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


_silence_decoders()


class OtherTiff(DataError):
    """A TIFF that PIL does not know; `data.tiffs` may."""


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open the header of an image file; whatever goes wrong within becomes one DataError that names the file."""
    try:
        with open_regular(path) as file, _without_pil_limit():
            try:
                image = Image.open(file, formats=_formats())
            except UnidentifiedImageError:
                file.seek(0)
                if file.read(4) in MAGIC:
                    raise OtherTiff(f"{path}: the TIFF is damaged or cut short; replace or remove it") from None
                known = ", ".join(FORMATS)
                message = f"{path}: expected an image file ({known}), got something else ({_content(file)})"
                raise DataError(message) from None
            with image:
                yield image
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: expected an image file, found nothing there") from None
    except PermissionError:
        raise DataError(f"{path}: expected a readable image file, permission was denied") from None
    except _DECODING_ERRORS as error:
        if isinstance(error, OSError) and error.errno:  # of the system, not of a decoder
            raise DataError(f"{path}: the image cannot be read ({error.strerror})") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: the image is damaged or cut short ({reason}); replace or remove it") from error


@contextmanager
def opened_content(content: bytes) -> Iterator[Image.Image]:
    """As `opened`, for a small PNG or JPEG that lies within another file."""
    try:
        with _without_pil_limit(), Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            check_size(Path("picture"), (image.height, image.width))
            yield image
    except _DECODING_ERRORS as error:
        raise DataError(f"expected a picture as PNG or JPEG, cannot read it ({type(error).__name__})") from error


def _formats() -> tuple[str, ...]:
    """What `Image.open` may try; without this list it would try every format that PIL knows."""
    return (*FORMATS, ON_REQUEST) if ON_REQUEST in Image.OPEN else FORMATS


def _content(file: BinaryIO) -> str:
    file.seek(0)
    head = file.read(16)
    return f"it begins with {head!r}" if head else "the file is empty"


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation 1..8 from the header; 1 for TIFF, which PIL turns by itself."""
    if image.format == "TIFF":
        return 1
    try:
        # The method of the base class: PNG's own would decode all pixels to look for EXIF behind them.
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except _DECODING_ERRORS:
        return 1  # A damaged EXIF block says nothing about the orientation; the pixels are still good.
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


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
    try:
        with opened(path) as image:
            width, height = image.size
            return (width, height) if orientation_of(image) >= 5 else (height, width)
    except OtherTiff:
        head = tiff_head(path)
        return head.height, head.width


def exif_orientation(path: Path) -> int:
    """EXIF orientation 1..8 of an image file, 1 where none is stated."""
    try:
        with opened(path) as image:
            return orientation_of(image)
    except OtherTiff:
        return 1


@dataclass(frozen=True)
class Depth:
    """How an image file holds its values, from its header: `kind` is numpy's name of their type.

    `alpha` says that a TIFF of bytes calls its fourth band alpha, `tiff` that `data.tiffs` reads the values.
    """

    kind: str
    bands: int = 3
    pages: int = 1
    alpha: bool = False
    tiff: bool = False
    nodata: float | None = None

    @property
    def plain(self) -> bool:
        """Whether bytes are bytes: nothing is left to decide."""
        return self.kind in ("uint8", "bool") and not self.alpha and self.pages == 1


_GREY_KINDS = {"F": "float32", "I": "int32"}


def depth_of(path: Path) -> Depth:
    """The depth of an image file; DataError as `image_size`."""
    try:
        with opened(path) as image:
            raw = str(getattr(image, "tile", "") or "")
            deep = ";16" in raw and image.mode in ("RGB", "RGBA", "RGBX")
            tiff = image.format == "TIFF"
            pages = int(getattr(image, "n_frames", 1)) if tiff else 1
            if not tiff or (pages == 1 and image.mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB") and not deep):
                grey = "uint16" if image.mode.startswith("I;16") else _GREY_KINDS.get(image.mode, "uint8")
                return Depth("uint16" if deep else grey, len(image.getbands()))
            alpha = image.mode == "RGBA" and not deep
    except OtherTiff:
        alpha = False
    head = tiff_head(path)
    return Depth(str(head.dtype), head.bands, head.pages, alpha and head.dtype == np.uint8, True, head.nodata)


def is_palette(path: Path) -> bool:
    """True for a file whose pixels are indices into a palette (of a PNG, GIF, BMP or TIFF)."""
    try:
        with opened(path) as image:
            return image.mode == "P"
    except OtherTiff:
        return False


def is_lossy(path: Path) -> bool:
    """Whether a file's pixels were compressed with loss: JPEG, WebP that is not lossless, TIFF with JPEG inside."""
    try:
        with opened(path) as image:
            if image.format == "WEBP":
                with open_regular(path) as file:
                    return b"VP8L" not in file.read(4096)
            return image.format in ("JPEG", "MPO", ON_REQUEST) or "jpeg" in str(image.info.get("compression", ""))
    except OtherTiff:
        return False


def page_count(path: Path) -> int:
    """Pages of a TIFF that are like its first one; 1 for every other file."""
    if not is_tiff(path):
        return 1
    try:
        with opened(path) as image:
            if int(getattr(image, "n_frames", 1)) == 1:
                return 1
    except OtherTiff:
        pass
    return tiff_head(path).pages


def has_band_pages(path: Path) -> bool:
    """Whether a TIFF's further pages are to be read as bands: it has several of one band each."""
    head = tiff_head(path) if is_tiff(path) else None
    return head is not None and head.pages > 1 and head.bands == 1


def is_other_tiff(path: Path) -> bool:
    """Whether a file is a TIFF that PIL does not know."""
    try:
        with opened(path):
            return False
    except OtherTiff:
        return True


def read_palette(path: Path) -> ImageArray | None:
    """The colours (256, 3) of a file of palette indices, None for any other; missing ones are black."""
    try:
        with opened(path) as image:
            if image.mode != "P":
                return None
            flat = image.getpalette("RGB") or []
    except OtherTiff:
        return None
    colours = np.zeros((256, 3), np.uint8)
    known = np.array(flat[: 3 * 256], np.uint8).reshape(-1, 3)
    colours[: len(known)] = known
    return colours
