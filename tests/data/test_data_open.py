"""The entrance, loading, the census and the decision on the kind of masks. Oracle: trees and masks made by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from trees import HEIGHT, WIDTH, blob, coco_tree, empty, folder_tree, mask, mvtec_tree, picture, real_data, wood_tree

from specialsam.core.errors import DataError, UsageError
from specialsam.core.types import Problem, Record
from specialsam.data import counts, inspect_masks, load, open_dataset
from specialsam.data.loading import load_image_only, load_masks
from specialsam.data.mask_kind import decide, vote


def test_source_forms(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "my set")
    for source in (root, str(root), f"folder:{root}"):
        assert len(open_dataset(source)) == 3
    assert open_dataset(f"photos:{root}").layout == "photos", "a named adapter wins over recognition"
    odd = folder_tree(tmp_path / "odd:name")
    assert len(open_dataset(str(odd))) == 3


def test_dot_is_named_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder_tree(tmp_path / "mine") / "images")
    assert open_dataset("..").name == "mine"
    monkeypatch.chdir("..")
    assert open_dataset(".").name == "mine"


def test_far_too_large_image_is_a_problem_at_once(tmp_path: Path) -> None:
    folder_tree(tmp_path, ("a",))
    Image.new("1", (20_000, 20_000)).save(tmp_path / "images/huge.png")
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 1
    assert "400 megapixels, more than the limit of 200; cut it into tiles" in dataset.problems[0].message


def test_masks_that_would_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(coco_tree(tmp_path))
    monkeypatch.setattr(sys.modules["specialsam.data.loading"], "BYTE_LIMIT", 3 * HEIGHT * WIDTH - 1)
    with pytest.raises(DataError, match=r"images/one: 3 masks of .* scale the image down"):
        load(dataset.records[0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda root: root / "nothing", DataError, "expected a data set folder, found nothing there"),
        (lambda root: f"camo:{root / 'nothing'}", DataError, "found nothing there"),
        (lambda root: root, DataError, "the folder is empty"),
        (lambda root: f"cocoa:{root}", UsageError, "expected one of the adapters folder, .*, got 'cocoa'"),
        (lambda root: "camo:", UsageError, "expected a path behind the colon"),
        (lambda root: "", UsageError, "got an empty name"),
        (lambda root: picture(root / "x.jpg"), DataError, "expected a folder or a COCO .json file"),
        (lambda root: f"wood:{root}", DataError, "expected images/images"),
    ],
)
def test_wrong_source_is_one_line(tmp_path: Path, make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        open_dataset(make(tmp_path))  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_unknown_layout_lists_what_was_looked_for(tmp_path: Path) -> None:
    folder_tree(tmp_path / "inside")
    (tmp_path / "readme.md").touch()
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    for name in ("cod10k", "camo", "mvtec", "wood", "coco", "folder"):
        assert f"{name}: " in str(caught.value)
    assert "folders inside have a known one: inside" in str(caught.value)


def test_ambiguous_layout_names_the_choices(tmp_path: Path) -> None:
    coco_tree(tmp_path)
    mask(tmp_path / "masks/one.png")
    with pytest.raises(DataError, match=r"fits more than one .*: folder:.* or coco:"):
        open_dataset(tmp_path)
    assert open_dataset(f"coco:{tmp_path}").layout == "coco"


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match=r"no usable image .*1 problems, the first: .*a\.png: expected a mask"):
        open_dataset(tmp_path)
    (tmp_path / "images/a.png").unlink()
    with pytest.raises(DataError, match="hold no image files"):
        open_dataset(tmp_path)


def test_counts_add_up(tmp_path: Path) -> None:
    folder_tree(tmp_path, ("a", "b", "c"))
    mask(tmp_path / "masks/b.png", empty())
    picture(tmp_path / "images/alone.png")
    mask(tmp_path / "masks/orphan.png")
    dataset = open_dataset(tmp_path)
    before = counts(dataset)
    assert before["not_inspected"] == 3
    seen: list[tuple[int, int]] = []
    objects = inspect_masks(dataset.records, progress=lambda done, total, _: seen.append((done, total)))
    assert objects == {"a": 1, "b": 0, "c": 1}
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert counts(dataset, objects) == {
        "images": 4,
        "usable": 3,
        "with_objects": 2,
        "empty": 1,
        "unlabelled": 0,
        "not_inspected": 0,
        "broken": 1,
        "problems": 2,
    }


def test_counts_tell_empty_from_unlabelled(tmp_path: Path) -> None:
    good = counts(open_dataset(mvtec_tree(tmp_path / "grid")))
    assert (good["empty"], good["unlabelled"], good["not_inspected"]) == (3, 0, 3)
    textures = counts(open_dataset(wood_tree(tmp_path / "wood")))
    assert (textures["empty"], textures["unlabelled"]) == (0, 3)


def test_inspection_states_or_raises_damage(tmp_path: Path) -> None:
    folder_tree(tmp_path)
    path = tmp_path / "masks/b.png"
    path.write_bytes(path.read_bytes()[:-30])
    dataset = open_dataset(tmp_path)
    with pytest.raises(DataError, match="damaged"):
        inspect_masks(dataset.records)
    problems: list[Problem] = []
    assert inspect_masks(dataset.records, problems=problems) == {"a": 1, "c": 1}
    assert [problem.path.name for problem in problems] == ["b.jpg"]


def test_load_size_mismatch(tmp_path: Path) -> None:
    record = Record("r", picture(tmp_path / "a.png"), mask(tmp_path / "m.png", blob(20, 32)), "binary")
    with pytest.raises(DataError, match=r"r: expected mask of 24x32 \(height x width\), got 20x32"):
        load(record)


def test_mask_drawn_without_exif_gets_a_hint(tmp_path: Path) -> None:
    """A photo taken upright is stored lying: 24x32 pixels with orientation 6 are 32x24 to the viewer."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images/a.jpg", exif=exif)
    path = mask(tmp_path / "masks/a.png")
    record = Record("a", tmp_path / "images/a.jpg", path, "binary")
    with pytest.raises(DataError, match=r"expected mask of 32x24 .* EXIF orientation that the mask does not"):
        load(record)
    with pytest.raises(DataError, match="EXIF orientation that the mask does not"):
        open_dataset(tmp_path)
    mask(path, blob(WIDTH, HEIGHT))
    assert load(record).masks.sum() == 48


def test_binary_mask_that_would_read_as_empty_is_refused(tmp_path: Path) -> None:
    labels = blob() // 255 * 3
    record = Record("r", picture(tmp_path / "a.png"), mask(tmp_path / "m.png", labels), "binary")
    with pytest.raises(DataError, match=r"m\.png: expected a binary mask .* got values up to 3"):
        load(record)


def test_label_map_of_too_many_values_is_refused(tmp_path: Path) -> None:
    shades = np.arange(HEIGHT * WIDTH * 2, dtype=np.uint16).reshape(HEIGHT * 2, WIDTH)
    record = Record("r", picture(tmp_path / "a.png", height=48), mask(tmp_path / "m.png", shades), "index")
    with pytest.raises(DataError, match="at most 1000 values, got 1536"):
        load(record)


def test_colour_labels_become_objects(tmp_path: Path) -> None:
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[2:6, 2:6] = (0, 0, 255)
    colours[10:14, 10:14] = (255, 0, 0)
    record = Record("r", picture(tmp_path / "a.png"), mask(tmp_path / "m.png", colours), "index")
    assert [int(one.sum()) for one in load_masks(record)] == [16, 16]


def test_load_image_only(tmp_path: Path) -> None:
    record = Record("r", picture(tmp_path / "a.png"), tmp_path / "gone.png", "binary")
    assert load_image_only(record).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(DataError, match=r"gone\.png: expected an image file, found nothing there"):
        load(record)


def _disc(radius: float = 8.3) -> np.ndarray:
    """An antialiased disc, drawn at eight times the size and averaged."""
    y, x = np.mgrid[: HEIGHT * 8, : WIDTH * 8]
    big = ((y - 96) ** 2 + (x - 120) ** 2 < (radius * 8) ** 2) * 255.0
    return cv2.resize(big, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).round().astype(np.uint8)


def _labels(*values: int, dtype: type = np.uint8) -> np.ndarray:
    out = np.zeros((HEIGHT, WIDTH), dtype)
    for index, value in enumerate(values):
        out[4:12, 6 * index : 6 * index + 5] = value
    return out


def _jpeg() -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", blob(), [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (blob(), "binary"),
        (blob() // 255, "either"),
        (empty(), "either"),
        (np.full((4, 4), 255, np.uint8), "binary"),
        (blob() > 0, "binary"),
        (_disc(), "binary"),
        (_jpeg(), "binary"),
        (cv2.GaussianBlur(_disc(), (5, 5), 1.5), "binary"),
        (blob().astype(np.uint16) * 257, "binary"),
        (_labels(1, 2, 3), "index"),
        (_labels(7), "index"),
        (_labels(50, 100, 150, 200), "index"),
        (_labels(1, 2, 255), "index"),
        (_labels(1, 2, dtype=np.uint16), "index"),
        (_labels(255, dtype=np.uint16), "index"),
        (_labels(300, 4000, 40_000, dtype=np.uint16), "index"),
        (np.stack([_labels(255, 0), _labels(0, 255), _labels(0, 0)], axis=2), "index"),
        (np.stack([_disc()] * 3, axis=2), "binary"),
        (np.random.default_rng(0).integers(0, 100, (24, 32), np.uint8), "odd"),
        (np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8), "odd"),
        (np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8), "odd"),
    ],
)
def test_vote(pixels: np.ndarray, expected: str) -> None:
    assert vote(pixels) == expected


def test_palette_votes_by_its_indices() -> None:
    assert vote(_labels(1, 2), palette=True) == "index"
    assert vote(blob(), palette=True) == "binary"
    assert vote(_labels(1), palette=True) == "either"


def test_index_folder_opens_as_objects(tmp_path: Path) -> None:
    """Single-object label maps (0/1) and empty ones do not outvote the maps that show several."""
    folder_tree(tmp_path, ("a", "b", "c", "d"))
    for name, pixels in (("a", _labels(1, 2, 3)), ("b", _labels(1)), ("c", _labels(1)), ("d", empty())):
        mask(tmp_path / f"masks/{name}.png", pixels)
    dataset = open_dataset(tmp_path)
    assert dataset.notes[0].startswith("masks are read as label maps")
    assert inspect_masks(dataset.records) == {"a": 3, "b": 1, "c": 1, "d": 0}


def test_masks_that_contradict_the_decision_are_problems(tmp_path: Path) -> None:
    folder_tree(tmp_path, ("a", "b", "c"))
    mask(tmp_path / "masks/c.png", _labels(1, 2, 3))
    dataset = open_dataset(tmp_path)
    assert [record.id for record in dataset.records] == ["a", "b"]
    assert [(problem.kind, problem.path.name) for problem in dataset.problems] == [("odd mask values", "c.jpg")]
    for name in ("a", "b"):
        mask(tmp_path / f"masks/{name}.png", _labels(2, 5))
    mask(tmp_path / "masks/c.png", _disc())
    dataset = open_dataset(tmp_path)
    assert {record.mask_kind for record in dataset.records} == {"index"}
    assert [(problem.kind, problem.path.name) for problem in dataset.problems] == [("odd mask values", "c.jpg")]
    mask(tmp_path / "masks/c.png")
    assert inspect_masks(open_dataset(tmp_path).records) == {"a": 2, "b": 2, "c": 1}
    mask(tmp_path / "masks/a.png", _labels(2, 255))
    assert "1 hold the value 255, which is kept as an object" in open_dataset(tmp_path).notes[0]


def test_large_sets_are_sampled(tmp_path: Path) -> None:
    paths = [mask(tmp_path / f"{index}.png", np.array([[0, 255]], np.uint8)) for index in range(450)]
    decision = decide(paths)
    assert decision.kind == "binary"
    assert "of 150 masks looked at" in decision.note


def test_no_masks_decide_nothing() -> None:
    assert decide([]).kind == "binary"


def test_import_is_light() -> None:
    """Opening data needs no torch, pandas or matplotlib; the function `load` is not hidden by its module."""
    code = (
        "import sys, specialsam.data.loading, specialsam.data.open, specialsam.data as data\n"
        "assert callable(data.load) and callable(data.open_dataset)\n"
        "print([name for name in ('torch', 'pandas', 'matplotlib', 'scipy', 'pycocotools') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_unknown_export_is_an_attribute_error() -> None:
    import specialsam.data

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        specialsam.data.nonsense  # noqa: B018


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "layout", "expected"),
    [
        ("camo", "camo", {"images": 996, "with_objects": 996, "empty": 0, "unlabelled": 0}),
        ("mvtec_grid", "mvtec", {"images": 305, "with_objects": 30, "empty": 275, "unlabelled": 0}),
        ("wood", "wood", {"images": 211, "with_objects": 0, "empty": 0, "unlabelled": 211}),
        ("fabric", "folder", {"images": 26, "with_objects": 25, "empty": 1, "unlabelled": 0}),
        ("bsds500", "folder", {"images": 300, "with_objects": 300, "empty": 0, "unlabelled": 0}),
    ],
)
def test_real_counts(name: str, layout: str, expected: dict[str, int]) -> None:
    """Oracle: the numbers that came with the data, counted there."""
    dataset = open_dataset(real_data(name))
    assert dataset.layout == layout
    assert not dataset.problems
    numbers = counts(dataset, inspect_masks(dataset.records))
    assert {key: numbers[key] for key in expected} == expected
    assert numbers["broken"] == 0
    load(dataset.records[0])


@pytest.mark.real
def test_real_categories() -> None:
    """Oracle: CAMO's 864 animals by number; MVTec grid's 264/11/30; 40 species of wood; BSDS500's 200/100."""
    camo = open_dataset(real_data("camo"))
    assert sum(record.category == "animal" for record in camo.records) == 864
    grid = open_dataset(real_data("mvtec_grid")).records
    good = [record for record in grid if record.category == "good"]
    assert (sum(r.split == "train" for r in good), sum(r.split == "test" for r in good), len(grid)) == (264, 11, 305)
    assert len({record.category for record in open_dataset(real_data("wood")).records}) == 40
    bsds = open_dataset(real_data("bsds500"))
    assert [sum(record.split == split for record in bsds.records) for split in ("train", "val")] == [200, 100]
    assert {record.mask_kind for record in bsds.records} == {"index"}


def test_a_plain_folder_states_its_licence(tmp_path: Path) -> None:
    """Oracle: the card as written; without one the licence is unknown, and a damaged or odd one is refused."""
    root = tmp_path / "mine"
    for name, value in (("images", 90), ("masks", 255)):
        (root / name).mkdir(parents=True)
        Image.fromarray(np.full((16, 16), value, np.uint8)).save(root / name / "a.png")
    assert (open_dataset(f"folder:{root}").name, open_dataset(f"folder:{root}").licence) == ("mine", "unknown")
    (root / "dataset.json").write_text('{"name": "Boards", "licence": "CC-BY-4.0", "citation": "Me 2020"}')
    found = open_dataset(f"folder:{root}")
    assert (found.name, found.licence, found.citation) == ("Boards", "CC-BY-4.0", "Me 2020")
    for text in ("{", "[]", '{"licence": 4}', '{"license": "MIT"}'):
        (root / "dataset.json").write_text(text)
        with pytest.raises(DataError, match=r"dataset\.json: expected"):
            open_dataset(f"folder:{root}")
