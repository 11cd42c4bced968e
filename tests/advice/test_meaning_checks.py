"""Pixels and labels that were not read as they were meant. Oracle: faults planted into facts of sound scenes."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from planted import samples, subject_of

from specialsam.advice.checks.image_facts import ImageFacts, facts_of
from specialsam.advice.checks.meaning_checks import grey_levels, label_plausibility, objects_an_image
from specialsam.core.findings import Finding
from specialsam.core.geometry import BoolArray
from specialsam.core.types import Sample

SOUND = samples()[:10]


def facts(of: list[Sample]) -> list[ImageFacts]:
    return [facts_of(sample, "train") for sample in of]


def with_masks(sample: Sample, masks: BoolArray) -> Sample:
    return replace(sample, masks=masks, labels=())


def all_checks(of: list[Sample]) -> list[Finding]:
    found = facts(of)
    return [grey_levels(found), objects_an_image(found), label_plausibility(found)]


def test_sound_scenes_pass_and_nothing_to_look_at_passes() -> None:
    assert [found.level for found in all_checks(list(SOUND))] == ["pass"] * 3
    assert [found.level for found in all_checks([])] == ["pass"] * 3
    assert len(subject_of(SOUND).of()) == 10


@pytest.mark.parametrize(("broken", "level"), [(1, "warn"), (5, "fail"), (10, "fail"), (0, "pass")])
def test_twelve_bits_that_were_read_as_sixteen(broken: int, level: str) -> None:
    """A 16th of the range leaves 16 levels at most."""
    dark = [replace(sample, image=sample.image // 16) for sample in SOUND[:broken]]
    found = grey_levels(facts([*dark, *SOUND[broken:]]))
    assert found.level == level
    assert found.numbers["of few levels"] == broken
    assert len(found.files) == broken
    assert ("data.levels" in found.remedy) == (level != "pass")


def test_shades_of_an_edge_that_became_objects() -> None:
    def shades(sample: Sample) -> Sample:
        soft = cv2.GaussianBlur(np.asarray(sample.masks[0], np.uint8) * 255, (0, 0), 2)
        return with_masks(sample, np.asarray(soft[None] == np.unique(soft)[1:, None, None]))

    found = objects_an_image(facts([shades(sample) for sample in SOUND]))
    assert found.level == "fail"
    assert found.numbers["images of shards"] == 10
    assert "without loss" in found.remedy


def test_many_real_objects_are_no_shards() -> None:
    """A grid of 25 blocks of 8 pixels."""
    grid = np.zeros((25, 128, 128), np.bool_)
    for number in range(25):
        row, column = divmod(number, 5)
        grid[number, row * 20 : row * 20 + 8, column * 20 : column * 20 + 8] = True
    found = objects_an_image(facts([with_masks(sample, grid) for sample in SOUND]))
    assert (found.level, found.numbers["median objects"]) == ("pass", 25)


def test_labels_that_are_no_objects() -> None:
    ground = [with_masks(s, np.concatenate([s.masks, ~s.masks])) for s in SOUND]
    twins = [with_masks(s, np.concatenate([s.masks, s.masks])) for s in SOUND]
    whole = [with_masks(s, np.ones_like(s.masks)) for s in SOUND]
    for planted, words in ((ground, "data.background"), (twins, "data.several"), (whole, "another channel")):
        found = label_plausibility(facts(planted))
        assert found.level == "fail", words
        assert words in found.remedy
    assert label_plausibility(facts([*ground[:1], *SOUND[1:]])).level == "warn"
