"""Sheets of pictures on a page and as files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from specialsam.data.images import write_png
from specialsam.report.page import Shown, shown
from specialsam.report.pictures import data_uris
from specialsam.studies.recipe import Sheet

SHEET_BYTES = 2_500_000


def pictured(sheets: Sequence[Sheet]) -> list[Shown]:
    """Sheets as pictures of a page; those for which it has no room come without one."""
    uris = data_uris([sheet.image for sheet in sheets], SHEET_BYTES)
    return [
        shown(sheet.name, sheet.caption, sheet.caption, sheet.image, uri)
        for sheet, uri in zip(sheets, uris, strict=True)
    ]


def save_sheets(sheets: Iterable[Sheet], folder: Path) -> None:
    """Write each sheet as `folder/NAME.png`."""
    for sheet in sheets:
        write_png(folder / f"{sheet.name}.png", sheet.image)
