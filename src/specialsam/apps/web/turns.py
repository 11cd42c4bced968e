"""Whose turn it is: a waiting line a session, asked round robin, so that many questions hold up nobody else's."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from specialsam.apps.web.limits import Limits

ENCODE = "encode"


class Full(Exception):
    """So much waits already that nothing more is taken now."""


@dataclass(eq=False)
class Job:
    """One question of one session; `alone` keeps it out of batches, once a batch with it has ended the process."""

    session: str
    body: dict[str, Any]
    answer: Future[dict[str, Any]] = field(default_factory=Future)
    alone: bool = False

    @property
    def kind(self) -> str:
        return str(self.body["kind"])


class Turns:
    """Jobs that wait; threads share it."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._lines = limits, OrderedDict[str, deque[Job]]()
        self._any, self.waiting = threading.Condition(), 0

    def put(self, job: Job) -> None:
        """At the end of its session's line; Full beyond the bounds."""
        with self._any:
            line = self._lines.setdefault(job.session, deque())
            if self.waiting >= self._limits.queue or len(line) >= self._limits.own_queue:
                if not line:
                    del self._lines[job.session]
                raise Full
            line.append(job)
            self.waiting += 1
            self._any.notify()

    def back(self, jobs: list[Job]) -> None:
        """Jobs that were taken and not done, to the front of their lines."""
        with self._any:
            for job in reversed(jobs):
                self._lines.setdefault(job.session, deque()).appendleft(job)
                self._lines.move_to_end(job.session, last=False)
                self.waiting += 1
            self._any.notify()

    def take(self, timeout: float) -> list[Job]:
        """The next job, with other sessions' pictures that are next there; none if nothing waits for so long."""
        with self._any:
            if not self.waiting:
                self._any.wait(timeout)
            first = self._next()
            if first is None:
                return []
            jobs = [first]
            if first.kind == ENCODE and not first.alone:
                for session in list(self._lines):
                    head = self._lines[session][0]
                    if len(jobs) < self._limits.batch and head.kind == ENCODE and not head.alone:
                        jobs.append(self._pop(session))
            return jobs

    def drain(self) -> list[Job]:
        """Everything that waits, out of the lines."""
        with self._any:
            jobs = [job for line in self._lines.values() for job in line]
            self._lines.clear()
            self.waiting = 0
            return jobs

    def _next(self) -> Job | None:
        return self._pop(next(iter(self._lines))) if self._lines else None

    def _pop(self, session: str) -> Job:
        """The first of a session's line, which goes behind all others."""
        line = self._lines[session]
        job = line.popleft()
        self.waiting -= 1
        self._lines.move_to_end(session)
        if not line:
            del self._lines[session]
        return job
