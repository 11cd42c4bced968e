"""Where events go. Oracles: mosquitto and PostgreSQL themselves, a web server that checks signatures by hand, files."""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_parts import broker, event, free_port, postgres, until

from heard import Heard
from specialsam.apps.line.couriers import Courier, Sink, SinkDown
from specialsam.apps.line.delivery import Delivery
from specialsam.apps.line.outbox import Outbox, Waiting
from specialsam.apps.line.sinks import mqtt
from specialsam.apps.line.sinks.database import Database
from specialsam.apps.line.sinks.jsonl import JsonLines
from specialsam.apps.line.sinks.mqtt import Mqtt
from specialsam.apps.line.sinks.prometheus import Metrics, text_of
from specialsam.apps.line.sinks.webhook import Webhook
from specialsam.core.console import using
from specialsam.core.errors import UsageError

ALL = [Waiting(number, event(number)) for number in range(1, 6)]


@contextmanager
def carried(tmp_path: Path, sink: Sink, heard: Heard | None = None) -> Iterator[tuple[Outbox, Courier]]:
    """An outbox and the courier of one sink, which ends with the context."""
    box = Outbox(tmp_path / "line.sqlite", [sink.name])
    with using(heard or Heard()):
        courier = Courier(box, sink, longest=0.3)
        courier.start()
        try:
            yield box, courier
        finally:
            courier.finish(time.monotonic() + 3)
            box.close()


def test_lines_of_json_are_there_once_whatever_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert list(JsonLines(path).send(ALL[:3])) == [1, 2, 3]
    with path.open("ab") as file:
        file.write(b'{"id": "id-4", "num')  # a process was killed within its write
    assert list(JsonLines(path).send(ALL)) == [1, 2, 3, 4, 5], "nothing was taken from the outbox before the kill"
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [1, 2, 3, 4, 5]
    path.unlink()
    path.mkdir()
    with pytest.raises(SinkDown, match=r"cannot write .*events.jsonl: Is a directory"):
        JsonLines(path).send(ALL)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes the bytes and then has no room to keep them."""
    path = tmp_path / "events.jsonl"
    sink = JsonLines(path)
    sink.send(ALL[:2])
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(SinkDown, match=r"cannot write .*events.jsonl: No space left on device"):
            sink.send(ALL)
    assert path.read_bytes() == before
    assert list(sink.send(ALL)) == [1, 2, 3, 4, 5]
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [1, 2, 3, 4, 5]


def test_postgresql_is_killed_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """Oracle: PostgreSQL's own count, after it was killed while events came."""
    import psycopg

    heard = Heard()
    with postgres() as server:
        url = f"postgresql://line@127.0.0.1:{server.port}/postgres"
        with carried(tmp_path, Database(url), heard) as (box, courier):
            for number in range(60):
                if number == 20:
                    until(lambda: box.counts()["database"] < 20)
                    server.kill()
                if number == 40:
                    server.start()
                box.put([event(number)], {})
                time.sleep(0.01)
            until(lambda: box.counts()["database"] == 0)
            Database(url).send(ALL)  # what was delivered once may be delivered again
            with psycopg.connect(url) as at:
                found = at.execute("SELECT body FROM specialsam_events ORDER BY from_m").fetchall()
            assert [json.loads(body)["number"] for (body,) in found] == list(range(60))
            assert courier.failures > 0
    assert any(
        "database takes no events (" in line and "they wait, and the line goes on" in line for line in heard.lines
    )
    assert "database takes events again" in heard.lines


def test_sqlite_as_a_database_locked_and_read_only(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "plant.sqlite"
    sink = Database(f"sqlite:///{path}")
    assert list(sink.send(ALL[:2])) == [1, 2]
    assert list(sink.send(ALL)) == [1, 2, 3, 4, 5]
    with sqlite3.connect(path) as at:
        assert at.execute("SELECT count(*), count(DISTINCT id) FROM specialsam_events").fetchone() == (5, 5)
    with pytest.raises(SinkDown, match="readonly database"):
        Database(f"sqlite:///file:{path}?mode=ro&uri=true").send([Waiting(9, event(9))])
    with pytest.raises(SinkDown, match="unable to open database file"):
        Database(f"sqlite:///{tmp_path}/nowhere/x.sqlite").send(ALL)


def listening(port: int, topic: str, heard: list[Any]) -> Any:
    """A subscriber of paho's that keeps what comes."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    client = Client(CallbackAPIVersion.VERSION2, client_id="listener", clean_session=False)
    client.reconnect_delay_set(1, 1)
    client.on_connect = lambda *_: client.subscribe(topic, qos=1)
    client.on_message = lambda _, __, message: heard.append((message.topic, message.payload.decode()))
    client.connect_async("127.0.0.1", port)
    client.loop_start()
    until(client.is_connected)
    return client


def test_a_broker_is_killed_and_nothing_is_lost(tmp_path: Path) -> None:
    """Oracle: mosquitto's own subscriber, which stays on; the last will tells of a process without a goodbye."""
    got: list[tuple[str, str]] = []
    with broker("allow_anonymous true\n") as server:
        subscriber = listening(server.port, "mill/#", got)
        with carried(tmp_path, Mqtt(f"mqtt://127.0.0.1:{server.port}/mill", "top/1")) as (box, _):
            for number in range(40):
                if number == 15:
                    until(lambda: box.counts()["mqtt"] == 0)
                    server.kill()
                if number == 30:
                    server.start()
                    until(subscriber.is_connected)
                box.put([event(number)], {})
            until(lambda: box.counts()["mqtt"] == 0)
            until(lambda: len({text for topic, text in got if topic == "mill/top_1/events"}) == 40)
        until(lambda: ("mill/top_1/status", "offline") in got)
        subscriber.loop_stop()
    numbers = [json.loads(text)["number"] for topic, text in got if topic == "mill/top_1/events"]
    assert sorted(set(numbers)) == list(range(40))
    assert len(numbers) < 80, "quality 1 allows doubles, not all of them"
    assert ("mill/top_1/status", "online") in got


def test_a_broker_that_refuses_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "WAIT", 1.0)
    with broker("allow_anonymous false\n") as server:
        sink = Mqtt(f"mqtt://127.0.0.1:{server.port}", "top")
        with pytest.raises(SinkDown, match=rf"127.0.0.1:{server.port}: refused \(Not authorized\)"):
            sink.send(ALL)
        sink.close()
    with pytest.raises(SinkDown, match="no answer"):
        Mqtt(f"mqtt://127.0.0.1:{free_port()}", "top").send(ALL)


class Receiver:
    """A web server that answers as it is told and keeps what it got."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answer, self.wait, self.drip = 200, 0.0, False
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers), body))
                time.sleep(receiver.wait)
                while receiver.drip:
                    self.wfile.write(b"H")
                    self.wfile.flush()
                    time.sleep(0.05)
                self.send_response(receiver.answer)
                if 300 <= receiver.answer < 400:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook?line=1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.drip = False
    made.server.shutdown()
    made.server.server_close()


def test_a_webhook_is_signed(receiver: Receiver) -> None:
    """Oracle: HMAC-SHA256 of time and body by Python's own library."""
    assert list(Webhook(receiver.url, "secret", allow_private=True).send(ALL[:2])) == [1, 2]
    for (headers, body), sent in zip(receiver.got, ALL, strict=False):
        assert json.loads(body) == json.loads(json.dumps(sent.event.as_json()))
        assert headers["X-Specialsam-Event"] == sent.event.id
        seconds, mark = (part.split("=")[1] for part in headers["X-Specialsam-Signature"].split(","))
        assert mark == hmac.new(b"secret", seconds.encode() + b"." + body, hashlib.sha256).hexdigest()
        assert abs(int(seconds) - time.time()) < 60


def test_a_webhook_that_answers_slowly_is_left_in_time(receiver: Receiver) -> None:
    """Whether nothing comes or a byte now and then: the clock counts, not the silence."""
    hook = Webhook(receiver.url, allow_private=True, wait=0.3)
    for slow in ("wait", "drip"):
        setattr(receiver, slow, 5.0)
        began = time.monotonic()
        with pytest.raises(SinkDown, match=r"no answer (within 0.3 s|in time)"):
            hook.send(ALL[:1])
        assert time.monotonic() - began < 4
        setattr(receiver, slow, 0.0)
    assert list(hook.send(ALL[:1])) == [1]


def test_a_webhook_follows_no_redirect_and_keeps_what_was_taken(receiver: Receiver) -> None:
    hook = Webhook(receiver.url, allow_private=True)
    receiver.answer = 302
    with pytest.raises(SinkDown, match="it answered 302, a redirect"):
        hook.send(ALL[:1])
    receiver.answer = 503
    with pytest.raises(SinkDown, match="it answered 503"):
        hook.send(ALL[:1])
    assert len(receiver.got) == 2, "one call each, none to where the redirect leads"


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "10.0.0.8", "192.168.1.2", "169.254.169.254", "[::1]", "0.0.0.0", "[::ffff:10.0.0.1]"],
)
def test_a_webhook_into_a_private_network_is_refused(host: str) -> None:
    with pytest.raises(SinkDown, match=r"it lies in a private network \(.*\); --allow-private lets it"):
        Webhook(f"http://{host}:9/x").send(ALL[:1])


def test_a_sink_that_is_down_delays_no_other_and_not_the_line(tmp_path: Path, receiver: Receiver) -> None:
    """The slow webhook holds its own events alone."""
    receiver.wait = 5.0
    slow, quick = Webhook(receiver.url, allow_private=True, wait=2.0), JsonLines(tmp_path / "events.jsonl")
    box = Outbox(tmp_path / "line.sqlite", [slow.name, quick.name])
    with using(Heard()):
        couriers = [Courier(box, sink) for sink in (slow, quick)]
        for courier in couriers:
            courier.start()
        times = []
        for number in range(30):
            began = time.monotonic()
            box.put([event(number)], {})
            times.append(time.monotonic() - began)
        until(lambda: box.counts()["jsonl"] == 0)
        assert box.counts()["webhook"] == 30
        assert sorted(times)[15] < 0.1
        began = time.monotonic()
        assert [courier.finish(began + 0.5) for courier in couriers] == [False, True]
        assert time.monotonic() - began < 1.5
    box.close()


@pytest.mark.parametrize(
    ("delivery", "said"),
    [
        (Delivery(database="no url"), "expected a database's URL as postgresql"),
        (Delivery(database="oracle9://x/y"), "expected a database's URL"),
        (Delivery(mqtt="http://host"), "expected a broker's URL as mqtt://"),
        (Delivery(mqtt="mqtt://host:99999"), "expected a broker's URL"),
        (Delivery(mqtt="mqtt://host/a/+/b"), "expected a broker's URL"),
        (Delivery(webhook="ftp://host/x"), "expected a webhook as https://host/path"),
        (Delivery(webhook="https://user:hidden@host/x"), "expected a webhook as https"),
        (Delivery(secret="s"), "expected a webhook for its secret, got none"),
    ],
)
def test_wrong_addresses(tmp_path: Path, delivery: Delivery, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        delivery.sinks(tmp_path, "top")
    assert "hidden" not in str(error.value)


@given(st.text(max_size=30), st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_metrics_read_back(text: str, value: float) -> None:
    """Oracle: the label undone by the rules of the text format 0.0.4, by hand."""
    lines = text_of({"a_total": ("How many", {(("roll", text),): value})}).split("\n")
    assert lines[:2] == ["# HELP a_total How many", "# TYPE a_total counter"]
    assert len(lines) == 4
    label, number = lines[2].removeprefix('a_total{roll="').rsplit('"} ', 1)
    assert label.replace("\\\\", "\0").replace('\\"', '"').replace("\\n", "\n").replace("\0", "\\") == text.replace(
        "\0", "\\"
    )
    assert float(number) == pytest.approx(value, rel=1e-6)


def test_metrics_are_served_and_a_taken_port_is_said() -> None:
    served = Metrics(0, lambda: {"up": ("Up", {(): 1.0})})
    url = f"http://127.0.0.1:{served.port}/metrics"
    assert urllib.request.urlopen(url, timeout=5).read() == b"# HELP up Up\n# TYPE up gauge\nup 1\n"
    with pytest.raises(UsageError, match=f"expected a free port for --metrics, got {served.port}"):
        Metrics(served.port, dict)
    served.close()
