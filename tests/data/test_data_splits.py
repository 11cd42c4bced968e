"""Splits. Oracles: properties that must hold for every input, and shares counted by hand."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import real_data

from specialsam.core.errors import DataError, UsageError
from specialsam.core.types import Record, Split
from specialsam.data import open_dataset
from specialsam.data.splits import split_records, stable_hash


def record(id: str, category: str = "", split: Split | None = None, group: str = "") -> Record:
    return Record(id, Path(f"{id}.png"), category=category, split=split, group=group)


def many(count: int, categories: int = 1) -> list[Record]:
    return [record(f"r{index:05d}", f"c{index % categories}") for index in range(count)]


@st.composite
def any_records(draw: st.DrawFn) -> list[Record]:
    count = draw(st.integers(3, 60))
    splits = st.sampled_from([None, None, None, "train", "val", "test"])
    return [
        record(
            f"r{index}",
            draw(st.sampled_from(["a", "b", "c"])),
            draw(splits) if draw(st.booleans()) else None,
            draw(st.sampled_from(["", "", "", "g1", "g2"])),
        )
        for index in range(count)
    ]


@given(any_records(), st.integers(0, 9), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_record_once_whatever_the_order_and_no_group_apart(
    records: list[Record], seed: int, shuffler: random.Random, honour: bool
) -> None:
    groups = {f"r{index}": f"found {index // 2}" for index in range(0, 20, 3)} | {"r0": "x", "r1": "x", "r2": "x"}
    try:
        splits = split_records(records, seed=seed, honour=honour, groups=groups)
    except DataError as error:
        splits = None
        message = str(error)
    again = list(records)
    shuffler.shuffle(again)
    if splits is None:
        assert message.startswith("expected at least")
        with pytest.raises(DataError, match="expected at least"):
            split_records(again, seed=seed, honour=honour, groups=groups)
        return
    assert split_records(again, seed=seed, honour=honour, groups=groups) == splits
    assert sorted(splits) == sorted(record.id for record in records)
    together: dict[str, set[str]] = defaultdict(set)
    for one in records:
        for group in (one.group, groups.get(one.id)):
            if group:
                together[group].add(splits[one.id])
    assert all(len(found) == 1 for found in together.values())
    if honour:
        assert all(splits[one.id] == "test" for one in records if one.split == "test")
        assert all(splits[one.id] in ("val", "test") for one in records if one.split == "val")


def test_the_same_on_every_machine() -> None:
    """A value computed once by hand (sha256sum), and a run in a process with another hash seed."""
    assert stable_hash("0:a") == pytest.approx(int("9df3c5fa", 16) / 2**32, abs=1e-9)
    code = (
        "from pathlib import Path\nfrom specialsam.core.types import Record\n"
        "from specialsam.data.splits import split_records\n"
        "records = [Record(f'r{i:05d}', Path('x'), category=f'c{i % 3}') for i in range(50)]\n"
        "print(sorted(split_records(records).items()))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert out.stdout.strip() == str(sorted(split_records(many(50, 3)).items()))


def test_another_seed_is_another_split() -> None:
    records = many(200)
    assert split_records(records, seed=0) != split_records(records, seed=1)


@given(st.integers(40, 400), st.integers(1, 12), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_each_category_is_within_one_record_of_its_share(count: int, categories: int, seed: int) -> None:
    """Shares .7/.15/.15 of each category, plus or minus the one record that two roundings can move."""
    records = many(count, categories)
    splits = split_records(records, seed=seed)
    table = Counter((one.category, splits[one.id]) for one in records)
    sizes = Counter(one.category for one in records)
    for category, size in sizes.items():
        for split, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
            assert abs(table[category, split] - share * size) <= 2  # one by rounding, one to fill an empty split


def test_single_record_categories_do_not_all_go_to_train() -> None:
    """1,000 categories of one record: binomial with p = .7 has a standard deviation of 14.5."""
    found = Counter(split_records(many(1000, 1000)).values())
    assert abs(found["train"] - 700) < 60
    assert abs(found["val"] - 150) < 50


@given(st.integers(60, 200), st.integers(1, 4), st.integers(0, 5), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_one_record_more_moves_at_most_two_others(count: int, categories: int, seed: int, number: int) -> None:
    records = many(count, categories)
    before = split_records(records, seed=seed)
    after = split_records([*records, record(f"new{number}", "c0")], seed=seed)
    moved = [id for id in before if before[id] != after[id]]
    assert len(moved) <= 2
    assert all(one.category == "c0" for one in records if one.id in moved)


def test_stated_test_is_kept_and_val_is_cut_from_train() -> None:
    records = [record(f"a{i}", split="train") for i in range(170)] + [record(f"b{i}", split="test") for i in range(40)]
    splits = split_records(records)
    assert {id for id, split in splits.items() if split == "test"} == {f"b{i}" for i in range(40)}
    assert Counter(splits.values())["val"] == pytest.approx(170 * 0.15 / 0.85, abs=1)


def test_stated_val_is_kept_and_test_is_cut_from_train() -> None:
    records = [record(f"a{i}", split="train") for i in range(170)] + [record(f"b{i}", split="val") for i in range(40)]
    splits = split_records(records)
    assert {id for id, split in splits.items() if split == "val"} == {f"b{i}" for i in range(40)}
    assert Counter(splits.values())["test"] == pytest.approx(30, abs=1)


def test_all_three_stated_are_kept_and_can_be_ignored() -> None:
    stated: dict[str, Split] = {f"r{i}": ("train", "val", "test")[i % 3] for i in range(30)}  # type: ignore[misc]
    records = [record(id, split=split) for id, split in stated.items()]
    assert split_records(records) == stated
    assert Counter(split_records(records, honour=False).values())["train"] == pytest.approx(21, abs=1)


def test_copy_of_a_test_image_leaves_train() -> None:
    records = [record(f"a{i}", split="train") for i in range(20)] + [record(f"b{i}", split="test") for i in range(5)]
    splits = split_records(records, groups={"a3": "copy", "b1": "copy"})
    assert splits["a3"] == "test"
    assert Counter(splits.values())["test"] == 6


def test_a_set_that_is_all_test_stays_so() -> None:
    assert set(split_records([record(f"b{i}", split="test") for i in range(5)]).values()) == {"test"}


@pytest.mark.parametrize("count", range(3, 20))
def test_tiny_sets_have_all_splits(count: int) -> None:
    for seed in range(5):
        assert set(split_records(many(count, 4), seed=seed).values()) == {"train", "val", "test"}


def test_too_few_records_say_what_is_needed() -> None:
    with pytest.raises(DataError, match="expected at least 3 records to cut train, val, test from, got 2; add images"):
        split_records(many(2))
    with pytest.raises(DataError, match=r"3 groups of near-duplicates .* got 1"):
        split_records(many(9), groups={f"r{i:05d}": "same" for i in range(9)})
    with pytest.raises(DataError, match="got none"):
        split_records([])
    with pytest.raises(DataError, match="'r00000' twice"):
        split_records([*many(4), *many(1)])
    assert set(split_records(many(1), (1.0, 0.0, 0.0)).values()) == {"train"}
    assert set(split_records(many(2), (0.5, 0.0, 0.5)).values()) == {"train", "test"}


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5, 0.5), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5), (0.5, 0.5)]
)
def test_impossible_fractions(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError, match="expected fractions of train, val and test that sum to 1"):
        split_records(many(9), fractions)


def test_zero_fractions_get_nothing() -> None:
    assert set(split_records(many(300, 7), (0.8, 0.2, 0.0)).values()) == {"train", "val"}
    assert set(split_records(many(300, 7), (0.8, 0.0, 0.2)).values()) == {"train", "test"}


@pytest.mark.real
def test_real_camo_is_cut_in_proportion() -> None:
    """Only the training half is there, so val and test are cut from it: 70/15/15 of 864 animals and 132 others."""
    records = open_dataset(real_data("camo")).records
    splits = split_records(records)
    for category, size in (("animal", 864), ("other", 132)):
        found = Counter(splits[one.id] for one in records if one.category == category)
        assert abs(found["train"] - 0.7 * size) <= 1
        assert abs(found["test"] - 0.15 * size) <= 1
