"""Runs, the line, tuning: what lies in folders is told, what links lead to is not."""

from __future__ import annotations

import http.client
import json
import sqlite3
import threading
import time
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from line_parts import event
from small_models import picture
from web_parts import Site, packed, runs_of, until

from specialsam.apps.line import viewing
from specialsam.apps.line.decision import Judged
from specialsam.apps.line.live import Live
from specialsam.apps.line.outbox import FILE, Outbox
from specialsam.apps.line.snapshots import marked_jpeg, write_snapshot
from specialsam.apps.web.catalogue import FEW
from specialsam.apps.web.corrections import Corrections
from specialsam.apps.web.guards import REPORT_POLICY
from specialsam.apps.web.page_api import NEXT
from specialsam.apps.web.tuning import Recipe, Tuner, epochs_of
from specialsam.core.errors import UsageError
from specialsam.report import verdict

NOTHING = Judged(0.1, np.zeros((0, 48, 64), np.bool_), np.zeros(0, np.float32))


def made_run(folder: Path, **facts: object) -> None:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"identity": {"job": "specialize", "model": "nano"}, **facts}))


def test_runs_are_listed_and_links_are_not(site: Site, place: Path) -> None:
    runs = place / "runs"
    made_run(runs / "one", started="2026-11-27T08:00:00+00:00")
    (runs / "one" / "report.html").write_text("<p>one</p>")
    head = "strategy,output,metric,base,tuned,gain,low,high,n"
    rows = [
        "interior,single,iou,0.5,0.6,0.1,0.05,0.15,9",
        "interior,single,dice,0,0,0,0,0,9",
        "box,best,iou,0,0,0,0,0,9",
    ]
    (runs / "one" / "comparison.csv").write_text("\n".join([head, *rows, "edge,single,iou,nan,0,0,0,0,9"]))
    made_run(runs / "group" / "two")
    (runs / "group" / "two" / "report.html").symlink_to(place.parent / "secret.txt")
    made_run(place.parent / "elsewhere")
    (place.parent / "elsewhere" / "report.html").write_text("<p>outside</p>")
    (runs / "linked").symlink_to(place.parent / "elsewhere")
    (runs / "damaged").mkdir()
    (runs / "damaged" / "run.json").write_text("[" * 5000)
    told = {run["name"]: run for run in site.get("runs").json()["runs"]}
    assert set(told) == {"one", "group/two", "damaged"}
    assert [(one["strategy"], one["gain"]) for one in told["one"]["gains"]] == [("interior", 0.1)]
    assert told["one"]["gains"][0]["few"]
    assert FEW == verdict.FEW
    assert (told["one"]["date"], told["one"]["job"], told["one"]["model"]) == ("2026-11-27", "specialize", "nano")
    assert told["group/two"]["pages"] == []
    page = site.ask("GET", told["one"]["pages"][0]["address"])
    assert (page.status, page.body) == (200, b"<p>one</p>")
    assert page.headers["content-security-policy"] == REPORT_POLICY
    assert "sandbox" in REPORT_POLICY
    for path in (
        f"{told['group/two']['id']}/report",
        f"{told['one']['id']}/run",
        "one/report",
        f"{told['one']['id']}/..",
    ):
        assert site.get(f"runs/{path}").status in (404, 422)


def test_pages_show_the_pictures_that_lie_beside_them(site: Site, place: Path) -> None:
    folder = place / "runs" / "sheet"
    write_snapshot(folder, "thumbnails/a-1.jpg", marked_jpeg(picture(1), []))
    (folder / "thumbnails" / "linked.jpg").symlink_to(place.parent / "secret.txt")
    (folder / "thumbnails" / "words.jpg").write_text("no picture")
    (place.parent / "elsewhere" / "sub").mkdir(parents=True)
    (place.parent / "elsewhere" / "sub" / "a.jpg").write_bytes((folder / "thumbnails" / "a-1.jpg").read_bytes())
    (folder / "thumbnails" / "far").symlink_to(place.parent / "elsewhere")
    body = (
        '<a href="marked/a-1.jpg"><img src="thumbnails/a-1.jpg"></a><img src="thumbnails/linked.jpg">'
        '<img src="thumbnails/words.jpg"><img src="thumbnails/far/sub/a.jpg">'
        '<img src="thumbnails/../../one/run.json"><a rel="next" href="spot-2.html#blank">2</a>'
    )
    for name in ("spot", "spot-2"):
        (folder / f"{name}.html").write_text(body)
    told = next(run for run in site.get("runs").json()["runs"] if run["name"] == "sheet")
    assert [page["name"] for page in told["pages"]] == ["spot"]
    small = b64encode((folder / "thumbnails" / "a-1.jpg").read_bytes()).decode()
    expected = (
        f'<a><img src="data:image/jpeg;base64,{small}"></a><img src="thumbnails/linked.jpg">'
        '<img src="thumbnails/words.jpg"><img src="thumbnails/far/sub/a.jpg">'
        '<img src="thumbnails/../../one/run.json"><a rel="next" href="spot-2#blank">2</a>'
    )
    for name in ("spot", "spot-2"):
        assert site.get(f"runs/{told['id']}/{name}").body.decode() == expected
    assert site.get(f"runs/{told['id']}/spot-3").status == 404


@pytest.fixture(scope="module")
def line(place: Path) -> Path:
    """An inspection's folder with two events, one with its picture."""
    folder = place / "line"
    box = Outbox(folder / FILE, [])
    write_snapshot(folder, "snapshots/id-0.jpg", marked_jpeg(picture(1), [(3, 3, 20, 20)]))
    (folder / "snapshots" / "id-1.jpg").symlink_to(place.parent / "secret.txt")
    events = [event(n, snapshot=f"snapshots/id-{n}.jpg") for n in (0, 1)]
    box.put([*events, event(2, snapshot="../../secret.txt")], {"odometer": {"travelled": 4.5}})
    box.close()
    (folder / "run.json").write_text(json.dumps({"identity": {"job": "J1", "roll": "R7", "camera": "top"}}))
    Live(folder).show(picture(1), NOTHING, 0.5, {"p95": 0.08, "metres": 4.4})
    return folder


def test_the_line_is_told_as_it_was_stored(site: Site, line: Path) -> None:
    told = site.get("line").json()
    assert (told["job"], told["roll"], told["camera"], told["metres"], told["total"]) == ("J1", "R7", "top", 4.5, 3)
    assert [one["id"] for one in told["events"]] == ["id-0", "id-1", "id-2"]
    assert told["numbers"] == {"p95": 0.08, "metres": 4.4, "threshold": 0.5, "score": 0.1}
    assert told["age"] < 60
    assert [one["seq"] for one in site.get("line?after=1").json()["events"]] == [2, 3]
    assert site.get("line/snapshots/1").body == (line / "snapshots" / "id-0.jpg").read_bytes()
    for seq in (2, 3, 4, 0, -1):  # a link, a name that leads out, nothing, nothing, nothing
        assert site.get(f"line/snapshots/{seq}").status == 404
    assert site.get("line/live").body == (line / "live.jpg").read_bytes()
    assert site.get("line/roll").status == 404
    (line / "roll.html").symlink_to(line.parents[1] / "secret.txt")
    assert site.get("line/roll").status == 404


def test_looking_changes_nothing_and_bears_any_file(line: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in line.iterdir() if path.is_file()}
    assert viewing.look(line).total == 3
    assert {path.name: path.read_bytes() for path in line.iterdir() if path.is_file()} == before
    box = Outbox(line / FILE, [])  # an inspection under way, whose newest events are in the journal
    assert viewing.look(line).total == 3
    box.close()
    assert viewing.look(tmp_path) == viewing.Seen()
    (tmp_path / FILE).write_bytes(b"no database")
    assert viewing.look(tmp_path) == viewing.Seen()
    (tmp_path / FILE).unlink()
    sqlite3.connect(tmp_path / FILE).close()
    assert viewing.look(tmp_path) == viewing.Seen()
    (tmp_path / FILE).unlink()
    box = Outbox(tmp_path / FILE, [])
    box.put([event(0)], {})
    box.close()
    with sqlite3.connect(tmp_path / FILE) as other:
        other.execute('UPDATE events SET body = \'{"of": "another version"}\'')
    other.close()
    assert viewing.look(tmp_path) == viewing.Seen()
    assert viewing.snapshot_of(tmp_path, 1) is None
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).symlink_to(line / FILE)
    assert viewing.look(tmp_path) == viewing.Seen()


def parts(answer: http.client.HTTPResponse) -> bytes:
    """The next picture of a stream, of which the beginning has been read."""
    content = b""
    while not content.endswith(NEXT):
        read = answer.readline()
        assert read, "the stream ended"
        content += read
    return content[: -len(NEXT) - 2]


def begun(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    """A stream up to its first picture."""
    connection.request("GET", "/api/v1/line/stream")
    answer = connection.getresponse()
    assert b"".join(answer.readline() for _ in range(3)) == NEXT
    return answer


def test_who_is_slow_gets_the_newest_picture_and_who_leaves_ends_the_stream(site: Site, line: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    answer = begun(connection)
    assert parts(answer) == (line / "live.jpg").read_bytes()
    assert site.server.streams == 1
    rng = np.random.default_rng(0)
    stop, live = threading.Event(), Live(line)

    def film() -> None:
        while not stop.is_set():
            noise = rng.integers(0, 256, (900, 900, 3), dtype=np.uint8)
            live.show(noise, NOTHING, 0.5, {})
            time.sleep(0.05)

    thread = threading.Thread(target=film)
    thread.start()
    time.sleep(4)  # nobody reads; what fits into the sockets' buffers is old, nothing else piles up
    stop.set()
    thread.join()
    newest = (line / "live.jpg").read_bytes()
    for behind in range(60):  # noqa: B007
        if parts(answer) == newest:
            break
    else:
        raise AssertionError("the newest picture never came")
    assert behind < 25  # of some hundred that were filmed
    answer.close()
    connection.close()
    until(lambda: site.server.streams == 0)


def test_so_many_watch_and_no_more(site: Site, line: Path) -> None:
    watchers = [
        http.client.HTTPConnection("127.0.0.1", site.port, timeout=20) for _ in range(site.server.limits.streams)
    ]
    for one in watchers:
        parts(begun(one))
    refused = site.get("line/stream")
    assert (refused.status, refused.headers["retry-after"]) == (429, "10")
    for one in watchers:
        one.close()
        one.sock = None
    until(lambda: site.server.streams == 0)


def test_links_in_the_folder_of_corrections_are_not_followed(site: Site, place: Path, tmp_path: Path) -> None:
    known = site.upload(packed(picture(1))).json()
    body = {"image": known["image"], "masks": [runs_of(picture(1)[..., 0] > 150)]}
    saved = site.post("corrections", body).json()
    mask = place / "corrections" / "masks" / saved["recent"][0]["name"]
    mask.unlink()
    (tmp_path / "other.png").write_text("kept as it is")
    mask.symlink_to(tmp_path / "other.png")
    assert site.post("corrections", body).status == 422
    assert (tmp_path / "other.png").read_text() == "kept as it is"
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "masks").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="link"):
        Corrections(tmp_path / "set")


def test_a_tuning_that_cannot_be_says_why(tmp_path: Path) -> None:
    tuner = Tuner(Recipe("nano", tmp_path / "runs", ("train.epochs=1",)))
    assert tuner.told().state == "idle"
    assert not tuner.stop()
    (tmp_path / "empty").mkdir()
    assert tuner.start(tmp_path / "empty")
    assert not tuner.start(tmp_path / "empty")  # one at a time
    until(lambda: tuner.state() != "running", 60)
    told = tuner.told()
    assert told.state == "failed"
    assert told.lines[-1].startswith("error: ")
    assert tuner.specialist is None
    assert tuner.start(tmp_path / "empty")
    assert tuner.stop(wait=20)
    assert tuner.told().state == "stopped"
    assert [path.name for path in sorted((tmp_path / "runs").glob("*.log"))] == ["tuned-1.log", "tuned-2.log"]


def test_a_command_is_what_a_person_would_type(tmp_path: Path) -> None:
    recipe = Recipe("nano", tmp_path, ("train.lr=1e-5",), "cpu")
    command = recipe.command(tmp_path / "set", tmp_path / "tuned-1")
    assert command[1:4] == ["-m", "specialsam.cli", "specialize"]
    assert command[-2:] == ["--set", "train.lr=1e-5"]
    assert command[command.index("--store") + 1] == str(tmp_path / "embeddings")


def test_epochs_are_read_while_they_are_written(tmp_path: Path) -> None:
    lines = [json.dumps({"event": "epoch", "epoch": n, "val_iou": n / 10, "train_loss": 0.5}) for n in (1, 2)]
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, '{"event": "ep']))
    assert [(one.epoch, one.val_iou) for one in epochs_of(tmp_path)] == [(1, 0.1), (2, 0.2)]
