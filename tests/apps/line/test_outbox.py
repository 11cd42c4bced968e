"""The file of events. Oracles: sqlite3's own reader, and what was put."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from line_parts import event

from specialsam.apps.line import outbox as module
from specialsam.apps.line.outbox import CannotStore, Outbox
from specialsam.core.errors import UsageError


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as at:
        return at.execute(query).fetchall()


def waiting(box: Outbox, sink: str) -> list[int]:
    return [one.event.number for one in box.waiting(sink)]


def test_events_rows_and_state_are_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Outbox(tmp_path / "line.sqlite", ["mqtt", "jsonl"])
    box.put([event(1), event(2)], {"next": 5})
    assert waiting(box, "mqtt") == waiting(box, "jsonl") == [1, 2]
    assert box.state() == {"next": 5}
    assert rows(box.path, "PRAGMA journal_mode") == [("wal",)]
    assert rows(box.path, "SELECT id, roll, from_m, severity FROM events") == [
        ("id-1", "R7", 1.1, "major"),
        ("id-2", "R7", 2.1, "major"),
    ]

    def broken(*_: object) -> None:
        raise RuntimeError("killed here")

    monkeypatch.setattr(Outbox, "_write_state", broken)
    with pytest.raises(RuntimeError, match="killed here"):
        box.put([event(3)], {"next": 9})
    assert len(box.events()) == 2
    assert box.counts() == {"mqtt": 2, "jsonl": 2}
    assert box.state() == {"next": 5}


def test_an_event_that_is_put_twice_is_there_once(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "line.sqlite", ["jsonl"])
    for _ in range(2):
        box.put([event(1)], {})
    assert waiting(box, "jsonl") == [1]
    box.delivered("jsonl", [1])
    box.put([event(1)], {})
    assert box.counts() == {"jsonl": 0}
    assert box.events() == [event(1)]


def test_a_bound_holds_rows_back_and_drops_nothing(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "line.sqlite", ["mqtt", "jsonl"], bound=3)
    for number in range(1, 11):
        box.put([event(number)], {})
    assert rows(box.path, "SELECT count(*) FROM outbox") == [(6,)]
    assert box.counts() == {"mqtt": 10, "jsonl": 10}
    taken = []
    while some := box.waiting("mqtt", 2):
        taken += [one.event.number for one in some]
        box.delivered("mqtt", [one.seq for one in some])
    assert taken == list(range(1, 11))
    assert box.counts() == {"mqtt": 0, "jsonl": 10}


def test_a_sink_that_is_new_gets_every_event(tmp_path: Path) -> None:
    first = Outbox(tmp_path / "line.sqlite", ["jsonl"])
    first.put([event(1), event(2)], {})
    first.delivered("jsonl", [1, 2])
    first.close()
    again = Outbox(tmp_path / "line.sqlite", ["jsonl", "webhook"])
    assert again.counts() == {"jsonl": 0, "webhook": 2}
    again.put([event(3)], {})
    assert waiting(again, "webhook") == [1, 2, 3]


def test_a_locked_file_is_said_and_holds_nobody_up(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "line.sqlite", ["jsonl"])
    with sqlite3.connect(box.path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CannotStore, match=r"cannot write .*line.sqlite \(database is locked\)"):
            box.put([event(1)], {})
        with pytest.raises(CannotStore, match="database is locked"):
            box.delivered("jsonl", [1])
        other.rollback()
    box.put([event(1)], {})
    assert waiting(box, "jsonl") == [1]


def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path: Path) -> None:
    """The file may hold no more pages, as SQLite itself answers on a disk without room."""
    box = Outbox(tmp_path / "line.sqlite", ["jsonl"])
    box.put([event(1)], {})
    with box._engine.connect() as at:
        pages = at.exec_driver_sql("PRAGMA page_count").scalar()
        at.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(CannotStore, match="disk is full"):
        box.put([event(2, kind="x" * 100_000)], {})
    assert box.events() == [event(1)]
    with box._engine.connect() as at:
        at.exec_driver_sql("PRAGMA max_page_count=1000000")
    box.put([event(2)], {})
    assert waiting(box, "jsonl") == [1, 2]


def test_a_file_that_is_none_or_read_only(tmp_path: Path) -> None:
    path = tmp_path / "line.sqlite"
    path.write_text("this is no database" * 100)
    with pytest.raises(UsageError, match=r"expected a file of events that can be written, got .*not a database"):
        Outbox(path, ["jsonl"])
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match=r"unable to open|choose another --out"):
        Outbox(path, ["jsonl"])


def test_a_read_only_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQLite says of any connection that may not write: opened so by its address."""
    path = tmp_path / "line.sqlite"
    Outbox(path, ["jsonl"]).close()
    real = module.create_engine
    monkeypatch.setattr(
        module, "create_engine", lambda url, **more: real(f"sqlite:///file:{path}?mode=ro&uri=true", **more)
    )
    with pytest.raises(UsageError, match="attempt to write a readonly database"):
        Outbox(path, ["other"])
    assert os.access(path, os.R_OK)
