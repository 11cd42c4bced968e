"""MegaDetector's results format 1.6 (https://lila.science/megadetector-output-format), which Timelapse and others read.

The format has no mask: `write_masks` puts them into a file of our own beside it, in the order of the detections.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from specialsam.apps.answers import Answer, FoundObject
from specialsam.apps.asked import Box
from specialsam.apps.detections import KNOWN_VERSIONS
from specialsam.core.errors import DataError, UsageError
from specialsam.core.files import write_whole

FORMAT_VERSION = "1.6"
EXIF_TIME = "%Y:%m:%d %H:%M:%S"
"""How MegaDetector writes an image's `datetime`: as EXIF does."""

_SAME = {"human": "person", "person": "human"}
"""What SpeciesNet and MegaDetector call the same."""
_DRIVE = re.compile("[A-Za-z]:/")
_STEPS = 10_000
"""Numbers have four decimals."""
_REQUIRED = ("info", "detection_categories", "images")
_TOP_KEYS = frozenset({*_REQUIRED, "classification_categories", "classification_category_descriptions"})
_IMAGE_KEYS = frozenset({"file", "detections", "failure", "width", "height", "datetime", "exif_metadata"})


def relative_box(box: Box, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """(x, y, width, height) as fractions, four decimals, of (x0, y0, x1, y1), inclusive, in an image (height, width).

    Rounded outwards, so that the object stays inside; never beyond the image, never empty.
    """
    height, width = size
    (x, across), (y, down) = (_span(box[i], box[i + 2], side) for i, side in enumerate((width, height)))
    return x, y, across, down


def _span(first: float, last: float, side: int) -> tuple[float, float]:
    start = min(max(math.floor(first * _STEPS / side + 1e-6), 0), _STEPS - 1)
    end = min(math.ceil((last + 1) * _STEPS / side - 1e-6), _STEPS)
    return start / _STEPS, max(end - start, 1) / _STEPS


def confidence(score: float) -> float:
    """A score as a float in 0..1 of four decimals; one that is not finite counts as 0."""
    return round(min(max(float(score), 0.0), 1.0), 4) if math.isfinite(score) else 0.0


def results(
    answers: Iterable[Answer],
    detector: str,
    categories: Mapping[str, str],
    when: str,
    metadata: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """The results file as plain JSON, images sorted by name, detections in the order of an answer's objects.

    `categories` are names by id, ids being whole numbers as texts; "0" stands for an empty image and is refused. An
    object whose label is none of the names gets the first of them. `when` is the time of completion, as
    2026-01-31 18:00:00; `metadata` becomes `info.detector_metadata`. Raises UsageError for categories that cannot be.
    """
    if not categories or any(not _is_id(key) or int(key) == 0 or not name.strip() for key, name in categories.items()):
        came = dict(categories) or "none"
        raise UsageError(f'expected categories with names by "1", "2" and so on, got {came}; "0" stands for no object')
    info: dict[str, Any] = {"format_version": FORMAT_VERSION, "detector": detector, "detection_completion_time": when}
    if metadata:
        info["detector_metadata"] = dict(metadata)
    by_name = {name: key for key, name in sorted(categories.items(), key=lambda pair: -int(pair[0]))}
    default = min(categories, key=int)
    images = [_image(name, answer, by_name, default) for name, answer in _named(answers)]
    return {"info": info, "detection_categories": dict(categories), "images": images}


def _named(answers: Iterable[Answer]) -> Iterator[tuple[str, Answer]]:
    """Answers sorted by file, each with a relative name with forward slashes; a number tells alike names apart."""
    owners: dict[str, str] = {}
    for answer in sorted(answers, key=lambda answer: answer.file):
        name = whole = _relative(answer.file)
        number = 1
        while owners.setdefault(name, answer.file) != answer.file:
            number += 1
            name = f"{whole} ({number})"
        yield name, answer


def _relative(file: str) -> str:
    """A file's name without backslashes, which odd bytes are printed with, and without a root or a drive."""
    name = file.replace("\\", "/").lstrip("/")
    return f"./{name}" if _DRIVE.match(name) else name


def _image(name: str, answer: Answer, by_name: Mapping[str, str], default: str) -> dict[str, Any]:
    image: dict[str, Any] = {"file": name}
    if answer.size:
        image["height"], image["width"] = answer.size
    with suppress(ValueError):  # No time is known.
        taken = datetime.fromisoformat(answer.taken)
        image["datetime"] = f"{taken.year:04}{taken.strftime(EXIF_TIME.removeprefix('%Y'))}"  # %Y pads no early year
    if answer.error:
        return {**image, "failure": answer.error, "detections": None}
    return {**image, "detections": [_detection(found, by_name, default) for found in answer.objects]}


def _detection(found: FoundObject, by_name: Mapping[str, str], default: str) -> dict[str, Any]:
    height, width = found.rle["size"]
    return {
        "category": by_name.get(found.label) or by_name.get(_SAME.get(found.label, ""), default),
        "conf": confidence(found.score),
        "bbox": list(relative_box(found.box, (height, width))),
    }


def write_results(
    answers: Iterable[Answer],
    path: Path,
    detector: str,
    categories: Mapping[str, str],
    when: str,
    metadata: Mapping[str, object] | None = None,
) -> None:
    """Write `results`, whole or not at all. Raises DataError with the first problem that `check` finds in them."""
    content = results(answers, detector, categories, when, metadata)
    problems = check(content)
    if problems:
        raise DataError(f"{path}: expected valid MegaDetector results, got: {problems[0]}; give each image once")
    _write_json(path, content)


def write_masks(answers: Iterable[Answer], path: Path) -> None:
    """Write the masks beside `write_results`: images in the same order, `masks` COCO run lengths in that of detections.

    {"info", "images": [{"file", "masks": [{"size": [height, width], "counts"}, ...]}]}; null for a file that failed.
    """
    images = [
        {"file": name, "masks": None if answer.error else [found.rle for found in answer.objects]}
        for name, answer in _named(answers)
    ]
    said = "COCO run-length masks, one for each detection of the MegaDetector results beside this file, in their order"
    _write_json(path, {"info": {"description": said}, "images": images})


def _write_json(path: Path, content: object) -> None:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1)
    write_whole(path, lambda beside: beside.write_text(text + "\n", encoding="utf-8"))


def check(content: object) -> list[str]:
    """What breaks the format in results for images, one line a problem; none if they are valid.

    Stricter than the format where it leaves a choice that readers differ on: names are relative with forward slashes
    and unique, boxes lie in the image, no key is unknown, "0" is not used. Videos and classes are not looked at.
    """
    if not isinstance(content, dict):
        return [f"expected a dictionary, got a {type(content).__name__}"]
    problems = [
        f"expected the key {key!r}, got none"
        for key in ("info", "detection_categories", "images")
        if key not in content
    ]
    problems += [f"expected no key {key!r} beside info and images" for key in content if key not in _TOP_KEYS]
    info, categories, images = (content.get(key) for key in _REQUIRED)
    version = info.get("format_version") if isinstance(info, dict) else None
    if version not in KNOWN_VERSIONS:
        problems.append(f"info: expected format_version as a text, 1.0 to 1.6, got {version!r}")
    if not isinstance(categories, dict):
        return [*problems, "detection_categories: expected a dictionary"]
    problems += _category_problems(categories)
    if not isinstance(images, list):
        return [*problems, "images: expected a list"]
    seen: set[str] = set()
    for number, image in enumerate(images):
        if not isinstance(image, dict):
            problems.append(f"images[{number}]: expected a dictionary, got a {type(image).__name__}")
            continue
        problems += [f"images[{number}]: {problem}" for problem in _image_problems(image, categories, seen)]
    return problems


def _category_problems(categories: Mapping[object, object]) -> Iterator[str]:
    for key, name in categories.items():
        if not _is_id(key):
            yield f"detection_categories: expected ids that are whole numbers as texts, got {key!r}"
        elif int(str(key)) == 0:
            yield 'detection_categories: expected no id "0", it stands for an empty image'
        if not isinstance(name, str) or not name.strip():
            yield f"detection_categories: expected a name for {key!r}, got {name!r}"


def _image_problems(image: Mapping[str, object], categories: Mapping[object, object], seen: set[str]) -> Iterator[str]:
    file, failure, detections = (image.get(key) for key in ("file", "failure", "detections"))
    if not isinstance(file, str) or not file:
        yield "expected file to be a name"
    elif file in seen:
        yield f"expected each file once, got {file!r} again"
    else:
        seen.add(file)
        if "\\" in file or file.startswith("/") or _DRIVE.match(file):
            yield f"expected a relative name with forward slashes, got {file!r}"
    yield from (f"expected no key {key!r}" for key in image if key not in _IMAGE_KEYS)
    for key in ("width", "height"):
        if key in image and not (type(image[key]) is int and int(str(image[key])) > 0):
            yield f"expected {key} to be a whole number above 0, got {image[key]!r}"
    if "datetime" in image and not _is_time(image["datetime"]):
        yield f"expected datetime as 2026:01:31 18:00:00, got {image['datetime']!r}"
    if failure is not None:
        if not isinstance(failure, str) or not failure:
            yield f"expected failure to be a text or null, got {failure!r}"
        if detections is not None:
            yield "expected null detections of a failure, got some"
    elif not isinstance(detections, list):
        yield "expected a list of detections of an image that did not fail"
    else:
        for number, detection in enumerate(detections):
            yield from (f"detections[{number}]: {problem}" for problem in _detection_problems(detection, categories))


def _detection_problems(detection: object, categories: Mapping[object, object]) -> Iterator[str]:
    if not isinstance(detection, dict):
        yield f"expected a dictionary, got a {type(detection).__name__}"
        return
    category, conf, box = (detection.get(key) for key in ("category", "conf", "bbox"))
    if not isinstance(category, str) or category not in categories:
        yield f"expected a category of detection_categories, got {category!r}"
    if not isinstance(conf, float) or not 0 <= conf <= 1:
        yield f"expected conf to be a decimal number in 0..1, got {conf!r}"
    if not isinstance(box, list) or len(box) != 4 or not all(type(side) in (int, float) for side in box):
        yield "expected bbox to be four numbers"
        return
    x, y, width, height = box
    inside = x >= 0 and y >= 0 and x + width <= 1 + 1e-9 and y + height <= 1 + 1e-9
    if not (inside and width > 0 and height > 0):
        yield f"expected bbox (x, y, width, height) within 0..1 and not empty, got {box}"


def _is_id(key: object) -> bool:
    return isinstance(key, str) and re.fullmatch(r"[0-9]{1,9}", key) is not None


def _is_time(value: object) -> bool:
    try:
        datetime.strptime(str(value), EXIF_TIME)
    except ValueError:
        return False
    return isinstance(value, str)
