"""Reads a page back: its tags, its sections, its tables, and whether every tag is closed."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from typing import Any


class Reader(HTMLParser):
    """Collects tags with their attributes, and checks that every opened tag is closed in order."""

    VOID = frozenset({"meta", "img", "br", "link", "use", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def sections(text: str) -> list[str]:
    """Names of the page's sections, in order."""
    return re.findall(r'<section[^>]*aria-label="([^"]+)"', text)


def section(text: str, name: str) -> str:
    """One section as markup."""
    found = re.search(rf'<section[^>]*aria-label="{re.escape(name)}".*?</section>', text, flags=re.DOTALL)
    assert found, f"no section {name}"
    return found.group()


def plain(markup: str) -> str:
    """What stands on the page: markup without tags, figures and styles, blanks made single."""
    bare = re.sub(r"<(svg|style)\b.*?</\1>|<[^>]+>", " ", markup, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(bare)).strip()


def cells(markup: str) -> list[list[str]]:
    """Lines of all tables of the markup as texts, cell by cell."""
    lines = re.findall(r"<tr\b.*?</tr>", markup, flags=re.DOTALL)
    return [[plain(cell) for cell in re.findall(r"<t[hd]\b.*?</t[hd]>", line, flags=re.DOTALL)] for line in lines]
