"""Runs of a folder: what each is, its gains, its pages. Only what the server itself listed is ever opened, no link."""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from specialsam.apps.web.catalogue import gains_of
from specialsam.apps.web.messages import Page, RunFacts
from specialsam.core.documents import parse_json
from specialsam.core.names import printable

FACTS = "run.json"
DEEP = 3
"""Folders below the folder of runs in which a run may lie."""
MOST = 300
LARGEST_FACTS, LARGEST_PAGE, LARGEST_PICTURES = 50_000_000, 100_000_000, 30_000_000
PAGES = ("report", "audit", "advice", "study", "compare", "realism", "photos", "roll", "spot", "pretraining")
"""Names of pages that our commands write, the main one first."""
JPEG = b"\xff\xd8\xff"
"""What a JPEG begins with."""
_PICTURE = re.compile(rb'src="((?:thumbnails|snapshots|crops)/[^"<>]+)"')
_LARGE = re.compile(rb' href="(?:thumbnails|snapshots|crops|marked|beside)/[^"<>]+"')
_SHEET = re.compile(rb'href="(spot(?:-\d+)?)\.html')
FURTHER = re.compile(r"spot-\d{1,5}")
"""Names of the further pages of a contact sheet, which its first one leads to."""
JOBS = {"stream": "inspect"}
"""Jobs by a name in the identity of a folder that states none of ours."""


@dataclass(frozen=True)
class Run:
    """One run's folder, by an id that follows from its place."""

    id: str
    folder: Path
    name: str

    def pages(self) -> dict[str, Path]:
        """Its pages by name."""
        found = {name: self.folder / f"{name}.html" for name in PAGES}
        return {name: path for name, path in found.items() if path.is_file() and not path.is_symlink()}


def runs_in(root: Path) -> list[Run]:
    """All runs below a folder, the newest first."""
    found = [folder for folder in _folders(root, DEEP) if _begun(folder)][:MOST]
    found.sort(key=_changed, reverse=True)
    out = []
    for folder in found:
        name = "/".join(folder.relative_to(root).parts) or root.name
        out.append(Run(hashlib.sha256(os.fsencode(name)).hexdigest()[:16], folder, printable(name)))
    return out


def page_of(root: Path, run: str, page: str) -> Path | None:
    """A page of a run by the ids that `facts` gave; None where nothing of that kind is listed."""
    known = next((one for one in runs_in(root) if one.id == run), None)
    pages = known.pages() if known else {}
    if known and "spot" in pages and FURTHER.fullmatch(page):
        pages[page] = known.folder / f"{page}.html"
    path = pages.get(page)
    return path if path is not None and path.is_file() and path.stat().st_size <= LARGEST_PAGE else None


def with_pictures(page: bytes, folder: Path) -> bytes:
    """A page with the small pictures that lie beside it written into it: a sandboxed page fetches nothing.

    Pictures that are links, or beyond LARGEST_PICTURES in all, stay away; links to the large ones go, and those to the
    further pages of a contact sheet lead to where these are served.
    """
    room = LARGEST_PICTURES

    def inside(found: re.Match[bytes]) -> bytes:
        nonlocal room
        name = unquote(html.unescape(found[1].decode("utf-8", "replace")))
        path = folder / name
        try:
            plain = not any(part.is_symlink() for part in (path, *path.parents[: len(Path(name).parts) - 1]))
            if not plain or ".." in Path(name).parts or not path.is_file() or path.stat().st_size > room:
                return found[0]
            content = path.read_bytes()
        except (OSError, ValueError):
            return found[0]
        if not content.startswith(JPEG):
            return found[0]
        room -= len(content)
        return b'src="data:image/jpeg;base64,' + base64.b64encode(content) + b'"'

    return _SHEET.sub(rb'href="\1', _LARGE.sub(b"", _PICTURE.sub(inside, page)))


def facts(run: Run, address: str) -> RunFacts:
    """What a run says of itself; `address` is where its pages are served."""
    told = _facts(run.folder)
    identity = told.get("identity", {}) if isinstance(told.get("identity"), dict) else {}
    job = next((job for name, job in JOBS.items() if name in identity), str(identity.get("job", "")))
    model = identity.get("model", told.get("model", ""))
    model = model.get("name", "") if isinstance(model, dict) else model
    source = str(identity.get("source", identity.get("stream", "")))
    return RunFacts(
        id=run.id,
        name=run.name,
        job=_text(job or next(iter(run.pages()), "")),
        model=_text(Path(str(model)).name if "/" in str(model) else model),
        source=_text(Path(source).name if "/" in source else source),
        date=_text(told.get("started", ""))[:10],
        gains=gains_of(run.folder / "comparison.csv"),
        pages=[Page(name=name, address=f"{address}/{run.id}/{name}") for name in run.pages()],
    )


def _folders(root: Path, deep: int) -> Iterator[Path]:
    """The folder and those below it, without links and hidden ones."""
    yield root
    if not deep:
        return
    try:
        inside = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in inside:
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from _folders(root / entry.name, deep - 1)


def _begun(folder: Path) -> bool:
    facts = folder / FACTS
    own = facts.is_file() and not facts.is_symlink()
    return own or bool(Run("", folder, "").pages())


def _changed(folder: Path) -> float:
    try:
        return max(
            (path.stat().st_mtime for path in [folder / FACTS, *Run("", folder, "").pages().values()]), default=0
        )
    except OSError:
        return folder.stat().st_mtime


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    try:
        if path.is_symlink() or path.stat().st_size > LARGEST_FACTS:
            return {}
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    return printable(str(value))[:200]
