"""TIFF in compressions that Pillow does not read at these depths. Oracle: the pixels that tifffile was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specialsam.core.errors import DataError
from specialsam.data import tiffs
from specialsam.data.images import read_image

PIXELS = np.random.default_rng(0).integers(0, 255, (31, 23, 3), np.uint8)


@pytest.mark.parametrize("compression", ["lzw", "zstd", "zlib", "packbits", "lzma", None])
@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
def test_the_same_pixels_in_every_compression(compression: str | None, deep: bool, tmp_path: Path) -> None:
    import tifffile

    pytest.importorskip("imagecodecs", reason="the extra tiff is not installed")
    given = PIXELS.astype(np.uint16) * 257 if deep else PIXELS
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, given, photometric="rgb", compression=compression)
    np.testing.assert_array_equal(tiffs.tiff_values(path), given)
    if not deep:
        np.testing.assert_array_equal(read_image(path), PIXELS)


def test_without_the_extra_the_line_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tifffile

    pytest.importorskip("imagecodecs", reason="the extra tiff is not installed")
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, PIXELS.astype(np.uint16), photometric="rgb", compression="zstd")

    def absent(*arguments: object, **options: object) -> None:
        raise ValueError("<COMPRESSION.ZSTD: 50000> requires the 'imagecodecs' package")

    monkeypatch.setattr(tiffs, "_values", absent)
    with pytest.raises(DataError, match=r'pip install "specialsam\[tiff\]"'):
        tiffs.tiff_values(path)
