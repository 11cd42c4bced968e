"""What takes events from the outbox to a sink: one thread a sink; none waits for another, nor the line for any."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from specialsam.apps.line.outbox import Outbox, Waiting
from specialsam.core.console import complain, say
from specialsam.core.errors import SpecialSamError

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
"""Seconds between two tries of a sink that is down: doubled from the first to the longest."""
LOOK_EVERY = 0.2
"""Seconds between two looks into an empty outbox."""


class SinkDown(SpecialSamError):
    """A sink takes nothing now; the message says why in a few words."""


class Sink(Protocol):
    """Where events go. `name` is its own in the outbox and what messages call it."""

    name: str

    def send(self, waiting: Sequence[Waiting]) -> Iterable[int]:
        """Hand over events; the numbers of those that are acknowledged. SinkDown where none can be."""

    def close(self) -> None:
        """Let go of everything."""


class Courier:
    """Delivers to one sink until it is stopped; a sink that is down is tried again, ever more rarely, and said once."""

    def __init__(self, outbox: Outbox, sink: Sink, longest: float = LONGEST_PAUSE) -> None:
        self.outbox, self.sink, self.longest = outbox, sink, longest
        self.delivered = self.failures = 0
        self.down = ""
        self._stop, self._pause = threading.Event(), 0.0
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), daemon=True, name=f"to {sink.name}")

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def finish(self, until: float) -> bool:
        """Deliver what waits, until `until` (monotonic seconds) at most, and end; whether nothing waits any more."""
        while self._thread.is_alive() and time.monotonic() < until and self._waits():
            time.sleep(0.02)
        self.stop(max(0.0, min(until - time.monotonic(), 1.0)) + 0.1)
        return not self._waits()

    def stop(self, patience: float = 1.0) -> None:
        """Deliver no more; waits so many seconds for what is on its way."""
        self._stop.set()
        self._thread.join(patience)

    def _waits(self) -> bool:
        try:
            return self.outbox.counts().get(self.sink.name, 0) > 0
        except Exception:  # the file is locked: whatever waits in it, waits
            return True

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                waiting = self.outbox.waiting(self.sink.name)
                if not waiting:
                    self._stop.wait(LOOK_EVERY)
                    continue
                done = list(self.sink.send(waiting))
                self.outbox.delivered(self.sink.name, done)
                self.delivered += len(done)
                self._is_up(bool(done))
            except Exception as error:  # whatever a library raises, this thread lives on and tries again
                self._is_down(error)
                self._stop.wait(self._pause)
        with suppress(Exception):
            self.sink.close()

    def _is_up(self, took: bool) -> None:
        if took:
            if self.down:
                say(f"{self.sink.name} takes events again")
            self.down, self._pause = "", 0.0

    def _is_down(self, error: Exception) -> None:
        self.failures += 1
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if not self.down:
            complain(f"{self.sink.name} takes no events ({reason}); they wait, and the line goes on")
        self.down = reason
        self._pause = min(max(FIRST_PAUSE, 2 * self._pause), self.longest)
