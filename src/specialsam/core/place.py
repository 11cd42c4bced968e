"""Where a job runs: its device, and which of several processes this one is. Made once, at the top of each job.

`torchrun` and `accelerate launch` start the same command several times; each process then does its share, and the main
one alone says anything and writes the run folder. What is shared out are whole images, so the numbers are those of one
process. Nothing else in the project asks for a rank or chooses a device.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, cast

from specialsam.core.allocator import keep_freed_memory
from specialsam.core.cluster import ClusterSettings, in_order
from specialsam.core.console import QUIET, use
from specialsam.core.errors import UsageError

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
DEVICES: tuple[DeviceName, ...] = ("auto", "cpu", "cuda", "mps")
USE_CPU = "ACCELERATE_USE_CPU"
AHEAD = 4
"""Items that each process works on between two exchanges: bounds what is lost to waiting for the slowest."""
Given = TypeVar("Given")
Answer = TypeVar("Answer")


class Spread(Protocol):
    """`Place.spread` or `alone`: `work(item)` of each item in order, whoever does it."""

    def __call__(self, work: Callable[[Given], Answer], items: Sequence[Given], /) -> Iterator[Answer]: ...


def alone(work: Callable[[Given], Answer], items: Sequence[Given], /) -> Iterator[Answer]:
    """`work(item)` of each item in order, in this process."""
    yield from map(work, items)


@dataclass(frozen=True)
class Place:
    """The device of this process and its rank: `index` of `count` processes, 0 is the main one.

    With a `cluster` its workers do what is spread, in the place of several processes.
    """

    accelerator: Accelerator
    cluster: ClusterSettings | None = None

    @property
    def device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device

    @property
    def index(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def count(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def main(self) -> bool:
        return self.index == 0

    def wait(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()

    def share(self, items: Sequence[Given]) -> list[Given]:
        """This process's part of `items`; the parts of all are disjoint and together whole."""
        return list(items[self.index :: self.count])

    def gather(self, own: Answer) -> list[Answer]:
        """What every process gives, by rank, in every process."""
        if self.count == 1:
            return [own]
        from torch.distributed import all_gather_object

        every: list[Answer | None] = [None] * self.count
        all_gather_object(every, own)
        return cast("list[Answer]", every)

    def spread(self, work: Callable[[Given], Answer], items: Sequence[Given], /) -> Iterator[Answer]:
        """`work(item)` of each item in order, in every process; each does its share of the work.

        Every process must take all answers. What `work` raises in one process is raised in all, at its item.
        """
        if self.cluster is not None:
            yield from in_order(work, items, self.cluster)
            return
        if self.count == 1:
            yield from alone(work, items)
            return
        block = AHEAD * self.count
        for start in range(0, len(items), block):
            part = items[start : start + block]
            every = self.gather([_attempt(work, item) for item in self.share(part)])
            for number in range(len(part)):
                answer, error = every[number % self.count][number // self.count]
                if error is not None:
                    raise error
                yield cast("Answer", answer)

    def first(self, work: Callable[[], Answer]) -> Answer:
        """`work()` of the main process, in every process; the others wait. What it raises is raised in all."""
        answer, error = self.gather(_attempt(lambda _: work(), None) if self.main else (None, None))[0]
        if error is not None:
            raise error
        return cast("Answer", answer)


def _attempt(work: Callable[[Given], Answer], item: Given) -> tuple[Answer | None, Exception | None]:
    try:
        return work(item), None
    except Exception as error:
        return None, error


def here(device: str = "auto") -> Place:
    """The place of this process: on `device` (auto: a GPU where there is one), silent unless it is the main one.

    The process keeps the memory that it frees (`core.allocator`). UsageError for an unknown device, and for one that
    is not there.
    """
    import torch

    if device not in DEVICES:
        raise UsageError(f"expected a --device of {', '.join(DEVICES)}, got {device!r}")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, True):
        raise UsageError(f"expected a machine with {device} for --device {device}, found none; use --device auto")
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    wanted = next((name for name, found in there.items() if found), "cpu") if device == "auto" else device
    known = PartialState._shared_state.get("device")
    if known is not None and torch.device(known).type != wanted:  # another job's, in one process
        AcceleratorState._reset_state(reset_partial_state=True)
    keep_freed_memory()
    _hold_no_group()
    with _said(wanted == "cpu"):
        place = Place(Accelerator(cpu=wanted == "cpu"))
    if place.count > 1:
        atexit.register(_leave)
    if not place.main:
        use(QUIET)
    return place


@contextmanager
def _said(cpu: bool) -> Iterator[None]:
    """Say a CPU aloud while accelerate begins, or it takes each of several processes for the only one.

    No longer than that: a later job of the process may ask for a GPU.
    """
    mine = cpu and USE_CPU not in os.environ
    if mine:
        os.environ[USE_CPU] = "true"
    try:
        yield
    finally:
        if mine:
            os.environ.pop(USE_CPU, None)


def _hold_no_group() -> None:
    """Import what keeps the group of processes as a default argument while there is none yet.

    Imported later (`torch._dynamo` does, an optimizer imports that), `torch.distributed.nn` holds the group beyond its
    end, and `_leave` ends no thread of it.
    """
    from torch import distributed

    if distributed.is_available():
        import_module("torch.distributed.nn")


def _leave() -> None:
    """End the group of processes in order: torch's threads that still run at the end of one abort it now and then."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
