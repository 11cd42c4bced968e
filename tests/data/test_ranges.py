"""Deep images, bands and pages: one stated range for a data set. Oracle: the 8-bit picture of the same values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from discs import HIGH, WIDE, Pixels, disc, put
from hypothesis import given
from hypothesis import strategies as st

from specialsam.core.errors import DataError, UsageError
from specialsam.core.settings import parse_settings
from specialsam.core.types import Reading
from specialsam.data import load, open_dataset
from specialsam.data.content import content_of, digest_file, digest_record
from specialsam.data.duplicates import thumbnail
from specialsam.data.headers import image_size
from specialsam.data.images import read_grey, read_image
from specialsam.data.ranges import span_of
from specialsam.data.read_settings import READ, ReadSettings
from specialsam.data.shading import shade

Write = Callable[[Path, Pixels], None]


def _set(root: Path, write: Write, ending: str = ".tif", count: int = 4) -> Path:
    for number in range(count):
        image, mask, _ = disc(number)
        (root / "images").mkdir(parents=True, exist_ok=True)
        write(root / f"images/{number}{ending}", image)
        put(root / f"masks/{number}.png", mask.astype(np.uint8) * 255)
    return root


def _opened(root: Path, how: ReadSettings = READ) -> tuple[list[Pixels], str]:
    dataset = open_dataset(root, how)
    assert not dataset.problems
    return [load(record).image for record in dataset.records], "; ".join(dataset.notes)


@pytest.mark.parametrize(("factor", "high"), [(4, 1023), (16, 4095), (64, 16383), (1, 255)])
@pytest.mark.parametrize("ending", [".tif", ".png"])
def test_bits_in_sixteen_bit_files(tmp_path: Path, factor: int, high: int, ending: str) -> None:
    """Grey times 4, 16, 64 in uint16 is 10, 12, 14 bits: the picture comes back to within a grey level."""

    def write(path: Path, image: Pixels) -> None:
        put(path, image[..., 1].astype(np.uint16) * factor)

    images, notes = _opened(_set(tmp_path, write, ending))
    for number, got in enumerate(images):
        assert np.abs(got[..., 0].astype(int) - disc(number)[0][..., 1]).max() <= 1
    assert f"0 (black) to {high} (white)" in notes
    assert "set data.levels" in notes


@pytest.mark.parametrize("ending", [".tif", ".png"])
def test_twelve_bits_of_colour(tmp_path: Path, ending: str) -> None:
    """PIL narrows 16-bit colours to their high byte; they are read whole."""

    def write(path: Path, image: Pixels) -> None:
        deep = image.astype(np.uint16) * 16
        if path.suffix == ".tif":
            tifffile.imwrite(path, deep, photometric="rgb")
        else:
            path.write_bytes(cv2.imencode(".png", deep[..., ::-1])[1].tobytes())

    images, notes = _opened(_set(tmp_path, write, ending))
    assert np.abs(images[1].astype(int) - disc(1)[0]).max() <= 1
    assert "12 bits" in notes


def _levels(path: Path, image: Pixels) -> None:
    put(path, image[..., 0].astype(np.uint16) * 16)


def test_full_sixteen_bits_are_read_as_before_under_the_same_digest(tmp_path: Path) -> None:
    root = _set(tmp_path, lambda path, image: put(path, image[..., 0].astype(np.uint16) * 257) and None)
    put(root / "images/0.tif", np.full((HIGH, WIDE), 65535, np.uint16))
    record = open_dataset(root).records[1]
    assert record.reading is None
    assert digest_record(record) == digest_file(record.image) == content_of(record).image
    assert np.array_equal(load(record).image[..., 0], disc(1)[0][..., 0])


def test_the_range_is_part_of_the_digest(tmp_path: Path) -> None:
    """Embeddings of the same file read by another range are others."""
    root = _set(tmp_path, _levels)
    record = open_dataset(root).records[0]
    other = open_dataset(root, ReadSettings(levels=(0, 2000))).records[0]
    digests = {digest_record(record), digest_record(other), digest_record(replace(record, reading=None))}
    assert len(digests) == 3
    assert all(digest.startswith("file:") for digest in digests)


def test_the_range_can_be_set(tmp_path: Path) -> None:
    images, notes = _opened(_set(tmp_path, _levels), ReadSettings(levels=(640, 3360)))
    expected = np.clip((disc(0)[0][..., 0].astype(float) * 16 - 640) * 255 / 2720, 0, 255)
    assert np.abs(images[0][..., 0] - expected).max() <= 1
    assert "as data.levels says" in notes
    for wrong in ({"levels": (5, 5)}, {"bands": (1, 2)}, {"bands": (-1,)}):
        with pytest.raises(UsageError, match="expected"):
            parse_settings(ReadSettings, wrong)


def test_one_range_for_dark_and_bright_images(tmp_path: Path) -> None:
    """A dark image stays dark beside a bright one: no image is stretched by itself."""

    def write(path: Path, image: Pixels) -> None:
        put(path, image[..., 0].astype(np.uint16) * (16 if path.stem == "0" else 2))

    images, _ = _opened(_set(tmp_path, write))
    assert images[1].max() < images[0].max() / 6


def test_a_few_hot_pixels_do_not_make_all_others_black(tmp_path: Path) -> None:
    def write(path: Path, image: Pixels) -> None:
        deep = image[..., 0].astype(np.uint16) * 4
        deep[0, 0] = 65535
        put(path, deep)

    images, notes = _opened(_set(tmp_path, write))
    assert images[0][1:].max() > 150
    assert "cut off" in notes


@pytest.mark.parametrize("kind", [np.uint32, np.int32, np.int64, np.float64])
def test_wide_integers_of_small_values(tmp_path: Path, kind: type) -> None:
    images, _ = _opened(_set(tmp_path, lambda path, image: tifffile.imwrite(path, image[..., 0].astype(kind))))
    assert np.abs(images[2][..., 0].astype(int) - disc(2)[0][..., 0]).max() <= 1


@pytest.mark.parametrize(("scale", "high"), [(1 / 255, 1), (100 / 255, 100), (1.0, 255), (10_000 / 255, 10_000)])
def test_floats_by_the_usual_scales(tmp_path: Path, scale: float, high: int) -> None:
    def write(path: Path, image: Pixels) -> None:
        tifffile.imwrite(path, (image[..., 0] * scale).astype(np.float32))

    images, notes = _opened(_set(tmp_path, write))
    assert np.abs(images[0][..., 0].astype(int) - disc(0)[0][..., 0]).max() <= 1
    assert high in (1, 255) or f"to {high} (white)" in notes


@pytest.mark.parametrize("nothing", [-9999.0, np.nan, -3.4028234663852886e38, np.inf])
def test_missing_data_in_floats_is_black_and_moves_nothing(tmp_path: Path, nothing: float) -> None:
    def write(path: Path, image: Pixels) -> None:
        shares = (image[..., 0] / 255).astype(np.float32)
        shares[:5] = nothing
        tifffile.imwrite(path, shares)

    images, _ = _opened(_set(tmp_path, write))
    assert not images[0][:5].any()
    assert np.abs(images[0][5:, :, 0].astype(int) - disc(0)[0][5:, :, 0]).max() <= 1


def test_missing_data_as_gdal_states_it(tmp_path: Path) -> None:
    def write(path: Path, image: Pixels) -> None:
        deep = image[..., 0].astype(np.uint16) * 16
        deep[:5] = 65535
        tifffile.imwrite(path, deep, extratags=[(42113, "s", 0, "65535", True)])

    images, notes = _opened(_set(tmp_path, write))
    assert not images[0][:5].any()
    assert images[0].max() > 150
    assert "65535 is missing data" in notes


def test_negative_integers_keep_one_range(tmp_path: Path) -> None:
    root = _set(tmp_path, lambda path, image: tifffile.imwrite(path, image[..., 0].astype(np.int16) * 8 - 1000))
    images, notes = _opened(root)
    assert max(image.max() for image in images) == 255
    assert "black" in notes


def test_near_infrared_that_is_called_alpha(tmp_path: Path) -> None:
    def write(path: Path, image: Pixels) -> None:
        band = np.full((HIGH, WIDE, 1), 120, np.uint8)
        tifffile.imwrite(path, np.dstack([image, band]), photometric="rgb", extrasamples=[2])

    images, notes = _opened(_set(tmp_path, write))
    assert np.array_equal(images[0], disc(0)[0])
    assert "first three bands count" in notes


def test_alpha_that_is_alpha_is_laid_over_black_as_before(tmp_path: Path) -> None:
    def write(path: Path, image: Pixels) -> None:
        alpha = np.full((HIGH, WIDE), 255, np.uint8)
        alpha[:10] = 0
        put(path, np.dstack([image, alpha]))

    images, _ = _opened(_set(tmp_path, write))
    assert not images[0][:10].any()
    assert np.array_equal(images[0][10:], disc(0)[0][10:])
    assert open_dataset(tmp_path).records[0].reading is None


@pytest.mark.parametrize("bands", [3, 4, 5, 8])
def test_bands_of_sixteen_bits_that_pil_does_not_know(tmp_path: Path, bands: int) -> None:
    def write(path: Path, image: Pixels) -> None:
        more = [np.full((HIGH, WIDE), 900, np.uint16)] * (bands - 3)
        stack = np.dstack([image.astype(np.uint16) * 16, *more])
        tifffile.imwrite(
            path, stack, photometric="minisblack", planarconfig="contig", compression="zlib", predictor=True
        )

    images, notes = _opened(_set(tmp_path, write))
    assert np.abs(images[0].astype(int) - disc(0)[0]).max() <= 1
    assert (bands == 3) or f"of {bands} bands the first three" in notes
    assert image_size(tmp_path / "images/0.tif") == (HIGH, WIDE)


def test_three_pages_are_bands_and_more_are_a_stack(tmp_path: Path) -> None:
    def pages(count: int) -> Write:
        def write(path: Path, image: Pixels) -> None:
            stack = np.concatenate([np.moveaxis(image, 2, 0), np.zeros((count - 3, HIGH, WIDE), np.uint8)])
            tifffile.imwrite(path, stack, photometric="minisblack")

        return write

    images, notes = _opened(_set(tmp_path / "a", pages(3)))
    assert np.array_equal(images[0], disc(0)[0])
    assert "of 3 pages the first three are read as red, green and blue" in notes
    images, notes = _opened(_set(tmp_path / "b", pages(7)))
    assert np.array_equal(images[0][..., 2], disc(0)[0][..., 0])
    assert "of 7 pages the first one counts" in notes
    images, _ = _opened(tmp_path / "b", ReadSettings(bands=(2, 1, 0)))
    assert np.array_equal(images[0], disc(0)[0][..., ::-1])


def test_a_tiff_that_cannot_be_decoded_is_one_line(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "x.tif", np.zeros((9, 9, 3), np.uint16), photometric="minisblack", planarconfig="contig"
    )
    content = bytearray((tmp_path / "x.tif").read_bytes())
    (tmp_path / "cut.tif").write_bytes(content[:-300])
    with pytest.raises(DataError, match=r"cut\.tif: ") as caught:
        read_image(tmp_path / "cut.tif")
    assert "\n" not in str(caught.value)
    place = content.index((259).to_bytes(2, "little") + (3).to_bytes(2, "little")) + 8
    content[place : place + 2] = (34925).to_bytes(2, "little")  # LZMA
    (tmp_path / "lzma.tif").write_bytes(content)
    with pytest.raises(DataError, match=r"lzma\.tif: ") as caught:
        read_image(tmp_path / "lzma.tif")
    assert "\n" not in str(caught.value)


def test_grey_and_thumbnails_follow_the_reading(tmp_path: Path) -> None:
    """A 12-bit file and its 8-bit twin have the same thumbnail, so near-duplicates are found as ever."""
    image = disc(3)[0][..., 0]
    deep = put(tmp_path / "deep.tif", image.astype(np.uint16) * 16)
    plain = put(tmp_path / "plain.png", image)
    reading = Reading(0, 4095)
    assert np.abs(thumbnail(deep, reading).astype(int) - thumbnail(plain)).max() <= 2
    assert np.abs(read_grey(deep, 500, reading).astype(int) - image).max() <= 1


@given(st.lists(st.integers(0, 65535), min_size=2, max_size=50), st.integers(0, 2**31))
def test_shading_keeps_order_and_ends(values: list[int], seed: int) -> None:
    """Properties: rising values give rising bytes, the range's ends are 0 and 255, what lies outside is clipped."""
    pixels = np.array(sorted(values), np.uint16)[None]
    (low, high), _ = span_of(pixels)
    out = shade(pixels, Reading(low, high))
    assert (np.diff(out[0].astype(int)) >= 0).all()
    assert shade(np.array([[low, high, high * 2 + 1]]), Reading(low, high)).tolist() == [[0, 255, 255]]
