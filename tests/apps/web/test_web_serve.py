"""The command itself, as a person starts and ends it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from small_models import finder, specialist
from web_parts import until

from specialsam.apps.web.client import find, upload
from specialsam.apps.web.server import Listening

Call = Callable[..., tuple[int, str, str]]


def started(folder: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """`specialsam serve` with these options, and the address that it says."""
    command = [sys.executable, "-m", "specialsam.cli", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for row in process.stdout:
        if match := re.search(r"http://\S+", row):
            return process, match[0]
    raise AssertionError(f"it ended with {process.wait()}")


def test_it_serves_with_a_token_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    specialist(tmp_path / "animals", finder())
    (tmp_path / "a.png").write_bytes(b"")
    from PIL import Image

    Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "a.png")
    process, address = started(tmp_path, "--model", "animals", "--host", "0.0.0.0", "--device", "cpu")
    try:
        server, token = address.split("/?token=")
        assert json.load(urllib.request.urlopen(f"{server}/api/v1/health"))["status"] == "ok"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{server}/api/v1/models")
        known = upload(server, tmp_path / "a.png", token)
        assert find(known)["model"] == "m0"
        [uploads] = tmp_path.glob("specialsam-serve-*")
        assert len([path for path in uploads.rglob("*") if path.is_file()]) == 1
        assert uploads.stat().st_mode & 0o077 == 0
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    assert not uploads.exists()
    assert not (tmp_path / "corrections").exists()  # nothing is written that nobody asked for


def test_uploads_go_even_if_the_server_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    specialist(tmp_path / "animals", finder())
    process, _ = started(tmp_path, "--model", "base", "--device", "cpu")
    [uploads] = tmp_path.glob("specialsam-serve-*")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not uploads.exists())
    time.sleep(0.1)


def test_what_cannot_be_served_is_said_in_one_line(call: Call, tmp_path: Path) -> None:
    with Listening(port=0).opened() as taken:
        taken.listen()
        port = taken.getsockname()[1]
        for options, word in (
            (("--port", port), "free port"),
            (("--token", "short"), "--token"),
            (("--host", "no.such.host.invalid"), "--host"),
            (("--set", "upload_mb=-1"), "upload_mb"),
            (("--set", "megabytes=1"), "megabytes"),
            (("--port", 0, "--model", "no-such-model"), "no-such-model"),
        ):
            code, _, err = call("serve", *options)
            assert code == (1 if word == "no-such-model" else 2)
            assert err.startswith("error: ")
            assert len(err.splitlines()) == 1
            assert word in err
