"""Marked photographs. Oracles: colours mixed by hand, windows found by hand, and each picture made of the others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from specialsam.apps.answers import Answer, FoundObject
from specialsam.apps.marks import (
    CROPS,
    LEAST,
    THUMBNAIL,
    Pictures,
    _room,
    crop,
    marked,
    pictures_of,
    save_pictures,
    side_by_side,
)
from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, ImageArray
from specialsam.core.masks import tight_boxes, to_rle
from specialsam.data.images import read_image
from specialsam.report.palette import HIT


def flat(height: int, width: int, grey: int) -> ImageArray:
    return np.full((height, width, 3), grey, np.uint8)


def noise(height: int, width: int) -> ImageArray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def ring(height: int, width: int, outer: int, inner: int) -> BoolArray:
    """A disc with a hole, in the middle."""
    y, x = np.mgrid[:height, :width]
    far = np.hypot(y - height / 2, x - width / 2)
    return np.asarray((far < outer) & (far >= inner))


def found(mask: BoolArray, score: float = 0.75) -> FoundObject:
    x0, y0, x1, y1 = tight_boxes(mask[None])[0].tolist()
    return FoundObject(to_rle(mask), (x0, y0, x1, y1), score)


def answer(*masks: BoolArray, score: float = 0.75) -> Answer:
    return Answer("a.jpg", masks[0].shape, tuple(found(mask, score) for mask in masks))


def test_nothing_found_is_the_photograph() -> None:
    image = noise(30, 40)
    assert (marked(image, Answer("a.jpg", (30, 40))) == image).all()
    assert marked(image, Answer("a.jpg"), longest=20).shape == (15, 20, 3)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_an_object_shows_on_any_ground(grey: int) -> None:
    """A fifth of the fill is colour; hole and far ground are untouched; the line is bright beside dark."""
    image = flat(400, 600, grey)
    kept = image.copy()
    picture = marked(image, answer(ring(400, 600, 120, 40)))
    assert (image == kept).all()
    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    assert (picture[200, 300] == grey).all()
    assert (picture[10:20, 300:] == grey).all()
    assert np.abs(picture[200, 380] - (0.8 * grey + 0.2 * np.array(HIT))).max() <= 1
    across = picture[200, 400:450].astype(int)
    assert (across == HIT).all(1).any()
    assert (across.sum(1) < 120).any()
    assert (picture[200, 252:268] == HIT).all(1).any(), "the hole has a line as well"


def test_lines_grow_with_the_picture() -> None:
    """Left of the edge of what is filled: half of the line and of the dark one below it."""
    mask = np.zeros((2000, 2000), np.bool_)
    mask[:, 500:] = True
    widths = []
    for side in (150, 420, 1280, 2000):
        picture = marked(flat(2000, 2000, 255), answer(mask), longest=side)
        widths.append(int((picture[side // 2, : side // 4] < 255).any(1).sum()))
    assert widths == sorted(widths)
    assert 1 <= widths[0] < widths[-1] < 10


@pytest.mark.parametrize(
    ("size", "shown"), [((1, 1), (1, 1)), ((10, 4000), (3, 1280)), ((4000, 10), (1280, 3)), ((2, 3), (2, 3))]
)
def test_pictures_of_any_size(size: tuple[int, int], shown: tuple[int, int], tmp_path: Path) -> None:
    """No room for a tag is no error; the last pixel of a picture can be an object."""
    height, width = size
    mask = np.zeros(size, np.bool_)
    mask[-1, -1] = True
    one = answer(mask)
    image = noise(height, width)
    assert marked(image, one).shape == (*shown, 3)
    assert crop(image, one.objects[0]).shape == (min(height, LEAST), min(width, LEAST), 3)
    names = save_pictures(image, replace(one, beside=one.objects), tmp_path)
    assert max(read_image(tmp_path / names.thumbnail).shape[:2]) == min(max(size), THUMBNAIL)
    assert read_image(tmp_path / names.beside).shape[0] > shown[0]


def test_an_empty_mask_of_the_base_is_no_error() -> None:
    mask = ring(60, 80, 20, 0)
    nothing = FoundObject(to_rle(np.zeros((60, 80), np.bool_)), (0, 0, 0, 0), 0.1)
    both = side_by_side(noise(60, 80), replace(answer(mask), beside=(nothing,)))
    assert (both[-60:, :80] == noise(60, 80)).all()


def test_masks_of_another_image_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        marked(noise(30, 40), answer(ring(40, 30, 5, 0)))
    said = "a.jpg: expected masks of the image's 30x40 (height x width), got 40x30; give the answer for this very image"
    assert str(caught.value) == said


def test_base_left_specialist_right() -> None:
    image = noise(300, 400)
    small, large = ring(300, 400, 30, 0), ring(300, 400, 100, 0)
    one = replace(answer(large), beside=answer(small).objects)
    both = side_by_side(image, one)
    assert (both[-300:, :400] == marked(image, answer(small))).all()
    assert (both[-300:, -400:] == marked(image, answer(large))).all()
    head = both[:-300]
    assert (head[:, :200] < 128).any(), "a caption above each"
    assert (head[:, -400:-200] < 128).any()
    with pytest.raises(DataError, match=r"a\.jpg: expected the base's answers"):
        side_by_side(image, answer(large))


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ((100, 100, 199, 149), (75, 50, 225, 200)),  # 100 wide: a square of 150 around (150, 125)
        ((0, 0, 99, 99), (0, 0, 150, 150)),
        ((300, 200, 399, 299), (250, 150, 400, 300)),
        ((0, 140, 399, 159), (0, 0, 400, 300)),
        ((200, 150, 200, 150), (168, 118, 232, 182)),
    ],
)
def test_crops_by_hand(box: tuple[float, float, float, float], window: tuple[int, int, int, int]) -> None:
    image = noise(300, 400)
    x0, y0, x1, y1 = window
    cut = crop(image, replace(answer(ring(300, 400, 9, 0)).objects[0], box=box))
    assert np.array_equal(cut, image[y0:y1, x0:x1])


@given(st.data())
def test_tags_stay_in_the_picture(data: st.DataObject) -> None:
    """Wherever an object is; and where a place without clash exists among the four, none is covered."""
    width, height = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300))
    x = sorted(data.draw(st.lists(st.integers(0, width), min_size=2, max_size=2)))
    y = sorted(data.draw(st.lists(st.integers(0, height), min_size=2, max_size=2)))
    wide, tall = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 30))
    box = x[0], y[0], x[1], y[1]
    room = _room(box, wide, tall, (width, height), [box])
    if wide > width or tall > height:
        assert room is None
        return
    assert room is not None
    assert 0 <= room[0] < room[2] <= width
    assert 0 <= room[1] < room[3] <= height
    assert (room[2] - room[0], room[3] - room[1]) == (wide, tall)
    if box[1] >= 2 * tall:
        assert room[3] <= box[1]


def test_tags_of_neighbours_do_not_cover_each_other() -> None:
    """Four small objects in a row, closer than their tags are wide."""
    boxes = [(300 + 14 * number, 300, 310 + 14 * number, 310) for number in range(4)]
    placed: list[tuple[int, int, int, int]] = []
    for box in boxes:
        room = _room(box, 50, 16, (900, 600), [*boxes, *placed])
        assert room is not None
        for x0, y0, x1, y1 in (*boxes, *placed):
            assert room[0] >= x1 or room[2] <= x0 or room[1] >= y1 or room[3] <= y0
        placed.append(room)


def test_names_of_pictures_are_safe_and_their_own() -> None:
    mask = ring(60, 80, 20, 0)
    files = [
        "a/b.jpg",
        "a_b.jpg",
        "A/b.jpg",
        "../../etc/passwd",
        "<script>.jpg",
        "q\"'.jpg",
        "a\nb",
        "caf\udce9",
        "W" * 999,
        "",
    ]
    names = [pictures_of(replace(answer(mask), file=file)) for file in files]
    paths = [path for one in names for path in (one.thumbnail, one.marked, *one.crops)]
    assert len(set(paths)) == len({path.lower() for path in paths}) == 3 * len(files)
    for path in paths:
        folder, name = path.split("/")
        assert folder in ("thumbnails", "marked", "crops")
        assert all(letter.isascii() and (letter.isalnum() or letter in "-.") for letter in name)
        assert name[0].isalnum()
        assert len(name) < 80


def test_a_picture_belongs_to_one_answer() -> None:
    """Another score is another picture; the time it was taken is not in it; an answer read back has the same."""
    one = answer(ring(60, 80, 20, 0))
    other = answer(ring(60, 80, 20, 0), score=0.5)
    assert pictures_of(one) == pictures_of(replace(one, taken="2026-01-31T18:00:00"))
    assert pictures_of(one) == pictures_of(Answer.read(json.loads(json.dumps(one.as_json()))))
    assert len({pictures_of(some).marked for some in (one, other, replace(one, beside=other.objects))}) == 3
    assert pictures_of(one).base == pictures_of(one).beside == ""


def test_nothing_found_leaves_no_picture(tmp_path: Path) -> None:
    names = save_pictures(noise(30, 40), Answer("a.jpg", (30, 40)), tmp_path)
    assert names == pictures_of(Answer("a.jpg", (30, 40))) == Pictures("", "", ())
    assert list(tmp_path.iterdir()) == []


def test_pictures_as_files(tmp_path: Path) -> None:
    """Each is the drawing as JPEG, within what JPEG loses; crops of many objects are bounded in number."""
    image = np.asarray(Image.fromarray(noise(6, 8)).resize((800, 600), Image.Resampling.BICUBIC))
    masks = [ring(600, 800, 10 + number, 0) for number in range(CROPS + 3)]
    one = replace(answer(*masks), beside=answer(*masks[::-1]).objects)
    names = save_pictures(image, one, tmp_path)
    assert names == pictures_of(one)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {names.thumbnail, names.marked, names.base, names.beside, *names.crops}
    assert len(names.crops) == CROPS
    for name, drawn in (
        (names.marked, marked(image, one)),
        (names.thumbnail, marked(image, one, THUMBNAIL)),
        (names.base, marked(image, replace(one, objects=one.beside), THUMBNAIL)),
        (names.beside, side_by_side(image, one)),
        (names.crops[0], crop(image, one.objects[0])),
    ):
        saved = read_image(tmp_path / name)
        assert saved.shape == drawn.shape
        assert np.abs(saved.astype(int) - drawn).mean() < 4
