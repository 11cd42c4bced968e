"""Events, not pictures: what is seen at one place of the web in many pictures is one defect and one alarm.

Sights are put together by their place on the web, which stands still while the pictures move over it. A place begins
with a sight above the threshold, goes on with sights above a lower one, becomes an event once enough pictures alarmed,
and is told once: when it is over, or after some seconds where the line stands. A told place is known until it is well
past the picture, so that it never alarms again.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from specialsam.apps.line.odometer import Box, Span
from specialsam.apps.line.settings import LineSettings

IDS = uuid.UUID("6f3c9a52-2d0e-4c57-9e5e-3f3a5f1a7b10")
SEVERITIES = ("minor", "major", "critical")


@dataclass(frozen=True)
class Sighting:
    """Something in one picture: (from, to) in metres `along` and millimetres `across`, its area, its score in 0..1.

    `box` (x0, y0, x1, y1) are its outer edges in the picture's pixels.
    """

    along: Span
    across: Span
    area_mm2: float
    score: float
    box: Box = (0.0, 0.0, 0.0, 0.0)
    label: str = ""


@dataclass(frozen=True)
class Look:
    """One picture as events see it: its `number`, `at` in seconds, the (from, to) metres in `view`, its sights."""

    number: int
    at: float
    view: Span
    seen: tuple[Sighting, ...] = ()


@dataclass(frozen=True)
class Place:
    """A place of the web at which something was seen: in `hits` pictures above the threshold, in `sights` at all.

    `score` is the highest of any picture, `best` the number of that, `area_mm2` and `box` are what was seen there;
    `unseen` counts the pictures since it was seen last.
    """

    number: int
    along: Span
    across: Span
    area_mm2: float
    score: float
    label: str
    first: int
    last: int
    opened: float
    best: int
    box: Box
    hits: int = 1
    sights: int = 1
    unseen: int = 0
    told: bool = False


@dataclass(frozen=True)
class Places:
    """All places that are known now, and how many there ever were."""

    known: tuple[Place, ...] = ()
    count: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, from which `read` makes the same."""
        return asdict(self)

    @classmethod
    def read(cls, kept: Mapping[str, Any]) -> Places:
        spans = ("along", "across", "box")
        known = tuple(Place(**{**one, **{name: tuple(one[name]) for name in spans}}) for one in kept["known"])
        return cls(known, int(kept["count"]))


def advance(places: Places, look: Look, threshold: float, settings: LineSettings) -> tuple[Places, tuple[Place, ...]]:
    """The places after one more picture, and those that became an event with it: each is told exactly once."""
    known, count = list(places.known), places.count
    for sight in sorted(look.seen, key=lambda one: -one.score):
        near = [one for one in known if _apart(one, sight) <= settings.slack_mm]
        if near:
            known = [one for one in known if one not in near]
            known.append(_seen(_joined(near), sight, look, threshold))
        elif sight.score >= threshold:
            known.append(_opened(count, sight, look))
            count += 1
    known.sort(key=lambda one: one.number)
    kept, told = [], []
    for one in known:
        gone = one.along[1] < look.view[0]
        one = replace(one, unseen=0 if one.last == look.number else one.unseen + 1)
        over = gone or one.unseen > settings.gap
        if one.hits >= settings.confirm and not one.told and (over or look.at - one.opened >= settings.report_after):
            one = replace(one, told=True)
            told.append(one)
        past = one.along[1] < look.view[0] - settings.cooldown_m
        if not (past if one.told else over):
            kept.append(one)
    return Places(tuple(kept), count), tuple(told)


def finish(places: Places, settings: LineSettings) -> tuple[Places, tuple[Place, ...]]:
    """No picture will follow: what is an event and was not told yet is told now."""
    told = tuple(replace(one, told=True) for one in places.known if one.hits >= settings.confirm and not one.told)
    numbers = {one.number for one in told}
    return Places(
        tuple(replace(one, told=one.told or one.number in numbers) for one in places.known), places.count
    ), told


def _apart(place: Place, sight: Sighting) -> float:
    """Millimetres between two rectangles on the web, along or across, whichever is more; 0 where they meet."""
    along = 1000 * max(place.along[0] - sight.along[1], sight.along[0] - place.along[1])
    across = max(place.across[0] - sight.across[1], sight.across[0] - place.across[1])
    return max(along, across, 0.0)


def _union(one: Span, other: Span) -> Span:
    return min(one[0], other[0]), max(one[1], other[1])


def _opened(number: int, sight: Sighting, look: Look) -> Place:
    return Place(
        number,
        sight.along,
        sight.across,
        sight.area_mm2,
        sight.score,
        sight.label,
        first=look.number,
        last=look.number,
        opened=look.at,
        best=look.number,
        box=sight.box,
    )


def _seen(place: Place, sight: Sighting, look: Look, threshold: float) -> Place:
    """A place with one more sight of it; several in one picture count as one, and faint ones tell no extent."""
    again = place.last == look.number
    sure = sight.score >= threshold
    better = sight.score > place.score
    return replace(
        place,
        along=_union(place.along, sight.along) if sure else place.along,
        across=_union(place.across, sight.across) if sure else place.across,
        area_mm2=sight.area_mm2 if better else place.area_mm2,
        score=max(place.score, sight.score),
        label=sight.label if better or not place.label else place.label,
        best=look.number if better else place.best,
        box=sight.box if better else place.box,
        last=look.number,
        hits=place.hits + (not again and sure),
        sights=place.sights + (not again),
    )


def _joined(near: Sequence[Place]) -> Place:
    """Places that turn out to be one: the earliest of them, told where any was."""
    first = min(near, key=lambda one: (not one.told, one.number))
    surest = max(near, key=lambda one: one.score)
    for other in near:
        first = replace(
            first,
            along=_union(first.along, other.along),
            across=_union(first.across, other.across),
            first=min(first.first, other.first),
            last=max(first.last, other.last),
            opened=min(first.opened, other.opened),
            hits=max(first.hits, other.hits),
            sights=max(first.sights, other.sights),
        )
    of_surest = {name: getattr(surest, name) for name in ("score", "area_mm2", "best", "box", "label")}
    return replace(first, **of_surest)


@dataclass(frozen=True)
class Event:
    """One alarm, as every sink gets it. `id` is the same however often it is made or sent.

    Metres along the roll and millimetres across the web are (from, to); `pictures` are (first, last).
    """

    id: str
    number: int
    time: str
    job: str
    roll: str
    recipe: str
    camera: str
    model: str
    kind: str
    severity: str
    score: float
    area_mm2: float
    along_m: Span
    across_mm: Span
    pictures: tuple[int, int]
    sights: int
    snapshot: str = ""

    @property
    def metre(self) -> float:
        """Its middle along the roll."""
        return sum(self.along_m) / 2

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, from which `read` makes the same."""
        return asdict(self)

    @classmethod
    def read(cls, kept: Mapping[str, Any]) -> Event:
        pairs = ("along_m", "across_mm", "pictures")
        return cls(**{**kept, **{name: tuple(kept[name]) for name in pairs}})


def event_of(place: Place, run: str, model: str, time: datetime, settings: LineSettings) -> Event:
    """A place as an event of the run folder with the id `run`."""
    identity = str(uuid.uuid5(IDS, f"{run}/{place.number}"))
    grade = sum(place.area_mm2 >= least for least in settings.severity_mm2)
    return Event(
        id=identity,
        number=place.number,
        time=time.isoformat(timespec="milliseconds"),
        job=settings.job,
        roll=settings.roll,
        recipe=settings.recipe,
        camera=settings.camera,
        model=model,
        kind=place.label,
        severity=SEVERITIES[grade],
        score=round(place.score, 4),
        area_mm2=round(place.area_mm2, 2),
        along_m=(round(place.along[0], 4), round(place.along[1], 4)),
        across_mm=(round(place.across[0], 2), round(place.across[1], 2)),
        pictures=(place.first, place.last),
        sights=place.sights,
        snapshot=f"snapshots/{identity}.jpg",
    )
