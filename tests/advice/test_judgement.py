"""Each decision with numbers made by hand; the sentences must carry the numbers that decided."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialsam import advice
from specialsam.advice.forecast import judgement
from specialsam.advice.forecast.curve import Forecast, Needed
from specialsam.advice.forecast.judgement import SPOILS, decide
from specialsam.core.findings import Finding

FAULT = Finding("mask polarity", "fail", "38 of 40 masks look inverted", {}, (), "invert the masks")
HARMLESS = Finding("class mix", "fail", "bees are in test alone", {}, (), "split anew")
WEAK = Finding("mask polarity", "warn", "5 of 40 masks look inverted", {}, (), "look at them")
CLICK, BOX = ("by one click", 0.5, 0.5), ("by box", 0.72, 0.5)


def needed(wished: float = 0.03) -> Needed:
    return Needed(wished, 260, 90, 900, "a gain of 3.0 IoU points takes about 260 training images (90 to 900)")


def judge(
    gain: float,
    low: float,
    high: float,
    mode: tuple[str, float, float] = CLICK,
    findings: tuple[Finding, ...] = (),
    wished: float = 0.03,
) -> judgement.Judgement:
    now, doubled = Forecast(350, gain, low, high), Forecast(700, gain + 0.01, low + 0.01, high + 0.02)
    return decide(findings, now, doubled, needed(wished), mode)


@pytest.mark.parametrize(
    ("numbers", "decision"),
    [
        ((0.08, 0.03, 0.12), "GO"),
        ((0.03, 0.001, 0.06), "GO"),  # the wished gain is reached exactly
        ((0.04, 0.0, 0.09), "UNSURE"),  # it may be nothing
        ((0.02, 0.01, 0.04), "UNSURE"),  # a gain for certain, the wished one perhaps
        ((0.01, -0.05, 0.03), "UNSURE"),  # the upper end is just the wished gain
        ((0.01, 0.005, 0.029), "NO-GO"),  # a gain for certain, but less than wished
        ((-0.36, -0.42, -0.30), "NO-GO"),  # the study's wood
    ],
)
def test_the_decision_follows_the_interval(numbers: tuple[float, float, float], decision: str) -> None:
    assert judge(*numbers).decision == decision


def test_a_go_says_what_is_expected_and_how_sure_it_is() -> None:
    found = judge(0.08, 0.03, 0.12)
    assert found.headline == "Specialising is expected to be worth it: +8.0 IoU points (+3.0 to +12.0)."
    assert found.reasons == (
        "Short pilot runs forecast a change of +8.0 IoU points (+3.0 to +12.0) with the 350 training images that there "
        "are; the brackets hold what 95 of 100 such runs would show.",
        "With twice as many images the forecast is +9.0 (+4.0 to +14.0); a gain of 3.0 IoU points takes about 260 "
        "training images (90 to 900).",
    )


def test_a_no_go_names_the_upper_end_and_the_wish() -> None:
    text = "Not worth it: even the upper end of the forecast, +1.2 IoU points, is below the 2.5 points wished for."
    assert judge(0.0, -0.01, 0.012, wished=0.025).headline == text


def test_unsure_says_both_numbers_and_what_would_help() -> None:
    found = judge(0.02, -0.02, 0.06)
    assert "+2.0 IoU points (-2.0 to +6.0) expected, 3 points wished for" in found.headline
    assert found.headline.endswith("more pilots or more labelled images would narrow it.")


def test_a_better_prompt_that_costs_no_tuning_is_named_beside_the_go() -> None:
    """By box the base gains 22 points; tuning is expected to bring 8, and in the second case 30."""
    found = judge(0.08, 0.03, 0.12, BOX)
    assert found.decision == "GO"
    assert found.headline.endswith("but try the base by box first, which gains 22.0 without tuning.")
    assert found.reasons[-1] == (
        "Without any tuning the base reaches 72.0 % IoU by box, 22.0 points above the 50.0 % of the prompt that the "
        "forecast is about: more than tuning is expected to bring."
    )
    large = judge(0.30, 0.25, 0.35, BOX)
    assert "try" not in large.headline
    assert large.reasons[-1].endswith("of the prompt that the forecast is about.")
    assert len(judge(0.08, 0.03, 0.12, ("by box", 0.4, 0.5)).reasons) == 2


@pytest.mark.parametrize("numbers", [(0.08, 0.03, 0.12), (0.02, -0.02, 0.06), (-0.1, -0.2, 0.0)])
def test_what_spoils_every_number_is_mended_first_whatever_the_forecast(numbers: tuple[float, float, float]) -> None:
    found = judge(*numbers, findings=(HARMLESS, FAULT))
    assert found.decision == "NO-GO"
    assert found.headline == "Mend this first, for it spoils every number: mask polarity."
    assert found.reasons[0] == "mask polarity: 38 of 40 masks look inverted. Invert the masks."
    assert not any("bees" in reason for reason in found.reasons)


def test_a_warning_or_a_harmless_failure_does_not_decide() -> None:
    assert judge(0.08, 0.03, 0.12, findings=(WEAK, HARMLESS)).decision == "GO"


@given(st.floats(-0.5, 0.5), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0.001, 0.2), st.floats(0, 0.1))
def test_a_better_forecast_never_makes_the_advice_worse(
    gain: float, below: float, above: float, wished: float, better: float
) -> None:
    order = {"NO-GO": 0, "UNSURE": 1, "GO": 2}
    first = judge(gain, gain - below, gain + above, wished=wished)
    second = judge(gain + better, gain - below + better, gain + above + better, wished=wished)
    assert order[second.decision] >= order[first.decision]


def test_every_check_that_spoils_is_one_that_some_module_makes() -> None:
    """A renamed check would silently stop to matter."""
    modules = [
        importlib.import_module(found.name) for found in pkgutil.walk_packages(advice.__path__, "specialsam.advice.")
    ]
    sources = "\n".join(inspect.getsource(module) for module in modules if module is not judgement)
    assert [name for name in sorted(SPOILS) if f'"{name}"' not in sources] == []
