"""The watched reader. Oracles: pictures that were written, a Motion JPEG camera that misbehaves, and the clock."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from line_parts import MjpegCamera, free_port
from PIL import Image

from heard import Heard
from specialsam.apps.line import reader as module
from specialsam.apps.line.grabbing import SoFar, motion, shrunk
from specialsam.apps.line.odometer import advance, start
from specialsam.apps.line.reader import Frame, Reader, grab_command
from specialsam.apps.line.settings import LineSettings
from specialsam.apps.line.sources import hidden, source_of
from specialsam.core.console import using
from specialsam.core.errors import DataError, UsageError
from specialsam.core.geometry import ImageArray
from specialsam.synth.line import LineRecipe
from specialsam.synth.line_files import write_line

QUICK = LineSettings(patience=0.8)


def cloth(count: int, step: int = 5, side: int = 96) -> list[ImageArray]:
    """Pictures of noise that moves down by `step` pixels."""
    rng = np.random.default_rng(0)
    web = cv2.GaussianBlur(rng.integers(0, 255, (side + step * count, side, 3)).astype(np.uint8), (0, 0), 1.2)
    return [np.ascontiguousarray(web[(count - n) * step : (count - n) * step + side]) for n in range(count)]


def saved(folder: Path, pictures: list[ImageArray]) -> Path:
    folder.mkdir()
    for number, image in enumerate(pictures):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def heard() -> Iterator[Heard]:
    made = Heard()
    with using(made):
        yield made


def every(reader: Reader) -> list[Frame]:
    out = []
    while (frame := reader.next()) is not None:
        out.append(frame)
    return out


def test_a_folder_gives_every_picture_in_natural_order(tmp_path: Path) -> None:
    """Oracle: the pictures, 2.png before 10.png; motion by numpy's shift."""
    pictures = cloth(12)
    with Reader(source_of(str(saved(tmp_path / "in", pictures))), QUICK, threading.Event()) as reader:
        frames = every(reader)
    assert len(frames) == 12
    for number, (frame, image) in enumerate(zip(frames, pictures, strict=True)):
        assert (frame.image == image).all()
        assert (frame.step.number, frame.step.at) == (number, pytest.approx(number / 10))
    assert frames[0].step.moved is None
    assert [frame.step.moved for frame in frames[1:]] == pytest.approx([5] * 11, abs=0.3)


def test_it_goes_on_from_any_picture(tmp_path: Path) -> None:
    pictures = cloth(6)
    with Reader(
        source_of(str(saved(tmp_path / "in", pictures) / "*.png")), QUICK, threading.Event(), first=4
    ) as reader:
        assert [frame.step.number for frame in every(reader)] == [4, 5]


def test_a_video_tells_where_the_web_is(tmp_path: Path) -> None:
    """Oracle: the simulated line's own metres, through vibration, noise, a stop and JPEG."""
    recipe = LineRecipe(metres=0.8, side=128, pitch_mm=1, speed=0.1, defects=0, stops=((2, 1),), vibration=0.4)
    write_line(tmp_path, recipe)
    truth = json.loads((tmp_path / "truth.json").read_text())["travelled_m"]
    settings = LineSettings(pitch_mm=1)
    odometer = start((128, 128), settings)
    with Reader(source_of(str(tmp_path / "line.avi")), settings, threading.Event()) as reader:
        for frame, expected in zip(every(reader), truth, strict=True):
            odometer = advance(odometer, frame.step, settings)
            assert odometer.travelled == pytest.approx(expected, abs=0.02)


def test_black_and_frozen_pictures_are_lost(tmp_path: Path, heard: Heard) -> None:
    pictures = cloth(6)
    mixed = [*pictures[:2], pictures[1], pictures[1], np.zeros_like(pictures[0]), *pictures[2:]]
    with Reader(source_of(str(saved(tmp_path / "in", mixed))), QUICK, threading.Event()) as reader:
        frames = every(reader)
    assert [frame.step.number for frame in frames] == [0, 1, 5, 6, 7, 8]
    assert (reader.counts.frozen, reader.counts.black, reader.counts.lost) == (2, 1, 3)
    assert heard.lines == [
        "in shows frozen pictures; they count as lost",
        "in shows black pictures; they count as lost",
    ]


def test_always_the_newest_picture_of_a_camera(heard: Heard) -> None:
    with (
        MjpegCamera(cloth(200), fps=50) as camera,
        Reader(source_of(camera.url), LineSettings(patience=5), threading.Event()) as reader,
    ):
        numbers = []
        for _ in range(5):
            frame = reader.next()
            assert frame is not None
            numbers.append(frame.step.number)
            time.sleep(0.2)
        assert all(later - earlier >= 4 for earlier, later in pairwise(numbers[1:]))
        assert reader.counts.passed >= numbers[-1] - numbers[0] - 4
        assert time.monotonic() - frame.taken < 5
    assert heard.lines == []


def test_a_camera_that_hangs_is_gone_and_back(heard: Heard) -> None:
    with MjpegCamera(cloth(200)) as camera, Reader(source_of(camera.url), QUICK, threading.Event()) as reader:
        first = reader.next()
        camera.mode = "hangs"
        threading.Timer(2.5, lambda: setattr(camera, "mode", "fine")).start()
        began = time.monotonic()
        for _ in range(200):
            frame = reader.next()
            assert frame is not None
            if reader.counts.restarts:
                break
        assert 2 < time.monotonic() - began < 20
        assert first is not None
        assert frame.step.number > first.step.number
        assert frame.step.moved is None, "nobody saw how far the web went meanwhile"
        assert reader.counts.gone > 0.5
    assert " is gone: " in heard.lines[0], "its own limit or the watchdog's, whichever is first"
    assert "is back after" in heard.lines[1]


def test_a_process_that_is_killed_or_blocks_is_started_anew(
    tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process answers nothing, whatever it is asked: as OpenCV's open that never returns."""
    folder = saved(tmp_path / "in", cloth(5))
    with Reader(source_of(str(folder)), LineSettings(patience=5), threading.Event()) as reader:
        starts: list[int] = []

        def command(order: int) -> list[str]:
            starts.append(order)
            return [sys.executable, "-c", "import time; time.sleep(99)"] if len(starts) == 1 else grab_command(order)

        reader.order_command = command
        began = time.monotonic()
        with monkeypatch.context() as patched:
            patched.setattr(module, "OPENING", 0.0)
            first = reader.next()
            patched.undo()
        assert time.monotonic() - began < 15
        assert first is not None
        assert first.step.number == 0
        assert heard.lines[0] == "in is gone: no picture for 5 s; trying again until it is back"
        assert reader._process is not None
        reader._process.kill()
        rest = every(reader)
        assert [frame.step.number for frame in rest] == [1, 2, 3, 4], "none is read twice, none is left out"
    assert sum("is back after" in line for line in heard.lines) == 2


def test_thousands_of_pictures_with_long_names_are_read(tmp_path: Path) -> None:
    """More of their names than a command line holds (128 KiB on Linux)."""
    (tmp_path / ("a" * 100)).mkdir()
    folder = saved(tmp_path / ("a" * 100) / ("b" * 100), cloth(3))
    first, *rest = map(str, sorted(folder.iterdir()))
    many = replace(source_of(str(folder)), files=(*[first] * 1500, *rest))
    with Reader(many, QUICK, threading.Event(), first=1500) as reader:
        frames = every(reader)
    assert [frame.step.number for frame in frames] == [1500, 1501]


def test_what_an_inspection_writes_is_no_picture_of_its_line(tmp_path: Path) -> None:
    folder = saved(tmp_path / "in", cloth(3))
    saved(folder / "roll-1", cloth(2))
    assert len(source_of(str(folder), folder / "roll-1").files) == 3


def test_stop_ends_any_waiting(heard: Heard) -> None:
    stop = threading.Event()
    with Reader(source_of(f"http://127.0.0.1:{free_port()}/video"), LineSettings(patience=60), stop) as reader:
        threading.Timer(1.0, stop.set).start()
        began = time.monotonic()
        assert reader.next() is None
        assert time.monotonic() - began < 20
    with MjpegCamera(cloth(3)) as camera:
        camera.mode = "hangs"
        stop.clear()
        with Reader(source_of(camera.url), LineSettings(patience=60), stop) as reader:
            threading.Timer(1.0, stop.set).start()
            began = time.monotonic()
            assert reader.next() is None
            assert time.monotonic() - began < 20


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    """Its standard input ends, as when the parent was killed."""
    with Reader(source_of(str(saved(tmp_path / "in", cloth(3)))), QUICK, threading.Event()) as reader:
        assert reader.next() is not None
        process = reader._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


def test_files_that_cannot_be_read_end_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "film.avi").write_bytes(b"this is no film" * 50)
    with (
        Reader(source_of(str(tmp_path / "film.avi")), QUICK, threading.Event()) as reader,
        pytest.raises(DataError, match=r"cannot read film.avi: it cannot be opened"),
    ):
        reader.next()
    folder = saved(tmp_path / "in", cloth(2))
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:200])
    with Reader(source_of(str(folder)), QUICK, threading.Event()) as reader:
        assert reader.next() is not None
        with pytest.raises(DataError, match=r"cannot read in: .*1.png: the image is damaged"):
            reader.next()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nowhere.mp4", "found nothing at nowhere.mp4"),
        ("ftp://host/x", r"expected an address with rtsp, rtsps, http, https and a host, got ftp://"),
        ("concat://a|b", "expected an address with rtsp"),
        ("rtsp://", "expected an address with rtsp"),
        ("none-*.png", r"expected pictures, found none that match none-\*.png"),
        (os.devnull, "expected a video file, got something else in"),
        (__file__, "expected a video "),
    ],
)
def test_what_is_no_stream(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        source_of(text)


def test_passwords_are_not_shown() -> None:
    source = source_of("rtsp://user:secret@host:554/main?token=abc")
    assert (source.kind, source.name) == ("url", "rtsp://host:554/main")
    assert hidden("http://a:b@[::1]:8/x") == "http://[::1]:8/x"
    assert (source_of("0").kind, source_of("0").waits) == ("camera", False)


def test_motion_is_told_and_its_lack_as_well() -> None:
    """Oracle: numpy's roll, in both directions; pictures of nothing tell nothing."""
    one, two = cloth(2, step=7)
    (before, scale), (now, _) = shrunk(one), shrunk(two)
    assert scale == 1
    assert motion(before, now, (0, 1)) == pytest.approx(7, abs=0.3)
    assert motion(now, before, (0, 1)) == pytest.approx(-7, abs=0.3)
    assert motion(before, now, (1, 0)) == pytest.approx(0, abs=0.3)
    flat, _ = shrunk(np.full((96, 96, 3), 128, np.uint8))
    assert motion(flat, flat, (0, 1)) is None
    assert motion(before, flat[:50], (0, 1)) is None
    so_far = SoFar()
    assert [so_far.add(image, (0, 1)) for image in (one, one, two * 0, two)] == ["", "frozen", "black", ""]
    assert so_far.moved == pytest.approx(7, abs=0.3)


def test_a_film_whose_name_is_no_text_is_refused_in_a_line(tmp_path: Path) -> None:
    name = os.fsdecode(b"roll-\xff.avi")
    (tmp_path / name).write_bytes(b"film")
    with pytest.raises(UsageError, match=r"expected a video whose name is text, got .*; rename it"):
        source_of(str(tmp_path / name))
