"""Each part that a report may leave out: its lines, sentences and figures, from frames set by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import page_builder as pages
import pandas as pd
import pytest
import report_builder as build
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from page_reader import cells, plain, read, section, sections

from specialsam.core.errors import DataError
from specialsam.core.findings import Finding
from specialsam.report.difficulty import difficulty_figure, losses
from specialsam.report.facts import Advice, Guard, Report, rows_of
from specialsam.report.gallery import further_plates, save_figures
from specialsam.report.guard import guard_figure, guard_sentence, mixtures
from specialsam.report.html import render
from specialsam.report.page import checked, fact
from specialsam.report.prompting import (
    calibration_errors,
    clicks_figure,
    reliability_figure,
    robustness_figure,
    single_levels,
)
from specialsam.report.verdict import verdict_of

OPTIONAL = {
    "findings": "Checks", "guard": "Guard", "probes": "Probes", "difficulty": "Where it gains and loses",
    "advice": "Advice before tuning", "promptability": "Prompts", "clicks": "Prompts", "noc": "Prompts",
    "reliability": "Prompts",
}  # fmt: skip
LEAN = pages.lean()
PROMPTS = ("promptability", "clicks", "noc", "reliability")
ALWAYS = ["Verdict", "Results", "Side by side", "By category", "Training", "Data", "How it was measured", "The run"]


@pytest.fixture(scope="module")
def text() -> str:
    return pages.full_text()


def names(figure: Figure) -> list[str]:
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


def test_order_with_all_parts(text: str) -> None:
    read(text)
    assert sections(text) == [
        "Verdict", "Checks", "Results", "Side by side", "Where it gains and loses", "By category", "Training", "Guard",
        "Prompts", "Probes", "Data", "Advice before tuning", "How it was measured", "The run",
    ]  # fmt: skip


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_part_that_is_given_has_its_section_and_no_other(name: str) -> None:
    text = render(pages.lean(**{name: pages.parts()[name]}))
    read(text)
    found = sections(text)
    assert [part for part in found if part in ALWAYS] == ALWAYS
    assert [part for part in found if part not in ALWAYS] == [OPTIONAL[name]]
    part = section(text, OPTIONAL[name])
    assert part.count('class="plot"') == (name not in ("findings", "probes", "advice", "noc"))


def test_without_parts_and_with_empty_frames_nothing_of_them_is_left() -> None:
    frames = dict.fromkeys([*PROMPTS, "probes", "difficulty"], pd.DataFrame())
    assert sections(render(pages.lean())) == ALWAYS
    assert sections(render(pages.lean(**frames))) == ALWAYS


@pytest.mark.parametrize(
    ("name", "column"),
    [("probes", "probe"), ("promptability", "axis"), ("clicks", "click"), ("noc", "failures"),
     ("reliability", "actual"), ("difficulty", "bin")],
)  # fmt: skip
def test_a_frame_without_its_columns_is_refused_in_one_line(name: str, column: str) -> None:
    frame = getattr(pages, name)().drop(columns=column)
    with pytest.raises(DataError, match=rf"{name} table needs columns .*missing \['{column}'\]") as caught:
        pages.full(**{name: frame})
    assert "\n" not in str(caught.value)


def test_a_guard_without_lines_is_refused() -> None:
    with pytest.raises(DataError, match="at least one mixture"):
        Guard(pd.DataFrame(), 0.0)
    with pytest.raises(DataError, match="decision of go, no-go, unsure, got 'yes'"):
        Advice("yes", "x")  # type: ignore[arg-type]


def test_findings_alarms_first_files_counted_passes_folded(text: str) -> None:
    """The builder's list: pass, warn (14 files), fail, pass."""
    part = section(text, "Checks")
    said = plain(part)
    assert said.startswith("Checks pass 2 warn 1 fail 1")
    order = [said.index(word) for word in ("leakage", "mask edges", "2 checks passed", "No image of validation")]
    assert order == sorted(order)
    assert part.count("<li><code>masks/owl_") == 10
    assert "and 4 more" in said
    assert said.count("What to do:") == 2
    assert "largest distance 6" in said
    folded = part[part.index("<details") :]
    assert "leakage" not in folded
    assert "All prompts fall on their objects." in folded


def test_only_passes_and_only_alarms() -> None:
    good = [finding for finding in pages.FINDINGS if finding.level == "pass"]
    bad = [finding for finding in pages.FINDINGS if finding.level != "pass"]
    assert "<article" not in section(render(pages.lean(findings=tuple(good))), "Checks")
    assert "<details" not in section(render(pages.lean(findings=tuple(bad))), "Checks")
    assert checked(bad).counts == (("pass", 0), ("warn", 1), ("fail", 1))


def test_a_failed_check_takes_the_verdict_down() -> None:
    """Never below what the numbers say: a specialist that is worse stays worse."""
    failed = (Finding("leakage", "fail", "leaks", remedy="mend"),)
    verdict = verdict_of(build.report(findings=failed))
    assert verdict.level == "weak"
    assert "a check FAILED" in verdict.headline
    assert verdict.sentences[0] == "What FAILED among the checks: leakage."
    assert verdict_of(build.report(findings=(Finding("edges", "warn", "rough", remedy="look"),))).level == "use"
    assert verdict_of(build.report(gain=-0.2, findings=failed)).level == "worse"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(3, "3"), (12345, "12,345"), (0.01023, "0.01023"), (-0.5, "\N{MINUS SIGN}0.5"), (23456.7, "23,457"),
     (math.nan, "\N{EN DASH}"), ("a-b", "a-b")],
)  # fmt: skip
def test_numbers_of_findings(value: Any, wanted: str) -> None:
    assert fact(value) == wanted


def test_guard_table_marks_what_was_handed_on(text: str) -> None:
    lines = {line[0]: line for line in cells(section(text, "Guard"))}
    assert lines["0.5"] == ["0.5", "+15.0 [+13.0, +17.0]", "+1.1 [+0.3, +1.9]", "this one"]
    assert lines["0 (the base)"][1:] == ["0.0", "0.0", ""]
    assert "more than allowed" in lines["1 (the tuned model)"][2]
    assert [line.chosen for line in mixtures(pages.guard())] == [False, False, True, False, False]


def test_guard_without_general_images() -> None:
    """Rows as `advice.guard.MixtureRow.plain` has them where nothing was measured: None."""
    whole = pages.guard()
    bare = replace(whole, table=whole.table.assign(drop=None, drop_low=None, drop_high=None), says="", chosen=1.0)
    assert {line.drop for line in mixtures(bare)} == {"\N{EN DASH}"}
    assert names(guard_figure(bare)) == ["gain on validation", "handed on (1)"]
    assert guard_sentence(bare).startswith("The tuned model is kept: +16.5 [+14.5, +18.5] percent points")
    assert guard_sentence(replace(bare, chosen=0.0)).startswith("The base is kept")
    read(render(pages.lean(guard=bare)))


def test_guard_figure_draws_the_table() -> None:
    """The blue line is the gain in percent points, the orange one minus the drop, by rising alpha."""
    guard = replace(pages.guard(), table=pages.guard().table.iloc[::-1])
    figure = guard_figure(guard)
    assert names(figure) == ["gain on validation", "change on general images", "allowed loss (2.0)", "handed on (0.5)"]
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    assert np.allclose(lines["gain on validation"].get_ydata(), [0, 9, 15, 17, 16.5])  # type: ignore[arg-type]
    assert np.allclose(lines["change on general images"].get_ydata(), [0, -0.4, -1.1, -3.4, -7.1])  # type: ignore[arg-type]


def test_probes_name_models_and_probes(text: str) -> None:
    lines = cells(section(text, "Probes"))
    assert lines[0] == ["Probe", "Base", "Specialist", "disc", "Images"]
    assert lines[1][:3] == ["as measured one click inside the object", "47.0 [45.0, 49.0]", "66.0 [64.0, 68.0]"]
    assert lines[6][0] == "grey image the image's mean colour everywhere"


def test_a_probe_that_only_one_model_had_leaves_a_gap() -> None:
    frame = pages.probes()
    frame = frame[(frame["model"] != "disc") | (frame["probe"] == "plain")]
    lines = cells(section(render(pages.lean(probes=frame)), "Probes"))
    assert lines[1][3] == "31.0 [29.0, 33.0]"
    assert lines[2][3] == ""


def test_worse_prompts_one_panel_an_axis_and_one_range() -> None:
    figure = robustness_figure(pages.lean(), rows_of(pages.promptability()))
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "Click depth",
        "Click noise",
        "Box scale",
        "Box shift",
    ]
    assert len({axis.get_ylim() for axis in figure.axes}) == 1
    assert names(figure) == ["Base", "Specialist"]


def test_an_axis_of_one_value_is_said_and_not_drawn(text: str) -> None:
    """12.1 and 8.4 of the builder, with two points to either side."""
    said = "Background click, IoU: Base 12.1 [10.1, 14.1], Specialist 8.4 [6.4, 10.4] (the click lies beside the object"
    assert said in plain(section(text, "Prompts"))
    only = pages.promptability()
    only = only[only["axis"] == "background click"]
    assert single_levels(pages.lean(), rows_of(only))[0].startswith(said)
    (plate,) = further_plates(pages.lean(promptability=only))["promptability"]
    assert plate.figure is None
    assert plate.caption.startswith(said)


@pytest.mark.parametrize("axes", [1, 3])
def test_odd_numbers_of_panels(axes: int) -> None:
    frame = pages.promptability()
    frame = frame[frame["axis"].isin(list(dict.fromkeys(frame["axis"]))[:axes])]
    figure = robustness_figure(pages.lean(), rows_of(frame))
    assert sum(axis.axison for axis in figure.axes) == axes


def test_clicks_and_their_table(text: str) -> None:
    figure = clicks_figure(pages.lean(), rows_of(pages.clicks()))
    assert figure.axes[0].get_xlabel() == "clicks"
    lines = cells(section(text, "Prompts"))
    assert lines[1:] == [
        ["Base", "8.4", "12.0", "61 (30.5 %)", "200"],
        ["Specialist", "4.3", "8.8", "38 (19.0 %)", "200"],
    ]


def test_calibration_error_by_hand() -> None:
    """(10 * |0.9 - 0.5| + 30 * |0.6 - 0.6|) / 40 = 0.1; empty bins as `advice.calibration` leaves them do no harm."""
    frame = pd.DataFrame(
        [("base", 0.9, 0.5, 10), ("base", 0.6, 0.6, 30), ("base", math.nan, math.nan, 0)],
        columns=["model", "predicted", "actual", "n"],
    )
    assert calibration_errors(pages.lean(), rows_of(frame)) == {"Base": pytest.approx(0.1)}
    (plate,) = further_plates(pages.lean(reliability=frame))["reliability"]
    assert "Expected calibration error: Base 10.0 points" in plate.caption


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(1, 50)), min_size=1, max_size=8))
def test_calibration_error_lies_between_the_gaps(bins: list[tuple[float, float, int]]) -> None:
    rows = [{"model": "base", "predicted": p, "actual": a, "n": n} for p, a, n in bins]
    error = calibration_errors(LEAN, rows)["Base"]
    gaps = [abs(p - a) for p, a, _ in bins]
    assert min(gaps) - 1e-12 <= error <= max(gaps) + 1e-12


def test_reliability_names_its_axes() -> None:
    axis = reliability_figure(pages.lean(), rows_of(pages.reliability())).axes[0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted IoU (%)", "reached IoU (%)")


def test_difficulty_dots_stand_at_their_gains() -> None:
    figure = difficulty_figure(rows_of(pages.difficulty()))
    axis = figure.axes[0]
    assert names(figure) == ["better", "cannot be told from chance", "worse"]
    found = sorted(float(x) for box in axis.containers for x in box.lines[0].get_xdata())  # type: ignore[attr-defined]
    assert found == pytest.approx(sorted(100 * pages.difficulty()["gain"]))
    assert [text.get_text() for text in axis.texts] == ["object size", "contrast to the ground", "objects"]
    assert len(axis.get_yticks()) == 9


def test_long_factors_show_both_ends_and_say_so() -> None:
    """60 categories with gains 0.00 to 0.59 in mixed order: 0 to 9 and 50 to 59 are drawn, 40 are not."""
    line = pages.difficulty().iloc[0].to_dict() | {"factor": "category", "low": -1.0, "high": 1.0}
    many = pd.DataFrame([line | {"bin": f"kind {i * 7 % 60}", "gain": i * 7 % 60 / 100} for i in range(60)])
    (plate,) = further_plates(pages.lean(difficulty=many))["difficulty"]
    assert plate.figure is not None
    drawn = {int(label.get_text().split()[1]) for label in plate.figure.axes[0].get_yticklabels()}
    assert drawn == {*range(10), *range(50, 60)}
    assert "40 groups between the best and the worst" in plate.caption


def test_where_the_specialist_loses(text: str) -> None:
    said = plain(section(text, "Where it gains and loses"))
    assert "The specialist loses where object size is below 1 % (\N{MINUS SIGN}6.0 [\N{MINUS SIGN}9.5, " in said
    assert "within chance: contrast to the ground is high." in said
    assert "not corrected for the 9 groups" in said
    gains = pages.difficulty()
    assert losses(rows_of(gains[gains["gain"] > 0.05]))[0] == "In no group does the specialist lose beyond chance."


def test_sentences_made_elsewhere_take_their_place() -> None:
    given_ones = render(
        pages.lean(difficulty=pages.difficulty(), losses=("size, smallest quarter (40 images): tuning loses",))
    )
    said = plain(section(given_ones, "Where it gains and loses"))
    assert "size, smallest quarter (40 images): tuning loses." in said
    assert "The specialist loses where" not in said
    assert "No group is shown to lose" in section(
        render(pages.lean(difficulty=pages.difficulty(), losses=())), "Where it gains and loses"
    )


def test_figures_of_frames_without_a_finite_number_are_excused() -> None:
    blanks: dict[str, Any] = {
        "promptability": pages.promptability().assign(mean=math.nan),
        "clicks": pages.clicks().assign(mean=math.nan),
        "reliability": pages.reliability().assign(actual=math.nan),
        "difficulty": pages.difficulty().assign(gain=math.nan, low=math.nan, high=math.nan),
        "guard": replace(pages.guard(), table=pages.guard().table.assign(gain=math.nan)),
    }
    drawn = further_plates(pages.lean(**blanks))
    assert all(plate.figure is None and plate.caption for several in drawn.values() for plate in several)
    read(render(pages.lean(**blanks)))


def test_each_protocol_has_its_own_figure_and_its_own_lines(tmp_path: Path) -> None:
    def twice(frame: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([frame.assign(subset="easy"), frame.assign(subset="hard")])

    parts = {name: twice(getattr(pages, name)()) for name in (*PROMPTS, "probes", "difficulty")}
    drawn = further_plates(pages.lean(guard=pages.guard(), **parts))
    assert {name: len(several) for name, several in drawn.items()} == {
        "guard": 1, "promptability": 2, "clicks": 2, "reliability": 2, "difficulty": 2,
    }  # fmt: skip
    assert [plate.caption.split(".")[0] for plate in drawn["clicks"]] == ["Subset easy", "Subset hard"]
    text = render(pages.lean(**{name: parts[name] for name in ("noc", "probes", "difficulty")}))
    for name in ("Prompts", "Probes", "Where it gains and loses"):
        assert section(text, name).count('<tr class="protocol">') == 2, name
    assert [path.name for path in save_figures(pages.lean(clicks=parts["clicks"]), tmp_path)] == [
        "clicks.png", "clicks-2.png",
    ]  # fmt: skip


def test_hostile_words_are_escaped() -> None:
    evil = "<script>alert('x')</script>&\"q\""
    finding = Finding(evil, "fail", evil, {evil: evil}, (evil,), evil)
    report: Report = pages.lean(
        findings=(finding, replace(finding, level="pass", remedy="")),
        guard=replace(pages.guard(), says=evil),
        probes=pages.probes().assign(probe=evil, note=evil),
        promptability=pages.promptability().assign(axis=evil, subset=evil),
        noc=pages.noc().assign(model=evil),
        difficulty=pages.difficulty().assign(factor=evil, bin=evil),
        losses=(evil,),
        advice=Advice("go", evil, (evil,)),
    )
    text = render(report)
    read(text)
    assert "<script" not in text
