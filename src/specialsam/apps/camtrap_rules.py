"""What Camtrap DP 1.0.2 (https://camtrap-dp.tdwg.org) asks of a data package: its columns, and a check of one.

From the standard's profile and its three table schemas: required fields, types, enumerations, ranges, patterns, unique
identifiers and foreign keys. Of a spatial coverage the type of the GeoJSON is looked at and no more.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from specialsam.core.errors import DataError
from specialsam.core.files import read_json

VERSION = "1.0.2"
PROFILE = f"https://raw.githubusercontent.com/tdwg/camtrap-dp/{VERSION}/camtrap-dp-profile.json"
SCHEMAS = f"https://raw.githubusercontent.com/tdwg/camtrap-dp/{VERSION}/{{}}-table-schema.json"
_FIELDS = {
    "deployments": "deploymentID locationID locationName latitude longitude coordinateUncertainty deploymentStart "
    "deploymentEnd setupBy cameraID cameraModel cameraDelay cameraHeight cameraDepth cameraTilt cameraHeading "
    "detectionDistance timestampIssues baitUse featureType habitat deploymentGroups deploymentTags deploymentComments",
    "media": "mediaID deploymentID captureMethod timestamp filePath filePublic fileName fileMediatype exifData "
    "favorite mediaComments",
    "observations": "observationID deploymentID mediaID eventID eventStart eventEnd observationLevel observationType "
    "cameraSetupType scientificName count lifeStage sex behavior individualID individualPositionRadius "
    "individualPositionAngle individualSpeed bboxX bboxY bboxWidth bboxHeight classificationMethod classifiedBy "
    "classificationTimestamp classificationProbability observationTags observationComments",
}
COLUMNS = {table: names.split() for table, names in _FIELDS.items()}
"""The fields of each table, in the standard's order."""
MISSING = frozenset({"", "NA", "NaN", "nan"})
"""Cells that say nothing."""
SAMPLING_DESIGNS = ("simpleRandom", "systematicRandom", "clusteredRandom", "experimental", "targeted", "opportunistic")
CAPTURE_METHODS = ("activityDetection", "timeLapse")
FILE_PATH = re.compile(r"(?=[^./~])(?:(?!\.{2}).)*")
"""A filePath leads to no place outside of the package."""

_REQUIRED = {
    "deployments": ("deploymentID", "latitude", "longitude", "deploymentStart", "deploymentEnd"),
    "media": ("mediaID", "deploymentID", "timestamp", "filePath", "filePublic", "fileMediatype"),
    "observations": (
        "observationID",
        "deploymentID",
        "eventStart",
        "eventEnd",
        "observationLevel",
        "observationType",
    ),
}
_METADATA = ("resources", "profile", "created", "contributors", "project", "spatial", "temporal", "taxonomic")
_PROJECT = ("title", "samplingDesign", "captureMethod", "individualAnimals", "observationLevel")
_FOREIGN = {"media": ("deploymentID",), "observations": ("deploymentID", "mediaID")}
_TABLE_OF = {"deploymentID": "deployments", "mediaID": "media"}
_Rule = tuple[str, Callable[[str], bool]]


def _one_of(*values: str) -> _Rule:
    return f"one of {', '.join(values)}", lambda cell: cell in values


def _between(low: float, high: float) -> _Rule:
    return f"a number in {low:g}..{high:g}", lambda cell: low <= _number(cell) <= high


def _like(pattern: str, words: str) -> _Rule:
    return words, lambda cell: re.fullmatch(pattern, cell) is not None


def _number(cell: str) -> float:
    with suppress(ValueError):
        return float(cell)
    return float("nan")


def _is_time(cell: str) -> bool:
    with suppress(ValueError):
        return datetime.strptime(cell, "%Y-%m-%dT%H:%M:%S%z").tzinfo is not None
    return False


_TIME: _Rule = ("a time with its zone, as 2026-01-31T18:00:00Z", _is_time)
_BOOLEAN, _FRACTION, _EXTENT = _one_of("true", "false"), _between(0, 1), _between(1e-15, 1)
_RULES: Mapping[str, _Rule] = {
    "latitude": _between(-90, 90),
    "longitude": _between(-180, 180),
    "deploymentStart": _TIME,
    "deploymentEnd": _TIME,
    "timestampIssues": _BOOLEAN,
    "captureMethod": _one_of(*CAPTURE_METHODS),
    "timestamp": _TIME,
    "filePath": (
        "a relative path or URL without '..', not beginning with '.', '/' or '~'",
        lambda cell: FILE_PATH.fullmatch(cell) is not None,
    ),
    "filePublic": _BOOLEAN,
    "fileMediatype": _like(r"(image|video|audio)/.*", "a media type as image/jpeg"),
    "favorite": _BOOLEAN,
    "eventStart": _TIME,
    "eventEnd": _TIME,
    "observationLevel": _one_of("media", "event"),
    "observationType": _one_of("animal", "human", "vehicle", "blank", "unknown", "unclassified"),
    "cameraSetupType": _one_of("setup", "calibration"),
    "count": _like(r"0*[1-9]\d*", "a whole number above 0"),
    "lifeStage": _one_of("adult", "subadult", "juvenile"),
    "sex": _one_of("female", "male"),
    "bboxX": _FRACTION,
    "bboxY": _FRACTION,
    "bboxWidth": _EXTENT,
    "bboxHeight": _EXTENT,
    "classificationMethod": _one_of("human", "machine"),
    "classificationTimestamp": _TIME,
    "classificationProbability": _FRACTION,
}


def check_package(folder: Path) -> list[str]:
    """What breaks the standard in datapackage.json and the three tables of a folder, one line a problem."""
    try:
        problems = [
            f"datapackage.json: {problem}"
            for problem in _metadata(read_json(folder / "datapackage.json", "write it anew"))
        ]
    except DataError as error:
        problems = [str(error)]
    known: dict[str, set[str]] = {}
    for table in COLUMNS:
        try:
            problems += [f"{table}.csv: {problem}" for problem in _table(folder / f"{table}.csv", table, known)]
        except (OSError, ValueError, csv.Error) as error:
            problems.append(f"{table}.csv: expected rows of CSV in UTF-8, cannot read them ({error})")
    return problems


def _table(path: Path, table: str, known: dict[str, set[str]]) -> Iterator[str]:
    """Problems of one table; its identifiers go into `known`, where foreign keys find them."""
    columns, ids = COLUMNS[table], known.setdefault(table, set())
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        if header != columns:
            yield f"expected the columns {','.join(columns)}, got {','.join(header)[:200] or 'none'}"
            return
        for number, row in enumerate(reader, 2):
            if len(row) != len(columns):
                yield f"row {number}: expected {len(columns)} cells, got {len(row)}"
                continue
            cells = {name: cell for name, cell in zip(columns, row, strict=True) if cell not in MISSING}
            if row[0] in ids:
                yield f"row {number}: expected {columns[0]} to be unique, got {row[0]!r} again"
            ids.add(row[0])
            yield from (f"row {number}: {problem}" for problem in _row(cells, table, known))


def _row(cells: Mapping[str, str], table: str, known: Mapping[str, set[str]]) -> Iterator[str]:
    for name in _REQUIRED[table]:
        if name not in cells:
            yield f"expected {name}, which is required, got none"
    for name, cell in cells.items():
        expected, fits = _RULES.get(name, ("", None))
        if fits and not fits(cell):
            yield f"expected {name} to be {expected}, got {cell[:80]!r}"
    for name in _FOREIGN.get(table, ()):
        if name in cells and cells[name] not in known[_TABLE_OF[name]]:
            yield f"expected {name} to be one of {_TABLE_OF[name]}.csv, got {cells[name][:80]!r}"
    if cells.get("observationLevel") == "media" and "mediaID" not in cells:
        yield "expected mediaID of an observation of level media, got none"


def _metadata(content: object) -> Iterator[str]:
    if not isinstance(content, dict):
        yield f"expected a dictionary, got a {type(content).__name__}"
        return
    for name in _METADATA:
        if name not in content:
            yield f"expected {name}, which is required, got none"
    if VERSION not in str(content.get("profile")):
        yield f"expected profile to be {PROFILE}"
    yield from _resources(content.get("resources"))
    contributors = content.get("contributors")
    if not isinstance(contributors, list) or not contributors or any(not _has(one, "title") for one in contributors):
        yield "expected contributors, each with a title"
    project = content.get("project")
    if not _has(project, *_PROJECT):
        yield f"expected project with {', '.join(_PROJECT)}"
    elif isinstance(project, dict):
        methods, levels = project["captureMethod"], project["observationLevel"]
        if project["samplingDesign"] not in SAMPLING_DESIGNS:
            yield f"expected project.samplingDesign to be one of {', '.join(SAMPLING_DESIGNS)}"
        if not isinstance(methods, list) or not methods or any(method not in CAPTURE_METHODS for method in methods):
            yield f"expected project.captureMethod to be a list of {', '.join(CAPTURE_METHODS)}"
        if not isinstance(levels, list) or any(level not in ("media", "event") for level in levels):
            yield "expected project.observationLevel to be a list of media, event"
    if not _has(content.get("spatial"), "type"):
        yield "expected spatial to be GeoJSON"
    temporal = content.get("temporal")
    days = [temporal.get(name) for name in ("start", "end")] if isinstance(temporal, dict) else [None]
    if any(not isinstance(day, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", day) for day in days):
        yield "expected temporal with start and end as 2026-01-31"
    if not _is_time(str(content.get("created"))):
        yield f"expected created to be {_TIME[0]}"
    if not isinstance(content.get("taxonomic"), list):
        yield "expected taxonomic to be a list"


def _resources(resources: object) -> Iterator[str]:
    listed = [one for one in resources if isinstance(one, dict)] if isinstance(resources, list) else []
    for table in COLUMNS:
        resource = next((one for one in listed if one.get("name") == table), None)
        if resource is None:
            yield f"expected a resource named {table}, got none"
        elif resource.get("path") != f"{table}.csv" or resource.get("profile") != "tabular-data-resource":
            yield f"expected the resource {table} with path {table}.csv and profile tabular-data-resource"
        elif resource.get("schema") != SCHEMAS.format(table):
            yield f"expected the schema of {table} to be {SCHEMAS.format(table)}"


def _has(value: object, *names: str) -> bool:
    return isinstance(value, dict) and all(name in value and value[name] not in (None, "") for name in names)
