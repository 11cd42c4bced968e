"""`inspect` from pictures to what an operator sees. Oracles: the simulated line's own truth, runs that nothing
interrupted, the thresholds' definition, and files read by other readers.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from small_models import finder, refused, small, specialist

from heard import Heard
from specialsam.apps.alarms import calibrate
from specialsam.apps.appearance import Appearance, appearance_of, check_appearance, common
from specialsam.apps.line import inspection as inspection_module
from specialsam.apps.line import running
from specialsam.apps.line.decision import (
    Judge,
    Judged,
    Taught,
    known_scores,
    open_judge,
    outlines,
    promise,
    regions,
    teach,
)
from specialsam.apps.line.delivery import Delivery
from specialsam.apps.line.events import Event
from specialsam.apps.line.inspect import InspectOrder, inspect
from specialsam.apps.line.inspection import Inspection
from specialsam.apps.line.odometer import Step
from specialsam.apps.line.outbox import CannotStore, Outbox
from specialsam.apps.line.reader import Frame
from specialsam.apps.line.settings import LineSettings
from specialsam.apps.line.teaching import taught_by
from specialsam.apps.session import Session, open_session
from specialsam.core.console import using
from specialsam.core.errors import DataError, UsageError
from specialsam.core.geometry import BoolArray, ImageArray
from specialsam.core.types import Prompts
from specialsam.metrics.conformal import conformal_threshold, false_alarm_interval
from specialsam.models.finder_files import FinderParts
from specialsam.synth.defects.canvas import Defect, exact
from specialsam.synth.line import LineRecipe, Web
from specialsam.synth.line_files import write_line

Call = Callable[..., tuple[int, str, str]]
RECIPE = LineRecipe(
    metres=1.4, side=96, pitch_mm=1, defects=4, fps=10, speed=0.12, kinds=("hole",), vibration=0.3, light=0.02, seed=2
)
THRESHOLD, LOW = 0.3, 0.24
RULES = LineSettings(pitch_mm=1, false_alarms=0.05, slack_mm=15, cooldown_m=0.05, report_after=60, job="J", roll="R7")


def by_colour(self: Judge, image: ImageArray) -> Judged:
    """In place of a model: what is far from the cloth's own colour, so that tests of the line need no good eyes."""
    check_appearance(image, self.taught.appearance)
    middle = np.median(image.reshape(-1, 3), axis=0)
    away = np.abs(image.astype(np.float32) - middle).max(2) / 255
    far = np.asarray(cv2.blur(away, (5, 5)), np.float32)
    return Judged(float(far.max()), *regions(far, LOW, self.most))


def disc(kind: str, image: ImageArray, rng: np.random.Generator) -> Defect:
    """A defect that nobody overlooks."""
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    y, x = rng.integers(12, image.shape[0] - 12, 2)
    region = (rows - y) ** 2 + (columns - x) ** 2 <= 36
    painted = image.copy()
    painted[region] = (230, 20, 20)
    return exact(image, painted, np.asarray(region, np.bool_), kind)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("line")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("specialsam.synth.line.make", disc)
        write_line(folder, RECIPE, good=40)
        yield folder


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(small(), FinderParts())


@pytest.fixture
def seeing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places that are much brighter or darker than the cloth alarm."""
    monkeypatch.setattr(Judge, "judge", by_colour)
    real = open_judge

    def judged(session: Session, taught: Taught, settings: LineSettings) -> Judge:
        made = real(session, taught, settings)
        return Judge(made.session, made.taught, THRESHOLD, LOW, made.most)

    monkeypatch.setattr("specialsam.apps.line.inspect.open_judge", judged)


def ran(session: Session, line: Path, out: Path, rules: LineSettings = RULES, **order: object) -> running.Inspected:
    asked = InspectOrder(str(line / "line.avi"), out, (line / "good",), **order)  # type: ignore[arg-type]
    return inspect(session, asked, rules)


def few(line: Path) -> Path:
    """Eight of the good pictures, for the bundled model, which takes its time."""
    folder = line / "few"
    folder.mkdir(exist_ok=True)
    for number in range(8):
        shutil.copy(line / "good" / f"{number:05d}.png", folder)
    return folder


def stored(out: Path) -> list[Event]:
    with sqlite3.connect(out / "line.sqlite") as at:
        return [Event.read(json.loads(body)) for (body,) in at.execute("SELECT body FROM events ORDER BY seq")]


def delivered(out: Path) -> list[Event]:
    return [Event.read(json.loads(text)) for text in (out / "events.jsonl").read_text().splitlines()]


def plain(events: list[Event]) -> list[tuple[object, ...]]:
    """Events without their ids and times, which belong to a run; a restart rounds the last digit."""
    return [
        (one.number, pytest.approx(one.along_m, abs=2e-4), one.across_mm, one.score, one.sights, one.pictures)
        for one in events
    ]


def test_every_defect_is_one_event_at_its_metre(session: Session, line: Path, tmp_path: Path, seeing: None) -> None:
    """Oracle: the web's own truth; position within a tenth of a picture, width within some pixels."""
    heard = Heard()
    with using(heard):
        found = ran(session, line, tmp_path / "out")
    truth = Web(RECIPE).defects
    events = sorted(stored(tmp_path / "out"), key=lambda one: one.along_m)
    assert len(events) == len(truth) == found.events == 4
    for one, real in zip(events, truth, strict=True):
        assert one.metre == pytest.approx(sum(real.along_m) / 2, abs=0.0096)
        assert sum(one.across_mm) / 2 == pytest.approx(sum(real.across_mm) / 2, abs=5)
        assert one.sights >= 4
        assert (one.job, one.roll, one.camera) == ("J", "R7", "camera")
        with Image.open(tmp_path / "out" / one.snapshot) as shot:
            assert shot.size == (96, 96)
    assert delivered(tmp_path / "out") == stored(tmp_path / "out")
    assert len(list((tmp_path / "out" / "snapshots").iterdir())) == 4
    assert found.undelivered == 0
    page = (tmp_path / "out" / "roll.html").read_text()
    assert "4 events on 1.3" in page
    assert page.count('class="shot"') == 4
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", page), "it opens offline and runs no script"
    with Image.open(tmp_path / "out" / "roll.png") as drawn:
        assert drawn.size[0] > 1000
    assert "4 events on 1.3" in heard.lines[-1]


def test_a_killed_inspection_goes_on_and_tells_the_same(
    session: Session, line: Path, tmp_path: Path, seeing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a run that nothing interrupted. Killed within a picture, before and after its events were stored."""
    monkeypatch.setattr(inspection_module, "STORE_EVERY", 0.0)
    ran(session, line, tmp_path / "whole")
    real, looked = Inspection.look, 0

    class Killed(BaseException):
        pass

    def look(self: Inspection, frame: Frame, judged: Judged) -> object:
        nonlocal looked
        looked += 1
        if looked in (20, 41, 60):
            raise Killed
        out = real(self, frame, judged)
        if looked in (30, 75):
            raise Killed
        return out

    monkeypatch.setattr(Inspection, "look", look)
    kills = 0
    while True:
        try:
            ran(session, line, tmp_path / "out")
            break
        except Killed:
            kills += 1
    assert kills == 5
    for one, whole in zip(plain(stored(tmp_path / "out")), stored(tmp_path / "whole"), strict=True):
        assert one == (whole.number, whole.along_m, whole.across_mm, whole.score, whole.sights, whole.pictures)
    assert len({one.id for one in stored(tmp_path / "out")}) == 4
    assert delivered(tmp_path / "out") == stored(tmp_path / "out")
    again = ran(session, line, tmp_path / "out")
    assert (again.pictures, again.events) == (0, 4), "the same command at the end of the roll looks at nothing anew"


def test_a_locked_file_of_events_loses_nothing(
    session: Session, line: Path, tmp_path: Path, seeing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locked over a third of the roll: the events wait in memory and are stored after it."""
    heard, real, looked = Heard(), Inspection.look, 0
    other = None

    def look(self: Inspection, frame: Frame, judged: Judged) -> object:
        nonlocal looked, other
        looked += 1
        if looked == 30:
            other = sqlite3.connect(self.outbox.path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
        if looked == 70 and other is not None:
            other.execute("ROLLBACK")
        return real(self, frame, judged)

    monkeypatch.setattr(Inspection, "look", look)
    monkeypatch.setattr(inspection_module, "TRY_EVERY", 0.0)
    with using(heard):
        ran(session, line, tmp_path / "out")
    assert len(stored(tmp_path / "out")) == len(delivered(tmp_path / "out")) == 4
    assert sum("database is locked); events wait in memory, and the line goes on" in said for said in heard.lines) == 1
    assert any("is written again, nothing was lost" in said for said in heard.lines)


def test_events_that_can_be_stored_nowhere_wait_beside_and_are_taken_in(
    session: Session, line: Path, tmp_path: Path, seeing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full until the end; the next start, with room, has them all."""
    heard = Heard()

    def full(*_: object) -> None:
        raise CannotStore("cannot write line.sqlite (database or disk is full)")

    with monkeypatch.context() as patched, using(heard):
        patched.setattr(Outbox, "put", full)
        patched.setattr(running, "FLUSH", 0.3)
        found = ran(session, line, tmp_path / "out")
    assert found.events == 4
    assert stored(tmp_path / "out") == []
    assert any("4 events could not be stored; they are in" in said for said in heard.lines)
    box = Outbox(tmp_path / "out" / "line.sqlite", ["jsonl"])
    Inspection(box, RULES, (THRESHOLD, LOW), "m", tmp_path / "out")
    assert [one.number for one in box.events()] == [0, 1, 2, 3]
    assert not (tmp_path / "out" / "unsaved.json").exists()
    (tmp_path / "out" / "unsaved.json").write_text('[{"id": 3}]')
    with pytest.raises(DataError, match=r"expected events in .*unsaved.json, got something else"):
        Inspection(box, RULES, (THRESHOLD, LOW), "m", tmp_path / "out")


def test_snapshots_that_cannot_be_written_cost_no_event(tmp_path: Path) -> None:
    heard = Heard()
    (tmp_path / "snapshots").write_text("a file where the folder should be")
    box = Outbox(tmp_path / "line.sqlite", ["jsonl"])
    mask = np.zeros((1, 96, 96), np.bool_)
    mask[0, 40:50, 40:50] = True
    judged = Judged(0.9, mask, np.array([0.9], np.float32))
    with using(heard):
        one = Inspection(box, RULES, (THRESHOLD, LOW), "m", tmp_path)
        for number in range(3):
            one.look(Frame(np.zeros((96, 96, 3), np.uint8), Step(number, number / 10, 0.0), 0.0), judged)
        [told] = one.finish()
    assert told.snapshot == ""
    assert sum("events go on without pictures" in said for said in heard.lines) == 1
    assert box.events() == [told]


def test_a_signal_ends_it_in_order_within_five_seconds(line: Path, tmp_path: Path) -> None:
    """Exit 0, the event in hand told, everything delivered, the map written: the command, with the bundled model."""
    out = tmp_path / "out"
    words = [sys.executable, "-m", "specialsam.cli", "inspect", str(line / "line.avi"), "-o", str(out), "--live"]
    options = ["--teach", str(few(line)), "--false-alarms", "30%", "-s", "pitch_mm=1", "-s", "confirm=1"]
    log = (tmp_path / "log").open("w+")
    with subprocess.Popen([*words, *options], stdout=log, stderr=log, text=True) as process:
        state = out / "line.sqlite"

        def begun() -> bool:
            if not state.exists():
                return False
            with sqlite3.connect(state) as at:
                try:
                    kept = at.execute("SELECT value FROM state").fetchone()
                except sqlite3.OperationalError:
                    return False
            return bool(kept) and json.loads(kept[0])["looked"] > 10

        limit = time.monotonic() + 90
        while not begun():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < limit
            time.sleep(0.05)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, (tmp_path / "log").read_text()
        assert time.monotonic() - began < 5
    assert stored(out) == delivered(out)
    assert (out / "roll.html").exists()
    assert (out / "roll.png").exists()
    assert "map of the roll: " in (tmp_path / "log").read_text()


def test_the_threshold_is_the_conformal_one(session: Session, line: Path, tmp_path: Path) -> None:
    """Oracle: the conformal threshold of the very scores; what was taught is not looked at again, unless it changed."""
    rng = np.random.default_rng(0)
    images = [(str(n), rng.integers(90, 130, (64, 64, 3)).astype(np.uint8)) for n in range(60)]
    taught = teach(session, images)
    assert len(taught.scores) == 30, "half are remembered, half set the threshold"
    assert taught.appearance == Appearance((64, 64), False)
    judge = open_judge(session, taught, LineSettings(false_alarms=0.1))
    assert judge.threshold == pytest.approx(conformal_threshold(taught.scores, 0.1), rel=1e-6)
    assert judge.threshold > conformal_threshold(taught.scores, 0.1) >= judge.low
    odd = images[0][1].copy()
    odd[20:40, 20:40] = (255, 0, 0)
    assert judge.judge(odd).score > judge.threshold
    assert judge.judge(odd).masks.shape[1:] == (64, 64)
    first = taught_by(session, (line / "good",), tmp_path / "out")
    kept = (tmp_path / "out" / "taught.json").read_text()
    assert taught_by(session, (line / "good",), tmp_path / "out").scores == first.scores
    (tmp_path / "out" / "taught.json").write_text(kept.replace('"size": [96', '"size": [null'))
    with pytest.raises(DataError, match="got a damaged file; remove it, and the good pictures are looked at anew"):
        taught_by(session, (line / "good",), tmp_path / "out")


def test_a_specialist_with_a_finder_learns_nothing_on_the_spot(line: Path, tmp_path: Path) -> None:
    """Its own scores of good pictures serve, or those of all that are given; the folder stays as it is."""
    folder = specialist(tmp_path / "animals", finder(), good=[0.1, 0.2, 0.3])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    opened = open_session(folder)
    assert known_scores(opened).scores == (0.1, 0.2, 0.3)
    taught = taught_by(opened, (line / "good",), tmp_path / "out")
    assert len(taught.scores) == 40
    assert taught.memory is None
    judge = open_judge(opened, taught, LineSettings(false_alarms=0.1, most=3))
    assert judge.by == "finder"
    image = np.asarray(Image.open(line / "good" / "00000.png"))
    judged = Judge(opened, taught, 0.0, 0.0, 3).judge(image)
    assert judged.score == pytest.approx(taught.scores[0])
    assert judged.masks.shape == (len(judged.scores), 96, 96)
    assert len(judged.scores) <= 3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(UsageError, match=r"give good pictures: --teach GOOD_FRAMES"):
        known_scores(open_session(specialist(tmp_path / "bare", finder())))


def test_the_encoder_runs_by_another_backend_and_is_judged_by_scores_of_its_own(
    session: Session, line: Path, tmp_path: Path, seeing: None
) -> None:
    """The oracle is the arithmetic that the encoder's id names, and what was kept of the good pictures."""
    plain = ran(session, line, tmp_path / "plain")
    swift = ran(session, line, tmp_path / "swift", backend="torch-bf16")
    assert swift.pictures == plain.pictures > 0
    made_from = [json.loads((tmp_path / name / "taught.json").read_text())["made_from"] for name in ("plain", "swift")]
    assert made_from[0] != made_from[1]


def test_a_backend_that_cannot_be_measured_or_scores_of_another_are_refused_in_a_line(
    line: Path, tmp_path: Path
) -> None:
    opened = open_session(specialist(tmp_path / "animals", finder(), good=[0.1, 0.2, 0.3]))
    with pytest.raises(UsageError, match="--backend auto on, got a video alone; give --teach GOOD_FRAMES or name"):
        inspect(opened, InspectOrder(str(line / "line.avi"), tmp_path / "out", backend="auto"), RULES)
    with pytest.raises(UsageError, match="in which the specialist scored good pictures, got bf16; give good pictures"):
        inspect(opened, InspectOrder(str(line / "line.avi"), tmp_path / "out", backend="torch-bf16"), RULES)
    assert not (tmp_path / "out").exists()


def test_the_promise_per_hour_is_a_sum_anyone_can_do() -> None:
    """By hand: 1 % of 36,000 pictures an hour; an event takes 2 of at most 5 places a picture."""
    held = promise(199, 10, LineSettings(false_alarms=0.01, most=5, confirm=2))
    assert (held.pictures, held.events) == (pytest.approx(360), pytest.approx(900))
    assert held.pictures_bound == pytest.approx(false_alarm_interval(199, 0.01, 0.9)[1] * 36_000)
    assert "199 set it" in held.says()


def test_regions_are_connected_places() -> None:
    """Drawn by hand: two places above, one below, the surest first."""
    far = np.zeros((8, 8), np.float32)
    far[1:3, 1:3], far[5:7, 5:8], far[7, 0] = 0.6, 0.9, 0.3
    far[1, 0] = 0.45  # within the slope of the surest's half, but below the least
    far[4, 6] = 0.7  # d = 2.3 of 9: connected, and below half
    masks, scores = regions(far, 0.5, 5)
    assert scores.tolist() == pytest.approx([0.9, 0.6])
    assert (masks[0] == (far == np.float32(0.9))).all()
    assert regions(far, 0.95, 5)[0].shape == (0, 8, 8)
    assert len(regions(far, 0.1, 2)[1]) == 2


def test_where_it_alarms_the_decoder_draws_the_outline() -> None:
    """Oracle: a decoder that answers with a disc where it is asked; one that leaves the place is not believed."""

    class Discs:
        def __init__(self, radius: float) -> None:
            self.radius = radius

        def decode(self, embedding: object, prompts: Prompts) -> Discs:
            assert prompts.points is not None
            self.points = prompts.points[:, 0]
            return self

        def masks(self) -> BoolArray:
            y, x = np.ogrid[:32, :32]
            return np.stack([(x - px) ** 2 + (y - py) ** 2 <= self.radius**2 for px, py in self.points])[:, None]

    far = np.zeros((32, 32), np.float32)
    far[4:14, 6:16], far[9, 10] = 0.7, 0.8
    far[20:28, 20:28], far[24, 23] = 0.7, 0.75
    places, _ = regions(far, 0.6, 5)
    drawn = outlines(Discs(2), None, far, places)  # type: ignore[arg-type]
    assert [tuple(np.argwhere(mask).mean(0)) for mask in drawn] == [(9, 10), (24, 23)]
    assert drawn.sum((1, 2)).tolist() == [13, 13]
    assert (outlines(Discs(8), None, far, places) == places).all()  # type: ignore[arg-type]


def test_drift_says_teach_again(tmp_path: Path) -> None:
    """Scores of the same kind are none; scores that rose are, as is a line that alarms all the time."""
    rng = np.random.default_rng(0)
    good = rng.uniform(0.2, 0.4, 200)
    for shift, drifts in ((0.0, False), (0.1, True), (0.5, True)):
        box = Outbox(tmp_path / f"{shift}.sqlite", ["jsonl"])
        one = Inspection(box, RULES, (0.6, 0.5), "m", tmp_path)
        found = None
        for number in range(150):
            score = float(rng.uniform(0.2, 0.4) + shift)
            mask = np.ones((1, 96, 96), np.bool_)
            judged = Judged(score, mask, np.array([score], np.float32))
            one.look(Frame(np.zeros((96, 96, 3), np.uint8), Step(number, number / 10, 96.0), 0.0), judged)
            found = one.drift(good) or found
        assert found is not None
        assert found.drifted == drifts, found.says
        box.close()


def test_pictures_of_another_kind_are_refused(line: Path) -> None:
    image = np.asarray(Image.open(line / "good" / "00000.png"))
    expected = appearance_of(image)
    check_appearance(image, expected)
    with pytest.raises(DataError, match=r"expected pictures of 96 x 96 px .*, got 50 x 96; set the camera back"):
        check_appearance(image[:, :50], expected)
    grey = np.repeat(image.mean(2, keepdims=True), 3, 2).astype(np.uint8)
    with pytest.raises(
        DataError, match="expected colour pictures like those that the threshold was set on, got grey ones"
    ):
        check_appearance(grey, expected)
    check_appearance(image, Appearance((96, 96), True))
    check_appearance(image, None)
    other = Appearance((96, 50), True)
    assert common([expected, Appearance((96, 96), True)]) == expected
    assert common([expected, other]) is common([]) is None


def test_a_calibrated_specialist_knows_the_kind_of_its_pictures(line: Path, tmp_path: Path) -> None:
    folder = specialist(tmp_path / "animals", finder())
    calibrate(folder, [few(line)])
    opened = open_session(folder)
    assert known_scores(opened).appearance == Appearance((96, 96), False)
    grey = np.full((96, 96, 3), 90, np.uint8)
    with pytest.raises(DataError, match="expected colour pictures"):
        open_judge(opened, known_scores(opened), LineSettings(false_alarms=0.2)).judge(grey)


def test_bad_input_is_one_line(call: Call, line: Path, tmp_path: Path) -> None:
    """What ends the command before a picture, and what ends it with one."""
    teach_it = ("--teach", few(line), "--false-alarms", "30%", "--device", "cpu")
    film = line / "line.avi"

    def out(name: str) -> tuple[str, Path]:
        return "-o", tmp_path / name

    refused(call("inspect", "nowhere.avi", *out("a")), 2, "found nothing at nowhere.avi")
    refused(call("inspect", film, *out("b")), 2, "knows pictures of nothing", "--teach")
    refused(call("inspect", film, *out("c"), "--teach", few(line)), 2, "expected at least 99 good images", "got 4")
    refused(call("inspect", film, *out("d"), *teach_it, "-s", "pitch_mm=-1"), 2, "pitch_mm")
    refused(call("inspect", film, *out("e"), *teach_it, "--mqtt", "x"), 2, "expected a broker's URL")
    grey = tmp_path / "grey"
    grey.mkdir()
    for number in range(3):
        rng = np.random.default_rng(number)
        Image.fromarray(np.repeat(rng.integers(50, 200, (96, 96, 1)), 3, 2).astype(np.uint8)).save(
            grey / f"{number}.png"
        )
    refused(call("inspect", grey, *out("f"), *teach_it), 1, "expected colour pictures", "got grey ones")
    black = tmp_path / "black"
    black.mkdir()
    Image.fromarray(np.zeros((96, 96, 3), np.uint8)).save(black / "0.png")
    code, _, err = call("inspect", black, *out("g"), *teach_it)
    assert code == 1
    assert "black shows black pictures; they count as lost" in err
    assert "error: expected pictures in black, got none to look at (1 black, 0 frozen)" in err
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(call("inspect", empty, *out("h"), *teach_it), 2, "expected", "empty")


def test_metrics_are_there_while_it_runs(session: Session, line: Path, tmp_path: Path, seeing: None) -> None:
    import urllib.request

    heard, texts = Heard(), []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            for said in list(heard.lines):
                if said.startswith("metrics: "):
                    try:
                        texts.append(urllib.request.urlopen(said.split()[1], timeout=2).read().decode())
                    except OSError:
                        return
            time.sleep(0.05)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    with using(heard):
        ran(session, line, tmp_path / "out", deliver=Delivery(metrics=0))
    ended.set()
    watcher.join(5)
    assert texts
    assert 'specialsam_events_total{job="J",roll="R7",camera="camera"} ' in texts[-1]
    assert 'specialsam_outbox_events{job="J",roll="R7",camera="camera",sink="jsonl"} ' in texts[-1]
    assert float(re.findall(r"pictures_total\{.*\} (\S+)", texts[-1])[0]) > 0
