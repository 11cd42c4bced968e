"""The page of an audit: what the checks say of a data set, its facts, and pictures of what they call in question."""

from __future__ import annotations

from pathlib import Path

from specialsam.core.findings import worst
from specialsam.report.gallery import sizes_plate
from specialsam.report.page import Shown, checked, environment, figured, problem_kinds, shown, write_page
from specialsam.report.pages import AuditPage, Suspect
from specialsam.report.pictures import data_uris, marked

HEADLINES = {
    "pass": "Nothing was found that speaks against training on this data.",
    "warn": "Usable, but read the warnings first.",
    "fail": "Do not train on this data before what failed is mended.",
    "none": "No check was made.",
}


def write_audit(page: AuditPage, path: Path) -> None:
    """Write the page to `path`, whole or not at all. SpecialSamError in one line when it cannot be written."""
    write_page(render_audit(page), path)


def render_audit(page: AuditPage) -> str:
    """The whole page as text."""
    level = worst(page.findings) if page.findings else "none"
    return (
        environment()
        .get_template("audit.html.j2")
        .render(
            run=page.run,
            data=page.data,
            level=level,
            headline=HEADLINES[level],
            checks=checked(page.findings),
            suspects=suspects(page.suspects),
            sizes=figured("sizes", sizes_plate(page.data)),
            problem_kinds=problem_kinds(page.data),
        )
    )


def suspects(given: tuple[Suspect, ...]) -> list[Shown]:
    """The pictures with their masks outlined, as many as the page's size allows."""
    images = [marked(suspect.image, suspect.mask) for suspect in given]
    uris = data_uris(images)
    return [
        shown(suspect.caption, "", f"Picture in question: {suspect.caption}", image, uri)
        for suspect, image, uri in zip(given, images, uris, strict=True)
    ]
