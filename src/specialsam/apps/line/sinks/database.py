"""Events as rows of a table in any database that SQLAlchemy reaches; the id is the key, so that none is there twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Column, Engine, MetaData, String, Table, create_engine, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from specialsam.apps.line.couriers import SinkDown
from specialsam.apps.line.outbox import Waiting, event_columns, event_row, reason_of
from specialsam.core.errors import UsageError

TABLE = "specialsam_events"
WAIT = 5
"""Seconds for a connection and for a statement."""


class Database:
    """A table in a database by its URL (postgresql+psycopg://user@host/name, sqlite:///file)."""

    def __init__(self, url: str, name: str = "database") -> None:
        """UsageError for what is no such URL, or one whose driver is not installed; nothing is connected yet."""
        self.name = name
        self._table = Table(TABLE, MetaData(), Column("id", String, primary_key=True), *event_columns())
        self._made = False
        self._engine = self._open(url)

    def send(self, waiting: Sequence[Waiting]) -> Iterable[int]:
        """Insert those that are not there yet, in one transaction; SinkDown where the database takes none."""
        rows = [event_row(one.event) for one in waiting]
        try:
            if not self._made:
                self._table.create(self._engine, checkfirst=True)
                self._made = True
            with self._engine.begin() as at:
                dialect = self._engine.dialect.name
                if dialect == "postgresql":
                    at.execute(postgresql.insert(self._table).on_conflict_do_nothing(), rows)
                elif dialect == "sqlite":
                    at.execute(sqlite.insert(self._table).on_conflict_do_nothing(), rows)
                else:
                    kept = select(self._table.c.id).where(self._table.c.id.in_([row["id"] for row in rows]))
                    known = set(at.execute(kept).scalars())
                    new = [row for row in rows if row["id"] not in known]
                    if new:
                        at.execute(self._table.insert(), new)
        except IntegrityError as error:  # another writer made the table or a row meanwhile: the next try sees it
            raise SinkDown(reason_of(error)) from error
        except (SQLAlchemyError, OSError) as error:
            self._made = False  # a database that comes back may be another one
            raise SinkDown(reason_of(error)) from error
        return [one.seq for one in waiting]

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def _open(self, url: str) -> Engine:
        try:
            parts = make_url(url)
            if parts.drivername in ("postgresql", "postgres"):
                parts = parts.set(drivername="postgresql+psycopg")
            limits: dict[str, object] = {"timeout": WAIT}
            if parts.drivername.startswith("postgresql+psycopg"):
                limits = {"connect_timeout": WAIT, "options": f"-c statement_timeout={WAIT * 1000}"}
            elif not parts.drivername.startswith("sqlite"):
                limits = {}
            return create_engine(parts, connect_args=limits, pool_pre_ping=True, pool_size=1, max_overflow=0)
        except (ArgumentError, NoSuchModuleError, TypeError) as error:
            raise UsageError(
                "expected a database's URL as postgresql://user@host/name or sqlite:///file, got one that is none"
            ) from error
        except ImportError as error:
            raise UsageError(
                f"the database needs the package {error.name}; install it: pip install 'specialsam[line]'"
            ) from error
