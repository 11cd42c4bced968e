"""The production line, measured: speed and truth on the simulated line, and a campaign of kills.

python benchmarks/line.py speed OUT [--metres 30] [--seed 1] [--good 400] [--rate 0.01] [--model nano]
python benchmarks/line.py kills OUT [--pictures 100000] [--kills 3] [--outages 10]

`speed` films cloth with defects (`synth.line`: drifting light, vibration, motion blur, stops), teaches good pictures,
inspects all with the bundled model or another, and compares the events with the truth: recall, doubles, error of
position; then a roll without any defect for false alarms against the promise. It also says where the time of a picture
goes.

`kills` needs mosquitto and PostgreSQL (Debian's packages). The encoder is replaced by stored embeddings, so that many
pictures pass. Broker and database are killed and started again `--outages` times each, the inspection itself is killed
`--kills` times with SIGKILL and started again; then every sink is compared with the truth.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from specialsam.apps.line.couriers import Courier
from specialsam.apps.line.decision import Judge, Taught
from specialsam.apps.line.delivery import Delivery
from specialsam.apps.line.events import Event
from specialsam.apps.line.inspect import InspectOrder, inspect
from specialsam.apps.line.inspection import Inspection
from specialsam.apps.line.odometer import Step
from specialsam.apps.line.outbox import FILE, Outbox
from specialsam.apps.line.reader import Frame
from specialsam.apps.line.settings import LineSettings
from specialsam.apps.session import Session, open_session
from specialsam.core.console import say
from specialsam.core.geometry import Geometry
from specialsam.core.types import Embedding
from specialsam.models import memory
from specialsam.models.finder_files import FinderParts
from specialsam.models.segmenter import Segmenter
from specialsam.synth.line import LineRecipe, TrueDefect, Web
from specialsam.synth.line_files import write_line


def matched(events: Sequence[Event], truth: Sequence[TrueDefect], apart_m: float) -> dict[str, Any]:
    """Events against the truth: one meets a defect where both rectangles are closer than `apart_m` along and across."""
    hits: dict[int, list[Event]] = {}
    false = 0
    for one in events:
        near = [
            (abs(one.metre - sum(real.along_m) / 2), number)
            for number, real in enumerate(truth)
            if _gap(one.along_m, real.along_m) <= apart_m and _gap(one.across_mm, real.across_mm) <= apart_m * 1000
        ]
        if near:
            hits.setdefault(min(near)[1], []).append(one)
        else:
            false += 1
    areas = [max(one.area_mm2 for one in found) / truth[number].area_mm2 for number, found in hits.items()]
    errors = [min(abs(one.metre - sum(truth[number].along_m) / 2) for one in found) for number, found in hits.items()]
    return {
        "defects": len(truth),
        "found": len(hits),
        "doubles": sum(len(found) - 1 for found in hits.values()),
        "false events": false,
        "position error, median (mm)": round(1000 * float(np.median(errors)), 1) if errors else None,
        "position error, largest (mm)": round(1000 * max(errors), 1) if errors else None,
        "area, median of found / true": round(float(np.median(areas)), 2) if areas else None,
        "missed": [truth[number].kind for number in range(len(truth)) if number not in hits],
    }


def _gap(one: tuple[float, float], other: tuple[float, float]) -> float:
    return max(one[0] - other[1], other[0] - one[1], 0.0)


def speed(out: Path, metres: float, seed: int, good: int, rate: float, model: str) -> None:
    """Films, teaches, inspects, compares."""
    kinds = ("thread", "cut", "hole", "stain")
    flawed = LineRecipe(metres=metres, defects=round(metres), seed=seed, stops=((20, 3), (70, 5)), kinds=kinds)
    clean = flawed.model_copy(update={"defects": 0})
    for name, recipe, taught in (("flawed", flawed, good), ("clean", clean, 0)):
        if not (out / name / "truth.json").exists():
            say(f"filming {name}")
            write_line(out / name, recipe, taught)
    session = open_session(model)
    profile(session, out / "flawed" / "good")
    settings = LineSettings(pitch_mm=flawed.pitch_mm, false_alarms=rate)
    for name in ("flawed", "clean"):
        folder = out / f"inspected-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        order = InspectOrder(str(out / name / "line.avi"), folder, (out / "flawed" / "good",))
        found = inspect(session, order, settings)
        events = events_of(folder)
        truth = Web(flawed).defects if name == "flawed" else ()
        table: dict[str, Any] = matched(events, truth, flawed.length_m / 10)
        hours = found.pictures / flawed.fps / 3600
        state = json.loads(_state(folder))
        table |= {
            "pictures": found.pictures,
            "pictures a second": round(found.pictures / found.seconds, 2),
            "p50 (ms)": round(1000 * found.p50),
            "p95 (ms)": round(1000 * found.p95),
            "pictures that alarm (%)": round(100 * state["alarming"] / found.pictures, 2),
            "promised (%)": 100 * rate,
            "false events an hour of line": round(table["false events"] / hours, 1),
        }
        say(f"{name}: {json.dumps(table, indent=1)}")


def profile(session: Session, folder: Path) -> None:
    """Where the time of a picture goes, in milliseconds, the median of 30."""
    from specialsam.data.images import read_image

    image = read_image(sorted(folder.iterdir())[0])
    embedding = session.segmenter.encode(image)
    kept = memory.fit([embedding] * 2, 1024)
    steps: dict[str, Callable[[], object]] = {
        "scaling and normalising": lambda: session.segmenter.pixels(image),
        "scaling and encoding": lambda: session.segmenter.encode(image),
        "nearest neighbours and map": lambda: memory.anomaly_map(kept, embedding),
    }
    found = {}
    for name, step in steps.items():
        times = []
        for _ in range(30):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        found[name] = round(1000 * float(np.median(times)), 1)
    say(f"profile (ms, {torch.get_num_threads()} threads): {json.dumps(found)}")


def events_of(folder: Path) -> list[Event]:
    """Events of a finished inspection."""
    with sqlite3.connect(folder / FILE) as at:
        return [Event.read(json.loads(body)) for (body,) in at.execute("SELECT body FROM events ORDER BY seq")]


def _state(folder: Path) -> str:
    with sqlite3.connect(folder / FILE) as at:
        return str(at.execute("SELECT value FROM state").fetchone()[0])


PITCH, SIDE, EVERY, SEEN = 1.0, 64, 200, 8
"""mm a pixel and pixels of the campaign's pictures; a defect every so many pictures, seen in so many."""
SETTINGS = LineSettings(
    pitch_mm=PITCH, motion="trigger", trigger_mm=8, slack_mm=6, report_after=1e9, job="campaign", bound=50
)


def stored_embeddings() -> tuple[list[Embedding], list[Embedding], memory.Memory]:
    """Embeddings (16, 8, 8) of good pictures, of pictures with a defect in each row of cells, and a memory."""
    generator = torch.Generator().manual_seed(0)
    geometry = Geometry(SIDE, SIDE, SIDE)
    good = [Embedding(torch.randn(16, 8, 8, generator=generator) * 0.1, geometry) for _ in range(64)]
    bad = []
    for row in range(8):
        tensor = good[row].tensor.clone()
        tensor[:, row, 3:5] += 3.0
        bad.append(Embedding(tensor, geometry))
    return good, bad, memory.fit(good, 64)


def campaign(out: Path, pictures: int, mqtt: str, database: str) -> None:
    """The inspection of the campaign, as a process of its own: goes on where it was killed."""
    good, bad, kept = stored_embeddings()
    session = Session(Segmenter("stored", torch.nn.Identity(), SIDE), FinderParts(memory=kept))
    judge = Judge(session, Taught(()), 0.9, 0.85, 5, outlined=False)
    sinks = Delivery(database, mqtt).sinks(out, "top")
    outbox = Outbox(out / FILE, [sink.name for sink in sinks], SETTINGS.bound)
    inspection = Inspection(outbox, SETTINGS, (judge.threshold, judge.low), "stored", out)
    couriers = [Courier(outbox, sink, longest=2.0) for sink in sinks]
    for courier in couriers:
        courier.start()
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    sizes = (out / "memory.txt").open("a")
    for number in range(inspection.first, pictures):
        since = number % EVERY
        embedding = bad[since] if since < SEEN else good[number % len(good)]
        inspection.look(Frame(image, Step(number, number / 10), 0.0), judge.judge_embedding(embedding))
        if number % 2000 == 0:
            sizes.write(f"{number} {_resident()}\n")
            sizes.flush()
    inspection.finish()
    until = time.monotonic() + 120
    for courier in couriers:
        courier.finish(until)
    sizes.write(f"{pictures} {_resident()}\n")


def _resident() -> float:
    """MB of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 1e6, 1)


class Service:
    """A broker or a database that is started, killed and started again."""

    def __init__(self, command: Sequence[str], port: int, user: str | None) -> None:
        self.command, self.port, self.user, self.process = command, port, user, None

    process: subprocess.Popen[bytes] | None

    def start(self) -> None:
        """Until it takes connections."""
        while True:
            if self.process is None or self.process.poll() is not None:
                quiet = subprocess.DEVNULL
                self.process = subprocess.Popen(
                    self.command, stdout=quiet, stderr=quiet, start_new_session=True, user=self.user, cwd="/"
                )
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return
            time.sleep(0.05)

    def kill(self) -> None:
        """At once."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def services(folder: Path) -> Iterator[tuple[Service, Service]]:
    """mosquitto and PostgreSQL, in a folder that every user may enter."""
    user = "postgres" if os.geteuid() == 0 else None
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(int(free.getsockname()[1]))
    folder.chmod(0o755)
    config = folder / "mosquitto.conf"
    # what a broker that is killed has acknowledged and not written is lost to its subscribers: it writes at each change
    keeps = f"persistence true\npersistence_location {folder}/\nautosave_on_changes true\nautosave_interval 1\n"
    owner = "user root\n" if user else ""
    listens = f"listener {ports[0]} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
    config.write_text(listens + keeps + owner)
    data = folder / "postgres"
    data.mkdir()
    if user:
        shutil.chown(data, user)
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    initdb = [str(binaries / "initdb"), "-U", "line", "-A", "trust", "-D", str(data)]
    subprocess.run(initdb, check=True, capture_output=True, user=user, cwd="/")
    options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=/tmp"]
    postgres = [str(binaries / "postgres"), "-D", str(data), "-p", str(ports[1]), *options]
    both = Service(["/usr/sbin/mosquitto", "-c", str(config)], ports[0], None), Service(postgres, ports[1], user)
    for one in both:
        one.start()
    try:
        yield both
    finally:
        for one in both:
            one.kill()


def subscriber(port: int, got: list[str]) -> Any:
    """Keeps every event that the broker hands out."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    client: Any = Client(CallbackAPIVersion.VERSION2, client_id="counter", clean_session=False)
    client.reconnect_delay_set(1, 1)
    client.on_connect = lambda *_: client.subscribe("specialsam/#", qos=1)
    client.on_message = lambda _, __, message: got.append(message.payload.decode())
    client.connect("127.0.0.1", port)
    client.loop_start()
    return client


def kills(out: Path, pictures: int, kills: int, outages: int) -> None:
    """Outages and kills at even distances along the campaign, then every sink against the truth."""
    shutil.rmtree(out, ignore_errors=True)
    folder, got = out / "line", list[str]()
    folder.mkdir(parents=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place, services(Path(place)) as (broker, database):
        url = f"postgresql://line@127.0.0.1:{database.port}/postgres"
        words = [sys.executable, __file__, "campaign", str(out / "line"), "--pictures", str(pictures)]
        words += ["--mqtt", f"mqtt://127.0.0.1:{broker.port}", "--database", url]
        listener = subscriber(broker.port, got)
        killed = down = 0
        process = subprocess.Popen(words)
        while process.poll() is None:
            time.sleep(0.05)
            done = _next(folder)
            if killed < kills and done > pictures * (killed + 0.5) / kills:
                process.kill()
                process.wait()
                killed += 1
                process = subprocess.Popen(words)
            if down < outages and done > pictures * (down + 0.3) / outages:
                for one in (broker, database):
                    one.kill()
                time.sleep(1.0)
                for one in (broker, database):
                    one.start()
                down += 1
        time.sleep(3)
        rows = _rows(url)
        listener.loop_stop()
    truth = len(range(0, pictures, EVERY))
    lines = [json.loads(text)["id"] for text in (folder / "events.jsonl").read_text().splitlines()]
    sent = [json.loads(text)["id"] for text in got if text.startswith("{")]
    own = [one.id for one in events_of(folder)]
    memory_log = [line.split() for line in (folder / "memory.txt").read_text().splitlines()]
    sizes = [float(size) for _, size in memory_log]
    table = {
        "pictures": pictures,
        "seconds": round(time.monotonic() - began),
        "inspection killed": killed,
        "broker and database killed, each": down,
        "exit": process.returncode,
        "true events": truth,
        "events": {"all": len(own), "different": len(set(own))},
        "jsonl": {"all": len(lines), "different": len(set(lines)), "missing": len(set(own) - set(lines))},
        "postgresql": {"all": len(rows), "different": len(set(rows)), "missing": len(set(own) - set(rows))},
        "mqtt": {"all": len(sent), "different": len(set(sent)), "missing": len(set(own) - set(sent))},
        "memory (MB), each fifth of the log": sizes[:: max(1, len(sizes) // 5)],
        "memory (MB), last": sizes[-1],
    }
    say(json.dumps(table, indent=1))


def _next(folder: Path) -> int:
    with suppress(sqlite3.Error, TypeError):
        return int(json.loads(_state(folder))["next"])
    return 0


def _rows(url: str) -> list[str]:
    import psycopg

    with psycopg.connect(url) as at:
        return [str(one) for (one,) in at.execute("SELECT id FROM specialsam_events").fetchall()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    fast = what.add_parser("speed")
    fast.add_argument("out", type=Path)
    fast.add_argument("--metres", type=float, default=30)
    fast.add_argument("--seed", type=int, default=1)
    fast.add_argument("--good", type=int, default=400)
    fast.add_argument("--rate", type=float, default=0.01)
    fast.add_argument("--model", default="nano", help="decides by its finder where it has one, else by a memory")
    for name in ("kills", "campaign"):
        one = what.add_parser(name)
        one.add_argument("out", type=Path)
        one.add_argument("--pictures", type=int, default=100_000)
        one.add_argument("--kills", type=int, default=3)
        one.add_argument("--outages", type=int, default=10)
        one.add_argument("--mqtt", default="")
        one.add_argument("--database", default="")
    asked = parser.parse_args()
    if asked.what == "speed":
        speed(asked.out, asked.metres, asked.seed, asked.good, asked.rate, asked.model)
    elif asked.what == "kills":
        kills(asked.out, asked.pictures, asked.kills, asked.outages)
    else:
        torch.set_num_threads(1)
        campaign(asked.out, asked.pictures, asked.mqtt, asked.database)


if __name__ == "__main__":
    main()
