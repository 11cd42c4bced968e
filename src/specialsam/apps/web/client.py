"""Three functions for programs that ask a server: `upload` a picture once, then `segment` and `find`.

    from specialsam.apps.web.client import find, segment, upload

    picture = upload("http://127.0.0.1:8000", "photo.jpg")
    cat = segment(picture, points=[(120, 80)])["objects"][0]

The standard library alone; answers are the API's JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from specialsam.core.errors import SpecialSamError, UsageError

TIMEOUT = 120.0
Point = tuple[float, float]
_opener = build_opener(ProxyHandler({}))


class Busy(SpecialSamError):
    """The server takes nothing more now; try again after `seconds`."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True)
class Remote:
    """A picture on a server; upload it again once its session has ended."""

    server: str
    image: str
    session: str
    width: int
    height: int
    token: str = ""


def upload(server: str, path: str | Path, token: str = "", session: str | None = None) -> Remote:
    """Upload a picture file to be read and encoded; with `session` it joins the pictures of an earlier one.

    UsageError where the server refuses it, `Busy` where it has no room, SpecialSamError where it cannot be reached.
    """
    address = f"{server.rstrip('/')}/api/v1/images" + (f"?session={session}" if session else "")
    told = _asked(address, Path(path).read_bytes(), "application/octet-stream", token)
    return Remote(server.rstrip("/"), told["image"], told["session"], told["width"], told["height"], token)


def segment(
    picture: Remote,
    points: Sequence[Point] = (),
    labels: Sequence[int] = (),
    box: tuple[float, float, float, float] | None = None,
    model: str | None = None,
) -> dict[str, Any]:
    """The object at points (x, y) with labels 1 or 0 (all 1 if left out), in a box (x0, y0, x1, y1), or both."""
    prompt: dict[str, Any] = {"points": [list(point) for point in points], "labels": list(labels)}
    return _question(picture, "segment", {"prompts": [prompt | ({"box": list(box)} if box else {})], "model": model})


def find(picture: Remote, most: int = 10, threshold: float | None = None, model: str | None = None) -> dict[str, Any]:
    """All that the model finds by itself, the surest first."""
    return _question(picture, "find", {"most": most, "threshold": threshold, "model": model})


def _question(picture: Remote, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    content = json.dumps({"image": picture.image, **body}).encode()
    return _asked(f"{picture.server}/api/v1/{kind}", content, "application/json", picture.token)


def _asked(address: str, body: bytes, kind: str, token: str) -> dict[str, Any]:
    headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        with _opener.open(Request(address, body, headers, method="POST"), timeout=TIMEOUT) as answer:
            return dict(json.load(answer))
    except HTTPError as error:
        with error:
            text = _error(error.read())
        if error.code in (429, 503):
            raise Busy(f"the server is busy: {text}", float(error.headers.get("Retry-After", "1"))) from None
        raise UsageError(f"the server answered {error.code}: {text}") from None
    except (URLError, OSError, ValueError) as error:
        raise SpecialSamError(f"expected a specialsam server at {address}, got none ({error})") from error


def _error(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
