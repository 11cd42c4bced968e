"""Photographs to look at. Oracles: trees and EXIF blocks written by hand, and the promise that trouble is a problem."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from specialsam.apps.photographs import LINK, Exif, exif_of, gather, reason_for, register_heif
from specialsam.core.errors import DataError, SpecialSamError, UsageError
from specialsam.core.names import printable
from specialsam.data.headers import ON_REQUEST
from specialsam.data.images import read_image
from specialsam.data.pairs import OTHER_FILE, UNREADABLE

ORIGINAL, OFFSET, CHANGED, DETAIL, GPS = 0x9003, 0x9011, 0x0132, 0x8769, 0x8825


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def kinds(problems: Any) -> list[tuple[str, str]]:
    return sorted((problem.path.name, problem.kind) for problem in problems)


def test_a_tree_by_hand(tmp_path: Path) -> None:
    touch(
        tmp_path, "10.jpg", "2.JPEG", "cam1/b.heic", "cam1/.a.jpg", ".hidden/c.jpg", "cam1/night/d.tif", "x.jpg/e.png"
    )
    touch(tmp_path, "notes.txt", "clip.mp4", "__MACOSX/cam1/b.jpg", "Thumbs.db")
    files, problems = gather([tmp_path])
    assert list(files) == ["2.JPEG", "10.jpg", "cam1/b.heic", "cam1/night/d.tif", "x.jpg/e.png"]
    assert [path.relative_to(tmp_path).as_posix() for path in files.values()] == list(files)
    assert problems == ()


def test_places_are_kept_apart_by_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "a/DCIM/1.jpg", "b/DCIM/1.jpg", "cam/1.jpg", "cam/sub/2.jpg", "alone/scan.data")
    places = [tmp_path / name for name in ("b/DCIM", "a/DCIM", "cam", "alone/scan.data", "cam/sub", "a/../cam")]
    files, problems = gather(places)
    assert list(files) == ["b/DCIM/1.jpg", "a/DCIM/1.jpg", "cam/1.jpg", "cam/sub/2.jpg", "scan.data"]
    assert problems == ()
    assert list(gather([tmp_path / "cam/1.jpg"])[0]) == ["1.jpg"]


def test_the_place_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "here/1.jpg", "there/1.jpg")
    monkeypatch.chdir(tmp_path / "here")
    assert gather([Path()])[0] == {"1.jpg": Path("1.jpg")}
    assert list(gather([Path(), Path("../there")])[0]) == ["here/1.jpg", "there/1.jpg"]


def test_the_folder_for_the_answers_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "out/thumbnails/1.jpg")
    assert list(gather([tmp_path], leave_out=[tmp_path / "out"])[0]) == ["1.jpg"]
    assert list(gather([tmp_path])[0]) == ["1.jpg", "out/thumbnails/1.jpg"]


def test_links(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    touch(tmp_path, "outside/o.jpg", "photos/cam/1.jpg", "photos/.store/deep/abc")
    for name, target in {
        "again.jpg": "cam/1.jpg",
        "stored.jpg": ".store/deep/abc",
        "away.jpg": "../outside/o.jpg",
        "folder": "../outside",
        "up": "..",
        "same": "cam",
        "hidden": ".store/deep",
        "nowhere.jpg": "nothing.jpg",
        "loop.jpg": "loop.jpg",
        "notes.txt": "../outside/o.jpg",
    }.items():
        (root / name).symlink_to(target)
    files, problems = gather([root])
    assert list(files) == ["cam/1.jpg", "stored.jpg"]
    left = ("away.jpg", "folder", "hidden", "loop.jpg", "nowhere.jpg", "up")
    assert kinds(problems) == [(name, LINK) for name in left]
    assert list(gather([root / "folder"])[0]) == ["o.jpg"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes in folders")
@pytest.mark.timeout(30)
def test_what_is_no_regular_file_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "1.jpg")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as made:
        monkeypatch.chdir(tmp_path)  # names of sockets are short
        made.bind("socket.bmp")
    files, problems = gather([tmp_path])
    assert list(files) == ["1.jpg"]
    assert kinds(problems) == [("device.jpg", LINK), ("pipe.png", OTHER_FILE), ("socket.bmp", OTHER_FILE)]
    assert exif_of(tmp_path / "pipe.png") == Exif()
    with pytest.raises(UsageError, match="a named pipe"):
        gather([tmp_path / "pipe.png"])


def test_what_may_not_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions are simulated, for a super-user has them all."""
    touch(tmp_path, "1.jpg", "secret.jpg", "locked/2.jpg")
    scandir = os.scandir

    def closed(path: Path) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "secret.jpg")
    files, problems = gather([tmp_path])
    assert list(files) == ["1.jpg"]
    assert kinds(problems) == [("locked", UNREADABLE), ("secret.jpg", UNREADABLE)]


def test_hostile_names(tmp_path: Path) -> None:
    """A name that is no UTF-8 and one that is written like its escape stay two files; each opens by its path."""
    names = ["<script>alert(1)</script>.jpg", "a\nb\t.jpg", "quote'\".jpg", "caf\udce9.jpg", "caf\\xe9.jpg", "=1+1.jpg"]
    try:
        for name in names:
            (tmp_path / name.replace("/", "_")).write_bytes(os.fsencode(name))
    except (OSError, UnicodeError):
        pytest.skip("a file system of text only")
    files, problems = gather([tmp_path])
    assert problems == ()
    assert sorted(os.fsdecode(path.read_bytes()) for path in files.values()) == sorted(names)
    assert {"caf\\xe9.jpg", "caf\\xe9.jpg (2)", "a\\nb\\t.jpg"} <= set(files)
    assert all(name == printable(name) for name in files)


@pytest.mark.parametrize(
    ("places", "says"),
    [
        ([], "expected a folder of photographs or several, got none"),
        (["nothing"], "expected a folder or a photograph, got none (No such file or directory)"),
        (["empty"], "found none; name the folder"),
        (["texts"], "found none among 3 other files (.txt, no ending)"),
        (["link"], "found none (1 cannot be used: "),
        (["empty", "texts", "link", "empty/../empty/more"], "texts, "),
        (["a\0b"], "expected a folder or a photograph"),
    ],
)
def test_no_photograph_is_one_line(tmp_path: Path, places: list[str], says: str) -> None:
    touch(tmp_path, "texts/a.txt", "texts/b.txt", "texts/README")
    for name in ("empty/more", "link"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link" / "1.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(UsageError) as caught:
        gather([tmp_path / name for name in places])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    if "found none" in str(caught.value):
        assert "(.bmp, .gif, .heic," in str(caught.value)


def photograph(path: Path, own: dict[int, Any], detail: dict[int, Any], gps: dict[int, Any]) -> Path:
    exif = Image.Exif()
    exif.update(own)
    for part, tags in ((DETAIL, detail), (GPS, gps)):
        if tags:
            exif.get_ifd(part).update(tags)
            exif[part] = exif.get_ifd(part)
    Image.new("RGB", (8, 6)).save(path, exif=exif)
    return path


def dms(*parts: float) -> tuple[Fraction, ...]:
    return tuple(Fraction(part).limit_denominator(1000) for part in parts)


NORTH_WEST = {1: "N", 2: dms(52, 30, 36), 3: "W", 4: dms(3, 15, 0)}


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_exif_of_each_format(tmp_path: Path, ending: str) -> None:
    own, detail = {CHANGED: "2026:02:03 00:00:00"}, {ORIGINAL: "2026:01:31 18:00:59"}
    path = photograph(tmp_path / f"a.{ending}", own, detail, NORTH_WEST)
    assert exif_of(path) == Exif("2026-01-31T18:00:59", 52.51, -3.25)


@pytest.mark.parametrize(
    ("own", "detail", "taken"),
    [
        ({}, {}, ""),
        ({CHANGED: "2026:02:03 00:00:00"}, {}, "2026-02-03T00:00:00"),
        ({CHANGED: "2026:02:03 00:00:00"}, {ORIGINAL: "0000:00:00 00:00:00"}, "2026-02-03T00:00:00"),
        ({}, {ORIGINAL: "2026:01:31 18:00:59", OFFSET: "+02:00"}, "2026-01-31T18:00:59+02:00"),
        ({}, {ORIGINAL: "2026:01:31 18:00:59", OFFSET: "+99:00"}, "2026-01-31T18:00:59"),
        ({}, {ORIGINAL: "2026:01:31 18:00:59", OFFSET: "home"}, "2026-01-31T18:00:59"),
        ({}, {ORIGINAL: "2026-01-31T18:00:59"}, "2026-01-31T18:00:59"),
        ({}, {ORIGINAL: "2026:13:31 18:00:59"}, ""),
        ({}, {ORIGINAL: "    :  :     :  :  "}, ""),
        ({}, {ORIGINAL: "<script>alert(1)</script>"}, ""),
    ],
)
def test_times(tmp_path: Path, own: dict[int, Any], detail: dict[int, Any], taken: str) -> None:
    assert exif_of(photograph(tmp_path / "a.jpg", own, detail, {})) == Exif(taken)


@pytest.mark.parametrize(
    ("gps", "place"),
    [
        (NORTH_WEST, (52.51, -3.25)),
        ({1: "S", 2: dms(1.5, 0, 0), 3: "E", 4: dms(179, 59.99)}, (-1.5, 179.9998333)),
        ({1: "S", 2: dms(0, 0, 0), 3: "W", 4: dms(0, 0, 0)}, (0.0, 0.0)),
        ({**NORTH_WEST, 1: "X"}, (None, None)),
        ({**NORTH_WEST, 2: dms(91, 0, 0)}, (None, None)),
        ({key: value for key, value in NORTH_WEST.items() if key != 3}, (None, None)),
        ({key: value for key, value in NORTH_WEST.items() if key != 4}, (None, None)),
        ({0: b"\x02\x03\x00\x00"}, (None, None)),
    ],
)
def test_places_on_earth(tmp_path: Path, gps: dict[int, Any], place: tuple[float | None, float | None]) -> None:
    assert exif_of(photograph(tmp_path / "a.jpg", {}, {}, gps)) == Exif("", *place)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shelf")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.data())
def test_damaged_exif_is_no_exif(shelf: Path, data: st.DataObject) -> None:
    """Whatever a block holds, reading it raises nothing: bytes at random, and a true block with some bytes replaced."""
    true = Image.Exif()
    true.get_ifd(DETAIL).update({ORIGINAL: "2026:01:31 18:00:59"})
    true.get_ifd(GPS).update(NORTH_WEST)
    block = bytearray(true.tobytes())
    for place, byte in data.draw(st.lists(st.tuples(st.integers(6, len(block) - 1), st.integers(0, 255)), max_size=9)):
        block[place] = byte
    for content in (bytes(block), b"Exif\0\0" + data.draw(st.binary(max_size=60))):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 6)).save(buffer, "JPEG", exif=content)
        (shelf / "a.jpg").write_bytes(buffer.getvalue())
        found = exif_of(shelf / "a.jpg")
        assert (found.latitude is None) == (found.longitude is None)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff\xe1", b"no image at all"])
def test_what_is_no_image_has_no_exif(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert exif_of(tmp_path / "a.jpg") == Exif()
    assert exif_of(tmp_path / "nothing.jpg") == exif_of(tmp_path) == Exif()


@pytest.fixture
def no_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process in which the package is not installed; what a test registers is taken back."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, ON_REQUEST, raising=False)
    yield
    Image.OPEN.pop(ON_REQUEST, None)


@pytest.mark.usefixtures("no_heif")
def test_heif_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not register_heif()
    fake = types.ModuleType("pillow_heif")
    fake.register_heif_opener = lambda: Image.register_open(ON_REQUEST, Image.Image)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", fake)
    assert register_heif()
    assert register_heif()
    path = tmp_path / "a.heic"
    assert "pillow-heif" not in reason_for(path, DataError("it begins with b'ftypheic'"))


def failure(path: Path) -> SpecialSamError:
    with pytest.raises(SpecialSamError) as caught:
        read_image(path)
    return caught.value


@pytest.mark.usefixtures("no_heif")
@pytest.mark.parametrize("name", ["a.heic", "renamed.jpg"])
@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_the_reason_names_the_package(tmp_path: Path, name: str, brand: bytes) -> None:
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(100))
    reason = reason_for(tmp_path / name, failure(tmp_path / name))
    assert reason.startswith("a HEIC photograph needs the package pillow-heif")
    assert "\n" not in reason


@pytest.mark.usefixtures("no_heif")
def test_other_reasons_are_one_line_without_the_path(tmp_path: Path) -> None:
    (tmp_path / "empty.heic").write_bytes(b"")
    reason = reason_for(tmp_path / "empty.heic", failure(tmp_path / "empty.heic"))
    assert reason.endswith("got something else (the file is empty)")
    assert str(tmp_path) not in reason
    assert reason_for(Path("a.jpg"), RuntimeError("out\nof  memory\x1b")) == "out of memory\\x1b"
    assert reason_for(Path("a.jpg"), MemoryError()) == "MemoryError"


REAL_HEIC = """
import subprocess
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from specialsam.apps.photographs import exif_of, gather, register_heif
from specialsam.data.images import read_image
assert register_heif()
folder = Path(sys.argv[1])
taken = Image.Exif()
taken[0x0132] = "2026:05:04 03:02:01"
Image.fromarray(np.full((60, 80, 3), (200, 90, 30), np.uint8)).save(folder / "a.heic", exif=taken)
files, _ = gather([folder])
pixels = read_image(files["a.heic"])
print(pixels.shape, np.abs(pixels.reshape(-1, 3).mean(0) - (200, 90, 30)).max() < 4, exif_of(files["a.heic"]).taken)
"""


def test_a_real_heic_photograph_is_read(tmp_path: Path) -> None:
    """In a process of its own, for the format stays registered. Oracle: the colour and the time that were written."""
    done = subprocess.run([sys.executable, "-c", REAL_HEIC, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.stdout == "(60, 80, 3) True 2026-05-04T03:02:01\n", done.stderr
