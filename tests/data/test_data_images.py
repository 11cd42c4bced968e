"""Image files: every mode and depth, EXIF, damage, sizes. Oracles: PIL's own transposition, values written by hand."""

from __future__ import annotations

import io
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import BmpImagePlugin, EpsImagePlugin, Image, ImageOps

import specialsam
from specialsam.core.errors import DataError, SpecialSamError
from specialsam.data import headers
from specialsam.data.headers import image_size
from specialsam.data.images import read_grey, read_image, read_mask_pixels, write_png


def _gradient() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def _huge_png(path: Path, width: int, height: int) -> Path:
    """A PNG header of the given size with next to no pixels behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_exif_orientation_is_applied_everywhere(tmp_path: Path, orientation: int, ending: str) -> None:
    """Oracle: PIL's exif_transpose."""
    path = tmp_path / f"turned.{ending}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(_gradient()).save(path, exif=exif, **options)
    plain = tmp_path / "plain.png"
    Image.fromarray(_gradient()).save(plain, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(plain)))
    assert np.array_equal(read_image(path), expected)
    assert np.array_equal(read_mask_pixels(path), expected)
    assert image_size(path) == expected.shape[:2]


def test_exif_of_a_jpeg_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :8] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    upright = read_image(tmp_path / "photo.jpg")
    assert upright.shape == (32, 16, 3)
    assert upright[:7].min() > 240
    assert upright[9:].max() < 15


def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    Image.fromarray(_gradient()).save(tmp_path / "x.png", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f broken")
    assert np.array_equal(read_image(tmp_path / "x.png"), _gradient())


def test_sixteen_bit_grey_is_scaled_by_its_range(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 32896, 65535, 128, 129]], np.uint16)
    for name in ("x.png", "x.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        assert read_image(tmp_path / name)[..., 0].tolist() == [[0, 1, 128, 255, 0, 1]]
        raw = read_mask_pixels(tmp_path / name)
        assert raw.dtype == np.uint16
        assert np.array_equal(raw, deep)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.4, 255.0], [0, 100, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-2.0, 0.0, 2.0], [0, 128, 255]),
        ([np.nan, 0.0, 1.0], [0, 0, 255]),
    ],
)
def test_float_tiff(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif")[0, :, 1].tolist() == expected


def test_modes_become_rgb(tmp_path: Path) -> None:
    """Values by hand: one pixel of each mode, colour (200, 100, 50) where the mode has colours."""
    rgb = Image.new("RGB", (3, 2), (200, 100, 50))
    cases = {
        "grey.png": (Image.new("L", (3, 2), 77), (77, 77, 77)),
        "bit.png": (Image.new("1", (3, 2), 1), (255, 255, 255)),
        "palette.png": (rgb.quantize(4), (200, 100, 50)),
        "opaque.png": (rgb.convert("RGBA"), (200, 100, 50)),
        "hidden.png": (Image.new("RGBA", (3, 2), (200, 100, 50, 0)), (0, 0, 0)),
        "half.png": (Image.new("RGBA", (3, 2), (200, 100, 50, 128)), (100, 50, 25)),
        "la.png": (Image.new("LA", (3, 2), (200, 0)), (0, 0, 0)),
        "cmyk.jpg": (Image.new("CMYK", (3, 2), (0, 0, 0, 55)), (200, 200, 200)),
        "cmyk.tif": (Image.new("CMYK", (3, 2), (0, 0, 0, 55)), (200, 200, 200)),
    }
    for name, (image, colour) in cases.items():
        image.save(tmp_path / name)
        out = read_image(tmp_path / name)
        assert out.shape == (2, 3, 3), name
        assert out.dtype == np.uint8
        assert np.abs(out.astype(int) - colour).max() <= 2, (name, out[0, 0])


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "x.gif")[0, 0].tolist() == [255, 0, 0]


def test_mask_pixels_keep_palette_indices_and_colours(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2], [3, 0, 0]], np.uint8)
    palette = Image.fromarray(labels)
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "p.png")
    assert np.array_equal(read_mask_pixels(tmp_path / "p.png"), labels)
    Image.fromarray(_gradient()).save(tmp_path / "rgb.png")
    assert np.array_equal(read_mask_pixels(tmp_path / "rgb.png"), _gradient())
    Image.fromarray(labels > 0).save(tmp_path / "bit.png")
    assert read_mask_pixels(tmp_path / "bit.png").dtype == np.bool_
    for name, values, dtype in (
        ("whole.tif", np.array([[0.0, 255.0]], np.float32), np.uint8),
        ("share.tif", np.array([[0.0, 0.5]], np.float32), np.uint8),
        ("int.tif", np.array([[0, 300]], np.int32), np.uint16),
    ):
        Image.fromarray(values).save(tmp_path / name)
        assert read_mask_pixels(tmp_path / name).dtype == dtype, name
    assert read_mask_pixels(tmp_path / "share.tif").tolist() == [[0, 128]]
    Image.fromarray(np.array([[-1.5, 3e9]], np.float32)).save(tmp_path / "wild.tif")
    with pytest.raises(DataError, match="expected a mask of integers"):
        read_mask_pixels(tmp_path / "wild.tif")


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    write_png(tmp_path / "dot.png", np.array([[[1, 2, 3]]], np.uint8))
    assert read_image(tmp_path / "dot.png").tolist() == [[[1, 2, 3]]]
    assert image_size(tmp_path / "dot.png") == (1, 1)


def test_huge_image_is_refused_by_its_header(tmp_path: Path) -> None:
    """400 megapixels: PIL alone would raise its own bomb error above 179 and warn above 89."""
    path = _huge_png(tmp_path / "huge.png", 20_000, 20_000)
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_size(path) == (20_000, 20_000)
        for read in (read_image, read_mask_pixels):
            with pytest.raises(DataError, match=r"huge\.png: 20000x20000 .* 400 megapixels.* limit of 200; cut it"):
                read(path)
        with pytest.raises(DataError, match="damaged or cut short"):
            read_image(_huge_png(tmp_path / "wide.png", 12_000, 8_000))
    assert limit == Image.MAX_IMAGE_PIXELS, "PIL's global limit is put back"


def test_pixel_limit_can_be_changed(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", _gradient())
    assert read_image(tmp_path / "x.png", pixel_limit=54).shape == (6, 9, 3)
    with pytest.raises(DataError, match="raise the pixel limit"):
        read_image(tmp_path / "x.png", pixel_limit=53)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp", "bmp", "gif"])
def test_every_cut_of_a_file_is_one_line(tmp_path: Path, ending: str) -> None:
    """Cut at any place, a file either still decodes in full (trailing bytes) or gives one line that names it."""
    whole = tmp_path / f"whole.{ending}"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)).save(whole)
    content = whole.read_bytes()
    messages = []
    for part in range(20):
        path = tmp_path / f"cut{part}.{ending}"
        path.write_bytes(content[: len(content) * part // 20])
        try:
            read_image(path)
        except DataError as error:
            messages.append(str(error))
    assert len(messages) >= 15
    assert all(message.startswith(str(tmp_path)) and "\n" not in message for message in messages)


@given(hnp.arrays(np.uint8, st.integers(0, 300)), st.sampled_from(["png", "jpg", "tif", "gif", "webp", "bmp"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_is_one_line(tmp_path: Path, noise: np.ndarray, ending: str) -> None:
    """Random bytes behind a real file's head never escape as another error."""
    whole = tmp_path / f"whole.{ending}"
    Image.fromarray(_gradient()).save(whole)
    path = tmp_path / f"garbage.{ending}"
    path.write_bytes(whole.read_bytes()[:60] + noise.tobytes())
    try:
        outcome = f"{path}: {read_image(path).shape}"
    except DataError as error:
        outcome = str(error)
    assert outcome.startswith(str(path))
    assert "\n" not in outcome


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello, this is text")
    (tmp_path / "empty.png").touch()
    for name, message in (
        ("text.png", "got something else"),
        ("empty.png", "the file is empty"),
        ("nothing.png", "found nothing there"),
        (".", "got a folder"),
    ):
        for read in (read_image, read_mask_pixels, image_size):
            with pytest.raises(DataError, match=message):
                read(tmp_path / name)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


@pytest.mark.parametrize("content", [POSTSCRIPT, b"%PDF-1.7\n", SVG, b"\xc5\xd0\xd3\xc6" + bytes(30)])
def test_no_file_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """PostScript under an image's name starts Ghostscript in PIL, which the control below shows."""
    started: list[object] = []

    def start(*arguments: object, **_: object) -> None:
        started.append(arguments)
        raise OSError("no program may be started")

    for name in ("Popen", "run", "call", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, name, start)
    monkeypatch.setattr(os, "system", start)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # PIL asks once a process
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    for read in (read_image, read_mask_pixels, image_size, headers.exif_orientation, headers.is_palette):
        with pytest.raises(DataError, match=r"photo\.jpg: expected an image file \(JPEG, .*\), got something else"):
            read(path)
    assert started == []
    if content is POSTSCRIPT:
        with pytest.raises(OSError, match="Ghostscript"):
            Image.open(path).load()
        assert len(started) == 1, "the control: PIL on its own looks for Ghostscript"


@pytest.mark.parametrize("format_name", ["EPS", "ICO", "JPEG2000", "PCX", "SGI", "TGA", "DDS", "IM", "PDF"])
def test_only_listed_formats_are_read(tmp_path: Path, format_name: str) -> None:
    """Oracle: PIL itself, which writes each of these and reads all but the last."""
    path = tmp_path / "photo.png"
    Image.fromarray(_gradient()).save(path, format_name)
    with pytest.raises(DataError, match="got something else") as error:
        read_image(path)
    assert "\n" not in str(error.value)


def test_pictures_are_opened_in_one_place() -> None:
    """Whatever else opened one would have to be as careful; OpenCV ends the process at a name that is no UTF-8.

    Films and cameras are read by OpenCV, in a process that may end.
    """
    opening = re.compile(r"Image\.open\(|cv2\.(imread|imwrite|imreadmulti|VideoCapture)\(")
    root = Path(specialsam.__file__).parent
    found = [
        path.relative_to(root).as_posix() for path in root.rglob("*.py") if opening.search(path.read_text("utf-8"))
    ]
    assert sorted(found) == ["apps/line/grabbing.py", "data/headers.py"]
    assert "VideoCapture" in (root / "apps/line/grabbing.py").read_text("utf-8")
    assert not re.search(r"Image\.open\(|cv2\.im", (root / "apps/line/grabbing.py").read_text("utf-8"))


def test_heif_is_read_where_it_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for pillow-heif: a format of that name whose files begin with "heif" and hold a BMP."""
    buffer = io.BytesIO()
    Image.fromarray(_gradient()).save(buffer, "BMP")
    (tmp_path / "x.jpg").write_bytes(b"heif" + buffer.getvalue())
    with pytest.raises(DataError, match="got something else"):
        read_image(tmp_path / "x.jpg")

    def opener(file: io.BufferedReader, name: str) -> Image.Image:
        file.seek(4)
        return BmpImagePlugin.BmpImageFile(io.BytesIO(file.read()))

    monkeypatch.setitem(Image.OPEN, "HEIF", (opener, lambda prefix: prefix.startswith(b"heif")))
    assert np.array_equal(read_image(tmp_path / "x.jpg"), _gradient())


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pipe", "expected a file, got a named pipe"),
        ("socket", "expected a file, got a socket"),
        ("device", "expected a file, got a device"),
        ("folder", "expected a file, got a folder"),
        ("loop", "cannot be read .*symbolic links"),
        ("dangling", "found nothing there"),
    ],
)
def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: str) -> None:
    """A pipe that nobody writes to, read as a file, would wait for ever; /dev/zero would never end."""
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = Path("x.png")
    with socket.socket(socket.AF_UNIX) as made:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            made.bind(str(path))
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to({"device": "/dev/zero", "loop": "x.png", "dangling": "nowhere.png"}[kind])
        for read in (read_image, read_mask_pixels, image_size, lambda place: read_grey(place, 8)):
            with pytest.raises(DataError, match=rf"^x\.png: .*{words}"):
                read(path)


def test_a_tiff_that_holds_less_than_its_header_says(tmp_path: Path) -> None:
    """PIL would make up the rest in black; the tag of the height (0x0101) is changed by hand."""
    path = tmp_path / "x.tif"
    Image.fromarray(_gradient()).save(path)
    content = path.read_bytes()
    height = struct.pack("<HHI", 0x0101, 4, 1)
    assert content.count(height + struct.pack("<I", 6)) == 1
    path.write_bytes(content.replace(height + struct.pack("<I", 6), height + struct.pack("<I", 9999)))
    assert image_size(path) == (9999, 9)
    with pytest.raises(DataError, match=r"its header says 9x9999 pixels, it holds 9x6"):
        read_image(path)


def _whole(format_name: str, **options: object) -> bytes:
    """A small picture with an EXIF block, as a file of the given kind."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    Image.fromarray(_gradient()).resize((24, 16)).save(buffer, format_name, exif=exif, **options)
    return buffer.getvalue()


WHOLE = {
    "png": _whole("PNG"),
    "jpg": _whole("JPEG"),
    "progressive.jpg": _whole("JPEG", progressive=True),
    "tif": _whole("TIFF"),
    "lzw.tif": _whole("TIFF", compression="tiff_lzw"),
    "deflate.tif": _whole("TIFF", compression="tiff_deflate"),
    "jpeg.tif": _whole("TIFF", compression="jpeg"),
    "bmp": _whole("BMP"),
    "webp": _whole("WEBP"),
    "lossless.webp": _whole("WEBP", lossless=True),
}


@st.composite
def _damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """Random bytes, or a valid file of each kind with bytes changed, cut out, put in or cut off."""
    name = draw(st.sampled_from(sorted(WHOLE)))
    if draw(st.integers(0, 9)) == 0:
        return name, draw(st.binary(max_size=200))
    content = bytearray(WHOLE[name])
    for _ in range(draw(st.integers(1, 6))):
        near = draw(st.sampled_from([40, 200, len(content)]))
        place = draw(st.integers(0, max(0, min(near, len(content)) - 1)))
        how = draw(st.sampled_from(["byte", "byte", "byte", "word", "out", "in", "end"]))
        if how == "byte":
            content[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif how == "word":
            content[place : place + 4] = draw(
                st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\1\0\0"])
            )
        elif how == "out":
            del content[place : place + draw(st.integers(1, 20))]
        elif how == "in":
            content[place:place] = draw(st.binary(min_size=1, max_size=12))
        else:
            del content[place:]
    return name, bytes(content)


@given(_damaged())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_an_image_or_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], case: tuple[str, bytes]
) -> None:
    """Pixels or DataError, and not a word of libtiff, libjpeg or numpy beside it; of PIL's see the test below."""
    path = tmp_path / case[0]
    path.write_bytes(case[1])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            pixels = read_image(path)
            said = f"{path}: good" if (pixels.dtype, pixels.shape) == (np.uint8, (*image_size(path), 3)) else "odd"
        except DataError as error:
            said = str(error)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    others = [str(one.message) for one in warned if "PIL" not in Path(one.filename).parts]
    assert ([*capfd.readouterr()], others) == (["", ""], [])


READER = """
import sys
if sys.argv[1] == "ours":
    from specialsam.data.images import read_image as read
else:
    from PIL import Image
    def read(path):
        Image.open(path).load()
from pathlib import Path
for path in map(Path, sys.argv[2:]):
    try:
        read(path)
    except Exception as error:
        assert sys.argv[1] == "PIL" or type(error).__name__ == "DataError", error
"""


def test_a_process_that_reads_damaged_files_says_nothing(tmp_path: Path) -> None:
    """The control: of the same files PIL on its own warns, logs, and lets libtiff print."""
    for number, (name, content) in enumerate(WHOLE.items()):
        (tmp_path / f"{number}cut.{name}").write_bytes(content[: len(content) - 60])
        (tmp_path / f"{number}odd.{name}").write_bytes(content[:40] + b"\xff\x00" * 8 + content[56:])
    content = bytearray(WHOLE["tif"])
    place = content.index(struct.pack("<HHI", 0x0115, 3, 1)) + 8  # samples a pixel
    content[place : place + 2] = struct.pack("<H", 9999)
    (tmp_path / "samples.tif").write_bytes(content)
    said = {}
    for reader in ("ours", "PIL"):
        command = [sys.executable, "-c", READER, reader, *sorted(tmp_path.iterdir())]
        said[reader] = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (said["ours"].stdout, said["ours"].stderr) == ("", "")
    for words in ("UserWarning", "More samples per pixel", "Decod"):
        assert words in said["PIL"].stderr


def test_the_undamaged_files_are_read(tmp_path: Path) -> None:
    """The files that the test above damages are good ones, upright by their EXIF block."""
    for name, content in WHOLE.items():
        (tmp_path / name).write_bytes(content)
        assert read_image(tmp_path / name).shape == (24, 16, 3) if name != "bmp" else (16, 24, 3), name


def test_grey_levels_keep_enough_pixels(tmp_path: Path) -> None:
    """Sizes by hand: the smallest of 1/8, 1/4, 1/2 that leaves 20 pixels. Oracle of the levels: OpenCV's averaging."""
    smooth = cv2.resize(np.random.default_rng(3).integers(0, 256, (5, 9), np.uint8), (360, 176))
    for name in ("x.png", "x.jpg", "x.tif"):
        Image.fromarray(smooth).save(tmp_path / name)
        grey = read_grey(tmp_path / name, 20)
        assert grey.shape == (22, 45), name
        expected = cv2.resize(smooth, (45, 22), interpolation=cv2.INTER_AREA)
        assert np.abs(grey.astype(int) - expected).max() <= 12, name
    assert read_grey(tmp_path / "x.png", 30).shape == (44, 90)
    assert read_grey(tmp_path / "x.png", 200).shape == (176, 360)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(smooth).save(tmp_path / "x.jpg", exif=turned)
    assert read_grey(tmp_path / "x.jpg", 20).shape == (45, 22)


def test_threads_share_the_reader(tmp_path: Path) -> None:
    """PIL's global limit is lifted and put back by many readers at once."""
    write_png(tmp_path / "x.png", _gradient())
    limit = Image.MAX_IMAGE_PIXELS
    wrong: list[bool] = []

    def work() -> None:
        wrong.extend(not np.array_equal(read_image(tmp_path / "x.png"), _gradient()) for _ in range(30))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 180
    assert not any(wrong)
    assert limit == Image.MAX_IMAGE_PIXELS
    assert headers._lifted.users == 0


@given(
    st.one_of(
        hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)),
        hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)),
        hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)),
        hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_png_round_trip(tmp_path: Path, array: np.ndarray) -> None:
    write_png(tmp_path / "x.png", array)
    expected = array.astype(np.uint8) * 255 if array.dtype == np.bool_ else array
    assert np.array_equal(read_mask_pixels(tmp_path / "x.png"), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png(tmp_path / "x.png", _gradient())
    with pytest.raises(DataError, match="expected grey or RGB pixels"):
        write_png(tmp_path / "x.png", np.zeros((2, 2, 2), np.float32))
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecialSamError, match="cannot write"):
        write_png(tmp_path / "file" / "x.png", _gradient())
    (tmp_path / "file").unlink()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(SpecialSamError, match="No space left"):
        write_png(tmp_path / "x.png", np.zeros((2, 2), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    assert np.array_equal(read_image(tmp_path / "x.png"), _gradient())


def test_a_path_may_be_a_text(tmp_path: Path) -> None:
    write_png(tmp_path / "photo.png", _gradient())
    np.testing.assert_array_equal(specialsam.read_image(str(tmp_path / "photo.png")), _gradient())
