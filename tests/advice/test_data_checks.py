"""Counts, files and splits: faults planted into small folders and into generated scenes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from planted import KINDS, duplicated, fresh, inverted, mirrored_copy, mosaics, nano, samples, sound, subject_of

from specialsam.advice.checks.audit import CHECKS, audit
from specialsam.advice.checks.data_checks import (
    contrast,
    data_volume,
    image_counts,
    mask_polarity,
    mask_values,
    object_size,
)
from specialsam.advice.checks.image_facts import gather
from specialsam.advice.checks.split_checks import class_mix, exact_duplicates, layout_shortcut, near_duplicates
from specialsam.advice.subject import Subject
from specialsam.core.errors import DataError
from specialsam.core.findings import alarms, worst
from specialsam.core.types import Problem, Record, Sample, Split
from specialsam.data import inspect_masks, load, open_dataset
from specialsam.data.splits import split_records

REAL = Path(os.environ.get("SPECIALSAM_REAL_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def folder(root: Path, count: int = 24, empty: int = 0) -> Path:
    """A plain folder of `count` scenes, the last `empty` of which have masks without an object."""
    for sub in ("images", "masks"):
        (root / sub).mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(samples()[:count]):
        cv2.imwrite(str(root / "images" / f"{number:03d}.png"), sample.image[..., ::-1])
        plane = sample.masks[0].astype(np.uint8) * 255 * (number < count - empty)
        cv2.imwrite(str(root / "masks" / f"{number:03d}.png"), plane)
    return root


def on_disk(root: Path, believed: int | None = None) -> Subject:
    dataset = open_dataset(root)
    objects = inspect_masks(dataset.records, problems=[])
    used = [record for record in dataset.records if objects.get(record.id, 1)]
    return Subject(dataset, split_records(used), load, nano(), fresh, believed=believed)


def test_a_sound_data_set_raises_no_alarm_at_all() -> None:
    """Oracle: exact masks, categories in turn, a hashed split."""
    findings = audit(sound())
    assert [finding.check for finding in findings] == list(CHECKS)
    assert [finding.check for finding in alarms(findings)] == []
    assert worst(findings) == "pass"


def test_progress_is_told_and_nothing_to_check_is_one_clear_line() -> None:
    seen: list[tuple[int, int, str]] = []
    subject = subject_of(samples()[:12])
    audit(subject, lambda done, total, what: seen.append((done, total, what)))
    assert seen[11][:2] == (12, 12)
    assert seen[-1][:2] == (len(CHECKS), len(CHECKS))
    with pytest.raises(DataError, match="split the data first"):
        audit(replace(subject, splits={}))


def test_counts_are_those_of_the_disk(tmp_path: Path) -> None:
    """Oracle: what was written: 24 images, 6 masks empty, one image broken, 100 images believed."""
    root = folder(tmp_path / "set", empty=6)
    (root / "images" / "broken.png").write_bytes(b"no image")
    (root / "masks" / "broken.png").write_bytes(b"no image")
    subject = on_disk(root, believed=100)
    found = image_counts(subject, gather(subject))
    assert found.level == "fail"
    kept = {key: found.numbers[key] for key in ("on disk", "with objects", "empty", "broken", "believed")}
    assert kept == {"on disk": 25, "with objects": 18, "empty": 6, "broken": 1, "believed": 100}
    assert any("broken" in file for file in found.files)
    assert image_counts(replace(subject, believed=18), gather(subject)).level == "warn"  # a quarter is empty
    assert image_counts(replace(subject, believed=None), gather(subject)).remedy


def test_counts_as_believed_pass(tmp_path: Path) -> None:
    subject = on_disk(folder(tmp_path / "set"), believed=24)
    assert image_counts(subject, gather(subject)).level == "pass"


def test_an_image_that_fails_to_load_is_counted_and_the_others_are_checked() -> None:
    subject = subject_of(samples()[:12])
    victim = subject.of("train")[0]

    def failing(record: Record) -> Sample:
        if record.id == victim.id:
            raise DataError(f"{record.image}: cannot be read")
        return subject.load(record)

    findings = {finding.check: finding for finding in audit(replace(subject, load=failing))}
    assert findings["image counts"].numbers["broken"] == 1
    assert str(victim.image) in findings["image counts"].files
    assert set(findings) == set(CHECKS)


def test_inverted_masks_are_named() -> None:
    facts = gather(inverted(sound()))
    found = mask_polarity(facts)
    assert found.level == "fail"
    assert found.numbers["look inverted"] > 0.9 * len(facts)
    assert mask_polarity(gather(sound())).numbers["look inverted"] == 0


def test_a_photograph_among_the_masks_is_odd(tmp_path: Path) -> None:
    """Oracle: one mask file overwritten with a smooth grey ramp, which is neither binary nor a label map."""
    root = folder(tmp_path / "set")
    subject = on_disk(root)
    assert mask_values(subject).level == "pass"
    ramp = np.add.outer(np.arange(128), np.arange(128)).astype(np.uint8)
    cv2.imwrite(str(root / "masks" / "003.png"), ramp)
    found = mask_values(subject)
    assert found.level == "warn"
    assert found.numbers["odd"] == 1
    assert found.files[0].endswith("003.png")
    stated = Problem(root / "images" / "009.png", "odd mask values", "said by the adapter")
    assert mask_values(subject, [stated]).level == "fail"


def test_exact_and_near_duplicates_are_told_apart() -> None:
    """Oracle: four test images made of training images, once pixel by pixel and once mirrored at half the size."""
    exact, near = gather(duplicated(sound(), lambda image: image)), gather(duplicated(sound(), mirrored_copy))
    assert exact_duplicates(exact).level == "fail"
    assert near_duplicates(exact).level == "pass"
    assert exact_duplicates(near).level == "pass"
    found = near_duplicates(near)
    assert found.level == "fail"
    assert found.numbers["pairs across splits"] == 4
    assert len(found.files) == 8


def test_copies_within_a_split_are_counted_without_an_alarm() -> None:
    subject = sound()
    first, second = subject.of("train")[:2]

    def copied(record: Record) -> Sample:
        return replace(subject.load(first if record == second else record), record=record)

    twice = replace(subject, load=copied)
    found = exact_duplicates(gather(twice))
    assert found.level == "pass"
    assert found.numbers["copies within a split"] == 1


def test_a_test_of_the_first_names_is_of_one_category() -> None:
    """Oracle: 48 images of four kinds in equal numbers; the first twelve sorted by kind are all aquatic."""
    subject = sound()
    ordered = sorted(subject.of(), key=lambda record: (KINDS.index(record.category), record.id))
    splits: dict[str, Split] = {record.id: "test" if i < 12 else "train" for i, record in enumerate(ordered)}
    found = class_mix(gather(replace(subject, splits=splits)))
    assert found.level == "fail"
    assert found.numbers["distance"] == pytest.approx(0.75)
    assert found.numbers["kinds missing"] == 3
    assert "Flying" in found.remedy


def test_a_tiny_test_differs_by_chance_and_no_categories_pass() -> None:
    subject = sound()
    splits: dict[str, Split] = {record.id: "test" if i < 2 else "train" for i, record in enumerate(subject.of())}
    assert class_mix(gather(replace(subject, splits=splits))).level == "pass"
    plain = subject_of([replace(s, record=replace(s.record, category="")) for s in samples()[:12]])
    assert "names no categories" in class_mix(gather(plain)).says


@pytest.mark.parametrize(("count", "level"), [(15, "fail"), (16, "warn"), (29, "warn"), (30, "pass")])
def test_few_training_images_are_too_few(count: int, level: str) -> None:
    subject = sound()
    splits: dict[str, Split] = {record.id: "train" for record in subject.of()[:count]}
    found = data_volume(gather(replace(subject, splits=splits)))
    assert found.level == level
    assert found.numbers["training images"] == count


def test_objects_under_a_cell_of_the_model_are_counted() -> None:
    """Oracle: a pixel of 128 is 3 x 3 in nano's frame of 384, half a cell of its answer; 2 x 2 pixels are two cells."""
    subject = sound()
    for side, level in ((1, "warn"), (2, "pass")):
        mask = np.zeros((1, 128, 128), np.bool_)
        mask[:, 60 : 60 + side, 60 : 60 + side] = True
        tiny = replace(subject, load=lambda record, mask=mask: replace(subject.load(record), masks=mask))
        found = object_size(tiny, gather(tiny))
        assert found.level == level
        if level == "warn":  # a pixel has nine cells in a tile of 21 px: the smallest tile that is named is 32
            assert "tiles.side=32" in found.remedy


def test_objects_of_the_colour_of_their_ground_are_faint() -> None:
    """Oracle: masks laid on noise that is the same everywhere have no contrast by construction."""
    rng = np.random.default_rng(0)
    subject = sound()
    noise = rng.integers(0, 255, (128, 128, 3)).astype(np.uint8)
    plain = replace(subject, load=lambda record: replace(subject.load(record), image=noise))
    assert contrast(gather(plain)).level == "warn"
    assert contrast(gather(subject)).level == "pass"


def test_mosaics_with_the_same_tiles_are_a_shortcut_and_scenes_are_not() -> None:
    found = layout_shortcut(gather(mosaics()))
    assert found.level == "fail"
    assert found.numbers["share with twins"] == 1
    assert layout_shortcut(gather(sound())).numbers["share with twins"] == 0


@pytest.mark.real
@pytest.mark.parametrize(("name", "most"), [("camo", 45), ("fabric", 26)])
def test_real_images_raise_no_false_failure(name: str, most: int) -> None:
    """Labels of published data sets are sound; a split by hash is. Few images and copies in CAMO are true alarms."""
    if not (REAL / name).is_dir():
        pytest.skip(f"no real images at {REAL / name}: set SPECIALSAM_REAL_DATA")
    dataset = open_dataset(REAL / name)
    objects = inspect_masks(dataset.records[:most])
    used = [record for record in dataset.records if objects.get(record.id, 0)]
    subject = Subject(dataset, split_records(used), load, nano(), fresh)
    failed = {finding.check for finding in audit(subject) if finding.level == "fail"}
    assert failed <= {"near-duplicates across splits"}
