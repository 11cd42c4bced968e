"""Frames of one camera: cut one after another with a gap. Oracle: the order of the names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialsam.core.errors import DataError
from specialsam.core.types import Record
from specialsam.data.splits import split_in_order


def frames(count: int) -> list[Record]:
    return [Record(f"f{number}", Path(f"frame_{number}.png")) for number in range(count)]


@given(st.integers(9, 400), st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.25, 0.25), (0.8, 0.2, 0.0), (1.0, 0.0, 0.0)]))
def test_splits_follow_each_other_with_a_gap(count: int, fractions: tuple[float, float, float]) -> None:
    """Properties: each wanted split is one run of frames, in order, 2 % apart at least, of about its share."""
    found = split_in_order(frames(count)[::-1], fractions)
    numbers = {split: [int(name[1:]) for name, of in found.items() if of == split] for split in set(found.values())}
    wanted = [split for split, share in zip(("train", "val", "test"), fractions, strict=True) if share]
    assert sorted(numbers) == sorted(wanted)
    last = -1
    for split in wanted:
        own = numbers[split]
        assert own == list(range(own[0], own[-1] + 1))
        assert own[0] - last > (max(1, round(0.02 * count)) if last >= 0 else 0)
        last = own[-1]
    assert last == count - 1
    assert abs(len(numbers["train"]) - fractions[0] * count) <= 0.04 * count + 3


def test_too_few_frames_are_one_line() -> None:
    assert sorted(split_in_order(frames(5)).values()) == ["test", "train", "val"]
    with pytest.raises(DataError, match="expected at least 5 frames"):
        split_in_order(frames(4))
