"""The retention set: general images, capped objects, stored embeddings; what was forgotten is measured on it."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from specialsam.advice.guard import retention
from specialsam.advice.guard.retention import (
    LONGEST,
    RETENTION_SEED,
    RetentionSet,
    retention_iou,
    retention_set,
)
from specialsam.core.errors import DataError, UsageError
from specialsam.embeddings import EmbeddingStore
from specialsam.metrics.overlaps import overlap
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone
from specialsam.prompts import draw, generator
from specialsam.synth.scenes import SMALLEST, scene
from specialsam.training.pretrain import _scenes
from specialsam.training.pretrain_objective import VALIDATION_SEED
from specialsam.training.pretrain_settings import PretrainSettings

torch.set_num_threads(1)
DATA = Path(os.environ.get("SPECIALSAM_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "bsds500"


@pytest.fixture(scope="module")
def base() -> Segmenter:
    return load_model("nano")


@pytest.fixture(scope="module")
def general(base: Segmenter) -> RetentionSet:
    return retention_set(base, count=2)


def worse(base: Segmenter) -> Segmenter:
    """A copy whose hypernetworks answer with noise."""
    tuned = clone(base, "worse")
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in tuned.sam.state_dict().items():
            if "output_hypernetworks" in name:
                value.copy_(torch.randn(value.shape, generator=noise))
    return tuned


def label_maps(folder: Path, count: int = 3, cells: int = 6, side: int = 96) -> Path:
    """A plain folder of label maps with cells x cells coloured tiles, one speck of 2 pixels in each image."""
    rng = np.random.default_rng(0)
    for number in range(count):
        labels = np.kron(np.arange(1, cells * cells + 1).reshape(cells, cells), np.ones((side // cells,) * 2, int))
        labels[0, :2] = 99
        colours = rng.integers(0, 256, (100, 3), dtype=np.uint8)
        for part, pixels in (("images", colours[labels]), ("masks", labels.astype(np.uint8))):
            path = folder / part / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels)
    return folder


def test_generated_scenes_are_none_that_any_training_or_validation_draws() -> None:
    """Oracle: the first and last scene of a long pre-training run with a high seed, and of its validation."""
    scenes = _scenes(PretrainSettings(steps=10_000_000, batch=64, seed=1000))
    assert scenes.first_seed + scenes.count < RETENTION_SEED
    assert VALIDATION_SEED + 1_000_000 < RETENTION_SEED


def test_every_image_has_capped_objects_of_some_size_and_both_prompts(base: Segmenter, general: RetentionSet) -> None:
    assert len(general) == 2
    for item in general.items:
        assert 1 <= len(item.masks) <= 4
        assert (item.masks.mean((1, 2)) >= SMALLEST).all()
        kinds = [{prompts.strategy for _, prompts in groups} for groups in item.prompts]
        assert kinds == [{"interior"}, {"box"}]
    again = retention_set(base, count=1)
    assert np.array_equal(again.items[0].masks, general.items[0].masks)
    assert retention_set(base, count=1, seed=1).items[0].name != general.items[0].name


def test_iou_is_the_mean_of_click_and_box_over_the_objects(base: Segmenter, general: RetentionSet) -> None:
    """Oracle: encode the image anew, place the two prompts by their strategies, decode and count pixels by hand."""
    item = general.items[0]
    embedding = base.encode(item.image())
    means = []
    for name in ("interior", "box"):
        answer = base.decode(embedding, draw(name, item.masks, generator(0))[0][1]).masks()[:, 0]
        both, either = (answer & item.masks).sum((1, 2)), (answer | item.masks).sum((1, 2))
        means.append((both / either).mean())
    assert retention_iou(base, general)[0] == pytest.approx(np.mean(means), abs=1e-6)


def test_a_model_whose_encoder_was_tuned_sees_the_images_anew(base: Segmenter, general: RetentionSet) -> None:
    """Oracle: with the same weights in a copied encoder nothing changes; with a broken encoder the IoU falls."""
    copied = clone(base, share_encoder=False)
    assert np.allclose(retention_iou(copied, general), retention_iou(base, general))
    with torch.no_grad():
        for value in copied.encoder.parameters():
            value.mul_(0.5)
    copied.forget_ids()
    assert retention_iou(copied, general).mean() < retention_iou(base, general).mean()


def test_label_maps_of_a_folder_are_capped_and_specks_do_not_count(base: Segmenter, tmp_path: Path) -> None:
    folder = label_maps(tmp_path)
    found = retention_set(base, folder, count=10, objects=5)
    assert len(found) == 3
    for item in found.items:
        assert len(item.masks) == 5
        assert item.masks.sum((1, 2)).min() > 2
    assert retention_set(base, folder, count=1).items[0].name == found.items[0].name


def test_unusable_images_are_named_and_none_at_all_is_an_error(base: Segmenter, tmp_path: Path) -> None:
    folder = label_maps(tmp_path / "maps")
    (folder / "masks" / "1.png").unlink()
    found = retention_set(base, folder, count=10)
    assert len(found) == 2
    assert any("1.png" in line for line in found.left_out)
    cv2.imwrite(str(folder / "masks" / "2.png"), np.zeros((96, 96), np.uint8))
    found = retention_set(base, folder, count=10)
    assert [item.name for item in found.items] == ["0"]
    assert any(line.startswith("2: expected an object") for line in found.left_out)
    cv2.imwrite(str(folder / "masks" / "0.png"), np.zeros((96, 96), np.uint8))
    with pytest.raises(DataError, match="found none"):
        retention_set(base, folder, count=10)
    with pytest.raises(UsageError, match="at least one"):
        retention_set(base, count=0)


def test_embeddings_from_a_store_serve_as_those_in_memory(base: Segmenter, tmp_path: Path) -> None:
    folder, store = label_maps(tmp_path / "maps"), EmbeddingStore(tmp_path / "store", base.encoder_id, "full")
    memory = retention_iou(base, retention_set(base, folder))
    for _ in range(2):
        assert np.allclose(retention_iou(base, retention_set(base, folder, store=store)), memory)
        assert len(store) == 3
    with pytest.raises(UsageError, match="store of encoder"):
        retention_set(base, count=1, store=EmbeddingStore(tmp_path / "other", "another"))


def test_what_a_machine_has_is_neither_drawn_nor_encoded_again(
    base: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[int]
) -> None:
    """Oracle: the set without a lasting store, to the last bit, in memory and through a job's own store."""
    monkeypatch.setenv("SPECIALSAM_CACHE", str(tmp_path / "cache"))
    drawn: list[int] = []
    monkeypatch.setattr(retention, "scene", lambda *how: drawn.append(how[0]) or scene(*how))

    def lasting() -> EmbeddingStore:
        return EmbeddingStore(tmp_path / "machine", base.encoder_id, "full")

    alone = retention_set(base, count=3)
    expected = [item.embedding().tensor for item in alone.items]
    assert (len(drawn), sum(encoded)) == (3, 3)
    for number, more in enumerate(({}, {"store": EmbeddingStore(tmp_path / "job", base.encoder_id, "half")})):
        found = retention_set(base, count=3, machine=lasting(), **more)  # type: ignore[arg-type]
        assert (len(drawn), sum(encoded)) == (6, 6), f"call {number}"  # once, for the store that has none
        for item, other, tensor in zip(found.items, alone.items, expected, strict=True):
            assert np.array_equal(item.masks, other.masks)
            own = item.embedding().tensor
            assert torch.equal(own.float(), tensor.half().float() if more else tensor)
    assert np.array_equal(found.items[0].image(), alone.items[0].image())
    with pytest.raises(UsageError, match="store of encoder"):
        retention_set(base, count=1, machine=EmbeddingStore(tmp_path / "other", "another"))


def test_what_is_damaged_on_the_machine_is_encoded_again(base: Segmenter, tmp_path: Path) -> None:
    machine = EmbeddingStore(tmp_path, base.encoder_id, "full")
    expected = [item.embedding().tensor for item in retention_set(base, count=2, machine=machine).items]
    [shard] = machine.folder.glob("*.safetensors")
    data = bytearray(shard.read_bytes())
    data[-4000:] = bytes(4000)
    shard.write_bytes(data)
    again = EmbeddingStore(tmp_path, base.encoder_id, "full")
    found = [item.embedding().tensor for item in retention_set(base, count=2, machine=again).items]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_large_photographs_are_scaled_down(base: Segmenter, tmp_path: Path) -> None:
    side = 1536
    folder = label_maps(tmp_path, count=1, cells=2, side=side)
    item = retention_set(base, folder, count=1).items[0]
    assert item.masks.shape[1:] == item.image().shape[:2] == (LONGEST, LONGEST)
    whole = np.zeros((LONGEST, LONGEST), bool)
    whole[: LONGEST // 2, : LONGEST // 2] = True
    assert max(overlap(mask, whole)["iou"] for mask in item.masks) > 0.99


@pytest.mark.real
def test_photographs_with_many_regions_serve(base: Segmenter) -> None:
    """BSDS500 (Arbelaez et al. 2011): label maps of whole photographs, one a person; nano is better than noise."""
    if not DATA.is_dir():
        pytest.skip(f"needs BSDS500 in {DATA}")
    found = retention_set(base, DATA, count=4)
    assert len(found) == 4
    assert retention_iou(worse(base), found).mean() < retention_iou(base, found).mean()
    assert retention_iou(base, found).mean() > 0.3
