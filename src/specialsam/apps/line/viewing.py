"""Looking at an inspection from another process: what it stored and what it shows, and nothing is ever written.

`line.sqlite` is read by the standard library alone, so that a looker needs none of the line's packages.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from specialsam.apps.line.events import Event
from specialsam.core.documents import parse_json

FILE = "line.sqlite"
BUSY = 0.5
_FOREIGN = (ValueError, KeyError, TypeError, AttributeError)
"""What a file raises that another version, or somebody else, wrote."""


@dataclass(frozen=True)
class Seen:
    """What is stored: the events after a number, each with its own, how many there are, and metres of web."""

    events: tuple[tuple[int, Event], ...] = ()
    total: int = 0
    metres: float = 0.0
    names: dict[str, str] = field(default_factory=dict)


def look(folder: Path, after: int = 0, most: int = 500) -> Seen:
    """What lies in an inspection's folder: the newest `most` events after number `after`; nothing if none is there."""
    try:
        with _reading(folder / FILE) as at:
            rows = at.execute(
                "SELECT seq, body FROM events WHERE seq > ? ORDER BY seq DESC LIMIT ?", (after, most)
            ).fetchall()
            total = at.execute("SELECT count(*) FROM events").fetchone()[0]
            kept = at.execute("SELECT value FROM state WHERE name = 'line'").fetchone()
        events = tuple((int(seq), Event.read(parse_json(body))) for seq, body in reversed(rows))
        state = parse_json(kept[0]) if kept else {}
        metres = float((state.get("odometer") or {}).get("travelled", 0.0))
    except (sqlite3.Error, *_FOREIGN):
        return Seen()
    return Seen(events, int(total), metres, names_of(folder))


def snapshot_of(folder: Path, seq: int) -> Path | None:
    """The marked picture of an event by its number in the file; None where there is none, and for a link."""
    try:
        with _reading(folder / FILE) as at:
            row = at.execute("SELECT body FROM events WHERE seq = ?", (seq,)).fetchone()
        name = Path(parse_json(row[0])["snapshot"]) if row else Path()
    except (sqlite3.Error, *_FOREIGN):
        return None
    path = folder / "snapshots" / name.name
    links = path.is_symlink() or path.parent.is_symlink()
    return path if name.name and not links and path.is_file() else None


def names_of(folder: Path) -> dict[str, str]:
    """Job, roll and camera as the folder was begun with."""
    try:
        facts: Any = parse_json((folder / "run.json").read_text(encoding="utf-8"))
        identity = facts.get("identity", facts)
        return {name: str(identity.get(name, "")) for name in ("job", "roll", "camera")}
    except (OSError, ValueError, AttributeError):
        return {}


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    if path.is_symlink() or not path.is_file():
        raise sqlite3.OperationalError("no file of events")
    ended = not path.with_name(f"{path.name}-wal").exists()  # nobody writes: then SQLite need not, to keep order
    at = sqlite3.connect(f"file:{quote(str(path))}?mode=ro{'&immutable=1' if ended else ''}", uri=True, timeout=BUSY)
    try:
        yield at
    finally:
        at.close()
