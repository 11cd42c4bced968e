"""The model's process: reads jobs from a pipe, answers each, ends with the server; no torch here before it starts.

Both sides speak JSON, so that nothing of one process is ever executed by the other.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any


def run(connection: Connection, order: Mapping[str, Any]) -> None:
    """Load the models of the order, say what they are, then answer jobs until the pipe ends.

    What was uploaded goes with the process if the server has gone without a word.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        from specialsam.apps.photographs import register_heif
        from specialsam.apps.web.limits import Limits
        from specialsam.apps.web.work import Work, failure
        from specialsam.core.place import here

        register_heif()
        try:
            work = Work(Limits(**order["limits"]), str(here(order["device"]).device), order["trust_base"])
            loaded: dict[str, Any] = {"models": [work.load({"model": model}) for model in order["models"]]}
        except Exception as error:
            loaded = failure(error, [])
        _send(connection, loaded)
        if "error" not in loaded and work.device == "cpu":  # drivers of GPUs reserve addresses as they like
            _bound_memory(order["limits"]["memory_gb"])
        while True:
            job = json.loads(connection.recv_bytes())
            try:
                answer = work.do(job)
            except Exception as error:
                answer = {"error": f"unexpected {type(error).__name__}", "status": 422}
            _send(connection, answer)
    except (EOFError, OSError):
        with suppress(OSError):
            shutil.rmtree(order["uploads"])


def _send(connection: Connection, answer: Mapping[str, Any]) -> None:
    connection.send_bytes(json.dumps(answer).encode())


def _bound_memory(gigabytes: float) -> None:
    """No more address space than is taken now and so much beside; where the system knows no such limit, none."""
    try:
        import resource

        with open("/proc/self/statm") as file:  # noqa: PTH123
            now = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    most = now + int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
