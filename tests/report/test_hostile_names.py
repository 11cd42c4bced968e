"""Names from other people's disks in every figure and on every page: mathematics, controls, any script, any length.

Oracles: the page read back holds each name as text and no tag of its own; a figure is drawn without a warning.
"""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import page_builder as pages
import pandas as pd
import pytest
import report_builder as build
from matplotlib.figure import Figure
from page_reader import plain, read

from specialsam.core.findings import Finding
from specialsam.core.names import printable
from specialsam.core.types import Problem
from specialsam.report.advice import render_advice
from specialsam.report.audit import render_audit
from specialsam.report.facts import Report
from specialsam.report.gallery import further_plates, plates, save_figures
from specialsam.report.html import render, write_report
from specialsam.report.numbers import brief, words
from specialsam.report.palette import blank, legend, to_svg
from specialsam.report.pretraining import Stage, pretraining_figure
from specialsam.studies.carpet.realism_page import matrix_figure
from specialsam.studies.figures import (
    Curve,
    Tile,
    groups_figure,
    losses_figure,
    performance_figure,
    pixels_of,
    sheet_figure,
)

NAMES = {
    "mathematics": r"$\bad{$",
    "more mathematics": r"$\frac{1}{2}$ \$ ^_{} % #",
    "underscore": "_hidden",
    "lines": "one\ntwo\r\nthree\ttab",
    "controls": "a\x00b\x1b[2Jc\x7f",
    "long": "W" * 10_000,
    "long words": "very long words " * 600,
    "right to left": "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u202eabc",
    "emoji": "\N{GRINNING FACE} \N{FAMILY} \u6f22\u5b57 \u0915\u094d\u0937",
    "no text": "caf\udce9",
    "markup": "</text></svg>--><script>alert(1)</script><b onload=x>&amp;\"'",
    "empty": " ",
}
SPLITS = ("train", "val", "test")


def hostile(name: str) -> Report:
    """The full report with the name wherever a user's text stands."""
    whole = pages.full()
    assert whole.by_category is not None
    assert whole.data is not None
    assert whole.summary is not None
    assert whole.promptability is not None
    text = printable(name)  # no table holds what is no text
    category = whole.by_category.assign(category=[text, *whole.by_category["category"][1:]])
    summary = whole.summary.replace({"model": {"filled box": text}})
    levels = whole.promptability.replace({"model": {"specialist": text}, "axis": {"click noise": text}})
    difficulty = pages.difficulty().replace({"bin": {"low": text}, "factor": {"objects": text}})
    problems = (Problem(Path(f"images/{name}".replace("\x00", "")), name or "kind", f"{name}: expected"),)
    return replace(
        whole,
        by_category=category,
        summary=summary,
        promptability=levels,
        clicks=pages.clicks().replace({"model": {"specialist": text}}),
        noc=pages.noc().replace({"model": {"specialist": text}}),
        reliability=pages.reliability().replace({"model": {"specialist": text}}),
        difficulty=difficulty,
        findings=(Finding("leakage", "fail", f"{name} is twice there.", {name: name}, (name,), f"remove {name}"),),
        comparisons=(replace(build.side(11, "best gain"), record=name, category=name),),
        run=replace(whole.run, title=name, source=name, model=name, command=name, licence=name, warnings=(name,)),
        data=replace(
            whole.data, problems=problems, categories={name: {"train": 1, "val": 1, "test": 1}}, notes=(name,)
        ),
    )


def drawn_coarsely(figure: Figure) -> None:
    """As PNG, and nothing is said about it; every text is laid out whatever the number of pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png", dpi=20)


def drawn(figure: Figure) -> None:
    """As PNG and as SVG, and nothing is said about it."""
    drawn_coarsely(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = to_svg(figure, "x")
    assert svg.startswith("<svg ")
    assert "<script" not in svg


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_every_figure_of_the_report_is_drawn(name: str) -> None:
    """As PNG; the page below holds them as SVG."""
    report = hostile(name)
    several = [plate for group in further_plates(report).values() for plate in group]
    figures = [plate.figure for plate in (*plates(report).values(), *several)]
    assert len(figures) == 11
    for figure in figures:
        assert figure is not None
        drawn_coarsely(figure)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_every_figure_of_the_studies_is_drawn(name: str) -> None:
    row = {
        "category": name,
        "experiment": name,
        "base": 0.4,
        "tuned": 0.6,
        "gain": 0.2,
        "low": 0.1,
        "high": 0.3,
        "n": 9,
    }
    image = np.zeros((40, 60, 3), np.uint8)
    scores = {"step": 9, "box_single": 0.5, "loss": 1.0, "lr": 1e-3}
    stage = Stage(name, 256, 8, 0, (scores,), ({**scores, "step": 20},))
    for figure in (
        groups_figure([row, row]),
        performance_figure([row]),
        losses_figure([Curve(name, (0.3, 0.1)), Curve("plain", (0.2, 0.1))]),
        matrix_figure(np.array([[0.5, 0.7]]), [name], [name, "plain"], [["0.5", "0.7"]], 0.5, 0.5),
        pretraining_figure([stage]),
    ):
        drawn(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # a title of 34 W is wider than its picture
        assert pixels_of(sheet_figure([Tile(image, name, texts=(name,))])).ndim == 3


@pytest.fixture(scope="module")
def usual_tags() -> list[set[str]]:
    """Tags of each page without a hostile name."""
    clean = [render(pages.full()), render_advice(pages.advice_page()), render_audit(pages.audit_page())]
    return [{tag for tag, _ in read(page).tags} for page in clean]


def test_figures_have_file_names_of_bounded_length(tmp_path: Path) -> None:
    save_figures(hostile(NAMES["long words"]), tmp_path / "figures")
    assert all(len(path.name) < 100 for path in (tmp_path / "figures").iterdir())


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_every_page_is_written_and_holds_the_name_as_text(
    tmp_path: Path, name: str, usual_tags: list[set[str]]
) -> None:
    """No name opens a tag, closes one, or adds an attribute; the page is UTF-8 and stays one."""
    report = hostile(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(report, tmp_path / "report.html")
    advice = pages.advice_page(
        run=report.run, findings=report.findings, comparisons=report.comparisons, data=report.data
    )
    audit = pages.audit_page(run=report.run, findings=report.findings, data=report.data)
    texts = [(tmp_path / "report.html").read_text(encoding="utf-8"), render_advice(advice), render_audit(audit)]
    for text, allowed in zip(texts, usual_tags, strict=True):
        tags = read(text).tags
        assert {tag for tag, _ in tags} <= allowed
        assert not [attributes for _, attributes in tags if any(key.startswith("on") for key in attributes)]
        if name.isprintable() and name.strip() and "<" not in name:
            assert " ".join(name.split()) in plain(text)


def test_a_dollar_is_a_dollar() -> None:
    """Control: the same text in a plain figure ends with an error."""
    plain_figure = Figure()
    plain_figure.text(0.5, 0.5, r"and $\bad{$")
    with pytest.raises(ValueError, match="bad"):
        plain_figure.savefig(io.BytesIO(), format="png")
    figure, (axis,) = blank(3, 2)
    axis.text(0.5, 0.5, r"and $\bad{$")
    axis.set_xticks([0, 1], ["$a_b$", r"$\bad{$"])
    assert r"and $\bad{$" in to_svg(figure, "x")
    assert "$a_b$" in to_svg(figure, "x")


def test_a_name_with_an_underscore_is_in_the_legend() -> None:
    figure, (axis,) = blank(3, 2)
    axis.plot([0, 1], [0, 1], label=brief("_hidden"))
    legend(figure, axis)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [" _hidden"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("oak", "oak"),
        ("a  b\n c", "a b\\n c"),
        ("x" * 34, "x" * 34),
        ("x" * 35, "x" * 33 + "\N{HORIZONTAL ELLIPSIS}"),
        ("_x", " _x"),
        ("caf\udce9", "caf\\xe9"),
    ],
)
def test_names_are_brief_in_figures(name: str, shown: str) -> None:
    assert brief(name) == shown


def test_words_are_one_line() -> None:
    assert words("wood_oak") == "wood oak"
    assert words(" \n") == "\\n"
    assert words("  ") == words("_") == "\N{EN DASH}"
    assert json.dumps(words("\udce9"), ensure_ascii=False).encode()


def test_the_text_of_a_figure_keeps_every_letter() -> None:
    """A long list of categories: pandas' own order, each name whole where it is short."""
    many = pd.concat([build.categories(0.1).assign(category=f"$kind_{i}$", gain=i / 100) for i in range(5)])
    figure = plates(build.report(by_category=many.drop_duplicates("category")))["categories"].figure
    assert figure is not None
    svg = to_svg(figure, "x")
    assert all(f"$kind {i}$" in svg for i in range(5))
