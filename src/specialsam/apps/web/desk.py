"""Between the web and the model: takes questions in fair turns to the model's process, watches it, starts it again.

The process may die of a picture or take for ever. The question that it worked on then gets an error as its answer, and
nobody else notices more than some seconds. Pictures that died together are tried once more one by one.
"""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from specialsam.apps.web.limits import Limits
from specialsam.apps.web.turns import ENCODE, Job, Turns
from specialsam.apps.web.worker import run
from specialsam.core.console import complain
from specialsam.core.errors import ModelError

START_SECONDS = 300.0
"""In which the process must have loaded its models."""
LARGEST_ANSWER = 256_000_000
PAUSES = (0.0, 1.0, 5.0, 15.0)
"""Seconds before the next start, by the number of starts that failed one after another."""
REMEMBERED = 1000


class Gone(Exception):
    """The process has ended, or was ended because it took too long; the message says which."""


@dataclass
class Numbers:
    """What the desk counts, for `metrics`."""

    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, deque[float]] = field(default_factory=dict)
    restarts: int = 0
    batches: Counter[int] = field(default_factory=Counter)


class Desk:
    """The queue and the process behind it: `ready` where models are loaded, `working` the questions under way."""

    def __init__(self, limits: Limits, uploads: Path, device: str = "cpu", trust_base: bool = False) -> None:
        self.limits, self.turns, self.numbers = limits, Turns(limits), Numbers()
        self.models: list[str] = []
        self.working = 0
        self.forgotten: deque[str] = deque()
        self._order = {
            "limits": limits.model_dump(mode="json"),
            "device": device,
            "trust_base": trust_base,
            "uploads": str(uploads),
        }
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._closed, self.ready = threading.Event(), threading.Event()
        self._fails, self._thread = 0, threading.Thread(target=self._work, name="desk", daemon=True)

    def start(self, models: Sequence[str]) -> list[dict[str, Any]]:
        """Start the process with these models; what it says of each. ModelError where it cannot load one."""
        self.models = list(models)
        told = self._begin()
        self._thread.start()
        return told

    def ask(self, session: str, body: Mapping[str, Any]) -> Job:
        """Put a question into its session's line; `turns.Full` beyond the bounds."""
        job = Job(session, dict(body))
        self.turns.put(job)
        return job

    def close(self) -> None:
        """End the process and answer what waits."""
        self._closed.set()
        self.turns.back([])  # wakes the thread
        if self._thread.is_alive():
            self._thread.join(2)
        self._end()
        for job in self.turns.drain():
            _answer(job, {"error": "the server is ending", "status": 503})

    @property
    def pid(self) -> int | None:
        """The process's, None where there is none now."""
        return self._process.pid if self._process is not None else None

    def _work(self) -> None:
        while not self._closed.is_set():
            if not self._alive() and not self._again():
                continue
            jobs = self.turns.take(0.2)
            if not jobs:
                continue
            if not self._alive():  # it ended while nobody asked: none of these is to blame
                self.turns.back(jobs)
                continue
            self.working = len(jobs)
            try:
                self._answer_all(jobs, self._exchange(_together(jobs)))
            except Gone as error:
                self._blame(jobs, str(error))
            self.working = 0

    def _answer_all(self, jobs: Sequence[Job], told: dict[str, Any]) -> None:
        kind = jobs[0].kind
        if kind == ENCODE and "answers" in told:
            self.numbers.batches[len(jobs)] += 1
            answers = [one | {"seconds": told["seconds"], "batch": len(jobs)} for one in told["answers"]]
        else:
            answers = [told] * len(jobs)
        for job, answer in zip(jobs, answers, strict=True):
            (self.numbers.failed if "error" in answer else self.numbers.done)[kind] += 1
            self.numbers.seconds.setdefault(kind, deque(maxlen=REMEMBERED)).append(told.get("seconds", 0.0))
            _answer(job, answer)

    def _blame(self, jobs: list[Job], why: str) -> None:
        """A single question gets the error; of several nobody knows which it was, so each is tried alone."""
        self._end()
        if len(jobs) > 1:
            for job in jobs:
                job.alone = True
            self.turns.back(jobs)
            return
        complain(f"the model's process ended on a question ({why}); it is started again")
        self.numbers.failed[jobs[0].kind] += 1
        _answer(jobs[0], {"error": f"the model gave up on this: {why}", "status": 422})

    def _exchange(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a job and wait for its answer; Gone where none comes."""
        assert self._pipe is not None
        forget = []
        while self.forgotten:
            forget.append(self.forgotten.popleft())
        try:
            self._pipe.send_bytes(json.dumps({**body, "forget": forget}).encode())
            return self._received(self.limits.seconds)
        except OSError as error:
            raise Gone("its process died") from error

    def _received(self, seconds: float) -> dict[str, Any]:
        assert self._pipe is not None
        until = time.monotonic() + seconds
        while not self._pipe.poll(0.1):
            if self._closed.is_set():
                raise Gone("the server is ending")
            if time.monotonic() > until:
                raise Gone(f"it took longer than {seconds:g} s")
        try:
            return dict(json.loads(self._pipe.recv_bytes(LARGEST_ANSWER)))
        except (EOFError, OSError, ValueError) as error:
            raise Gone("its process died") from error

    def _alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def _again(self) -> bool:
        """Start the process anew; whether it is there."""
        self._end()
        if self._closed.wait(PAUSES[min(self._fails, len(PAUSES) - 1)]):
            return False
        self.numbers.restarts += 1
        try:
            self._begin()
        except ModelError as error:
            self._fails += 1
            complain(f"{error}; trying again")
            for job in self.turns.drain():
                _answer(job, {"error": "the model cannot be started now; try again later", "status": 503})
            return False
        self._fails = 0
        return True

    def _begin(self) -> list[dict[str, Any]]:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        order = {**self._order, "models": self.models}
        self._process = context.Process(target=run, args=(theirs, order), name="specialsam-model", daemon=True)
        self._process.start()
        theirs.close()
        try:
            told = self._received(START_SECONDS)
        except Gone as error:
            self._end()
            raise ModelError(f"the model's process did not start: {error}") from error
        if "error" in told:
            self._end()
            raise ModelError(told["error"])
        self.ready.set()
        return list(told["models"])

    def _end(self) -> None:
        self.ready.clear()
        if self._process is not None:
            self._process.kill()
            self._process.join(5)
            self._process = None
        if self._pipe is not None:
            with suppress(OSError):
                self._pipe.close()
            self._pipe = None


def _together(jobs: Sequence[Job]) -> dict[str, Any]:
    """Several pictures as one job."""
    body = jobs[0].body
    if jobs[0].kind != ENCODE:
        return body
    return {**body, "items": [job.body["items"][0] for job in jobs]}


def _answer(job: Job, answer: dict[str, Any]) -> None:
    if job.answer.set_running_or_notify_cancel():
        job.answer.set_result(answer)
