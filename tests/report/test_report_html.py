"""The page as a whole: offline, complete, escaped, small, whole or not written. Oracles: the numbers put in by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import page_builder as pages
import pandas as pd
import pytest
import report_builder as build
from page_reader import read

from specialsam.core.errors import DataError, SpecialSamError
from specialsam.core.types import Problem, Row
from specialsam.evaluation import tables as evaluation_tables
from specialsam.report.facts import COMPARISON_COLUMNS
from specialsam.report.html import History, Report, render, write_report


@pytest.fixture(scope="module")
def text() -> str:
    return render(build.report())


def test_loads_nothing_and_runs_nothing() -> None:
    """Every resource attribute is a data URI or a place in the page; no script, no import, no remote url()."""
    text = pages.full_text()
    for tag, attributes in read(text).tags:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "data", "poster"):
                assert value is not None
                assert value.startswith(("data:image/", "#"))
    assert "@import" not in text
    assert not re.search(r"url\(\s*['\"]?(?!#)", text)
    remote = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert remote <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_ids_are_unique_and_references_resolve() -> None:
    """Eleven figures in one page must not share clip paths or markers."""
    text = pages.full_text()
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    assert used
    assert used <= set(ids)


def test_failed_images_of_what_was_found_without_a_prompt_are_said() -> None:
    found = pd.DataFrame(
        [("finder", "iou", 0.4, 0.3, 0.5, 20, 2), ("memory", "iou", 0.3, 0.2, 0.4, 20, 0)],
        columns=["model", "metric", "mean", "low", "high", "n", "failed"],
    )
    text = render(build.report(found=found))
    section = text[text.index('aria-label="Without a prompt"') :].split("</section>")[0]
    assert '<td>20 <span class="failed">2 failed</span></td><td>20</td>' in section


def test_says_the_numbers_that_were_given() -> None:
    summary = pd.DataFrame(
        [
            ("base", "box", "single", "iou", 0.4752, 0.451, 0.4993, 200, 0),
            ("specialist", "box", "single", "iou", 0.6642, 0.642, 0.6851, 200, 3),
            ("filled box", "box", "rival", "iou", 0.5711, 0.55, 0.59, 200, 0),
        ],
        columns=["model", "strategy", "output", "metric", "mean", "low", "high", "n", "failed"],
    )
    comparison = pd.DataFrame(
        [("box", "single", "iou", 0.4752, 0.6642, 0.1883, 0.1694, 0.2081, 0.00001, 0.00004, 171, 25, 4, 200)],
        columns=list(COMPARISON_COLUMNS),
    )
    text = render(build.report(summary=summary, comparison=comparison, pairs=None, history=None, comparisons=()))
    for wanted in ("47.5", "66.4", "+18.8", "[+16.9, +20.8]", "171 / 25 / 4", "[45.1, 49.9]", "57.1", "&lt; 0.001"):
        assert wanted in text, wanted
    assert "3 failed" in text
    assert "Use the specialist." in text
    assert "specialsam specialize animals/ --model nano --epochs 20 --seed 7" in text
    assert "On 200 held-out images" in text


def test_prompt_source_stands_at_every_table(text: str) -> None:
    """Results tables (one a metric), pictures, categories, verdict and protocol: each names the prompts' source."""
    assert text.count("Prompts are derived from the ground truth") >= 6
    assert text.count('class="aside"') == 6  # two rivals and the upper bound, for two metrics


def test_order_of_the_parts(text: str) -> None:
    labels = re.findall(r'<section[^>]*aria-label="([^"]+)"', text)
    wanted = ["Verdict", "Results", "Side by side", "By category", "Training", "Data", "How it was measured", "The run"]
    assert labels == wanted


def test_every_picture_has_a_text_and_a_size(text: str) -> None:
    pictures = [attributes for tag, attributes in read(text).tags if tag == "img"]
    assert len(pictures) == 4 * 5
    for attributes in pictures:
        assert attributes["alt"]
        assert int(attributes["width"] or 0) <= 360
    plots = [a for tag, a in read(text).tags if tag == "div" and a.get("class") == "plot"]
    assert len(plots) == 6
    assert all(a["aria-label"] for a in plots)


def test_names_are_escaped() -> None:
    evil = "<script>alert('x')</script>&\"q\""
    whole = build.report()
    assert whole.data is not None
    text = render(
        replace(
            whole,
            run=replace(whole.run, title=evil, source=evil, command=evil, warnings=(evil,), settings={evil: {evil: 1}}),
            data=replace(whole.data, problems=(Problem(Path(evil), evil, evil),), notes=(evil,), splits={evil: 3}),
            comparisons=(replace(whole.comparisons[0], record=evil, category=evil),),
            by_category=build.categories(0.1).assign(category=evil),
            history=replace(build.history(), stop_reason=evil),
            protocol=(evil,),
        )
    )
    read(text)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("summary", "history"), "No figure of the models"),
        (("comparison", "pairs"), "No verdict: base and specialist were not compared."),
        (("by_category", "data", "pairs"), "No gains by category"),
    ],
)
def test_each_part_may_be_missing(names: tuple[str, ...], sentence: str) -> None:
    text = render(build.report(**dict.fromkeys(names), comparisons=()))
    read(text)
    assert sentence in text
    assert "No pictures: no comparison was given." in text


def test_nothing_but_the_run() -> None:
    text = render(Report(replace(build.report().run, settings={}, versions={}, seconds={}, machine={}, seed=None)))
    read(text)
    for sentence in (
        "No verdict: base and specialist were not compared.",
        "No results: nothing was measured",
        "No training curves: no trained epoch was given.",
        "No gains by category",
        "No facts about the data were given.",
        "No versions were given.",
    ):
        assert sentence in text


def test_nan_everywhere_is_a_dash_and_never_the_word() -> None:
    whole = build.report()
    assert whole.summary is not None
    assert whole.comparison is not None
    summary, comparison, categories = whole.summary.copy(), whole.comparison.copy(), build.categories(0.1)
    summary[["mean", "low", "high"]] = np.nan
    comparison[["base", "tuned", "gain", "low", "high", "p_wilcoxon", "p_holm"]] = np.nan
    categories[["gain", "low", "high"]] = np.nan
    history = History(({"epoch": 1, "train_loss": float("nan"), "val_loss": None},), stop_reason="the loss is NaN-free")
    text = render(
        replace(
            whole,
            summary=summary,
            comparison=comparison,
            by_category=categories,
            pairs=pd.DataFrame({"base": [np.nan], "tuned": [0.5]}),
            history=history,
            data=replace(whole.data, areas=np.array([np.nan, 0.0])) if whole.data else None,
        )
    )
    read(text)
    words = re.sub(r"<style>.*?</style>|data:image[^\"]*", "", text, flags=re.DOTALL).replace("NaN-free", "")
    assert not re.search(r"\bnan\b", words, flags=re.IGNORECASE)
    assert "No verdict: the gain has no interval" in text
    assert "No distribution of object sizes" in text


def test_empty_frames_count_as_missing() -> None:
    nothing = pd.DataFrame()
    text = render(Report(build.report().run, None, nothing, nothing, nothing, nothing))
    assert "No verdict" in text


def test_a_table_without_its_columns_is_refused_in_one_line() -> None:
    with pytest.raises(DataError, match=r"summary table needs columns .*missing \['failed'\]") as caught:
        build.report(summary=build.tables(0.1, 30)[0].drop(columns="failed"))
    assert "\n" not in str(caught.value)


def test_problems_are_counted_by_kind_and_the_first_twenty_listed(text: str) -> None:
    """The builder makes 23 of one kind and 1 of another."""
    assert "24 files could not be used" in text
    assert "23 mask size, 1 unreadable image" in text
    assert text.count("<code>masks/moth_") == 20
    assert "The first 20 of 24 are listed." in text


def test_many_noisy_pictures_stay_below_six_megabytes() -> None:
    """Noise is the worst case of JPEG: 8 rows of it exceed the budget at full quality and must still fit."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (480, 360, 3)).astype(np.uint8) for _ in range(3)]
    mask = np.ones((480, 360), bool)
    one = build.side(1, "median gain")
    sides = tuple(
        replace(one, record=f"noise {i}", image=noise[i % 3], truth=mask, base=mask, tuned=mask) for i in range(8)
    )
    text = render(Report(build.report().run, comparisons=sides))
    assert len(text.encode()) < 6_000_000
    shown = text.count("<img ")
    left = re.search(r"(\d+) of 8 comparisons are shown without pictures", text)
    assert shown % 4 == 0
    assert shown // 4 + (int(left.group(1)) if left else 0) == 8


def test_many_points_stay_small() -> None:
    """20,000 pairs as shapes would weigh about 2 MB; as pixels they must not."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"base": rng.random(20_000), "tuned": rng.random(20_000)})
    assert len(render(Report(build.report().run, pairs=frame))) < 400_000


def test_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run" / "report.html"
    write_report(Report(build.report().run), path)
    before = path.read_text(encoding="utf-8")
    assert before.startswith("<!DOCTYPE html>")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]

    def broken(self: Path, *args: Any, **options: Any) -> int:
        self.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", broken)
    with pytest.raises(SpecialSamError, match="No space left on device"):
        write_report(Report(build.report().run, protocol=("later",)), path)
    assert path.read_text(encoding="utf-8") == before
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_takes_the_tables_that_evaluation_makes() -> None:
    """Oracle: means over two images computed by hand, (0.2 + 0.4) / 2 and (0.6 + 0.7) / 2."""
    scores = {"base": (0.2, 0.4), "specialist": (0.6, 0.7)}
    rows = [
        Row("r", model, "d", "test", f"image {i}", 0, "box", "single", "iou", value, category="frog")
        for model, found in scores.items()
        for i, value in enumerate(found)
    ]
    rows += [Row("r", "filled box", "d", "test", f"image {i}", 0, "box", "rival", "iou", 0.5) for i in range(2)]
    frame = evaluation_tables.frame(rows)
    text = render(
        Report(
            build.report().run,
            summary=evaluation_tables.summary(frame),
            comparison=evaluation_tables.comparison(frame, "base", "specialist"),
        )
    )
    for wanted in ("30.0", "65.0", "+35.0", "Trivial rival: filled box", "Only 2 images were measured"):
        assert wanted in text, wanted
