"""What a job plans: a fixed camera is named, and how files are read is said and kept. Oracle: folders made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from specialsam.core.errors import DataError, UsageError
from specialsam.core.settings import parse_settings
from specialsam.data.duplicates import DISTANCE, TOGETHER, close_pairs, perceptual_hash, thumbnail
from specialsam.data.read_settings import READ, ReadSettings, reading_of
from specialsam.pipeline.plan import plan
from specialsam.pipeline.settings import SpecializeSettings


def camera(root: Path, count: int = 20) -> Path:
    """One scene in which a small disc moves."""
    ground = np.random.default_rng(5).integers(30, 150, (6, 8, 3)).astype(np.uint8)
    still = np.array(Image.fromarray(ground).resize((160, 120), Image.Resampling.BICUBIC))
    rows, columns = np.mgrid[:120, :160]
    for number in range(count):
        mask = (columns - 20 - 6 * number) ** 2 + (rows - 60) ** 2 < 36
        image = np.where(mask[..., None], 230, still).astype(np.uint8)
        for kind, pixels in (("images", image), ("masks", mask.astype(np.uint8) * 255)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / f"{number}.png")
    return root


def test_a_fixed_camera_is_named_with_its_remedy(tmp_path: Path) -> None:
    source = str(camera(tmp_path))
    with pytest.raises(DataError, match=r"20 of 20 images are near-duplicates .*fixed camera.*-s duplicates=false"):
        plan(source, (0.7, 0.15, 0.15), 0)


def test_frames_of_a_fixed_camera_are_cut_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(str(camera(tmp_path)), (0.7, 0.15, 0.15), 0, duplicates=False)
    row = [found.splits.get(str(number), "-") for number in range(20)]
    assert "".join(split[0] for split in row) == "ttttttttttttt-vv-ttt", "70, 15 and 15 % of 18, summed up and rounded"
    assert found.split_sizes() == {"train": 13, "val": 2, "test": 3}
    assert "fixed camera" in "".join(capsys.readouterr())


def test_other_images_without_duplicates_are_split_as_ever(tmp_path: Path) -> None:
    source = camera(tmp_path)
    for number, path in enumerate(sorted((source / "images").iterdir())):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (120, 160, 3), np.uint8)).save(path)
    looked, blind = (plan(str(source), (0.7, 0.15, 0.15), 0, duplicates=look).splits for look in (True, False))
    assert looked == blind
    assert len(blind) == 20


def test_pictures_at_the_edge_of_likeness_are_kept_together(tmp_path: Path) -> None:
    """Eight pictures, and of each one that differs in eleven or twelve bits: no look-alike, but nearly one."""
    rng, made = np.random.default_rng(0), 0
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    while made < 8:
        one = np.array(Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).resize((64, 64)), np.float32)
        noise = np.array(Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).resize((64, 64)), np.float32)
        for share in np.linspace(0.05, 0.5, 40):
            pair = [np.uint8(one), np.uint8((1 - share) * one + share * noise)]
            for name, grey in zip("ab", pair, strict=True):
                Image.fromarray(np.repeat(grey[..., None], 3, 2)).save(tmp_path / "images" / f"{made}{name}.png")
                Image.fromarray(mask).save(tmp_path / "masks" / f"{made}{name}.png")
            hashes = [perceptual_hash(thumbnail(tmp_path / "images" / f"{made}{name}.png")) for name in "ab"]
            (*_, bits), *_ = close_pairs(np.stack(hashes), 63)
            if DISTANCE < bits <= TOGETHER:
                made += 1
                break
    splits = plan(str(tmp_path), (0.5, 0.25, 0.25), 0).splits
    assert len(set(splits.values())) > 1
    assert all(splits[f"{number}a"] == splits[f"{number}b"] for number in range(8))


def test_images_without_objects_say_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "images/a.png")
    with pytest.raises(DataError, match=r"without a single object; read as photos; none of them has a label"):
        plan(str(tmp_path), (0.7, 0.15, 0.15), 0)
    annotations = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []}
    (tmp_path / "x.json").write_text(json.dumps(annotations))
    with pytest.raises(DataError, match="read as coco") as caught:
        plan(str(tmp_path), (0.7, 0.15, 0.15), 0)
    assert "127" not in str(caught.value)


def test_parts_and_levels_are_settings_of_a_run(tmp_path: Path) -> None:
    settings = SpecializeSettings.parse({"data": {"parts": True, "levels": [0, 4095]}})
    assert settings.data == ReadSettings(parts=True, levels=(0, 4095))
    assert SpecializeSettings.parse({}).model_dump(mode="json")["data"] is None, "as in runs of earlier versions"
    assert reading_of({}) is None
    given: dict[str, object] = {"data": {"parts": True}, "seed": 1}
    assert reading_of(given) == ReadSettings(parts=True)
    assert given == {"seed": 1}
    assert parse_settings(ReadSettings, {}) == READ
    for wrong in ({"data": 3}, {"data": {"part": True}}, {"data": {"several": "both"}}):
        with pytest.raises(UsageError, match="settings"):
            reading_of(dict(wrong))


def test_a_plan_reads_as_told(tmp_path: Path) -> None:
    source = camera(tmp_path, 8)
    for path in (source / "masks").iterdir():
        mask = np.array(Image.open(path))
        mask[:5, :5] = mask[-5:, -5:] = 255
        Image.fromarray(mask).save(path)
    one = plan(str(source), (1.0, 0.0, 0.0), 0, duplicates=False)
    many = plan(str(source), (1.0, 0.0, 0.0), 0, duplicates=False, how=ReadSettings(parts=True))
    assert (sum(one.objects.values()), sum(many.objects.values())) == (8, 24)
    assert one.fingerprint != many.fingerprint
