"""Probes: faults that are planted are found, and a decoder tuned as it should be raises none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from accelerate import Accelerator

from specialsam.advice.probes.looks import (
    BACKGROUND,
    BASE,
    BLIND,
    DISC,
    MOVED,
    PLAIN,
    SHIFTS,
    SHUFFLED,
    TUNED,
    ProbeRow,
    encoder_unchanged,
    probe_findings,
    probe_rows,
    run_probes,
    validation_leak,
)
from specialsam.advice.subject import Subject
from specialsam.core.errors import DataError
from specialsam.core.findings import Finding, alarms
from specialsam.core.place import Place
from specialsam.core.types import Dataset, Embedding, Prediction, Prompts, Record, Sample
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone
from specialsam.synth.scenes import scene
from specialsam.training.loop import train
from specialsam.training.settings import TrainSettings
from specialsam.training.state import Item, TrainingData

torch.set_num_threads(1)
SIDE = 96


class Centre(Segmenter):
    """A decoder that never reads its prompt: it always answers for a click on the image's centre."""

    def decode(self, embedding: Embedding, prompts: Prompts, multimask: bool = False) -> Prediction:
        frame = embedding.geometry
        points = np.tile(np.array([frame.width / 2, frame.height / 2], np.float32), (len(prompts), 1, 1))
        return super().decode(embedding, Prompts("centre", points, np.ones((len(prompts), 1), np.int64)), multimask)


def scenes(count: int) -> list[Sample]:
    """Generated scenes, each with its two largest objects: shapes, places and sizes vary."""
    samples = []
    for number in range(count):
        made = scene(500 + number, SIDE, 0.0)
        chosen = [i for i, kind in enumerate(made.kinds) if kind in ("object", "animal")] or [0]
        largest = sorted(chosen, key=lambda i: -made.masks[i].sum())[:2]
        samples.append(Sample(Record(f"s{number}", Path(f"s{number}.png")), made.image, made.masks[largest]))
    return samples


def mosaics(count: int) -> list[Sample]:
    """2x2 mosaics of generated pictures, one object a tile: four fixed places, which no pixel is needed for."""
    half = SIDE // 2
    tiles = [cv2.resize(scene(900 + number, SIDE, 0.0).image, (half, half)) for number in range(6)]
    rng, samples = np.random.default_rng(0), []
    for number in range(count):
        image, masks = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((4, SIDE, SIDE), np.bool_)
        for place, tile in enumerate(rng.permutation(len(tiles))[:4]):
            y, x = half * (place // 2), half * (place % 2)
            image[y : y + half, x : x + half] = tiles[tile]
            masks[place, y : y + half, x : x + half] = True
        samples.append(Sample(Record(f"m{number}", Path(f"m{number}.png")), image, masks))
    return samples


def subject_of(samples: Sequence[Sample], base: Segmenter) -> tuple[list[Record], Subject]:
    by_id = {sample.id: sample for sample in samples}
    stored = {sample.id: base.encode(sample.image) for sample in samples}
    records = [sample.record for sample in samples]
    dataset = Dataset("made", Path(), "folder", tuple(records))
    return records, Subject(dataset, {}, lambda r: by_id[r.id], base, lambda sample, _: stored[sample.id])


def tuned_on(base: Segmenter, samples: Sequence[Sample], folder: Path, blind: bool = False) -> Segmenter:
    """A short run of the training loop; `blind` trains on the mean embedding of all images."""
    by_id = {sample.id: sample for sample in samples}
    stored = {sample.id: base.encode(sample.image) for sample in samples}
    if blind:
        mean = torch.stack([embedding.tensor for embedding in stored.values()]).mean(0)
        stored = {name: Embedding(mean, embedding.geometry) for name, embedding in stored.items()}
    items = [Item(name, name) for name in by_id]
    data = TrainingData(items, [], lambda some: [stored[i.id] for i in some], lambda item: by_id[item.id].masks)
    tuned = clone(base, "tuned")
    prompts = {"center_of_mass": 1.0} if blind else {"random": 0.5, "box_jitter": 0.5}
    settings = TrainSettings(epochs=8 if blind else 3, lr=2e-3 if blind else 5e-4, prompts=prompts)
    train(tuned, data, settings, folder, Place(Accelerator(cpu=True)))
    return tuned


@pytest.fixture(scope="module")
def base() -> Segmenter:
    return load_model("nano")


@pytest.fixture(scope="module")
def varied() -> list[Sample]:
    return scenes(14)


def by_check(findings: Sequence[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_a_decoder_tuned_on_varied_scenes_raises_no_alarm(
    base: Segmenter, varied: list[Sample], tmp_path: Path
) -> None:
    tuned = tuned_on(base, varied[:8], tmp_path)
    assert tuned.decoder_id != base.decoder_id
    records, subject = subject_of(varied[8:], base)
    seen: list[tuple[int, int, str]] = []
    findings = run_probes(base, tuned, records, subject, 0, lambda *a: seen.append(a))
    assert alarms(findings) == []
    checks = ["blind embeddings", "prompt ignored", "prompt sensitivity", "near-duplicates of training"]
    assert [finding.check for finding in findings] == checks
    assert [done for done, _, _ in seen] == list(range(1, 7))
    assert {total for _, total, _ in seen} == {6}


def test_a_decoder_that_answers_from_the_layout_is_found(base: Segmenter, tmp_path: Path) -> None:
    """The fault of fixed tiles: trained on constant embeddings, it scores as well on real ones."""
    samples = mosaics(13)
    tuned = tuned_on(base, samples[:8], tmp_path, blind=True)
    records, subject = subject_of(samples[8:], base)
    found = by_check(run_probes(base, tuned, records, subject))
    blind = found["blind embeddings"]
    assert blind.level == "fail"
    assert float(blind.numbers["blind tuned"]) > 0.9 > float(blind.numbers["disc"])
    assert found["prompt ignored"].level == "pass"  # its answers do follow the click


def test_a_decoder_that_ignores_its_prompt_is_found(base: Segmenter, varied: list[Sample]) -> None:
    records, subject = subject_of(varied[:6], base)
    found = by_check(run_probes(base, Centre("centre", base.sam, base.side), records, subject))
    assert found["prompt ignored"].level == "fail"
    assert found["prompt ignored"].numbers["same tuned"] == 1
    assert set(found["prompt ignored"].files) == {record.id for record in records}
    assert found["prompt sensitivity"].level == "warn"


def test_the_base_against_itself_raises_nothing_and_the_table_is_whole(base: Segmenter, varied: list[Sample]) -> None:
    records, subject = subject_of(varied[:5], base)
    rows = probe_rows(base, base, records, subject, seed=3)
    assert rows == probe_rows(base, base, records, subject, seed=3)
    assert alarms(probe_findings(rows)) == []
    objects = {(sample.id, index) for sample in varied[:5] for index in range(len(sample.masks))}
    for probe in (PLAIN, BLIND, SHUFFLED, *SHIFTS):
        for model in (BASE, TUNED):
            assert {(r.record, r.object) for r in rows if r.probe == probe and r.model == model} == objects
    assert {(r.record, r.object) for r in rows if r.model == DISC} == objects
    same = {(r.record, r.object, r.probe): r.iou for r in rows if r.model == BASE}
    assert same == {(r.record, r.object, r.probe): r.iou for r in rows if r.model == TUNED}
    assert all(0 <= row.iou <= 1 for row in rows)


def test_shuffled_means_another_image(base: Segmenter, varied: list[Sample]) -> None:
    """Oracle: two images swap their embeddings, so the shuffled answer is the plain one of the other embedding."""
    pair = varied[:2]
    records, subject = subject_of(pair, base)
    rows = {(r.record, r.object, r.probe): r.iou for r in probe_rows(base, base, records, subject) if r.model == BASE}
    swapped = {pair[0].id: pair[1], pair[1].id: pair[0]}
    other = Subject(
        subject.dataset, {}, subject.load, base, lambda sample, model: subject.embed(swapped[sample.id], model)
    )
    crossed = {(r.record, r.object, r.probe): r.iou for r in probe_rows(base, base, records, other) if r.model == BASE}
    for sample in pair:
        for index in range(len(sample.masks)):
            assert rows[sample.id, index, SHUFFLED] == crossed[sample.id, index, PLAIN]
            assert rows[sample.id, index, BLIND] == pytest.approx(crossed[sample.id, index, BLIND], abs=0.02)


def test_one_image_is_not_enough(base: Segmenter, varied: list[Sample]) -> None:
    records, subject = subject_of(varied[:1], base)
    with pytest.raises(DataError, match="at least two images"):
        probe_rows(base, base, records, subject)


def rows_of(values: dict[tuple[str, str], float], images: int = 20, spread: float = 0.03) -> list[ProbeRow]:
    """Rows with the given means; the same noise an image for all of them, so that differences are sharp."""
    noise = np.random.default_rng(0).normal(0, spread, images)
    usual = {(PLAIN, DISC): 0.4, (PLAIN, BASE): 0.5, (PLAIN, TUNED): 0.8}
    usual |= {(probe, model): 0.3 for probe in (BLIND, SHUFFLED) for model in (BASE, TUNED)}
    usual |= {(probe, model): 0.05 for probe in (MOVED, BACKGROUND) for model in (BASE, TUNED)}
    usual |= {(probe, model): 0.3 for probe in SHIFTS for model in (BASE, TUNED)}
    return [
        ProbeRow(f"r{number:02d}", 0, probe, model, float(np.clip(mean + noise[number], 0, 1)))
        for (probe, model), mean in (usual | values).items()
        for number in range(images)
    ]


@pytest.mark.parametrize(
    ("values", "check", "level"),
    [
        ({}, "blind embeddings", "pass"),
        ({(BLIND, TUNED): 0.75}, "blind embeddings", "fail"),
        ({(SHUFFLED, TUNED): 0.75}, "blind embeddings", "fail"),
        ({(SHUFFLED, TUNED): 0.75, (SHUFFLED, BASE): 0.76}, "blind embeddings", "pass"),  # so does the base
        ({(BLIND, TUNED): 0.75, (PLAIN, DISC): 0.76}, "blind embeddings", "warn"),  # so does a disc
        ({(BLIND, TUNED): 0.78, (SHUFFLED, TUNED): 0.78, (PLAIN, DISC): 0.9}, "blind embeddings", "warn"),
        ({(BLIND, TUNED): 0.85, (BLIND, BASE): 0.86}, "blind embeddings", "warn"),  # as the base: looking harms
        ({(BLIND, TUNED): 0.35, (BLIND, BASE): 0.04}, "blind embeddings", "warn"),  # gains more without a look
        ({(BLIND, TUNED): 0.35, (BLIND, BASE): 0.07}, "blind embeddings", "warn"),  # more than nine tenths of the gain
        ({(BLIND, TUNED): 0.35, (BLIND, BASE): 0.09}, "blind embeddings", "pass"),
        ({(MOVED, TUNED): 0.97}, "prompt ignored", "fail"),
        ({(MOVED, TUNED): 0.97, (MOVED, BASE): 0.97}, "prompt ignored", "pass"),
        ({(MOVED, TUNED): 0.8}, "prompt ignored", "pass"),
        ({(MOVED, TUNED): 0.8}, "prompt sensitivity", "warn"),
        ({(BACKGROUND, TUNED): 0.8}, "prompt sensitivity", "warn"),
        ({(BACKGROUND, TUNED): 0.2, (MOVED, TUNED): 0.2}, "prompt sensitivity", "pass"),
    ],
)
def test_levels(values: dict[tuple[str, str], float], check: str, level: str) -> None:
    finding = by_check(probe_findings(rows_of(values)))[check]
    assert finding.level == level, finding.says


def test_a_gain_without_a_look_is_claimed_only_where_images_show_it() -> None:
    """Twenty images whose gains spread widely: the same means that warn above say that they cannot tell."""
    rng = np.random.default_rng(1)
    rows = [
        replace(row, iou=float(np.clip(row.iou + rng.normal(0, 0.3), 0, 1))) if row.model == TUNED else row
        for row in rows_of({(BLIND, TUNED): 0.35, (BLIND, BASE): 0.04})
    ]
    finding = by_check(probe_findings(rows))["blind embeddings"]
    assert finding.level == "pass", finding.says
    assert "images cannot tell" in finding.says


def test_images_with_a_duplicate_in_training_that_gain_more_are_found() -> None:
    rows = rows_of({})
    known = [f"r{number:02d}" for number in range(8)]

    def leaked(row: ProbeRow) -> ProbeRow:
        plus = 0.15 if row.record in known and (row.probe, row.model) == (PLAIN, TUNED) else 0.0
        return ProbeRow(row.record, row.object, row.probe, row.model, min(1.0, row.iou + plus))

    check = "near-duplicates of training"
    finding = by_check(probe_findings([leaked(row) for row in rows], known))[check]
    assert finding.level == "warn"
    assert finding.files == tuple(known)
    assert finding.numbers["with duplicate"] == 8
    assert by_check(probe_findings(rows, known))[check].level == "pass"
    assert by_check(probe_findings([leaked(row) for row in rows], known[:3]))[check].level == "pass"

    def easy(row: ProbeRow) -> ProbeRow:  # easier for both models: no leak
        plus = 0.1 if row.record in known and row.probe == PLAIN else 0.0
        return ProbeRow(row.record, row.object, row.probe, row.model, min(1.0, row.iou + plus))

    assert by_check(probe_findings([easy(row) for row in rows], known))[check].level == "pass"


def test_few_images_are_no_pass() -> None:
    levels = {finding.check: finding.level for finding in probe_findings(rows_of({}, images=4))}
    assert [levels[check] for check in ("blind embeddings", "prompt ignored", "prompt sensitivity")] == ["warn"] * 3


def test_validation_leak() -> None:
    assert validation_leak(["a", "b"], ["c"], ["d"]).level == "pass"
    stopped = validation_leak(["a"], ["b", "c"], ["c", "d"])
    assert (stopped.level, stopped.files) == ("fail", ("c",))
    assert validation_leak(["a", "d"], ["b"], ["d"]).numbers["train in test"] == 1
    assert validation_leak(["a", "d"], ["b"], ["d"]).level == "fail"
    assert validation_leak(["a", "b"], ["b"], ["d"]).level == "warn"


def test_encoder_unchanged() -> None:
    assert encoder_unchanged("abc", "abc").level == "pass"
    changed = encoder_unchanged("abc", "abd")
    assert changed.level == "fail"
    assert "abd" in changed.says
    with pytest.raises(DataError, match="before and after"):
        encoder_unchanged("abc", "")
