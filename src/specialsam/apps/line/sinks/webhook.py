"""Events by HTTP to an address of the user's: signed, in bounded time, never to where a redirect or a name leads.

Each is a POST of the event's JSON with its id in `X-Specialsam-Event` and, where there is a secret,
`X-Specialsam-Signature: t=SECONDS,v1=HEX`: HMAC-SHA256 of "SECONDS.BODY". An address in a private, local or reserved
network is refused unless it is allowed; the connection goes to the very address that was looked at.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from specialsam import __version__
from specialsam.apps.line.couriers import SinkDown
from specialsam.apps.line.outbox import Waiting
from specialsam.core.errors import UsageError

WAIT = 5.0
"""Seconds for an event, from looking up the name to the answer."""


class Webhook:
    """An address, its secret, and whether it may lie in a private network."""

    def __init__(
        self, url: str, secret: str = "", allow_private: bool = False, wait: float = WAIT, name: str = "webhook"
    ) -> None:
        """UsageError for what is no http:// or https:// address; nothing is looked up yet."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise UsageError("expected a webhook as https://host/path, got an address that is none")
        self.name, self._secret, self._allowed, self._wait = name, secret.encode(), allow_private, wait
        self._tls = parts.scheme == "https"
        self._host, self._port = parts.hostname, port or (443 if self._tls else 80)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def send(self, waiting: Sequence[Waiting]) -> Iterable[int]:
        """Post one after the other; the numbers of those that were taken before the first that was not."""
        done: list[int] = []
        for one in waiting:
            try:
                self._post(one.event.id, json.dumps(one.event.as_json()).encode())
            except (OSError, http.client.HTTPException, SinkDown) as error:
                if done:
                    break
                raise SinkDown(f"{self._host}: {_reason(error)}") from error
            done.append(one.seq)
        return done

    def close(self) -> None:
        """No connection is kept."""

    def _post(self, identity: str, body: bytes) -> None:
        limit = time.monotonic() + self._wait
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._wait)
        plain = self._connected()
        # a timeout of the socket starts anew with every byte: an answer that trickles is cut off by the clock
        watch = threading.Timer(max(0.01, limit - time.monotonic()), _cut, [plain])
        watch.daemon = True
        watch.start()
        try:
            connection.sock = plain
            if self._tls:
                connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self._host)
            connection.request("POST", self._path, body, self._headers(identity, body))
            answer = connection.getresponse()
            if not 200 <= answer.status < 300:
                raise SinkDown(f"it answered {answer.status}" + (", a redirect" if 300 <= answer.status < 400 else ""))
        except (OSError, http.client.HTTPException):
            if time.monotonic() >= limit:
                raise SinkDown(f"no answer within {self._wait:g} s") from None
            raise
        finally:
            watch.cancel()
            connection.close()
            plain.close()

    def _headers(self, identity: str, body: bytes) -> dict[str, str]:
        headers = {
            "Host": self._host if self._port in (80, 443) else f"{self._host}:{self._port}",
            "Content-Type": "application/json",
            "User-Agent": f"specialsam/{__version__}",
            "X-Specialsam-Event": identity,
        }
        if self._secret:
            headers["X-Specialsam-Signature"] = signature(self._secret, body, int(time.time()))
        return headers

    def _connected(self) -> socket.socket:
        """A connection to the first address of the host, all of which must be public ones."""
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            if not self._allowed and not ipaddress.ip_address(address.partition("%")[0]).is_global:
                raise SinkDown(f"it lies in a private network ({address}); --allow-private lets it")
        return socket.create_connection((addresses[0], self._port), timeout=self._wait)


def signature(secret: bytes, body: bytes, seconds: int) -> str:
    """The header of a body at a time, by which a receiver with the same secret knows the sender and the age."""
    mark = hmac.new(secret, f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={mark}"


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
