"""Events, what still has to be delivered of them, and where the inspection stands: one SQLite file, one transaction.

An event and its place in the outbox of every sink are written together or not at all, with the state from which the
inspection goes on after a kill. A sink's rows are bounded: beyond the bound its events wait in the table of events
alone and move up as rows are delivered, so that nothing is dropped.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DatabaseError, OperationalError

from specialsam.apps.line.events import Event
from specialsam.core.errors import SpecialSamError, UsageError

FILE = "line.sqlite"
BUSY = 0.1
"""Seconds that a write waits for another writer of the file; then the line goes on, and writes with a later picture."""
AT_ONCE = 100
"""Events that are handed to a sink at once."""


def event_columns() -> list[Column[Any]]:
    """What a table of events holds beside its own key: what people ask for in SQL, and the whole event as JSON."""
    texts = ("time", "job", "roll", "recipe", "camera", "model", "kind", "severity")
    numbers = ("score", "area_mm2", "from_m", "to_m", "left_mm", "right_mm")
    return [
        *(Column(name, String, nullable=False) for name in texts),
        *(Column(name, Float, nullable=False) for name in numbers),
        Column("body", Text, nullable=False),
    ]


def event_row(one: Event) -> dict[str, Any]:
    """The values of `event_columns` and the id."""
    names = ("id", "time", "job", "roll", "recipe", "camera", "model", "kind", "severity", "score", "area_mm2")
    ends = {"from_m": one.along_m[0], "to_m": one.along_m[1], "left_mm": one.across_mm[0], "right_mm": one.across_mm[1]}
    return {name: getattr(one, name) for name in names} | ends | {"body": json.dumps(one.as_json(), sort_keys=True)}


_TABLES = MetaData()
_EVENTS = Table(
    "events",
    _TABLES,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String, unique=True, nullable=False),
    *event_columns(),
    sqlite_autoincrement=True,
)
_OUTBOX = Table("outbox", _TABLES, Column("sink", String, primary_key=True), Column("seq", Integer, primary_key=True))
_SINKS = Table("sinks", _TABLES, Column("name", String, primary_key=True), Column("upto", Integer, nullable=False))
_STATE = Table("state", _TABLES, Column("name", String, primary_key=True), Column("value", Text, nullable=False))


class CannotStore(SpecialSamError):
    """The file of events cannot be written now: locked, read-only, or the disk is full."""


@dataclass(frozen=True)
class Waiting:
    """One event that waits for a sink, by its number in the file."""

    seq: int
    event: Event


class Outbox:
    """The file of events of one inspection; threads share it. `sinks` are the names of those that get every event."""

    def __init__(self, path: Path, sinks: Sequence[str], bound: int = 100_000) -> None:
        """Open or make the file; UsageError where it is none or cannot be written."""
        self.path, self.sinks, self.bound = path, tuple(sinks), bound
        self._engine = _engine(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._engine.connect().execution_options(immediate=True) as at, at.begin():
                _TABLES.create_all(at)
                for name in self.sinks:
                    at.execute(sqlite.insert(_SINKS).values(name=name, upto=0).on_conflict_do_nothing())
        except (DatabaseError, OSError) as error:
            self._engine.dispose()
            raise UsageError(
                f"expected a file of events that can be written, got {path} ({reason_of(error)}); "
                "close what holds it, or choose another --out"
            ) from error

    def put(self, events: Sequence[Event], state: Mapping[str, Any]) -> None:
        """Write events, their rows of every sink and the state, all or nothing. CannotStore in one line."""
        try:
            with self._engine.connect().execution_options(immediate=True) as at, at.begin():
                for one in events:
                    at.execute(sqlite.insert(_EVENTS).values(event_row(one)).on_conflict_do_nothing())
                for name in self.sinks if events else ():
                    self._move_up(at, name)
                self._write_state(at, state)
        except DatabaseError as error:
            raise CannotStore(f"cannot write {self.path} ({reason_of(error)})") from error

    def state(self) -> dict[str, Any]:
        """What was last put as state, empty for a new file."""
        with self._engine.connect() as at:
            text = at.execute(select(_STATE.c.value).where(_STATE.c.name == "line")).scalar()
        return dict(json.loads(text)) if text else {}

    def waiting(self, sink: str, most: int = AT_ONCE) -> list[Waiting]:
        """The oldest events that wait for a sink."""
        rows = (
            select(_OUTBOX.c.seq, _EVENTS.c.body)
            .join(_EVENTS, _EVENTS.c.seq == _OUTBOX.c.seq)
            .where(_OUTBOX.c.sink == sink)
            .order_by(_OUTBOX.c.seq)
            .limit(most)
        )
        with self._engine.connect() as at:
            return [Waiting(int(seq), Event.read(json.loads(body))) for seq, body in at.execute(rows)]

    def delivered(self, sink: str, seqs: Iterable[int]) -> None:
        """A sink has acknowledged events: their rows go, those beyond the bound move up. CannotStore in one line."""
        try:
            with self._engine.connect().execution_options(immediate=True) as at, at.begin():
                for seq in seqs:
                    at.execute(_OUTBOX.delete().where(_OUTBOX.c.sink == sink, _OUTBOX.c.seq == seq))
                self._move_up(at, sink)
        except DatabaseError as error:
            raise CannotStore(f"cannot write {self.path} ({reason_of(error)})") from error

    def counts(self) -> dict[str, int]:
        """Events that wait for each sink, those beyond the bound included."""
        with self._engine.connect() as at:
            rows = dict.fromkeys(self.sinks, 0)
            for name, number in at.execute(select(_OUTBOX.c.sink, func.count()).group_by(_OUTBOX.c.sink)):
                if name in rows:
                    rows[name] = int(number)
            for name, upto in at.execute(select(_SINKS.c.name, _SINKS.c.upto)):
                if name in rows:
                    more = select(func.count()).where(_EVENTS.c.seq > upto)
                    rows[name] += int(at.execute(more).scalar() or 0)
        return rows

    def events(self) -> list[Event]:
        """Every event, in the order of the line."""
        with self._engine.connect() as at:
            return [
                Event.read(json.loads(body))
                for body in at.execute(select(_EVENTS.c.body).order_by(_EVENTS.c.seq)).scalars()
            ]

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    def _move_up(self, at: Connection, sink: str) -> None:
        """Rows for the events that a sink has none of yet, as far as its bound allows."""
        held = int(at.execute(select(func.count()).where(_OUTBOX.c.sink == sink)).scalar() or 0)
        upto = int(at.execute(select(_SINKS.c.upto).where(_SINKS.c.name == sink)).scalar() or 0)
        if held >= self.bound:
            return
        more = select(_EVENTS.c.seq).where(_EVENTS.c.seq > upto).order_by(_EVENTS.c.seq).limit(self.bound - held)
        seqs = [int(seq) for seq in at.execute(more).scalars()]
        if seqs:
            at.execute(_OUTBOX.insert(), [{"sink": sink, "seq": seq} for seq in seqs])
            at.execute(_SINKS.update().where(_SINKS.c.name == sink).values(upto=seqs[-1]))

    def _write_state(self, at: Connection, state: Mapping[str, Any]) -> None:
        row = sqlite.insert(_STATE).values(name="line", value=json.dumps(state))
        at.execute(row.on_conflict_do_update(index_elements=["name"], set_={"value": row.excluded.value}))


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None  # SQLAlchemy's begin is ours, not the driver's
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def reason_of(error: BaseException) -> str:
    """Why a database refused, in a few words."""
    if isinstance(error, OperationalError | DatabaseError) and error.orig is not None:
        return " ".join(str(error.orig).split())[:200]
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return " ".join(str(error).split())[:200]
