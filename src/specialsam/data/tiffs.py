"""TIFF by its own tags (tifffile): what PIL does not know or would narrow - bands of 16 and 32 bits, 64 bits, pages."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.files import open_regular
from specialsam.core.geometry import PixelArray

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How TIFF and BigTIFF begin."""
GDAL_NODATA, ORIENTATION = 42113, 274
REDUCED, MASK_PAGE = 1, 4
"""Bits of a page's NewSubfileType: a smaller copy of another page, a transparency mask."""
MOST_PAGES = 4096
MOST_BYTES = 8_000_000_000
MIN_IS_WHITE = 0


@dataclass(frozen=True)
class TiffHead:
    """What a file's first page says: its size, samples a pixel, how many pages are like it, its values."""

    height: int
    width: int
    bands: int
    pages: int
    dtype: np.dtype[Any]
    nodata: float | None = None

    def __str__(self) -> str:
        pages = f", {self.pages} pages" if self.pages > 1 else ""
        return f"{self.width}x{self.height} pixels of {self.bands} x {self.dtype}{pages}"


def is_tiff(path: Path) -> bool:
    """True for a regular file that begins as a TIFF does; never an error."""
    try:
        with open_regular(path) as file:
            return file.read(4) in MAGIC
    except (OSError, DataError):
        return False


@contextmanager
def _tiff(path: Path) -> Iterator[TiffFile]:
    """An open TIFF; whatever is wrong with it becomes one DataError that names the file."""
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    logging.getLogger("tifffile").propagate = False
    try:
        with open_regular(path) as file, tifffile.TiffFile(file) as tiff:
            yield tiff
    except DataError:
        raise
    except Exception as error:  # tifffile raises errors of many kinds on damaged files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "imagecodecs" in reason:
            raise DataError(
                f"{path}: this TIFF's compression needs the package imagecodecs; "
                'pip install "specialsam[tiff]", or save the file uncompressed'
            ) from error
        raise DataError(f"{path}: the TIFF is damaged or cut short ({reason}); replace or remove it") from error


def tiff_head(path: Path) -> TiffHead:
    """The header of a TIFF; DataError in one line for what is none."""
    with _tiff(path) as tiff:
        return _head(tiff, path)


def _head(tiff: TiffFile, path: Path) -> TiffHead:
    page = _page(tiff, 0)
    if page.dtype is None or page.dtype.kind not in "biuf":
        raise DataError(f"{path}: expected a TIFF of integers or floats, got values of the kind {page.dtype}")
    height, width = int(page.imagelength), int(page.imagewidth)
    if _orientation(page) >= 5:
        height, width = width, height
    bands = int(page.samplesperpixel)
    like = sum(1 for other in _like(tiff, page))
    stated = page.tags.get(GDAL_NODATA)
    return TiffHead(height, width, bands, like, np.dtype(page.dtype), _number(stated.value if stated else None))


def _page(tiff: TiffFile, index: int) -> TiffPage:
    page: Any = tiff.pages[index]
    return page.aspage() if hasattr(page, "aspage") else page


def _like(tiff: TiffFile, first: TiffPage) -> Iterator[int]:
    """Indices of the pages that have the first one's size and values; smaller copies and transparency do not count."""
    for index in range(min(len(tiff.pages), MOST_PAGES)):
        page = _page(tiff, index)
        kind = int(page.subfiletype or 0)
        same = (page.imagelength, page.imagewidth, page.samplesperpixel, page.dtype) == (
            first.imagelength,
            first.imagewidth,
            first.samplesperpixel,
            first.dtype,
        )
        if index == 0 or (same and not kind & (REDUCED | MASK_PAGE)):
            yield index


def _number(text: object) -> float | None:
    try:
        value = float(str(text).strip().strip("\0"))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def tiff_values(path: Path) -> PixelArray:
    """The first page's own values, (H, W) or (H, W, C), turned as its orientation says."""
    with _tiff(path) as tiff:
        return _values(_page(tiff, 0), path)


def tiff_pages(path: Path) -> PixelArray:
    """All pages that are like the first, (P, H, W[, C])."""
    with _tiff(path) as tiff:
        first = _page(tiff, 0)
        return np.stack([_values(_page(tiff, index), path) for index in _like(tiff, first)])


def _values(page: TiffPage, path: Path) -> PixelArray:
    if page.nbytes > MOST_BYTES:
        raise DataError(f"{path}: the TIFF's values take {page.nbytes / 1e9:.0f} GB; cut it into tiles")
    pixels = np.asarray(page.asarray())
    axes = page.axes
    for axis in [name for name in axes if name not in "YXS"]:
        pixels = np.take(pixels, 0, axes.index(axis))
        axes = axes.replace(axis, "", 1)
    if sorted(axes) not in (sorted("YX"), sorted("YXS")):
        raise DataError(f"{path}: expected a TIFF of rows and columns, got the axes {page.axes}")
    pixels = pixels.transpose([axes.index(axis) for axis in "YXS" if axis in axes])
    if page.photometric is not None and int(page.photometric) == MIN_IS_WHITE and pixels.dtype.kind == "u":
        pixels = np.iinfo(pixels.dtype).max - pixels
    if pixels.dtype.byteorder == ">":
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return np.ascontiguousarray(_turned(pixels, page))


def _orientation(page: TiffPage) -> int:
    tag = page.tags.get(ORIENTATION)
    return int(tag.value) if tag is not None and isinstance(tag.value, int) else 1


def _turned(pixels: PixelArray, page: TiffPage) -> PixelArray:
    value = _orientation(page)
    if value >= 5:
        pixels = pixels.swapaxes(0, 1)
    if value in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if value in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
