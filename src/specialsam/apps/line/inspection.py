"""One inspection from picture to stored event: place on the roll, sights, events, snapshots, one transaction.

Everything here is told by the pictures and by the state that is stored with the events, so that an inspection that was
killed goes on from its last stored picture and tells nothing twice.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from specialsam.apps.line import odometer as metre
from specialsam.apps.line.decision import Judged
from specialsam.apps.line.events import Event, Look, Place, Places, Sighting, advance, event_of, finish
from specialsam.apps.line.odometer import Odometer, on_web, view
from specialsam.apps.line.outbox import CannotStore, Outbox
from specialsam.apps.line.reader import Frame
from specialsam.apps.line.settings import LineSettings
from specialsam.apps.line.snapshots import marked_jpeg, write_snapshot
from specialsam.core.console import complain, say
from specialsam.core.errors import DataError, SpecialSamError
from specialsam.core.files import read_json, write_whole
from specialsam.core.geometry import ImageArray
from specialsam.core.masks import tight_boxes
from specialsam.metrics.conformal import Drift, drift

UNSAVED = "unsaved.json"
"""Events that could not be stored when the inspection had to end; the next one takes them in."""
STORE_EVERY = 1.0
"""Seconds between two times that the state is stored where nothing happens."""
TRY_EVERY = 0.5
"""Seconds between two tries to write a file that could not be written."""
RECENT = 200
"""Scores of pictures that drift is looked for in."""
DRIFT_LEVEL = 0.001
"""Chance of calling drift where there is none, at each look."""
ALARMING = 0.5
"""Share of recent pictures that alarm from which the threshold itself is doubted."""


@dataclass
class Recent:
    """Scores of pictures that show each another piece of web, and whether they alarmed."""

    scores: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    alarms: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT))
    place: float = -1e9
    since: int = 0
    said: str = ""


class Inspection:
    """The state of one camera above one roll; `look` takes picture after picture, `finish` ends it.

    Events whose file cannot be written wait in memory, are stored with a later picture, and hold the line up never.
    """

    def __init__(
        self, outbox: Outbox, settings: LineSettings, thresholds: tuple[float, float], model: str, out: Path
    ) -> None:
        self.outbox, self.settings, self.model, self.out = outbox, settings, model, out
        self.threshold, self.low = thresholds
        kept = outbox.state()
        self.run = str(kept.get("run") or uuid4())
        self.first = int(kept.get("next", 0))
        self.odometer = Odometer(**kept["odometer"]) if kept.get("odometer") else None
        self.places = Places.read(kept["places"]) if kept.get("places") else Places()
        self.size: tuple[int, int] = tuple(kept["size"]) if kept.get("size") else (0, 0)
        self.looked, self.alarming = int(kept.get("looked", 0)), int(kept.get("alarming", 0))
        self.told = int(kept.get("told", 0))
        self.pending: list[Event] = []
        self.latest: deque[Event] = deque(outbox.events()[-8:], maxlen=8)
        self.recent = Recent()
        self._shots: dict[int, bytes] = {}
        self._stored, self._fault, self._blind, self._tried = time.monotonic(), "", False, 0.0
        self._clock = datetime.now(UTC) - timedelta(seconds=time.monotonic())
        self._take_in()

    def look(self, frame: Frame, judged: Judged) -> tuple[Event, ...]:
        """One more picture and what was found in it; the events that it brought to their end."""
        size = (frame.image.shape[0], frame.image.shape[1])
        self.size = size
        jumped = self.odometer.jumped if self.odometer else 0
        self.odometer = metre.advance(self.odometer or metre.start(size, self.settings), frame.step, self.settings)
        if self.odometer.jumped > jumped:
            complain("the clock of the pictures jumped; the usual time between two is taken instead")
        seen = sightings(judged, size, self.odometer.travelled, self.settings)
        look = Look(frame.step.number, frame.step.at, view(self.odometer, size, self.settings), seen)
        self.places, told = advance(self.places, look, self.threshold, self.settings)
        self._draw(frame.image, look.number)
        self.first = frame.step.number + 1
        self.looked += 1
        alarms = any(one.score >= self.threshold for one in seen)
        self.alarming += alarms
        self._remember(judged.score, alarms)
        return self._tell(told)

    def finish(self) -> tuple[Event, ...]:
        """No picture follows: events in hand are told and stored."""
        self.places, told = finish(self.places, self.settings)
        return self._tell(told, now=True)

    def metres(self) -> float:
        """Of web that were seen."""
        return self.odometer.travelled if self.odometer else 0.0

    def drift(self, good: Sequence[float]) -> Drift | None:
        """Whether recent good pictures still look like those of the threshold; None as long as they are too few."""
        recent = self.recent
        if len(recent.scores) < RECENT // 2 or recent.since < RECENT // 4:
            return None
        recent.since = 0
        if sum(recent.alarms) > ALARMING * len(recent.alarms):
            share = sum(recent.alarms) / len(recent.alarms)
            return Drift(1.0, 0.0, True, f"{share:.0%} of the last {len(recent.alarms)} pieces of web alarm")
        quiet = [score for score, alarm in zip(recent.scores, recent.alarms, strict=True) if not alarm]
        return drift([score for score in good if score < self.threshold], quiet, DRIFT_LEVEL)

    def store(self, last: bool = False) -> bool:
        """Write what waits, with the state; whether it is written. With `last` events that cannot be go into a file."""
        self._tried = time.monotonic()
        try:
            self.outbox.put(self.pending, self.state())
        except CannotStore as error:
            if not self._fault:
                complain(f"{error}; events wait in memory, and the line goes on")
            self._fault = str(error)
            if last and self.pending:
                self._save_aside()
            return False
        if self._fault:
            say(f"{self.outbox.path} is written again, nothing was lost")
        self._fault, self.pending, self._stored = "", [], time.monotonic()
        return True

    def state(self) -> dict[str, Any]:
        """From which the inspection goes on: plain JSON."""
        return {
            "run": self.run,
            "next": self.first,
            "odometer": asdict(self.odometer) if self.odometer else None,
            "places": self.places.as_json(),
            "size": list(self.size),
            "looked": self.looked,
            "alarming": self.alarming,
            "told": self.told,
        }

    def _tell(self, told: Sequence[Place], now: bool = False) -> tuple[Event, ...]:
        time_now = self._clock + timedelta(seconds=time.monotonic())  # a wall clock that is set moves no event
        events = []
        for place in told:
            event = event_of(place, self.run, self.model, time_now, self.settings)
            if not (self.out / event.snapshot).exists():
                event = replace(event, snapshot="")
            events.append(event)
        self.told += len(events)
        self.pending += events
        self.latest.extend(events)
        due = self.pending or time.monotonic() - self._stored >= STORE_EVERY
        if now or (due and not (self._fault and time.monotonic() - self._tried < TRY_EVERY)):
            self.store(now)
        return tuple(events)

    def _draw(self, image: ImageArray, number: int) -> None:
        """Snapshots of the places that were never as sure as in this picture; written once they are events to be."""
        for place in self.places.known:
            if place.best == number and not place.told:
                self._shots[place.number] = marked_jpeg(image, [place.box])
            if place.hits >= self.settings.confirm and place.number in self._shots:
                name = event_of(place, self.run, self.model, self._clock, self.settings).snapshot
                try:
                    write_snapshot(self.out, name, self._shots.pop(place.number))
                except SpecialSamError as error:
                    if not self._blind:
                        complain(f"{error}; events go on without pictures")
                    self._blind = True
        known = {place.number for place in self.places.known}
        self._shots = {key: packed for key, packed in self._shots.items() if key in known}

    def _remember(self, score: float, alarms: bool) -> None:
        """Keep a score of each piece of web once: pictures that overlap are no independent ones."""
        assert self.odometer is not None
        length = metre.length_of(self.size, self.settings.direction) * self.settings.pitch_mm / 1000
        if self.odometer.travelled - self.recent.place >= length:
            self.recent.place = self.odometer.travelled
            self.recent.scores.append(score)
            self.recent.alarms.append(alarms)
            self.recent.since += 1

    def _save_aside(self) -> None:
        text = json.dumps([one.as_json() for one in self.pending])
        try:
            write_whole(self.out / UNSAVED, lambda path: path.write_text(text + "\n"))
            place = self.out / UNSAVED
            complain(
                f"{len(self.pending)} events could not be stored; they are in {place}, and the next run takes them in"
            )
        except SpecialSamError as error:
            complain(f"{error}; {len(self.pending)} events are stored nowhere but here: {text}")

    def _take_in(self) -> None:
        path = self.out / UNSAVED
        if not path.exists():
            return
        try:
            self.pending = [Event.read(one) for one in read_json(path, "mend it or remove it")]
        except (TypeError, KeyError) as error:
            raise DataError(f"expected events in {path}, got something else; mend it or remove it") from error
        if self.store():
            path.unlink()


def sightings(judged: Judged, size: tuple[int, int], travelled: float, settings: LineSettings) -> tuple[Sighting, ...]:
    """What was found in a picture of (height, width) px, as places on the web."""
    out = []
    for mask, score in zip(judged.masks, judged.scores, strict=True):
        if not mask.any():
            continue
        x0, y0, x1, y1 = (float(side) for side in tight_boxes(mask[None])[0])
        box = (x0, y0, x1 + 1, y1 + 1)
        along, across = on_web(box, size, travelled, settings)
        area = float(np.count_nonzero(mask)) * settings.pitch_mm**2
        out.append(Sighting(along, across, area, float(score), box))
    return tuple(out)
