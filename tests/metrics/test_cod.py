"""COD measures against PySODMetrics' own aggregate, and the places where ours differ from it on purpose."""

import warnings

import numpy as np
import py_sod_metrics as sod
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from specialsam.core.errors import DataError
from specialsam.metrics import cod, cod_dataset

MEANS = ["s_measure", "e_mean", "e_adaptive", "weighted_f", "mae"]


def soft_pairs(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(4)
    pairs = []
    for _ in range(count):
        noise, other = (ndimage.gaussian_filter(rng.normal(size=(60, 80)), 7) * 20 for _ in range(2))
        probability = 1 / (1 + np.exp(-4 * (noise + 0.7 * other - 0.5)))
        pairs.append((probability.astype(np.float32), noise > 0.5))
    return pairs


def aggregate(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """The library's own dataset values on the same soft maps."""
    s, e, w, m = sod.Smeasure(), sod.Emeasure(), sod.WeightedFmeasure(), sod.MAE()
    for probability, truth in pairs:
        for measure in (s, e, w, m):
            measure.step(probability.astype(np.float64), truth, normalize=False)
    curve = e.get_results()["em"]["curve"]
    return {
        "s_measure": s.get_results()["sm"],
        "e_mean": curve.mean(),
        "e_max": curve.max(),
        "e_adaptive": e.get_results()["em"]["adp"],
        "weighted_f": w.get_results()["wfm"],
        "mae": m.get_results()["mae"],
    }


def test_mean_over_images_is_the_published_value():
    pairs = soft_pairs(6)
    reference, rows = aggregate(pairs), [cod(*pair) for pair in pairs]
    for name in MEANS:
        assert np.mean([row[name] for row in rows]) == pytest.approx(reference[name], abs=1e-6), name
    assert np.mean([row["e_max"] for row in rows]) >= reference["e_max"]
    whole = cod_dataset(pairs)
    assert {name: pytest.approx(value, abs=1e-6) for name, value in reference.items()} == whole


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(2, 14), st.integers(2, 14), st.sampled_from(["any", "levels", "sharp"]))
def test_every_map_has_the_library_s_values(data, height, width, kind):
    """Beside empty truths, and objects in a corner, where the library has no S-measure (see below)."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    truth = rng.random((height, width)) < data.draw(st.sampled_from([0.02, 0.3, 0.7, 0.98, 1]))
    soft = rng.random((height, width), np.float32)
    probability = {"any": soft, "levels": np.round(soft * 8) / 8, "sharp": np.round(soft)}[kind].astype(np.float32)
    if not truth.any():
        truth[rng.integers(height), rng.integers(width)] = True
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = aggregate([(probability, truth)])
    row, ours = cod(probability, truth), cod_dataset([(probability, truth)])
    for name, value in wanted.items():
        if np.isfinite(value):
            assert ours[name] == pytest.approx(value, abs=1e-6), name
            assert row[name] == pytest.approx(value, abs=1e-6), name
        else:
            assert name == "s_measure"


def test_a_perfect_map_and_its_opposite():
    truth = soft_pairs(1)[0][1]
    best, worst = cod(truth.astype(np.float32), truth), cod((~truth).astype(np.float32), truth)
    # The E-measure divides by N - 1; at the lowest of 256 thresholds all is foreground, which costs the mean 1/256.
    assert best["e_mean"] == pytest.approx(1, abs=1 / 256)
    rest = {"s_measure": 1, "e_max": 4800 / 4799, "e_adaptive": 4800 / 4799, "weighted_f": 1, "mae": 0}
    assert {name: best[name] for name in rest} == pytest.approx(rest, abs=1e-6)
    assert worst["mae"] == 1
    assert worst["weighted_f"] < 0.1  # not quite 0: its smoothing window takes what is outside the image for right
    assert worst["s_measure"] < 0.1


def test_a_blank_map_is_not_stretched_into_noise():
    """Noise of one part in a thousand: the library's default stretches it to full contrast, we do not."""
    truth = soft_pairs(1)[0][1]
    blank = np.random.default_rng(0).uniform(0, 0.001, truth.shape).astype(np.float32)
    ours = cod(blank, truth)
    nothing = cod(np.zeros_like(blank), truth)
    assert {name: ours[name] for name in MEANS if name != "e_adaptive"} == pytest.approx(
        {name: nothing[name] for name in MEANS if name != "e_adaptive"}, abs=5e-3
    )
    stretched = sod.MAE()
    stretched.step((blank * 255000).astype(np.uint8), truth.astype(np.uint8) * 255)
    assert ours["mae"] == pytest.approx(truth.mean(), abs=1e-3)
    assert stretched.get_results()["mae"] == pytest.approx(0.5, abs=0.02)


def test_empty_truth():
    truth = np.zeros((30, 40), bool)
    faint = cod(np.full((30, 40), 0.25, np.float32), truth)
    assert faint == pytest.approx(
        {"s_measure": 0.75, "mae": 0.25, "e_adaptive": 1, "weighted_f": 1, "e_mean": 1, "e_max": 1}
    )
    found = cod(np.full((30, 40), 0.9, np.float32), truth)
    assert found["weighted_f"] == 0
    assert found["e_mean"] < 0.2


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 39), (29, 0), (29, 39), (15, 39), (29, 20)])
@pytest.mark.filterwarnings("error")
def test_objects_in_a_corner_have_an_s_measure(row, column):
    """One pixel on the last column leaves two quadrants empty, where the library's own S-measure is NaN."""
    truth = np.zeros((30, 40), bool)
    truth[row, column] = True
    assert cod(truth.astype(np.float32), truth)["s_measure"] == pytest.approx(1, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(2, 12), st.integers(2, 12))
def test_always_finite_and_in_range(data, height, width):
    probability = data.draw(hnp.arrays(np.float32, (height, width), elements=st.floats(0, 1, width=32)))
    truth = data.draw(hnp.arrays(np.bool_, (height, width)))
    size = height * width
    for name, value in cod(probability, truth).items():
        assert -1e-6 <= value <= size / (size - 1) + 1e-6, name


def test_what_is_no_probability_is_refused():
    truth = np.zeros((4, 4), bool)
    for wrong in (1.5, -0.1, np.nan):
        with pytest.raises(DataError, match=r"0\.\.1"):
            cod(np.full((4, 4), wrong, np.float32), truth)
    with pytest.raises(DataError, match="at least one map"):
        cod_dataset([])
