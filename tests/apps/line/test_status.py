"""How an inspection is doing. Oracles: numpy's percentiles, counts by hand."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from line_parts import event

from heard import Heard
from specialsam.apps.line import status
from specialsam.apps.line.inspection import Inspection
from specialsam.apps.line.outbox import Outbox
from specialsam.apps.line.reader import Counts
from specialsam.apps.line.settings import LineSettings
from specialsam.apps.line.status import Pace, Waits, board_of
from specialsam.core.console import using


def test_pace_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(status.time, "monotonic", lambda: now[0])
    pace = Pace()
    assert (pace.fps(), pace.percentile(95)) == (0.0, 0.0)
    latencies = np.random.default_rng(0).uniform(0.05, 0.2, 200)
    for latency in latencies:
        now[0] += 0.125
        pace.add(now[0] - latency)
    assert pace.fps() == pytest.approx(8)
    assert pace.percentile(95) == pytest.approx(np.percentile(latencies, 95))
    now[0] += 60
    assert pace.fps() == 0.0


def test_an_outbox_that_fills_is_an_alarm_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "SECOND", 0.0)
    box, heard = Outbox(tmp_path / "line.sqlite", ["mqtt"], bound=10), Heard()
    waits = Waits(box, 0.5)
    with using(heard):
        for number in range(12):
            box.put([event(number)], {})
            waits.look()
        assert heard.lines == ["5 events wait for mqtt, of 10 at most in its outbox; see to it"]
        while some := box.waiting("mqtt"):
            box.delivered("mqtt", [one.seq for one in some])
        assert waits.look() == {"mqtt": 0}
        box.put([event(number) for number in range(20, 26)], {})
        waits.look()
    assert len(heard.lines) == 2, "and again once it filled again"


def test_the_table_says_what_there_is(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "line.sqlite", ["mqtt"])
    box.put([event(number) for number in range(12)], {})
    inspection = Inspection(box, LineSettings(), (0.6, 0.5), "m", tmp_path)
    pace = Pace()
    pace.add(time.monotonic() - 0.1)
    board = board_of(inspection, pace, Counts(passed=3, black=1, frozen=2, restarts=4), box.counts(), "top")
    assert board.numbers["passed over"] == "3"
    assert board.numbers["lost"] == "1 black, 2 frozen"
    assert board.numbers["camera"] == "4 restarts"
    assert board.numbers["to deliver"] == "mqtt 12"
    assert board.numbers["latency"].startswith("100 ms, p95 10")
    assert [row[1] for row in board.rows] == [f"{number}.150" for number in range(11, 3, -1)], "the latest eight"
    assert len(board.columns) == len(board.rows[0])
