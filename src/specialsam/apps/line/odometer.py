"""Where on the roll a picture is: metres along it, told by line speed, by a trigger's count, or by the picture itself.

`travelled` is the place of the edge of the picture over which new web comes in; 0 m is what leaves the first picture
first. The picture's coordinates u (from that edge) and v (across) follow from the direction in which things move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from specialsam.apps.line.settings import Direction, LineSettings

LONGEST = 60.0
"""Seconds between two pictures above which the clock must have jumped."""
Span = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Step:
    """What a picture tells of the motion: its `number`, `at` in seconds of its source's clock, `moved` in pixels.

    Numbers count the pictures that were passed over, too. `moved` is since the picture before that was handed on, None
    where it cannot be told.
    """

    number: int
    at: float
    moved: float | None = None


@dataclass(frozen=True)
class Odometer:
    """Metres `travelled`, the last step, the usual seconds and pixels a picture, and how often the clock `jumped`."""

    travelled: float
    number: int = -1
    at: float = 0.0
    usual: float = 0.0
    pace: float = 0.0
    jumped: int = 0


def length_of(size: tuple[int, int], direction: Direction) -> int:
    """Pixels of a picture of that (height, width) along the web."""
    return size[0] if direction in ("down", "up") else size[1]


def start(size: tuple[int, int], settings: LineSettings) -> Odometer:
    """At the first picture, whose size is (height, width)."""
    return Odometer(length_of(size, settings.direction) * settings.pitch_mm / 1000)


def advance(odometer: Odometer, step: Step, settings: LineSettings) -> Odometer:
    """The place of the next picture; a clock that went back or leapt is not believed, the usual time is taken."""
    if odometer.number < 0:
        return replace(odometer, number=step.number, at=step.at)
    count = max(step.number - odometer.number, 1)
    seconds, jumped = step.at - odometer.at, odometer.jumped
    if not (0 < seconds <= LONGEST and math.isfinite(seconds)):
        seconds, jumped = odometer.usual * count, jumped + 1
    usual = odometer.usual
    if jumped == odometer.jumped:
        usual = seconds / count if not usual else 0.9 * usual + 0.1 * seconds / count
    moved, pace = step.moved, odometer.pace
    if settings.motion == "trigger":
        metres = count * settings.trigger_mm / 1000
    elif settings.motion == "speed":
        metres = settings.speed * seconds
    elif moved is not None:
        metres, pace = moved * settings.pitch_mm / 1000, moved / count
    elif settings.speed:
        metres = settings.speed * seconds
    else:
        metres = pace * count * settings.pitch_mm / 1000
    return Odometer(odometer.travelled + metres, step.number, step.at, usual, pace, jumped)


def view(odometer: Odometer, size: tuple[int, int], settings: LineSettings) -> Span:
    """(from, to) in metres of the web that a picture of (height, width) shows."""
    return odometer.travelled - length_of(size, settings.direction) * settings.pitch_mm / 1000, odometer.travelled


def on_web(box: Box, size: tuple[int, int], travelled: float, settings: LineSettings) -> tuple[Span, Span]:
    """A box (x0, y0, x1, y1), outer edges in pixels, as (from, to) in metres along and millimetres across the web."""
    x0, y0, x1, y1 = box
    height, width = size
    pitch = settings.pitch_mm
    near, far, left, right = {
        "down": (y0, y1, x0, x1),
        "up": (height - y1, height - y0, x0, x1),
        "right": (x0, x1, y0, y1),
        "left": (width - x1, width - x0, y0, y1),
    }[settings.direction]
    return (travelled - far * pitch / 1000, travelled - near * pitch / 1000), (left * pitch, right * pitch)
