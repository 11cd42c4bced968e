"""Events by MQTT at quality of service 1: published once a process, gone from the outbox when the broker acknowledges.

Topic: PREFIX/CAMERA/events; PREFIX/CAMERA/status holds "online" or, by the last will, "offline". The broker may deliver
an event twice, as the protocol allows: its id tells.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from specialsam.apps.line.couriers import SinkDown
from specialsam.apps.line.outbox import Waiting
from specialsam.core.errors import UsageError

WAIT = 5.0
"""Seconds for a connection and for acknowledgements."""
KEEPALIVE = 10
QUEUE_FULL = 15
"""paho's MQTT_ERR_QUEUE_SIZE: it does not hold the message."""


class Mqtt:
    """A broker by its URL, mqtt://user:password@host:1883/prefix (mqtts with TLS)."""

    def __init__(self, url: str, camera: str, name: str = "mqtt") -> None:
        """UsageError for what is no such URL, or without the package; nothing is connected yet."""
        self.name = name
        parts = _parts(url)
        self._host, self._port = str(parts.hostname), parts.port or (8883 if parts.scheme == "mqtts" else 1883)
        prefix = parts.path.strip("/") or "specialsam"
        level = "".join("_" if letter in "/+#\0" else letter for letter in camera)
        self.events, self.status = f"{prefix}/{level}/events", f"{prefix}/{level}/status"
        self._client = _client()
        if parts.username:
            self._client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if parts.scheme == "mqtts":
            self._client.tls_set()
        self._client.will_set(self.status, "offline", qos=1, retain=True)
        self._client.reconnect_delay_set(1, 5)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._up, self._answered, self._reason, self._begun = threading.Event(), threading.Event(), "no answer", False
        self._client.on_publish = self._acknowledged
        self._sent: dict[int, int] = {}
        self._acks: set[int] = set()

    def send(self, waiting: Sequence[Waiting]) -> Iterable[int]:
        """Publish what is not on its way; the numbers of all that are acknowledged. SinkDown without a broker."""
        self._answered.clear()
        self._begin()
        if not self._up.is_set() and not (self._answered.wait(WAIT) and self._up.is_set()):
            raise SinkDown(f"{self._host}:{self._port}: {self._reason}")
        for one in waiting:
            if one.seq not in self._sent:  # what paho holds it sends again itself, over a new connection too
                held = self._client.publish(self.events, json.dumps(one.event.as_json()), qos=1)
                if held.rc != QUEUE_FULL:
                    self._sent[one.seq] = held.mid
        limit = time.monotonic() + WAIT
        while time.monotonic() < limit and self._up.is_set():
            if all(self._done(one.seq) for one in waiting):
                break
            time.sleep(0.005)
        done = [one.seq for one in waiting if self._done(one.seq)]
        if not done:
            raise SinkDown(
                f"{self._host}:{self._port}: {self._reason if not self._up.is_set() else 'no acknowledgement'}"
            )
        for seq in done:
            self._acks.discard(self._sent.pop(seq))
        return done

    def close(self) -> None:
        """Say goodbye: the status is "offline" as by the last will."""
        if self._up.is_set():
            self._client.publish(self.status, "offline", qos=1, retain=True).wait_for_publish(1.0)
        self._client.disconnect()
        self._client.loop_stop()

    def _done(self, seq: int) -> bool:
        return self._sent.get(seq, -1) in self._acks

    def _acknowledged(self, client: Any, data: object, mid: int, code: object, properties: object) -> None:
        self._acks.add(mid)

    def _begin(self) -> None:
        if self._begun:
            return
        try:
            self._client.connect_async(self._host, self._port, keepalive=KEEPALIVE)
            self._client.loop_start()
        except (OSError, ValueError) as error:
            raise SinkDown(f"{self._host}:{self._port}: {error}") from error
        self._begun = True

    def _connected(self, client: Any, data: object, flags: object, code: Any, properties: object) -> None:
        if code.is_failure:
            self._reason = f"refused ({code})"
        else:
            client.publish(self.status, "online", qos=1, retain=True)
            self._up.set()
        self._answered.set()

    def _disconnected(self, client: Any, data: object, flags: object, code: Any, properties: object) -> None:
        if self._up.is_set():
            self._reason = f"connection lost ({code})"
        self._up.clear()


def _parts(url: str) -> Any:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("mqtt", "mqtts") and bool(parts.hostname) and parts.port != 0 and not parts.fragment
    except ValueError:
        good = False
    if not good or any(letter in parts.path for letter in "+#\0"):
        raise UsageError("expected a broker's URL as mqtt://user:password@host:1883/prefix, got one that is none")
    return parts


def _client() -> Any:
    try:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion
    except ImportError as error:
        raise UsageError("MQTT needs the package paho-mqtt; install it: pip install 'specialsam[line]'") from error
    return Client(CallbackAPIVersion.VERSION2)
