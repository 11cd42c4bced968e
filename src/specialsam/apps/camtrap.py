"""Camtrap DP 1.0.2 (https://camtrap-dp.tdwg.org): camera-trap answers as a data package of three tables.

The standard has boxes, as fractions of the image, and no field for a mask: masks lie in a format of their own
(`formats`, `megadetector.write_masks`). What images do not say, a `Survey` does. Filled in are, of a deployment,
deploymentID, latitude, longitude, deploymentStart, deploymentEnd, timestampIssues; of a medium mediaID, deploymentID,
captureMethod, timestamp, filePath, filePublic, fileName, fileMediatype, mediaComments; of an observation observationID,
deploymentID, mediaID, eventStart, eventEnd, observationLevel, observationType, count, bboxX, bboxY, bboxWidth,
bboxHeight, classificationMethod, classifiedBy, classificationTimestamp, classificationProbability, observationTags,
observationComments. All other columns are there and empty.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from specialsam.apps.answers import Answer, FoundObject
from specialsam.apps.camtrap_rules import (
    CAPTURE_METHODS,
    COLUMNS,
    FILE_PATH,
    MISSING,
    PROFILE,
    SAMPLING_DESIGNS,
    SCHEMAS,
    check_package,
)
from specialsam.apps.megadetector import confidence, relative_box
from specialsam.core.errors import DataError, UsageError
from specialsam.core.files import write_whole

_KINDS = {"person": "human", "human": "human", "vehicle": "vehicle", "unknown": "unknown"}
"""observationType by label; every other label is an animal's."""
_MEDIA_TYPES = {"jpg": "jpeg", "tif": "tiff", "ppm": "x-portable-pixmap", "pgm": "x-portable-graymap"}
_NO_FOLDER = "."
"""deploymentID of images that lie in no folder: no folder is called so."""
_NO_TIME = "images hold no time; they got the given one, and their deployments are marked as doubtful"
_NO_ZONE = "images hold a time without a zone; it counts as UTC, and their deployments are marked as doubtful"
_NO_PLACE = "deployments have no coordinates, which the standard requires; fill them in in deployments.csv"
_NO_PATH = "paths begin with '.', '/' or '~' or hold '..', which the standard forbids; rename these images"

_Row = dict[str, object]


@dataclass(frozen=True)
class Survey:
    """What the standard asks for and images do not say.

    `created`, and `taken`, the time of images that hold none (`created` where empty), are ISO 8601 with a zone. `zone`,
    as +02:00 or Z, is the cameras' clock's; where it is empty their times count as UTC and are marked as doubtful.
    `place` (latitude, longitude) in degrees is of deployments without coordinates in EXIF. `base` stands before each
    file's path: the URL or the folder, seen from the package, where the images lie. An object less sure than `sure` is
    of the type unknown. Raises UsageError for a value that the standard does not know.
    """

    created: str
    classifier: str
    title: str = "Camera trap images"
    contributor: str = "not stated"
    zone: str = ""
    taken: str = ""
    place: tuple[float, float] | None = None
    base: str = ""
    public: bool = False
    sure: float = 0.0
    sampling_design: str = "opportunistic"
    capture_method: str = "activityDetection"

    def __post_init__(self) -> None:
        for name, value in (("created", self.created), ("taken", self.taken or self.created)):
            time = _time(value)
            if time is None or time.tzinfo is None:
                raise UsageError(f"expected {name} as a time with its zone, 2026-01-31T18:00:00+01:00, got {value!r}")
        if self.zone and not re.fullmatch(r"Z|[+-][01]\d:[0-5]\d", self.zone):
            raise UsageError(f"expected a zone as +02:00 or Z, got {self.zone!r}")
        if self.sampling_design not in SAMPLING_DESIGNS or self.capture_method not in CAPTURE_METHODS:
            known = f"{', '.join(SAMPLING_DESIGNS)} and {', '.join(CAPTURE_METHODS)}"
            raise UsageError(f"expected of {known} one each, got {self.sampling_design!r} and {self.capture_method!r}")
        if self.place and not _on_earth(*self.place):
            raise UsageError(f"expected a place as latitude -90..90, longitude -180..180, got {self.place}")


@dataclass
class _Deployment:
    """What the images of a top-level folder say: first and last time, first coordinates, whether a time is doubtful."""

    first: datetime | None = None
    last: datetime | None = None
    place: tuple[float, float] | None = None
    doubtful: bool = False


def write_package(answers: Iterable[Answer], out: Path, survey: Survey) -> list[str]:
    """Write datapackage.json, deployments.csv, media.csv and observations.csv into `out`; returns what to mend.

    A deployment is a top-level folder, "." for images that lie in none; it lasts from the first known time of its
    images to the last and is where the first image with coordinates says. An object is an observation of level media;
    an image without objects is one of type blank, one that failed of type unclassified with its error as comment. A
    label is a tag, not a scientific name. Raises DataError for an image that comes twice.
    """
    deployments: dict[str, _Deployment] = {}
    notes: Counter[str] = Counter()

    def fill(media: Path, observations: Path) -> None:
        with _table(media, "media") as ones, _table(observations, "observations") as others:
            for medium, seen in _rows(answers, survey, deployments, notes):
                ones.writerow(medium)
                others.writerows(seen)

    media, observations = out / "media.csv", out / "observations.csv"
    write_whole(media, lambda one: write_whole(observations, lambda other: fill(one, other)))
    rows = [_deployment(id, deployment, survey, notes) for id, deployment in sorted(deployments.items())]
    write_whole(out / "deployments.csv", lambda beside: _write_table(beside, "deployments", rows))
    text = json.dumps(_metadata(rows, survey), ensure_ascii=False, indent=1)
    write_whole(out / "datapackage.json", lambda beside: beside.write_text(text + "\n", encoding="utf-8"))
    return [f"{number} {what}" for what, number in notes.items()]


@contextmanager
def _table(path: Path, name: str) -> Iterator[csv.DictWriter[str]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS[name], restval="", lineterminator="\n")
        writer.writeheader()
        yield writer


def _write_table(path: Path, name: str, rows: Iterable[_Row]) -> None:
    with _table(path, name) as writer:
        writer.writerows(rows)


def _rows(
    answers: Iterable[Answer], survey: Survey, deployments: dict[str, _Deployment], notes: Counter[str]
) -> Iterator[tuple[_Row, list[_Row]]]:
    """A medium and its observations for each answer; what they say of deployments goes into `deployments`."""
    files: set[str] = set()
    for answer in answers:
        if answer.file in files:
            raise DataError(f"expected each image once, got {answer.file} again; give the answers of one run")
        files.add(answer.file)
        id = _deployment_of(answer.file)
        time, doubt = _when(answer, survey)
        _learn(deployments.setdefault(id, _Deployment()), answer, time, doubt)
        path = _path(answer.file, survey.base)
        notes.update([doubt] if doubt else [])
        notes.update([] if FILE_PATH.fullmatch(path) else [_NO_PATH])
        medium: _Row = {
            "mediaID": answer.file,
            "deploymentID": id,
            "captureMethod": survey.capture_method,
            "timestamp": _iso(time),
            "filePath": path,
            "filePublic": _boolean(survey.public),
            "fileName": PurePosixPath(answer.file).name,
            "fileMediatype": _media_type(answer.file),
            "mediaComments": answer.error or ("the time is not the image's own" if doubt == _NO_TIME else ""),
        }
        yield medium, list(_observations(answer, id, time, survey))


def _deployment_of(file: str) -> str:
    """The top-level folder of a file; one whose name would count as a missing value gets "./" before it."""
    folder = PurePosixPath(file).parts[0] if "/" in file else _NO_FOLDER
    return f"./{folder}" if folder in MISSING else folder


def _when(answer: Answer, survey: Survey) -> tuple[datetime, str]:
    """An image's time with its zone, and why it is doubtful ("" where it is not)."""
    time = _time(answer.taken)
    if time is None:
        return _time(survey.taken or survey.created) or datetime.now(UTC), _NO_TIME
    if time.tzinfo is not None:
        return time, ""
    zone = datetime.fromisoformat(f"2000-01-01T00:00:00{survey.zone or 'Z'}").tzinfo
    return time.replace(tzinfo=zone), "" if survey.zone else _NO_ZONE


def _learn(deployment: _Deployment, answer: Answer, time: datetime, doubt: str) -> None:
    deployment.doubtful |= bool(doubt)
    if doubt != _NO_TIME:
        deployment.first = min(time, deployment.first or time)
        deployment.last = max(time, deployment.last or time)
    latitude, longitude = answer.latitude, answer.longitude
    if deployment.place is None and latitude is not None and longitude is not None and _on_earth(latitude, longitude):
        deployment.place = latitude, longitude


def _observations(answer: Answer, id: str, time: datetime, survey: Survey) -> Iterator[_Row]:
    common: _Row = {
        "deploymentID": id,
        "mediaID": answer.file,
        "eventStart": _iso(time),
        "eventEnd": _iso(time),
        "observationLevel": "media",
        "classificationMethod": "machine",
        "classifiedBy": survey.classifier,
        "classificationTimestamp": _iso(_time(survey.created) or time),
    }
    if answer.error:
        failed = {"observationType": "unclassified", "observationComments": answer.error}
        yield {"observationID": f"{answer.file}#0", **common, **failed}
    elif not answer.objects:
        yield {"observationID": f"{answer.file}#0", **common, "observationType": "blank"}
    else:
        for number, found in enumerate(answer.objects, 1):
            yield {"observationID": f"{answer.file}#{number}", **common, **_object(found, survey)}


def _object(found: FoundObject, survey: Survey) -> _Row:
    height, width = found.rle["size"]
    box = relative_box(found.box, (height, width))
    score = confidence(found.score)
    label = found.label.replace("|", "/")
    return {
        "observationType": "unknown" if score < survey.sure else _KINDS.get(label.lower(), "animal"),
        "count": 1,
        **dict(zip(("bboxX", "bboxY", "bboxWidth", "bboxHeight"), box, strict=True)),
        "classificationProbability": score,
        "observationTags": f"label:{label}" if label else "",
        "observationComments": found.source,
    }


def _deployment(id: str, deployment: _Deployment, survey: Survey, notes: Counter[str]) -> _Row:
    place = deployment.place or survey.place
    notes.update([] if place else [_NO_PLACE])
    default = _time(survey.taken or survey.created) or datetime.now(UTC)
    return {
        "deploymentID": id,
        "locationName": "" if id == _NO_FOLDER else id,
        "latitude": place[0] if place else "",
        "longitude": place[1] if place else "",
        "deploymentStart": _iso(deployment.first or default),
        "deploymentEnd": _iso(deployment.last or default),
        "timestampIssues": _boolean(deployment.doubtful),
    }


def _metadata(rows: list[_Row], survey: Survey) -> dict[str, Any]:
    """What datapackage.json says, given the rows of the deployments."""
    days = [str(row[name])[:10] for row in rows for name in ("deploymentStart", "deploymentEnd")] or [
        survey.created[:10]
    ]
    resource = {"profile": "tabular-data-resource", "format": "csv", "mediatype": "text/csv", "encoding": "utf-8"}
    return {
        "resources": [
            {"name": table, "path": f"{table}.csv", **resource, "schema": SCHEMAS.format(table)} for table in COLUMNS
        ],
        "profile": PROFILE,
        "created": _iso(_time(survey.created) or datetime.now(UTC)),
        "title": survey.title,
        "contributors": [{"title": survey.contributor}],
        "project": {
            "title": survey.title,
            "samplingDesign": survey.sampling_design,
            "captureMethod": [survey.capture_method],
            "individualAnimals": False,
            "observationLevel": ["media"],
        },
        "spatial": _spatial([(row["longitude"], row["latitude"]) for row in rows if row["latitude"] != ""]),
        "temporal": {"start": min(days), "end": max(days)},
        "taxonomic": [],
    }


def _spatial(places: list[tuple[Any, Any]]) -> dict[str, Any]:
    """GeoJSON, (longitude, latitude), of the deployments' coordinates: a point, or the rectangle that holds them."""
    if not places:
        return {"type": "GeometryCollection", "geometries": []}
    (west, south), (east, north) = (tuple(pick(axis) for axis in zip(*places, strict=True)) for pick in (min, max))
    if (west, south) == (east, north):
        return {"type": "Point", "coordinates": [west, south]}
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def _path(file: str, base: str) -> str:
    """A file's path seen from the package; below a URL in the characters that a URL has."""
    name = quote(file) if "://" in base else file
    return f"{base.rstrip('/')}/{name}" if base else name


def _media_type(file: str) -> str:
    ending = PurePosixPath(file).suffix.lower().lstrip(".") or "unknown"
    return f"image/{_MEDIA_TYPES.get(ending, ending)}"


def _time(text: str) -> datetime | None:
    with suppress(ValueError):
        return datetime.fromisoformat(text)
    return None


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _on_earth(latitude: float, longitude: float) -> bool:
    return -90 <= latitude <= 90 and -180 <= longitude <= 180


__all__ = ["Survey", "check_package", "write_package"]
