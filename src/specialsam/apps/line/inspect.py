"""`specialsam inspect STREAM`: from a camera above the line to events in every sink, until it is told to stop.

In the folder: `line.sqlite` (events, outbox, state), `events.jsonl`, `snapshots/`, `roll.html`, `roll.png`. The same
command goes on where a killed one was.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from specialsam.apps.line.couriers import Courier, Sink
from specialsam.apps.line.decision import Judge, check_appearance, open_judge, promise
from specialsam.apps.line.inspection import Inspection
from specialsam.apps.line.outbox import FILE, Outbox
from specialsam.apps.line.reader import Frame, Reader
from specialsam.apps.line.rollmap import Roll, write_roll
from specialsam.apps.line.settings import LineSettings
from specialsam.apps.line.sinks.jsonl import JsonLines
from specialsam.apps.line.sinks.prometheus import Metrics
from specialsam.apps.line.snapshots import forget_others
from specialsam.apps.line.sources import Source, source_of
from specialsam.apps.line.status import Pace, Waits, Watched, board_of
from specialsam.apps.line.teaching import taught_by
from specialsam.apps.session import Session
from specialsam.core.board import Show, board
from specialsam.core.console import complain, duration, say
from specialsam.core.errors import DataError, SpecialSamError, UsageError
from specialsam.core.ledger import digest, open_ledger

JSONL = "events.jsonl"
FLUSH = 3.5
"""Seconds after its end that an inspection goes on delivering."""
SHOW_EVERY = 0.25
"""Seconds between two states of the live table."""


@dataclass(frozen=True)
class Delivery:
    """Where events go beside the folder: URLs of a database, a broker and a webhook; a port for Prometheus."""

    database: str = ""
    mqtt: str = ""
    webhook: str = ""
    secret: str = ""
    allow_private: bool = False
    metrics: int | None = None

    def sinks(self, out: Path, camera: str) -> list[Sink]:
        """All sinks; UsageError in one line for a URL that is none."""
        found: list[Sink] = [JsonLines(out / JSONL)]
        if self.database:
            from specialsam.apps.line.sinks.database import Database

            found.append(Database(self.database))
        if self.mqtt:
            from specialsam.apps.line.sinks.mqtt import Mqtt

            found.append(Mqtt(self.mqtt, camera))
        if self.webhook:
            from specialsam.apps.line.sinks.webhook import Webhook

            found.append(Webhook(self.webhook, self.secret, self.allow_private))
        elif self.secret:
            raise UsageError("expected a webhook for its secret, got none; give --webhook, too")
        return found


@dataclass(frozen=True)
class InspectOrder:
    """What is inspected: the stream, the folder, good pictures to teach; `live` drops pictures of files as of cameras."""

    stream: str
    out: Path
    teach: tuple[Path, ...] = ()
    live: bool = False
    deliver: Delivery = field(default_factory=Delivery)


@dataclass(frozen=True)
class Inspected:
    """What came of it: pictures, events and seconds of this call; latencies in seconds; the page of the roll."""

    pictures: int
    events: int
    metres: float
    seconds: float
    p50: float
    p95: float
    page: Path | None
    undelivered: int


def inspect(session: Session, order: InspectOrder, settings: LineSettings) -> Inspected:
    """Inspect a stream until it ends or a signal comes; what was seen by then is stored, delivered and mapped."""
    source = source_of(order.stream)
    if order.live and source.kind == "camera":
        raise UsageError("a camera is live in any case; leave out --live")
    sinks = order.deliver.sinks(order.out, settings.camera)
    model = digest(session.identity)[:16]
    names = {"job": settings.job, "roll": settings.roll, "camera": settings.camera}
    identity = {**names, "stream": source.name, "model": model}
    stop = threading.Event()
    with open_ledger(order.out, identity, "run.json", "inspection") as ledger, ExitStack() as stack:
        judge = open_judge(session, taught_by(session, order.teach, order.out), settings)
        outbox = Outbox(order.out / FILE, [sink.name for sink in sinks], settings.bound)
        stack.callback(outbox.close)
        inspection = Inspection(outbox, settings, (judge.threshold, judge.low), model, order.out)
        couriers = [Courier(outbox, sink) for sink in sinks]
        reader = stack.enter_context(Reader(source, settings, stop, inspection.first, order.live))
        run = _Run(judge, inspection, reader, couriers, Waits(outbox, settings.alarm_share))
        if order.deliver.metrics is not None:
            metrics = Metrics(order.deliver.metrics, run.watched().numbers)
            stack.callback(metrics.close)
            say(f"metrics: http://127.0.0.1:{metrics.port}/metrics")
        ledger.save(settings=settings.model_dump(mode="json"), threshold=judge.threshold, decided_by=judge.by)
        fps = settings.fps if source.waits else 8.0
        say(f"{source.name}: decided by the {judge.by}; {promise(len(judge.taught.scores), fps, settings).says()}")
        with _signals(stop), board() as show:
            for courier in couriers:
                courier.start()
            fault = run.through(source, show)
            return run.end(source, order, fault)


@dataclass
class _Run:
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

    def watched(self) -> Watched:
        """For Prometheus."""
        return Watched(self.inspection, self.pace, self.reader.counts, self.waits, self.couriers)

    def through(self, source: Source, show: Show) -> SpecialSamError | None:
        """Picture after picture until none comes; what ended it where that was a fault."""
        title = f"{source.name}, job {self.inspection.settings.job}, roll {self.inspection.settings.roll}"
        try:
            while (frame := self.reader.next()) is not None:
                self._picture(frame)
                now = time.monotonic()
                if now - self.shown >= SHOW_EVERY:
                    self.shown = now
                    waits = self.waits.look()
                    show(board_of(self.inspection, self.pace, self.reader.counts, waits, title))
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
        self.inspection.look(frame, self.judge.judge(frame.image))
        self.pace.add(frame.taken)
        found = self.inspection.drift(self.judge.taught.scores)
        if found is not None:
            if found.drifted and not self.drifted:
                complain(f"teach again (--teach): {found.says}")
            self.drifted = found.drifted

    def end(self, source: Source, order: InspectOrder, fault: SpecialSamError | None) -> Inspected:
        """Tell what is in hand, map the roll, deliver for some seconds; raises what ended the pictures."""
        until = time.monotonic() + FLUSH
        seconds = time.monotonic() - self.began
        self.reader.close()
        before = self.inspection.told
        self.inspection.finish()
        page = None
        with _complained():
            if self.inspection.looked:
                page = self._map(source, order.out)
        left = sum(not courier.finish(until) for courier in self.couriers)
        waits = {}
        with suppress(Exception):  # locked: said before
            waits = self.inspection.outbox.counts()
        for courier in self.couriers:
            if waits.get(courier.sink.name):
                number = waits[courier.sink.name]
                complain(f"{number} events still wait for {courier.sink.name}; the same command delivers them")
        if fault is not None:
            raise fault
        if not self.inspection.looked and not self.reader.stop.is_set():
            counts = self.reader.counts
            raise DataError(
                f"expected pictures in {source.name}, got none to look at ({counts.black} black, {counts.frozen} frozen); "
                "look at the camera or the file"
            )
        del before, left
        result = Inspected(
            self.pace.pictures,
            self.inspection.told,
            self.inspection.metres(),
            seconds,
            self.pace.percentile(50),
            self.pace.percentile(95),
            page,
            sum(waits.values()),
        )
        say(_told(result, self.reader))
        return result

    def _map(self, source: Source, out: Path) -> Path:
        events, settings = self.inspection.outbox.events(), self.inspection.settings
        forget_others(out, [one.snapshot for one in events])
        across = self.inspection.size[1 if settings.direction in ("down", "up") else 0] * settings.pitch_mm
        taught = self.judge.taught
        rate = self.pace.fps(1e9) or settings.fps
        facts = {
            "Stream": source.name,
            "Job, recipe": f"{settings.job}{', ' + settings.recipe if settings.recipe else ''}",
            "Camera": settings.camera,
            "Model": f"{self.judge.session.segmenter.name} ({self.inspection.model})",
            "Decided by": f"the {self.judge.by}, from {self.judge.threshold:.3f}; {len(taught.scores)} good pictures set it",
            "Promise": promise(len(taught.scores), rate, settings).says().removeprefix("promised: "),
            "Position by": {"speed": "line speed", "trigger": "trigger count", "picture": "what the pictures show"}[
                settings.motion
            ],
            "Pictures": f"{self.inspection.looked:,} looked at, {self.reader.counts.passed:,} passed over, {self.reader.counts.lost:,} black or frozen",
        }
        return write_roll(Roll(f"Roll {settings.roll}", self.inspection.metres(), across, events, facts), out)


def _told(result: Inspected, reader: Reader) -> str:
    counts = reader.counts
    rate = result.pictures / result.seconds if result.seconds > 0 else 0.0
    return (
        f"{result.events} events on {result.metres:.2f} m; {result.pictures} pictures in {duration(result.seconds)} "
        f"({rate:.1f}/s, latency {1000 * result.p50:.0f} ms, p95 {1000 * result.p95:.0f} ms), {counts.passed} passed over, "
        f"{counts.lost} black or frozen"
    )


@contextmanager
def _complained() -> Iterator[None]:
    """What fails at the end is said and ends nothing: events are stored already."""
    try:
        yield
    except Exception as error:
        complain(f"no map of the roll: {' '.join(str(error).split())[:300]}")


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the inspection in good order; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hear(number: int, place: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
