"""The study's five factors: its own three experiments by its own rules, and what measured numbers say beside them."""

from __future__ import annotations

import pytest

from specialsam.advice.forecast.curve import Forecast
from specialsam.advice.forecast.factors import Case, factors
from specialsam.advice.probes.monitor import review
from specialsam.core.findings import Factor, Finding
from specialsam.training.state import EpochFacts

MOBILE, HUGE = (10_100_000, 4_060_000), (637_000_000, 4_060_000)
"""Parameters of the encoder and of the decoder: MobileSAM and SAM ViT-H."""
LOSSES = {
    "wood": (0.1570, 0.0125, 0.0426, 0.0002, 0.0001),
    "carpet": (0.2544, 0.2006, 0.1818, 0.1639, 0.1527),
    "camouflage": (0.1420, 0.1272, 0.1172, 0.1140, 0.1113, 0.1081, 0.1059),
}
NAMES = ("room for improvement", "data volume", "loss composition", "model capacity", "training stability")


def stability(study: str) -> Finding:
    """What the monitor says of the losses that the study printed; validation is taken to rise."""
    facts = [EpochFacts(0, None, 0.5, 0.4)]
    facts += [EpochFacts(i, loss, 0.5, 0.4 + i / 100, grad_norm=1.0) for i, loss in enumerate(LOSSES[study], 1)]
    return next(finding for finding in review(facts) if finding.check == "training stability")


def case(
    study: str, base: float, views: int, loss: dict[str, float], size: tuple[int, int], gain: float
) -> tuple[Factor, ...]:
    """One experiment of the study, its measured gain put in as the forecast."""
    now, doubled = Forecast(500, gain, gain - 0.02, gain + 0.02), Forecast(1000, gain + 0.01, gain - 0.02, gain + 0.04)
    samples = {"images": 500, "objects": 2000, "views": views}
    return factors(Case(base, ("by box", base + 0.01), samples, loss, size), now, doubled, stability(study))


@pytest.mark.parametrize(
    ("found", "by_rule", "here"),
    [
        (
            case("wood", 0.958, 500, {"dice": 1.0}, MOBILE, -0.3628),
            (False, False, False, False, False),
            (False, False, None, False, False),
        ),
        (
            case("carpet", 0.2943, 500, {"dice": 1.0}, MOBILE, 0.0675),
            (True, False, False, False, True),
            (True, True, None, True, True),
        ),
        (
            case("camouflage", 0.4752, 6080, {"bce": 0.5, "dice": 0.5}, HUGE, 0.1883),
            (True, True, True, True, True),
            (True, True, None, True, True),
        ),
    ],
    ids=["wood", "carpet", "camouflage"],
)
def test_the_study_by_its_own_rules_and_by_its_own_results(
    found: tuple[Factor, ...], by_rule: tuple[bool, ...], here: tuple[bool | None, ...]
) -> None:
    """Oracle: the study's table of its three experiments. Carpet gained although three of the five rules forbid it."""
    assert tuple(factor.name for factor in found) == NAMES
    assert tuple(factor.by_rule for factor in found) == by_rule
    assert tuple(factor.here for factor in found) == here


def test_sentences_carry_the_numbers() -> None:
    room, data, loss, capacity, stable = case("camouflage", 0.4752, 6080, {"bce": 0.5, "dice": 0.5}, HUGE, 0.1883)
    gain = "the pilots forecast +18.8 [+16.8, +20.8] IoU points at 500 training images"
    assert room.says == f"the base reaches 47.5 % IoU and, by box, 48.5 %; {gain}"
    assert data.says == (
        f"500 images with 2,000 objects, 6,080 samples with their views; {gain}, and +19.8 at twice as many"
    )
    assert loss.says == "the mix is 0.5 bce + 0.5 dice; whether another mix would do better here was not measured"
    assert capacity.says == f"637.0 M parameters in the frozen encoder, 4.1 M tuned; {gain}"
    assert stable.says.startswith("in the largest pilot: the training loss made no jump")


@pytest.mark.parametrize(
    ("base", "views", "encoder", "by_rule"),
    [
        (0.7499, 5000, 100_000_000, (True, True, True)),
        (0.75, 4999, 99_999_999, (False, False, False)),
    ],
)
def test_the_limits_of_the_rules(base: float, views: int, encoder: int, by_rule: tuple[bool, bool, bool]) -> None:
    found = case("carpet", base, views, {"dice": 1.0}, (encoder, 1), 0.1)
    assert (found[0].by_rule, found[1].by_rule, found[3].by_rule) == by_rule


@pytest.mark.parametrize(
    ("mix", "both"),
    [
        ({"dice": 1.0}, False),
        ({"bce": 1.0}, False),
        ({"focal": 20.0, "dice": 1.0}, True),
        ({"bce": 0.5, "iou": 0.5}, True),
        ({"bce": 0.0, "dice": 1.0}, False),
        ({"bce": 0.5, "focal": 0.5}, False),
    ],
)
def test_a_pixel_loss_beside_a_region_loss(mix: dict[str, float], both: bool) -> None:
    assert case("carpet", 0.3, 500, mix, MOBILE, 0.1)[2].by_rule is both


def test_where_the_interval_holds_zero_nothing_is_told() -> None:
    found = case("carpet", 0.3, 500, {"dice": 1.0}, MOBILE, 0.01)
    assert [factor.here for factor in found] == [None, None, None, None, True]


def test_without_a_trained_pilot_stability_is_unknown() -> None:
    now = Forecast(10, 0.1, 0.05, 0.2)
    samples = {"images": 10, "objects": 10, "views": 10}
    found = factors(Case(0.5, ("by box", 0.6), samples, {"dice": 1.0}, MOBILE), now, now, None)[4]
    assert (found.by_rule, found.here, found.says) == (None, None, "no pilot was trained")
