"""One call of an inspection: picture after picture, and its end within seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from specialsam.apps.appearance import check_appearance
from specialsam.apps.line.couriers import Courier
from specialsam.apps.line.decision import Judge, promise
from specialsam.apps.line.inspection import Inspection
from specialsam.apps.line.live import Live
from specialsam.apps.line.reader import Frame, Reader
from specialsam.apps.line.rollmap import Roll, write_roll
from specialsam.apps.line.snapshots import forget_others
from specialsam.apps.line.sources import Source
from specialsam.apps.line.status import Pace, Waits, Watched, board_of
from specialsam.core.board import Show
from specialsam.core.console import complain, duration, say
from specialsam.core.errors import DataError, SpecialSamError

FLUSH = 3.5
"""Seconds after its end that an inspection goes on delivering."""
SHOW_EVERY = 0.25
"""Seconds between two states of the live table."""
MOTIONS = {"speed": "line speed", "trigger": "trigger count", "picture": "what the pictures show"}


@dataclass(frozen=True)
class Inspected:
    """What came of it: pictures and seconds of this call, latencies in seconds; events and metres of the whole roll.

    `page` is the map of the roll, `undelivered` counts what still waits for any sink.
    """

    pictures: int
    events: int
    metres: float
    seconds: float
    p50: float
    p95: float
    page: Path | None
    undelivered: int


@dataclass
class Run:
    """One call, from the first picture to the page."""

    judge: Judge
    inspection: Inspection
    reader: Reader
    couriers: Sequence[Courier]
    waits: Waits
    pace: Pace = field(default_factory=Pace)
    began: float = field(default_factory=time.monotonic)
    shown: float = 0.0
    drifted: bool = False
    odd: bool = False

    @cached_property
    def live(self) -> Live:
        """What the page of `serve` shows of the line."""
        return Live(self.inspection.out)

    def watched(self) -> Watched:
        """For Prometheus."""
        return Watched(self.inspection, self.pace, self.reader.counts, self.waits, self.couriers)

    def through(self, source: Source, show: Show) -> SpecialSamError | None:
        """Picture after picture until none comes; what ended it where that was a fault."""
        settings = self.inspection.settings
        title = f"{source.name}, job {settings.job}, roll {settings.roll}"
        try:
            while (frame := self.reader.next()) is not None:
                self._picture(frame)
                if time.monotonic() - self.shown >= SHOW_EVERY:
                    self.shown = time.monotonic()
                    show(board_of(self.inspection, self.pace, self.reader.counts, self.waits.look(), title))
        except SpecialSamError as error:
            return error
        show(board_of(self.inspection, self.pace, self.reader.counts, self.waits.look(), title))
        return None

    def _picture(self, frame: Frame) -> None:
        try:
            check_appearance(frame.image, self.judge.taught.appearance)
        except DataError as error:
            if not self.pace.pictures:
                raise
            if not self.odd:
                complain(f"{error}; such pictures are left out")
            self.odd = True
            return
        self.odd = False
        judged = self.judge.judge(frame.image)
        self.inspection.look(frame, judged)
        self.pace.add(frame.taken)
        if self.live.due():
            self.live.show(frame.image, judged, self.inspection.threshold, self._numbers())
        found = self.inspection.drift(self.judge.taught.scores)
        if found is not None:
            if found.drifted and not self.drifted:
                complain(f"teach again (--teach): {found.says}")
            self.drifted = found.drifted

    def _numbers(self) -> dict[str, float]:
        inspection, pace, counts = self.inspection, self.pace, self.reader.counts
        across = inspection.size[1 if inspection.settings.direction in ("down", "up") else 0]
        return {
            "pictures": pace.pictures,
            "alarming": inspection.alarming,
            "fps": pace.fps(),
            "p50": pace.percentile(50),
            "p95": pace.percentile(95),
            "passed": counts.passed,
            "lost": counts.lost,
            "metres": inspection.metres(),
            "width_mm": across * inspection.settings.pitch_mm,
            "events": inspection.told,
        }

    def end(self, source: Source, out: Path, fault: SpecialSamError | None) -> Inspected:
        """Tell what is in hand, map the roll, deliver for some seconds; raises what ended the pictures."""
        until, seconds = time.monotonic() + FLUSH, time.monotonic() - self.began
        self.reader.close()
        self.inspection.finish()
        page = self._map(source, out) if self.inspection.looked else None
        waits = self._delivered(until)
        if fault is not None:
            raise fault
        counts = self.reader.counts
        if not self.inspection.looked and not self.reader.stop.is_set():
            raise DataError(
                f"expected pictures in {source.name}, got none to look at ({counts.black} black, {counts.frozen} "
                "frozen); look at the camera or the file"
            )
        pace, inspection = self.pace, self.inspection
        times = (seconds, pace.percentile(50), pace.percentile(95))
        result = Inspected(pace.pictures, inspection.told, inspection.metres(), *times, page, waits)
        say(_told(result, self.reader))
        return result

    def _delivered(self, until: float) -> int:
        """Deliver until then at most; how many events still wait, which is said."""
        for courier in self.couriers:
            courier.finish(until)
        waits: dict[str, int] = {}
        with suppress(Exception):  # the file is locked: said before
            waits = self.inspection.outbox.counts()
        for name, number in waits.items():
            if number:
                complain(f"{number} events still wait for {name}; the same command delivers them")
        return sum(waits.values())

    def _map(self, source: Source, out: Path) -> Path | None:
        """The map of the roll; what fails there is said and ends nothing, for the events are stored."""
        inspection, settings = self.inspection, self.inspection.settings
        try:
            events = [*inspection.outbox.events(), *inspection.pending]
            forget_others(out, [one.snapshot for one in events])
            across = inspection.size[1 if settings.direction in ("down", "up") else 0] * settings.pitch_mm
            roll = Roll(f"Roll {settings.roll}", inspection.metres(), across, events, self._facts(source))
            return write_roll(roll, out)
        except Exception as error:
            complain(f"no map of the roll: {' '.join(str(error).split())[:300]}")
            return None

    def _facts(self, source: Source) -> dict[str, str]:
        inspection, settings, counts = self.inspection, self.inspection.settings, self.reader.counts
        good = len(self.judge.taught.scores)
        usual = inspection.odometer.usual if inspection.odometer else 0.0
        rate = 1 / usual if usual > 0 else settings.fps
        return {
            "Stream": source.name,
            "Job, recipe": f"{settings.job}{', ' + settings.recipe if settings.recipe else ''}",
            "Camera": settings.camera,
            "Model": f"{self.judge.session.segmenter.name} ({inspection.model})",
            "Decided by": f"the {self.judge.by}, from {self.judge.threshold:.3f}; {good} good pictures set it",
            "Promise": promise(good, rate, settings).says(),
            "Position by": MOTIONS[settings.motion],
            "Pictures": f"{inspection.looked:,} looked at, {counts.passed:,} passed over, {counts.lost:,} lost",
        }


def _told(result: Inspected, reader: Reader) -> str:
    counts = reader.counts
    rate = result.pictures / result.seconds if result.seconds > 0 else 0.0
    return (
        f"{result.events} events on {result.metres:.2f} m; {result.pictures} pictures in {duration(result.seconds)} "
        f"({rate:.1f}/s, latency {1000 * result.p50:.0f} ms, p95 {1000 * result.p95:.0f} ms), "
        f"{counts.passed} passed over, {counts.lost} black or frozen"
    )
