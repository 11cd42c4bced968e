"""Some of many, where looking at all of them would take too long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def evenly(items: Sequence[Item], count: int) -> Sequence[Item]:
    """At most `count` of the items, one in so many from the first on."""
    return items[:: max(1, -(-len(items) // count))]
