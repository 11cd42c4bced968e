"""The pixels of image files, as arrays and back: every mode and depth of the formats listed, upright by EXIF."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from specialsam.core.errors import DataError
from specialsam.core.files import open_regular, write_whole
from specialsam.core.geometry import ImageArray, PixelArray
from specialsam.core.types import Reading
from specialsam.data.headers import (
    PIXEL_LIMIT,
    OtherTiff,
    check_size,
    has_band_pages,
    image_size,
    is_other_tiff,
    opened,
    opened_content,
    orientation_of,
)
from specialsam.data.shading import as_rgb, shade
from specialsam.data.tiffs import is_tiff, tiff_pages, tiff_values

_Value = TypeVar("_Value", bound=np.generic)


def _upright(pixels: npt.NDArray[_Value], orientation: int) -> npt.NDArray[_Value]:
    """Turn and mirror (H, W[, C]) pixels as EXIF orientation 1..8 asks."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _load(image: Image.Image) -> None:
    """Decode the pixels. Of a TIFF whose strips end before its header says so, PIL would make up the rest in black."""
    if image.format == "TIFF":
        ends = [tile.extents[2:] for tile in getattr(image, "tile", ()) if tile.extents]
        covered = [max(sides) for sides in zip(*ends, strict=True)]
        if any(held < said for held, said in zip(sorted(covered), sorted(image.size), strict=False)):  # turned or not
            raise ValueError(f"its header says {image.width}x{image.height} pixels, it holds {covered[0]}x{covered[1]}")
    image.load()


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
            if is_other_tiff(path):
                raise
            # else a compression that only libtiff knows
    with opened(path) as image:
        orientation = orientation_of(image)
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


def _to_rgb(image: Image.Image) -> ImageArray:
    """A decoded PIL image of any mode to uint8 (H, W, 3), not yet turned upright."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return np.repeat(shade(np.asarray(image))[..., None], 3, axis=2)
    if image.has_transparency_data or image.mode in ("LA", "La", "PA", "RGBa"):
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, rgba).convert("RGB"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def read_image(path: Path | str, reading: Reading | None = None, *, pixel_limit: int = PIXEL_LIMIT) -> ImageArray:
    """Read an image file as uint8 (H, W, 3) RGB, EXIF orientation applied.

    Grey, palette, 1-bit, CMYK, YCbCr and LAB are converted; deeper values are scaled as `reading` says, else by the
    file's own depth (`shading.own_span`); of an animation the first frame counts. Transparent pixels are laid over
    black: the colour that a file stores under full transparency is left over from editing and shows nothing.

    Raises DataError, in one line with the file's name, for a missing, foreign or damaged file, and for an image of
    more than `pixel_limit` pixels, which is not decoded.
    """
    path = Path(path)
    if reading is not None:
        values = raw_values(path, pages=has_band_pages(path), pixel_limit=pixel_limit)
        return shade(as_rgb(values, reading.bands), reading)
    try:
        with opened(path) as image:
            check_size(path, (image.height, image.width), pixel_limit)
            orientation = orientation_of(image)
            _load(image)
            return np.asarray(_upright(_to_rgb(image), orientation), np.uint8)
    except OtherTiff:
        return shade(as_rgb(raw_values(path, pixel_limit=pixel_limit)))


def read_grey(path: Path, least: int, reading: Reading | None = None) -> ImageArray:
    """Grey levels of an image as uint8 (h, w), upright, at an eighth, a quarter, half or all of its size.

    The shorter side keeps `least` pixels, if it has them. A JPEG is decoded no larger than that, several times as fast
    as by `read_image`. Errors, and `reading`, as there.
    """
    if reading is not None or is_other_tiff(path):
        grey = cv2.cvtColor(read_image(path, reading), cv2.COLOR_RGB2GRAY)
        return _smaller(np.asarray(grey, np.uint8), least)
    with opened(path) as image:
        check_size(path, (image.height, image.width))
        orientation = orientation_of(image)
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
    with opened_content(content) as image:
        image.load()
        return np.asarray(image)


def read_alpha(path: Path, *, pixel_limit: int = PIXEL_LIMIT) -> ImageArray | None:
    """The alpha channel (H, W) of a file that has one, upright; None for any other. Errors as in `read_image`."""
    try:
        with opened(path) as image:
            if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
                return None
            check_size(path, (image.height, image.width), pixel_limit)
            orientation = orientation_of(image)
            _load(image)
            return np.asarray(_upright(np.asarray(image.convert("RGBA"))[..., 3], orientation), np.uint8)
    except OtherTiff:
        return None


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
            orientation, format_name = orientation_of(image), image.format
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
