"""What stands before the application: who may ask, from where, and how much; and the headers of every answer.

Everything here happens before a body is parsed or a picture is decoded. An answer is one line of JSON.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from specialsam.apps.web.limits import Limits

API = "/api/v1"
COOKIE = "specialsam_token"
"""Begins the name of the cookie; the port follows, for browsers send a host's cookies to all of its ports."""
OPEN = (f"{API}/health", f"{API}/ready")
"""Answered without a token: they say nothing but that the server is there."""
READING = ("GET", "HEAD", "OPTIONS")
CHUNKS = 100_000
"""Pieces in which a body may come."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = (
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
"""Of reports: no script, nothing from anywhere, not even from here."""
HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """Who may ask: the token ("" for none), and host names beside IP addresses and localhost."""

    token: str = ""
    names: frozenset[str] = field(default_factory=frozenset)

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server: other names are those of DNS rebinding."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name == "localhost" or name in self.names
        return True

    def right(self, given: str) -> bool:
        """Whether a token is the one."""
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.token.encode())


class Refused(Exception):
    """An answer before the application is asked."""

    def __init__(self, status: int, error: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error)
        self.status, self.error, self.headers = status, error, headers or {}


class Guard:
    """The application behind its guards, itself an ASGI application."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits) -> None:
        self.app, self.access, self.limits = app, access, limits
        self.receiving = 0
        self.counted: Callable[[int], None] = lambda status: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = self._with_headers(send)
        try:
            headers = _headers(scope)
            self._check(scope, headers)
            if (moved := self._entered(scope, headers)) is not None:
                await _answer(answer, 303, b"", moved)
                return
            if scope["method"] not in READING:
                receive = await self._received(scope, headers, receive)
        except Refused as refused:
            more = {"content-type": "application/json", "connection": "close", **refused.headers}
            await _answer(answer, refused.status, json.dumps({"error": refused.error}).encode(), more)
            return
        await self.app(scope, receive, answer)

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        if not self.access.knows(headers.get("host", "")):
            raise Refused(403, "expected this server's own name in the Host header; start it with --name to add one")
        if scope["method"] not in READING:
            strange = headers.get("sec-fetch-site", "") in ("cross-site", "same-site")
            if strange or ("origin" in headers and _netloc(headers["origin"]) != headers["host"]):
                raise Refused(403, "expected a request from this server's own page, got one from another site")
        if self.access.token and scope["path"] not in OPEN and not self._entering(scope):
            given = headers.get("authorization", "")
            if not self.access.right(given[7:] if given[:7].lower() == "bearer " else _cookie(headers)):
                text = "expected the server's token: open the address that it printed, or send Authorization: Bearer"
                raise Refused(401, text, {"www-authenticate": "Bearer"})

    def _entering(self, scope: Scope) -> bool:
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        return scope["path"] == "/" and scope["method"] == "GET" and self.access.right(given)

    def _entered(self, scope: Scope, headers: Mapping[str, str]) -> dict[str, str] | None:
        """The page was opened with the token in its address: it becomes a cookie, and leaves the address."""
        if not self.access.token or not self._entering(scope):
            return None
        kept = f"{_cookie_name(headers)}={self.access.token}"
        return {"location": "/", "set-cookie": f"{kept}; Path=/; HttpOnly; SameSite=Strict"}

    async def _received(self, scope: Scope, headers: Mapping[str, str], receive: Receive) -> Receive:
        """The whole body, within its bound of bytes and time, to be read again by the application."""
        most = self._bound(scope["path"])
        stated = headers.get("content-length", "")
        if stated.isdigit() and (len(stated) > 15 or int(stated) > most):
            raise Refused(413, f"expected at most {most:,} bytes, got {stated[:20]}")
        if self.receiving >= self.limits.uploads:
            raise Refused(429, "too many requests come in at once; try again", {"retry-after": "1"})
        self.receiving += 1
        try:
            body = await asyncio.wait_for(_read(receive, most), self.limits.receive_seconds)
        except TimeoutError:
            raise Refused(408, f"expected the request within {self.limits.receive_seconds:g} s") from None
        finally:
            self.receiving -= 1
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return given.pop() if given else await receive()

        return again

    def _bound(self, path: str) -> int:
        if path == f"{API}/images":
            return int(self.limits.upload_mb * 1e6)
        return int(1000 * (self.limits.mask_kb if path == f"{API}/corrections" else self.limits.json_kb))

    def _with_headers(self, send: Send) -> Send:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message.get("headers", ())}
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
                self.counted(message["status"])
            await send(message)

        return answer


async def _read(receive: Receive, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for _ in range(CHUNKS):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "the request was cut short")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise Refused(413, f"expected at most {most:,} bytes, got more")
        if not message.get("more_body", False):
            return b"".join(parts)
    raise Refused(413, "expected the request in fewer pieces")


async def _answer(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    listed: Iterable[tuple[bytes, bytes]] = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
    size = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [size, *listed]})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> dict[str, str]:
    """By name; of a repeated Host none is believed."""
    pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
    found = dict(pairs)
    if sum(name == "host" for name, _ in pairs) != 1:
        found["host"] = ""
    return found


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _cookie_name(headers: Mapping[str, str]) -> str:
    """The cookie's name on the port that a request names."""
    port = headers.get("host", "").rpartition(":")[2]
    return f"{COOKIE}_{port}" if port.isdigit() else COOKIE


def _cookie(headers: Mapping[str, str]) -> str:
    """The token that a browser has kept; other programs' cookies, however odd, are passed over."""
    pairs = [part.strip().partition("=") for part in headers.get("cookie", "").split(";")]
    return next((value for name, _, value in pairs if name == _cookie_name(headers)), "")
