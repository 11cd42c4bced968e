"""Progress and messages: on the terminal, or wherever a server or a notebook wants them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from typing import Protocol, TextIO

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what): a stage reports its state as often as it likes."""

LINE_EVERY = 10.0
"""Seconds between plain progress lines when the output is no terminal."""


class Sink(Protocol):
    """Where messages and progress go; a server or a notebook puts its own in place of the terminal (`use`)."""

    def say(self, text: str) -> None:
        """One line for the user."""

    def complain(self, text: str) -> None:
        """One line about a failure."""

    def stage(self, title: str) -> AbstractContextManager[Progress]:
        """Progress of one stage, for as long as the context lasts."""


class Terminal:
    """Standard output and standard error: bars where someone looks, plain lines where nobody does."""

    def say(self, text: str) -> None:
        _print(text, sys.stdout)

    def complain(self, text: str) -> None:
        _print(text, sys.stderr)

    def stage(self, title: str) -> AbstractContextManager[Progress]:
        return _bar(title) if sys.stdout.isatty() else _lines(title)


class Quiet:
    """Says nothing: the sink of every process but the main one."""

    def say(self, text: str) -> None:
        pass

    def complain(self, text: str) -> None:
        pass

    def stage(self, title: str) -> AbstractContextManager[Progress]:
        return nullcontext(lambda done, total, what="": None)


TERMINAL, QUIET = Terminal(), Quiet()
_sink: ContextVar[Sink] = ContextVar("sink", default=TERMINAL)


def use(sink: Sink) -> Token[Sink]:
    """Send everything to `sink` from now on, in this thread or task; the token gives the earlier one back."""
    return _sink.set(sink)


@contextmanager
def using(sink: Sink) -> Iterator[None]:
    """Send everything to `sink` for as long as the context lasts."""
    token = use(sink)
    try:
        yield
    finally:
        _sink.reset(token)


def say(text: str = "") -> None:
    """One line for the user."""
    _sink.get().say(text)


def complain(text: str) -> None:
    """One line about a failure."""
    _sink.get().complain(text)


def stage(title: str) -> AbstractContextManager[Progress]:
    """Progress of one stage, with rate and time left; nothing is shown of one that reports nothing.

    Plain lines (no terminal) leave out a stage that is over within two seconds as well.
    """
    return _sink.get().stage(title)


def is_terminal() -> bool:
    """Whether somebody looks at what is said: the sink is the terminal and standard output is one."""
    return _sink.get() is TERMINAL and sys.stdout.isatty()


def _print(text: str, stream: TextIO) -> None:
    print(encodable(text, stream), file=stream, flush=True)


def encodable(text: str, stream: TextIO) -> str:
    """The text with escapes for what the stream's encoding lacks: no name on a disk may end a run by being printed."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if not speed else f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each", "dim")

    def shown(text: str) -> str:
        return escape(encodable(text, sys.stdout))

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[what]}"),
    )
    with Bars(*columns) as bars:
        task = bars.add_task(shown(title), total=None, visible=False, what="")

        def progress(done: int, total: int, what: str = "") -> None:
            bars.update(task, completed=done, total=total, visible=True, what=shown(what))

        yield progress


@contextmanager
def _lines(title: str) -> Iterator[Progress]:
    began = last = time.monotonic()
    first: int | None = None
    state: tuple[int, int, str] | None = None

    def progress(done: int, total: int, what: str = "") -> None:
        nonlocal last, first, state
        first = done if first is None else first
        state, now = (done, total, what), time.monotonic()
        if now - last < LINE_EVERY:
            return
        last = now
        rate = (done - first) / max(now - began, 1e-9)
        left = f", {duration((total - done) / rate)} left" if rate > 0 else ""
        say(f"{title}: {done}/{total}, {rate:.1f}/s{left}{', ' + what if what else ''}")

    yield progress
    if state is not None and (took := time.monotonic() - began) > 2:
        say(f"{title}: {state[0]}/{state[1]} in {duration(took)}{', ' + state[2] if state[2] else ''}")


def duration(seconds: float) -> str:
    """Seconds in words that a person reads at once: 8 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
