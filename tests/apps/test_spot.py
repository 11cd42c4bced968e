"""`spot` from photographs to what a biologist's tools read. Oracles: the checks of MegaDetector's format and of Camtrap
DP, csv's and JSON's own readers, `find_in` on the same photographs, and runs that nothing interrupted.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from small_models import (
    answers_of,
    as_json,
    broken,
    finder,
    photographs,
    picture,
    pointed,
    refused,
    small,
    specialist,
)

from heard import Heard
from specialsam.apps import answering
from specialsam.apps.answers import Answer
from specialsam.apps.camtrap_rules import check_package
from specialsam.apps.marks import files_of
from specialsam.apps.megadetector import check, relative_box
from specialsam.apps.segment import Order, segment
from specialsam.apps.session import Asking, Session, find_in, open_session
from specialsam.apps.spot import Spotted, spot
from specialsam.core.console import using
from specialsam.core.errors import UsageError
from specialsam.core.geometry import ImageArray
from specialsam.core.ledger import Lock
from specialsam.data.images import read_image
from specialsam.models.finder_files import FinderParts
from specialsam.models.segmenter import Segmenter

HOW = Asking()
FAILED, WRONG_USE = 1, 2
ORIGINAL, DETAIL, GPS = 0x9003, 0x8769, 0x8825
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(small(), FinderParts(finder()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photographs(tmp_path / "in", "cam1/1.png", "cam1/2.png", "cam2/1.png", "top.png")


def with_exif(path: Path, seed: int, time: str = "", place: tuple[int, int] | None = None) -> None:
    """A JPEG with the time and the place (degrees south and west) that its camera wrote."""
    exif = Image.Exif()
    if time:
        exif.get_ifd(DETAIL)[ORIGINAL] = time
    if place:
        degrees = [(Fraction(part), Fraction(30), Fraction(0)) for part in place]
        exif.get_ifd(GPS).update({1: "S", 2: degrees[0], 3: "W", 4: degrees[1]})
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path, exif=exif, quality=95)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def apart_from_coordinates(problems: list[str]) -> list[str]:
    return [problem for problem in problems if "latitude" not in problem and "longitude" not in problem]


def whole(out: Path, answers: list[Answer]) -> None:
    """All that a run leaves says the same of every photograph, once, and nothing is left half written."""
    assert answers_of(out) == {one.file: one for one in answers}
    results, masks = read(out / "megadetector.json"), read(out / "megadetector-masks.json")
    assert check(results) == []
    by_name = sorted(answers, key=lambda answer: answer.file)
    assert len(results["images"]) == len(masks["images"]) == len(answers)
    for answer, image, held in zip(by_name, results["images"], masks["images"], strict=True):
        assert image["file"] == held["file"]
        if answer.error:
            assert (image["failure"], image["detections"], held["masks"]) == (answer.error, None, None)
            continue
        assert answer.size is not None
        assert held["masks"] == [found.rle for found in answer.objects]
        boxes = [list(relative_box(found.box, answer.size)) for found in answer.objects]
        assert [one["bbox"] for one in image["detections"]] == boxes
    table = rows(out / "objects.csv")
    assert len(table) == sum(max(1, len(answer.objects)) for answer in answers)
    assert {row["file"].removeprefix("'") for row in table} == {answer.file for answer in answers}
    assert sum(bool(row["error"]) for row in table) == sum(bool(answer.error) for answer in answers)
    assert apart_from_coordinates(check_package(out / "camtrap-dp")) == []
    assert len(rows(out / "camtrap-dp" / "media.csv")) == len(answers)
    page = (out / "spot.html").read_text(encoding="utf-8")
    for name in re.findall(r'(?:src|href)="((?:thumbnails|marked|crops|beside)/[^"]+)"', page):
        with Image.open(out / name) as shown:
            shown.load()
    assert not [path for path in out.rglob(".*") if path.is_file()]


def test_photographs_become_all_that_other_tools_read(session: Session, folder: Path, tmp_path: Path) -> None:
    found = spot(session, Order([folder], tmp_path / "out"), HOW)
    answers = list(found.answered)
    assert found.page == tmp_path / "out" / "spot.html"
    assert [answer.file for answer in answers] == ["cam1/1.png", "cam1/2.png", "cam2/1.png", "top.png"]
    for answer in answers:
        image = read_image(folder / answer.file)
        assert answer == Answer(answer.file, (48, 64), find_in(session, image, HOW)[0])
        assert answer.objects
    whole(tmp_path / "out", answers)
    expected = {row["file"]: float(row["score"]) for row in rows(tmp_path / "out" / "objects.csv")}
    assert expected == {answer.file: pytest.approx(answer.objects[-1].score, abs=1e-4) for answer in answers}
    held = read(tmp_path / "out" / "megadetector-masks.json")["images"][0]
    assert (coco.decode(held["masks"][0]).astype(bool) == answers[0].masks()[0]).all()
    areas = {row["file"]: int(row["area_px"]) for row in rows(tmp_path / "out" / "objects.csv")}
    assert areas == {answer.file: answer.masks()[-1].sum() for answer in answers}


def test_when_and_where_a_photograph_was_taken(session: Session, tmp_path: Path) -> None:
    """As the camera wrote it, in the table, in MegaDetector's datetime and in the deployments."""
    with_exif(tmp_path / "in/cam1/1.jpg", 1, "2026:01:31 18:00:05", (3, 60))
    with_exif(tmp_path / "in/cam1/2.jpg", 2, "2026:02:01 06:30:00")
    with_exif(tmp_path / "in/cam2/1.jpg", 3, "2026:02:30 99:99:99", (4, 61))
    out = tmp_path / "out"
    whole(out, list(spot(session, Order([tmp_path / "in"], out), HOW).answered))
    seen = {row["file"]: (row["taken"], row["latitude"], row["longitude"]) for row in rows(out / "objects.csv")}
    assert seen == {
        "cam1/1.jpg": ("2026-01-31T18:00:05", "-3.5", "-60.5"),
        "cam1/2.jpg": ("2026-02-01T06:30:00", "", ""),
        "cam2/1.jpg": ("", "-4.5", "-61.5"),
    }
    images = read(out / "megadetector.json")["images"]
    assert [image.get("datetime") for image in images] == ["2026:01:31 18:00:05", "2026:02:01 06:30:00", None]
    assert check_package(out / "camtrap-dp") == [], "all deployments have coordinates"
    deployments = {row["deploymentID"]: row for row in rows(out / "camtrap-dp" / "deployments.csv")}
    assert deployments["cam1"]["deploymentEnd"] == "2026-02-01T06:30:00Z"
    assert deployments["cam2"]["latitude"] == "-4.5"


def test_the_boxes_of_a_detector_are_asked_and_its_failures_stay(
    session: Session, folder: Path, tmp_path: Path
) -> None:
    detections = [{"category": "2", "conf": 0.8, "bbox": [0.25, 0.25, 0.5, 0.5]}]
    images = [
        {"file": "in/cam1/1.png", "detections": detections},
        {"file": "in/cam1/2.png", "failure": "Failure image access", "detections": None},
        {"file": "in/cam2/1.png", "detections": []},
        {"file": "in/nowhere.png", "detections": []},
    ]
    about = {
        "info": {"format_version": "1.5", "detector": "MD"},
        "detection_categories": {"1": "animal", "2": "person"},
    }
    out, heard = tmp_path / "out", Heard()
    with using(heard):
        found = spot(session, Order([folder], out, as_json(tmp_path / "md.json", {**about, "images": images})), HOW)
    answers = {answer.file: answer for answer in found.answered}
    whole(out, list(answers.values()))
    assert [(name, len(one.objects), one.error) for name, one in answers.items()] == [
        ("cam1/1.png", 1, ""),
        ("cam1/2.png", 0, "MegaDetector results: Failure image access"),
        ("cam2/1.png", 0, ""),
        ("top.png", 0, ""),
    ]
    [image] = [image for image in read(out / "megadetector.json")["images"] if image["detections"]]
    assert image["detections"][0]["category"] == "2"
    kinds = {row["mediaID"]: row["observationType"] for row in rows(out / "camtrap-dp" / "observations.csv")}
    assert kinds == {"cam1/1.png": "human", "cam1/2.png": "unclassified", "cam2/1.png": "blank", "top.png": "blank"}
    assert "the boxes of md.json" in (out / "spot.html").read_text()
    assert heard.lines[:2] == [
        "note: 1 names of md.json are of no image here (first: in/nowhere.png)",
        "note: 1 of 4 images have no line in md.json; nothing is asked of them",
    ]


def test_broken_photographs_are_rows_everywhere(session: Session, folder: Path, tmp_path: Path) -> None:
    said = broken(folder)
    os.mkfifo(folder / "pipe.jpg")
    out, heard = tmp_path / "out", Heard()
    with using(heard):
        answers = list(spot(session, Order([folder], out), HOW).answered)
    whole(out, answers)
    failed = {answer.file: answer.error for answer in answers if answer.error}
    assert failed.keys() == said.keys()
    assert len(answers) == len(said) + 4
    page = (out / "spot.html").read_text()
    for name, word in said.items():
        assert word in failed[name]
        assert name in page
    assert heard.lines[0] == f"note: {folder / 'pipe.jpg'}: expected a file, got a named pipe"
    assert f"{len(said)} failed (first: cut.jpg: the image is damaged" in heard.lines[-1]
    assert "pipe.jpg" not in page


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_names_that_nobody_would_give(session: Session, tmp_path: Path) -> None:
    """Latin-1 names, backslashes and drives of broken archives, markup, formulas, and names as long as a disk takes.

    MegaDetector's results hold relative names with forward slashes alone, each once: no name may end the run there.
    """
    names = [
        os.fsdecode("été.png".encode("latin-1")),
        "a\\b.png",
        "a/b.png",
        "a/b (2).png",
        "C:\\DCIM\\x.png",
        "C:/DCIM/x.png",
        "\\\\server\\x.png",
        "line\nbreak\x1b[31m.png",
        "<b>&.png",
        "=cmd.png",
        "long" * 62 + ".png",
        "\udce9" * 200 + ".png",
        "a..b.png",
    ]
    folder, out = photographs(tmp_path / "in", *names), tmp_path / "out"
    answers = list(spot(session, Order([folder], out), HOW).answered)
    assert len(answers) == len(names)
    assert [answer.error for answer in answers] == [""] * len(names)
    results = read(out / "megadetector.json")
    assert check(results) == []
    files = [image["file"] for image in results["images"]]
    assert len(set(files)) == len(names)
    assert [image["file"] for image in read(out / "megadetector-masks.json")["images"]] == files
    assert {"a/b.png", "a/b (2).png", "xe9t/xe9.png", "./C:/DCIM/x.png", "server/x.png"} <= set(files)
    assert {row["file"].removeprefix("'") for row in rows(out / "objects.csv")} == {answer.file for answer in answers}
    problems = check_package(out / "camtrap-dp")
    assert all("a..b.png" in problem for problem in apart_from_coordinates(problems))
    assert "<b>&.png" not in (out / "spot.html").read_text()


def test_the_base_stands_beside_the_specialist(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One object each, in the same order, and both drawn; a photograph in which nothing is found has no pair."""
    monkeypatch.setattr(Segmenter, "decode_outputs", pointed)
    opened = open_session(specialist(tmp_path / "animals", finder("point"), seed=4), with_base=True)
    out = tmp_path / "out"
    answers = list(spot(opened, Order([folder], out), HOW).answered)
    whole(out, answers)
    assert sum(len(answer.objects) for answer in answers) > 4
    for answer in answers:
        assert len(answer.beside) == len(answer.objects)
        for own, base in zip(answer.objects, answer.beside, strict=True):
            assert base.score == own.score
            assert base.rle != own.rle, "another decoder answers with another size"
            middle, other = ((one.box[0] + one.box[2], one.box[1] + one.box[3]) for one in (own, base))
            assert np.hypot(middle[0] - other[0], middle[1] - other[1]) < 16, "of the same place"
    page = (out / "spot.html").read_text()
    assert page.count('src="thumbnails/') == 2 * len(answers)
    assert len(list((out / "beside").iterdir())) == len(answers)


def test_a_changed_photograph_is_looked_at_anew_and_it_alone(
    session: Session, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = Order([folder], tmp_path / "out")
    first = list(spot(session, order, HOW).answered)
    Image.fromarray(picture(77)).save(folder / "cam1/2.png")
    looked_at: list[str] = []

    def counted(path: Path) -> ImageArray:
        looked_at.append(path.name)
        return read_image(path)

    monkeypatch.setattr(answering, "read_image", counted)
    found = spot(session, order, HOW)
    assert (found.answered.made, found.answered.kept, looked_at) == (1, 3, ["2.png"])
    answers = list(found.answered)
    whole(tmp_path / "out", answers)
    changed = [one.file for one, other in zip(answers, first, strict=True) if one != other]
    assert changed == ["cam1/2.png"]
    drawn = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").glob("*/*.jpg")}
    assert drawn == {name for answer in answers for name in files_of(answer)}  # none of the picture that was


def test_another_specialist_looks_at_all_of_them_anew(folder: Path, tmp_path: Path) -> None:
    one = open_session(specialist(tmp_path / "one", finder()))
    two = open_session(specialist(tmp_path / "two", finder(), seed=6))
    order = Order([folder], tmp_path / "out")
    first = list(spot(one, order, HOW).answered)
    found = spot(two, order, HOW)
    assert (found.answered.made, found.answered.kept) == (4, 0)
    assert all(new != old for new, old in zip(found.answered, first, strict=True))
    whole(tmp_path / "out", list(found.answered))
    assert list(spot(one, order, HOW).answered) == first


class Stop:
    """Reads photographs until it has read so many."""

    def __init__(self, after: int):
        self.after, self.read = after, 0

    def __call__(self, path: Path) -> ImageArray:
        self.read += 1
        if self.read > self.after:
            raise KeyboardInterrupt
        return read_image(path)


def unlike_time(out: Path) -> dict[str, str]:
    """Text of all files, without what says when they were written."""
    texts = {
        path.relative_to(out).as_posix(): path.read_text(encoding="utf-8")
        for path in out.rglob("*")
        if path.suffix in (".json", ".csv", ".html", ".jsonl") and path.name != "run.json"
    }
    now = r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d:\d\d(\+00:00|Z)?)?"
    return {name: re.sub(now, "then", text) for name, text in texts.items()}


def test_an_interrupted_run_goes_on_where_it_stopped_and_leaves_the_same(
    session: Session, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(folder)
    out, unbroken = tmp_path / "out", tmp_path / "unbroken"
    answers = list(spot(session, Order([folder], unbroken), HOW).answered)
    finished = 0
    for after in (2, 1, 4):
        monkeypatch.setattr(answering, "read_image", Stop(after))
        with pytest.raises(KeyboardInterrupt):
            spot(session, Order([folder], out), HOW)
        finished += after
        assert len(answers_of(out)) == finished
        assert not (out / "spot.html").exists()
        assert not (out / ".lock").exists()
    monkeypatch.setattr(answering, "read_image", read_image)
    found = spot(session, Order([folder], out), HOW)
    assert (found.answered.made, found.answered.kept) == (len(answers) - finished, finished)
    whole(out, answers)
    assert unlike_time(out) == unlike_time(unbroken)
    pictures = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.jpg")}
    assert pictures == {path.relative_to(unbroken): path.read_bytes() for path in unbroken.rglob("*.jpg")}


def test_what_a_dead_process_left_half_written_is_gone(session: Session, folder: Path, tmp_path: Path) -> None:
    order, out = Order([folder], tmp_path / "out"), tmp_path / "out"
    answers = list(spot(session, order, HOW).answered)
    left = out / "marked" / f".a-1.jpg.{2**22 + 1}.tmp.jpg"
    left.write_bytes(b"half")
    (out / ".objects.csv.4194305.tmp.csv").write_text("half")
    spot(session, order, HOW)
    whole(out, answers)


def test_a_folder_that_a_dead_process_had_just_begun(session: Session, folder: Path, tmp_path: Path) -> None:
    """Killed while it wrote run.json for the first time: nothing else is there yet, and the same command goes on."""
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").write_text("4194305")
    (out / ".run.json.4194305.tmp.json").write_text("{")
    whole(out, list(spot(session, Order([folder], out), HOW).answered))


def test_the_folder_of_another_job_is_refused(session: Session, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    segment(session, Order([folder], out), HOW)
    before = unlike_time(out)
    with pytest.raises(UsageError, match=r"out holds a run with another job; choose another --out"):
        spot(session, Order([folder], out), HOW)
    assert unlike_time(out) == before
    assert not (out / "spot.html").exists()


def test_a_second_process_in_the_same_folder_is_refused(session: Session, folder: Path, tmp_path: Path) -> None:
    with Lock(tmp_path / "out"), pytest.raises(UsageError, match=rf"another process \(pid {os.getpid()}\) is at work"):
        spot(session, Order([folder], tmp_path / "out"), HOW)


def test_no_photographs(session: Session, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UsageError, match="photograph"):
        spot(session, Order([tmp_path / "in"], tmp_path / "out"), HOW)
    assert not (tmp_path / "out").exists()


def test_nothing_but_broken_photographs(session: Session, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    said, out = broken(tmp_path / "in"), tmp_path / "out"
    answers = list(spot(session, Order([tmp_path / "in"], out), HOW).answered)
    assert len(answers) == len(said)
    whole(out, answers)


def test_the_answers_may_lie_among_the_photographs(session: Session, folder: Path) -> None:
    """Marked pictures of one run are no photographs of the next."""
    for _ in range(2):
        found = spot(session, Order([folder], folder / "found"), HOW)
        assert found.answered.made + found.answered.kept == 4
    whole(folder / "found", list(found.answered))


def test_the_page_says_how_things_were_found(folder: Path, tmp_path: Path) -> None:
    good = [number / 100 for number in range(1, 21)]
    animals = specialist(tmp_path / "animals", finder(threshold=0.125), good=good)
    opened = open_session(animals)

    def page(found: Spotted) -> str:
        return " ".join(found.page.read_text().split())

    own = page(spot(opened, Order([folder], tmp_path / "own"), HOW, "Tracks <b>"))
    assert "the specialist&#39;s finder; a score is the probability that an object is there" in own
    assert "<dt>Shown from</dt><dd>0.12</dd>" in own or "<dt>Shown from</dt><dd>0.13</dd>" in own
    assert "Tracks &lt;b&gt;" in own
    assert "Promise" not in own
    promised = page(spot(opened, Order([folder], tmp_path / "promised"), Asking(false_alarms=0.1)))
    assert "of pictures of nothing at most 10.0% show anything (20 set it)" in promised
    plain = Session(opened.segmenter, FinderParts())
    grid = page(spot(plain, Order([folder], tmp_path / "grid"), HOW))
    assert "a grid of points: this model knows no domain" in grid


def test_a_promise_keeps_what_lies_above_its_threshold(folder: Path, tmp_path: Path) -> None:
    """Oracle: what `find_in` shows with a threshold of the highest of the scores, itself left out."""
    opened = open_session(specialist(tmp_path / "animals", finder()))
    assert opened.card is not None
    best = sorted(find_in(opened, picture(number), HOW)[0][0].score for number in range(4))
    animals = specialist(tmp_path / "animals", finder(), good=[0.0, 0.0, best[1]])
    answers = list(spot(open_session(animals), Order([folder], tmp_path / "out"), Asking(false_alarms=0.25)).answered)
    assert sorted(answer.best for answer in answers) == pytest.approx([0, 0, best[2], best[3]])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--base",), ("expected a specialist folder to compare with its base, got nano",)),
        (("--false-alarms", "0"), ("expected a share of false alarms between 0 and 1, as 1% or 0.01, got '0'",)),
        (("--false-alarms", "1%"), ("expected a specialist with a finder for a promise on false alarms",)),
        (("--tiles", "5"), ("expected tiles of 16 px or more",)),
        (("--format", "png"), ("--format",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_use(
    call: Call, folder: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(call("spot", folder, "-o", tmp_path / "out", *arguments), WRONG_USE, *words)
    assert not (tmp_path / "out").exists()


def test_the_command(call: Call, folder: Path, tmp_path: Path) -> None:
    animals, out = specialist(tmp_path / "animals", finder(), seed=2), tmp_path / "out"
    code, said, err = call("spot", folder, "-o", out, "-m", animals, "--base", "--zoom", "--device", "cpu")
    assert (code, err) == (0, "")
    assert f"look here first: {out / 'spot.html'}" in said
    assert "4 pictures (0 from before): " in said
    assert "4 pictures (4 from before): " in call("spot", folder, "-o", out, "-m", animals, "--base", "--zoom")[1]
    whole(out, [answers_of(out)[name] for name in sorted(answers_of(out))])
    refused(call("segment", folder, "-o", out, "-m", animals), WRONG_USE, "another job", "choose another --out")
    refused(call("spot", folder, "-o", out, "-m", animals, "--false-alarms", "1%"), WRONG_USE, "specialsam calibrate")
