"""Every adapter on a miniature tree in its real layout, whole and broken. Oracle: the trees, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trees import HEIGHT, TREES, WIDTH, blob, coco_content, coco_tree, cod10k_tree, empty, folder_tree, mask, picture

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset
from specialsam.data import load, open_dataset
from specialsam.data.camo import load_camo
from specialsam.data.coco import load_coco
from specialsam.data.cod10k import load_cod10k, parse_name
from specialsam.data.folder import load_folder
from specialsam.data.mvtec import load_mvtec
from specialsam.data.open import ADAPTERS
from specialsam.data.photos import load_photos
from specialsam.data.sinet import load_sinet
from specialsam.data.wood import load_wood


def kinds(dataset: Dataset) -> dict[str, str]:
    """File name and kind of each problem."""
    return {problem.path.name: problem.kind for problem in dataset.problems}


@pytest.mark.parametrize("name", TREES)
def test_layout_is_recognised_and_every_record_loads(tmp_path: Path, name: str) -> None:
    dataset = open_dataset(TREES[name](tmp_path / "set"))
    assert dataset.layout == name
    assert not dataset.problems
    assert len({record.id for record in dataset.records}) == len(dataset)
    for record in dataset.records:
        assert load(record).size == (HEIGHT, WIDTH)
    assert next(name for name, adapter in ADAPTERS.items() if adapter.recognise(tmp_path / "set")) == name


@pytest.mark.parametrize("name", TREES)
def test_adapter_refuses_another_folder_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="expected") as caught:
        ADAPTERS[name].load(tmp_path)
    assert "\n" not in str(caught.value)


def test_cod10k_names() -> None:
    """Examples of the data set's own naming rules."""
    name = parse_name("COD10K-CAM-3-Flying-55-Butterfly-3330")
    assert name is not None
    assert (name.camouflaged, name.supercategory, name.category, name.number) == (True, "Flying", "Butterfly", 3330)
    name = parse_name("COD10K-NonCAM-3-Flying-1515")
    assert name is not None
    assert (name.camouflaged, name.supercategory, name.category, name.number) == (False, "Flying", "", 1515)
    assert parse_name("camourflage_00001") is None


def test_cod10k(tmp_path: Path) -> None:
    dataset = load_cod10k(cod10k_tree(tmp_path))
    records = {record.id: record for record in dataset.records}
    butterfly = records["COD10K-CAM-3-Flying-55-Butterfly-3330"]
    assert (butterfly.category, butterfly.supercategory, butterfly.split) == ("Butterfly", "Flying", "train")
    assert load(butterfly).masks.sum() == 48
    for name in ("COD10K-NonCAM-5-Background-5-Vegetation-4854", "COD10K-NonCAM-3-Flying-1515"):
        assert records[name].mask_kind in ("binary", "rle"), "labelled as empty, not unlabelled"
        assert load(records[name]).masks.shape == (0, HEIGHT, WIDTH)
    assert records["COD10K-CAM-2-Terrestrial-45-Spider-2500"].split == "test"
    assert dataset.notes == ("3 CAM and 2 NonCAM images by name",)


def test_cod10k_camouflaged_image_without_mask_is_a_problem(tmp_path: Path) -> None:
    picture(cod10k_tree(tmp_path) / "Train/Image/COD10K-CAM-3-Flying-51-Bee-1.jpg")
    assert kinds(load_cod10k(tmp_path)) == {"COD10K-CAM-3-Flying-51-Bee-1.jpg": "image without mask"}


def test_cod10k_name_in_both_halves(tmp_path: Path) -> None:
    name = "COD10K-CAM-3-Flying-55-Butterfly-3330"
    picture(cod10k_tree(tmp_path) / f"Test/Image/{name}.jpg")
    mask(tmp_path / f"Test/GT_Object/{name}.png")
    dataset = load_cod10k(tmp_path)
    assert len(dataset) == 5
    assert kinds(dataset) == {f"{name}.jpg": "duplicate name"}


def test_camo(tmp_path: Path) -> None:
    records = {record.id[-5:]: record for record in load_camo(TREES["camo"](tmp_path)).records}
    assert {id: record.category for id, record in records.items()} == {
        "00001": "animal",
        "01000": "animal",
        "01001": "other",
        "00007": "animal",
    }
    assert [records[id].split for id in ("00001", "00007")] == ["train", "test"]
    assert load(records["00001"]).masks.sum() == 48, "RGB mask: channel 0"
    assert load(records["00007"]).masks.sum() == 48 - 4, "grey levels: four of the eight are at most 127"


def test_camo_name_in_both_halves(tmp_path: Path) -> None:
    picture(TREES["camo"](tmp_path) / "Images/Test/camourflage_01000.jpg")
    dataset = load_camo(tmp_path)
    assert len(dataset) == 4
    assert kinds(dataset) == {"camourflage_01000.jpg": "duplicate name"}


def test_sinet(tmp_path: Path) -> None:
    dataset = load_sinet(TREES["sinet"](tmp_path))
    records = {record.id: record for record in dataset.records}
    assert sorted(records) == [
        "TestDataset/CAMO/camourflage_01200",
        "TestDataset/CHAMELEON/animal-1",
        "TestDataset/NC4K/10",
        "TrainDataset/COD10K-CAM-3-Flying-55-Butterfly-3330",
        "TrainDataset/camourflage_00012",
    ]
    assert records["TrainDataset/COD10K-CAM-3-Flying-55-Butterfly-3330"].category == "Butterfly"
    assert [records[f"TestDataset/{id}"].category for id in ("CAMO/camourflage_01200", "NC4K/10")] == ["other", ""]
    assert {record.split for id, record in records.items() if id.startswith("Test")} == {"test"}
    assert {record.split for id, record in records.items() if id.startswith("Train")} == {"train"}


@pytest.mark.parametrize(("part", "count"), [("TestDataset", 3), ("TestDataset/NC4K", 1), ("TrainDataset", 2)])
def test_sinet_part_alone(tmp_path: Path, part: str, count: int) -> None:
    dataset = open_dataset(TREES["sinet"](tmp_path) / part)
    assert (dataset.layout, len(dataset)) == ("sinet", count)


def test_mvtec_good_is_labelled_empty(tmp_path: Path) -> None:
    dataset = load_mvtec(TREES["mvtec"](tmp_path))
    records = {record.id: record for record in dataset.records}
    assert len(records) == 6
    good, hole = records["train/good/000"], records["test/hole/001"]
    assert (good.mask_kind, good.rles, good.category, good.split) == ("rle", (), "good", "train")
    assert load(good).masks.shape == (0, HEIGHT, WIDTH)
    assert (hole.category, hole.labels, hole.split) == ("hole", ("hole",), "test")
    assert load(hole).labels == ("hole",)
    assert dataset.licence == "CC BY-NC-SA 4.0"


def test_mvtec_problems(tmp_path: Path) -> None:
    TREES["mvtec"](tmp_path)
    picture(tmp_path / "test/hole/002.png")
    mask(tmp_path / "ground_truth/hole/009_mask.png")
    mask(tmp_path / "ground_truth/stain/000_mask.png")
    (tmp_path / "test/readme.txt").touch()
    dataset = load_mvtec(tmp_path)
    assert len(dataset) == 6
    assert kinds(dataset) == {
        "002.png": "image without mask",
        "009_mask.png": "mask without image",
        "000_mask.png": "mask without image",
        "readme.txt": "not an image",
    }


def test_wood(tmp_path: Path) -> None:
    dataset = load_wood(TREES["wood"](tmp_path))
    assert {record.id: record.category for record in dataset.records} == {
        "oak--one-60x60": "oak",
        "oak--two": "oak",
        "pine--p.1": "pine",
    }
    assert {record.mask_kind for record in dataset.records} == {"none"}


def test_wood_table_and_folder_differ(tmp_path: Path) -> None:
    TREES["wood"](tmp_path)
    picture(tmp_path / "images/images/extra.jpg")
    with (tmp_path / "wood.csv").open("a") as table:
        table.write("gone.jpg,teak\noak--two.jpg,pine\n")
    dataset = load_wood(tmp_path)
    assert len(dataset) == 4
    assert kinds(dataset) == {"gone": "image missing", "wood.csv": "duplicate name"}
    assert "1 images are not in wood.csv" in " ".join(dataset.notes)
    (tmp_path / "wood.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="expected columns image and species, got a, b"):
        load_wood(tmp_path)


def test_photos_are_unlabelled(tmp_path: Path) -> None:
    picture(tmp_path / "p/2.jpg")
    picture(tmp_path / "p/10.PNG")
    picture(tmp_path / "p/test/x.jpg")
    dataset = load_photos(tmp_path / "p")
    assert [(record.id, record.split) for record in dataset.records] == [("2", None), ("10", None), ("test/x", "test")]
    assert {record.mask_kind for record in dataset.records} == {"none"}
    assert open_dataset(tmp_path / "p").layout == "photos"


def test_folder_splits_and_categories(tmp_path: Path) -> None:
    for name in ("train/a", "val/b", "test/cats/c", "other/d"):
        picture(tmp_path / "images" / f"{name}.JPG")
        mask(tmp_path / "masks" / f"{name}.png")
    records = {record.id: (record.split, record.category) for record in load_folder(tmp_path).records}
    assert records == {
        "train/a": ("train", ""),
        "val/b": ("val", ""),
        "test/cats/c": ("test", "cats"),
        "other/d": (None, "other"),
    }


def test_folder_of_splits(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        folder_tree(tmp_path / split, ("a",))
    records = {record.id: record.split for record in open_dataset(tmp_path).records}
    assert records == {"train/a": "train", "valid/a": "val"}


def test_folder_suffixed_masks(tmp_path: Path) -> None:
    """One mask of a suffix, and several annotators of whom the first counts; nothing is lost unsaid."""
    for name in ("a", "a_b"):
        picture(tmp_path / "images" / f"{name}.png")
    for name in ("a_mask", "a_b_k0", "a_b_k1"):
        mask(tmp_path / "masks" / f"{name}.png")
    dataset = load_folder(tmp_path)
    assert {record.id: record.mask.name for record in dataset.records if record.mask} == {
        "a": "a_mask.png",
        "a_b": "a_b_k0.png",
    }
    assert any(note.startswith("1 further masks") for note in dataset.notes)


def test_folder_problems_are_all_stated(tmp_path: Path) -> None:
    folder_tree(tmp_path, ("good",))
    picture(tmp_path / "images/alone.png")
    mask(tmp_path / "masks/orphan.png")
    picture(tmp_path / "images/small.png", height=10)
    mask(tmp_path / "masks/small.png")
    (tmp_path / "images/text.jpg").write_text("no image")
    mask(tmp_path / "masks/text.png")
    picture(tmp_path / "images/torn.png")
    (tmp_path / "masks/torn.png").write_bytes(b"\x89PNG")
    picture(tmp_path / "images/good.png")
    (tmp_path / "images/notes.txt").touch()
    (tmp_path / "images/.hidden").touch()
    dataset = load_folder(tmp_path)
    assert [record.id for record in dataset.records] == ["good"]
    assert kinds(dataset) == {
        "alone.png": "image without mask",
        "orphan.png": "mask without image",
        "small.png": "sizes differ",
        "text.jpg": "unreadable",
        "torn.png": "unreadable",
        "good.png": "duplicate name",
        "notes.txt": "not an image",
    }
    messages = [problem.message for problem in dataset.problems]
    assert all("\n" not in message for message in messages)
    assert any("expected a mask of 10x32 (height x width), small.png has 24x32" in message for message in messages)


def test_damage_behind_the_header_appears_on_load(tmp_path: Path) -> None:
    folder_tree(tmp_path, ("a", "b"))
    path = tmp_path / "images/a.jpg"
    path.write_bytes(path.read_bytes()[:-400])
    records = load_folder(tmp_path).records
    assert len(records) == 2
    with pytest.raises(DataError, match=r"a\.jpg: the image is damaged or cut short"):
        load(records[0])
    assert load(records[1]).masks.sum() == 48


def test_coco(tmp_path: Path) -> None:
    """Areas by hand: a rectangle of 8x6 and one run of 4 pixels down the first column."""
    dataset = load_coco(coco_tree(tmp_path))
    one, two = dataset.records
    assert (one.id, one.category, one.supercategory, one.split) == ("images/one", "cat", "animal", "train")
    assert one.labels == ("cat", "dog", "cat")
    sample = load(one)
    assert np.array_equal(sample.masks[0], blob() > 0)
    assert sample.masks[2].sum() == 4
    assert sample.masks[2][2:6, 0].all()
    assert sample.labels == ("cat", "dog", "cat")
    assert (two.mask_kind, two.rles) == ("rle", ()), "an image without annotations is labelled empty"
    assert dataset.licence == "CC BY 4.0"
    assert json.loads(json.dumps(one.rles)) == list(one.rles)


def test_coco_compressed_run_lengths(tmp_path: Path) -> None:
    """Oracle: pycocotools' own encoder."""
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray((blob() > 0).astype(np.uint8)))
    content = coco_content()
    content["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 5, "segmentation": {**rle, "counts": rle["counts"].decode()}}
    ]
    dataset = load_coco(coco_tree(tmp_path, content))
    assert np.array_equal(load(dataset.records[0]).masks[0], blob() > 0)


BAD_SEGMENTATIONS: dict[str, Any] = {
    "empty": [],
    "missing": None,
    "two points": [[1, 2, 3, 4]],
    "odd": [[1, 2, 3, 4, 5, 6, 7]],
    "words": [["a", 2, 3, 4, 5, 6]],
    "not finite": [[1e400, 2, 3, 4, 5, 6]],
    "flat": [[0, 0, 0, 0, 0, 0]],
    "outside": [[900, 900, 950, 900, 950, 950]],
    "other size": {"size": [5, 5], "counts": [25]},
    "short run": {"size": [HEIGHT, WIDTH], "counts": [2, 4]},
    "long run": {"size": [HEIGHT, WIDTH], "counts": [2, 4, 10_000]},
    "negative": {"size": [HEIGHT, WIDTH], "counts": [2, -4, HEIGHT * WIDTH + 2]},
    "no counts": {"size": [HEIGHT, WIDTH]},
    "bad string": {"size": [HEIGHT, WIDTH], "counts": "zz\x01"},
    "cut string": {"size": [HEIGHT, WIDTH], "counts": "P"},
    "short string": {"size": [HEIGHT, WIDTH], "counts": "04"},
    "nothing": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]},
}


@pytest.mark.parametrize("case", BAD_SEGMENTATIONS)
def test_coco_bad_segmentation_is_stated(tmp_path: Path, case: str) -> None:
    content = coco_content()
    bad = {"id": 99, "image_id": 2, "category_id": 5, "segmentation": BAD_SEGMENTATIONS[case]}
    content["annotations"].append(bad)
    dataset = load_coco(coco_tree(tmp_path, content))
    assert [record.id for record in dataset.records] == ["images/one"], "all its annotations fail: not labelled empty"
    assert [problem.kind for problem in dataset.problems] == ["unusable annotation", "image without mask"]
    assert "annotation 99 was left out" in dataset.problems[0].message
    content["annotations"].append({"id": 100, "image_id": 2, "category_id": 9, "segmentation": [[0, 0, 9, 0, 9, 9]]})
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(content))
    kept = load_coco(tmp_path)
    assert kept.records[1].labels == ("category 9",)
    assert len(kept.problems) == 1


def test_coco_other_problems(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][1]["iscrowd"] = 1
    content["annotations"].append({"id": 20, "image_id": 777, "category_id": 5, "segmentation": [[0, 0, 9, 0, 9, 9]]})
    content["annotations"].append({"id": 21, "image_id": [1], "category_id": {}, "segmentation": []})
    content["images"] += [
        {"id": 3, "file_name": "gone.jpg"},
        {"id": 1, "file_name": "two.jpg"},
        {"id": 4, "file_name": "../../images/two.jpg"},
        {"id": 5, "file_name": "tall.jpg", "height": 5, "width": 5},
    ]
    picture(tmp_path / "images/tall.jpg")
    dataset = load_coco(coco_tree(tmp_path, content))
    assert dataset.records[0].labels == ("cat", "cat")
    assert [record.id for record in dataset.records] == ["images/one", "images/two"]
    assert sorted((problem.kind, problem.path.name) for problem in dataset.problems) == [
        ("crowd annotation", "one.jpg"),
        ("duplicate name", "instances_train2017.json"),
        ("duplicate name", "two.jpg"),
        ("image missing", "gone.jpg"),
        ("sizes differ", "tall.jpg"),
        ("unusable annotation", "instances_train2017.json"),
        ("unusable annotation", "instances_train2017.json"),
    ]


def test_coco_json_beside_images_and_alone(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        picture(tmp_path / split / "one.jpg")
        picture(tmp_path / split / "two.jpg")
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(coco_content()))
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "coco"
    assert [(record.id, record.split) for record in dataset.records] == [
        ("train/one", "train"),
        ("train/two", "train"),
        ("valid/one", "val"),
        ("valid/two", "val"),
    ]
    assert len(open_dataset(tmp_path / "train")) == 2
    assert len(open_dataset(tmp_path / "train/_annotations.coco.json")) == 2


@pytest.mark.parametrize("text", ["{", '{"images": 5}', "[]", '{"images": [], "annotations": {}}'])
def test_coco_broken_json_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json: expected"):
        load_coco(tmp_path / "x.json")


def test_empty_mask_file_is_labelled_empty(tmp_path: Path) -> None:
    folder_tree(tmp_path)
    mask(tmp_path / "masks/b.png", empty())
    records = load_folder(tmp_path).records
    assert [len(load(record).masks) for record in records] == [1, 0, 1]
