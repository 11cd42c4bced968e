"""Measure `specialsam serve`: start, clicks of one user, many users at once, and thousands of hostile requests.

python benchmarks/serve.py OUT [--specialist FOLDER] [--clicks 200] [--users 20] [--hostile 0] [--seed 0]

A server of its own is started as a person would start it, on a free port of this machine, and asked over HTTP. Pictures
are generated. A click is a whole round trip: request, model, answer. Of many users each has a session, uploads a
picture and clicks as soon as the last click is answered; how fairly they are served is said by the clicks that each had
answered when the first of them was done. Memory is that of the server and of the model's process together.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hostile import cases, send
from PIL import Image

from specialsam.core.console import say, stage
from specialsam.synth.scenes import scene

SIZES = ((768, 512), (1280, 853), (4000, 3000))
"""Width and height of the pictures that one user clicks on."""
AT_ONCE = 4
"""Hostile requests that are under way at once."""
OUTSIDE = "the secret outside"


@dataclass
class Served:
    """The server's process, its port, and the seconds until it was ready."""

    process: subprocess.Popen[str]
    port: int
    ready: float

    def rss(self) -> float:
        """Megabytes of the server and its children."""
        pids = [self.process.pid, *_children(self.process.pid)]
        return sum(_rss(pid) for pid in pids)


@dataclass
class Line:
    """One connection that stays open, as a browser's does."""

    port: int
    taken: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def ask(self, path: str, body: bytes, kind: str = "application/json") -> dict[str, Any]:
        """The answer to a POST; its seconds and status are noted."""
        began = time.perf_counter()
        self.connection.request("POST", f"/api/v1/{path}", body, {"Content-Type": kind})
        answer = self.connection.getresponse()
        content = answer.read()
        self.taken.append(time.perf_counter() - began)
        self.statuses[answer.status] += 1
        return dict(json.loads(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--specialist", type=Path)
    parser.add_argument("--clicks", type=int, default=200)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--hostile", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "secret.txt").write_text(OUTSIDE)
    # room for the sessions of all that can be read, else most uploads would be refused unread; few embeddings are kept,
    # so that memory stands still unless something leaks
    wide = ["--set", "sessions=2000", "--set", "kept_mb=20"] if asked.hostile else []
    served = start(asked.out / "served", asked.specialist, wide)
    found: dict[str, Any] = {"ready_seconds": round(served.ready, 2)}
    say(f"ready after {served.ready:.1f} s")
    try:
        if asked.clicks:
            found["clicks"] = [one_user(served, size, asked.clicks, asked.seed) for size in SIZES]
        if asked.users:
            found["users"] = many_users(served, asked.users, max(5, asked.clicks // 8), asked.seed)
        if asked.hostile:
            found["hostile"] = harm(served, asked.hostile, asked.seed)
    finally:
        served.process.send_signal(signal.SIGINT)
        served.process.wait(20)
    (asked.out / "serve.json").write_text(json.dumps(found, indent=1) + "\n")
    say(f"numbers: {asked.out / 'serve.json'}")


def start(folder: Path, specialist: Path | None, options: list[str]) -> Served:
    """A server in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "specialsam.cli", "serve", "--port", "0", *options]
    command += ["--specialist", str(specialist.resolve())] if specialist else []
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for row in process.stdout:
        if match := re.search(r"http://[^:]+:(\d+)", row):
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return Served(process, int(match[1]), time.perf_counter() - began)
    raise SystemExit(f"the server ended with {process.wait()}")


def picture(size: tuple[int, int], seed: int) -> bytes:
    """A generated photograph of (width, height) as JPEG."""
    out = io.BytesIO()
    Image.fromarray(scene(seed, 512, 1.0).image).resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


def click(rng: np.random.Generator, known: dict[str, Any]) -> bytes:
    """A question with one point anywhere in the picture."""
    x, y = rng.uniform(0, known["width"] - 1), rng.uniform(0, known["height"] - 1)
    return json.dumps({"image": known["image"], "prompts": [{"points": [[x, y]]}]}).encode()


def one_user(served: Served, size: tuple[int, int], clicks: int, seed: int) -> dict[str, Any]:
    """A picture is uploaded, then clicked on again and again."""
    line, rng = Line(served.port), np.random.default_rng(seed)
    known = line.ask("images", picture(size, seed), "image/jpeg")
    upload = line.taken.pop()
    for _ in range(clicks):
        line.ask("segment", click(rng, known))
    found = {
        "size": list(size),
        "upload_ms": round(1000 * upload),
        "statuses": dict(line.statuses),
        **_times(line.taken),
    }
    say(f"one user, {size[0]}x{size[1]}: {json.dumps(found)}")
    return found


def many_users(served: Served, users: int, clicks: int, seed: int) -> dict[str, Any]:
    """Users who click at once, each on a picture of its own."""
    contents = [picture(SIZES[0], seed + number) for number in range(users)]
    done, first_done, lock = [0] * users, list[list[int]](), threading.Lock()
    gate = threading.Barrier(users)

    def user(number: int) -> Line:
        line, rng = Line(served.port), np.random.default_rng(number)
        gate.wait()
        known = line.ask("images", contents[number], "image/jpeg")
        for _ in range(clicks):
            line.ask("segment", click(rng, known))
            done[number] += 1
        with lock:
            first_done.append(list(done))
        return line

    began = time.perf_counter()
    with ThreadPoolExecutor(users) as pool:
        lines = list(pool.map(user, range(users)))
    took = time.perf_counter() - began
    statuses = sum((line.statuses for line in lines), Counter[int]())
    means = [float(np.mean(line.taken[1:])) for line in lines]
    found = {
        "users": users,
        "clicks_each": clicks,
        "statuses": dict(statuses),
        "uploads_ms": _times([line.taken[0] for line in lines]),
        **_times([one for line in lines for one in line.taken[1:]]),
        "clicks_a_second": round(users * clicks / took, 1),
        "answered_when_the_first_was_done": [min(first_done[0]), max(first_done[0])],
        "slowest_to_fastest_user": round(max(means) / min(means), 2),
    }
    say(f"{users} users at once: {json.dumps(found)}")
    return found


def harm(served: Served, count: int, seed: int) -> dict[str, Any]:
    """Hostile requests, some at once; the server must answer a good question after them as before."""
    statuses: dict[str, Counter[int]] = {}
    honest, rng = Line(served.port), np.random.default_rng(seed)
    known = honest.ask("images", picture(SIZES[0], seed), "image/jpeg")
    before = honest.ask("segment", click(rng, known))
    told, memory, lock = 0, [round(served.rss())], threading.Lock()
    with stage("hostile requests") as progress, ThreadPoolExecutor(AT_ONCE) as pool:
        for number, (case, reply) in enumerate(
            pool.map(lambda case: (case, send(served.port, case)), cases(count, seed)), 1
        ):
            with lock:
                statuses.setdefault(case.kind, Counter())[reply.status] += 1
                told += bool(reply.told)
            if number % max(1, count // 10) == 0:
                memory.append(round(served.rss()))
            progress(number, count, case.kind)
    honest = Line(served.port)
    after = honest.ask("segment", click(np.random.default_rng(seed), known))
    fives = sum(number for each in statuses.values() for status, number in each.items() if status >= 500)
    found = {
        "requests": count,
        "answers_5xx": fives,
        "answers_with_bytes_from_outside": told,
        "memory_mb": memory,
        "statuses": {kind: {str(status): n for status, n in sorted(each.items())} for kind, each in statuses.items()},
        "restarts": _metric(served, "specialsam_model_restarts_total"),
        "the_same_answer_after": after["objects"] == before["objects"],
    }
    say(f"hostile: {json.dumps(found, indent=1)}")
    return found


def _metric(served: Served, name: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request("GET", "/api/v1/metrics")
    text = connection.getresponse().read().decode()
    return next((float(row.split()[-1]) for row in text.splitlines() if row.startswith(name)), float("nan"))


def _times(seconds: list[float]) -> dict[str, float]:
    return {f"p{q}_ms": round(1000 * float(np.percentile(seconds, q)), 1) for q in (50, 95)}


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(path.parent.name)
            found += [child, *_children(child)]
    return found


def _rss(pid: int) -> float:
    try:
        rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(row.split()[1]) / 1000 for row in rows if row.startswith("VmRSS")), 0.0)


if __name__ == "__main__":
    main()
