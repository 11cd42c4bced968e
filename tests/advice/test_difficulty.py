"""Gain by category, size, contrast and boundary, on rows whose gains are known because they are made here."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from specialsam.advice.probes.difficulty import COLUMNS, UNKNOWN, by_difficulty, where_it_loses
from specialsam.core.errors import DataError, UsageError
from specialsam.core.types import Row
from specialsam.evaluation.tables import frame as frame_of

IMAGES = 80


def facts_of(images: int = IMAGES) -> pd.DataFrame:
    """Area rises with the number of the image, contrast falls, boundary is the same for all."""
    numbers = np.arange(images)
    return pd.DataFrame(
        {
            "record": [f"r{number:03d}" for number in numbers],
            "object": 0,
            "area": 0.01 + 0.001 * numbers,
            "contrast": 1.0 - 0.01 * numbers,
            "boundary": 100.0,
        }
    )


def rows_of(gain: np.ndarray, seed: int = 0, objects: int = 1, error: str = "") -> pd.DataFrame:
    """IoU .5 with noise for the base, and that plus `gain` (one an image) for the specialist."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, more in enumerate(gain):
        for index in range(objects):
            base = 0.5 + rng.normal(0, 0.05)
            for model, value in (("base", base), ("tuned", base + more + rng.normal(0, 0.02))):
                rows.append(
                    Row(
                        run="a",
                        model=model,
                        dataset="d",
                        split="test",
                        record=f"r{number:03d}",
                        object=index,
                        strategy="interior",
                        output="single",
                        metric="iou",
                        value=float(np.clip(value, 0, 1)),
                        category="fish" if number % 2 else "bird",
                    )
                )
    return frame_of(rows)


def test_quarters_hold_what_their_names_say() -> None:
    """By hand: 80 areas in rising order, so each quarter has 20 images and the gain of its own block."""
    gain = np.repeat([0.0, 0.1, 0.2, 0.3], 20)
    table = by_difficulty(rows_of(gain), facts_of(), "base", "tuned", "interior")
    assert list(table.columns) == COLUMNS
    size = table[table["factor"] == "size"]
    assert size["bin"].tolist() == ["smallest quarter", "second quarter", "third quarter", "largest quarter"]
    assert size["n"].tolist() == [20] * 4
    assert size["gain"].tolist() == pytest.approx([0, 0.1, 0.2, 0.3], abs=0.02)
    contrast = table[table["factor"] == "contrast"].set_index("bin")
    assert contrast.loc["lowest quarter", "gain"] == pytest.approx(0.3, abs=0.02)
    assert (table["low"] <= table["gain"]).all()
    assert (table["gain"] <= table["high"]).all()
    assert (table["tuned"] - table["base"]).tolist() == pytest.approx(table["gain"].tolist())


def test_equal_values_stay_together_and_nothing_is_lost() -> None:
    """By hand: sixty equal values share the rank 30.5 of 80, the second quarter; twenty others 70.5, the last."""
    facts = facts_of()
    facts.loc[60:, "boundary"] = 200.0
    table = by_difficulty(rows_of(np.zeros(IMAGES)), facts, "base", "tuned", "interior")
    boundary = table[table["factor"] == "boundary"]
    assert boundary["bin"].tolist() == ["second quarter", "longest quarter"]
    assert boundary["n"].tolist() == [60, 20]
    assert (table.groupby("factor")["n"].sum() == IMAGES).all()


def test_a_factor_with_one_group_says_nothing() -> None:
    """Boundaries of one length here, and data without categories."""
    table = by_difficulty(rows_of(np.zeros(IMAGES)), facts_of(), "base", "tuned", "interior")
    assert set(table["factor"]) == {"category", "size", "contrast"}
    rows = rows_of(np.zeros(IMAGES)).assign(category="")
    assert set(by_difficulty(rows, facts_of(), "base", "tuned", "interior")["factor"]) == {"size", "contrast"}


def test_objects_without_facts_have_a_line_of_their_own() -> None:
    table = by_difficulty(rows_of(np.zeros(IMAGES)), facts_of(60), "base", "tuned", "interior")
    unknown = table[table["bin"] == UNKNOWN]
    assert unknown["factor"].tolist() == ["size", "contrast", "boundary"]
    assert unknown["n"].tolist() == [20] * 3


def test_a_loss_on_small_objects_is_said_and_nothing_else() -> None:
    gain = np.concatenate([np.full(20, -0.1), np.full(60, 0.1)])
    said = where_it_loses(by_difficulty(rows_of(gain), facts_of(), "base", "tuned", "interior"))
    assert len(said) == 2  # contrast falls as size rises: the same images
    assert said[0].startswith("size, smallest quarter (20 images): tuning loses, ")
    assert said[1].startswith("contrast, highest quarter (20 images): tuning loses, ")
    assert "(-10." in said[0] or "(-9." in said[0]


def test_a_smaller_gain_is_said_as_such() -> None:
    gain = np.concatenate([np.full(60, 0.2), np.full(20, 0.02)])
    said = where_it_loses(by_difficulty(rows_of(gain), facts_of(), "base", "tuned", "interior"))
    assert [line.split(" (")[0] for line in said] == ["size, largest quarter", "contrast, lowest quarter"]
    assert all("where the rest gains +20." in line or "where the rest gains +19." in line for line in said)


def test_an_even_gain_is_seldom_called_a_loss() -> None:
    """Holm keeps the chance of any false sentence below 5 %: of 5 tables with no difference at most 1 speaks."""
    flat = np.zeros(IMAGES)
    tables = (by_difficulty(rows_of(flat, seed), facts_of(), "base", "tuned", "interior") for seed in range(5))
    assert sum(bool(where_it_loses(table)) for table in tables) <= 1


def test_the_image_is_the_unit() -> None:
    """Five objects an image are no more images: n and the interval's width stay those of 80 images."""
    facts = pd.concat([facts_of().assign(object=index) for index in range(5)])
    rng = np.random.default_rng(0)
    gain = rng.normal(0, 0.1, IMAGES)
    one = by_difficulty(rows_of(gain), facts_of(), "base", "tuned", "interior")
    five = by_difficulty(rows_of(gain, objects=5), facts, "base", "tuned", "interior")
    assert five["n"].tolist() == one["n"].tolist()
    assert (five["high"] - five["low"]).to_numpy() == pytest.approx((one["high"] - one["low"]).to_numpy(), rel=0.2)


def test_failures_count_as_zero() -> None:
    rows = rows_of(np.zeros(IMAGES))
    broken = (rows["record"] == "r000") & (rows["model"] == "tuned")
    rows.loc[broken, ["value", "error"]] = [float("nan"), "decode failed"]
    table = by_difficulty(rows, facts_of(), "base", "tuned", "interior").set_index(["factor", "bin"])
    assert table.loc[("size", "smallest quarter"), "n"] == 20
    assert table.loc[("size", "smallest quarter"), "gain"] == pytest.approx(-0.5 / 20, abs=0.02)
    assert table.loc[("size", "smallest quarter"), "low"] < -0.03  # the image that failed pulls the interval down


def test_wrong_input_is_one_clear_line() -> None:
    rows, facts = rows_of(np.zeros(4)), facts_of(4)
    with pytest.raises(DataError, match="missing: contrast"):
        by_difficulty(rows, facts.drop(columns="contrast"), "base", "tuned", "interior")
    with pytest.raises(DataError, match="an object twice"):
        by_difficulty(rows, pd.concat([facts, facts]), "base", "tuned", "interior")
    with pytest.raises(UsageError, match="got 'other'"):
        by_difficulty(rows, facts, "base", "other", "interior")
    with pytest.raises(DataError, match="with box"):
        by_difficulty(rows, facts, "base", "tuned", "box")
    with pytest.raises(DataError, match="missing: object"):
        by_difficulty(rows.drop(columns="object"), facts, "base", "tuned", "interior")
    two = pd.concat([rows, rows.assign(split="val")])
    with pytest.raises(DataError, match="filter them first"):
        by_difficulty(two, facts, "base", "tuned", "interior")
    with pytest.raises(DataError, match="columns of by_difficulty"):
        where_it_loses(pd.DataFrame({"factor": []}))
    alone = by_difficulty(rows_of(np.zeros(1)), facts_of(1), "base", "tuned", "interior")
    assert alone["low"].isna().all()
    assert where_it_loses(alone) == []
