"""Prompt strategies against masks drawn by hand and properties of any mask."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from specialsam.core.errors import DataError, UsageError
from specialsam.core.masks import interior_point, tight_boxes
from specialsam.evaluation.evaluate import EvaluateSettings
from specialsam.prompts import (
    SEED_TITLES,
    STRATEGIES,
    Strategy,
    check_mixture,
    draw,
    draw_mixed,
    generator,
)
from specialsam.prompts.strategies import BOX_NOISE_LIMIT, jitter_box
from specialsam.report.numbers import strategy_name
from specialsam.training.settings import TrainSettings

ON_OBJECT = ["edge", "random3", "interior", "random", "points2", "points3", "points5", "box_point"]

any_masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 3), st.integers(1, 24), st.integers(1, 24))).filter(
    lambda masks: masks.any((1, 2)).all()
)


def rectangle(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def only(name: str, mask: np.ndarray):
    return alike(name, mask[None], generator(0))


def alike(name: str, masks: np.ndarray, rng: np.random.Generator):
    """The one `Prompts` of objects that all get the same number of points."""
    [(indices, prompts)] = draw(name, masks, rng)
    assert indices == list(range(len(masks)))
    return prompts


def test_center_of_mass_is_the_whole_part_of_the_mean_and_may_fall_outside():
    # Oracle: by hand. Columns 2..5 have mean 3.5, rows 1..4 mean 2.5.
    assert only("center_of_mass", rectangle(9, 9, 2, 1, 5, 4)).points.tolist() == [[[3, 2]]]
    ring = rectangle(9, 9, 1, 1, 7, 7)
    ring[3:6, 3:6] = False
    assert only("center_of_mass", ring).points.tolist() == [[[4, 4]]]
    assert not ring[4, 4]


def test_edge_is_the_first_vertex_of_the_largest_outer_contour():
    # Oracle: by hand. OpenCV starts a contour at its topmost, then leftmost pixel; the big rectangle wins.
    mask = rectangle(20, 20, 8, 6, 15, 15) | rectangle(20, 20, 0, 0, 2, 2)
    assert only("edge", mask).points.tolist() == [[[8, 6]]]


def test_grid_keeps_the_thirds_that_lie_on_the_object():
    # Oracle: by hand. A box 3..12 x 6..15 has its thirds at x 6, 9 and y 9, 12.
    mask = rectangle(20, 20, 3, 6, 12, 15)
    assert only("grid4", mask).points.tolist() == [[[6, 9], [9, 9], [6, 12], [9, 12]]]
    mask[9, 6] = mask[12, 9] = False
    assert only("grid4", mask).points.tolist() == [[[9, 9], [6, 12]]]


def test_grid_falls_back_to_the_center_of_mass():
    ring = rectangle(20, 20, 1, 1, 16, 16)
    ring[3:15, 3:15] = False
    assert only("grid4", ring).points.tolist() == only("center_of_mass", ring).points.tolist()


def test_draw_groups_objects_by_number_of_points_and_pads_nothing():
    full = rectangle(20, 20, 3, 6, 12, 15)
    ring = rectangle(20, 20, 1, 1, 16, 16)
    ring[3:15, 3:15] = False
    groups = draw("grid4", np.stack([full, ring, full]), generator(0))
    assert [(indices, prompts.points.shape) for indices, prompts in groups] == [([1], (1, 1, 2)), ([0, 2], (2, 4, 2))]
    assert groups[1][1].points[0].tolist() == only("grid4", full).points[0].tolist()


@settings(max_examples=120, deadline=None)
@given(any_masks, st.sampled_from(sorted(STRATEGIES)), st.integers(0, 99))
def test_every_strategy_covers_each_object_once_inside_the_image(masks, name, seed):
    groups = draw(name, masks, generator(seed))
    assert sorted(index for indices, _ in groups for index in indices) == list(range(len(masks)))
    height, width = masks.shape[1:]
    for indices, prompts in groups:
        assert prompts.strategy == name
        assert len(prompts) == len(indices)
        if prompts.points is not None:
            assert (prompts.labels == 1).all()
            assert (prompts.points >= 0).all()
            assert (prompts.points < [width, height]).all()
            if name in ON_OBJECT:
                for index, points in zip(indices, prompts.points.astype(int), strict=True):
                    assert masks[index][points[:, 1], points[:, 0]].all()
        if prompts.boxes is not None:
            assert (prompts.boxes >= 0).all()
            assert (prompts.boxes <= [width - 1, height - 1] * 2).all()


@settings(max_examples=60, deadline=None)
@given(any_masks, st.sampled_from(sorted(STRATEGIES)))
def test_the_same_generator_gives_the_same_prompts(masks, name):
    first, second = (draw(name, masks, generator(5, "record", name)) for _ in range(2))
    for (indices, one), (again, other) in zip(first, second, strict=True):
        assert indices == again
        np.testing.assert_array_equal(one.points, other.points)
        np.testing.assert_array_equal(one.boxes, other.boxes)


@pytest.mark.parametrize(
    ("name", "count"), [("random3", 3), ("random", 1), ("points2", 2), ("points3", 3), ("points5", 5)]
)
def test_number_of_points_also_on_a_single_pixel(name, count):
    pixel = rectangle(8, 8, 6, 2, 6, 2)
    assert only(name, pixel).points.tolist() == [[[6, 2]] * count]


@pytest.mark.parametrize("seed", range(8))
def test_random_pixels_repeat_only_when_there_are_too_few(seed):
    three = rectangle(8, 8, 2, 5, 4, 5)
    points = alike("random3", three[None], generator(seed)).points[0]
    assert sorted(points.tolist()) == [[2, 5], [3, 5], [4, 5]]


def test_points_of_one_object_differ_when_there_is_room():
    points = only("points5", rectangle(60, 60, 5, 5, 54, 54)).points[0]
    assert points[0].tolist() in [[29, 29], [30, 30], [29, 30], [30, 29]]
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2)[~np.eye(5, dtype=bool)]
    assert gaps.min() > 5


def test_random_pixel_is_uniform_over_the_object():
    # Oracle: the uniform law; 4000 draws over 4 pixels, each within 5 standard deviations of 1000.
    mask = rectangle(4, 5, 1, 1, 2, 2)
    rng = generator(3)
    drawn = np.array([alike("random", mask[None], rng).points[0, 0] for _ in range(4000)])
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 4
    assert (abs(counts - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5).all()


def test_boxes_are_the_tight_ones():
    masks = np.stack([rectangle(20, 30, 4, 5, 22, 11), rectangle(20, 30, 0, 0, 29, 19)])
    np.testing.assert_array_equal(alike("box", masks, generator(0)).boxes, tight_boxes(masks))
    both = alike("box_point", masks, generator(0))
    np.testing.assert_array_equal(both.boxes, tight_boxes(masks))
    assert both.points.shape == (2, 1, 2)


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 400), st.integers(2, 400), st.data())
def test_jittered_boxes_stay_boxes_inside_the_image(height, width, data):
    x0, x1 = sorted(data.draw(st.tuples(*[st.integers(0, width - 1)] * 2)))
    y0, y1 = sorted(data.draw(st.tuples(*[st.integers(0, height - 1)] * 2)))
    box = jitter_box([x0, y0, x1, y1], (height, width), generator(data.draw(st.integers(0, 999))))
    assert box.dtype == np.float32
    assert 0 <= box[0] < box[2] <= width - 1
    assert 0 <= box[1] < box[3] <= height - 1
    assert (abs(box - [x0, y0, x1, y1]) <= BOX_NOISE_LIMIT + 1.01).all()


def test_box_noise_has_a_tenth_of_the_side_and_twenty_pixels_at_most():
    # Oracle: the definition in the SAM paper; box 100 x 1000 away from the image's borders.
    rng = generator(1)
    moved = np.array([jitter_box([500, 500, 599, 1499], (3000, 3000), rng) for _ in range(3000)]) - [
        500,
        500,
        599,
        1499,
    ]
    assert abs(moved).max() <= BOX_NOISE_LIMIT
    inside = abs(moved[:, 0]) < BOX_NOISE_LIMIT - 1e-3
    assert 0.93 < inside.mean() < 0.975  # a normal law of sigma 10 is beyond 20 in 4.6 % of cases
    assert np.std(moved[:, 0]) == pytest.approx(9.6, abs=0.5)
    assert (abs(moved[:, 1]) >= BOX_NOISE_LIMIT - 1e-3).mean() > 0.8  # sigma 100: mostly at the limit


def test_generator_depends_on_seed_and_purpose_alone_in_every_process():
    code = "from specialsam.prompts import generator; print(generator(7, 'train', 3).integers(1 << 62))"
    outside = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = generator(7, "train", 3).integers(1 << 62)
    assert int(outside) == here
    others = [
        generator(*purpose).integers(1 << 62) for purpose in [(7, "train", 4), (7, "train3"), (8, "train", 3), (7,)]
    ]
    assert here not in others
    assert generator(7, "1").integers(1 << 62) != generator(7, 1).integers(1 << 62)


def test_mixture_draws_by_probability_whatever_its_order():
    mask = rectangle(30, 30, 4, 4, 20, 20)[None]
    rng, again = generator(2), generator(2)
    names = [draw_mixed({"box": 3, "random": 1, "edge": 0}, mask, rng)[0][1].strategy for _ in range(2000)]
    assert set(names) == {"box", "random"}
    assert abs(names.count("box") / 2000 - 0.75) < 0.05
    assert names[:50] == [draw_mixed({"edge": 0, "random": 1, "box": 3}, mask, again)[0][1].strategy for _ in range(50)]
    assert sum(check_mixture({"box": 3, "random": 1}).values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"boxx": 1.0}, "center_of_mass.*'boxx'"),
        ({"box": -0.5, "edge": 1.5}, "at least 0.*box"),
        ({"box": float("nan")}, "at least 0.*nan"),
        ({"box": 0.0}, "positive sum"),
        ({}, "positive sum"),
    ],
)
def test_wrong_mixtures_are_refused(mixture, message):
    with pytest.raises(UsageError, match=message):
        check_mixture(mixture)


def test_what_cannot_have_prompts_is_refused():
    masks = np.zeros((2, 5, 5), bool)
    masks[0, 2, 2] = True
    for name in STRATEGIES:
        with pytest.raises(DataError, match="empty one \\(object 1\\)"):
            draw(name, masks, generator(0))
    with pytest.raises(UsageError, match=r"interior.*'centre'"):
        draw("centre", masks[:1], generator(0))
    with pytest.raises(DataError, match="bool"):
        draw("box", masks.astype(np.uint8), generator(0))
    with pytest.raises(DataError, match="non-empty"):
        interior_point(masks[1])


def test_no_objects_give_no_groups():
    assert draw("box", np.zeros((0, 5, 5), bool), generator(0)) == []


def test_a_new_strategy_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn, mixed, allowed by the settings of training and measuring, and named in the report; gone with its entry."""
    corner = Strategy("click in the corner", lambda mask, rng: (np.zeros((1, 2), np.float32), None))
    masks = rectangle(9, 9, 3, 3, 6, 6)[None]
    with monkeypatch.context() as patch:
        patch.setitem(STRATEGIES, "corner", corner)
        assert draw("corner", masks, generator(0))[0][1].points.tolist() == [[[0, 0]]]
        assert draw_mixed({"corner": 1}, masks, generator(0))[0][1].strategy == "corner"
        assert check_mixture({"corner": 2, "box": 2}) == {"box": 0.5, "corner": 0.5}
        assert TrainSettings(prompts={"corner": 1.0}, validation=("corner",)).validation == ("corner",)
        assert EvaluateSettings(strategies=("corner",)).strategies == ("corner",)
        assert strategy_name("corner") == "click in the corner"
    with pytest.raises(UsageError, match="'corner'"):
        draw("corner", masks, generator(0))


def test_a_planted_fault_is_no_strategy() -> None:
    """The half frame of the original wood study: no settings can ask for it by name."""
    assert "half_frame" not in STRATEGIES
    with pytest.raises(UsageError, match="'half_frame'"):
        draw("half_frame", rectangle(9, 9, 3, 3, 6, 6)[None], generator(0))
    for settings_of in (TrainSettings, EvaluateSettings):
        name = "prompts" if settings_of is TrainSettings else "strategies"
        with pytest.raises((UsageError, ValidationError), match="half_frame"):
            settings_of.model_validate({name: {"half_frame": 1.0} if name == "prompts" else ("half_frame",)})


def test_every_title_belongs_to_a_strategy():
    assert set(SEED_TITLES) <= set(STRATEGIES)
    assert SEED_TITLES["grid4"] == "Multi-Point Grid (4 pts)"
