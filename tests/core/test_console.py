"""Progress and messages: plain lines where nobody looks, bars on a terminal, durations in words."""

from __future__ import annotations

import io
import sys

import pytest

from specialsam.core.console import complain, duration, say, stage


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (8.2, "8 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (90000, "25 h 00 min"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("specialsam.core.console.time.monotonic", lambda: self.now)


def test_messages_and_complaints_go_their_own_ways(capsys: pytest.CaptureFixture[str]) -> None:
    say("found 3 images")
    say()
    complain("expected a folder, got a file")
    out, err = capsys.readouterr()
    assert out == "found 3 images\n\n"
    assert err == "expected a folder, got a file\n"


class Narrow(io.TextIOWrapper):
    """A terminal of an encoding that lacks letters; what was printed as bytes."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict")

    def printed(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("encoding", "text", "printed"),
    [
        ("ascii", "80 \N{EN DASH} 90 \N{GRINNING FACE}", b"80 \\u2013 90 \\U0001f600\n"),
        ("cp1252", "\N{EN DASH} \u05d0", b"\x96 \\u05d0\n"),
        ("utf-8", "caf\udce9 \N{EN DASH}", b"caf\\udce9 \xe2\x80\x93\n"),
    ],
)
def test_no_text_ends_a_run_by_being_printed(
    monkeypatch: pytest.MonkeyPatch, encoding: str, text: str, printed: bytes
) -> None:
    """Control: `print` alone raises for each of these."""
    for stream, tell in (("stdout", say), ("stderr", complain)):
        narrow = Narrow(encoding)
        monkeypatch.setattr(sys, stream, narrow)
        with pytest.raises(UnicodeEncodeError):
            print(text, file=narrow)
        tell(text)
        assert narrow.printed() == printed


def test_a_bar_shows_a_name_that_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("FORCE_COLOR", "1")
    narrow = Narrow("utf-8")
    monkeypatch.setattr(narrow, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", narrow)
    with stage("caf\udce9") as progress:
        progress(3, 4, "na\udcefve.png")
    assert b"caf\\udce9" in narrow.printed()
    assert b"na\\udcefve.png" in narrow.printed()


def test_plain_lines_when_not_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One image a second, a line every ten: with rate, time left and what is being done, and one at the end."""
    clock = Clock(monkeypatch)
    with stage("encoding") as progress:
        for done in range(1, 41):
            clock.now += 1.0
            progress(done, 40, f"image {done}")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[0] == "encoding: 10/40, 0.9/s, 33 s left, image 10"
    assert lines[-1] == "encoding: 40/40 in 40 s, image 40"
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_the_rate_is_that_of_this_call_when_it_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """900 of 1000 were done before: ten more in ten seconds are not 91 a second."""
    clock = Clock(monkeypatch)
    with stage("encoding") as progress:
        progress(900, 1000, "")
        clock.now += 10
        progress(910, 1000, "")
    assert capsys.readouterr().out.splitlines()[0] == "encoding: 910/1000, 1.0/s, 1 min 30 s left"


def test_a_stage_that_is_over_at_once_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    with stage("packing masks") as progress:
        clock.now += 1.5
        progress(5, 5, "done")
    with stage("nothing to do"):
        clock.now += 100
    assert capsys.readouterr().out == ""


def test_a_failure_passes_through(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with pytest.raises(ValueError, match="broken"), stage("encoding") as progress:  # noqa: PT012
        progress(1, 5, "")
        clock.now += 30
        raise ValueError("broken")
    assert "in 30 s" not in capsys.readouterr().out


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With title, count and what is being done; a stage that reports nothing shows nothing."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with stage("encoding [x]") as progress:
        progress(3, 4, "first")
        progress(4, 4, "an image [red] [/b].png")
    shown = capsys.readouterr().out
    assert "encoding [x]" in shown
    assert "4/4" in shown
    assert "an image [red] [/b].png" in shown
    with stage("nothing to do"):
        pass
    assert "nothing to do" not in capsys.readouterr().out
