"""Camtrap DP tables. Oracles: the standard's schemas as its page states them, files read back with csv and json."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specialsam.apps.answers import Answer, FoundObject
from specialsam.apps.camtrap import Survey, check_package, write_package
from specialsam.core.errors import DataError, UsageError
from specialsam.core.masks import to_rle

SURVEY = Survey("2026-02-01T12:00:00Z", "SpecialSAM 1", zone="+02:00", place=(1.5, 2.5))


def found(label: str = "", score: float = 0.75) -> FoundObject:
    """A box of 10x4 pixels at (10, 4) of an image of 100x40."""
    mask = np.zeros((40, 100), np.bool_)
    mask[4:8, 10:20] = True
    return FoundObject(to_rle(mask), (10, 4, 19, 7), score, label, "md")


def some() -> list[Answer]:
    return [
        Answer(
            "cam1/a.jpg",
            (40, 100),
            (found("fox"), found("person")),
            taken="2026-01-02T03:04:05",
            latitude=52.5,
            longitude=23.75,
        ),
        Answer("cam1/b.JPEG", (40, 100), taken="2026-01-01T03:04:05"),
        Answer("cam2/c.tif", error="expected an image, got damaged data"),
        Answer(
            "top.png", (40, 100), (found(score=0.25),), taken="2026-01-03T03:04:05+00:00", latitude=1e9, longitude=0
        ),
    ]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def picked(row: dict[str, str], *names: str) -> tuple[str, ...]:
    return tuple(row[name] for name in names)


def test_a_package_by_hand(tmp_path: Path) -> None:
    notes = write_package(some(), tmp_path, SURVEY)
    assert notes == ["1 images hold no time; they got the given one, and their deployments are marked as doubtful"]
    assert check_package(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "datapackage.json",
        "deployments.csv",
        "media.csv",
        "observations.csv",
    ]
    wanted = ("deploymentID", "latitude", "longitude", "deploymentStart", "deploymentEnd", "timestampIssues")
    assert [picked(row, *wanted) for row in rows(tmp_path / "deployments.csv")] == [
        (".", "1.5", "2.5", "2026-01-03T03:04:05Z", "2026-01-03T03:04:05Z", "false"),
        ("cam1", "52.5", "23.75", "2026-01-01T03:04:05+02:00", "2026-01-02T03:04:05+02:00", "false"),
        ("cam2", "1.5", "2.5", "2026-02-01T12:00:00Z", "2026-02-01T12:00:00Z", "true"),
    ]
    wanted = ("mediaID", "deploymentID", "timestamp", "filePath", "filePublic", "fileName", "fileMediatype")
    media = rows(tmp_path / "media.csv")
    assert [picked(row, *wanted) for row in media] == [
        ("cam1/a.jpg", "cam1", "2026-01-02T03:04:05+02:00", "cam1/a.jpg", "false", "a.jpg", "image/jpeg"),
        ("cam1/b.JPEG", "cam1", "2026-01-01T03:04:05+02:00", "cam1/b.JPEG", "false", "b.JPEG", "image/jpeg"),
        ("cam2/c.tif", "cam2", "2026-02-01T12:00:00Z", "cam2/c.tif", "false", "c.tif", "image/tiff"),
        ("top.png", ".", "2026-01-03T03:04:05Z", "top.png", "false", "top.png", "image/png"),
    ]
    assert media[2]["mediaComments"] == "expected an image, got damaged data"


def test_observations_by_hand(tmp_path: Path) -> None:
    write_package(some(), tmp_path, Survey(**{**vars(SURVEY), "sure": 0.5}))
    seen = rows(tmp_path / "observations.csv")
    wanted = ("observationID", "mediaID", "observationType", "count", "bboxX", "bboxWidth", "classificationProbability")
    assert [picked(row, *wanted) for row in seen] == [
        ("cam1/a.jpg#1", "cam1/a.jpg", "animal", "1", "0.1", "0.1", "0.75"),
        ("cam1/a.jpg#2", "cam1/a.jpg", "human", "1", "0.1", "0.1", "0.75"),
        ("cam1/b.JPEG#0", "cam1/b.JPEG", "blank", "", "", "", ""),
        ("cam2/c.tif#0", "cam2/c.tif", "unclassified", "", "", "", ""),
        ("top.png#1", "top.png", "unknown", "1", "0.1", "0.1", "0.25"),
    ]
    assert {row["eventStart"] == row["eventEnd"] for row in seen} == {True}
    assert {picked(row, "observationLevel", "classificationMethod", "classifiedBy") for row in seen} == {
        ("media", "machine", "SpecialSAM 1")
    }
    assert seen[0]["observationTags"] == "label:fox"
    assert seen[0]["scientificName"] == ""
    assert check_package(tmp_path) == []


def test_the_description_of_a_package(tmp_path: Path) -> None:
    write_package(some(), tmp_path, SURVEY)
    package = json.loads((tmp_path / "datapackage.json").read_text())
    base = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2/"
    assert package["profile"] == f"{base}camtrap-dp-profile.json"
    assert {one["name"]: one["schema"] for one in package["resources"]} == {
        name: f"{base}{name}-table-schema.json" for name in ("deployments", "media", "observations")
    }
    assert package["temporal"] == {"start": "2026-01-01", "end": "2026-02-01"}
    assert package["spatial"]["coordinates"][0][0] == [2.5, 1.5]
    assert package["spatial"]["coordinates"][0][2] == [23.75, 52.5]
    write_package(some()[2:], tmp_path / "one", SURVEY)
    one = json.loads((tmp_path / "one" / "datapackage.json").read_text())
    assert one["spatial"] == {"type": "Point", "coordinates": [2.5, 1.5]}


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    """Without a zone times are doubtful; without coordinates the package is not valid yet, and the check says so."""
    bare = Survey("2026-02-01T12:00:00+01:00", "SpecialSAM", taken="2020-01-01T00:00:00Z")
    notes = write_package(some()[1:3], tmp_path, bare)
    assert sorted(notes) == [
        "1 images hold a time without a zone; it counts as UTC, and their deployments are marked as doubtful",
        "1 images hold no time; they got the given one, and their deployments are marked as doubtful",
        "2 deployments have no coordinates, which the standard requires; fill them in in deployments.csv",
    ]
    assert [picked(row, "deploymentStart", "timestampIssues") for row in rows(tmp_path / "deployments.csv")] == [
        ("2026-01-01T03:04:05Z", "true"),
        ("2020-01-01T00:00:00Z", "true"),
    ]
    assert check_package(tmp_path) == [
        f"deployments.csv: row {row}: expected {name}, which is required, got none"
        for row in (2, 3)
        for name in ("latitude", "longitude")
    ]


def test_an_empty_package_is_valid(tmp_path: Path) -> None:
    assert write_package([], tmp_path, SURVEY) == []
    assert check_package(tmp_path) == []


def test_paths_below_a_folder_or_an_address(tmp_path: Path) -> None:
    plain = Answer('cam 1/ä,"b".jpg', (40, 100), taken="2026-01-01T03:04:05")
    for base, path in {
        "": 'cam 1/ä,"b".jpg',
        "images/": 'images/cam 1/ä,"b".jpg',
        "https://x.org/y": "https://x.org/y/cam%201/%C3%A4%2C%22b%22.jpg",
    }.items():
        write_package([plain], tmp_path, Survey(**{**vars(SURVEY), "base": base}))
        assert rows(tmp_path / "media.csv")[0]["filePath"] == path
        assert check_package(tmp_path) == []


@pytest.mark.parametrize("file", ["../a.jpg", "/a.jpg", ".a/b.jpg", "~/a.jpg", "a..b.jpg"])
def test_paths_that_the_standard_forbids_are_said(tmp_path: Path, file: str) -> None:
    notes = write_package([Answer(file, (40, 100), taken="2026-01-01T03:04:05")], tmp_path, SURVEY)
    assert notes == ["1 paths begin with '.', '/' or '~' or hold '..', which the standard forbids; rename these images"]
    (problem,) = check_package(tmp_path)
    assert problem.startswith("media.csv: row 2: expected filePath to be a relative path")
    assert sorted(path.name for path in tmp_path.iterdir())[0] == "datapackage.json"


def test_a_folder_that_is_called_as_nothing_is(tmp_path: Path) -> None:
    write_package([Answer("NA/a.jpg", (40, 100), taken="2026-01-01T03:04:05")], tmp_path, SURVEY)
    assert check_package(tmp_path) == []


def test_an_image_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected each image once, got cam1/a.jpg again"):
        write_package([*some(), some()[0]], tmp_path, SURVEY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"created": "2026-02-01"}, "expected created as a time with its zone"),
        ({"taken": "yesterday"}, "expected taken as a time with its zone"),
        ({"zone": "CET"}, "expected a zone as"),
        ({"zone": "+99:00"}, "expected a zone as"),
        ({"place": (91, 0)}, "expected a place"),
        ({"place": (float("nan"), 0)}, "expected a place"),
        ({"sampling_design": "random"}, "expected of simpleRandom"),
        ({"capture_method": "motion"}, "expected of simpleRandom"),
    ],
)
def test_a_survey_that_the_standard_does_not_know_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Survey(**{**vars(SURVEY), **changed})


@pytest.mark.parametrize(
    ("table", "name", "value", "problem"),
    [
        ("deployments", "deploymentID", "cam1", "expected deploymentID to be unique, got 'cam1' again"),
        ("deployments", "latitude", "91", "expected latitude to be a number in -90..90"),
        ("deployments", "longitude", "x", "expected longitude to be a number"),
        (
            "deployments",
            "deploymentStart",
            "2026-01-01T00:00:00",
            "expected deploymentStart to be a time with its zone",
        ),
        ("deployments", "timestampIssues", "yes", "expected timestampIssues to be one of true, false"),
        ("media", "deploymentID", "cam9", "expected deploymentID to be one of deployments.csv, got 'cam9'"),
        ("media", "timestamp", "", "expected timestamp, which is required"),
        ("media", "timestamp", "NaN", "expected timestamp, which is required"),
        ("media", "fileMediatype", "jpeg", "expected fileMediatype to be a media type"),
        ("media", "captureMethod", "motionDetection", "expected captureMethod to be one of"),
        ("observations", "mediaID", "z.jpg", "expected mediaID to be one of media.csv"),
        ("observations", "mediaID", "", "expected mediaID of an observation of level media"),
        ("observations", "observationLevel", "image", "expected observationLevel to be one of media, event"),
        ("observations", "observationType", "fox", "expected observationType to be one of animal"),
        ("observations", "bboxX", "1.5", "expected bboxX to be a number in 0..1"),
        ("observations", "bboxWidth", "0", "expected bboxWidth"),
        ("observations", "count", "0", "expected count to be a whole number"),
        ("observations", "classificationProbability", "nan", ""),
        ("observations", "classificationProbability", "inf", "expected classificationProbability"),
        ("observations", "classificationMethod", "robot", "expected classificationMethod"),
    ],
)
def test_each_fault_in_a_table_is_found(tmp_path: Path, table: str, name: str, value: str, problem: str) -> None:
    write_package(some(), tmp_path, SURVEY)
    path = tmp_path / f"{table}.csv"
    written = rows(path)
    written[0][name] = value
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(written[0]))
        writer.writeheader()
        writer.writerows(written)
    problems = check_package(tmp_path)
    assert bool(problems) == bool(problem)
    assert not problem or any(f"{table}.csv: row " in line and problem in line for line in problems), problems


@pytest.mark.parametrize(
    "name",
    ["resources", "profile", "created", "contributors", "project", "spatial", "temporal", "taxonomic"],
)
@pytest.mark.parametrize("value", [None, [], {}, "x", [[[[[[[[[[3]]]]]]]]]]])
def test_each_fault_in_the_description_is_found(tmp_path: Path, name: str, value: object) -> None:
    write_package([], tmp_path, SURVEY)
    path = tmp_path / "datapackage.json"
    package = json.loads(path.read_text())
    if value is None:
        del package[name]
    elif name == "taxonomic" and isinstance(value, list):
        return
    else:
        package[name] = value
    path.write_text(json.dumps(package))
    assert any(name in line or "resource" in line for line in check_package(tmp_path))


def test_files_that_are_none_are_problems(tmp_path: Path) -> None:
    assert len(check_package(tmp_path)) == 4
    write_package(some(), tmp_path, SURVEY)
    (tmp_path / "media.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "deployments.csv").write_text("deploymentID,latitude\n")
    (tmp_path / "datapackage.json").write_text("[]")
    problems = check_package(tmp_path)
    assert problems[0] == "datapackage.json: expected a dictionary, got a list"
    assert any(line.startswith("media.csv: expected rows of CSV in UTF-8") for line in problems)
    assert any(line.startswith("deployments.csv: expected the columns") for line in problems)
