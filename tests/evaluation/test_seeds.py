"""Several seeds: means by hand, and how often the interval holds a truth that was drawn with the noise of seeds."""

import numpy as np
import pandas as pd
import pytest

from specialsam.core.errors import DataError, UsageError
from specialsam.core.types import Row
from specialsam.evaluation.seeds import COLUMNS, across_seeds
from specialsam.evaluation.statistics import paired_bootstrap
from specialsam.evaluation.tables import frame


def run(base, tuned, **changes) -> pd.DataFrame:
    """Result rows of one seed: one object an image, values by model."""
    given = {"run": "r", "dataset": "d", "split": "test", "object": 0, "strategy": "grid4", "output": "single"}
    given |= {"metric": "iou"} | changes
    rows = [
        Row(model=model, record=f"i{index:03d}", value=float(value), **given)
        for model, values in (("base", base), ("tuned", tuned))
        for index, value in enumerate(values)
    ]
    return frame(rows)


def test_numbers_by_hand():
    """Two seeds, two images: gains .1 and .3 with the first seed, .2 and .4 with the second."""
    table = across_seeds({1: run([0.5, 0.5], [0.6, 0.8]), 2: run([0.5, 0.5], [0.7, 0.9])}, "base", "tuned")
    assert list(table.columns) == COLUMNS
    line = table.iloc[0]
    assert (line["base"], line["tuned"], line["gain"]) == pytest.approx((0.5, 0.75, 0.25))
    assert (line["lowest"], line["highest"]) == pytest.approx((0.2, 0.3))
    assert line["seed_sd"] == pytest.approx(0.1 / 2**0.5)
    assert (line["seeds"], line["n"], line["failed"]) == (2, 2, 0)
    assert line["low"] < line["images_low"] < line["gain"] < line["images_high"] < line["high"]


def test_one_seed_is_the_paired_bootstrap_and_says_nothing_of_seeds():
    rng = np.random.default_rng(0)
    base, tuned = rng.uniform(0, 0.6, 40), rng.uniform(0.2, 0.8, 40)
    line = across_seeds({7: run(base, tuned)}, "base", "tuned").iloc[0]
    wanted = paired_bootstrap(base, tuned)
    assert np.isnan(line["seed_sd"])
    assert line["seeds"] == 1
    assert (line["low"], line["high"]) == pytest.approx((wanted.low, wanted.high), abs=0.01)
    assert line["gain"] == pytest.approx(wanted.mean)


def test_seeds_that_agree_add_nothing():
    rng = np.random.default_rng(0)
    rows = run(rng.uniform(0, 0.5, 30), rng.uniform(0.3, 0.8, 30))
    line = across_seeds({0: rows, 1: rows, 2: rows}, "base", "tuned").iloc[0]
    assert line["seed_sd"] == pytest.approx(0, abs=1e-12)
    assert (line["low"], line["high"]) == pytest.approx((line["images_low"], line["images_high"]), abs=1e-9)


def test_a_metric_where_less_is_better_and_metrics_of_choice():
    both = [pd.concat([run([0.2, 0.4], [0.1, 0.2], metric="mae"), run([0.2, 0.4], [0.3, 0.4])]) for _ in range(2)]
    table = across_seeds(dict(enumerate(both)), "base", "tuned").set_index("metric")
    assert table.loc["mae", "gain"] == pytest.approx(0.15)
    assert table.loc["iou", "gain"] == pytest.approx(0.05)
    assert list(across_seeds(dict(enumerate(both)), "base", "tuned", metrics=("iou",))["metric"]) == ["iou"]


def test_failures_count_as_nothing_found_and_are_counted():
    rows = run([0.5, 0.5], [0.7, 0.7])
    broken = rows.copy()
    chosen = (broken["model"] == "tuned") & (broken["record"] == "i001")
    broken.loc[chosen, "error"], broken.loc[chosen, "value"] = "unreadable", np.nan
    line = across_seeds({0: rows, 1: broken}, "base", "tuned").iloc[0]
    assert line["failed"] == 1
    assert line["tuned"] == pytest.approx((0.7 * 3 + 0) / 4)


def test_what_cannot_be_compared_is_refused_in_one_line():
    rows = run([0.5, 0.5], [0.6, 0.7])
    other = run([0.5, 0.5, 0.5], [0.6, 0.7, 0.8])
    with pytest.raises(DataError, match=r"got no iou of base on i002 with seed 3; vary train\.seed alone"):
        across_seeds({3: rows, 4: other}, "base", "tuned")
    with pytest.raises(UsageError, match="expected a model of base, tuned, got 'best'"):
        across_seeds({3: rows}, "base", "best")
    with pytest.raises(DataError, match="at least one seed"):
        across_seeds({}, "base", "tuned")
    with pytest.raises(DataError, match="got none of dice"):
        across_seeds({3: rows}, "base", "tuned", metrics=("dice",))


def test_the_interval_holds_the_truth_where_that_of_the_images_does_not():
    """Truth: gain .05, seeds differ by .05, images by .1: of 100 data sets 95 % miss 5, of the images alone 33."""
    rng = np.random.default_rng(3)
    worlds, seeds, images = 100, 3, 40
    gains = 0.05 + rng.normal(0, 0.05, (worlds, seeds, 1)) + rng.normal(0, 0.1, (worlds, 1, images))
    gains += rng.normal(0, 0.05, (worlds, seeds, images))
    first = run(np.zeros(images), np.zeros(images))
    every = pd.concat([first.assign(strategy=f"w{world}") for world in range(worlds)], ignore_index=True)
    tuned = (every["model"] == "tuned").to_numpy()
    frames = {}
    for seed in range(seeds):
        values = np.zeros(len(every))
        values[tuned] = gains[:, seed].ravel()
        frames[seed] = every.assign(value=values)
    table = across_seeds(frames, "base", "tuned", repeats=400)
    held = int(((table["low"] <= 0.05) & (table["high"] >= 0.05)).sum())
    alone = int(((table["images_low"] <= 0.05) & (table["images_high"] >= 0.05)).sum())
    assert held >= 88
    assert alone < 80
