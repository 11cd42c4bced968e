"""Items of any size put together so that what is done with them at once is bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Given = TypeVar("Given")


def packed(items: Iterable[Given], size: Callable[[Given], int], most: int) -> Iterator[list[Given]]:
    """The items in their order, as many at once as have a size of `most` together; a larger one comes alone."""
    begun: list[Given] = []
    filled = 0
    for item in items:
        count = size(item)
        if begun and filled + count > most:
            yield begun
            begun, filled = [], 0
        begun.append(item)
        filled += count
    if begun:
        yield begun
