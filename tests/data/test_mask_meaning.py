"""What mask files hold, whatever their format: lossy, painted, indexed, in alpha, several. Oracle: the drawn disc."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from discs import HIGH, WIDE, Pixels, disc, iou, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Record
from specialsam.data import inspect_masks, load, open_dataset
from specialsam.data.content import content_of
from specialsam.data.loading import parts_of
from specialsam.data.mask_kind import vote
from specialsam.data.mask_values import flat_levels, snapped
from specialsam.data.read_settings import READ, ReadSettings

Draw = Callable[[Path, Pixels], object]


def _set(root: Path, draw: Draw, count: int = 4) -> Path:
    """A plain folder whose masks are written by `draw`, under names without ending."""
    (root / "masks").mkdir(parents=True)
    for number in range(count):
        image, mask, _ = disc(number)
        put(root / f"images/{number}.png", image)
        draw(root / f"masks/{number}", mask)
    return root


def _read(root: Path, how: ReadSettings = READ) -> tuple[Dataset, list[Pixels]]:
    dataset = open_dataset(root, how)
    assert not dataset.problems
    return dataset, [load(record).masks for record in dataset.records]


def _colour(mask: Pixels, inside: tuple[int, int, int], outside: tuple[int, int, int] = (0, 0, 0)) -> Pixels:
    return np.where(mask[..., None], np.array(inside, np.uint8), np.array(outside, np.uint8))


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (220, 20, 60), (128, 0, 128)])
@pytest.mark.parametrize("quality", [60, 90])
def test_a_colour_saved_with_loss_is_one_object(tmp_path: Path, colour: tuple[int, int, int], quality: int) -> None:
    root = _set(tmp_path, lambda path, mask: put(path.with_suffix(".jpg"), _colour(mask, colour), quality=quality))
    dataset, masks = _read(root)
    for number, found in enumerate(masks):
        assert len(found) == 1
        assert iou(found[0], disc(number)[1]) > 0.9
    assert "saved with loss" in dataset.notes[0]


@pytest.mark.parametrize("ending", [".jpg", ".webp"])
def test_labels_saved_with_loss(tmp_path: Path, ending: str) -> None:
    def draw(path: Path, mask: Pixels) -> None:
        labels = mask.astype(np.uint8) * 120
        labels[2:12, 2:14] = 60
        put(path.with_suffix(ending), labels, quality=85)

    _, masks = _read(_set(tmp_path, draw))
    for number, found in enumerate(masks):
        assert len(found) == 2
        assert 100 <= found[0].sum() <= 140, "the rectangle of 120 pixels"
        assert iou(found[1], disc(number)[1]) > 0.9


def test_labels_that_loss_has_mixed_up_are_refused_with_the_remedy(tmp_path: Path) -> None:
    """Labels 1, 2, 3 in a JPEG lie within its noise: no reader can tell them apart."""

    def draw(path: Path, mask: Pixels) -> None:
        labels = mask.astype(np.uint8) * 3
        labels[2:12, 2:14] = 1
        put(path.with_suffix(".jpg"), labels, quality=60)

    with pytest.raises(DataError, match=r"save them as PNG"):
        open_dataset(_set(tmp_path, draw))


def test_black_and_white_with_loss_is_binary_under_the_same_digest_as_ever(tmp_path: Path) -> None:
    root = _set(tmp_path, lambda path, mask: put(path.with_suffix(".jpg"), mask.astype(np.uint8) * 255, quality=70))
    dataset, masks = _read(root)
    assert {record.mask_kind for record in dataset.records} == {"binary"}
    assert all(record.masks_as is None and record.reading is None for record in dataset.records)
    assert iou(masks[0][0], disc(0)[1]) > 0.95


def test_smoothed_colours_without_loss_are_one_object(tmp_path: Path) -> None:
    """Antialiased red leaves dozens of shades; in a palette file they are quantised as well."""

    def smooth(mask: Pixels) -> Image.Image:
        big = Image.fromarray(_colour(mask, (255, 0, 0))).resize((WIDE * 8, HIGH * 8), Image.Resampling.BICUBIC)
        return big.resize((WIDE, HIGH), Image.Resampling.LANCZOS)

    for ending, change in ((".png", lambda image: image), (".gif", lambda image: image.quantize(64))):
        root = _set(tmp_path / ending, lambda p, m, e=ending, c=change: c(smooth(m)).save(p.with_suffix(e)))  # type: ignore[misc]
        _, masks = _read(root)
        for number, found in enumerate(masks):
            assert len(found) == 1, ending
            assert iou(found[0], disc(number)[1]) > 0.9


def test_palettes_of_black_and_white_in_either_order(tmp_path: Path) -> None:
    def draw(path: Path, mask: Pixels) -> None:
        indexed = Image.fromarray((~mask).astype(np.uint8), "P")
        indexed.putpalette([255, 255, 255, 0, 0, 0])
        indexed.save(path.with_suffix(".png"))

    _, masks = _read(_set(tmp_path, draw))
    assert [np.array_equal(found[0], disc(n)[1]) for n, found in enumerate(masks)] == [True] * 4


def test_a_palette_of_labels_keeps_its_indices(tmp_path: Path) -> None:
    """Pascal VOC's colours; two labels of one colour stay two objects."""

    def draw(path: Path, mask: Pixels) -> None:
        labels = mask.astype(np.uint8)
        labels[:5, :5] = 2
        indexed = Image.fromarray(labels, "P")
        indexed.putpalette([0, 0, 0, 128, 0, 0, 128, 0, 0])
        indexed.save(path.with_suffix(".png"))

    _, masks = _read(_set(tmp_path, draw))
    assert [len(found) for found in masks] == [2] * 4


@pytest.mark.parametrize("paint", [0, 255, 90])
def test_the_shape_in_the_alpha_channel(tmp_path: Path, paint: int) -> None:
    def draw(path: Path, mask: Pixels) -> None:
        put(
            path.with_suffix(".png"),
            np.dstack([np.full((HIGH, WIDE, 3), paint, np.uint8), mask.astype(np.uint8) * 255]),
        )

    dataset, masks = _read(_set(tmp_path, draw))
    assert [np.array_equal(found[0], disc(n)[1]) for n, found in enumerate(masks)] == [True] * 4
    assert "alpha" in dataset.notes[0]


def test_a_cut_out_picture_is_its_alpha(tmp_path: Path) -> None:
    def draw(path: Path, mask: Pixels) -> None:
        picture = np.random.default_rng(1).integers(0, 256, (HIGH, WIDE, 3), np.uint8)
        put(path.with_suffix(".png"), np.dstack([picture, mask.astype(np.uint8) * 255]))

    def small(path: Path, mask: Pixels) -> None:
        draw(path, mask)

    dataset = open_dataset(_set(tmp_path, small))
    found = [load(record).masks for record in dataset.records]
    assert [np.array_equal(one[0], disc(n)[1]) for n, one in enumerate(found)] == [True] * 4


def test_an_opaque_alpha_changes_nothing(tmp_path: Path) -> None:
    def draw(path: Path, mask: Pixels) -> None:
        put(path.with_suffix(".png"), np.dstack([_colour(mask, (255, 255, 255)), np.full((HIGH, WIDE), 255, np.uint8)]))

    dataset, masks = _read(_set(tmp_path, draw))
    assert np.array_equal(masks[1][0], disc(1)[1])
    assert dataset.records[0].masks_as is None


@pytest.mark.parametrize(("inside", "outside"), [(1, 2), (2, 1), (7, 9)])
def test_a_background_that_is_not_zero(tmp_path: Path, inside: int, outside: int) -> None:
    root = _set(tmp_path, lambda p, m: put(p.with_suffix(".png"), np.where(m, inside, outside).astype(np.uint8)))
    dataset, masks = _read(root)
    assert [np.array_equal(found[0], disc(n)[1]) for n, found in enumerate(masks)] == [True] * 4
    assert [len(found) for found in masks] == [1] * 4
    assert f"the value {outside} surrounds everything" in dataset.notes[0]


def test_coloured_labels_on_white(tmp_path: Path) -> None:
    root = _set(tmp_path, lambda p, m: put(p.with_suffix(".png"), _colour(m, (200, 10, 10), (255, 255, 255))))
    _, masks = _read(root)
    assert [np.array_equal(found[0], disc(n)[1]) for n, found in enumerate(masks)] == [True] * 4


@pytest.mark.parametrize(("thing", "ground", "band"), [(1, 2, 3), (255, 0, 128)])
def test_a_trimap_is_its_object(tmp_path: Path, thing: int, ground: int, band: int) -> None:
    def draw(path: Path, mask: Pixels) -> None:
        inner, outer = disc(int(path.name), 8)[1], disc(int(path.name), 12)[1]
        put(path.with_suffix(".png"), np.select([inner, outer], [thing, band], ground).astype(np.uint8))

    dataset, masks = _read(_set(tmp_path, draw))
    assert [np.array_equal(found[0], disc(n, 8)[1]) for n, found in enumerate(masks)] == [True] * 4
    assert "thin border" in dataset.notes[0]


def test_a_thick_ring_is_an_object(tmp_path: Path) -> None:
    """A cell around its nucleus: a label that lies between, but is no border."""

    def draw(path: Path, mask: Pixels) -> None:
        inner, outer = disc(int(path.name), 4)[1], disc(int(path.name), 14)[1]
        put(path.with_suffix(".png"), np.select([inner, outer], [255, 128], 0).astype(np.uint8))

    _, masks = _read(_set(tmp_path, draw))
    assert [len(found) for found in masks] == [2] * 4


def test_background_and_void_can_be_set(tmp_path: Path) -> None:
    def draw(path: Path, mask: Pixels) -> None:
        labels = mask.astype(np.uint8) * 4
        labels[:6, :6] = 9
        put(path.with_suffix(".png"), labels)

    root = _set(tmp_path, draw)
    assert [len(found) for found in _read(root)[1]] == [2] * 4
    dataset, masks = _read(root, ReadSettings(void=(9,)))
    assert [np.array_equal(found[0], disc(n)[1]) for n, found in enumerate(masks)] == [True] * 4
    assert "9" in dataset.notes[0]
    masks = _read(root, ReadSettings(background=4))[1]
    assert [int(found[0].sum()) for found in masks] == [36] * 4, "0 becomes an object, the last one"


def test_several_files_of_an_image_are_objects_or_annotators(tmp_path: Path) -> None:
    def objects(path: Path, mask: Pixels) -> None:
        corner = np.zeros((HIGH, WIDE), np.uint8)
        corner[:6, :7] = 255
        put(path.with_name(f"{path.name}_mask.png"), mask.astype(np.uint8) * 255)
        put(path.with_name(f"{path.name}_mask_1.png"), corner)

    def annotators(path: Path, mask: Pixels) -> None:
        for number in range(3):
            moved = np.roll(mask, number, 1)
            put(path.with_name(f"{path.name}_{number}.png"), moved.astype(np.uint8) * 255)

    dataset, masks = _read(_set(tmp_path / "objects", objects))
    assert [[int(one.sum()) for one in found][1] for found in masks] == [42] * 4
    assert "each an object" in dataset.notes[1]
    assert inspect_masks(dataset.records) == {str(number): 2 for number in range(4)}
    assert len({content_of(record).masks for record in dataset.records}) == 4
    assert [len(found) for found in _read(tmp_path / "objects", ReadSettings(several="annotators"))[1]] == [1] * 4
    dataset, masks = _read(_set(tmp_path / "annotators", annotators))
    assert [len(found) for found in masks] == [1] * 4
    assert dataset.notes[1].startswith("8 further masks of the same images were left out: the first annotator counts")
    assert [len(found) for found in _read(tmp_path / "annotators", ReadSettings(several="objects"))[1]] == [3] * 4


def test_a_changed_second_mask_changes_the_digest(tmp_path: Path) -> None:
    def draw(path: Path, mask: Pixels) -> None:
        put(path.with_name(f"{path.name}_a.png"), mask.astype(np.uint8) * 255)
        put(path.with_name(f"{path.name}_b.png"), (~disc(int(path.name), 16)[1]).astype(np.uint8) * 255)

    record = open_dataset(_set(tmp_path, draw)).records[0]
    before = content_of(record).masks
    put(record.more[0], np.zeros((HIGH, WIDE), np.uint8))
    assert content_of(record).masks != before


def test_pages_are_objects(tmp_path: Path) -> None:
    def draw(path: Path, mask: Pixels) -> None:
        corner = np.zeros_like(mask)
        corner[:6, :7] = True
        pages = np.stack([mask, corner]).astype(np.uint8) * 255
        tifffile.imwrite(path.with_suffix(".tif"), pages, photometric="minisblack")

    dataset, masks = _read(_set(tmp_path, draw))
    assert [[int(one.sum()) for one in found][1] for found in masks] == [42] * 4
    assert "several pages: each is an object" in "".join(dataset.notes)


def test_more_than_a_thousand_objects(tmp_path: Path) -> None:
    labels = np.kron(np.arange(1, 1226, dtype=np.uint16).reshape(35, 35), np.ones((4, 4), np.uint16))
    labels[::4] = 0
    put(tmp_path / "images/a.png", np.zeros((140, 140, 3), np.uint8))
    put(tmp_path / "masks/a.png", labels)
    dataset = open_dataset(tmp_path)
    assert inspect_masks(dataset.records) == {"a": 1225}
    assert vote(np.random.default_rng(0).integers(0, 60_000, (99, 99)).astype(np.uint16)) == "odd", "noise is none"


@pytest.mark.parametrize("kind", [np.int64, np.float64, np.int32, np.uint32])
def test_labels_of_any_width(tmp_path: Path, kind: type) -> None:
    def draw(path: Path, mask: Pixels) -> None:
        labels = mask.astype(kind) * 3
        labels[:6, :7] = 70_000
        tifffile.imwrite(path.with_suffix(".tif"), labels)

    _, masks = _read(_set(tmp_path, draw))
    assert [[int(one.sum()) for one in found][1] for found in masks] == [42] * 4


def test_a_mask_is_split_into_its_parts_on_request(tmp_path: Path) -> None:
    """Oracle: eight rectangles of 4 x 6 pixels painted into one mask."""

    def draw(path: Path, mask: Pixels) -> None:
        eight = np.zeros((HIGH, WIDE), np.uint8)
        for number in range(8):
            row, column = 6 + 20 * (number // 4), 4 + 15 * (number % 4)
            eight[row : row + 4, column : column + 6] = 255
        put(path.with_suffix(".png"), eight)

    root = _set(tmp_path, draw)
    assert [len(found) for found in _read(root)[1]] == [1] * 4
    dataset, masks = _read(root, ReadSettings(parts=True))
    assert [[int(one.sum()) for one in found] for found in masks] == [[24] * 8] * 4
    assert inspect_masks(dataset.records)["0"] == 8
    assert content_of(dataset.records[0]).masks != content_of(open_dataset(root).records[0]).masks


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_parts_are_the_mask_again(seed: int, size: int) -> None:
    """Properties: parts do not overlap, are not empty, together they are the mask. Oracle of their number: scipy."""
    from scipy import ndimage

    mask = np.kron(np.random.default_rng(seed).random((9, 12)) < 0.4, np.ones((size, size))).astype(np.bool_)
    parts = parts_of(Record("r", Path("r.png")), mask[None])
    assert parts.shape[1:] == mask.shape
    assert len(parts) == ndimage.label(mask, np.ones((3, 3)))[1]
    assert np.array_equal(parts.sum(0), mask.astype(int))


@given(st.integers(0, 1000), st.integers(55, 95), st.lists(st.integers(1, 6), min_size=1, max_size=3, unique=True))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flat_levels_come_back_from_a_jpeg(tmp_path: Path, seed: int, quality: int, levels: list[int]) -> None:
    """Discs of levels that are 40 apart: as many levels as were drawn, and each disc again."""
    labels = np.zeros((HIGH, WIDE * len(levels)), np.uint8)
    for number, level in enumerate(levels):
        labels[:, number * WIDE : (number + 1) * WIDE][disc(seed + number)[1]] = level * 40
    path = put(tmp_path / "x.jpg", labels, quality=quality)
    pixels = np.asarray(Image.open(path))
    found = flat_levels(pixels, lossy=True)
    assert len(found) == len(levels) + 1
    back = snapped(pixels, sorted(found), lossy=True)[..., 0]
    for number, level in enumerate(levels):
        nearest = min(found, key=lambda value, level=level: abs((value & 255) - level * 40)) & 255
        part = back[:, number * WIDE : (number + 1) * WIDE] == nearest
        assert iou(part, disc(seed + number)[1]) > 0.9
