"""The contact sheet "look here first", pages that open offline and run no script, and the same finds as a table.

Answers are taken one by one. Of each stays what its place on the page needs, never a mask or a picture, so that ten
thousand photographs need a few megabytes.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment, PackageLoader

from specialsam.apps.answers import Answer, FoundObject
from specialsam.apps.marks import Pictures, pictures_of, save_pictures
from specialsam.apps.megadetector import confidence
from specialsam.apps.photographs import reason_for
from specialsam.core.errors import DataError
from specialsam.core.files import write_whole
from specialsam.core.names import printable
from specialsam.data.images import read_image
from specialsam.report.page import environment, write_page

PER_PAGE = 200
"""Photographs with a find, and failures, on one page."""
COLUMNS = (
    *("file", "taken", "latitude", "longitude", "width", "height", "object", "score", "label"),
    *("x0", "y0", "x1", "y1", "area_px", "area_share", "error"),
)
"""Columns of the table; a box is of the outermost pixels, inclusive, an area the mask's in pixels."""

_FORMULA = re.compile(r"\s*[=+\-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH COMMERCIAL AT}]")
_Score = tuple[int, float]


@dataclass(frozen=True, slots=True)
class Card:
    """What a page says of one photograph; `scores` are (number, score) of the objects that have a crop.

    `note` says why the pictures are missing, "" where they are there.
    """

    file: str
    best: float
    count: int
    scores: tuple[_Score, ...]
    pictures: Pictures
    taken: str = ""
    place: str = ""
    note: str = ""

    @property
    def folder(self) -> str:
        return self.file.removesuffix(self.name)

    @property
    def name(self) -> str:
        return PurePosixPath(self.file).name or self.file


@dataclass(frozen=True, slots=True)
class _Page:
    """One page: its cards, the rank of the first, and its failures as (file, reason)."""

    name: str
    cards: Sequence[Card]
    first: int
    failures: Sequence[tuple[str, str]]


def write_sheet(
    answers: Iterable[Answer], out: Path, title: str, facts: Mapping[str, str], pictures: Mapping[str, Path]
) -> Path:
    """Write the contact sheet into `out` and return its first page, spot.html.

    Photographs come by their best score, the highest first, `PER_PAGE` a page; those that failed come after them, with
    the reason; those in which nothing was found are counted, and listed at the end. `facts` stand on the first page, as
    they are. `pictures` are the photographs by name (`photographs.gather`): what `marks.save_pictures` has not yet
    drawn of an answer is drawn from there, and one that cannot be read keeps its place, without pictures.

    Pages of an earlier sheet in `out` are replaced. SpecialSamError in one line where they cannot be written.
    """
    cards: list[Card] = []
    failures: list[tuple[str, str]] = []
    blank: list[str] = []
    for answer in answers:
        file = printable(answer.file)
        if answer.error:
            failures.append((file, printable(answer.error)))
        elif answer.objects:
            cards.append(_card(answer, out, pictures.get(answer.file)))
        else:
            blank.append(file)
    cards.sort(key=lambda card: -card.best)
    pages = _pages(cards, failures)
    common = {
        "title": printable(title),
        "facts": {printable(name): printable(value) for name, value in facts.items()},
        "pages": [page.name for page in pages],
        "counts": {"found": len(cards), "failed": len(failures), "blank": len(blank)},
        "first_failure": next((page.name for page in pages if page.failures), ""),
        "objects": sum(card.count for card in cards),
    }
    template = _environment().get_template("spot.html.j2")
    for number, page in enumerate(pages, 1):
        last = number == len(pages)
        text = template.render(common, page=page, number=number, blank=blank if last else ())
        write_page(text, out / page.name)
    _remove_others(out, {page.name for page in pages})
    return out / pages[0].name


@cache
def _environment() -> Environment:
    """The report's templates' way of printing, escaping and styling, for the templates here."""
    made = environment().overlay(loader=PackageLoader("specialsam.apps"))
    made.filters["score2"] = lambda value: f"{value:.2f}"
    return made


def _card(answer: Answer, out: Path, photograph: Path | None) -> Card:
    pictures = pictures_of(answer)
    scores = [confidence(found.score) for found in answer.objects]
    return Card(
        printable(answer.file),
        max(scores),
        len(scores),
        tuple(enumerate(scores[: len(pictures.crops)], 1)),
        pictures,
        printable(answer.taken),
        _place(answer.latitude, answer.longitude),
        "" if (out / pictures.thumbnail).is_file() else _draw(answer, out, photograph),
    )


def _draw(answer: Answer, out: Path, photograph: Path | None) -> str:
    """Draw the pictures of an answer; why it could not be done, "" where it was."""
    if photograph is None:
        return "the photograph is not at hand"
    try:
        save_pictures(read_image(photograph), answer, out)
    except DataError as error:
        return reason_for(photograph, error)
    return ""


def _place(latitude: float | None, longitude: float | None) -> str:
    """Coordinates as people write them, five decimals (a metre); "" where they are not known."""
    if latitude is None or longitude is None:
        return ""
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"{abs(latitude):.5f}\N{DEGREE SIGN} {north}, {abs(longitude):.5f}\N{DEGREE SIGN} {east}"


def _pages(cards: Sequence[Card], failures: Sequence[tuple[str, str]]) -> list[_Page]:
    """Cards and then failures shared out to pages; one page at least."""
    pages = []
    for number, start in enumerate(range(0, max(1, len(cards) + len(failures)), PER_PAGE), 1):
        before = max(0, start - len(cards)), max(0, start + PER_PAGE - len(cards))
        name = f"spot-{number}.html" if number > 1 else "spot.html"
        pages.append(_Page(name, cards[start : start + PER_PAGE], start + 1, failures[slice(*before)]))
    return pages


def _remove_others(out: Path, kept: set[str]) -> None:
    """Remove pages that an earlier, longer sheet has left."""
    for path in out.glob("spot-*.html"):
        if re.fullmatch(r"spot-\d+\.html", path.name) and path.name not in kept:
            path.unlink(missing_ok=True)


def write_csv(answers: Iterable[Answer], path: Path) -> None:
    """Write a table of `COLUMNS` that spreadsheets open: a line an object, one for a file without objects.

    UTF-8 with a byte order mark; a text that a spreadsheet would run as a formula begins with an apostrophe.
    SpecialSamError in one line where it cannot be written.
    """

    def fill(beside: Path) -> None:
        with beside.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
            writer.writerow(COLUMNS)
            for answer in answers:
                writer.writerows([_cell(row.get(name, "")) for name in COLUMNS] for row in _rows(answer))

    write_whole(path, fill)


def _rows(answer: Answer) -> Iterator[dict[str, Any]]:
    height, width = answer.size or ("", "")
    place = {"latitude": answer.latitude, "longitude": answer.longitude}
    common = {"file": answer.file, "taken": answer.taken, "width": width, "height": height, **place}
    if not answer.objects:
        yield {**common, "error": answer.error}
    for number, found in enumerate(answer.objects, 1):
        area = _area(found)
        tall, wide = found.rle["size"]
        yield {
            **common,
            **dict(zip(("x0", "y0", "x1", "y1"), found.box, strict=True)),
            "object": number,
            "score": confidence(found.score),
            "label": found.label,
            "area_px": area,
            "area_share": round(area / max(1, tall * wide), 8),
            "error": answer.error,
        }


def _area(found: FoundObject) -> int:
    """Pixels of a mask, counted in its runs."""
    from pycocotools import mask as coco

    counts = found.rle["counts"]
    return sum(counts[1::2]) if isinstance(counts, list) else int(coco.area(found.rle))


def _cell(value: object) -> object:
    """Numbers as they are, nothing for None, texts in one line that no spreadsheet runs."""
    if value is None or isinstance(value, int | float):
        return "" if value is None else value
    text = printable(str(value))
    return f"'{text}" if _FORMULA.match(text) else text
