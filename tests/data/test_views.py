"""Views: image and masks move together, draws repeat, keys tell views apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from specialsam.core.errors import DataError, UsageError
from specialsam.core.types import Record, Sample
from specialsam.data.views import IDENTITY, VIEW_PRESETS, View, ViewRecipe, apply, view_recipe, views_for

RED, GREEN = (220, 30, 30), (30, 160, 60)


def noise(height: int, width: int, objects: int = 1, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    masks = rng.random((objects, height, width)) < 0.3
    masks[:, 0, 0] = True
    return Sample(Record("r", Path("r.png")), image, masks, tuple(f"object {index}" for index in range(objects)))


def disc(height: int = 120, width: int = 160, centre: tuple[int, int] = (70, 50), radius: int = 18) -> Sample:
    """A red disc on green whose mask is drawn by the same call."""
    image = np.full((height, width, 3), GREEN, np.uint8)
    cv2.circle(image, centre, radius, RED, -1)
    mask = cv2.circle(np.zeros((height, width), np.uint8), centre, radius, 1, -1)
    return Sample(Record("disc", Path("disc.png")), image, mask.astype(np.bool_)[None], ("disc",))


def redness(sample: Sample) -> np.ndarray:
    return sample.image[..., 0].astype(int) > sample.image[..., 1]


def overlap(one: np.ndarray, two: np.ndarray) -> float:
    return float((one & two).sum() / max(1, (one | two).sum()))


sides = st.integers(2, 24)


@given(sides, sides, st.booleans(), st.booleans())
def test_a_flip_twice_is_the_identity(height: int, width: int, flip: bool, vertical: bool) -> None:
    given_, view = noise(height, width, 2), View(flip=flip, flip_vertical=vertical)
    once = apply(view, given_)
    twice = apply(view, once)
    np.testing.assert_array_equal(twice.image, given_.image)
    np.testing.assert_array_equal(twice.masks, given_.masks)
    axes = [axis for axis, on in ((0, vertical), (1, flip)) if on]
    np.testing.assert_array_equal(once.image, np.flip(given_.image, axes))
    np.testing.assert_array_equal(once.masks, np.flip(given_.masks, [axis + 1 for axis in axes]))


@given(st.integers(8, 40), st.integers(0, 7))
@settings(deadline=None)
def test_right_angles_match_rot90_on_a_square(side: int, quarters: int) -> None:
    """Oracle: numpy.rot90, counter-clockwise; the outermost pixels are left out for the border's rule."""
    given_ = noise(side, side)
    turned = apply(View(rotation=90 * quarters), given_)
    inner = np.s_[1:-1, 1:-1]
    np.testing.assert_array_equal(turned.image[inner], np.rot90(given_.image, quarters)[inner])
    np.testing.assert_array_equal(turned.masks[0][inner], np.rot90(given_.masks[0], quarters)[inner])


@given(
    rotation=st.floats(0, 360),
    scale=st.floats(0.8, 1.2),
    flip=st.booleans(),
    elastic=st.floats(0, 0.02),
    crop=st.floats(0.4, 1),
    hue=st.floats(-10, 10),
    brightness=st.floats(-0.1, 0.1),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None)
def test_the_mask_moves_with_the_image(seed: int, **parameters: float) -> None:
    """Oracle: the disc's colour. The disc keeps away from the border, whose reflection shows objects twice."""
    view = View(seed=seed, **parameters)  # type: ignore[arg-type]
    given_ = disc(160, 160, (80, 80))
    seen = apply(view, given_)
    assert seen.masks.shape == (1, *seen.size)
    assert overlap(redness(seen), seen.masks[0]) > 0.85
    assert seen.labels == ("disc",)
    assert seen.record == given_.record


def test_rotation_turns_about_the_centre_and_scale_enlarges() -> None:
    """Oracle: the disc's centre and area by hand. (+30, 0) from the centre is (0, -30) after 90 degrees to the left."""
    given_ = disc(101, 101, (80, 50), 9)
    turned = apply(View(rotation=90, scale=1.2), given_)
    rows, columns = np.nonzero(turned.masks[0])
    assert (columns.mean(), rows.mean()) == (pytest.approx(50, abs=0.5), pytest.approx(50 - 30 * 1.2, abs=0.5))
    assert turned.masks.sum() == pytest.approx(given_.masks.sum() * 1.44, rel=0.05)
    assert turned.size == given_.size


def test_the_border_is_a_reflection_in_the_image_and_background_in_the_mask() -> None:
    image = np.full((60, 60, 3), 100, np.uint8)
    full = Sample(Record("r", Path("r.png")), image, np.ones((1, 60, 60), np.bool_))
    seen = apply(View(scale=0.5), full)
    np.testing.assert_array_equal(seen.image, image)
    assert seen.masks.sum() == pytest.approx(900, rel=0.1)
    assert not seen.masks[0, 0].any()


def test_objects_that_leave_are_dropped_with_their_labels() -> None:
    masks = np.zeros((3, 40, 40), np.bool_)
    masks[0, :2, :2] = masks[1, 18:22, 18:22] = masks[2, -2:, -2:] = True
    given_ = Sample(Record("r", Path("r.png")), np.zeros((40, 40, 3), np.uint8), masks, ("corner", "middle", "corner"))
    seen = apply(View(rotation=45), given_)
    assert seen.labels == ("middle",)
    assert len(seen.masks) == 1
    unlabelled = apply(View(rotation=45), Sample(given_.record, given_.image, masks))
    assert unlabelled.labels == ()
    assert len(unlabelled.masks) == 1
    assert apply(View(flip=True), Sample(given_.record, given_.image, masks[:0])).masks.shape == (0, 40, 40)


@given(st.floats(0.05, 0.95), st.integers(0, 2**31), st.integers(0, 3))
@settings(deadline=None)
def test_a_crop_is_a_window_that_holds_an_object(share: float, seed: int, objects: int) -> None:
    """Oracle: every pixel of the image is unique, so the window is found again by its first one."""
    image = np.arange(30 * 50 * 3, dtype=np.uint32).reshape(30, 50, 3)
    unique = np.stack([image[..., 0] % 251, image[..., 0] // 251, image[..., 1] % 7], -1).astype(np.uint8)
    masks = np.zeros((objects, 30, 50), np.bool_)
    for index in range(objects):
        masks[index, 9 * index + 1 : 9 * index + 4, 15 * index + 2 : 15 * index + 9] = True
    seen = apply(View(crop=share, seed=seed), Sample(Record("r", Path("r.png")), unique, masks))
    height, width = seen.size
    assert (height, width) == (max(1, round(share * 30)), max(1, round(share * 50)))
    ((row, column),) = np.argwhere((unique == seen.image[0, 0]).all(-1))
    window = np.s_[row : row + height, column : column + width]
    np.testing.assert_array_equal(seen.image, unique[window])
    kept = [mask[window] for mask in masks if mask[window].any()]
    assert len(seen.masks) == len(kept) >= min(1, objects)
    for got, want in zip(seen.masks, kept, strict=True):
        np.testing.assert_array_equal(got, want)


def test_colour_leaves_masks_alone_and_does_what_it_says() -> None:
    given_ = disc()
    mean = given_.image.mean()
    for view, check in (
        (View(brightness=0.1), lambda image: image.mean() == pytest.approx(mean + 25.5, abs=0.6)),
        (View(contrast=0.5), lambda image: image.std() == pytest.approx(given_.image.std() / 2, abs=0.6)),
        (View(saturation=0), lambda image: np.ptp(image, axis=2).max() == 0),
        (View(hue=120), lambda image: image[50, 70, 1] > 200 > 60 > image[50, 70, 0]),
    ):
        seen = apply(view, given_)
        assert check(seen.image), view.key
        np.testing.assert_array_equal(seen.masks, given_.masks)


def test_blur_softens_the_image_alone() -> None:
    given_ = noise(64, 64)
    seen = apply(View(blur=0.03), given_)
    assert seen.image.std() < given_.image.std() / 2
    np.testing.assert_array_equal(seen.masks, given_.masks)


def test_elastic_moves_by_at_most_what_it_says() -> None:
    """Oracle: an image that stores each pixel's own column and row."""
    rows, columns = np.mgrid[:200, :200].astype(np.uint8)
    given_ = Sample(Record("r", Path("r.png")), np.stack([columns, rows, rows], -1), np.ones((1, 200, 200), np.bool_))
    seen = apply(View(elastic=0.02, seed=5), given_)
    inner = np.s_[10:-10, 10:-10]
    moved = np.hypot(*(seen.image[inner][..., :2].astype(float) - given_.image[inner][..., :2]).transpose(2, 0, 1))
    assert 2 < moved.max() <= 0.02 * 200 + 1.5, "shares of the longer side, plus rounding"
    assert not np.array_equal(seen.image, apply(View(elastic=0.02, seed=6), given_).image)


views = st.builds(
    View,
    crop=st.sampled_from([0.5, 1.0]),
    flip=st.booleans(),
    rotation=st.sampled_from([0, 0.0, 90, 90.5]),
    scale=st.sampled_from([1, 1.0, 1.2]),
    elastic=st.sampled_from([0.0, 0.01]),
    contrast=st.sampled_from([1.0, 2, 2.0]),
    seed=st.integers(0, 1),
)


@given(views, views)
def test_equal_views_have_equal_keys_and_no_others_do(one: View, two: View) -> None:
    if one == two:
        assert (one.key, hash(one)) == (two.key, hash(two))
    if one.key == two.key:
        sample = noise(20, 20)
        np.testing.assert_array_equal(apply(one, sample).image, apply(two, sample).image)
    if one.crop < 1 or one.elastic:
        assert (one == two) == (one.key == two.key)


def test_keys_are_stable_text() -> None:
    """They are part of stored embeddings' keys: a change here makes every stored view useless."""
    assert (
        IDENTITY.key == View(rotation=-1e-20).key == View(rotation=360, seed=4, name="any", elastic_sigma=0.3).key == ""
    )
    assert View(flip=True).key == "v1;flip=True"
    assert View(rotation=-90, scale=1.1, seed=3).key == "v1;rotation=270.0;scale=1.1"
    assert View(crop=0.5, elastic=0.01, seed=3).key == "v1;elastic=0.01;crop=0.5;seed=3"
    sample = noise(8, 8)
    assert apply(IDENTITY, sample) is sample


@pytest.mark.parametrize(
    "wrong", [{"crop": 0}, {"crop": 1.5}, {"scale": 0}, {"hue": float("nan")}, {"blur": -1}, {"elastic_sigma": 0}]
)
def test_impossible_views_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match="expected"):
        View(**wrong)  # type: ignore[arg-type]


@given(st.text(min_size=1), st.integers(0, 2**63), st.sampled_from(sorted(VIEW_PRESETS)))
def test_draws_repeat_and_are_distinct(record_id: str, seed: int, preset: str) -> None:
    recipe = view_recipe(preset)
    drawn = views_for(record_id, recipe, seed)
    assert drawn == views_for(record_id, recipe, seed)
    assert len(drawn) == recipe.count
    assert len({view.key for view in (*drawn, IDENTITY)}) == recipe.count + 1
    more = views_for(record_id, recipe.model_copy(update={"count": recipe.count + 2}), seed)
    assert more[: recipe.count] == drawn


def test_draws_are_the_same_in_another_process() -> None:
    call = "from specialsam.data.views import *; print([v.key for v in views_for('a', view_recipe('carpet'), 7)])"
    out = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str([view.key for view in views_for("a", view_recipe("carpet"), 7)])
    assert views_for("a", view_recipe("carpet"), 7) != views_for("b", view_recipe("carpet"), 7)
    assert views_for("a", view_recipe("carpet"), 7) != views_for("a", view_recipe("carpet"), 8)


def test_presets_do_what_the_studies_ask_for() -> None:
    """The seed's second view is a horizontal flip; its carpets turn 0-360 and scale .8-1.2."""
    assert [view.key for view in views_for("r", view_recipe("flip"), 0)] == ["v1;flip=True"]
    assert views_for("r", view_recipe("none"), 0) == ()
    carpet = [view for index in range(300) for view in views_for(str(index), view_recipe("carpet"), 0)]
    turns, scales = np.array([view.rotation for view in carpet]), np.array([view.scale for view in carpet])
    assert np.histogram(turns, 4, (0, 360))[0].min() > 200, "every quarter of the circle"
    assert 0.8 <= scales.min() < 0.82
    assert 1.18 < scales.max() <= 1.2
    camouflage = [view for index in range(300) for view in views_for(str(index), view_recipe("camouflage"), 0)]
    assert 300 < sum(view.flip for view in camouflage) < 600
    assert min(view.crop for view in camouflage) >= 0.5
    assert all(view.rotation == 0 for view in camouflage)


def test_a_recipe_that_cannot_make_so_many_makes_fewer() -> None:
    assert [view.key for view in views_for("r", ViewRecipe(count=3, flip=0.5), 0)] == ["v1;flip=True"]
    assert views_for("r", ViewRecipe(count=3), 0) == ()


def test_recipes_check_themselves_and_go_by_name() -> None:
    class Settings(BaseModel):
        views: ViewRecipe = ViewRecipe()

    assert Settings.model_validate({"views": "carpet"}).views == view_recipe("carpet")
    assert Settings().views.count == 0
    assert ViewRecipe.model_validate({"count": 1, "flip": True}).flip == 1
    for wrong in ({"rotate": 3}, {"scale": [1.2, 0.8]}, {"count": -1}, "carpets"):
        with pytest.raises(ValidationError):
            ViewRecipe.model_validate(wrong)
    with pytest.raises(UsageError, match="expected views out of none, flip, carpet, camouflage, got 'rugs'"):
        view_recipe("rugs")
