"""Finished studies side by side. Oracles: rules decided by hand for runs with made-up intervals."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from specialsam.core.errors import DataError, UsageError
from specialsam.core.ledger import open_ledger, read_facts
from specialsam.studies.compare import COLUMNS, RULES, compare, held
from specialsam.studies.line import StudyLine, outcome
from specialsam.studies.recipe import load_recipe


def study(root: Path, name: str, kind: str = "wood", **facts: Any) -> Path:
    """A finished study's folder without a run: all that `compare` reads is study.json."""
    headline = {"what": "Hard mosaics", "base": 0.5, "base_low": 0.45, "base_high": 0.55, "base_spread": 0.2}
    headline |= {"tuned": 0.6, "tuned_low": 0.55, "tuned_high": 0.65, "tuned_spread": 0.2}
    headline |= {"gain": 0.1, "low": 0.05, "high": 0.15, "n": 50} | facts.pop("headline", {})
    finished = {
        "headline": headline,
        "losses": [0.3, 0.2, 0.15],
        "best_epoch": 3,
        "train": {"images": 500, "objects": 2000, "views": 500},
        "loss": {"dice": 1.0},
        "parameters": 6_000_000,
        "model": "nano",
    } | facts
    recipe = load_recipe(kind, "seed").model_dump(mode="json")
    folder = root / name
    folder.mkdir(parents=True)
    with open_ledger(folder, {"data": "d", "model": "nano", "recipe": recipe}, "study.json", "study") as ledger:
        ledger.save(finished=finished)
    return folder


def lost(base: float = 0.958) -> dict[str, float]:
    return {"base": base, "tuned": base - 0.3, "gain": -0.3, "low": -0.35, "high": -0.25}


def test_the_page_and_the_table_hold_every_study(tmp_path: Path) -> None:
    first = study(tmp_path, "wood-seed", headline=lost(), losses=[0.157, 0.0125, 0.0426, 0.0002, 0.0001])
    second = study(tmp_path, "animals", "camouflage", loss={"bce": 0.5, "dice": 0.5})
    page = compare([first, second], tmp_path / "out").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "Of 2 studies 1 gain, 1 lose" in page
    for text in (
        '<th scope="row">wood-seed',
        '<th scope="row">animals',
        "../wood-seed/study.html",
        "Five factors",
        "18.8",
    ):
        assert text in page
    with (tmp_path / "out" / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["outcome"] for row in rows] == ["failed", "success"]
    assert float(rows[0]["largest_fall"]) == pytest.approx(1 - 0.0002 / 0.0426)
    assert float(rows[0]["largest_rise"]) == pytest.approx(0.0426 / 0.0125 - 1)
    assert {path.name for path in (tmp_path / "out" / "figures").iterdir()} == {"performance.png", "losses.png"}


@pytest.mark.parametrize(
    ("gain", "low", "high", "said"),
    [
        (0.1883, 0.15, 0.22, "success"),
        (0.0675, 0.01, 0.12, "modest"),
        (0.0675, -0.01, 0.14, "no change shown"),
        (-0.36, -0.4, -0.3, "failed"),
        (0.2, float("nan"), float("nan"), "not known"),
    ],
)
def test_outcomes_follow_the_interval(gain: float, low: float, high: float, said: str) -> None:
    assert outcome(gain, low, high) == said


def row(name: str, final_loss: float = 0.1, **more: Any) -> StudyLine:
    values = {"experiment": name, "study": "wood", "model": "nano", "base": 0.5, "gain": 0.1, "low": 0.05, "high": 0.15}
    values |= {"samples": 500, "mix": {"dice": 1.0}, "parameters": 6_000_000, "losses": (0.3, final_loss)}
    values |= dict.fromkeys(("base_low", "base_high", "tuned", "tuned_low", "tuned_high"), 0.5)
    values |= dict.fromkeys(("images", "objects", "n", "best_epoch"), 1) | {"doubts": ()}
    return StudyLine(**dict.fromkeys(("title", "test", "folder", "link"), "") | values | more)


def verdicts(rows: list[StudyLine]) -> dict[str, str]:
    return {found.name: found.verdict for found in (rule(rows) for rule in RULES)}


def test_the_published_story_supports_four_rules_when_it_is_taken_as_measured() -> None:
    """The three published runs with intervals that exclude zero. Carpet gains with 500 samples and Dice alone."""
    wood = row("wood", base=0.958, gain=-0.36, low=-0.4, high=-0.3, samples=500, final_loss=0.0001)
    carpet = row("carpet", study="carpet", base=0.2943, gain=0.0675, low=0.02, high=0.11, final_loss=0.1527)
    camouflage = row("camouflage", study="camouflage", samples=12_000, mix={"bce": 0.5, "dice": 0.5}, final_loss=0.1059)
    assert verdicts([wood, carpet, camouflage]) == {
        "Room for improvement": "supported",
        "Training data": "mixed",
        "Loss composition": "mixed",
        "Model capacity": "not decided",
        "Training stability": "supported",
    }


def test_a_gain_at_a_high_baseline_contradicts_the_rule_of_room() -> None:
    high = row("high", base=0.854, gain=0.02, low=0.01, high=0.03)
    assert verdicts([high])["Room for improvement"] == "contradicted"


def test_runs_without_a_sure_change_say_nothing() -> None:
    flat = row("flat", gain=0.01, low=-0.02, high=0.04)
    assert set(verdicts([flat]).values()) == {"not decided"}
    verdict, says, lines = held([flat], lambda line: True, lambda line: "why")
    assert verdict == "not decided"
    assert "1 say nothing" in says
    assert lines == ("flat (why): the rule says a gain, measured +1.0: says nothing",)


def test_capacity_is_judged_by_pairs_of_one_study_alone() -> None:
    small, large = row("small"), row("large", parameters=600_000_000, gain=0.3, low=0.25, high=0.35)
    assert verdicts([small, large])["Model capacity"] == "supported"
    assert verdicts([row("small", gain=0.3, low=0.25, high=0.35), row("large", parameters=6e8)])["Model capacity"] == (
        "contradicted"
    )
    assert verdicts([small, replace(large, study="carpet")])["Model capacity"] == "not decided"
    for other in ({"mix": {"dice": 1.0, "bce": 1.0}}, {"samples": small.samples + 1}, {"title": "another recipe"}):
        assert verdicts([small, replace(large, **other)])["Model capacity"] == "not decided", other


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    folder = study(tmp_path, "one")
    with pytest.raises(UsageError, match="different study folders"):
        compare([folder, folder], tmp_path / "out")
    with pytest.raises(UsageError, match="found none"):
        compare([tmp_path / "nowhere"], tmp_path / "out")
    begun = read_facts(folder, "study.json", "study")["identity"]
    with open_ledger(tmp_path / "stopped", begun, "study.json", "study") as ledger:
        ledger.save()
    with pytest.raises(UsageError, match="got one that stopped"):
        compare([tmp_path / "stopped"], tmp_path / "out")
    (folder / "study.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        compare([folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()
