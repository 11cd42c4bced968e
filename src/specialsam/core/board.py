"""Numbers that change while a job runs: a table redrawn in place on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specialsam.core import console
from specialsam.core.console import LINE_EVERY, say

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable

REDRAWN = 4
"""Times a second that a terminal is redrawn."""


@dataclass(frozen=True)
class Board:
    """A title, numbers by name, and the latest rows under column names."""

    title: str
    numbers: Mapping[str, str]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()

    def line(self) -> str:
        """The numbers in one line."""
        return f"{self.title}: " + ", ".join(f"{name} {value}" for name, value in self.numbers.items())


Show = Callable[[Board], None]


@contextmanager
def board() -> Iterator[Show]:
    """Shows a `Board` as often as it is given one, for as long as the context lasts."""
    if console.is_terminal():
        with _live() as show:
            yield show
        return
    last = time.monotonic()

    def plain(state: Board) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            say(state.line())

    yield plain


@contextmanager
def _live() -> Iterator[Show]:
    from rich.live import Live

    with Live(refresh_per_second=REDRAWN, transient=False) as live:

        def show(state: Board) -> None:
            live.update(drawn(state))

        yield show


def drawn(state: Board) -> ConsoleRenderable:
    """A board as what rich draws."""
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    numbers = Table.grid(padding=(0, 2))
    for _ in range(4):
        numbers.add_column(no_wrap=True)
    items = list(state.numbers.items())
    half = (len(items) + 1) // 2
    for place in range(half):
        cells: list[Text] = []
        for name, value in items[place::half]:
            cells += [
                Text(console.encodable(name, sys.stdout), "dim"),
                Text(console.encodable(value, sys.stdout), "bold"),
            ]
        numbers.add_row(*cells)
    parts: list[ConsoleRenderable] = [numbers]
    if state.columns:
        latest = Table(box=box.SIMPLE_HEAD, expand=True)
        for name in state.columns:
            latest.add_column(console.encodable(name, sys.stdout), overflow="ellipsis", no_wrap=True)
        for row in state.rows:
            latest.add_row(*(Text(console.encodable(cell, sys.stdout)) for cell in row))
        parts.append(latest)
    title = Text(console.encodable(state.title, sys.stdout), "bold")
    return Panel(Group(*parts), title=title, title_align="left", border_style="dim")


__all__ = ["Board", "Show", "board", "drawn"]
