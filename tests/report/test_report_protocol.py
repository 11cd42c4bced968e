"""Lines of different protocols never share a group of a table; oracles: frames with columns set by hand."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
import report_builder as build
from hypothesis import given
from hypothesis import strategies as st
from page_reader import cells, section

from specialsam.report.facts import Report
from specialsam.report.html import render
from specialsam.report.protocol import PLACE, by_protocol, place, protocol_words, same_place
from specialsam.report.tables import mean_tables, result_tables
from specialsam.report.verdict import verdict_of

SUMMARY = {"strategy": "box", "metric": "iou", "mean": 0.5, "low": 0.4, "high": 0.6, "n": 9, "failed": 0}


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({}, ""),
        ({"dataset": "camo", "split": "test"}, "Data set camo, test split"),
        ({"prompt_source": "truth", "subset": "easy"}, "Prompts from the truth, subset easy"),
        ({"prompt_source": "finder"}, "Prompts from finder"),
        ({"split": "train, kept apart"}, "Images: train, kept apart"),
        ({"prompt_source": "none", "resolution": 352.0}, "No prompt, scored at 352 px"),
        ({"soft": True}, "Scored on soft answers"),
        ({"resolution": "original", "soft": False}, "Scored at original resolution, scored on thresholded answers"),
        ({"subset": "hard_mode", "variant": "int8"}, "Subset hard mode, variant int8"),
        ({"soft": math.nan, "subset": None, "variant": ""}, ""),
    ],
)  # fmt: skip
def test_words(row: dict[str, Any], wanted: str) -> None:
    assert protocol_words(row) == wanted


def test_a_column_with_gaps_is_the_same_protocol() -> None:
    """pandas makes 512 a float where another line has none, and True an object."""
    assert same_place({"resolution": 512}, {"resolution": 512.0})
    assert place({"resolution": 512.0, "soft": math.nan}) == {"resolution": "512"}
    assert not same_place({"resolution": 512}, {"resolution": 352})
    assert same_place({"resolution": 512}, {"subset": "hard"})


_values = st.sampled_from(["a", "b", "", None, math.nan, 5, 5.0])


@given(st.lists(st.dictionaries(st.sampled_from(PLACE), _values, max_size=3), max_size=12))
def test_every_line_once_and_groups_are_pure(rows: list[dict[str, Any]]) -> None:
    groups = by_protocol(rows)
    assert sorted(id(row) for _, group in groups for row in group) == sorted(map(id, rows))
    for _, group in groups:
        assert len({tuple(place(row).items()) for row in group}) == 1
    firsts = [place(group[0]) for _, group in groups]
    assert all(one != other for index, one in enumerate(firsts) for other in firsts[:index])


@pytest.mark.parametrize("column", PLACE)
def test_each_column_of_the_protocol_makes_a_line_of_its_own(column: str) -> None:
    """Base and specialist with one more protocol: its lines stand below a line that spans the table."""
    rows = [SUMMARY | {"model": model, "output": "single", column: value} for value in ("p", "q")
            for model in ("base", "specialist")]  # fmt: skip
    compared = {"strategy": "box", "output": "single", "metric": "iou", "base": 0.4, "tuned": 0.6, "gain": 0.2}
    compared |= {"low": 0.1, "high": 0.3, "p_wilcoxon": 0.01, "p_holm": 0.01, "wins": 7, "losses": 1, "ties": 1, "n": 9}
    comparison = pd.DataFrame([compared | {column: "q"}, compared | {column: "p", "gain": 0.1}])
    report = Report(build.report().run, summary=pd.DataFrame(rows), comparison=comparison)
    ((_, groups),) = result_tables(report)
    assert [group.protocol for group in groups] == [protocol_words({column: "q"}), protocol_words({column: "p"})]
    assert [[line.key for line in group.lines] for group in groups] == [[True], [False]]
    assert f"one of several protocols in the tables: {protocol_words({column: 'q'})}." in " ".join(
        verdict_of(report).sentences
    )
    text = section(render(report), "Results")
    assert text.count('<tr class="protocol"><th colspan="7"') == 2
    lines = cells(text)
    assert [line[0] for line in lines if len(line) == 1] == [
        protocol_words({column: "q"}), "One mask the model gives one mask for each prompt",
        protocol_words({column: "p"}), "One mask the model gives one mask for each prompt",
    ]  # fmt: skip


def test_one_protocol_needs_no_line() -> None:
    whole = build.report()
    assert whole.summary is not None
    named = Report(whole.run, summary=whole.summary.assign(subset="all"), comparison=whole.comparison)
    assert all(not group.protocol for _, groups in result_tables(named) for group in groups)
    assert [group.title for group in result_tables(named)[0][1]] == [g.title for g in result_tables(whole)[0][1]]


def test_intervals_come_from_the_same_protocol() -> None:
    """The means of resolution 352 have other intervals; they must not stand beside the comparison at 512."""
    low = {352: 0.11, 512: 0.44}
    rows = [SUMMARY | {"model": "base", "output": "single", "resolution": r, "low": low[r]} for r in (352, 512)]
    compared = build.tables(0.1, 30)[1].iloc[[0]].assign(strategy="box", resolution=512)
    ((_, groups),) = result_tables(Report(build.report().run, summary=pd.DataFrame(rows), comparison=compared))
    assert groups[0].protocol == "Scored at 512 px"
    assert groups[0].lines[0].base_interval == "[44.0, 60.0]"
    assert groups[1].lines[0].base_interval == "[11.0, 60.0]"


def test_a_line_that_does_not_tell_its_protocol_stands_apart() -> None:
    rows = [SUMMARY | {"model": "base", "output": "single", "subset": value} for value in ("hard", None)]
    ((_, groups),) = mean_tables(pd.DataFrame(rows), "base")
    assert [group.protocol for group in groups] == ["Subset hard", "Subset not told"]


def test_rivals_and_the_blind_decoder_stand_below_a_line() -> None:
    given_ones = {"single": "base", "rival": "disc", "blind": "blind decoder (mean)", "three_oracle": "base"}
    rows = [SUMMARY | {"model": model, "output": output} for output, model in given_ones.items()]
    ((_, groups),) = mean_tables(pd.DataFrame(rows), "base")
    assert [(group.title, group.aside) for group in groups] == [
        ("One mask", False), ("Trivial rival: disc", True), ("Blind decoder (mean)", True), ("Upper bound", True),
    ]  # fmt: skip
    assert [line.label for line in groups[0].lines] == ["box"]


def test_categories_keep_protocols_apart() -> None:
    both = pd.concat([build.categories(0.1).assign(split="val"), build.categories(0.2).assign(split="test")])
    text = render(Report(build.report().run, by_category=both))
    part = section(text, "By category")
    assert part.count('<tr class="protocol">') == 2
    assert "Val split; what was measured otherwise is in the table only." in part
    assert "All 18 categories as a table" in part
