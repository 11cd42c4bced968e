"""The blind decoder: its embeddings say nothing of the image, and it finds out tasks that need no image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from specialsam.advice.probes.blind import Kind, _partners, blind, blind_decoder, blind_settings, rival_iou, shortcut
from specialsam.core.errors import DataError, UsageError
from specialsam.core.geometry import BoolArray, Geometry, ImageArray
from specialsam.core.place import Place
from specialsam.core.types import Embedding
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone
from specialsam.training.loop import per_image_iou, train
from specialsam.training.settings import TrainSettings
from specialsam.training.state import Item, TrainingData

torch.set_num_threads(1)
TILE = 48


@pytest.fixture(scope="module")
def base() -> Segmenter:
    return load_model("nano")


class Encoded:
    """Training data of given pictures, encoded once, and a count of the embeddings that are held at a time."""

    def __init__(self, base: Segmenter, pictures: dict[str, tuple[ImageArray, BoolArray]], train: int):
        self.pictures = pictures
        self.stored = {name: base.encode(image) for name, (image, _) in pictures.items()}
        self.most = 0
        items = [Item(name, name, name) for name in pictures]
        self.data = TrainingData(items[:train], items[train:], self.embeddings, self.masks)

    def embeddings(self, items: Sequence[Item]) -> list[Embedding]:
        self.most = max(self.most, len(items))
        return [self.stored[item.id] for item in items]

    def masks(self, item: Item) -> BoolArray:
        return self.pictures[item.id][1]


def mosaics(count: int) -> dict[str, tuple[ImageArray, BoolArray]]:
    """2x2 mosaics of textures: the masks are the four quadrants, whatever the textures."""
    rng = np.random.default_rng(0)
    pool = [rng.integers(low, low + 90, (TILE, TILE, 3), dtype=np.uint8) for low in range(0, 160, 20)]
    out = {}
    for number in range(count):
        tiles = [pool[index] for index in rng.integers(len(pool), size=4)]
        image = np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
        masks = np.zeros((4, 2 * TILE, 2 * TILE), np.bool_)
        for index in range(4):
            y, x = TILE * (index // 2), TILE * (index % 2)
            masks[index, y : y + TILE, x : x + TILE] = True
        out[f"mosaic-{number}"] = image, masks
    return out


def blobs(count: int) -> dict[str, tuple[ImageArray, BoolArray]]:
    """Bright bars and rings of every size and direction on dark noise: no click says how far they reach."""
    out = {}
    for number in range(count):
        rng = np.random.default_rng(number)
        grid = np.indices((96, 96)) - rng.integers(30, 66, (2, 1, 1))
        angle, reach = rng.uniform(0, np.pi), rng.uniform(10, 44)
        along = np.cos(angle) * grid[0] + np.sin(angle) * grid[1]
        across = -np.sin(angle) * grid[0] + np.cos(angle) * grid[1]
        mask = (np.abs(along) < reach) & (np.abs(across) < rng.uniform(4, 9))
        image = rng.integers(0, 60, (96, 96, 3), dtype=np.uint8)
        image[mask] = 230
        out[f"bar-{number}"] = image, mask[None]
    return out


@pytest.mark.parametrize("kind", ["mean", "shuffled"])
def test_no_item_keeps_what_its_image_says_but_masks_and_frames_stay(base: Segmenter, kind: Kind) -> None:
    pictures = blobs(9)
    tall, masks = pictures["bar-3"]
    pictures["bar-3"] = tall[:, :48], masks[:, :, :48]
    own = Encoded(base, pictures, 6)
    unseeing = blind(own.data, kind, 0)
    assert unseeing.pixels is None
    for items in (own.data.train, own.data.val):
        for item, found in zip(items, unseeing.embeddings(items), strict=True):
            assert found.geometry == own.stored[item.id].geometry
            assert not torch.equal(found.tensor, own.stored[item.id].tensor)
            assert unseeing.masks(item) is own.data.masks(item)


def test_the_mean_is_that_of_the_training_items_one_at_a_time(base: Segmenter) -> None:
    """Oracle: torch's mean of all training embeddings; validation items get the same one."""
    own = Encoded(base, blobs(7), 5)
    unseeing = blind(own.data, "mean")
    wanted = torch.stack([own.stored[item.id].tensor for item in own.data.train]).mean(0)
    assert own.most == 1
    for item in [*own.data.train, *own.data.val]:
        assert torch.allclose(unseeing.embeddings([item])[0].tensor, wanted, atol=1e-5)
    assert own.most == 1


def test_the_mean_is_not_changed_by_what_was_read_first() -> None:
    """Embeddings in double precision are not the sum's own memory: reading the first item again finds it unchanged."""
    stored = {
        name: Embedding(torch.full((2, 4, 4), value).double(), Geometry(8, 8, 64))
        for name, value in (("a", 1.0), ("b", 3.0))
    }
    items = [Item(name, name) for name in stored]
    data = TrainingData(items, [], lambda some: [stored[i.id] for i in some], lambda _: np.ones((1, 8, 8), np.bool_))
    assert float(blind(data).embeddings(items[:1])[0].tensor.mean()) == 2
    assert float(stored["a"].tensor.mean()) == 1


@given(st.lists(st.integers(1, 4), min_size=2, max_size=12), st.integers(0, 5))
def test_partners_are_a_derangement_of_records(views: list[int], seed: int) -> None:
    """Every item once, never of the same record (a view of the same image would give it away), same seed same pairs."""
    items = [Item(f"r{record}|{view}", f"r{record}") for record, count in enumerate(views) for view in range(count)]
    if 2 * max(views) > len(items):
        with pytest.raises(DataError, match="more than half"):
            _partners(items, seed, "train")
        return
    found = _partners(items, seed, "train")
    assert sorted(item.id for item in found.values()) == sorted(item.id for item in items)
    assert all(found[item.id].record != item.record for item in items)
    assert found == _partners(items, seed, "train")


def test_wrong_calls_are_one_line(base: Segmenter) -> None:
    own = Encoded(base, blobs(3), 2)
    with pytest.raises(UsageError, match="mean or shuffled"):
        blind(own.data, "constant")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="val images"):
        blind(own.data, "shuffled")
    with pytest.raises(DataError, match="at least one training item"):
        blind(replace(own.data, train=[]), "mean")


def test_the_rival_is_the_disc_of_the_training_objects(base: Segmenter) -> None:
    """Oracle: quadrants of TILE px; the disc of the same area at their centre, counted pixel by pixel."""
    own = Encoded(base, mosaics(3), 2)
    found = rival_iou(own.data, TrainSettings(validation=("center_of_mass",)))
    rows, columns = np.indices((TILE, TILE)) - (TILE - 1) // 2
    extended = np.indices((3 * TILE, 3 * TILE)) - TILE - (TILE - 1) // 2
    radius = TILE / np.sqrt(np.pi)
    inside = (rows**2 + columns**2 <= radius**2).sum()
    whole = (extended[0] ** 2 + extended[1] ** 2 <= radius**2).sum()
    loose = inside / (TILE**2 + whole - inside)
    assert len(found) == 1
    assert loose <= found[0] <= inside / TILE**2


def test_levels_follow_the_paired_intervals() -> None:
    """By hand: constant leads have intervals of no width, so each level is decided by the lead alone."""
    real = np.linspace(0.5, 0.9, 12)
    names = [f"i{number}" for number in range(12)]
    clear = shortcut(real, real - 0.2, real - 0.3, names)
    assert (clear.check, clear.level, clear.remedy, clear.files) == ("blind decoder", "pass", "", ())
    assert clear.numbers["lead_blind"] == pytest.approx(0.2)
    assert clear.numbers["lead_rival_low"] == pytest.approx(0.3)
    assert shortcut(real, real - 0.01, real - 0.3).level == "fail"
    assert shortcut(real, real + 0.1, real - 0.3).level == "fail"
    assert shortcut(real, real - 0.3, real - 0.01).level == "fail"
    unsure = shortcut(real, real + np.tile([0.4, -0.4], 6), real - 0.3, names)
    assert unsure.level == "warn"
    assert unsure.files[0] in names[::2]
    assert shortcut([0.9], [0.1], [0.1]).level == "warn"


def test_blind_settings_leave_the_encoder_alone() -> None:
    assert blind_settings(TrainSettings(mode="all")).mode == "decoder"
    assert blind_settings(TrainSettings(mode="lora")).mode == "lora"


def judged(base: Segmenter, own: Encoded, settings: TrainSettings, folder: Path, kind: Kind) -> str:
    """Tune the specialist and a blind decoder, and compare them on the validation images."""
    specialist = clone(base)
    accelerator = Place(Accelerator(cpu=True))
    train(specialist, own.data, settings, folder, accelerator)
    real, rival = per_image_iou(specialist, own.data, settings), rival_iou(own.data, settings)
    decoder, result = blind_decoder(base, own.data, settings, folder, accelerator, kind)
    assert result.encoder_unchanged
    unseeing = per_image_iou(decoder, blind(own.data, kind, settings.seed), blind_settings(settings))
    return shortcut(real, unseeing, rival).level


def test_fixed_tiles_are_found_to_need_no_image(base: Segmenter, tmp_path: Path) -> None:
    """The mosaic of four fixed tiles with a click in the middle of each: solvable without pixels."""
    own = Encoded(base, mosaics(11), 8)
    fixed = {"prompts": {"center_of_mass": 1.0}, "validation": ("center_of_mass",)}
    settings = TrainSettings(lr=2e-3, epochs=12, batch=2, objects=4, patience=0, **fixed)
    assert judged(base, own, settings, tmp_path, "mean") == "fail"


def test_bars_of_any_direction_need_the_image_and_a_second_call_goes_on(base: Segmenter, tmp_path: Path) -> None:
    own = Encoded(base, blobs(14), 8)
    settings = TrainSettings(lr=5e-4, epochs=2, patience=0, prompts={"interior": 1.0}, validation=("interior",))
    assert judged(base, own, settings, tmp_path, "shuffled") == "pass"
    steps: list[int] = []
    again, result = blind_decoder(
        base,
        own.data,
        settings,
        tmp_path,
        Place(Accelerator(cpu=True)),
        "shuffled",
        lambda done, *_: steps.append(done),
    )
    assert steps == []
    assert result.history[-1].epoch == 2
    assert again.encoder is base.encoder
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["blind-shuffled"]
