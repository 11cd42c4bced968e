"""Statistics against scipy.stats, a hand-worked Holm example, and simulated coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from specialsam.core.errors import DataError
from specialsam.evaluation.statistics import (
    Interval,
    bootstrap_mean,
    flat,
    holm,
    paired_bootstrap,
    points,
    two_way_mean,
    wilcoxon,
    wins,
)

values = st.lists(st.floats(0, 1), min_size=2, max_size=40)


def test_interval_agrees_with_scipy():
    # Oracle: scipy.stats.bootstrap, percentile, on skewed values like IoUs.
    sample = np.random.default_rng(1).beta(2, 1, 150)
    ours = bootstrap_mean(sample, seed=3, repeats=20_000)
    theirs = stats.bootstrap(
        (sample,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(9)
    ).confidence_interval
    assert ours.mean == pytest.approx(sample.mean())
    assert ours.n == 150
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-3)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    # Oracle: simulation. 400 samples of 60 from Beta(2, 1), mean 2/3; 3 standard errors of .95 are .033.
    rng = np.random.default_rng(5)
    intervals = [bootstrap_mean(rng.beta(2, 1, 60), seed, repeats=500) for seed in range(400)]
    covered = np.mean([interval.low <= 2 / 3 <= interval.high for interval in intervals])
    assert 0.91 <= covered <= 0.985
    narrow = [bootstrap_mean(rng.beta(2, 1, 60), seed, repeats=500, level=0.5) for seed in range(400)]
    assert 0.42 <= np.mean([interval.low <= 2 / 3 <= interval.high for interval in narrow]) <= 0.58


@pytest.mark.parametrize(
    ("of_parts", "of_images", "own", "kinds", "n"),
    [(1.0, 0.3, 0.5, 60, 200), (0.3, 0.3, 1.0, 60, 200), (0.0, 0.0, 1.0, 60, 200), (1.0, 0.0, 0.3, 12, 60)],
)
def test_an_interval_over_images_and_parts_covers_the_truth_as_often_as_it_says(
    of_parts: float, of_images: float, own: float, kinds: int, n: int
) -> None:
    """Oracle: simulated objects, four an image, whose truth is 0; intervals over images alone miss it for few parts."""
    held = alone = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        image, part = np.repeat(np.arange(n), 4), rng.integers(0, kinds, 4 * n)
        values = rng.normal(0, of_parts, kinds)[part] + rng.normal(0, of_images, n)[image] + rng.normal(0, own, 4 * n)
        found = two_way_mean(values, image, part)
        held += found.low <= 0 <= found.high
        means = bootstrap_mean(values.reshape(n, 4).mean(1), repeats=300)
        alone += means.low <= 0 <= means.high
    assert 0.9 <= held / 200 <= 0.99
    assert (alone / 200 < 0.5) == (of_parts == 1.0)


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=40),
)
def test_every_image_weighs_alike_whatever_its_objects_are_made_of(objects: list[tuple[float, int, int]]) -> None:
    values, images, parts = (np.array(column) for column in zip(*objects, strict=True))
    found = two_way_mean(values, images, parts)
    means = [values[images == image].mean() for image in set(images.tolist())]
    assert found.mean == pytest.approx(np.mean(means), abs=1e-9)
    assert found.n == len(means)
    if min(len(means), len(set(parts.tolist()))) == 1:
        assert np.isnan(found.low)
        return
    assert found.low <= found.mean <= found.high
    turned = two_way_mean(values[::-1], [f"i{name}" for name in images[::-1]], [f"p{name}" for name in parts[::-1]])
    assert (turned.low, turned.high) == pytest.approx((found.low, found.high), abs=1e-9)


def test_where_each_object_is_an_image_and_a_part_of_its_own_it_is_students_interval() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.2, 30)
    found = two_way_mean(values, np.arange(30), np.arange(30))
    low, high = stats.t.interval(0.95, 29, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    with pytest.raises(DataError, match="expected values, images and parts alike, got 30, 29 and 30"):
        two_way_mean(values, np.arange(29), np.arange(30))


def test_paired_interval_is_that_of_the_differences_and_narrower_than_unpaired():
    rng = np.random.default_rng(0)
    difficulty = rng.uniform(0, 0.8, 100)
    base, tuned = difficulty + rng.normal(0, 0.01, 100), difficulty + 0.1 + rng.normal(0, 0.01, 100)
    paired = paired_bootstrap(base, tuned, seed=1)
    assert paired == bootstrap_mean(tuned - base, seed=1)
    assert paired != bootstrap_mean(tuned - base, seed=2)
    assert paired.mean == pytest.approx(0.1, abs=0.005)
    alone = bootstrap_mean(tuned, seed=1)
    assert paired.high - paired.low < (alone.high - alone.low) / 10


@settings(max_examples=60, deadline=None)
@given(values, st.integers(0, 99))
def test_interval_holds_the_mean_and_is_repeatable(sample, seed):
    interval = bootstrap_mean(sample, seed, repeats=200)
    assert min(sample) - 1e-9 <= interval.low <= interval.high <= max(sample) + 1e-9
    assert interval == bootstrap_mean(sample[::-1], seed, repeats=200)


def test_resampling_in_chunks_changes_nothing(monkeypatch):
    sample = np.random.default_rng(2).uniform(size=50)
    whole = bootstrap_mean(sample, 4, repeats=300)
    monkeypatch.setattr("specialsam.evaluation.statistics.CHUNK", 1000)
    assert bootstrap_mean(sample, 4, repeats=300) == whole


def test_constant_values_and_a_single_image():
    assert bootstrap_mean([0.5] * 10) == Interval(0.5, 0.5, 0.5, 10)
    one = bootstrap_mean([0.7])
    assert (one.mean, one.n) == (0.7, 1)
    assert np.isnan([one.low, one.high]).all()


def test_wilcoxon_agrees_with_scipy_and_knows_ties():
    rng = np.random.default_rng(3)
    base = rng.uniform(size=80)
    tuned = base + rng.normal(0.02, 0.05, 80)
    assert wilcoxon(base, tuned) == pytest.approx(stats.wilcoxon(base, tuned).pvalue)
    assert wilcoxon(base, base) == 1
    # Six rises, no fall: exact p = 2 / 2^6.
    assert wilcoxon([0, 0, 0, 0, 0, 0, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.5]) == pytest.approx(2 / 64)
    assert wilcoxon([0.1], [0.2]) == 1


def test_wilcoxon_is_uniform_when_nothing_differs():
    # Oracle: simulation under the null; 5 % of p-values under .05.
    rng = np.random.default_rng(8)
    small = np.mean([wilcoxon(*rng.normal(size=(2, 40))) < 0.05 for _ in range(500)])
    assert 0.02 < small < 0.085


def test_wins_by_hand():
    assert wins([0.1, 0.5, 0.5, 0.9], [0.2, 0.5005, 0.499, 0.1]) == (1, 1, 2)
    assert wins([0.1, 0.5], [0.2, 0.5005], tie=0) == (2, 0, 0)


def test_holm_by_hand():
    # .01 x 4 = .04; .03 x 3 = .09; .04 x 2 = .08, raised to the .09 before it; .2 x 1.
    adjusted = holm({"c": 0.03, "a": 0.01, "d": 0.2, "b": 0.04})
    assert list(adjusted) == ["c", "a", "d", "b"]
    assert adjusted == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.2})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1, "b": 1}
    assert holm({"a": 0.03}) == {"a": 0.03}
    assert holm({}) == {}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_nothing_and_bonferroni(pvalues):
    adjusted = list(holm({str(index): p for index, p in enumerate(pvalues)}).values())
    for p, after in zip(pvalues, adjusted, strict=True):
        assert p <= after <= 1
    assert np.argsort(pvalues, kind="stable").tolist() == sorted(
        range(len(pvalues)), key=lambda index: (adjusted[index], pvalues[index], index)
    )
    assert min(adjusted) == pytest.approx(min(1, len(pvalues) * min(pvalues)))


def test_what_is_no_measurement_is_refused():
    nan = float("nan")
    for call in (
        lambda: bootstrap_mean([0.1, nan]),
        lambda: paired_bootstrap([0.1, 0.2], [nan, 0.2]),
        lambda: wilcoxon([0.1, 0.2], [0.1, float("inf")]),
        lambda: wins([nan], [0.1]),
    ):
        with pytest.raises(DataError, match=r"1 of [12] NaN or infinite"):
            call()
    with pytest.raises(DataError, match="at least one image"):
        bootstrap_mean([])
    with pytest.raises(DataError, match="same images"):
        wins([0.1], [0.1, 0.2])
    with pytest.raises(DataError, match="level"):
        bootstrap_mean([0.1, 0.2], level=95)
    with pytest.raises(DataError, match="repeat"):
        bootstrap_mean([0.1, 0.2], repeats=0)
    with pytest.raises(DataError, match="p-values"):
        holm({"a": nan})


def test_differences_read_as_points() -> None:
    assert points(Interval(0.031, -0.01, 0.052, 20)) == "+3.1 [-1.0, +5.2]"
    assert points(Interval(0.031, -0.01, 0.052, 20), "-") == "3.1 [-1.0, 5.2]"
    assert points(Interval(0.031, float("nan"), float("nan"), 1)) == "+3.1 (no interval: 1 image)"
    assert flat("drop", Interval(0.5, float("nan"), float("nan"), 1)) == {"drop": 0.5}
