"""Requests that mean harm, made from a seed: what `serve.py --hostile` sends, and a sample of it the tests.

Each is raw bytes for a socket, so that no client makes it harmless on its way.
"""

from __future__ import annotations

import io
import json
import random
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image

MARKS = (b"root:x:", b"the secret outside", b"Traceback", b"specialsam/apps", b"/tmp/", b"site-packages")
"""What no answer may hold: bytes from outside, and how the server looks inside."""
UPS = (
    "..",
    "%2e%2e",
    "%2E%2e",
    "..%2f..",
    "..%252f..",
    "%252e%252e",
    "....//",
    "..;",
    "..\\..",
    "..%5c..",
    "%c0%ae%c0%ae",
    "%uff0e%uff0e",
    "..%00",
    "%00",
    ".%2e",
    "..%0d%0a",
    "\\\\host\\share",
    "~",
    "..%c1%9c..",
    "..../",
)
GOALS = ("etc/passwd", "secret.txt", "proc/self/environ", "windows/win.ini", "app.py", "run.json", "")
PLACES = (
    "/{}",
    "/static/{}",
    "/api/v1/runs/{}/report",
    "/api/v1/runs/report/{}",
    "/api/v1/line/snapshots/{}",
    "/api/v1/images/{}",
    "/api/v1/{}",
    "/api/v1/sessions/{}",
    "//{}",
    "/static//{}",
    "/?token={}",
    "/api/v1/line?after={}",
)


@dataclass(frozen=True)
class Hostile:
    """One request: its kind, its bytes, and the seconds in which it may be answered; what is damaged may never be."""

    kind: str
    raw: bytes
    patience: float = 90.0


@dataclass(frozen=True)
class Reply:
    """What came back: status (0 where the server hung up), and everything that it said."""

    status: int
    content: bytes

    @property
    def told(self) -> list[bytes]:
        """Marks of what should have stayed inside."""
        return [mark for mark in MARKS if mark in self.content]


def send(port: int, case: Hostile) -> Reply:
    """Send a request to this machine's port and read until the server has no more to say, or patience ends."""
    content = b""
    with socket.create_connection(("127.0.0.1", port), timeout=case.patience) as line:
        with suppress(OSError):  # it may have heard enough; what it says is read all the same
            line.sendall(case.raw)
        with suppress(OSError):
            while part := line.recv(65536):
                content += part
    first = content.split(b"\r\n", 1)[0].split(b" ")
    return Reply(int(first[1]) if len(first) > 1 and first[1].isdigit() else 0, content)


def request(method: str, path: str, body: bytes = b"", kind: str = "application/json", *more: str) -> bytes:
    """A plain request."""
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *more]
    if body or method == "POST":
        head += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join(head).encode("latin-1", "replace") + b"\r\n\r\n" + body


def cases(count: int, seed: int = 0) -> Iterator[Hostile]:
    """So many requests, of all kinds in turn."""
    rng = random.Random(seed)
    kinds: list[tuple[str, Callable[[random.Random], bytes]]] = list(KINDS.items())
    for number in range(count):
        name, make = kinds[number % len(kinds)]
        yield Hostile(name, make(rng), 0.7 if make is _protocol else 90.0)


def _traversal(rng: random.Random) -> bytes:
    ups = "/".join(rng.choice(UPS) for _ in range(rng.randint(1, 9)))
    path = rng.choice(PLACES).format(f"{ups}/{rng.choice(GOALS)}").replace(" ", "%20")
    return request(rng.choice(("GET", "GET", "GET", "DELETE", "HEAD", "PUT")), path)


def _id(rng: random.Random) -> bytes:
    places = (
        "/etc/passwd",
        "../../secret.txt",
        "file:///etc/passwd",
        "http://127.0.0.1:1/x",
        "nano\u0000",
        "m0/../m1",
        "-",
    )
    fields = {"image": rng.choice(places), "model": rng.choice(places), "prompts": [{"points": [[1, 1]]}]}
    path = rng.choice(("segment", "find", "models/use", "corrections"))
    return request("POST", f"/api/v1/{path}", json.dumps(fields).encode())


def _json(rng: random.Random) -> bytes:
    deep = rng.randint(1, 100_000)
    bodies: tuple[bytes, ...] = (
        b"[" * deep,
        b'{"a":' * (deep // 5) + b"1",
        b"[" * 50_000 + b"]" * 50_000,
        b'{"image": ' + b"9" * 100_000 + b"}",
        b'{"image": "x", "prompts": [{"points": [[NaN, Infinity]]}]}',
        b'{"image": "\\ud800\\udfff\\ud800"}',
        b"\xff\xfe\x00{",
        b'{"image": "x", "image": {"image": []}}',
        b"null",
        b"[]",
        b'"text"',
        b"1e999",
        b"{" + b'"k":1,' * 20_000 + b'"k":1}',
        json.dumps({"image": "x", "prompts": [{"points": [[1, 1]] * 9000}]}).encode(),
        b'{"image":"' + b"A" * 200_000 + b'"}',
        json.dumps(
            {"image": "x", "masks": [{"size": [1, 1], "counts": [2**31, -1, 2**70]}], "who": "../../etc/x\n"}
        ).encode(),
    )
    path = rng.choice(("segment", "find", "corrections", "models/use", "tuning?x=1"))
    method = "DELETE" if path.startswith("tuning") else "POST"
    return request(method, f"/api/v1/{path}", rng.choice(bodies))


def _large(rng: random.Random) -> bytes:
    size = rng.choice((10**9, 10**30, 26_000_000))
    head = f"POST /api/v1/{rng.choice(('images', 'segment'))} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    return head.encode() + f"Content-Length: {size}\r\n\r\n".encode() + b"x" * rng.randint(0, 4000)


def _protocol(rng: random.Random) -> bytes:
    own = b"Host: 127.0.0.1\r\n"
    lines: tuple[bytes, ...] = (
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/9.9\r\n" + own + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET",
        b"POST /api/v1/find HTTP/1.1\r\n" + own + b"Content-Length: -5\r\n\r\n{}",
        b"POST /api/v1/find HTTP/1.1\r\n" + own + b"Content-Length: 4\r\nContent-Length: 9\r\n\r\n{}",
        b"POST /api/v1/find HTTP/1.1\r\n" + own + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nzz\r\n",
        b"POST /api/v1/images HTTP/1.1\r\n" + own + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nx",
        b"GET / HTTP/1.1\r\n" + own + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + own + b"\r\n",
        b"GET / HTTP/1.1\r\n" + own + b"Cookie: " + b"a=b;" * 3000 + b"\r\n\r\n",
        rng.randbytes(300),
        b"POST /api/v1/tuning HTTP/1.1\r\n" + own + b"Origin: http://evil.example\r\nContent-Length: 0\r\n\r\n",
        b"GET /api/v1/line/stream HTTP/1.1\r\n" + own + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\n" + own + b"\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\n" + own + b"\r\n",
        b"GET /%ff%fe%00 HTTP/1.1\r\n" + own + b"Range: bytes=0-,0-,0-\r\nAuthorization: Bearer \xff\r\n\r\n",
    )
    return rng.choice(lines)


def _types(rng: random.Random) -> bytes:
    form = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="../../x"\r\n\r\ny\r\n' for _ in range(2000)
    )
    kinds = (
        "multipart/form-data; boundary=x",
        "text/html",
        "image/svg+xml",
        "application/x-www-form-urlencoded",
        "",
        "\x01",
        "a" * 900,
    )
    return request("POST", f"/api/v1/{rng.choice(('images', 'segment'))}", form, rng.choice(kinds))


def _upload(content: bytes, rng: random.Random) -> bytes:
    kind = rng.choice(("image/jpeg", "image/png", "application/octet-stream"))
    return request(
        "POST", "/api/v1/images" + rng.choice(("", "", "?session=../x", "?session=" + "s" * 64)), content, kind
    )


def png(width: int, height: int, rows: bytes = b"\0" * 1000) -> bytes:
    """A PNG whose header says what it likes."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _bomb(rng: random.Random) -> bytes:
    side = rng.choice((9000, 30_000, 60_000, 2**31 - 1))
    gif = (
        b"GIF89a"
        + struct.pack("<HH", 65535, 65535)
        + b"\x80\0\0"
        + b"\0" * 6
        + b",\0\0\0\0"
        + b"\xff\xff\xff\xff\0\x08"
        + b"\0" * 40
    )
    bmp = b"BM" + struct.pack("<IIIIiiHHIIiiII", 100, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0) + b"\0" * 50
    tags = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, 10)]
    tiff = (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in tags)
        + b"\0" * 4
    )
    ppm = f"P6 {side} {side} 255\n".encode() + b"\0" * 100
    return _upload(rng.choice((png(side, side), gif, bmp, tiff, ppm)), rng)


def _documents(rng: random.Random) -> bytes:
    svg = b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    svg += b'<svg xmlns="http://www.w3.org/2000/svg">&x;</svg>'
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    script += b"(/etc/passwd) (r) file 99 string readstring pop print showpage\n"
    others = (
        b"%PDF-1.7\n1 0 obj<<>>endobj",
        b"<html><script>alert(1)</script>",
        b"PK\x03\x04" + b"\0" * 60,
        b"\x7fELF" + b"\0" * 90,
        b"#!/bin/sh\ncat /etc/passwd\n",
        b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1/x'\n",
        b"\0\0\0\x18ftypheic" + b"\0" * 200,
    )
    return _upload(rng.choice((svg, script, *others)), rng)


def _picture(rng: random.Random, kind: str) -> bytes:
    out = io.BytesIO()
    Image.frombytes("RGB", (24, 16), rng.randbytes(24 * 16 * 3)).save(out, kind)
    return out.getvalue()


def _damaged(rng: random.Random) -> bytes:
    content = bytearray(_picture(rng, rng.choice(("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"))))
    if rng.random() < 0.4:
        return _upload(bytes(content[: rng.randrange(len(content))]), rng)
    for _ in range(rng.randint(1, 30)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return _upload(bytes(content), rng)


def _polyglot(rng: random.Random) -> bytes:
    tail = rng.choice(
        (b"<script>alert(1)</script>", b"PK\x03\x04../../x", b"%PDF-1.4", b"%!PS\n(/etc/passwd) run", b"<?php ?>")
    )
    first = rng.choice((_picture(rng, "GIF"), _picture(rng, "JPEG"), _picture(rng, "PNG")))
    return _upload(rng.choice((first + tail, tail + first, b"GIF89a/*" + tail)), rng)


KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "traversal": _traversal,
    "ids that are paths and addresses": _id,
    "JSON that is deep, huge or wrong": _json,
    "bodies that are too large": _large,
    "damaged HTTP, foreign hosts and origins": _protocol,
    "forms and wrong types": _types,
    "pixel bombs": _bomb,
    "SVG, PostScript, PDF, programs": _documents,
    "truncated and damaged pictures": _damaged,
    "polyglots": _polyglot,
}
