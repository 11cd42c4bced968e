"""The live table. Oracles: rich's own drawing, and what a plain sink hears."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from heard import Heard
from specialsam.core import board as module
from specialsam.core.board import Board, board, drawn
from specialsam.core.console import using

STATE = Board("top, roll [7]", {"pictures": "12 at 8.1/s", "events": "2"}, ("metre", "severity"), (("1.20", "[red]"),))


def test_a_board_is_drawn_whole_and_reads_no_markup() -> None:
    """Names are other people's: brackets stay brackets."""
    out = io.StringIO()
    Console(file=out, width=80).print(drawn(STATE))
    for text in ("top, roll [7]", "pictures", "12 at 8.1/s", "metre", "severity", "1.20", "[red]"):
        assert text in out.getvalue()


def test_without_a_terminal_it_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, now = Heard(), [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with using(heard), board() as show:
        for _ in range(25):
            now[0] += 1
            show(STATE)
    assert heard.lines == ["top, roll [7]: pictures 12 at 8.1/s, events 2"] * 2


def test_a_terminal_is_redrawn_in_place(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module.console, "is_terminal", lambda: True)
    with board() as show:
        show(STATE)
    assert "12 at 8.1/s" in capsys.readouterr().out
