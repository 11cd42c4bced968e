"""What the tests of the web share: a real server on this machine's own address, and a plain HTTP client."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image

from specialsam.apps.web.app import create_app
from specialsam.apps.web.guards import Access
from specialsam.apps.web.limits import Limits
from specialsam.apps.web.server import Listening, ServeOrder, opened
from specialsam.apps.web.state import Server
from specialsam.core.geometry import ImageArray

JSON = {"Content-Type": "application/json"}
PICTURE = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Site:
    """A server that listens."""

    server: Server
    port: int
    token: str = ""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own; every answer must be one that this project means to give."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        own = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            connection.request(method, path, body, {**own, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.ask("GET", f"/api/v1/{path}")

    def post(self, path: str, body: object) -> Answer:
        return self.ask("POST", f"/api/v1/{path}", json.dumps(body).encode(), JSON)

    def upload(self, content: bytes, session: str | None = None) -> Answer:
        return self.ask("POST", "/api/v1/images" + (f"?session={session}" if session else ""), content, PICTURE)


@contextmanager
def listening(order: ServeOrder, limits: Limits | None = None, token: str = "") -> Iterator[Site]:
    """A server in a thread, ready."""
    limits = limits or Limits()
    with opened(order, limits) as server, Listening(port=0).opened() as at:
        config = uvicorn.Config(create_app(server, Access(token)), log_level="critical", lifespan="on")
        running = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: running.run(sockets=[at]), daemon=True)
        thread.start()
        until(lambda: running.started)
        try:
            yield Site(server, int(at.getsockname()[1]), token)
        finally:
            server.ending.set()
            running.should_exit = True
            thread.join(10)


def until(true: Any, seconds: float = 30.0) -> None:
    """Wait until something holds."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it took too long"
        time.sleep(0.02)


def packed(image: ImageArray, kind: str = "PNG") -> bytes:
    """A picture (H, W, 3) as a file's bytes."""
    out = BytesIO()
    Image.fromarray(image).save(out, kind)
    return out.getvalue()


def runs_of(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) as COCO's uncompressed run lengths, made plainly."""
    flat = mask.T.reshape(-1).astype(int)
    counts, value, length = [], 0, 0
    for one in flat:
        if one != value:
            counts.append(length)
            value, length = one, 0
        length += 1
    return {"size": list(mask.shape), "counts": [*counts, length]}


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
