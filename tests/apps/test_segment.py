"""`segment` from files to files. Oracles: `Segmenter.decode` of prompts written by hand, each format's own reader, and
the promise that wrong use is one line that leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco
from small_models import (
    answers_of,
    as_csv,
    as_json,
    broken,
    decoded,
    finder,
    photographs,
    refused,
    small,
    specialist,
)

from heard import Heard
from specialsam.apps.formats import FORMATS
from specialsam.apps.segment import Order, look_up, segment
from specialsam.apps.session import Asking, Session, open_session
from specialsam.core.console import using
from specialsam.core.errors import UsageError
from specialsam.core.geometry import BoolArray
from specialsam.core.ledger import Lock, open_ledger
from specialsam.core.types import Look, Prompts
from specialsam.data.images import read_image
from specialsam.models.finder_files import FinderParts
from specialsam.models.specialist import read_card

HOW = Asking()
FAILED, WRONG_USE = 1, 2
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(small(), FinderParts(finder()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photographs(tmp_path / "in", "cam1/1.png", "cam1/2.png", "cam2/1.png", "cam2/3.png")


BOXES = {"cam1/1.png": [(4, 6, 35, 41), (32, 0, 63, 23)], "cam2/1.png": [(16, 12, 47, 35)]}
"""(x0, y0, x1, y1), inclusive, of pictures of 64 x 48 pixels: fractions of 64ths and 48ths."""


def of_a_table(path: Path, kind: str) -> Path:
    """The same boxes as three tools write them, for two of four pictures; a third one is known to be empty."""
    if kind == "csv":
        rows = [f"{file},{','.join(map(str, box))},fox" for file, boxes in BOXES.items() for box in boxes]
        return as_csv(path, "file,x0,y0,x1,y1,name", *rows)
    if kind == "coco":
        files = [*BOXES, "cam1/2.png"]
        images = [{"id": number, "file_name": f"/data/in/{file}"} for number, file in enumerate(files)]
        flat = [(number, box) for number, boxes in enumerate(BOXES.values()) for box in boxes]
        annotations = [
            {"id": id, "image_id": image, "category_id": 7, "bbox": [x0, y0, x1 - x0 + 1, y1 - y0 + 1]}
            for id, (image, (x0, y0, x1, y1)) in enumerate(flat)
        ]
        categories = [{"id": 7, "name": "fox"}]
        return as_json(path, {"images": images, "annotations": annotations, "categories": categories})
    images = [
        {
            "file": file.replace("/", "\\"),
            "detections": [
                {"category": "1", "conf": 0.9, "bbox": [x0 / 64, y0 / 48, (x1 - x0 + 1) / 64, (y1 - y0 + 1) / 48]}
                for x0, y0, x1, y1 in boxes
            ],
        }
        for file, boxes in [*BOXES.items(), ("cam1\\2.png", [])]
    ]
    images.append({"file": "cam2/3.png", "detections": None, "failure": "Failure image access"})
    categories = {"1": "fox"}
    return as_json(path, {"info": {"format_version": "1.4"}, "detection_categories": categories, "images": images})


@pytest.mark.parametrize("kind", ["csv", "coco", "megadetector"])
def test_boxes_of_every_kind_of_table_reach_their_pictures(
    session: Session, folder: Path, tmp_path: Path, kind: str
) -> None:
    """Masks are those of `Segmenter.decode` for the boxes written by hand; the other pictures are asked nothing."""
    table = of_a_table(tmp_path / "prompts", kind)
    done = segment(session, Order([folder], tmp_path / "out", table), HOW, ["png"])
    answers = {answer.file: answer for answer in done}
    assert len(answers) == 4
    for file, answer in answers.items():
        failed = kind == "megadetector" and file == "cam2/3.png"
        assert answer.error == ("MegaDetector results: Failure image access" if failed else "")
        if file not in BOXES:
            assert answer.objects == ()
            continue
        prompts = Prompts("user", boxes=np.array(BOXES[file], np.float32))
        expected = decoded(session.segmenter, read_image(folder / file), prompts)
        assert sorted(map(mask_key, answer.masks())) == sorted(map(mask_key, expected))
        assert {found.label for found in answer.objects} == {"fox"}
        union = np.asarray(Image.open(tmp_path / "out" / "masks" / f"{file.removesuffix('.png')}.png"))
        assert ((union == 255) == expected.any(0)).all()
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out" / "masks").rglob("*.png")}
    wanted = {f"masks/{file}" for file in answers if not answers[file].error}
    assert written == wanted


def mask_key(mask: BoolArray) -> bytes:
    return mask.tobytes()


def test_points_of_a_table(session: Session, folder: Path, tmp_path: Path) -> None:
    """Clicks of one object stand together, background clicks count, and the last parts of a path are enough."""
    rows = ["in/cam1/2.png,10,12,1,a", "in/cam1/2.png,50,40,0,a", "in/cam1/2.png,30,20,1,b", "in/cam2/3.png,5.5,7,1,"]
    table = as_csv(tmp_path / "clicks.csv", "file,x,y,label,object", *rows)
    answers = {
        answer.file: answer for answer in segment(session, Order([folder], tmp_path / "out", table), HOW, ["coco"])
    }
    image = read_image(folder / "cam1/2.png")
    both = Prompts("user", np.array([[[10, 12], [50, 40]]], np.float32), np.array([[1, 0]]))
    one = Prompts("user", np.array([[[30, 20]]], np.float32), np.array([[1]]))
    expected = [decoded(session.segmenter, image, prompts)[0] for prompts in (both, one)]
    assert sorted(map(mask_key, answers["cam1/2.png"].masks())) == sorted(map(mask_key, expected))
    assert len(answers["cam2/3.png"].objects) == 1
    assert answers["cam1/1.png"].objects == answers["cam2/1.png"].objects == ()


def test_the_same_name_in_two_folders_is_not_mixed_up(session: Session, folder: Path, tmp_path: Path) -> None:
    table = as_csv(tmp_path / "boxes.csv", "file,x0,y0,x1,y1", "1.png,2,2,30,30")
    with (
        pytest.raises(UsageError, match="x") if False else pytest.raises(Exception, match="to fit one image") as caught
    ):
        segment(session, Order([folder], tmp_path / "out", table), HOW)
    assert "cam1/1.png" in str(caught.value)
    assert "write their folders into the table" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_without_prompts_the_finder_is_asked(session: Session, folder: Path, tmp_path: Path) -> None:
    done = segment(session, Order([folder], tmp_path / "out"), HOW, list(FORMATS))
    content = json.loads((tmp_path / "out" / "coco.json").read_text())
    files = {image["id"]: image["file_name"] for image in content["images"]}
    for answer in done:
        assert answer.objects
        rles = [one["segmentation"] for one in content["annotations"] if files[one["image_id"]] == answer.file]
        assert (np.stack([coco.decode(rle) for rle in rles]).astype(bool) == answer.masks()).all()
        name = answer.file.removesuffix(".png")
        labels = np.asarray(Image.open(tmp_path / "out" / "labels" / f"{name}.png"))
        assert ((labels > 0) == answer.masks().any(0)).all()
        lines = (tmp_path / "out" / "labels-yolo" / f"{name}.txt").read_text().splitlines()
        assert len(lines) == len(answer.objects)
    assert yaml.safe_load((tmp_path / "out" / "data.yaml").read_text()) == {"names": {0: "object"}}


def test_what_a_run_says(session: Session, folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "cam1" / "pipe.jpg")
    (folder / "void.jpg").write_bytes(b"")
    heard, order = Heard(), Order([folder], tmp_path / "out", of_a_table(tmp_path / "md.json", "megadetector"))
    with using(heard):
        segment(session, order, HOW)
    assert heard.lines == [
        f"note: {folder / 'cam1' / 'pipe.jpg'}: expected a file, got a named pipe",
        "note: 1 of 5 images have no line in md.json; nothing is asked of them",
        "note: png: 2 files failed and have no output",
        heard.lines[-1],
    ]
    assert heard.lines[-1].startswith(
        "5 pictures (0 from before): 3 objects; 2 failed (first: cam2/3.png: MegaDetector"
    )
    heard = Heard()
    with using(heard):
        segment(session, order, HOW)
    assert heard.lines[-1].startswith(
        "5 pictures (5 from before): 3 objects; 2 failed (first: cam2/3.png: MegaDetector"
    )


def test_names_of_a_table_that_are_of_no_picture_are_counted(session: Session, folder: Path, tmp_path: Path) -> None:
    rows = ["cam1/1.png,2,2,30,30", "cam9/zebra.png,2,2,30,30", "cam9/ant.png,2,2,30,30"]
    table, heard = as_csv(tmp_path / "boxes.csv", "file,x0,y0,x1,y1", *rows), Heard()
    with using(heard):
        pictures = look_up(Order([folder], tmp_path / "out", table))
    assert pictures.prompts is not None
    assert list(pictures.prompts) == ["cam1/1.png"]
    assert heard.lines == [
        "note: 2 names of boxes.csv are of no image here (first: cam9/ant.png)",
        "note: 3 of 4 images have no line in boxes.csv; nothing is asked of them",
    ]


def test_boxes_below_the_least_score_are_left_out(session: Session, folder: Path, tmp_path: Path) -> None:
    rows = ["cam1/1.png,2,2,30,30,0.9", "cam1/1.png,5,5,40,40,0.3", "cam1/2.png,2,2,30,30,0.1"]
    table = as_csv(tmp_path / "boxes.csv", "file,x0,y0,x1,y1,score", *rows)
    done = segment(session, Order([folder], tmp_path / "out", table, 0.5), HOW)
    assert [len(answer.objects) for answer in done] == [1, 0, 0, 0]


def test_broken_files_stand_beside_the_others(session: Session, folder: Path, tmp_path: Path) -> None:
    said = broken(folder)
    done = segment(session, Order([folder], tmp_path / "out"), HOW, list(FORMATS))
    assert done.failed == len(said)
    content = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert {one["file_name"] for one in content["info"]["failed"]} == set(said)
    assert len(content["images"]) == 4
    assert len(list((tmp_path / "out" / "masks").rglob("*.png"))) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_names_that_nobody_would_give(session: Session, tmp_path: Path) -> None:
    """No name ends a run: bytes of no encoding, controls, drives, backslashes, and names as long as a disk takes."""
    names = [
        "\udce9t\udce9.png",
        "a\\b.png",
        "a/b.png",
        "C:\\x.png",
        "C:/x.png",
        "line\nbreak\x1b[31m.png",
        f"{'long' * 62}.png",
        "\N{HIRAGANA LETTER A}" * 83 + ".png",
        "\udce9" * 200 + ".png",
        f"{'long' * 62}.PNG",
        "=cmd.png",
        "..png.png",
    ]
    folder = photographs(tmp_path / "in", *names)
    done = segment(session, Order([folder], tmp_path / "out"), HOW, list(FORMATS))
    answers = list(done)
    assert len(answers) == len(names) - 1, "a name that begins with a dot is hidden"
    assert [answer.error for answer in answers] == [""] * len(answers)
    content = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert len({image["file_name"] for image in content["images"]}) == len(answers)
    for place in ("masks", "labels"):
        masks = sorted((tmp_path / "out" / place).rglob("*.png"))
        assert len(masks) == len(answers)
    assert len(list((tmp_path / "out" / "labels-yolo").rglob("*.txt"))) == len(answers)
    assert not list((tmp_path / "out").rglob(".*"))


def test_zero_photographs(session: Session, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("none")
    with pytest.raises(UsageError, match="photograph"):
        segment(session, Order([tmp_path / "in"], tmp_path / "out"), HOW)
    assert not (tmp_path / "out").exists()


def test_a_table_whose_names_fit_nothing(session: Session, folder: Path, tmp_path: Path) -> None:
    table = as_csv(tmp_path / "boxes.csv", "file,x0,y0,x1,y1", "b/zebra.png,2,2,30,30", "b/ant.png,2,2,30,30")
    expected = r"expected prompts in .*boxes.csv for the images given, got none \(first: b/ant.png\)"
    with pytest.raises(UsageError, match=expected):
        segment(session, Order([folder], tmp_path / "out", table), HOW)
    assert not (tmp_path / "out").exists()


def test_unknown_formats(session: Session, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected formats of png, labels, coco, yolo, got voc, shapefile$"):
        segment(session, Order([folder], tmp_path / "out"), HOW, ["png", "voc", "shapefile"])
    with pytest.raises(UsageError, match=r"got none$"):
        segment(session, Order([folder], tmp_path / "out"), HOW, [])
    assert not (tmp_path / "out").exists()


def test_the_folder_of_another_job_is_refused(session: Session, folder: Path, tmp_path: Path) -> None:
    with open_ledger(tmp_path / "out", {"job": "spot"}) as ledger:
        ledger.save()
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    with pytest.raises(UsageError, match=r"holds a run with another job; choose another --out"):
        segment(session, Order([folder], tmp_path / "out"), HOW)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"is not empty and holds no run \(thesis.tex\); choose another --out"):
        segment(session, Order([folder], tmp_path / "other"), HOW)
    with pytest.raises(UsageError, match=r"is not empty and holds no run \(cam1\); choose another --out"):
        segment(session, Order([folder], folder), HOW)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before


def test_a_second_process_in_the_same_folder_is_refused(session: Session, folder: Path, tmp_path: Path) -> None:
    with Lock(tmp_path / "out"), pytest.raises(UsageError, match=rf"another process \(pid {os.getpid()}\) is at work"):
        segment(session, Order([folder], tmp_path / "out"), HOW)
    assert segment(session, Order([folder], tmp_path / "out"), HOW).made == 4


def test_a_promise_that_cannot_be_kept_leaves_nothing_behind(session: Session, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a specialist with a finder for a promise"):
        segment(session, Order([folder], tmp_path / "out"), Asking(false_alarms=0.1))
    assert not (tmp_path / "out").exists()


def test_what_a_folder_says_of_its_model(folder: Path, tmp_path: Path) -> None:
    opened = open_session(specialist(tmp_path / "animals", finder(threshold=0.125)))
    segment(opened, Order([folder], tmp_path / "out"), HOW)
    facts = json.loads((tmp_path / "out" / "run.json").read_text())
    assert facts["identity"] == {"job": "segment"}
    assert facts["model"]["name"] == "animals"
    assert facts["threshold"] == 0.125
    assert not (tmp_path / "out" / ".lock").exists()


def test_other_prompts_in_the_same_folder_replace_what_was_asked(
    session: Session, folder: Path, tmp_path: Path
) -> None:
    segment(session, Order([folder], tmp_path / "out"), HOW, ["coco"])
    table = of_a_table(tmp_path / "boxes.csv", "csv")
    segment(session, Order([folder], tmp_path / "out", table), HOW, ["coco"])
    kept = answers_of(tmp_path / "out")
    assert {file for file, answer in kept.items() if answer.objects} == set(BOXES)
    content = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert len(content["annotations"]) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--format", "voc"), ("expected formats of png, labels, coco, yolo, got voc",)),
        (("--format", ","), ("expected formats of", "got none")),
        (("--false-alarms", "0"), ("expected a share of false alarms between 0 and 1, as 1% or 0.01, got '0'",)),
        (("--false-alarms", "100%"), ("between 0 and 1", "'100%'")),
        (("--false-alarms", "nan"), ("between 0 and 1", "'nan'")),
        (("--false-alarms", "few"), ("between 0 and 1", "'few'")),
        (("--false-alarms", "1%"), ("expected a specialist with a finder",)),
        (("--tiles", "5"), ("expected tiles of 16 px or more, or 0 for none, got 5",)),
        (("--tiles", "-1"), ("--tiles",)),
        (("--most", "0"), ("--most",)),
        (("--threshold", "2"), ("--threshold",)),
        (("--threshold", "nan"), ("--threshold",)),
        (("--least-score", "nan"), ("--least-score",)),
        (("--prompts", "nowhere.csv"), ("nowhere.csv", "cannot read it")),
        (("--model", "sam_vit_xxl"), ("sam_vit_xxl",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_use(
    call: Call, folder: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    code = FAILED if "nowhere.csv" in arguments else WRONG_USE
    refused(call("segment", folder, "-o", tmp_path / "out", *arguments), code, *words)
    assert not (tmp_path / "out").exists()


def test_nothing_to_look_at(call: Call, tmp_path: Path) -> None:
    refused(call("segment", tmp_path / "nowhere", "-o", tmp_path / "out"), WRONG_USE, "nowhere", "check the name")
    (tmp_path / "empty").mkdir()
    refused(call("segment", tmp_path / "empty", "-o", tmp_path / "out"), WRONG_USE, "empty", "photograph")
    refused(call("segment", "-o", tmp_path / "out"), WRONG_USE, "Missing argument")


def test_the_command_with_the_model_of_the_package(call: Call, tmp_path: Path) -> None:
    """nano, a click on a bright disc in a large picture, cut into tiles: the disc's mask, in the picture's frame."""
    rows, columns = np.mgrid[:900, :1300]
    disc = (columns - 1000) ** 2 + (rows - 300) ** 2 < 60**2
    image = np.random.default_rng(0).integers(60, 80, (900, 1300, 3)).astype(np.uint8)
    image[disc] = 230
    (tmp_path / "in").mkdir()
    Image.fromarray(image).save(tmp_path / "in" / "a.png")
    table = as_csv(tmp_path / "clicks.csv", "file,x,y", "a.png,1000,300")
    code, out, err = call(
        "segment", tmp_path / "in", "-o", tmp_path / "out", "--prompts", table, "--tiles", 512, "-f", "png,coco",
        "--device", "cpu",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert f"masks: {tmp_path / 'out'}" in out
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png")) > 0
    assert (mask & disc).sum() / (mask | disc).sum() > 0.8
    [annotation] = json.loads((tmp_path / "out" / "coco.json").read_text())["annotations"]
    assert np.abs(np.array(annotation["bbox"]) - [941, 241, 119, 119]).max() < 12


def test_tables_are_read_back(session: Session, folder: Path, tmp_path: Path) -> None:
    """Boxes that COCO was written with are prompts again, for the same pictures."""
    done = segment(session, Order([folder], tmp_path / "out"), HOW, ["coco"])
    again = segment(session, Order([folder], tmp_path / "again", tmp_path / "out" / "coco.json"), HOW, ["coco"])
    assert [answer.file for answer in again] == [answer.file for answer in done]
    for one, two in zip(done, again, strict=True):
        prompts = Prompts("user", boxes=np.array([found.box for found in one.objects], np.float32))
        expected = decoded(session.segmenter, read_image(folder / one.file), prompts)
        assert sorted(map(mask_key, two.masks())) == sorted(mask_key(mask) for mask in expected if mask.any())


@pytest.mark.parametrize(("grey", "warns"), [(1.0, True), (0.0, False)])
def test_pictures_of_another_kind_than_learned_from_are_said_first(
    session: Session, folder: Path, tmp_path: Path, grey: float, warns: bool
) -> None:
    card = read_card(specialist(tmp_path / "s", finder())).model_copy(update={"look": Look(9, grey, 64, 64)})
    heard = Heard()
    with using(heard):
        segment(replace(session, card=card), Order([folder], tmp_path / "out"), HOW)
    said = [line for line in heard.lines if line.startswith("warning: these pictures are in colour, this specialist")]
    assert bool(said) == warns
    assert not said or heard.lines.index(said[0]) == 0


def test_files_of_images_that_are_gone_go_with_them(session: Session, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    segment(session, Order([folder], out), HOW, ["png", "yolo", "coco"])
    assert (out / "masks/cam1/1.png").exists()
    assert {"coco.json", "data.yaml"} <= {path.name for path in out.iterdir()}
    kept = out / "masks/mine.png"
    kept.write_bytes(b"not ours")
    (folder / "cam1/1.png").unlink()
    segment(session, Order([folder], out), HOW, ["png"])
    left = {str(path.relative_to(out)) for name in ("masks", "labels-yolo") for path in (out / name).rglob("*.*")}
    assert left == {"masks/mine.png", *(f"masks/{name}.png" for name in ("cam1/2", "cam2/1", "cam2/3"))}
    assert not {"coco.json", "data.yaml"} & {path.name for path in out.iterdir()}
