"""Names that a person would pair. Oracle: pairs by construction, and by hypothesis for any common prefix and suffix."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from discs import disc, put
from hypothesis import given
from hypothesis import strategies as st

from specialsam.data import load, open_dataset
from specialsam.data.matching import matches, nearest

STEMS = ("1", "2", "10")
FORMS: dict[str, tuple[str, str]] = {
    "equal": ("{}", "{}"),
    "a suffix": ("{}", "{}_mask"),
    "a prefix": ("{}", "mask_{}"),
    "a prefix with a hyphen": ("{}", "mask-{}"),
    "a suffix with a hyphen": ("{}", "{}-mask"),
    "two prefixes": ("img_{}", "mask_{}"),
    "two prefixes without a mark": ("image{}", "label{}"),
    "a double ending": ("{}", "{}.jpg"),
    "a channel": ("case_{}_0000", "case_{}"),
    "capitals": ("IMG_{}", "img_{}"),
    "an ome ending": ("{}.ome", "{}"),
    "composed": (unicodedata.normalize("NFD", "Käfer_{}"), unicodedata.normalize("NFC", "Käfer_{}")),
    "a class folder": ("{}", "spot/{}"),
    "a mirrored folder": ("site/{}", "site/{}_gt"),
    "Cityscapes": ("aachen/{}_leftImg8bit", "aachen/{}_gtFine_labelIds"),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_names(form: str) -> None:
    image, mask = FORMS[form]
    images, masks = [image.format(stem) for stem in STEMS], [mask.format(stem) for stem in STEMS]
    assert matches(images, masks) == {image.format(stem): [mask.format(stem)] for stem in STEMS}


def test_what_is_equal_goes_first_and_nobody_gets_two_owners() -> None:
    assert matches(["a", "a_b"], ["a_mask", "a_b_k0", "a_b_k1"]) == {"a": ["a_mask"], "a_b": ["a_b_k0", "a_b_k1"]}
    assert matches(["a/1", "b/1"], ["x/1"]) == {}, "two images of one last name: no class folder"
    assert matches(["1"], ["cat/1", "dog/1"]) == {"1": ["cat/1", "dog/1"]}
    assert matches(["1", "2"], []) == {}
    assert matches(["01", "1"], ["01", "1"]) == {"01": ["01"], "1": ["1"]}


def test_the_nearest_name() -> None:
    assert nearest("frame_12", ["frame_13b", "frame_12x", "other"]) == "frame_12x"
    assert nearest("a", ["zzz"]) == ""


words = st.text("abcxyz", min_size=1, max_size=5)


@given(st.lists(st.integers(0, 9999), min_size=2, max_size=12, unique=True), words, words, st.sampled_from("_-. "))
def test_any_common_words_around_numbers_are_seen_through(
    numbers: list[int], before: str, after: str, mark: str
) -> None:
    images = [f"{number:04d}" for number in numbers]
    masks = [f"{before}{mark}{number:04d}{mark}{after}" for number in numbers]
    assert matches(images, masks) == {image: [mask] for image, mask in zip(images, masks, strict=True)}


def test_an_image_without_a_mask_names_the_nearest(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / f"images/frame_{number}.png", disc(number)[0])
        put(tmp_path / f"masks/frame_{number}.png", disc(number)[1].astype(np.uint8) * 255)
    (tmp_path / "masks/frame_2.png").rename(tmp_path / "masks/frmae_2.png")
    messages = [problem.message for problem in open_dataset(tmp_path).problems]
    assert messages[0].endswith("expected a mask of the same name, found none; the nearest is frmae_2.png")


def test_linked_folders_are_followed_but_not_back(tmp_path: Path) -> None:
    for part, seeds in (("set", (0, 1)), ("other", (7, 8))):
        for seed in seeds:
            put(tmp_path / part / f"images/{seed}.png", disc(seed)[0])
            put(tmp_path / part / f"masks/{seed}.png", disc(seed)[1].astype(np.uint8) * 255)
    for kind in ("images", "masks"):
        (tmp_path / "set" / kind / "site2").symlink_to(tmp_path / "other" / kind)
        (tmp_path / "set" / kind / "loop").symlink_to("..")
    dataset = open_dataset(tmp_path / "set")
    assert sorted(record.id for record in dataset.records) == ["0", "1", "site2/7", "site2/8"]
    assert not dataset.problems
    for record in dataset.records:
        assert np.array_equal(load(record).masks[0], disc(int(record.image.stem))[1])


def test_another_tools_card_is_a_note(tmp_path: Path) -> None:
    put(tmp_path / "images/a.png", disc(0)[0])
    put(tmp_path / "masks/a.png", disc(0)[1].astype(np.uint8) * 255)
    (tmp_path / "dataset.json").write_text(
        '{"name": "Task1", "labels": {"spot": 1}, "numTraining": 1, "license": "MIT"}'
    )
    dataset = open_dataset(tmp_path)
    assert (dataset.name, dataset.licence, len(dataset)) == ("Task1", "MIT", 1)
    assert any("another tool's" in note for note in dataset.notes)
