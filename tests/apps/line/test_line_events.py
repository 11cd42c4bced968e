"""One defect, one alarm. Oracles: defects put on a web by hand or by hypothesis, and sums done by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialsam.apps.line.events import Event, Look, Place, Places, Sighting, advance, event_of, finish
from specialsam.apps.line.settings import LineSettings
from specialsam.cli.options import read_settings

RULES = LineSettings(slack_mm=10, confirm=2, gap=3, report_after=1e9, cooldown_m=0.1)
LENGTH, STEP = 0.25, 0.02
"""Metres that a picture shows, and that the web moves between two."""
Defect = tuple[float, float, float]
"""Metres along (from, to), millimetres across."""


def seen(defect: Defect, view: tuple[float, float], score: float = 0.9) -> list[Sighting]:
    """What a picture shows of it: the part in view."""
    start, end, across = defect
    low, high = max(start, view[0]), min(end, view[1])
    return [Sighting((low, high), (across, across + 10), 25.0, score)] if high > low else []


def ran(defects: list[Defect], metres: float, rules: LineSettings = RULES, skip: int = 0) -> list[Place]:
    """All events of a web that passes, with every so many pictures without any sight."""
    places, events, number, edge = Places(), [], 0, LENGTH
    while edge < metres + LENGTH:
        view = (edge - LENGTH, edge)
        sights = [] if skip and number % skip == 0 else [one for each in defects for one in seen(each, view)]
        places, told = advance(places, Look(number, number / 10, view, tuple(sights)), 0.5, rules)
        events += told
        number, edge = number + 1, edge + STEP
    places, told = finish(places, rules)
    assert finish(places, rules)[1] == ()
    return [*events, *told]


@st.composite
def apart(draw: st.DrawFn) -> list[Defect]:
    """Defects on a web, each farther than the slack from every other, some longer than a picture."""
    out, at = [], 0.05
    for _ in range(draw(st.integers(0, 5))):
        at += draw(st.floats(0.011, 0.6))
        length = draw(st.floats(0.021, 0.7))
        out.append((at, at + length, draw(st.floats(0, 200))))
        at += length
    return out


@given(apart(), st.integers(0, 3))
def test_each_defect_is_one_event_with_its_own_extent(defects: list[Defect], skip: int) -> None:
    """Whatever its length, and where every so many pictures miss it. Oracle: the defects themselves."""
    skip = skip and skip + 2
    events = sorted(ran(defects, 6.0, skip=skip), key=lambda one: one.along)
    assert len(events) == len(defects)
    for event, (start, end, across) in zip(events, defects, strict=True):
        assert event.along == pytest.approx((start, end), abs=2 * STEP if skip else 1e-9)
        assert event.across == (across, across + 10)


@given(st.lists(st.tuples(st.floats(0.05, 3), st.floats(0.02, 0.3), st.floats(0, 50)), max_size=6))
def test_nothing_is_lost_and_nothing_doubled(drawn: list[tuple[float, float, float]]) -> None:
    """However defects touch and overlap: each lies within an event, and there are no more events than defects."""
    events = ran([(at, at + length, across) for at, length, across in drawn], 4.0)
    assert len({one.number for one in events}) == len(events) <= len(drawn)
    for at, length, across in drawn:
        assert any(
            one.along[0] <= at
            and at + length <= one.along[1]
            and one.across[0] <= across
            and across + 10 <= one.across[1]
            for one in events
        )


def test_a_single_picture_is_no_event_and_two_are() -> None:
    sight = Sighting((0.1, 0.12), (0, 5), 10, 0.9)
    once = [Look(0, 0, (0, 0.25), (sight,)), *(Look(n, n, (0, 0.25)) for n in range(1, 9))]
    twice = [once[0], replace(once[1], seen=(sight,)), *once[2:]]
    for looks, expected in ((once, 0), (twice, 1)):
        places, told = Places(), []
        for look in looks:
            places, now = advance(places, look, 0.5, RULES)
            told += now
        assert len(told) == expected


def test_hysteresis_begins_high_and_goes_on_low() -> None:
    low, high = (Sighting((0.1, 0.12), (0, 5), 10, score) for score in (0.3, 0.9))
    places, _ = advance(Places(), Look(0, 0, (0, 0.25), (low,)), 0.5, RULES)
    assert places.known == ()
    places, _ = advance(places, Look(1, 0.1, (0, 0.25), (high,)), 0.5, RULES)
    places, _ = advance(places, Look(2, 0.2, (0, 0.25), (low,)), 0.5, RULES)
    assert (places.known[0].hits, places.known[0].sights) == (1, 2)
    assert finish(places, RULES)[1] == (), "one picture above the threshold confirms nothing"


def test_a_line_that_stands_tells_once_and_goes_on_in_silence() -> None:
    """Told after a second in sight, and not again when it moves on, is out of sight, or is drawn back a little."""
    rules = RULES.model_copy(update={"report_after": 1.0})
    sight, told_at, places = Sighting((0.1, 0.12), (0, 5), 10, 0.9), [], Places()
    views = [(0.0, 0.25)] * 60 + [(0.15, 0.4)] * 3 + [(0.05, 0.3)] * 10
    for number, view in enumerate(views):
        shown = view[0] < 0.1 and not 30 <= number < 40
        places, told = advance(places, Look(number, number / 10, view, (sight,) * shown), 0.5, rules)
        told_at += [number] * len(told)
    assert told_at == [10]
    places, _ = advance(places, Look(99, 99, (1, 1.25)), 0.5, rules)
    assert places.known == ()


def test_two_sights_of_one_place_count_as_one_picture() -> None:
    pair = tuple(Sighting((0.1, 0.12), (across, across + 5), 10, 0.9) for across in (0, 8))
    places, _ = advance(Places(), Look(0, 0, (0, 0.25), pair), 0.5, RULES)
    [place] = places.known
    assert (place.hits, place.sights, place.across) == (1, 1, (0, 13))


def test_what_is_known_survives_as_json() -> None:
    places, _ = advance(Places(), Look(0, 0, (0, 0.25), (Sighting((0.1, 0.12), (0, 5), 10, 0.9),)), 0.5, RULES)
    assert Places.read(json.loads(json.dumps(places.as_json()))) == places


def test_an_event_says_all_and_has_one_id() -> None:
    rules = LineSettings(job="J", roll="R7", recipe="blue", camera="top", severity_mm2=(20, 100))
    place = Place(3, (1.0, 1.2), (30, 50), 25.0, 0.91, "hole", 7, 19, 0.7, 9, (1, 2, 3, 4), 4, 9)
    now = datetime(2026, 11, 27, 8, 0, tzinfo=UTC)
    event = event_of(place, "run", "model", now, rules)
    assert event == event_of(place, "run", "model", now, rules)
    assert event.id != event_of(place, "another run", "model", now, rules).id
    assert event.id != event_of(replace(place, number=4), "run", "model", now, rules).id
    assert Event.read(json.loads(json.dumps(event.as_json()))) == event
    assert (event.job, event.roll, event.recipe, event.camera, event.model) == ("J", "R7", "blue", "top", "model")
    assert (event.severity, event.kind, event.metre, event.pictures) == ("major", "hole", pytest.approx(1.1), (7, 19))
    grades = [event_of(replace(place, area_mm2=area), "", "", now, rules).severity for area in (19, 20, 100)]
    assert grades == ["minor", "major", "critical"]


def test_orders_and_rolls_may_be_numbers() -> None:
    """As `-s job=4711 -s roll=0017` gives them; YAML alone would read 0017 by eights."""
    given = read_settings(None, ["job=4711", "roll=0017", "camera=top", "recipe=8"])
    settings = LineSettings.model_validate(given)
    assert (settings.job, settings.roll, settings.camera, settings.recipe) == ("4711", "0017", "top", "8")
