"""Tuning again from the page: `specialsam specialize` as a process, its progress read from what it writes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from specialsam.apps.web.messages import Epoch, Tuning
from specialsam.core.documents import parse_json
from specialsam.core.errors import UsageError

SHOWN = 12
TAIL = 20_000
"""Bytes of the console's log and of the log of epochs that are read at most."""
State = Literal["idle", "running", "done", "failed", "stopped"]


@dataclass(frozen=True)
class Recipe:
    """What a run is started with: base model, where runs and shared embeddings lie, settings as KEY=VALUE."""

    model: str
    runs: Path
    sets: tuple[str, ...] = ()
    device: str = "auto"
    trust_base: bool = False

    def command(self, data: Path, out: Path) -> list[str]:
        """The very command that a person would type; the embeddings of earlier runs are used again."""
        options = ["--model", self.model, "--out", str(out), "--store", str(self.runs / "embeddings")]
        options += ["--device", self.device, *(["--trust-base"] if self.trust_base else [])]
        settings = [part for one in self.sets for part in ("--set", one)]
        return [sys.executable, "-m", "specialsam.cli", "specialize", str(data), *options, *settings]


@dataclass
class Tuner:
    """At most one run at a time; threads share it."""

    recipe: Recipe
    folder: Path | None = None
    model: str | None = None
    _process: subprocess.Popen[bytes] | None = None
    _began: float = 0.0
    _took: float = 0.0
    _stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, data: Path) -> bool:
        """Start a run on a data set folder; False where one is running. UsageError where it cannot be started."""
        with self._lock:
            if self.state() == "running":
                return False
            out = self._next()
            try:
                out.mkdir(parents=True)
                with _log(out).open("wb") as log:
                    self._process = subprocess.Popen(
                        self.recipe.command(data.resolve(), out.resolve()),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
            except OSError as error:
                raise UsageError(f"cannot start tuning ({error.strerror})") from error
            self.folder, self.model = out, None
            self._began, self._took, self._stopped = time.monotonic(), 0.0, False
            return True

    def stop(self, wait: float = 0.0) -> bool:
        """End the run that is under way, as Ctrl-C would; whether there was one. What it finished is kept."""
        if self.state() != "running" or self._process is None:
            return False
        self._stopped = True
        self._process.terminate()
        if wait:
            try:
                self._process.wait(wait)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return True

    def state(self) -> State:
        """Where the run stands that was started last."""
        if self._process is None:
            return "idle"
        code = self._process.poll()
        if code is None:
            return "running"
        self._took = self._took or time.monotonic() - self._began
        if self._stopped:
            return "stopped"
        return "done" if code == 0 else "failed"

    def told(self) -> Tuning:
        """The state with the last lines and all epochs."""
        state = self.state()
        if self.folder is None:
            return Tuning(state=state)
        seconds = self._took or time.monotonic() - self._began
        lines = [_plain(line, self.folder) for line in _tail(_log(self.folder))]
        return Tuning(state=state, seconds=round(seconds, 1), lines=lines[-SHOWN:], epochs=epochs_of(self.folder))

    @property
    def specialist(self) -> Path | None:
        """What came of the last run, None where nothing did."""
        found = self.folder / "specialist" if self.folder is not None else None
        return found if found is not None and (found / "specialist.json").is_file() else None

    def _next(self) -> Path:
        number = 1
        while (self.recipe.runs / f"tuned-{number}").exists():
            number += 1
        return self.recipe.runs / f"tuned-{number}"


def _log(folder: Path) -> Path:
    """What a run's process says, beside its folder, which is the run's alone."""
    return folder.with_name(f"{folder.name}.log")


def epochs_of(folder: Path) -> list[Epoch]:
    """The finished epochs of a run's log.jsonl."""
    out = []
    for line in _tail(folder / "log.jsonl"):
        with suppress(ValueError, KeyError, TypeError):
            kept = parse_json(line)
            out.append(Epoch(epoch=int(kept["epoch"]), val_iou=kept.get("val_iou"), loss=kept.get("train_loss")))
    return out


def _tail(path: Path) -> Sequence[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            lines = file.read(TAIL).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line for line in lines[size > TAIL :] if line.strip()]


def _plain(line: str, folder: Path) -> str:
    """A line for the page: this machine's paths are nobody's business there."""
    for place, name in ((folder.resolve(), folder.name), (folder.resolve().parent, "")):
        line = line.replace(f"{place}/" if not name else str(place), name)
    return line[:300]
