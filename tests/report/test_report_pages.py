"""The pages of advice and audit as a whole: complete, offline, escaped, each part optional, whole or not written."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import page_builder as pages
import pandas as pd
import pytest
import report_builder as build
from page_reader import cells, plain, read, section, sections

from specialsam.core.errors import DataError, SpecialSamError
from specialsam.core.findings import Factor, Finding
from specialsam.report.advice import render_advice, save_advice_figures, write_advice
from specialsam.report.audit import render_audit, write_audit
from specialsam.report.facts import Advice
from specialsam.report.learning import learning_figure, needed_sentence
from specialsam.report.pages import AdvicePage, AuditPage, LearningCurve, Suspect
from specialsam.report.pictures import marked

ADVICE_PARTS = {
    "curve": (None, "Learning curve"), "factors": ((), "Factors"), "baseline": (None, "Fair baseline"),
    "findings": ((), "Checks"), "comparisons": ((), "Side by side"), "commands": ((), "What to run next"),
    "data": (None, "Data"), "protocol": ((), "How it was measured"),
}  # fmt: skip
EVIL = "<script>alert('x')</script>&\"q\""


@pytest.fixture(scope="module")
def advice() -> str:
    return render_advice(pages.advice_page())


@pytest.fixture(scope="module")
def audit() -> str:
    return render_audit(pages.audit_page())


@pytest.mark.parametrize("name", ["advice", "audit"])
def test_loads_nothing_and_ids_are_unique(name: str, request: pytest.FixtureRequest) -> None:
    text: str = request.getfixturevalue(name)
    for tag, attributes in read(text).tags:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        for key in ("src", "href", "xlink:href"):
            assert (attributes.get(key) or "#").startswith(("data:image/", "#"))
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    remote = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert remote <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_order_of_the_advice(advice: str) -> None:
    wanted = ["Verdict", *(name for _, name in ADVICE_PARTS.values()), "The run"]
    assert sections(advice) == wanted


@pytest.mark.parametrize("name", ADVICE_PARTS)
def test_each_part_of_the_advice_may_stand_alone(name: str) -> None:
    whole = pages.advice_page()
    nothing = {part: empty for part, (empty, _) in ADVICE_PARTS.items() if part != name}
    text = render_advice(replace(whole, **nothing))  # type: ignore[arg-type]
    read(text)
    assert sections(text) == ["Verdict", ADVICE_PARTS[name][1], "The run"]


@pytest.mark.parametrize("decision", ["go", "no-go", "unsure"])
def test_the_decision_is_large_and_first(decision: Any) -> None:
    page = AdvicePage(build.report().run, Advice(decision, "Because of this.", ("One reason.", "Another one.")))
    text = render_advice(page)
    read(text)
    verdict = section(text, "Verdict")
    assert f'class="verdict {decision}"' in verdict
    assert plain(verdict) == f"{decision.upper()} Because of this. One reason. Another one."
    assert sections(text) == ["Verdict", "The run"]


def test_factors_say_rule_and_measurement(advice: str) -> None:
    lines = cells(section(advice, "Factors"))
    assert lines[0] == ["Factor", "The rule", "By the rule", "What this data says", "Here"]
    assert [(line[0], line[2], line[4]) for line in lines[1:]] == [
        ("Room for improvement", "✓ yes", "✓ yes"), ("Training data", "✗ no", "✓ yes"),
        ("Loss", "✓ yes", "not known"), ("Model capacity", "✗ no", "not known"),
        ("Stability", "✓ yes", "✓ yes"),
    ]  # fmt: skip


def test_baseline_shows_each_mode_and_what_looks_at_no_image(advice: str) -> None:
    lines = cells(section(advice, "Fair baseline"))
    heads = [line[0].split("  ")[0] for line in lines if len(line) == 1]
    for head, start in zip(heads, ("One mask", "Best of three", "Trivial rival: disc", "Trivial rival: filled box",
                                   "Blind decoder (mean)", "Upper bound"), strict=True):  # fmt: skip
        assert head.startswith(start)
    assert ["box", "71.2 [69.2, 73.2]", "150"] in lines
    assert ["click inside", "26.2 [24.2, 28.2]", "150"] in lines


def test_commands_and_times(advice: str) -> None:
    assert "specialsam specialize animals/ --store runs/advice" in section(advice, "What to run next")
    run = plain(section(advice, "The run"))
    assert "pilots 9 min 0 s" in run
    assert "in all 15 min 11 s" in run
    assert "Pilot" in section(advice, "Side by side")
    assert "Specialist" not in section(advice, "Side by side")


def test_curve_draws_pilots_fit_and_marks() -> None:
    """Pilots in percent points where they are; marks at 1,200 and 2,400, at the wished gain, where it is reached."""
    curve = pages.curve()
    figure = learning_figure(curve)
    axis = figure.axes[0]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(labels) == {"fitted curve", "pilot runs", "wished gain (+10.0)", "reached with 1,650"}
    assert [text.get_text() for text in axis.texts] == ["now: 1,200", "twice: 2,400"]
    marks = [
        line.get_xdata()[0] for line in axis.lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2
    ]  # type: ignore[arg-type,index]
    assert {1200, 2400} <= set(marks)
    (bars,) = axis.containers
    assert np.allclose(bars.lines[0].get_ydata(), 100 * curve.pilots["gain"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "needs about 1,650 training images (95 % interval 1,200 to 3,100), 450 more than there are."),
        ({"needed": 900.0}, "which are there already."),
        ({"needed": 9000.0, "needed_high": math.inf}, "1,200 to more), 7,800 more than there are. This lies"),
        ({"needed": math.nan}, "does not say how many images"),
        ({"needed": math.inf}, "does not say how many images"),
    ],
)  # fmt: skip
def test_labels_that_are_needed(changes: dict[str, Any], wanted: str) -> None:
    assert wanted in needed_sentence(pages.curve(**changes))


def test_no_wish_no_sentence() -> None:
    assert needed_sentence(pages.curve(wished=math.nan)) == ""


def test_curves_with_little_to_draw() -> None:
    whole = pages.curve()
    figure = learning_figure(LearningCurve(whole.pilots.iloc[:1], 60))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["pilot runs"]
    assert learning_figure(replace(whole, pilots=whole.pilots.iloc[:0]))
    nothing = replace(whole, pilots=whole.pilots.assign(gain=math.nan), fitted=None)
    with pytest.raises(DataError, match="gain of a pilot"):
        learning_figure(nothing)
    assert "No learning curve" in render_advice(pages.advice_page(curve=nothing, comparisons=(), data=None))
    with pytest.raises(DataError, match="pilots table needs columns"):
        LearningCurve(pd.DataFrame({"n": [1]}), 5)
    with pytest.raises(DataError, match="baseline table needs columns"):
        pages.advice_page(baseline=pd.DataFrame({"model": ["base"]}))


def test_advice_figures_as_files(tmp_path: Path) -> None:
    names = [path.name for path in save_advice_figures(pages.advice_page(), tmp_path)]
    assert names[0] == "learning-curve.png"
    assert len(names) == 4


def test_advice_is_escaped() -> None:
    page = pages.advice_page(
        advice=Advice("unsure", EVIL, (EVIL,)),
        curve=pages.curve(says=EVIL),
        factors=(Factor(EVIL, EVIL, None, EVIL, None),),
        baseline=pages.baseline().assign(strategy=EVIL, dataset=EVIL),
        commands=((EVIL, EVIL),),
        protocol=(EVIL,),
        comparisons=(),
    )
    text = render_advice(page)
    read(text)
    assert "<script" not in text


def test_audit_of_all_levels(audit: str) -> None:
    assert sections(audit) == ["Verdict", "Checks", "Pictures in question", "Data", "The run"]
    assert plain(section(audit, "Verdict")).endswith("2 pass, 1 warn, 1 fail.")
    pictures = [attributes for tag, attributes in read(audit).tags if tag == "img"]
    assert len(pictures) == 5
    assert all(attributes["alt"] for attributes in pictures)
    assert "Specialist" not in audit


@pytest.mark.parametrize(
    ("findings", "level", "headline"),
    [
        (pages.FINDINGS, "fail", "Do not train on this data"),
        (pages.FINDINGS[:2], "warn", "read the warnings"),
        (pages.FINDINGS[:1], "pass", "Nothing was found"),
        ((), "none", "No check was made."),
    ],
)
def test_audit_verdict(findings: tuple[Finding, ...], level: str, headline: str) -> None:
    text = render_audit(AuditPage(build.report().run, findings))
    read(text)
    verdict = section(text, "Verdict")
    assert f'class="verdict {level}"' in verdict
    assert headline in verdict
    assert ("Checks" in sections(text)) == bool(findings)
    assert "No facts about the data were given." in text


def test_audit_is_escaped() -> None:
    suspect = replace(pages.audit_page().suspects[1], caption=EVIL)
    text = render_audit(pages.audit_page(suspects=(suspect,)))
    read(text)
    assert "<script" not in text


def test_many_suspects_stay_within_the_budget_and_none_goes_unsaid() -> None:
    """Noise is the worst case of JPEG."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (480, 360, 3)).astype(np.uint8)
    many = tuple(Suspect(noise, None, f"image {index}") for index in range(40))
    text = render_audit(pages.audit_page(suspects=many, data=None))
    assert len(text) < 5_000_000
    left = text.count("picture left out to keep the page small")
    assert 0 < left < 40
    assert text.count("<img ") + left == 40


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (np.zeros((4, 4), np.uint8), None, "uint8"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), bool), "mask"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), "mask"),
    ],
)
def test_suspects_that_do_not_fit_are_refused(image: Any, mask: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Suspect(image, mask, "here")


def test_a_marked_picture_is_tinted_in_its_mask_alone() -> None:
    image = np.full((100, 200, 3), 90, np.uint8)
    mask = np.zeros((100, 200), bool)
    mask[:, :100] = True
    found = marked(image, mask, 200)
    assert not (found[50, 40] == 90).all()
    assert (found[50, 160] == 90).all()
    assert (marked(image, None, 100) == 90).all()
    assert marked(image, None, 100).shape == (50, 100, 3)


def test_pages_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advised, audited = tmp_path / "a" / "advice.html", tmp_path / "audit.html"
    write_advice(AdvicePage(build.report().run, Advice("go", "Go.")), advised)
    write_audit(AuditPage(build.report().run, ()), audited)
    before = [path.read_text(encoding="utf-8") for path in (advised, audited)]
    assert all(text.startswith("<!DOCTYPE html>") for text in before)

    def broken(self: Path, *args: Any, **options: Any) -> int:
        self.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", broken)
    with pytest.raises(SpecialSamError, match="No space left on device"):
        write_advice(AdvicePage(build.report().run, Advice("no-go", "Stay.")), advised)
    with pytest.raises(SpecialSamError, match="No space left on device"):
        write_audit(AuditPage(build.report().run, pages.FINDINGS), audited)
    assert [path.read_text(encoding="utf-8") for path in (advised, audited)] == before
