"""`specialsam inspect STREAM`: from a camera above the line to events in every sink, until it is told to stop.

In the folder: `line.sqlite` (events, outbox, state), `events.jsonl`, `snapshots/`, `roll.html`, `roll.png`. The same
command goes on where a killed one was.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from specialsam.apps.line.couriers import Courier
from specialsam.apps.line.decision import known_scores, open_judge, promise
from specialsam.apps.line.delivery import Delivery
from specialsam.apps.line.inspection import Inspection
from specialsam.apps.line.outbox import FILE, Outbox
from specialsam.apps.line.reader import Reader
from specialsam.apps.line.running import Inspected, Run
from specialsam.apps.line.settings import LineSettings
from specialsam.apps.line.sinks.prometheus import Metrics
from specialsam.apps.line.sources import Source, source_of
from specialsam.apps.line.status import Waits
from specialsam.apps.line.teaching import taught_by
from specialsam.apps.photographs import gather
from specialsam.apps.session import Session, sped_up
from specialsam.core.board import board
from specialsam.core.console import say
from specialsam.core.errors import UsageError
from specialsam.core.ledger import digest, open_ledger
from specialsam.models.backends import AUTO, PLAIN


@dataclass(frozen=True)
class InspectOrder:
    """The stream, the folder, good pictures to teach; `live` passes over pictures of files as of cameras.

    `backend` is how the encoder runs (`models.backends`).
    """

    stream: str
    out: Path
    teach: tuple[Path, ...] = ()
    live: bool = False
    backend: str = PLAIN
    deliver: Delivery = field(default_factory=Delivery)


def inspect(session: Session, order: InspectOrder, settings: LineSettings) -> Inspected:
    """Inspect a stream until it ends or a signal comes; what was seen by then is stored, delivered and mapped."""
    source = source_of(order.stream, order.out)
    if order.live and source.kind == "camera":
        raise UsageError("a camera is live in any case; leave out --live")
    session = sped_up(session, order.backend, _samples(order, source))
    if not order.teach:
        known_scores(session)  # what it refuses is refused before there is a folder
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
        run = Run(judge, inspection, reader, couriers, Waits(outbox, settings.alarm_share))
        if order.deliver.metrics is not None:
            metrics = Metrics(order.deliver.metrics, run.watched().numbers)
            stack.callback(metrics.close)
            say(f"metrics: http://127.0.0.1:{metrics.port}/metrics")
        ledger.save(settings=settings.model_dump(mode="json"), threshold=judge.threshold, decided_by=judge.by)
        fps = settings.fps if source.waits else 8.0
        held = promise(len(judge.taught.scores), fps, settings)
        say(f"{source.name}: decided by the {judge.by}; promised: {held.says()}")
        with _signals(stop), board() as show:
            for courier in couriers:
                courier.start()
                stack.callback(courier.stop, 0.0)  # each had its time in `end`
            fault = run.through(source, show)
            return run.end(source, order.out, fault)


def _samples(order: InspectOrder, source: Source) -> list[Path]:
    """Pictures on which `auto` measures backends: the good ones that teach, or those of a folder that is inspected."""
    if order.backend != AUTO:
        return []
    if order.teach:
        return list(gather(order.teach)[0].values())
    if not source.files:
        raise UsageError(
            f"expected pictures to measure --backend auto on, got a {source.kind} alone; give --teach GOOD_FRAMES or "
            "name a backend: specialsam models backends shows how fast each is"
        )
    return [Path(file) for file in source.files]


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
