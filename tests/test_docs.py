"""The documentation's claims that can be checked: messages stand in the code, pages in the navigation."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def texts() -> str:
    """Every text of the code, placeholders as …, one a line."""
    found: list[str] = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_every_message_that_is_explained_is_one_of_the_code() -> None:
    page, code = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8"), texts()
    told = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(told) > 25
    assert [message for message in told if message not in code] == []


def test_every_page_is_in_the_navigation() -> None:
    def pages(nav: object) -> set[str]:
        if isinstance(nav, str):
            return {nav}
        below = nav.values() if isinstance(nav, dict) else nav
        return set().union(*(pages(one) for one in below))  # type: ignore[union-attr]

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert pages(nav) == {path.name for path in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_command_that_is_shown_exists(page: Path) -> None:
    from typer.main import get_command

    from specialsam.cli import app

    known = get_command(app).commands  # type: ignore[attr-defined]
    shown = set(re.findall(r"(?:^|`)specialsam ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert shown - set(known) == set()
