"""How an inspection is doing, in numbers: for the live table, for Prometheus, and for the page at its end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from specialsam.apps.line.couriers import Courier
from specialsam.apps.line.events import Event
from specialsam.apps.line.inspection import Inspection
from specialsam.apps.line.outbox import Outbox
from specialsam.apps.line.reader import Counts
from specialsam.apps.line.sinks.prometheus import Labels, Numbers
from specialsam.core.board import Board
from specialsam.core.console import complain

KEPT = 2000
"""Pictures whose latency is remembered."""
SECOND = 1.0
COLUMNS = ("time", "metre", "across mm", "severity", "mm²", "score", "seen in")


@dataclass
class Pace:
    """Latency of pictures, from read to stored, and how many a second."""

    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    times: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    pictures: int = 0

    def add(self, taken: float) -> None:
        """A picture that was taken at `taken` is done with, now."""
        now = time.monotonic()
        self.latencies.append(now - taken)
        self.times.append(now)
        self.pictures += 1

    def percentile(self, share: float) -> float:
        """Seconds; 0 before the first picture."""
        return float(np.percentile(list(self.latencies), share)) if self.latencies else 0.0

    def fps(self, within: float = 10.0) -> float:
        """Pictures a second, over the last seconds."""
        now = time.monotonic()
        recent = [at for at in list(self.times) if now - at <= within]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0


class Waits:
    """What waits for each sink, looked up once a second, and an alarm where it nears the bound."""

    def __init__(self, outbox: Outbox, share: float) -> None:
        self.outbox, self.share = outbox, share
        self.counts: Mapping[str, int] = {}
        self._at, self._said = -SECOND, frozenset[str]()

    def look(self) -> Mapping[str, int]:
        """Events by sink; what was seen last where the file is locked."""
        if time.monotonic() - self._at < SECOND:
            return self.counts
        self._at = time.monotonic()
        try:
            self.counts = self.outbox.counts()
        except Exception:  # locked: the inspection says so itself
            return self.counts
        limit = self.share * self.outbox.bound
        full = frozenset(name for name, number in self.counts.items() if number >= limit)
        for name in sorted(full - self._said):
            complain(
                f"{self.counts[name]} events wait for {name}, of {self.outbox.bound} at most in its outbox; see to it"
            )
        self._said = full
        return self.counts


def board_of(inspection: Inspection, pace: Pace, counts: Counts, waits: Mapping[str, int], title: str) -> Board:
    """The live table."""
    numbers = {
        "pictures": f"{pace.pictures:,} at {pace.fps():.1f}/s",
        "latency": f"{1000 * pace.percentile(50):.0f} ms, p95 {1000 * pace.percentile(95):.0f} ms",
        "passed over": f"{counts.passed:,}",
        "lost": f"{counts.black} black, {counts.frozen} frozen",
        "position": f"{inspection.metres():.2f} m",
        "events": f"{inspection.told:,}",
        "camera": f"{counts.restarts} restarts" if counts.restarts else "there",
        "alarms from": f"{inspection.threshold:.3f}",
    }
    if waits:
        numbers["to deliver"] = ", ".join(f"{name} {number}" for name, number in waits.items())
    rows = [_row(one) for one in reversed(inspection.latest)]
    return Board(title, numbers, COLUMNS if rows else (), rows)


def _row(one: Event) -> Sequence[str]:
    across = f"{one.across_mm[0]:.0f} to {one.across_mm[1]:.0f}"
    size = (f"{one.metre:.3f}", across, one.severity, f"{one.area_mm2:.0f}", f"{one.score:.2f}", str(one.sights))
    return (one.time[11:19], *size)


@dataclass(frozen=True)
class Watched:
    """What Prometheus is told about; asked from another thread, it reads numbers and changes nothing."""

    inspection: Inspection
    pace: Pace
    counts: Counts
    waits: Waits
    couriers: Sequence[Courier]

    def numbers(self) -> Numbers:
        """By name, all with the labels of the line."""
        rules = self.inspection.settings
        line: Labels = (("job", rules.job), ("roll", rules.roll), ("camera", rules.camera))
        one = {
            "pictures_total": ("Pictures inspected", self.pace.pictures),
            "pictures_alarming_total": ("Pictures with anything above the threshold", self.inspection.alarming),
            "pictures_passed_total": ("Pictures passed over for newer ones", self.counts.passed),
            "pictures_lost_total": ("Black or frozen pictures", self.counts.lost),
            "camera_restarts_total": ("Times the reader was started anew", self.counts.restarts),
            "camera_gone_seconds_total": ("Seconds without any picture", self.counts.gone),
            "events_total": ("Events told", self.inspection.told),
            "position_metres": ("Metres of the roll seen", self.inspection.metres()),
            "clock_jumps_total": (
                "Jumps of the clock",
                self.inspection.odometer.jumped if self.inspection.odometer else 0,
            ),
            "frames_per_second": ("Pictures a second, lately", self.pace.fps()),
            "events_unstored": ("Events that wait in memory for their file", len(self.inspection.pending)),
        }
        out = {f"specialsam_{name}": (says, {line: float(value)}) for name, (says, value) in one.items()}
        shares = {(*line, ("quantile", str(q / 100))): self.pace.percentile(q) for q in (50, 95)}
        out["specialsam_latency_seconds"] = ("Seconds from reading a picture to storing its events", shares)
        waiting = {(*line, ("sink", name)): float(number) for name, number in self.waits.counts.items()}
        out["specialsam_outbox_events"] = ("Events that wait for a sink", waiting)
        down = {(*line, ("sink", courier.sink.name)): float(bool(courier.down)) for courier in self.couriers}
        out["specialsam_sink_down"] = ("1 where a sink takes nothing now", down)
        return out
