"""The run folder: one JSON file that says what was done with what, and who may go on in it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from specialsam import __version__
from specialsam.core.errors import SpecialSamError, UsageError
from specialsam.core.files import write_whole

LIBRARIES = ("torch", "transformers", "accelerate", "numpy", "opencv-python-headless", "pysodmetrics")


class Run:
    """`run.json` in a folder. `identity` (source, model, settings) decides whether a later call may go on in it."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]):
        self.folder, self.path = folder, folder / "run.json"
        self.facts: dict[str, Any] = {}
        if self.path.exists():
            try:
                self.facts = json.loads(self.path.read_text())
            except (OSError, ValueError) as error:
                raise SpecialSamError(
                    f"expected a readable {self.path}, got a damaged one; choose another --out"
                ) from error
            if not isinstance(self.facts, dict) or self.facts.get("identity") != _plain(identity):
                raise UsageError(f"{folder} holds a run with another source, model or settings; choose another --out")
        elif folder.exists() and any(folder.iterdir()) and not (folder / "embeddings").exists():
            raise UsageError(f"{folder} is not empty and holds no run; choose another --out")
        else:
            self.facts = {
                "identity": _plain(identity),
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": shlex.join(["specialsam", *sys.argv[1:]]),
                "seconds": {},
            }
        self.facts |= {"version": __version__, "versions": versions(), "machine": machine()}
        self.save()

    def save(self, **more: Any) -> None:
        """Add facts and write the file whole."""
        self.facts |= _plain(more)
        text = json.dumps(self.facts, indent=1)
        write_whole(self.path, lambda path: path.write_text(text + "\n"))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall-clock seconds of a stage to the run's facts (interrupted ones add up)."""
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = self.facts["seconds"]
            seconds[stage] = round(seconds.get(stage, 0.0) + time.monotonic() - began, 2)
            self.save(peak_memory_mb=peak_memory_mb())


def _plain(value: Any) -> Any:
    """As it will read back from JSON."""
    return json.loads(json.dumps(value, default=str))


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that numbers depend on."""
    found = {"python": platform.python_version(), "specialsam": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def machine() -> dict[str, Any]:
    """CPU, cores, memory and GPU of this machine."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":", 1)[1].strip() for line in info.open() if line.startswith("model name")), cpu)
    facts: dict[str, Any] = {"cpu": cpu, "cores": os.cpu_count(), "gpu": "none"}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory_gb"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (0 where the system does not say)."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
