"""Work ahead of the caller: in order, not too far, and errors where they belong."""

from __future__ import annotations

import threading
import time

import pytest

from specialsam.core.ahead import ahead


@pytest.mark.parametrize("workers", [1, 3])
def test_answers_come_in_order_whatever_takes_longer(workers: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.01 * (number % 3))
        return number * number

    assert list(ahead(work, range(12), workers)) == [number * number for number in range(12)]


def test_no_more_is_prepared_than_was_asked_for() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        return number

    coming = ahead(work, range(100), 2)
    assert next(coming) == 0
    time.sleep(0.1)
    assert sorted(begun) == [0, 1, 2]
    coming.close()
    time.sleep(0.05)
    assert sorted(begun) == [0, 1, 2]


def test_the_next_one_is_made_while_the_caller_is_busy() -> None:
    second = threading.Event()

    def work(number: int) -> int:
        if number == 1:
            second.set()
        return number

    coming = ahead(work, range(3))
    next(coming)
    assert second.wait(5)
    assert list(coming) == [1, 2]


def test_an_error_comes_in_its_turn() -> None:
    def work(number: int) -> int:
        if number == 2:
            raise ValueError("the third")
        return number

    coming = ahead(work, range(5), 3)
    assert [next(coming), next(coming)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(coming)
