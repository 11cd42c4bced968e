"""The process that reads pictures: `python -m specialsam.apps.line.grabbing FD`, started and watched by `reader`.

It reads as fast as the source gives and keeps the newest picture alone; a source that can wait (files) is read one
picture at a time instead. For each line on standard input it answers with HEAD bytes of JSON and the picture's own.
It ends with its standard input, so that nobody's camera stays taken by a process without a parent.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.core.errors import DataError, SpecialSamError
from specialsam.core.geometry import ImageArray

HEAD = 4096
"""Bytes before each picture: what is said of it, as JSON."""
BLACK = 10
"""Levels of 255 that a black picture's brightest part has at most."""
SMALL = 256
"""Pixels a side in which motion is measured."""
SURE = 0.03
"""Response of the phase correlation below which the motion is not told."""
Grey = npt.NDArray[np.float32]
"""A small grey picture float32 (h, w)."""


@dataclass(frozen=True)
class GrabOrder:
    """What is to be read: `source` of a `kind`; `first` is the number of the first picture of a source that can wait.

    `live` reads on and keeps the newest; `axis` (x, y) is the unit step in which things move.
    """

    kind: str
    source: str
    live: bool = True
    fps: float = 10.0
    first: int = 0
    axis: tuple[int, int] = (0, 1)
    patience: float = 5.0
    files: tuple[str, ...] = field(default=(), repr=False)


def pictures(order: GrabOrder) -> Iterator[tuple[float, ImageArray]]:
    """(second, picture uint8 (H, W, 3) RGB) as they come, from `first` on; DataError where it cannot be opened."""
    if order.kind == "folder":
        yield from _files(order)
        return
    film = _opened(order)
    fps = film.get(cv2.CAP_PROP_FPS) or order.fps
    number = 0
    while number < order.first:
        if not film.grab():
            return
        number += 1
    while True:
        read, image = film.read()
        if not read:
            return
        at = time.monotonic() if order.kind in ("camera", "url") else number / fps
        if order.live and order.kind == "video":
            time.sleep(1 / fps)
        number += 1
        if image.ndim == 2:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        yield at, np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _opened(order: GrabOrder) -> cv2.VideoCapture:
    if order.kind == "camera":
        film = cv2.VideoCapture(int(order.source))
    else:
        wait = round(order.patience * 1000)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait]
        film = cv2.VideoCapture(order.source, cv2.CAP_FFMPEG, limits if order.kind == "url" else [])
    if not film.isOpened():
        raise DataError("it cannot be opened")
    return film


def _files(order: GrabOrder) -> Iterator[tuple[float, ImageArray]]:
    from specialsam.data.images import read_image

    for number, name in enumerate(order.files):
        if number >= order.first:
            if order.live:
                time.sleep(1 / order.fps)
            yield number / order.fps, read_image(Path(name))


@dataclass
class SoFar:
    """What a source showed so far: pixels `moved` in all, in how many pictures that was `untold`."""

    moved: float = 0.0
    untold: int = 0
    small: Grey | None = None
    digest: int = 0

    def add(self, image: ImageArray, axis: tuple[int, int]) -> str:
        """One more picture, uint8 (H, W, 3): what is wrong with it, "black", "frozen" (the one before again) or ""."""
        digest = zlib.crc32(np.ascontiguousarray(image).data)
        frozen, self.digest = digest == self.digest, digest
        if int(image[::4, ::4].max()) <= BLACK:
            return "black"
        if frozen:
            return "frozen"
        small, scale = shrunk(image)
        if self.small is not None:
            step = motion(self.small, small, axis)
            self.moved += 0.0 if step is None else step * scale
            self.untold += step is None
        self.small = small
        return ""


def shrunk(image: ImageArray) -> tuple[Grey, float]:
    """A picture uint8 (H, W, 3) as a small one without what stands still in light, and pixels of it per one of that."""
    scale = max(1.0, max(image.shape[:2]) / SMALL)
    size = (max(8, round(image.shape[1] / scale)), max(8, round(image.shape[0] / scale)))
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(grey - cv2.GaussianBlur(grey, (0, 0), 8), np.float32), scale


def motion(before: Grey, now: Grey, axis: tuple[int, int]) -> float | None:
    """Pixels that things moved along an axis (x, y) between two small pictures float32 (h, w), by phase correlation.

    None where it cannot be told: pictures of two sizes, of nothing, or too far apart (Foroosh et al. 2002).
    """
    if before.shape != now.shape:
        return None
    window = cv2.createHanningWindow((now.shape[1], now.shape[0]), cv2.CV_32F)
    (x, y), response = cv2.phaseCorrelate(before, now, window)
    if not response > SURE or not np.isfinite([x, y]).all():
        return None
    return float(x * axis[0] + y * axis[1])


@dataclass
class Slot:
    """The newest picture, not yet asked for: at most one, and what became of those before it."""

    head: dict[str, Any] | None = None
    image: ImageArray | None = None
    passed: int = 0
    wanted: int = 0


class Grabber:
    """Reads in one thread, answers in another, listens in a third."""

    def __init__(self, order: GrabOrder, asked: BinaryIO, answers: BinaryIO):
        self.order, self.asked, self.answers = order, asked, answers
        self.slot, self.change = Slot(), threading.Condition()

    def run(self) -> None:
        """Until the source or the parent ends."""
        threading.Thread(target=self._listen, daemon=True).start()
        sender = threading.Thread(target=self._send, daemon=True)
        sender.start()
        try:
            self._grab()
            last: dict[str, Any] = {"end": True}
        except (SpecialSamError, OSError, ValueError, cv2.error) as error:
            last = {"error": " ".join(str(error).split())[:500]}
        self._put(last, None, keep=True)
        sender.join()

    def _grab(self) -> None:
        so_far = SoFar()
        for number, (at, image) in enumerate(pictures(self.order), self.order.first):
            lost = so_far.add(image, self.order.axis)
            head = {"number": number, "at": at, "taken": time.monotonic(), "lost": lost, "shape": image.shape}
            told = {"moved": so_far.moved, "untold": so_far.untold}
            self._put(head | told, image, keep=not self.order.live)

    def _put(self, head: dict[str, Any], image: ImageArray | None, keep: bool) -> None:
        """Offer a picture; with `keep` wait until the one before was fetched."""
        with self.change:
            while keep and self.slot.head is not None:
                self.change.wait()
            self.slot.passed += self.slot.head is not None
            self.slot.head, self.slot.image = head, image
            self.change.notify_all()

    def _listen(self) -> None:
        while self.asked.readline():
            with self.change:
                self.slot.wanted += 1
                self.change.notify_all()
        os._exit(0)

    def _send(self) -> None:
        last = False
        while not last:
            with self.change:
                while not self.slot.wanted or self.slot.head is None:
                    self.change.wait()
                head, image, passed = self.slot.head, self.slot.image, self.slot.passed
                self.slot = Slot(wanted=self.slot.wanted - 1)
                assert head is not None
                self.change.notify_all()
            last = image is None
            self.answers.write(json.dumps(head | {"passed": passed}).encode().ljust(HEAD))
            if image is not None:
                self.answers.write(np.ascontiguousarray(image).data.cast("B"))
            self.answers.flush()


def main() -> None:
    """Read an order from the file descriptor that the command line names, and the requests from standard input."""
    with os.fdopen(int(sys.argv[1]), "rb") as told:
        kept = json.loads(told.read())
    order = GrabOrder(**{**kept, "axis": tuple(kept["axis"]), "files": tuple(kept["files"])})
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a decoder prints goes to standard error
    Grabber(order, sys.stdin.buffer, answers).run()


def as_text(order: GrabOrder) -> str:
    """An order as the process reads it."""
    return json.dumps(asdict(order))


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main()
