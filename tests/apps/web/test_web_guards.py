"""The guards alone, before any application: what they refuse, and that nothing of it reaches what stands behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from specialsam.apps.web.guards import Access, Guard
from specialsam.apps.web.limits import Limits
from specialsam.apps.web.server import Listening
from specialsam.core.errors import UsageError

TOKEN = "a-token-of-some-length"
OWN = {"host": "127.0.0.1:8000"}
LIMITS = Limits(upload_mb=0.01, json_kb=1, receive_seconds=0.2, uploads=2)


class Reached:
    """An application that says what came to it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.bodies.append((await receive())["body"] if scope["method"] == "POST" else b"")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"reached"})


def ask(
    method: str,
    path: str,
    headers: dict[str, str] | Sequence[tuple[str, str]],
    parts: Sequence[bytes | None] = (b"",),
    token: str = "",
    names: frozenset[str] = frozenset(),
) -> tuple[int, dict[str, str], bytes, list[bytes]]:
    """Status, headers, body, and the bodies that came through. None among the parts: nothing comes any more."""
    reached, sent = Reached(), []
    guard = Guard(reached, Access(token, names), LIMITS)
    coming = list(parts)
    pairs = headers.items() if isinstance(headers, dict) else headers

    async def receive() -> dict[str, Any]:
        part = coming.pop(0)
        if part is None:
            await asyncio.sleep(30)
        return {"type": "http.request", "body": part, "more_body": bool(coming)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    address, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": address,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in pairs],
    }
    asyncio.run(guard(scope, receive, send))
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], told, sent[1]["body"], reached.bodies


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost:1", "[::1]:8000", "192.168.3.4:8000", "plant.example:8000", "LOCALHOST"]
)
def test_own_names_come_through(host: str) -> None:
    assert ask("GET", "/", {"host": host}, names=frozenset({"plant.example"}))[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "a b", "[]"]
)
def test_other_names_are_those_of_rebinding(host: str) -> None:
    status, _, body, reached = ask("GET", "/", {"host": host})
    assert (status, reached) == (403, [])
    assert "Host" in json.loads(body)["error"]


def test_of_two_hosts_none_is_believed() -> None:
    assert ask("GET", "/", [("host", "127.0.0.1"), ("host", "localhost")])[0] == 403
    assert ask("GET", "/", {})[0] == 403


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"origin": "https://127.0.0.1:8000"}, 200),  # behind a proxy that speaks TLS
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_what_changes_something_comes_from_the_own_page(more: dict[str, str], status: int) -> None:
    assert ask("POST", "/api/v1/tuning", {**OWN, **more})[0] == status
    assert ask("DELETE", "/api/v1/tuning", {**OWN, **more})[0] == status
    assert ask("GET", "/api/v1/tuning", {**OWN, **more})[0] == 200


def test_a_token_is_demanded_and_becomes_a_cookie() -> None:
    for path in ("/", "/api/v1/models", "/static/main.js", "/?token=wrong", "/api/v1/models?token=" + TOKEN):
        status, headers, _, reached = ask("GET", path, OWN, token=TOKEN)
        assert (status, reached) == (401, [])
        assert headers["www-authenticate"] == "Bearer"
    status, headers, _, reached = ask("GET", f"/?token={TOKEN}", OWN, token=TOKEN)
    assert (status, headers["location"], reached) == (303, "/", [])
    assert {"HttpOnly", "SameSite=Strict"} <= {part.strip() for part in headers["set-cookie"].split(";")}
    cookie = headers["set-cookie"].partition(";")[0]
    for other in (
        "other=1",
        'theme={"dark":true}',
        "n=Jane Doe",
        "x=caf\xe9",
        '="\xff',
        "specialsam_token=another-port's",
    ):
        assert ask("GET", "/", {**OWN, "cookie": f"{other}; {cookie}"}, token=TOKEN)[0] == 200
        assert ask("GET", "/", {**OWN, "cookie": f"{cookie}; {other}"}, token=TOKEN)[0] == 200
    assert ask("GET", "/x", {**OWN, "authorization": f"Bearer {TOKEN}"}, token=TOKEN)[0] == 200
    for wrong in (
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": TOKEN},
        {"cookie": cookie[:-1]},
        {"cookie": '="\xff'},
    ):
        assert ask("GET", "/x", {**OWN, **wrong}, token=TOKEN)[0] == 401
    assert ask("GET", "/api/v1/health", OWN, token=TOKEN)[0] == 200


def test_a_stated_size_is_refused_before_a_byte_is_read() -> None:
    for size in ("10001", "9" * 400):
        status, _, body, reached = ask("POST", "/api/v1/images", {**OWN, "content-length": size}, [None])
        assert (status, reached) == (413, [])
        assert "10,000 bytes" in json.loads(body)["error"]


def test_bodies_are_counted_as_they_come() -> None:
    assert ask("POST", "/api/v1/images", OWN, [b"x" * 5000] * 2)[3] == [b"x" * 10000]
    assert ask("POST", "/api/v1/images", OWN, [b"x" * 5000] * 2 + [b"y"])[0] == 413
    assert ask("POST", "/api/v1/segment", OWN, [b"x" * 1001])[0] == 413
    assert ask("POST", "/api/v1/images", {**OWN, "content-length": "5"}, [b"x" * 5000] * 3)[0] == 413


def test_a_body_that_never_comes_is_not_waited_for() -> None:
    assert ask("POST", "/api/v1/images", OWN, [b"x", None])[0] == 408


def test_so_many_bodies_come_in_at_once_and_no_more() -> None:
    reached = Reached()
    guard = Guard(reached, Access(), LIMITS)
    guard.receiving = LIMITS.uploads
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"127.0.0.1")]}
    asyncio.run(guard(scope, receive, send))
    assert sent[0]["status"] == 429
    assert (b"retry-after", b"1") in sent[0]["headers"]


def test_every_answer_bears_the_headers() -> None:
    for answer in (ask("GET", "/", OWN), ask("GET", "/", {"host": "evil.example"})):
        headers = answer[1]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_another_address_demands_a_token() -> None:
    assert Listening("127.0.0.1").access().token == ""
    assert Listening("::1").access().token == ""
    for host in ("0.0.0.0", "192.168.1.4", "::", "plant.example"):
        made = Listening(host).access()
        assert len(made.token) >= 24
        assert made.token != Listening(host).access().token
    assert Listening("0.0.0.0", token=TOKEN).access().token == TOKEN
    assert Listening("plant.example").access().knows("plant.example:8000")
    for weak in ("short", "with spaces and more of it", "semi;colon;semi;colon"):
        with pytest.raises(UsageError, match="--token"):
            Listening(token=weak).access()
