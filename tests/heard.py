"""A sink of messages that keeps what is said, in the place of a terminal."""

from __future__ import annotations

from contextlib import AbstractContextManager

from specialsam.core.console import QUIET, Progress


class Heard:
    """What is said, line by line."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    complain = say

    def stage(self, title: str) -> AbstractContextManager[Progress]:
        return QUIET.stage(title)
