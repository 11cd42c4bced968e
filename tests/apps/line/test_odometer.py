"""Where on the roll a picture is. Oracles: sums by hand, and pixels turned by numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialsam.apps.line.odometer import Odometer, Step, advance, on_web, start, view
from specialsam.apps.line.settings import Direction, LineSettings
from specialsam.core.errors import UsageError
from specialsam.core.settings import parse_settings

SPEED = LineSettings(motion="speed", speed=0.5, pitch_mm=2)
SIZE = (100, 80)


def after(steps: Sequence[Step], settings: LineSettings) -> Odometer:
    odometer = start(SIZE, settings)
    for step in steps:
        odometer = advance(odometer, step, settings)
    return odometer


def test_by_line_speed_pictures_that_were_passed_over_cost_nothing() -> None:
    """By hand: 0.2 m in the first picture, then 3.2 s at half a metre a second."""
    odometer = after([Step(0, 10.0), Step(1, 10.1), Step(30, 13.2)], SPEED)
    assert odometer.travelled == pytest.approx(0.2 + 1.6)
    assert view(odometer, SIZE, SPEED) == pytest.approx((1.6, 1.8))


def test_by_trigger_the_clock_says_nothing() -> None:
    settings = LineSettings(motion="trigger", trigger_mm=25, pitch_mm=2)
    odometer = after([Step(4, 9.0), Step(5, 3.0), Step(12, 3.0)], settings)
    assert odometer.travelled == pytest.approx(0.2 + 8 * 0.025)


def test_by_the_picture_what_it_misses_is_filled() -> None:
    """By hand: 10 px a picture of 2 mm; a picture that tells nothing counts as the pace, or as the line speed's."""
    steps = [Step(0, 0.0), Step(1, 0.1, 10.0), Step(3, 0.3, None), Step(4, 0.4, 10.0)]
    assert after(steps, LineSettings(pitch_mm=2)).travelled == pytest.approx(0.2 + 0.08)
    assert after(steps, LineSettings(pitch_mm=2, speed=1.0)).travelled == pytest.approx(0.2 + 0.02 + 0.2 + 0.02)


@pytest.mark.parametrize("leap", [-3600.0, -0.001, 0.0, 90.0, 1e9, float("nan"), float("inf")])
def test_a_clock_that_jumps_is_tolerated(leap: float) -> None:
    """The jump takes the usual time of a picture; what follows goes by the new clock. Oracle: a clock that is right."""
    right = [Step(n, n / 10) for n in range(20)]
    jumped = [*right[:10], *(Step(n, right[9].at + leap + (n - 10) / 10) for n in range(10, 20))]
    found = after(jumped, SPEED)
    assert found.jumped == (1 if np.isfinite(leap) else 10)
    assert found.travelled == pytest.approx(after(right, SPEED).travelled)


@given(
    st.sampled_from(["down", "up", "left", "right"]),
    st.integers(0, 70), st.integers(0, 50), st.integers(1, 20), st.integers(1, 20),
)  # fmt: skip
def test_directions_are_turns_of_one(direction: Direction, x: int, y: int, wide: int, tall: int) -> None:
    """Oracle: the picture turned by numpy so that things move down, in which the box is read off the pixels."""
    picture = np.zeros(SIZE, np.bool_)
    picture[y : y + tall, x : x + wide] = True
    rows, columns = np.nonzero(picture)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    turned = {"down": picture, "up": picture[::-1], "right": picture.T, "left": picture.T[::-1]}[direction]
    u, v = np.nonzero(turned)
    settings = LineSettings(direction=direction, pitch_mm=2)
    along, across = on_web(tuple(map(float, box)), SIZE, 5.0, settings)
    assert along == pytest.approx((5 - (u.max() + 1) * 0.002, 5 - u.min() * 0.002))
    assert across == pytest.approx((v.min() * 2, (v.max() + 1) * 2))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"motion": "speed"}, "needs the line's speed in metres a second: speed=0.5"),
        ({"motion": "trigger"}, "needs millimetres between two pictures: trigger_mm=20"),
        ({"severity_mm2": (5, 1)}, "two areas in rising order"),
        ({"pitch_mm": 0}, "pitch_mm"),
        ({"roll": ""}, "roll"),
    ],
)
def test_settings_that_say_too_little(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_settings(LineSettings, values)
