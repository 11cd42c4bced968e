"""Forecasts against drawn power laws whose truth is known, and the promises that hold for every curve."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.advice.forecast.curve import (
    REACH,
    RUN_NOISE,
    Curves,
    Pilot,
    curve_rows,
    fit,
    forecast,
    labels_needed,
)
from specialsam.core.errors import DataError

SIZES = (35, 70, 175, 350)
MEANS = st.lists(st.floats(-0.3, 0.5), min_size=2, max_size=5)


def flat(means: list[float], images: int = 20, sizes: tuple[int, ...] | None = None) -> list[Pilot]:
    """Pilots of rising size whose mean gains are known; images differ by the same amounts in each."""
    spread = np.linspace(-0.05, 0.05, images)
    return [Pilot(n, 0, mean + spread) for n, mean in zip(sizes or range(10, 99, 20), means, strict=False)]


def law(limit: float, slope: float, exponent: float, rng: np.random.Generator, run: float = RUN_NOISE) -> list[Pilot]:
    """Pilots of a power law on 150 shared images, each with the noise of a run."""
    shared = rng.normal(0, 0.12, 150)
    truths = (limit - slope * n**-exponent for n in SIZES)
    return [
        Pilot(n, 0, truth + shared + rng.normal(0, 0.06, 150) + rng.normal(0, run))
        for n, truth in zip(SIZES, truths, strict=True)
    ]


def test_the_interval_holds_the_truth_of_drawn_power_laws() -> None:
    """Oracle: the law that the pilots were drawn from; and an interval that is no wider than it must be."""
    rng = np.random.default_rng(1)
    held, widths = np.zeros((2, 100)), []
    for number in range(100):
        limit, exponent = rng.uniform(0.05, 0.25), rng.uniform(0.2, 0.9)
        slope = limit * rng.uniform(0.5, 2) * 35**exponent / 2
        curves = fit(law(limit, slope, exponent, rng), 0.6, seed=number)
        for row, n in enumerate((700, 1400)):
            found, truth = curves.forecast(n), limit - slope * n**-exponent
            held[row, number] = found.low <= truth <= found.high
            widths.append(found.high - found.low)
    assert held[0].mean() >= 0.90
    assert held[1].mean() >= 0.85
    assert np.mean(widths) < 0.10


def test_a_fit_takes_a_fraction_of_a_second_of_one_core() -> None:
    pilots = law(0.2, 0.6, 0.5, np.random.default_rng(0))
    began = time.process_time()
    for _ in range(5):
        fit(pilots)
    assert (time.process_time() - began) / 5 < 0.05


@settings(max_examples=40, deadline=None)
@given(MEANS, st.floats(0.01, 1.0))
def test_no_curve_ends_above_what_can_be_gained_and_more_images_never_harm(means: list[float], headroom: float) -> None:
    curves = fit(flat(means), headroom, draws=60)
    assert (curves.limit <= headroom).all()
    assert (curves.slope >= 0).all()
    gains = [curves.forecast(n).gain for n in (20, 50, 200, 1000, 10**6)]
    assert all(later >= earlier for earlier, later in pairwise(gains))
    assert gains[-1] <= headroom


@settings(max_examples=40, deadline=None)
@given(MEANS, st.floats(0.001, 0.4))
def test_labels_needed_says_what_the_curves_say(means: list[float], wished: float) -> None:
    """Oracle: at the number that is named half of the curves have come to the wished gain, just before it fewer had."""
    curves = fit(flat(means), draws=61)
    needed = labels_needed(curves, wished)
    if needed.n is None:
        assert np.median(curves.at(REACH * curves.largest)) <= wished + 1e-9
        assert needed.high == np.inf
    else:
        assert needed.low <= needed.n + 1
        assert np.median(curves.at(needed.n + 1)) >= wished - 1e-9
        assert needed.n == curves.smallest or np.median(curves.at(max(1, needed.n - 1))) <= wished + 1e-9


def test_labels_needed_of_one_known_curve_is_its_solution() -> None:
    """Oracle by hand: .3 - 2 / sqrt(n) = .1 at n = 100; .3 is never reached, and .29 only at 40,000."""
    curves = Curves(np.full(50, 0.3), np.full(50, 2.0), np.full(50, 0.5), 350)
    needed = labels_needed(curves, 0.1)
    assert (needed.n, round(needed.low), round(needed.high)) == (100, 100, 100)
    assert "takes about 100 training images (100 to 100)" in needed.says
    for wished in (0.29, 0.3, 0.5):
        far = labels_needed(curves, wished)
        assert far.n is None
        assert "out of reach" in far.says
        assert "10,500 images" in far.says


@pytest.mark.parametrize(
    ("slopes", "said"),
    [
        ([0.0] * 50, "a gain of 10.0 IoU points takes no more than the 16 training images of the smallest pilot"),
        (
            [0.0] * 45 + [3.0] * 5,
            "a gain of 10.0 IoU points probably takes no more than the 16 training images of the smallest pilot, "
            "but may take 225",
        ),
        (
            [0.0] * 45 + [30.0] * 5,
            "a gain of 10.0 IoU points probably takes no more than the 16 training images of the smallest pilot, "
            "but may take more than 1,920",
        ),
    ],
)
def test_what_may_take_more_than_the_smallest_pilot_is_not_said_to_take_no_more(slopes: list[float], said: str) -> None:
    """Oracle by hand: .3 - 3 / sqrt(n) = .1 at n = 225; .3 - 30 / sqrt(n) = .1 at 22,500."""
    curves = Curves(np.full(50, 0.3), np.array(slopes), np.full(50, 0.5), 64, 16)
    assert labels_needed(curves, 0.1).says == said


def test_several_seeds_say_how_noisy_a_run_is() -> None:
    """Three seeds an image count that differ by 6 points make a wider interval than three that agree."""
    spread = np.linspace(-0.05, 0.05, 50)

    def pilots(step: float) -> list[Pilot]:
        return [Pilot(n, s, 0.2 - 1 / n + step * (s - 1) + spread) for n in SIZES for s in range(3)]

    wild, calm = (fit(pilots(step)).forecast(700) for step in (0.06, 0.0))
    assert wild.high - wild.low > 2 * (calm.high - calm.low)
    once = fit([pilot for pilot in pilots(0.0) if pilot.seed == 0]).forecast(700)
    assert calm.high - calm.low < once.high - once.low


def test_two_runs_that_agree_by_luck_do_not_make_noise_vanish() -> None:
    spread = np.linspace(-0.05, 0.05, 50)
    found = fit([Pilot(n, s, 0.1 + spread) for n in (35, 70) for s in (0, 1)]).forecast(140)
    assert found.high - found.low > 2 * RUN_NOISE


def test_one_size_of_pilot_is_held_level() -> None:
    curves = fit([Pilot(50, seed, np.full(30, 0.04)) for seed in range(2)])
    assert curves.forecast(50).gain == curves.forecast(5000).gain == pytest.approx(0.04, abs=0.002)
    assert (curves.slope == 0).all()


def test_pilots_in_which_no_epoch_beat_the_base_forecast_nothing_and_say_so() -> None:
    """Every gain exactly 0: the forecast is 0 within the noise of a run, and any wished gain is out of reach."""
    curves = fit([Pilot(n, 0, np.zeros(40)) for n in SIZES])
    found = curves.forecast(700)
    assert found.gain == pytest.approx(0, abs=0.01)
    assert found.low < 0 < found.high < 0.06
    assert labels_needed(curves, 0.1).n is None


def test_gains_that_fall_with_more_images_are_a_plateau_and_no_law() -> None:
    found = fit(flat([0.10, 0.08, 0.06, 0.04])).forecast(10_000)
    assert 0.03 < found.gain < 0.12


def test_the_same_seed_gives_the_same_curves() -> None:
    pilots = law(0.2, 0.6, 0.5, np.random.default_rng(0))
    assert forecast(pilots, 700, 0.4, seed=3) == fit(pilots, 0.6, seed=3).forecast(700)
    assert forecast(pilots, 700, 0.4, seed=3) != forecast(pilots, 700, 0.4, seed=4)


def test_curve_rows_are_the_forecasts() -> None:
    curves = fit(flat([0.01, 0.05, 0.07]))
    assert curve_rows(curves, [10, 20]) == [vars(curves.forecast(10)), vars(curves.forecast(20))]


def test_what_cannot_be_fitted_is_refused_in_one_line() -> None:
    with pytest.raises(DataError, match="at least one pilot"):
        fit([])
    with pytest.raises(DataError, match="same images"):
        fit([Pilot(10, 0, np.zeros(3)), Pilot(20, 0, np.zeros(4))])
    for gains in (np.array([]), np.array([0.1, np.nan])):
        with pytest.raises(DataError, match="finite gains"):
            Pilot(10, 0, gains)
    with pytest.raises(DataError, match="finite gains"):
        Pilot(0, 0, np.zeros(3))
