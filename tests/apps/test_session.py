"""One model, asked in every way. Oracles: `Segmenter.decode` and `find` on the same picture, pictures with known discs,
a specialist that is its own base, and the promise of a conformal threshold on the very pictures that set it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from small_models import CHANNELS, decoded, finder, picture, pointed, small, specialist

from specialsam.apps import session as module
from specialsam.apps.answers import Answer, FoundObject
from specialsam.apps.asked import Asked
from specialsam.apps.session import GRID_THRESHOLD, Asking, Session, answer_asked, find_in, open_session
from specialsam.core.errors import UsageError
from specialsam.core.geometry import BoolArray, ImageArray
from specialsam.core.masks import from_rles
from specialsam.core.types import Embedding, Prediction, Prompts
from specialsam.data.tiles import TileSettings
from specialsam.metrics.conformal import conformal_threshold
from specialsam.models.backends import with_backend
from specialsam.models.finder import By, Finder, Found, find
from specialsam.models.finder_files import FinderParts
from specialsam.models.load import load_base, load_model
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone, read_card
from specialsam.models.zoom import zoom

PLAIN = Asking()
ZOOM, TILES = Asking(zoom=True), Asking(tiles=TileSettings(side=32))


@pytest.fixture(scope="module")
def base() -> Segmenter:
    return small()


@pytest.fixture
def larger(monkeypatch: pytest.MonkeyPatch) -> Segmenter:
    """A side of 128 has room for several objects, and answers that tell their prompts apart."""
    monkeypatch.setattr(Segmenter, "decode_outputs", pointed)
    return small(side=128)


@pytest.fixture(scope="module")
def folder(base: Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A specialist that differs from its base and knows nine pictures of nothing."""
    good = [number / 100 for number in range(1, 10)]
    return specialist(tmp_path_factory.mktemp("models") / "animals", finder(), seed=3, good=good, base=base)


def masks_of(objects: tuple[FoundObject, ...], size: tuple[int, int]) -> BoolArray:
    return from_rles([one.rle for one in objects], *size)


def ious(masks: BoolArray, others: BoolArray) -> np.ndarray[Any, Any]:
    """Intersection over union of each pair, (P, Q)."""
    flat, flat_others = (
        part.reshape(len(part), -1 if len(part) else others[0].size).astype(float) for part in (masks, others)
    )
    shared = flat @ flat_others.T
    return shared / np.maximum(flat.sum(1)[:, None] + flat_others.sum(1) - shared, 1)


def test_a_specialist_brings_its_finder_its_card_and_its_base(base: Segmenter, folder: Path) -> None:
    opened = open_session(folder, with_base=True)
    assert opened.card == read_card(folder)
    assert opened.parts.finder is not None
    assert opened.base is not None
    assert opened.base.decoder_id == base.decoder_id != opened.segmenter.decoder_id
    assert open_session(folder).base is None
    plain = open_session(folder.parent / "base")
    assert (plain.card, plain.base, plain.parts.finder) == (None, None, None)


def test_a_model_that_is_no_specialist_has_no_base(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a specialist folder to compare with its base, got .*base$"):
        open_session(folder.parent / "base", with_base=True)


def test_a_folder_here_that_is_called_as_a_known_model_is_not_mixed_with_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`nano` is the one of the package, whatever lies here: its masks must not go by a stranger's finder."""
    specialist(tmp_path / "nano", finder())
    monkeypatch.chdir(tmp_path)
    opened = open_session("nano")
    assert (opened.card, opened.parts.finder) == (None, None)
    assert opened.segmenter.encoder_id == load_model("nano").encoder_id


def test_thresholds_that_need_no_promise(folder: Path) -> None:
    own = replace(open_session(folder), parts=FinderParts(finder(threshold=0.25)))
    assert own.threshold(PLAIN) == 0.25
    assert own.threshold(Asking(threshold=0.0)) == 0.0
    assert replace(own, parts=FinderParts()).threshold(PLAIN) == GRID_THRESHOLD


def test_a_promise_sets_the_threshold_just_above_the_conformal_one(folder: Path) -> None:
    """Of scores .01 to .09 and a rate of 20 % it is the eighth: by hand, ceil(10 * .8)."""
    opened = open_session(folder)
    assert opened.card is not None
    least = opened.threshold(Asking(false_alarms=0.2))
    assert np.float32(least) > np.float32(0.08) == np.float32(conformal_threshold(opened.card.alarm.good_scores, 0.2))
    assert np.float32(least) == np.nextafter(np.float32(0.08), np.float32(1))
    assert opened.threshold(Asking(false_alarms=0.2, threshold=0.9)) == least, "the promise counts"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("too few", r"expected at least 99 good images for a false-alarm rate of 0.01, got 9; give more good images"),
        ("no finder", r"expected a specialist with a finder for a promise on false alarms, got a model without"),
        ("no card", r"expected a specialist with a finder for a promise on false alarms, got a model without"),
        ("no scores", r"got one without; give it some: specialsam calibrate SPECIALIST PICTURES"),
        (
            "bf16",
            r"in which the specialist scored good pictures for a promise on false alarms, got bf16; take openvino",
        ),
        ("tiles", r"expected pictures that are looked at as a whole for a promise on false alarms, got tiles"),
    ],
)
def test_promises_that_cannot_be_kept(folder: Path, how: str, words: str) -> None:
    opened = open_session(folder)
    assert opened.card is not None
    asking = Asking(false_alarms=0.01 if how == "too few" else 0.2)
    if how == "no finder":
        opened = replace(opened, parts=FinderParts())
    elif how == "no card":
        opened = replace(opened, card=None)
    elif how == "no scores":
        silent = opened.card.alarm.model_copy(update={"good_scores": []})
        opened = replace(opened, card=opened.card.model_copy(update={"alarm": silent}))
    elif how == "bf16":
        opened = replace(opened, segmenter=with_backend(opened.segmenter, "torch-bf16"))
    elif how == "tiles":
        asking = replace(asking, tiles=TileSettings(side=32))
    with pytest.raises(UsageError, match=words) as caught:
        find_in(opened, picture(0), asking)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("most", [1, 10, 40])
def test_the_pictures_that_a_promise_was_set_on_show_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """With n pictures and a rate of 1 / (n + 1) the threshold is the highest of their scores.

    A head that has many proposals and trusts its middles least: with more of them than the scores were made of, surer
    objects would come to light.
    """
    monkeypatch.setattr(Segmenter, "decode_outputs", pointed)
    sees, head = small(side=256), finder("point", seed=4)
    head.calibration.copy_(torch.tensor([-3.0, 3.0, 0.0, 2.0, 0.0, -6.0]))
    pictures = [picture(number, (256, 256)) for number in range(4)]
    scores = [find(head, sees, sees.encode(image)).score for image in pictures]
    more = [find(head, sees, sees.encode(image), 40).score for image in pictures]
    assert max(more) > max(scores)
    card = read_card(folder)
    card = card.model_copy(update={"alarm": card.alarm.model_copy(update={"good_scores": scores})})
    opened, asking = Session(sees, FinderParts(head), card), Asking(most=most, false_alarms=0.2)
    assert [len(find_in(opened, image, asking)[0]) for image in pictures] == [0] * 4
    assert all(find_in(opened, image, Asking(most=most))[0] for image in pictures)


@pytest.mark.parametrize("by", ["point", "box", "both"])
def test_what_the_finder_finds_is_what_is_found(larger: Segmenter, by: By) -> None:
    """`find` and the decoder's masks, in the same order, with the same probabilities."""
    shown = 0
    for seed in range(6):
        image, head = picture(seed, (50, 70)), finder(by, seed)
        found = find(head, larger, larger.encode(image)).above(0.1)
        objects, beside = find_in(Session(larger, FinderParts(head)), image, Asking(threshold=0.1))
        masks = found.prediction.masks()[:, 0]
        once = [place for place in range(len(found)) if masks[place].any()]
        assert (masks_of(objects, (50, 70)) == masks[once]).all()
        assert [one.score for one in objects] == pytest.approx(found.probabilities[once].tolist())
        assert beside == ()
        shown += len(objects)
    assert shown > 12


def test_at_most_so_many_are_the_surest_ones(larger: Segmenter) -> None:
    several = 0
    for seed in range(8):
        head = finder("point", seed)
        head.calibration.copy_(torch.tensor([0.1, 5.0, 0.0, 2.0, 0.0, -4.0]))
        opened, image = Session(larger, FinderParts(head)), picture(seed)
        objects, _ = find_in(opened, image, PLAIN)
        several += len(objects) > 1
        for most in (1, 2, 3):
            assert find_in(opened, image, Asking(most=most))[0] == objects[:most]
    assert several > 4


def test_a_model_without_a_finder_is_asked_by_a_grid(larger: Segmenter) -> None:
    objects, _ = find_in(Session(larger, FinderParts()), picture(0), Asking(threshold=0.0, most=5))
    assert len(objects) == 5
    scores = [one.score for one in objects]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


def test_a_second_look_goes_to_what_a_grid_found_too(larger: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each object by the point that found it."""
    looked: list[Prompts] = []

    def looks(segmenter: Segmenter, image: ImageArray, prompts: Prompts, first: Prediction) -> Any:
        looked.append(prompts)
        return zoom(segmenter, image, prompts, first)

    monkeypatch.setattr(module, "zoom", looks)
    objects, _ = find_in(Session(larger, FinderParts()), picture(0), Asking(threshold=0.0, most=5, zoom=True))
    [prompts] = looked
    assert objects
    assert prompts.points is not None
    assert len(prompts) == 5
    assert len(np.unique(prompts.points.reshape(5, 2), axis=0)) == 5


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (7, 5), (33, 64)])
@pytest.mark.parametrize("how", [PLAIN, ZOOM, TILES], ids=["plain", "zoom", "tiles"])
def test_pictures_of_any_size(base: Segmenter, size: tuple[int, int], how: Asking) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    for parts in (FinderParts(finder()), FinderParts()):
        objects, beside = find_in(Session(base, parts, base=base), image, replace(how, threshold=0.0))
        assert all(one.rle["size"] == [*size] for one in (*objects, *beside))
    asked = [Asked("a.png", box=(0, 0, size[1] - 1, size[0] - 1)).in_pixels(*size)]
    objects, _ = answer_asked(Session(base, FinderParts()), image, asked, how)
    assert all(one.rle["size"] == [*size] for one in objects)


class Eyes(torch.nn.Module):
    """An encoder that hands on what it is shown."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels


def discs(size: tuple[int, int], places: list[tuple[int, int, int]]) -> BoolArray:
    """Discs (x, y, radius) as masks (P, H, W)."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack([(x - at_x) ** 2 + (y - at_y) ** 2 < radius**2 for at_x, at_y, radius in places])


@contextmanager
def seeing() -> Iterator[Session]:
    """A session whose finder sees each bright piece that is large in what the encoder sees, the larger the surer."""
    sam: Any = torch.nn.ModuleDict({"vision_encoder": Eyes(), "mask_decoder": torch.nn.Linear(1, 1)})
    sam.config = SimpleNamespace(model_type="sam", prompt_encoder_config=SimpleNamespace(patch_size=16))

    def see(head: Finder, segmenter: Segmenter, embedding: Embedding, most: int) -> Found:
        bright = torch.nn.functional.avg_pool2d((embedding.tensor[:1] > 1).float(), 4)[0].numpy()
        pieces, count = ndimage.label(bright > 0.5)
        large = [pieces == number for number in range(1, count + 1) if (pieces == number).sum() >= 8]
        masks = np.array(large, np.bool_).reshape(len(large), *bright.shape)
        scores = np.clip(0.3 + masks.sum((1, 2)) / 1000, 0, 1).astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        logits = torch.from_numpy(np.where(masks[order], 8 * bright - 3.9, -8).astype(np.float32))[:, None]
        answers = Prediction(logits, torch.ones(len(order), 1), embedding.geometry)
        zeros = np.zeros((len(order), 4), np.float32)
        return Found(answers, scores[order], zeros[:, :2], zeros, bright, 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "find", see)
        yield Session(Segmenter("eyes", sam, 128), FinderParts(finder()))


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), wide=st.integers(300, 600), tall=st.integers(130, 500))
def test_with_tiles_each_object_is_found_once_and_in_its_place(seed: int, wide: int, tall: int) -> None:
    """Discs that touch no other, no wider than what tiles share: whole in some tile, cut in others, lost in the whole
    picture where they are small. None comes twice, none is a piece, and all lie where they were put.
    """
    rng = np.random.default_rng(seed)
    places: list[tuple[int, int, int]] = []
    for _ in range(12):
        x, y, radius = int(rng.integers(16, wide - 16)), int(rng.integers(16, tall - 16)), int(rng.integers(9, 15))
        if all(np.hypot(x - a, y - b) > radius + r + 14 for a, b, r in places):
            places.append((x, y, radius))
    true = discs((tall, wide), places)
    image = np.where(true.any(0)[..., None], 255, 60).astype(np.uint8).repeat(3, -1)
    with seeing() as opened:
        objects, _ = find_in(opened, image, Asking(tiles=TileSettings(side=128, overlap=0.25), most=50))
    overlaps = ious(masks_of(objects, (tall, wide)), true)
    assert len(objects) == len(places)
    assert (overlaps.max(0) > 0.6).all()
    assert (overlaps.max(1) > 0.6).all()
    for one, mask in zip(objects, masks_of(objects, (tall, wide)), strict=True):
        x0, y0, x1, y1 = map(int, one.box)
        assert mask[y0 : y1 + 1, x0 : x1 + 1].sum() == mask.sum()


def test_pieces_of_an_object_that_is_larger_than_a_tile_are_not_found_beside_it() -> None:
    true = discs((300, 500), [(250, 150, 120), (40, 40, 12)])
    image = np.where(true.any(0)[..., None], 255, 60).astype(np.uint8).repeat(3, -1)
    with seeing() as opened:
        objects, _ = find_in(opened, image, Asking(tiles=TileSettings(side=128)))
    overlaps = ious(masks_of(objects, (300, 500)), true)
    assert overlaps.shape == (2, 2)
    assert (overlaps.max(0) > 0.6).all()


@pytest.mark.parametrize("how", [PLAIN, ZOOM, TILES], ids=["plain", "zoom", "tiles"])
def test_no_two_objects_are_the_same(larger: Segmenter, how: Asking) -> None:
    pairs = 0
    for seed in range(6):
        opened, size = Session(larger, FinderParts(finder("point", seed))), (80, 90)
        objects, _ = find_in(opened, picture(seed, size), replace(how, most=30))
        masks = masks_of(objects, size)
        assert masks.any((1, 2)).all()
        for first, second in combinations(range(len(objects)), 2):
            assert ious(masks[[first]], masks[[second]])[0, 0] <= 0.5
            pairs += 1
    assert pairs


@pytest.mark.parametrize("how", [PLAIN, ZOOM, TILES], ids=["plain", "zoom", "tiles"])
@pytest.mark.parametrize("by", ["point", "box", "both"])
def test_a_base_that_is_the_specialist_answers_the_same_beside_it(larger: Segmenter, by: By, how: Asking) -> None:
    """Equal weights, asked the same, with or without a second look: any difference on the page would be made up."""
    twin = clone(larger, "twin")
    found = 0
    for seed in range(3):
        opened = Session(larger, FinderParts(finder(by, seed)), base=twin)
        objects, beside = find_in(opened, picture(seed, (80, 90)), how)
        assert [one.rle for one in beside] == [one.rle for one in objects]
        found += len(objects)
    assert found


@pytest.mark.parametrize("how", [PLAIN, ZOOM, TILES], ids=["plain", "zoom", "tiles"])
def test_boxes_of_one_pixel_are_answered_too(base: Segmenter, how: Asking) -> None:
    """A box (x0, y0, x1, y1) of the outermost pixels may be a line or a single pixel; `in_pixels` cuts some to that."""
    for image, small_box in (
        (picture(7), box(5, 5, 5, 20)),
        (picture(8), box(30, 9, 30, 9)),
        (picture(9), box(9, 47, 40, 60)),
    ):
        objects, _ = answer_asked(Session(base, FinderParts()), image, [small_box.in_pixels(48, 64)], how)
        assert len(objects) <= 1


def test_the_base_answers_each_object_at_its_place(folder: Path) -> None:
    """Oracle: the base's own answer to the prompts that `find` put to the specialist, object by object."""
    opened = open_session(folder, with_base=True)
    assert opened.base is not None
    assert opened.parts.finder is not None
    image = picture(4)
    found = find(opened.parts.finder, opened.segmenter, opened.segmenter.encode(image)).above(0.0)
    objects, beside = find_in(opened, image, PLAIN)
    assert len(beside) == len(objects) == len(found)
    prompts = Prompts("found", found.points[:, None], np.ones((len(found), 1), np.int64), found.boxes)
    assert (masks_of(beside, (48, 64)) == decoded(opened.base, image, prompts)).all()
    assert [one.score for one in beside] == [one.score for one in objects]
    assert [one.rle for one in beside] != [one.rle for one in objects]


def test_a_specialist_without_a_finder_has_nothing_that_its_base_could_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grid asks hundreds of points: empty masks beside would say that the base sees nothing."""
    monkeypatch.setattr(Segmenter, "decode_outputs", pointed)
    opened = replace(open_session(folder, with_base=True), parts=FinderParts())
    objects, beside = find_in(opened, picture(0), Asking(threshold=0.0))
    assert objects
    assert beside == ()


def box(x0: float, y0: float, x1: float, y1: float, label: str = "") -> Asked:
    return Asked("a.png", box=(x0, y0, x1, y1), label=label, source=f"of {label}")


def clicks(*places: tuple[float, float], label: str = "") -> Asked:
    points = np.array(places, np.float32)
    return Asked("a.png", points, np.ones(len(points), np.int64), label=label)


def test_what_is_asked_is_what_the_decoder_answers(base: Segmenter) -> None:
    """`Segmenter.decode` of the same prompts, kind by kind; labels stay with their objects, the surest come first."""
    image = picture(2)
    one, two, three = box(3, 4, 30, 40, "fox"), box(10, 10, 50, 44, "owl"), box(40, 2, 60, 20, "elk")
    point, pair = clicks((20, 20), label="hare"), clicks((5, 6), (50, 40), label="lynx")
    asked = [one, point, two, pair, three]
    objects, beside = answer_asked(Session(base, FinderParts()), image, asked, PLAIN)
    boxes = Prompts("user", boxes=np.array([one.box, two.box, three.box], np.float32))
    expected = dict(zip(("fox", "owl", "elk"), decoded(base, image, boxes), strict=True))
    for alone in (point, pair):
        assert alone.points is not None
        assert alone.point_labels is not None
        prompts = Prompts("user", alone.points[None], alone.point_labels[None])
        expected[alone.label] = decoded(base, image, prompts)[0]
    assert {found.label for found in objects} == {label for label, mask in expected.items() if mask.any()}
    assert len(objects) >= 4
    for found, mask in zip(objects, masks_of(objects, (48, 64)), strict=True):
        assert (mask == expected[found.label]).all()
    assert {found.source for found in objects} <= {"of fox", "of owl", "of elk", ""}
    assert [found.score for found in objects] == sorted((found.score for found in objects), reverse=True)
    assert beside == ()


@pytest.mark.parametrize("how", [PLAIN, ZOOM, TILES], ids=["plain", "zoom", "tiles"])
def test_the_base_answers_what_was_asked(folder: Path, base: Segmenter, how: Asking) -> None:
    image = picture(3)
    asked = [clicks((20, 20), label="a"), box(3, 4, 60, 40, "b"), clicks((60, 30), label="c"), box(30, 4, 50, 40, "d")]
    twins = Session(base, FinderParts(), base=clone(base, "twin"))
    objects, beside = answer_asked(twins, image, asked, how)
    assert objects
    assert beside == objects or [one.rle for one in beside] == [one.rle for one in objects]
    other = open_session(folder, with_base=True)
    objects, beside = answer_asked(other, image, asked, how)
    alone, _ = answer_asked(Session(load_base(folder), FinderParts()), image, asked, how)
    assert [one.label for one in beside] == [one.label for one in objects]
    by_label = {one.label: one.rle for one in alone}
    assert all(one.rle == by_label[one.label] for one in beside if one.label in by_label)


def test_a_picture_with_hundreds_of_boxes_needs_no_more_memory_at_once(
    base: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answers as one by one; no more masks of the picture's size at once than there is room for."""
    image, made = picture(5), []
    real = Prediction.masks

    def counted(self: Prediction, threshold: float = 0.0) -> BoolArray:
        made.append(len(self))
        return real(self, threshold)

    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 48, (100, 2, 2)), 1).reshape(100, 4)
    asked = [box(*map(float, one), label=str(number)) for number, one in enumerate(corners)]
    whole, _ = answer_asked(Session(base, FinderParts()), image, asked, PLAIN)
    monkeypatch.setattr(module, "ROOM", 48 * 64 * 7)
    monkeypatch.setattr(Prediction, "masks", counted)
    parts, _ = answer_asked(Session(base, FinderParts()), image, asked, PLAIN)
    assert max(made) <= 7
    assert [one.label for one in parts] == [one.label for one in whole]
    apart = masks_of(parts, (48, 64)) != masks_of(whole, (48, 64))
    assert apart.mean() < 1e-4


def test_tiles_are_encoded_once_for_all_objects(base: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[int, int]] = []
    real = Segmenter.encode_batch

    def counted(self: Segmenter, images: Any) -> Any:
        shown.extend(image.shape[:2] for image in images)
        return real(self, images)

    monkeypatch.setattr(Segmenter, "encode_batch", counted)
    image = picture(6, (64, 64))
    asked = [clicks((10, 10)), clicks((40, 40)), clicks((12, 12), (20, 20)), box(2, 2, 60, 60)]
    answer_asked(Session(base, FinderParts(), base=clone(base, "twin")), image, asked, TILES)
    assert shown.count((64, 64)) == 1
    assert shown.count((32, 32)) <= len(TileSettings(side=32).windows((64, 64)))


def test_large_pictures_in_tiles_need_memory_for_their_objects_alone() -> None:
    """Forty squares in 3 megapixels: no stack of masks of the whole picture's size."""
    import tracemalloc

    size = (1500, 2000)
    places = [(120 + 240 * column, 150 + 290 * row, 25) for column in range(8) for row in range(5)]
    image = np.full((*size, 3), 60, np.uint8)
    for x, y, radius in places:
        image[y - radius : y + radius, x - radius : x + radius] = 255
    tracemalloc.start()
    with seeing() as opened:
        objects, _ = find_in(opened, image, Asking(tiles=TileSettings(side=250), most=200))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(objects) == len(places)
    assert peak < 20 * size[0] * size[1], f"{peak / 1e6:.0f} MB"


def test_who_answers_is_known_by_all_that_an_answer_follows_from(folder: Path, base: Segmenter) -> None:
    opened = open_session(folder, with_base=True)
    assert opened.card is not None
    assert opened.card.finder is not None
    other_by = opened.card.model_copy(update={"finder": opened.card.finder.model_copy(update={"by": "point"})})
    others = [
        replace(opened, base=None),
        replace(opened, card=None),
        replace(opened, segmenter=base),
        replace(opened, base=opened.segmenter),
        replace(opened, card=other_by),
    ]
    assert len({tuple(one.identity) for one in (opened, *others)}) == 6
    assert open_session(folder, with_base=True).identity == opened.identity


def test_answers_are_kept_as_they_are(base: Segmenter) -> None:
    """An answer goes through JSON and comes back equal."""
    import json

    objects, beside = find_in(Session(base, FinderParts(finder()), base=base), picture(1), PLAIN)
    answer = Answer("a.png", (48, 64), objects, beside=beside, taken="2026-01-31T18:00:00", latitude=1.5, longitude=2)
    assert Answer.read(json.loads(json.dumps(answer.as_json()))) == answer
    assert (answer.masks() == masks_of(objects, (48, 64))).all()
    assert base.encode(picture(1)).tensor.shape[0] == CHANNELS
