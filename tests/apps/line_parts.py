"""What the tests of the line share: events, frames, real brokers and databases, and a Motion JPEG camera."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from specialsam.apps.line.events import Event
from specialsam.core.geometry import ImageArray


def event(number: int = 0, **fields: object) -> Event:
    """An event by its number."""
    values: dict[str, object] = {
        "id": f"id-{number}",
        "number": number,
        "time": "2026-11-27T08:00:00.000+00:00",
        "job": "J1",
        "roll": "R7",
        "recipe": "blue",
        "camera": "top",
        "model": "abc",
        "kind": "hole",
        "severity": "major",
        "score": 0.9,
        "area_mm2": 60.0,
        "along_m": (number + 0.1, number + 0.2),
        "across_mm": (10.0, 20.0),
        "pictures": (3, 9),
        "sights": 7,
    }
    return Event(**{**values, **fields})  # type: ignore[arg-type]


def until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until something holds."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it took too long"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Served:
    """A program of Debian's that is started, killed and started again on one port."""

    def __init__(self, command: Callable[[int], Sequence[str]], port: int, user: str = "") -> None:
        self.command, self.port, self.user = command, port, user
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it takes connections; one that still finds what its killed self held is started again."""

        def takes() -> bool:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    self.command(self.port),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    user=self.user or None,
                )
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return True
            return False

        until(takes)

    def kill(self) -> None:
        """At once, with all its children."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def program(name: str, package: str) -> str:
    """Where a program is; the test is skipped with what to install where it is not."""
    places = [
        shutil.which(name),
        f"/usr/sbin/{name}",
        *sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))),
    ]
    found = next((place for place in places if place and Path(place).exists()), None)
    if found is None:
        pytest.skip(f"{name} is not installed; install it: apt-get install {package}")
    return found


@contextmanager
def broker(extra: str = "allow_anonymous true\n") -> Iterator[Served]:
    """mosquitto on a port of its own."""
    mosquitto = program("mosquitto", "mosquitto")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "mosquitto.conf"
        # a broker that is killed forgets what it acknowledged, unless it writes at each change
        keeps = f"persistence true\npersistence_location {folder}/\nautosave_on_changes true\nautosave_interval 1\n"
        config.write_text(f"listener {port} 127.0.0.1\n{keeps}{extra}" + "user root\n" * (os.geteuid() == 0))
        one = Served(lambda _: [mosquitto, "-c", str(config)], port)
        one.start()
        try:
            yield one
        finally:
            one.kill()


@contextmanager
def postgres() -> Iterator[Served]:
    """PostgreSQL with a new cluster on a port of its own; user and database "line"."""
    initdb, server = program("initdb", "postgresql"), program("postgres", "postgresql")
    user = "postgres" if os.geteuid() == 0 else ""
    with tempfile.TemporaryDirectory() as folder:
        if user:
            shutil.chown(folder, user)
        data = Path(folder) / "data"
        options = ["-U", "line", "-A", "trust", "--no-sync", "-D", str(data)]
        subprocess.run([initdb, *options], check=True, capture_output=True, user=user or None, cwd="/")
        settings = ["-c", f"unix_socket_directories={folder}", "-c", "listen_addresses=127.0.0.1"]
        one = Served(lambda port: [server, "-D", str(data), "-p", str(port), *settings], free_port(), user)
        one.start()
        try:
            yield one
        finally:
            one.kill()


class MjpegCamera:
    """An HTTP camera: Motion JPEG at some pictures a second, which can freeze, go black, hang or hang up."""

    def __init__(self, pictures: Sequence[ImageArray], fps: float = 25.0) -> None:
        self.pictures, self.fps, self.mode = pictures, fps, "fine"
        self.sent = 0
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if camera.mode == "gone":
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                with suppress(OSError):
                    while camera.mode != "gone":
                        self._one()
                        time.sleep(1 / camera.fps)

            def _one(self) -> None:
                if camera.mode == "hangs":
                    return
                image = camera.pictures[camera.sent % len(camera.pictures)]
                if camera.mode == "black":
                    image = np.zeros_like(image)
                elif camera.mode != "frozen":
                    camera.sent += 1
                packed = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(packed)}\r\n\r\n"
                self.wfile.write(head.encode() + packed + b"\r\n")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/video"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> MjpegCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self.mode = "gone"
        self._server.shutdown()
        self._server.server_close()
