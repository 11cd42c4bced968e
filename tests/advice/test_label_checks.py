"""Faults planted into labels of generated scenes, whose masks are exact: each is found, and none where none is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import masks_of, mosaics, noisy, samples, shifted, shuffled, sound, subject_of

from specialsam.advice.checks.edges import agreement, best_shift, gradient_rank, outline_points, shift_map, thinned
from specialsam.advice.checks.image_facts import ImageFacts, as_rows, gather
from specialsam.advice.checks.label_checks import belonging, common_shift, label_noise, mask_alignment, masks_belong
from specialsam.advice.subject import Subject


def labels(subject: Subject) -> tuple[str, str, str]:
    """Levels of (alignment, belonging, noise), each asked as the audit asks."""
    facts = gather(subject)
    alignment = mask_alignment(facts)
    found = belonging(facts, common_shift(alignment, facts))
    return alignment.level, masks_belong(found).level, label_noise(found).level


@pytest.mark.parametrize(("seed", "camouflage"), [(700, 0.0), (900, 1.0)])
def test_clean_labels_raise_no_alarm(seed: int, camouflage: float) -> None:
    """Oracle: the masks are read off the canvas that was painted."""
    assert labels(sound()) == ("pass", "pass", "pass")
    assert labels(subject_of(samples(36, 96, seed, camouflage))) == ("pass", "pass", "pass")


@pytest.mark.parametrize(("dx", "dy"), [(4, -3), (0, 6), (-9, 0)])
def test_a_common_shift_is_measured_to_the_pixel_and_hides_no_other_answer(dx: int, dy: int) -> None:
    """Oracle: the shift that was planted, with its sign turned; the labels are right but for it."""
    subject = shifted(sound(), dx, dy)
    found = mask_alignment(gather(subject))
    assert found.level == "fail"
    assert found.numbers["shift in x"] == pytest.approx(-dx, abs=1)
    assert found.numbers["shift in y"] == pytest.approx(-dy, abs=1)
    assert f"{float(found.numbers['shift in x']):+.0f} px in x" in found.remedy
    assert labels(subject) == ("fail", "pass", "pass")


def test_a_shift_of_one_pixel_is_no_alarm() -> None:
    assert mask_alignment(gather(shifted(sound(), 1, 0))).level == "pass"


def test_shuffled_masks_belong_to_no_image() -> None:
    """Oracle: under shuffling the advantage of the "own" mask is 0 by symmetry, with spread 1 / sqrt(images)."""
    found = belonging(gather(shuffled(sound())))
    answer = masks_belong(found)
    assert answer.level == "fail"
    assert abs(found.own.mean()) < 4 / len(found.own) ** 0.5
    assert masks_belong(belonging(gather(sound()))).numbers["advantage of the own mask"] > 2


@pytest.mark.parametrize("kind", ["swap", "move"])
def test_a_fifth_of_wrong_masks_is_found_and_named(kind: str) -> None:
    """Oracle: the ids whose masks were changed; by chance a fifth of the first eight named would be among them."""
    subject, bad = noisy(sound(), 0.2, kind)
    finding = label_noise(belonging(gather(subject)), subject)
    assert finding.level in ("warn", "fail")
    assert sum(Path(file).stem in bad for file in finding.files[:8]) >= 4
    assert 0.1 < float(finding.numbers["estimated share of wrong masks"]) < 0.5
    on_suspects = float(finding.numbers["base model on suspects (IoU)"])
    assert on_suspects < float(finding.numbers["base model on others (IoU)"])


def test_equal_masks_and_few_images_are_not_judged() -> None:
    """Masks that are the same in every image fit no image better than another, without being wrong."""
    found = belonging(gather(mosaics()))
    assert masks_belong(found).level == label_noise(found).level == "pass"
    few = gather(subject_of(samples()[:5]))
    assert mask_alignment(few).level == masks_belong(belonging(few)).level == "pass"


def test_an_image_that_cannot_be_loaded_is_kept_with_its_error() -> None:
    facts = gather(shifted(sound(), 0, 0))
    assert all(not fact.error for fact in facts)
    rows = as_rows(facts)
    assert len(rows) == sum(len(fact.objects) for fact in facts)
    assert {"record", "object", "area_share", "contrast", "boundary_px", "boundary"} <= set(rows[0])


def test_facts_of_a_disc_are_those_of_geometry() -> None:
    """Oracle: a disc of radius r covers pi r^2 pixels, its outline is 2 pi r long, their ratio 2 sqrt(pi)."""
    image = np.full((400, 400, 3), 90, np.uint8)
    mask = np.zeros((400, 400), np.uint8)
    cv2.circle(mask, (200, 190), 80, 1, -1)
    image[mask > 0] = 180
    fact: ImageFacts = facts_of_mask(image, mask > 0)
    one = fact.objects[0]
    assert one.area_px == pytest.approx(np.pi * 80**2, rel=0.02)
    assert one.boundary_px == pytest.approx(2 * np.pi * 80, rel=0.08)
    assert one.boundary == pytest.approx(2 * np.pi**0.5, rel=0.08)
    assert fact.shift == (0, 0)
    assert one.contrast > 5
    assert fact.border_share == 0


def facts_of_mask(image: np.ndarray, mask: np.ndarray) -> ImageFacts:
    from specialsam.advice.checks.image_facts import facts_of
    from specialsam.core.types import Record, Sample

    return facts_of(Sample(Record("disc", Path("disc.png")), image, mask[None].astype(np.bool_)), "train")


def test_boundary_length_does_not_depend_on_the_working_size() -> None:
    """Oracle: the same square drawn in an image that is looked at in full and in one that is looked at by a third."""
    lengths = []
    for side in (300, 1536):
        image, mask = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.bool_)
        mask[30:270, 30:270] = True
        lengths.append(facts_of_mask(image, mask).objects[0].boundary_px)
    assert lengths[0] == pytest.approx(4 * 239, rel=0.01)
    assert lengths[1] == pytest.approx(lengths[0], rel=0.03)


@settings(deadline=None, max_examples=20)
@given(dx=st.integers(-12, 12), dy=st.integers(-12, 12), x=st.integers(40, 60), y=st.integers(40, 60))
def test_the_shift_map_peaks_where_the_edge_is(dx: int, dy: int, x: int, y: int) -> None:
    """Oracle: the rectangle in the image is the mask's moved by (dx, dy)."""
    image = np.full((120, 120, 3), 60, np.uint8)
    image[y + dy : y + dy + 21, x + dx : x + dx + 30] = 200
    mask = np.zeros((120, 120), np.bool_)
    mask[y : y + 21, x : x + 30] = True
    found = best_shift(shift_map(gradient_rank(image), outline_points(mask)))
    assert abs(found[0] - dx) <= 1
    assert abs(found[1] - dy) <= 1


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 900))
def test_shift_zero_of_the_map_is_the_agreement(seed: int, count: int) -> None:
    """Oracle: the plain mean of looked-up ranks."""
    rng = np.random.default_rng(seed)
    rank = rng.integers(0, 256, (40, 50)).astype(np.uint8)
    points = np.stack([rng.integers(0, 50, count), rng.integers(0, 40, count)], 1)
    assert shift_map(rank, points)[16, 16] == pytest.approx(agreement(rank, points), abs=1e-5)
    assert agreement(rank, points) == pytest.approx(rank[points[:, 1], points[:, 0]].mean() / 255)
    assert len(thinned(points, 400)) == min(count, 400)


def test_an_image_without_edges_and_a_mask_without_outline_are_neutral() -> None:
    flat = gradient_rank(np.zeros((20, 20, 3), np.uint8))
    assert (flat == 127).all()
    assert agreement(flat, np.zeros((0, 2), np.int64)) == 0.5
    assert len(outline_points(np.ones((20, 20), np.bool_))) == 0
    assert masks_of(sound())
