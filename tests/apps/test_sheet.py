"""The contact sheet and the table. Oracles: pages read back tag by tag, files that links lead to, csv's own reader."""

from __future__ import annotations

import csv
import re
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from specialsam.apps import sheet
from specialsam.apps.answers import Answer, FoundObject
from specialsam.apps.marks import save_pictures
from specialsam.apps.sheet import COLUMNS, write_csv, write_sheet
from specialsam.core.errors import SpecialSamError
from specialsam.core.masks import to_rle

VOID = frozenset({"meta", "img"})
HOSTILE = (
    "<script>alert(1)</script>.jpg",
    "\"onload='x'.jpg",
    "a\nb\x1b[2J.jpg",
    "../../etc/passwd",
    "caf\udce9.jpg",
    "{{ title }}{% if %}.jpg",
    "&lt;b&gt;.jpg",
    "javascript:alert(1)",
)


class Page(HTMLParser):
    """A page's tags with their attributes and its text; each tag must be closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def of(self, tag: str, attribute: str) -> list[str]:
        return [str(found[attribute]) for name, found in self.tags if name == tag and attribute in found]


def obj(score: float, left: int = 4) -> FoundObject:
    mask = np.zeros((40, 60), np.bool_)
    mask[10:20, left : left + 10] = True
    return FoundObject(to_rle(mask), (left, 10, left + 9, 19), score)


def answer(file: str, *scores: float) -> Answer:
    return Answer(file, (40, 60), tuple(obj(score, 4 + 3 * place) for place, score in enumerate(scores)))


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "photograph.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    return path


def files_in_order(page: Page) -> list[str]:
    """File names of the cards, as their headings say."""
    return re.findall(r"Rank [\d,]+ (\S+) best score", page.text)


def check_links(out: Path, page: Page) -> None:
    """Every address leads to a file below `out`, and to a part of it that is there."""
    for address in (*page.of("a", "href"), *page.of("img", "src")):
        name, _, part = address.partition("#")
        assert re.fullmatch(r"[A-Za-z0-9./-]*", name), address
        assert not name.startswith("/")
        assert ".." not in name
        assert (out / name).is_file() or not name
        if part:
            there = Page(out / name) if name else page
            assert part in [attributes.get("id") for _, attributes in there.tags]


def test_a_sheet_by_hand(tmp_path: Path, photograph: Path) -> None:
    out = tmp_path / "out"
    some = [
        answer("cam1/low.jpg", 0.25),
        Answer("cam1/blank.jpg", (40, 60)),
        replace(answer("cam2/high.jpg", 0.5, 0.96), taken="2026-01-31T18:00:59", latitude=-52.5, longitude=0.25),
        Answer("cam1/broken.jpg", error="the image is damaged"),
        answer("cam3/lost.jpg", 0.75),
    ]
    pictures = {one.file: photograph for one in some[:3]} | {"cam3/lost.jpg": tmp_path / "nothing.jpg"}
    first = write_sheet(iter(some), out, "A title", {"Specialist": "runs/a <b>"}, pictures)
    assert first == out / "spot.html"
    page = Page(first)
    assert files_in_order(page) == ["cam2/high.jpg", "cam3/lost.jpg", "cam1/low.jpg"]
    for words in (
        "Something was found in 3 of 5 photographs",
        "With something found3",
        "Objects found4",
        "Nothing found1",
        "Failed1",
        "Specialistruns/a <b>",
        "Taken2026-01-31 18:00:59",
        "At52.50000\N{DEGREE SIGN} S, 0.25000\N{DEGREE SIGN} E",
        "No picture: expected an image file, found nothing there",
        "cam1/broken.jpgthe image is damaged",
        "In 1 photograph nothing was sure enough",
        "cam1/blank.jpg",
    ):
        assert words in page.text.replace(" Failed", "Failed"), words
    assert page.of("img", "alt")[:3] == [
        "high.jpg: 2 objects outlined; opens the large picture",
        "Close-up of object",
        "Close-up of object",
    ]
    assert len(list((out / "thumbnails").iterdir())) == len(list((out / "marked").iterdir())) == 2
    assert len(list((out / "crops").iterdir())) == 3
    check_links(out, page)


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path, photograph: Path) -> None:
    page = Page(write_sheet([answer("a.jpg", 0.5)], tmp_path, "A", {}, {"a.jpg": photograph}))
    policy = next(found["content"] for _, found in page.tags if found.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.split("; ")[:3] == ["default-src 'none'", "img-src 'self' file:", "style-src 'unsafe-inline'"]
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base", "form"})
    assert "url(" not in (tmp_path / "spot.html").read_text(encoding="utf-8")
    assert all(found.get("alt") for tag, found in page.tags if tag == "img")
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_base_stands_beside_the_specialist(tmp_path: Path, photograph: Path) -> None:
    both = replace(answer("a.jpg", 0.5), beside=(obj(0.25),))
    page = Page(
        write_sheet([both, answer("b.jpg", 0.75)], tmp_path, "A", {}, dict.fromkeys(("a.jpg", "b.jpg"), photograph))
    )
    assert re.search(r"0\.50 Base Specialist", page.text)
    assert "a.jpg, Base: 1 object outlined; opens the large picture" in page.of("img", "alt")
    assert len(list((tmp_path / "beside").iterdir())) == 1
    check_links(tmp_path, page)


def test_pictures_already_drawn_are_kept(tmp_path: Path, photograph: Path) -> None:
    """Drawn from the image in memory, they need no photograph; of another answer, they are drawn anew."""
    one = answer("a.jpg", 0.5)
    names = save_pictures(np.zeros((40, 60, 3), np.uint8), one, tmp_path)
    before = (tmp_path / names.thumbnail).read_bytes()
    page = Page(write_sheet([one], tmp_path, "A", {}, {}))
    assert names.thumbnail in page.of("img", "src")
    assert (tmp_path / names.thumbnail).read_bytes() == before
    page = Page(write_sheet([answer("a.jpg", 0.75)], tmp_path, "A", {}, {"a.jpg": photograph}))
    assert names.thumbnail not in page.of("img", "src")
    check_links(tmp_path, page)


def test_hostile_names(tmp_path: Path, photograph: Path) -> None:
    """No name opens a tag, closes one or adds an attribute, wherever it stands; nothing is written outside."""
    out = tmp_path / "deep" / "out"
    found = [replace(answer(file, 0.5), taken=file) for file in HOSTILE]
    others = [Answer(f"1{file}", error=f"failed: {file}") for file in HOSTILE] + [
        Answer(f"2{file}") for file in HOSTILE
    ]
    pictures = dict.fromkeys(HOSTILE, photograph)
    page = Page(write_sheet(found + others, out, HOSTILE[0], dict.fromkeys(HOSTILE, HOSTILE[0]), pictures))
    plain = Page(write_sheet([answer("a.jpg", 0.5), *others[-1:]], tmp_path / "plain", "A", {}, {"a.jpg": photograph}))
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags} | {"dl", "dt", "dd", "section"}
    assert not [key for _, found in page.tags for key in found if key.startswith("on")]
    check_links(out, page)
    for shown in (
        "<script>alert(1)</script>.jpg",
        "\"onload='x'.jpg",
        "a\\nb\\x1b[2J.jpg",
        "caf\\xe9.jpg",
        "{{ title }}",
    ):
        assert page.text.count(shown) >= 4, shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "photograph.png", "plain"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([], "No photograph was looked at"),
        ([Answer("a.jpg", error="broken"), Answer("b.jpg", error="broken")], "2 photographs could not be looked at"),
        ([Answer("a.jpg", (4, 4))], "Nothing was found in 1 photograph "),
    ],
)
def test_without_a_find(tmp_path: Path, answers: list[Answer], says: str) -> None:
    page = Page(write_sheet(answers, tmp_path, "A", {}, {}))
    assert says in page.text
    assert page.of("img", "src") == []
    check_links(tmp_path, page)
    write_csv(answers, tmp_path / "a.csv")
    assert len(rows(tmp_path / "a.csv")) == len(answers)


def test_scores_that_are_none_come_last(tmp_path: Path) -> None:
    some = [answer("nan.jpg", float("nan")), answer("a.jpg", 0.25), answer("both.jpg", float("nan"), 0.5)]
    assert files_in_order(Page(write_sheet(some, tmp_path, "A", {}, {}))) == ["both.jpg", "a.jpg", "nan.jpg"]


def test_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven finds and four failures, five a page; a shorter sheet takes away its pages alone."""
    monkeypatch.setattr(sheet, "PER_PAGE", 5)
    some = [answer(f"{number}.jpg", number / 10) for number in range(1, 8)]
    some += [Answer(f"f{number}.jpg", error="broken") for number in range(4)] + [Answer("blank.jpg")]
    write_sheet(some, tmp_path, "A", {"Specialist": "one"}, {})
    pages = [Page(tmp_path / name) for name in ("spot.html", "spot-2.html", "spot-3.html")]
    assert [files_in_order(page) for page in pages] == [[f"{n}.jpg" for n in (7, 6, 5, 4, 3)], ["2.jpg", "1.jpg"], []]
    assert ["f0.jpg" in page.text for page in pages] == [False, True, False]
    assert ["f3.jpg" in page.text for page in pages] == [False, False, True]
    assert ["blank.jpg" in page.text for page in pages] == [False, False, True]
    assert ["Specialist" in page.text for page in pages] == [True, False, False]
    assert "Rank 6 2.jpg" in pages[1].text
    for number, page in enumerate(pages, 1):
        check_links(tmp_path, page)
        current = [found["href"] for tag, found in page.tags if tag == "a" and found.get("aria-current")]
        assert current == [f"spot-{number}.html" if number > 1 else "spot.html"] * 2
    (tmp_path / "spot-mine.html").write_text("mine")
    write_sheet(some[:2], tmp_path, "A", {}, {})
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["spot-mine.html", "spot.html"]


def many(number: int) -> Iterator[Answer]:
    """Answers whose masks are 100 kB of runs each, made while they are asked for."""
    for index in range(number):
        rle = {"size": [4000, 6000], "counts": f"{index:06d}" * 17_000}
        found = FoundObject(rle, (0, 0, 9, 9), (index * 7919 % number) / number)  # type: ignore[arg-type]
        yield Answer(f"cam{index % 7}/{index}.jpg", (4000, 6000), (found,) * (index % 3), taken="2026-01-31T18:00:59")


def test_a_thousand_answers_are_quick_and_flat(tmp_path: Path) -> None:
    """Masks of 100 MB in all go by; what is held stays far below. CPU seconds are generous: machines are busy."""
    write_sheet(many(3), tmp_path, "A", {}, {})  # templates are compiled once
    began = time.process_time()
    tracemalloc.start()
    try:
        write_sheet(many(1000), tmp_path, "A", {}, {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12e6
    assert time.process_time() - began < 30
    assert len(list(tmp_path.glob("spot*.html"))) == 4
    scores = [float(text) for text in re.findall(r"best score ([\d.]+)", Page(tmp_path / "spot-2.html").text)]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 200


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_by_hand(tmp_path: Path) -> None:
    found = replace(answer("cam1/a.jpg", 0.5, 0.96), taken="2026-01-31T18:00:59", latitude=-52.5, longitude=-0.25)
    plain = replace(obj(0.25), rle={"size": [40, 60], "counts": [7, 5, 2388]}, label="fox")
    write_csv([found, Answer("b.jpg", error="broken"), Answer("c.jpg", (3, 4), (plain,))], tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes().startswith(b'\xef\xbb\xbf"file",')
    table = rows(tmp_path / "a.csv")
    assert tuple(table[0]) == COLUMNS
    assert [list(row.values()) for row in table] == [
        [
            *("cam1/a.jpg", "2026-01-31T18:00:59", "-52.5", "-0.25", "60", "40", "1", "0.5", ""),
            *("4", "10", "13", "19", "100", "0.04166667", ""),
        ],
        [
            *("cam1/a.jpg", "2026-01-31T18:00:59", "-52.5", "-0.25", "60", "40", "2", "0.96", ""),
            *("7", "10", "16", "19", "100", "0.04166667", ""),
        ],
        ["b.jpg", *[""] * 14, "broken"],
        [
            *("c.jpg", "", "", "", "4", "3", "1", "0.25", "fox"),
            *("4", "10", "13", "19", "5", "0.00208333", ""),
        ],
    ]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1.jpg", "'-1.jpg"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("  =1", "'  =1"),
        ("\t=1", "\\t=1"),
        ("\N{FULLWIDTH EQUALS SIGN}1", "'\N{FULLWIDTH EQUALS SIGN}1"),
        ("a=1", "a=1"),
        ("a;=1\"',b", "a;=1\"',b"),
        ("a\r\n=1", "a\\r\\n=1"),
        ("caf\udce9", "caf\\xe9"),
        ("\u05e9\u6f22", "\u05e9\u6f22"),
    ],
)
def test_no_text_is_a_formula(tmp_path: Path, text: str, cell: str) -> None:
    """In each column of text; within quotes, so that a spreadsheet that parts at ; parts no cell in two."""
    write_csv([replace(Answer(text), taken=text, error=text)], tmp_path / "a.csv")
    (row,) = rows(tmp_path / "a.csv")
    assert [row[name] for name in ("file", "taken", "error")] == [cell] * 3
    assert len((tmp_path / "a.csv").read_bytes().splitlines()) == 2
    assert (tmp_path / "a.csv").read_text(encoding="utf-8-sig").splitlines()[1].startswith('"')


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for write in (
        lambda: write_sheet([answer("a.jpg", 0.5)], tmp_path / "file", "A", {}, {}),
        lambda: write_csv([answer("a.jpg", 0.5)], tmp_path / "file" / "a.csv"),
    ):
        with pytest.raises(SpecialSamError, match="cannot write") as caught:
            write()
        assert "\n" not in str(caught.value)


def test_half_a_table_is_none(tmp_path: Path) -> None:
    def broken() -> Iterator[Answer]:
        yield answer("a.jpg", 0.5)
        raise SpecialSamError("stopped")

    with pytest.raises(SpecialSamError, match="stopped"):
        write_csv(broken(), tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []
