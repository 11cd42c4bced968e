"""The verdict and the tables: each guard is triggered by numbers chosen by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import report_builder as build
from hypothesis import given
from hypothesis import strategies as st

from specialsam.report.facts import Report
from specialsam.report.numbers import count, duration, interval, lead, probability, score, strategy_name, trend
from specialsam.report.tables import result_tables
from specialsam.report.verdict import verdict_of


def report(low: float, high: float, *, rival: float = 0.2, three: float = 0.5, n: int = 200, **more: Any) -> Report:
    """Base 0.45, gain in the middle of the interval, one strategy; the base's best of three is `three`."""
    gain = (low + high) / 2
    tuned = 0.45 + gain
    lines = [("base", "single", 0.45), ("specialist", "single", tuned), ("disc", "rival", rival)]
    lines += [("base", "three_best", three), ("specialist", "three_best", tuned + 0.01)]
    summary = [
        {"model": model, "strategy": "interior", "output": output, "metric": "iou", "mean": mean}
        | {"low": mean - 0.02, "high": mean + 0.02, "n": n, "failed": 0}
        for model, output, mean in lines
    ]
    row = {"strategy": "interior", "output": "single", "metric": "iou", "base": 0.45, "tuned": tuned, "gain": gain}
    row |= {"low": low, "high": high, "p_wilcoxon": 0.001, "p_holm": 0.002, "wins": 5, "losses": 3, "ties": 2, "n": n}
    return Report(build.report().run, summary=pd.DataFrame(summary), comparison=pd.DataFrame([row | more]))


@pytest.mark.parametrize(
    ("given_report", "level", "headline"),
    [
        (report(0.15, 0.21), "use", "Use the specialist."),
        (report(-0.02, 0.06), "unclear", "keep the base model"),
        (report(-0.09, -0.01), "worse", "WORSE"),
        (report(-0.09, -0.01, n=2), "unclear", "on very few images: keep the base"),
        (report(0.15, 0.21, rival=0.7), "weak", "looks at no pixel"),
        (report(0.15, 0.21, three=0.66), "weak", "three masks"),
        (report(0.15, 0.21, n=12), "weak", "very few images"),
        (report(0.002, 0.006, three=0.3), "weak", "small gain"),
        (report(math.nan, math.nan), "unknown", "no interval"),
        (Report(build.report().run), "unknown", "not compared"),
    ],
)
def test_headline(given_report: Report, level: str, headline: str) -> None:
    verdict = verdict_of(given_report)
    assert verdict.level == level
    assert headline in verdict.headline


def test_an_interval_that_touches_zero_includes_it() -> None:
    assert verdict_of(report(0.0, 0.1)).level == "unclear"
    assert "the interval includes zero" in verdict_of(report(0.0, 0.1)).sentences[0]


def test_sentences_name_rival_and_stronger_mode() -> None:
    text = " ".join(verdict_of(report(0.15, 0.21, rival=0.47)).sentences)
    assert "disc: looks at no pixel) reaches 47.0 %; the specialist beats it, which the base does not." in text
    assert "the base reaches 50.0 %; the specialist, at 64.0 % in its better mode, is still ahead of that." in text


@pytest.mark.parametrize(("low", "level", "words"), [(0.01, "use", "beats it"), (-0.01, "weak", "may be chance")])
def test_a_lead_that_may_be_chance_is_none(low: float, level: str, words: str) -> None:
    """Base .45, specialist .63, disc .60: the verdict rests on how far it is ahead image by image."""
    whole = report(0.15, 0.21, rival=0.6)
    verdict = verdict_of(replace(whole, leads=pd.DataFrame([ahead("disc", "single", low)])))
    assert verdict.level == level
    assert any(words in sentence and "+3.0" in sentence for sentence in verdict.sentences)


def test_a_lead_without_an_interval_is_not_half_said() -> None:
    """One image: the lead has no limits, and the sentence none of its own."""
    line = ahead("disc", "single", math.nan) | {"high": math.nan, "n": 1}
    verdict = verdict_of(replace(report(0.15, 0.21, rival=0.6), leads=pd.DataFrame([line])))
    assert any("ahead of it may be chance" in sentence for sentence in verdict.sentences)


def ahead(rival: str, output: str, low: float) -> dict[str, Any]:
    """A line of `leads`: .03 ahead, from `low` on."""
    line = {"strategy": "interior", "output": output, "metric": "iou", "rival": rival, "lead": 0.03}
    return line | {"low": low, "high": 0.07, "n": 200}


@pytest.mark.parametrize(
    ("low", "level", "words"), [(0.01, "use", "still ahead of that"), (-0.01, "weak", "not surely ahead of that")]
)
def test_a_lead_over_the_bases_three_masks_that_may_be_chance_is_none(low: float, level: str, words: str) -> None:
    """Specialist .64 in its better mode, the best of three; the base's best of three .61."""
    lines = [ahead("base", "three_best", low), ahead("base", "single", 0.01)]
    verdict = verdict_of(replace(report(0.15, 0.21, three=0.61), leads=pd.DataFrame(lines)))
    assert verdict.level == level
    assert any(f"{words} (image by image +3.0 [" in sentence for sentence in verdict.sentences)


def test_without_rivals_it_says_so() -> None:
    whole = report(0.15, 0.21)
    assert whole.summary is not None
    bare = Report(whole.run, summary=whole.summary[whole.summary["output"] != "rival"], comparison=whole.comparison)
    assert any("No trivial rival was measured" in sentence for sentence in verdict_of(bare).sentences)


def test_a_rank_test_that_disagrees_is_told() -> None:
    assert any("p = 0.200" in sentence for sentence in verdict_of(report(0.1, 0.2, p_holm=0.2)).sentences)


def test_other_prompts_are_counted_and_losses_are_loud() -> None:
    whole = report(0.15, 0.21)
    assert whole.comparison is not None
    row = whole.comparison.iloc[0].to_dict()
    others = [row | {"strategy": "edge"}, row | {"strategy": "box", "gain": -0.1, "low": -0.2, "high": -0.05}]
    both = Report(whole.run, summary=whole.summary, comparison=pd.DataFrame([row, *others]))
    assert any("better in 1, worse in 1 (WORSE with: box)." in sentence for sentence in verdict_of(both).sentences)


def test_main_strategy_is_followed() -> None:
    assert verdict_of(build.report(main_strategy="box")).strategy == "box"
    assert verdict_of(build.report()).strategy == "click inside"


def test_mae_is_better_when_lower() -> None:
    """A rival with MAE 0.02 beats a specialist with 0.05, whose gain is positive by the tables' convention."""
    mae = {"metric": "mae", "base": 0.08, "tuned": 0.05, "gain": 0.03}
    whole = report(0.02, 0.04, rival=0.02, **mae)
    assert whole.summary is not None
    verdict = verdict_of(Report(whole.run, summary=whole.summary.assign(metric="mae"), comparison=whole.comparison))
    assert verdict.level == "weak"
    assert verdict.gain == "+0.030"
    assert lead(0.02, 0.05, "mae") == pytest.approx(0.03)


def test_lines_of_other_data_sets_do_not_answer_for_this_one() -> None:
    """The rival of the other data set, at 0.9, would turn the verdict."""
    whole = report(0.15, 0.21, dataset="a")
    assert whole.summary is not None
    other = whole.summary.assign(dataset="b")
    other.loc[other["output"] == "rival", "mean"] = 0.9
    both = pd.concat([other, whole.summary.assign(dataset="a")])
    mixed = Report(whole.run, summary=both, comparison=whole.comparison)
    assert verdict_of(mixed).level == "use"
    ((_, groups),) = result_tables(mixed)
    assert [group.protocol for group in groups if group.protocol] == ["Data set a", "Data set b"]
    assert [group.protocol for group in groups].index("Data set a") == 0


def test_groups_keep_protocols_apart() -> None:
    ((metric, groups), *_) = result_tables(build.report())
    assert metric == "iou"
    assert [(group.title, group.aside) for group in groups] == [
        ("One mask", False),
        ("Best of three by own score", False),
        ("Trivial rival: disc of median size", True),
        ("Trivial rival: filled box", True),
        ("Upper bound", True),
    ]
    assert [line.key for line in groups[0].lines] == [True, False, False, False, False]


def test_no_summary_line_is_dropped() -> None:
    """A third model and an output that only one model has must be found somewhere."""
    whole = report(0.15, 0.21)
    assert whole.summary is not None
    third = whole.summary.iloc[[0]].assign(model="vit_h", mean=0.777)
    lone = whole.summary.iloc[[0]].assign(output="whole_image", mean=0.333)
    text = str(result_tables(Report(whole.run, summary=pd.concat([whole.summary, third, lone]))))
    assert "77.7" in text
    assert "33.3" in text
    assert "45.0" in text


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (score(0.664), "66.4"),
        (score(0.1884, sign=True), "+18.8"),
        (score(-0.004, sign=True), "\N{MINUS SIGN}0.4"),
        (score(-0.0001, sign=True), "0.0"),
        (score(0.0312, "mae"), "0.031"),
        (score(None), "\N{EN DASH}"),
        (interval(0.1, 0.2), "[10.0, 20.0]"),
        (interval(0.1, math.nan), ""),
        (probability(0.0004), "< 0.001"),
        (probability(0.0123), "0.012"),
        (count(12345), "12,345"),
        (duration(3725), "1 h 2 min"),
        (duration(59.7), "1 min 0 s"),
        (strategy_name("clicks3"), "1 click and 2 corrections"),
        (strategy_name("my_own"), "my own"),
    ],
)
def test_print(shown: str, wanted: str) -> None:
    assert shown == wanted


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_printed_scores_are_within_rounding(value: float, other: float) -> None:
    """The printed number read back is the value to half of its last digit; the trend agrees with the signs."""
    read = float(score(value, sign=True).replace("\N{MINUS SIGN}", "-"))
    assert abs(read - 100 * value) <= 0.05 + 1e-9
    low, high = sorted((value, other))
    assert trend(low, high) == ("up" if low > 0 else "down" if high < 0 else "flat")
