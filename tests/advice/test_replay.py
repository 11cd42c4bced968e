"""What is replayed: never what is measured, what the base finds beside the objects, and less is forgotten for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from specialsam.advice.guard.replay import LARGEST, SHARED, besides, to_replay, together
from specialsam.advice.guard.retention import RetentionSet, retention_iou, retention_set
from specialsam.core.geometry import BoolArray
from specialsam.core.place import here
from specialsam.core.types import Embedding
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone
from specialsam.synth.scenes import scene
from specialsam.training.loop import train
from specialsam.training.settings import TrainSettings
from specialsam.training.state import Item, TrainingData

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base() -> Segmenter:
    return load_model("nano")


@pytest.fixture(scope="module")
def replayed(base: Segmenter) -> RetentionSet:
    return retention_set(base, count=4, part="replayed")


def domain(base: Segmenter, count: int, objects: slice = slice(1)) -> TrainingData:
    """Scenes of which some objects alone are the domain's."""
    scenes = {f"d{number}": scene(77_000 + number, 256) for number in range(count)}
    stored = {name: base.encode(made.image) for name, made in scenes.items()}
    return TrainingData(
        [Item(name, name) for name in scenes],
        [],
        lambda items: [stored[item.id] for item in items],
        lambda item: scenes[item.id].masks[objects],
        lambda item: (base.pixels(scenes[item.id].image), stored[item.id].geometry),
    )


def embed_by(data: TrainingData) -> Callable[[Item], Embedding]:
    return lambda item: data.embeddings([item])[0]


def test_no_scene_is_replayed_and_measured(base: Segmenter, replayed: RetentionSet) -> None:
    measured = retention_set(base, count=4, part="measured")
    assert {item.name for item in measured.items} == {item.name for item in retention_set(base, count=4).items}
    assert not {item.name for item in replayed.items} & {item.name for item in measured.items}


def test_a_folder_is_cut_into_what_is_replayed_and_what_is_measured(base: Segmenter, tmp_path: Path) -> None:
    for number in range(8):
        made = scene(88_000 + number, 64)
        for kind, pixels in (("images", made.image), ("masks", made.masks[0].astype(np.uint8) * 255)):
            (tmp_path / kind).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / kind / f"{number}.png"), pixels)
    names = {
        part: {item.name for item in retention_set(base, tmp_path, count=8, part=part).items}  # type: ignore[arg-type]
        for part in ("all", "measured", "replayed")
    }
    assert names["measured"]
    assert names["replayed"]
    assert not names["measured"] & names["replayed"]
    assert names["measured"] | names["replayed"] == names["all"]


def test_general_images_are_read_as_training_reads(base: Segmenter, replayed: RetentionSet) -> None:
    data = to_replay(replayed, base)
    assert data.pixels is not None
    for item, kept in zip(data.train, replayed.items, strict=True):
        assert (data.masks(item) == kept.masks).all()
        found = data.embeddings([item])[0]
        pixels, frame = data.pixels(item)
        assert frame == found.geometry
        assert torch.allclose(base.encode_pixels(pixels[None])[0], found.tensor, atol=1e-4)


def test_what_is_found_beside_the_objects_is_no_object_of_the_domain(base: Segmenter) -> None:
    data = domain(base, 6)
    found = besides(base, data, data.train, embed_by(data))
    assert found.train
    for item in found.train:
        origin = next(one for one in data.train if item.id == f"beside {one.id}")
        truth = data.masks(origin).any(0)
        assert found.embeddings([item])[0] is data.embeddings([origin])[0]
        for mask in found.masks(item):
            assert 0 < mask.sum() <= LARGEST * mask.size
            assert (mask & truth).sum() <= SHARED * mask.sum()


def test_where_objects_cover_the_image_nothing_is_beside_them(base: Segmenter) -> None:
    data = domain(base, 1)
    covered = replace(data, masks=lambda item: np.ones((1, *data.masks(item).shape[1:]), np.bool_))
    assert besides(base, covered, data.train, embed_by(data)).train == []


def test_two_kinds_are_read_each_by_its_own(base: Segmenter, replayed: RetentionSet) -> None:
    data = domain(base, 3)
    first, second = to_replay(replayed, base), besides(base, data, data.train, embed_by(data))
    both = together(first, second)
    assert [item.id for item in both.train] == [item.id for item in [*first.train, *second.train]]
    for part in (first, second):
        for item in part.train:
            assert (both.masks(item) == part.masks(item)).all()
            assert torch.equal(both.embeddings([item])[0].tensor, part.embeddings([item])[0].tensor)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"replay": 1.0, "replay_truth": "masks"}, {"replay": 1.0, "anchor": 10.0}])
def test_less_is_forgotten_for_it(base: Segmenter, tmp_path: Path, changes: dict[str, Any]) -> None:
    """A decoder that learns to answer wide frames around objects forgets how to segment scenes, and less with replay.

    Measured on scenes that are not replayed.
    """
    measured = retention_set(base, count=6, part="measured")
    own = domain(base, 4)

    def wide(item: Item) -> BoolArray:
        return np.stack([cv2.dilate(mask.astype(np.uint8), np.ones((61, 61))) > 0 for mask in own.masks(item)])

    data = replace(own, masks=wide, general=to_replay(retention_set(base, count=6, part="replayed"), base))
    before = retention_iou(base, measured).mean()
    lost = []
    for name, more in (("plain", {}), ("replay", changes)):
        tuned = clone(base, name)
        settings = TrainSettings(
            **{"epochs": 12, "batch": 1, "lr": 1e-3, "keep": "last", "replay": 0.0, "corrections": 0} | more
        )
        (tmp_path / name).mkdir()
        train(tuned, data, settings, tmp_path / name, here("cpu"))
        lost.append(before - retention_iou(tuned, measured).mean())
    assert lost[0] > 0.05
    assert lost[1] < 0.7 * lost[0]
