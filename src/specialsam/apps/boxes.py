"""Prompts for new images out of other people's files: points and boxes in CSV, COCO, MegaDetector or SpeciesNet JSON.

What a detector failed on stays known, an image on which it found nothing is one without objects, and what cannot be a
prompt is refused with file and row.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from specialsam.apps.asked import Asked, PromptTable, locate, match
from specialsam.apps.detections import Gathered, outermost, read_coco, read_megadetector, read_speciesnet
from specialsam.core.documents import parse_json
from specialsam.core.errors import DataError
from specialsam.core.files import open_regular
from specialsam.core.names import printable

MOST_BYTES = 1_000_000_000
"""A larger file is refused before it is read."""

_EXPECTED = "expected prompts (CSV with a header, or COCO, MegaDetector or SpeciesNet JSON)"
_HEADERS = "file,x,y[,label][,object], file,x0,y0,x1,y1[,name][,score] or file,x,y,width,height[,name][,score]"
_FILE_COLUMNS = ("file", "image", "filename", "path", "file_name", "filepath")
_CORNERS, _SIDES, _POINT = ("x0", "y0", "x1", "y1"), ("x", "y", "width", "height"), ("x", "y")

_Cells = Mapping[str, str]


def read_prompts(path: Path, least_score: float = 0.0) -> PromptTable:
    """Read a file of prompts, recognised by its content; objects of a score below `least_score` are left out.

    CSV has a header: `file,x,y[,label][,object]` for points (label 1 foreground, the default, or 0; rows of the same
    file and object belong together), `file,x0,y0,x1,y1[,name][,score]` or `file,x,y,width,height` for boxes. A box of
    (x, y, width, height) in pixels ends with pixel x + width - 1 and has one pixel at least.

    Raises DataError in one line with file and row for all that is none of these, and for a file above 1 GB.
    """
    found = Gathered(path, least_score)
    text = _text(path)
    if re.match(r"\s*[\[{]", text):
        try:
            content = parse_json(text)
        except ValueError as error:
            raise DataError(f"{path}: {_EXPECTED}, cannot read it ({error})") from error
        kind = _read_json(found, content)
    else:
        kind = _read_csv(found, text)
    if not found.by_file and not found.failures:
        raise DataError(f"{path}: {_EXPECTED}, got one that names no image; write one row or entry for each object")
    notes = tuple(f"{count} {what}" for what, count in found.notes.items())
    return PromptTable({name: tuple(asked) for name, asked in found.by_file.items()}, found.failures, kind, notes)


def _text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            size = file.seek(0, io.SEEK_END)
            if size > MOST_BYTES:
                raise DataError(f"{path}: {_EXPECTED} of at most 1 GB, got {size / 1e9:.1f} GB; cut it into parts")
            file.seek(0)
            return file.read(MOST_BYTES + 1).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {_EXPECTED} in UTF-8, got other bytes; save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: {_EXPECTED}, cannot read it ({error.strerror})") from error


def _read_json(found: Gathered, content: object) -> str:
    """Read what a JSON file holds; returns its format in words."""
    if isinstance(content, dict) and "predictions" in content:
        read_speciesnet(found, content)
        return "SpeciesNet predictions"
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        read_coco(found, content)
        return "COCO boxes"
    if isinstance(content, dict) and "images" in content:
        read_megadetector(found, content)
        return "MegaDetector results"
    names = ", ".join(sorted(content)[:5]) if isinstance(content, dict) else ""
    came = f"a dictionary of {names or 'nothing'}" if isinstance(content, dict) else f"a {type(content).__name__}"
    raise DataError(f"{found.path}: {_EXPECTED}, got JSON that is {came[:100]}; none of the formats begins so")


def _read_csv(found: Gathered, text: str) -> str:
    """Read rows of points or boxes; returns which of them in words. Commas, semicolons or tabs divide the cells."""
    first = text[: text.find("\n")] if "\n" in text else text
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    objects: dict[tuple[str, str], list[tuple[str, _Cells]]] = {}
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        file_column, kind = _columns(found, header)
        for number, row in enumerate(reader, 2):
            if not any(cell.strip() for cell in row):
                continue
            where = f"row {number}"
            if len(row) != len(header):
                raise found.fault(where, f"{len(header)} cells as in the header", len(row))
            cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
            file = found.file(where, cells[file_column])
            together = f"object {cells['object']}" if kind == _POINT and cells.get("object") else where
            objects.setdefault((file, together), []).append((where, cells))
    except csv.Error as error:
        message = f"{found.path}, line {reader.line_num}: expected a row of CSV, cannot read it ({error})"
        raise DataError(f"{message}; mend its quotes") from error
    for (file, _), rows in objects.items():
        found.add(_points(found, file, rows) if kind == _POINT else _drawn_box(found, file, *rows[0], kind))
    return "points (CSV)" if kind == _POINT else "boxes (CSV)"


def _columns(found: Gathered, header: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The column that names the image, and those of the numbers."""
    file_column = next((name for name in _FILE_COLUMNS if name in header), None)
    kind = next((names for names in (_CORNERS, _SIDES, _POINT) if set(names) <= set(header)), None)
    if file_column is None or kind is None or len(set(header)) != len(header):
        came = printable(",".join(header))[:80] or "nothing"
        raise DataError(f"{found.path}: {_EXPECTED}, got {came}; of CSV the header is {_HEADERS}")
    return file_column, kind


def _drawn_box(found: Gathered, file: str, where: str, cells: _Cells, kind: tuple[str, ...]) -> Asked:
    if kind == _SIDES:
        x, y = (found.number(where, name, cells[name]) for name in _POINT)
        box = outermost([x, y, *(found.number(where, name, cells[name], low=0) for name in kind[2:])])
    else:
        x0, y0, x1, y1 = box = _four(found, where, cells)
        if x1 < x0 or y1 < y0:
            raise found.fault(where, "x0 <= x1 and y0 <= y1", f"{x0:g}, {y0:g}, {x1:g}, {y1:g}")
    label = printable(cells.get("name") or cells.get("label") or "")
    return Asked(file, box=box, label=label, score=_score(found, where, cells), source=where)


def _four(found: Gathered, where: str, cells: _Cells) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (found.number(where, name, cells[name]) for name in _CORNERS)
    return x0, y0, x1, y1


def _points(found: Gathered, file: str, rows: Sequence[tuple[str, _Cells]]) -> Asked:
    points = [[found.number(where, name, cells[name]) for name in _POINT] for where, cells in rows]
    labels = [found.number(where, "label", cells.get("label") or 1, 0, 1) for where, cells in rows]
    (where, cells), last = rows[0], rows[-1][0]
    if not {1.0} <= set(labels) <= {0.0, 1.0}:
        raise found.fault(
            where, "label 1 (foreground) or 0 (background), and one point of an object to be 1", str(labels)
        )
    return Asked(
        file,
        np.array(points, np.float32),
        np.array(labels, np.int64),
        label=printable(cells.get("name") or ""),
        score=_score(found, where, cells),
        source=where if len(rows) == 1 else f"{where} to {last}",
    )


def _score(found: Gathered, where: str, cells: _Cells) -> float:
    return found.number(where, "score", cells.get("score") or 1, 0, 1)


__all__ = ["Asked", "PromptTable", "locate", "match", "read_prompts"]
