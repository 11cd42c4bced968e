"""Sessions and their pictures: files in a folder of the server's own, gone with their session.

Ids are drawn at random and say nothing; whoever knows a picture's id may ask about it.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from specialsam.apps.web.limits import Limits


class Crowded(Exception):
    """There are as many sessions as the server takes."""


@dataclass
class Picture:
    """One upload; `key` is its name in the model's process, `folder` its session's."""

    id: str
    session: str
    path: Path
    height: int = 0
    width: int = 0


@dataclass
class Visit:
    """One session."""

    id: str
    folder: Path
    seen: float
    pictures: OrderedDict[str, Picture] = field(default_factory=OrderedDict)


class Visits:
    """All sessions of a server; used by one thread."""

    def __init__(self, root: Path, limits: Limits, forget: Callable[[str], None] = lambda name: None) -> None:
        self.root, self.limits, self.forget = root, limits, forget
        self.known: dict[str, Visit] = {}
        self.pictures: dict[str, Picture] = {}

    def begin(self) -> Visit:
        """A new session; Crowded where there is no room for one."""
        self.sweep()
        if len(self.known) >= self.limits.sessions:
            raise Crowded
        id = secrets.token_urlsafe(16)
        folder = self.root / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        self.known[id] = Visit(id, folder, time.monotonic())
        return self.known[id]

    def get(self, id: str) -> Visit | None:
        """A session that is still there, seen now."""
        visit = self.known.get(id)
        if visit is not None and time.monotonic() - visit.seen > 60 * self.limits.minutes:
            self.end(id)
            return None
        if visit is not None:
            visit.seen = time.monotonic()
        return visit

    def place(self, visit: Visit) -> Picture:
        """A place for one more picture of a session; `add` makes it known once it was read."""
        id = secrets.token_urlsafe(16)
        return Picture(id, visit.id, visit.folder / secrets.token_hex(8))

    def add(self, picture: Picture) -> bool:
        """Make a picture known; the session's oldest goes beyond the limit. False where the session has gone."""
        visit = self.known.get(picture.session)
        if visit is None:
            return False
        visit.pictures[picture.id] = self.pictures[picture.id] = picture
        while len(visit.pictures) > self.limits.pictures:
            self.drop(visit.pictures[next(iter(visit.pictures))])
        return True

    def picture(self, id: str) -> Picture | None:
        """A picture whose session is still there, which is seen now."""
        known = self.pictures.get(id)
        return known if known is not None and self.get(known.session) is not None else None

    def drop(self, picture: Picture) -> None:
        """Remove a picture and its file."""
        picture.path.unlink(missing_ok=True)
        self.pictures.pop(picture.id, None)
        if picture.session in self.known:
            self.known[picture.session].pictures.pop(picture.id, None)
        self.forget(picture.id)

    def end(self, id: str) -> bool:
        """Remove a session with its pictures; whether there was one."""
        visit = self.known.get(id)
        if visit is None:
            return False
        for picture in list(visit.pictures.values()):
            self.drop(picture)
        del self.known[id]
        shutil.rmtree(visit.folder, ignore_errors=True)
        return True

    def sweep(self) -> None:
        """End the sessions that nobody has used for long."""
        late = time.monotonic() - 60 * self.limits.minutes
        for id in [visit.id for visit in self.known.values() if visit.seen < late]:
            self.end(id)

    def close(self) -> None:
        """End all sessions and remove the folder."""
        for id in list(self.known):
            self.end(id)
        shutil.rmtree(self.root, ignore_errors=True)
