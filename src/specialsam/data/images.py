"""Image files to arrays and back: every mode and depth of the formats listed, upright by EXIF, sizes checked first."""

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
from typing import BinaryIO, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin, _imaging  # noqa: F401 - plugins

from specialsam.core.errors import DataError
from specialsam.core.files import open_regular, write_whole
from specialsam.core.geometry import ImageArray, PixelArray
from specialsam.core.types import Reading
from specialsam.data.shading import as_rgb, shade
from specialsam.data.tiffs import MAGIC, is_tiff, tiff_head, tiff_pages, tiff_values

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
_Value = TypeVar("_Value", bound=np.generic)


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


def _formats() -> tuple[str, ...]:
    """What `Image.open` may try; without this list it would try every format that PIL knows."""
    return (*FORMATS, ON_REQUEST) if ON_REQUEST in Image.OPEN else FORMATS


def _content(file: BinaryIO) -> str:
    file.seek(0)
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


def _upright(pixels: npt.NDArray[_Value], orientation: int) -> npt.NDArray[_Value]:
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


def _load(image: Image.Image) -> None:
    """Decode the pixels. Of a TIFF whose strips end before its header says so, PIL would make up the rest in black."""
    if image.format == "TIFF":
        ends = [tile.extents[2:] for tile in getattr(image, "tile", ()) if tile.extents]
        covered = [max(sides) for sides in zip(*ends, strict=True)]
        if any(held < said for held, said in zip(sorted(covered), sorted(image.size), strict=False)):  # turned or not
            raise ValueError(f"its header says {image.width}x{image.height} pixels, it holds {covered[0]}x{covered[1]}")
    image.load()


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels after EXIF orientation, from the header alone; DataError if it is unreadable."""
    try:
        with opened(path) as image:
            width, height = image.size
            return (width, height) if _orientation(image) >= 5 else (height, width)
    except OtherTiff:
        head = tiff_head(path)
        return head.height, head.width


def exif_orientation(path: Path) -> int:
    """EXIF orientation 1..8 of an image file, 1 where none is stated."""
    try:
        with opened(path) as image:
            return _orientation(image)
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


def raw_values(path: Path, *, pages: bool = False, pixel_limit: int = PIXEL_LIMIT) -> PixelArray:
    """An image's values as they are stored, upright: (H, W) or (H, W, C); with `pages` a TIFF's pages are bands.

    Errors as in `read_image`.
    """
    check_size(path, image_size(path), pixel_limit)
    if is_tiff(path):
        if pages:
            return _pages_as_bands(tiff_pages(path))
        try:
            return tiff_values(path)
        except DataError:
            if _unknown(path):
                raise
            # else a compression that only libtiff knows
    with opened(path) as image:
        orientation = _orientation(image)
        if ";16" in str(getattr(image, "tile", "") or "") and len(image.getbands()) >= 3:
            return _upright(_deep_colour(path), orientation)
        _load(image)
        return _upright(np.asarray(image), orientation)


def _pages_as_bands(pages: PixelArray) -> PixelArray:
    """(pages, H, W[, bands]) to (H, W, pages); of pages with bands the first counts."""
    return pages[0] if pages.ndim == 4 else np.ascontiguousarray(np.moveaxis(pages, 0, 2))


def _deep_colour(path: Path) -> PixelArray:
    """Colours of 16 bits of a PNG, which PIL would narrow to 8: (H, W, 3 or 4) RGB."""
    with open_regular(path) as file:
        packed = np.frombuffer(file.read(), np.uint8)
    pixels = cv2.imdecode(packed, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3:
        raise DataError(f"{path}: the image is damaged or cut short; replace or remove it")
    return np.asarray(pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]])


def is_palette(path: Path) -> bool:
    """True for a file whose pixels are indices into a palette (of a PNG, GIF, BMP or TIFF)."""
    try:
        with opened(path) as image:
            return image.mode == "P"
    except OtherTiff:
        return False


def _to_rgb(image: Image.Image) -> ImageArray:
    """A decoded PIL image of any mode to uint8 (H, W, 3), not yet turned upright."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return np.repeat(shade(np.asarray(image))[..., None], 3, axis=2)
    if image.has_transparency_data or image.mode in ("LA", "La", "PA", "RGBa"):
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, rgba).convert("RGB"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def read_image(path: Path, reading: Reading | None = None, *, pixel_limit: int = PIXEL_LIMIT) -> ImageArray:
    """Read an image file as uint8 (H, W, 3) RGB, EXIF orientation applied.

    Grey, palette, 1-bit, CMYK, YCbCr and LAB are converted; deeper values are scaled as `reading` says, else by the
    file's own depth (`shading.own_span`); of an animation the first frame counts. Transparent pixels are laid over
    black: the colour that a file stores under full transparency is left over from editing and shows nothing.

    Raises DataError, in one line with the file's name, for a missing, foreign or damaged file, and for an image of
    more than `pixel_limit` pixels, which is not decoded.
    """
    if reading is not None:
        return shade(as_rgb(raw_values(path, pages=_many(path), pixel_limit=pixel_limit), reading.bands), reading)
    try:
        with opened(path) as image:
            check_size(path, (image.height, image.width), pixel_limit)
            orientation = _orientation(image)
            _load(image)
            return np.asarray(_upright(_to_rgb(image), orientation), np.uint8)
    except OtherTiff:
        return shade(as_rgb(raw_values(path, pixel_limit=pixel_limit)))


def _many(path: Path) -> bool:
    """Whether a TIFF's further pages are to be read as bands: it has several of one band each."""
    head = tiff_head(path) if is_tiff(path) else None
    return head is not None and head.pages > 1 and head.bands == 1


def read_grey(path: Path, least: int, reading: Reading | None = None) -> ImageArray:
    """Grey levels of an image as uint8 (h, w), upright, at an eighth, a quarter, half or all of its size.

    The shorter side keeps `least` pixels, if it has them. A JPEG is decoded no larger than that, several times as fast
    as by `read_image`. Errors, and `reading`, as there.
    """
    if reading is not None or _unknown(path):
        grey = cv2.cvtColor(read_image(path, reading), cv2.COLOR_RGB2GRAY)
        return _smaller(np.asarray(grey, np.uint8), least)
    with opened(path) as image:
        check_size(path, (image.height, image.width))
        orientation = _orientation(image)
        factor = next((factor for factor in (8, 4, 2) if min(image.size) >= least * factor), 1)
        size = (image.width // factor, image.height // factor)
        if factor > 1:
            image.draft("L", size)
        _load(image)
        grey = np.asarray(image) if image.mode == "L" else cv2.cvtColor(_to_rgb(image), cv2.COLOR_RGB2GRAY)
        if factor > 1 and image.format not in ("JPEG", "MPO"):
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR_EXACT)
        return np.asarray(_upright(grey, orientation), np.uint8)


def decoded(content: bytes) -> PixelArray:
    """The pixels (H, W[, C]) of a small picture that lies within another file; DataError for what is none."""
    try:
        with _without_pil_limit(), Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            check_size(Path("picture"), (image.height, image.width))
            image.load()
            return np.asarray(image)
    except _DECODING_ERRORS as error:
        raise DataError(f"expected a picture as PNG or JPEG, cannot read it ({type(error).__name__})") from error


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


def read_alpha(path: Path, *, pixel_limit: int = PIXEL_LIMIT) -> ImageArray | None:
    """The alpha channel (H, W) of a file that has one, upright; None for any other. Errors as in `read_image`."""
    try:
        with opened(path) as image:
            if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
                return None
            check_size(path, (image.height, image.width), pixel_limit)
            orientation = _orientation(image)
            _load(image)
            return np.asarray(_upright(np.asarray(image.convert("RGBA"))[..., 3], orientation), np.uint8)
    except OtherTiff:
        return None


def _unknown(path: Path) -> bool:
    """Whether a file is a TIFF that PIL does not know."""
    try:
        with opened(path):
            return False
    except OtherTiff:
        return True


def _smaller(grey: ImageArray, least: int) -> ImageArray:
    height, width = grey.shape
    factor = next((factor for factor in (8, 4, 2) if min(grey.shape) >= least * factor), 1)
    size = (width // factor, height // factor)
    return np.asarray(grey if factor == 1 else cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)


def read_mask_pixels(path: Path, *, pixel_limit: int = PIXEL_LIMIT) -> PixelArray:
    """Read a mask file without interpretation: (H, W) or (H, W, C) raw values, EXIF orientation applied.

    A palette file keeps its indices (uint8), a 1-bit file is bool, 16-bit stays uint16, colour stays uint8 (H, W, C).
    32-bit integers become uint8 or uint16 where all values fit. Floats become the integers that they are, or, where
    they are fractions in 0..1, uint8 in 0..255. Errors as in `read_image`.
    """
    try:
        with opened(path) as image:
            check_size(path, (image.height, image.width), pixel_limit)
            orientation, format_name = _orientation(image), image.format
            _load(image)
            pixels = np.asarray(image)
    except OtherTiff:
        return narrowed(path, raw_values(path, pixel_limit=pixel_limit))
    if pixels.dtype.byteorder == ">":
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if pixels.dtype in (np.int32, np.float32):
        pixels = narrowed(path, pixels, np.uint16 if format_name == "PNG" else np.uint8)
    return _upright(pixels, orientation)


def narrowed(path: Path, pixels: PixelArray, smallest: type[np.uint8] | type[np.uint16] = np.uint8) -> PixelArray:
    """Wide mask values (H, W[, C]) to the narrowest unsigned type that holds them, at least `smallest`."""
    if pixels.dtype in (np.uint8, np.uint16, np.bool_):
        return pixels
    low, high = float(pixels.min()), float(pixels.max())
    if np.isfinite([low, high]).all() and (pixels == np.rint(pixels)).all():
        if low == -1:  # "no label" of many libraries
            pixels, low = np.where(pixels < 0, 0, pixels), 0.0
        for dtype in (np.uint8, np.uint16, np.uint32):
            if low >= 0 and high <= np.iinfo(dtype).max and np.iinfo(dtype).max >= np.iinfo(smallest).max:
                return pixels.astype(dtype)
    elif low >= 0 and high <= 1:
        return np.asarray(np.rint(pixels * 255), np.uint8)
    raise DataError(f"{path}: expected a mask of integers from 0 on or fractions in 0..1, got {low}..{high}")


def write_png(path: Path, array: PixelArray) -> None:
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
