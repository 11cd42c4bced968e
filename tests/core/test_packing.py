"""Items put together up to a size: whole, in order, bounded."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from specialsam.core.packing import packed


@given(st.lists(st.integers(0, 9)), st.integers(1, 12))
def test_all_items_in_order_and_no_more_at_once_than_is_asked_for(sizes: list[int], most: int) -> None:
    parts = list(packed(sizes, lambda size: size, most))
    assert [size for part in parts for size in part] == sizes
    assert all(part and (sum(part) <= most or len(part) == 1) for part in parts)
    assert all(sum(one) + other[0] > most for one, other in pairwise(parts))  # none is closed too early
