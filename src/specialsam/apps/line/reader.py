"""Pictures from a process of their own, which is watched: one that answers no more is killed and started anew.

OpenCV's `open` and `read` can block for ever, in code that nothing interrupts; a process can be killed.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from specialsam.apps.line.grabbing import HEAD, GrabOrder, as_text
from specialsam.apps.line.odometer import Step
from specialsam.apps.line.settings import LineSettings
from specialsam.apps.line.sources import AXES, Source
from specialsam.core.console import complain, say
from specialsam.core.errors import DataError
from specialsam.core.geometry import ImageArray

SLICE = 0.1
"""Seconds after which somebody who waits looks whether to stop."""
LONGEST_PAUSE = 10.0
"""Seconds between two starts of a reader at most."""
OPENING = 15.0
"""Seconds that a process may take to start and to open its source, beside the patience."""


@dataclass(frozen=True)
class Frame:
    """A picture uint8 (H, W, 3) RGB with its `step` along the line; `taken` (monotonic seconds) is when it was read."""

    image: ImageArray
    step: Step
    taken: float


@dataclass
class Counts:
    """Pictures `passed` over for newer ones, `black`, `frozen`; starts of the process anew, seconds without any."""

    passed: int = 0
    black: int = 0
    frozen: int = 0
    restarts: int = 0
    gone: float = 0.0

    @property
    def lost(self) -> int:
        return self.black + self.frozen


class Ended(Exception):
    """The source is at its end."""


class Reader:
    """The newest picture of a source, one after the other, whatever happens to the camera.

    `stop` ends any waiting. A source that can wait gives all pictures from number `first` on, unless it is `live`.
    Raises DataError where a file cannot be read; a camera that cannot is waited for.
    """

    def __init__(
        self,
        source: Source,
        settings: LineSettings,
        stop: threading.Event,
        first: int = 0,
        live: bool = False,
    ) -> None:
        self.source, self.settings, self.stop, self.counts = source, settings, stop, Counts()
        self.order = GrabOrder(
            source.kind,
            source.place,
            live or not source.waits,
            settings.fps,
            first,
            AXES[settings.direction],
            settings.patience,
            source.files,
        )
        self.order_command: Callable[[int], list[str]] = grab_command
        self._process: subprocess.Popen[bytes] | None = None
        self._moved, self._untold, self._next, self._fresh = 0.0, 0, first, True
        self._offset, self._pause, self._gone_since = 0, 0.0, 0.0
        self._faulty = ""

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def next(self) -> Frame | None:
        """The next good picture; None where it is to stop or the source has ended (`stop` tells which)."""
        while not self.stop.is_set():
            try:
                head, image = self._ask()
            except Ended:
                return None
            except _Silent as error:
                self._lost(str(error))
                continue
            self._back()
            self.counts.passed += head["passed"]
            if self._offset + head["number"] < self._next:  # seen before: what moves is told from here on
                self._moved, self._untold, self._fresh = head["moved"], head["untold"], bool(head["lost"])
                continue
            if head["lost"]:
                self._fault(head["lost"])
                self._next = self._offset + head["number"] + 1
                continue
            return self._frame(head, image)
        return None

    def close(self) -> None:
        """End the process, at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
            self._process = None

    def _frame(self, head: dict[str, Any], image: ImageArray) -> Frame:
        self._faulty = ""
        number = self._offset + head["number"]
        moved: float | None = head["moved"] - self._moved
        if self._fresh or head["untold"] != self._untold:
            moved = None
        self._moved, self._untold, self._fresh = head["moved"], head["untold"], False
        self._next = number + 1
        taken = head["taken"] if self.order.live else time.monotonic()  # a file's picture lay there, waiting
        return Frame(image, Step(number, head["at"], moved), taken)

    def _ask(self) -> tuple[dict[str, Any], ImageArray]:
        patience = self.settings.patience
        if self._process is None:
            self._start()
            patience += OPENING
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(b"next\n")
            process.stdin.flush()
        except OSError:
            raise _Silent("the reader ended") from None
        limit = time.monotonic() + patience
        text = bytearray(HEAD)
        self._fill(memoryview(text), limit)
        head = json.loads(text)
        if head.get("end"):
            if self.order.live and not self.source.waits:
                raise _Silent("the stream ended")
            raise Ended
        if "error" in head:
            if self.source.waits:
                raise DataError(f"cannot read {self.source.name}: {head['error']}")
            raise _Silent(head["error"])
        image = np.empty(head["shape"], np.uint8)
        self._fill(image.data.cast("B"), limit)
        return head, image

    def _start(self) -> None:
        if self._pause:
            self.stop.wait(self._pause)
        order = replace(self.order, first=0 if self.order.live else max(0, self._next - 1))
        self._offset = self._next if self.order.live else 0
        self._moved, self._untold, self._fresh = 0.0, 0, True
        with tempfile.TemporaryFile() as quiet, tempfile.TemporaryFile() as told:  # the process keeps them, nobody else
            told.write(as_text(order).encode("utf-8", "surrogateescape"))
            told.seek(0)
            self._process = subprocess.Popen(
                self.order_command(told.fileno()),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=quiet,
                pass_fds=(told.fileno(),),
                start_new_session=True,
                env=os.environ | {"OPENCV_FFMPEG_LOGLEVEL": "-8", "OPENCV_LOG_LEVEL": "SILENT", "OMP_NUM_THREADS": "1"},
            )

    def _wait(self, limit: float) -> int:
        """The process' answer can be read; _Silent where it does not come in time."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        answers = process.stdout.fileno()
        while not self.stop.is_set():
            ready, _, _ = select.select([answers], [], [], SLICE)
            if ready:
                return answers
            if time.monotonic() > limit:
                raise _Silent(f"no picture for {self.settings.patience:g} s")
        raise Ended

    def _fill(self, room: memoryview, limit: float) -> None:
        done = 0
        while done < len(room):
            got = os.readv(self._wait(limit), [room[done:]])
            if not got:
                raise _Silent("the reader ended")
            done += got

    def _lost(self, reason: str) -> None:
        self.close()
        if not self._gone_since:
            self._gone_since = time.monotonic()
            complain(f"{self.source.name} is gone: {reason}; trying again until it is back")
        self.counts.restarts += 1
        self._pause = min(max(0.2, 2 * self._pause), LONGEST_PAUSE)

    def _back(self) -> None:
        if self._gone_since:
            away = time.monotonic() - self._gone_since
            self.counts.gone += away
            say(f"{self.source.name} is back after {away:.1f} s")
        self._gone_since, self._pause = 0.0, 0.0

    def _fault(self, kind: str) -> None:
        """A picture that shows nothing of the line: counted, said once until a good one comes."""
        if kind == "black":
            self.counts.black += 1
        else:
            self.counts.frozen += 1
        if kind != self._faulty:
            complain(f"{self.source.name} shows {kind} pictures; they count as lost")
        self._faulty = kind


class _Silent(Exception):
    """The process does not answer, or what it reads cannot be read now."""


def grab_command(order: int) -> list[str]:
    """The command line of the process that reads its order from this file descriptor: thousands of files are named."""
    return [sys.executable, "-m", "specialsam.apps.line.grabbing", str(order)]
