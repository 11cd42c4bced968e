"""Work that does not wait for what comes before it, done in threads while the caller is busy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Input = TypeVar("Input")
Output = TypeVar("Output")


def ahead(work: Callable[[Input], Output], inputs: Iterable[Input], workers: int = 1) -> Generator[Output, None, None]:
    """`work` of each input, in order; while the caller uses one answer, `workers` threads make the next `workers`.

    What `work` raises is raised where its answer would come. Nothing new is begun once the iterator is closed.
    """
    waiting: deque[Future[Output]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for value in inputs:
                waiting.append(pool.submit(work, value))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
