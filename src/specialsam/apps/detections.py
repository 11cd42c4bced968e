"""What detectors and annotators wrote as JSON: COCO, MegaDetector's results, SpeciesNet's predictions.

Formats: COCO (Lin et al., ECCV 2014), MegaDetector's (https://lila.science/megadetector-output-format, 1.0 to 1.6),
SpeciesNet's (https://github.com/google/cameratrapai).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from specialsam.apps.asked import Asked, Box, posix
from specialsam.core.errors import DataError
from specialsam.core.names import printable

MOST_PIXELS = 1e9
"""A coordinate beyond this is none."""
KNOWN_VERSIONS = tuple(f"1.{minor}" for minor in range(7))
"""Versions of MegaDetector's format."""
DETECTED = {"1": "animal", "2": "person", "3": "vehicle"}
"""MegaDetector's categories where a file does not state them."""

_NO_SPECIES = frozenset({"", "blank", "animal", "human", "person", "vehicle", "unknown", "no cv result"})
"""Last parts of a SpeciesNet prediction that say no more of an animal than its detection does."""
_BEYOND = 0.01
"""How far beyond the image's edge, as a fraction of its side, a detector's box may reach: they round."""

_Entry = Mapping[str, object]


@dataclass
class Gathered:
    """What is gathered while a file of prompts is read, and the errors that name its rows."""

    path: Path
    least_score: float
    by_file: dict[str, list[Asked]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, asked: Asked) -> None:
        """Keep an object if its score is high enough; its file is known from now on."""
        objects = self.by_file.setdefault(asked.file, [])
        if asked.score >= self.least_score:
            objects.append(asked)

    def fault(self, where: str, expected: str, value: object) -> DataError:
        """The error of a value that is not what was expected."""
        plain = value is None or isinstance(value, str | int | float)
        came = repr(value)[:60] if plain else f"a {type(value).__name__}"
        return DataError(f"{self.path}, {where}: expected {expected}, got {came}; mend it or leave it out")

    def file(self, where: str, value: object) -> str:
        """The name of an image, posix and printable."""
        name = printable(posix(value)) if isinstance(value, str) and value.strip() else "."
        if name in (".", "/", "//"):
            raise self.fault(where, "the name of an image", value)
        return name

    def new_file(self, where: str, value: object) -> str:
        """The name of an image of which a file speaks once; "" where it did before."""
        name = self.file(where, value)
        if name in self.by_file or name in self.failures:
            self.notes["entries were left out, their image is listed before"] += 1
            return ""
        return name

    def number(
        self, where: str, name: str, value: object, low: float = -MOST_PIXELS, high: float = MOST_PIXELS
    ) -> float:
        """A number in low..high, out of a number or a text."""
        try:
            number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not low <= number <= high:
            raise self.fault(where, f"{name} to be a number in {low:g}..{high:g}", value)
        return number

    def sides(self, where: str, value: object, most: float = MOST_PIXELS) -> list[float]:
        """x, y, width and height out of a list, width and height not negative."""
        if not isinstance(value, list) or len(value) != 4:
            raise self.fault(where, "bbox to be four numbers", value)
        return [self.number(where, f"bbox[{i}]", side, 0 if i > 1 else -most, most) for i, side in enumerate(value)]

    def entries(self, name: str, value: object) -> Iterator[tuple[str, _Entry]]:
        """The dictionaries of a list, each with its place in words."""
        if not isinstance(value, list):
            raise self.fault(name, "a list", value)
        for number, entry in enumerate(value):
            if not isinstance(entry, dict):
                raise self.fault(f"{name}[{number}]", "a dictionary", entry)
            yield f"{name}[{number}]", entry


def outermost(sides: Sequence[float]) -> Box:
    """(x, y, width, height) in pixels to (x0, y0, x1, y1) of the outermost pixels, inclusive; one pixel at least."""
    x, y, width, height = sides
    return x, y, max(x, x + width - 1), max(y, y + height - 1)


def read_coco(found: Gathered, content: _Entry) -> None:
    """Boxes of COCO's annotations; an image without any is one without objects."""
    categories = found.entries("categories", content.get("categories", []))
    labels = {_text(entry.get("id")): _text(entry.get("name")) for _, entry in categories}
    files: dict[str, str] = {}
    for where, entry in found.entries("images", content["images"]):
        file = found.new_file(where, entry.get("file_name"))
        if file:
            files[_text(entry.get("id"))] = file
            found.by_file[file] = []
    for where, entry in found.entries("annotations", content["annotations"]):
        file = files.get(_text(entry.get("image_id")), "")
        if not file:
            found.notes["annotations were left out, their image is not listed"] += 1
        elif entry.get("iscrowd"):
            found.notes["crowd annotations were left out, they mark many objects at once"] += 1
        elif entry.get("bbox") is None:
            found.notes["annotations were left out, they have no box"] += 1
        else:
            box = outermost(found.sides(where, entry["bbox"]))
            score = found.number(where, "score", entry.get("score", 1), 0, 1)
            label = printable(labels.get(_text(entry.get("category_id")), ""))
            found.add(Asked(file, box=box, label=label, score=score, source=where))


def read_megadetector(found: Gathered, content: _Entry) -> None:
    """Boxes and failures of MegaDetector's results.

    A failure that comes with a list of detections, empty or not, breaks the format: it is a failure, with a note.
    """
    stated = content.get("detection_categories")
    labels = {str(key): _text(name) for key, name in stated.items()} if isinstance(stated, dict) else DETECTED
    info = content.get("info")
    about: _Entry = info if isinstance(info, dict) else {}
    if _text(about.get("format_version", "1.0")) not in KNOWN_VERSIONS:
        found.notes["format version is not known (1.0 to 1.6 are), it was read as 1.6"] += 1
    source = printable(_text(about.get("detector"))) or "MegaDetector"
    for where, entry in found.entries("images", content["images"]):
        file = found.new_file(where, entry.get("file"))
        failure, detections = entry.get("failure"), entry.get("detections")
        if not file:
            continue
        if failure is None and detections is not None:
            _add_detections(found, file, where, detections, labels, source)
            continue
        found.failures[file] = printable(_text(failure)) or "neither detections nor a failure are stated"
        if detections is not None:
            found.notes[
                "failures come with a list of detections, which the format forbids; they count as failures"
            ] += 1


def read_speciesnet(found: Gathered, content: _Entry) -> None:
    """Boxes and failures of SpeciesNet's predictions; the common name of what it predicts labels an image's animals."""
    for where, entry in found.entries("predictions", content["predictions"]):
        file = found.new_file(where, entry.get("filepath"))
        failures, detections = entry.get("failures"), entry.get("detections")
        parts = [_text(part) for part in failures] if isinstance(failures, list) else []
        if not file:
            continue
        if detections is None or "DETECTOR" in parts:
            found.failures[file] = printable(f"failed: {', '.join(parts)}" if parts else "no detections are stated")
            if detections is not None:
                found.notes["failures of the detector come with a list of detections; they count as failures"] += 1
            continue
        species = _text(entry.get("prediction")).rpartition(";")[2].strip()
        labels = {**DETECTED, "2": "human", "1": "animal" if species.lower() in _NO_SPECIES else species}
        source = printable(f"SpeciesNet {_text(entry.get('model_version'))}".strip())
        _add_detections(found, file, where, detections, labels, source)


def _add_detections(
    found: Gathered, file: str, where: str, detections: object, labels: Mapping[str, str], source: str
) -> None:
    """Add detections with relative boxes; a category that is not listed, or is called empty, is no detection."""
    found.by_file[file] = []
    for place, detection in found.entries(f"{where} ({file}) detections", detections):
        label = printable(labels.get(_text(detection.get("category")), "empty"))
        if label.strip().lower() == "empty":
            found.notes["detections were left out, their category is not listed or stands for an empty image"] += 1
            continue
        x, y, width, height = found.sides(place, detection.get("bbox"), most=1 + _BEYOND)
        if min(x, y) < -_BEYOND or max(x + width, y + height) > 1 + _BEYOND:
            box = f"{x:g}, {y:g}, {width:g}, {height:g}"
            raise found.fault(place, "bbox to be (x, y, width, height) as fractions of the image", box)
        score = found.number(place, "conf", detection.get("conf"), 0, 1)
        corners = (x, y, x + width, y + height)
        found.add(Asked(file, box=corners, relative=True, label=label, score=score, source=source))


def _text(value: object) -> str:
    """A text or a number as text, "" for all else."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
