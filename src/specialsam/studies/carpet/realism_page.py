"""The page of the sim-to-real meter: real and synthetic defects side by side, how far apart they are, what helps."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, ImageArray
from specialsam.core.randomness import generator
from specialsam.data.loading import load_image_only
from specialsam.pipeline.run import machine, versions
from specialsam.report.facts import RunFacts, rows_of
from specialsam.report.gallery import Plate, save_plates
from specialsam.report.numbers import interval, score, words
from specialsam.report.page import environment, figured, prompt_note, write_page
from specialsam.report.palette import LIGHT, SIZE, blank, column, label
from specialsam.studies.carpet.meter import Realism, doubts, headline, limits, ranks, two
from specialsam.studies.carpet.realism import ALL, TOO_FEW
from specialsam.studies.carpet.realism_data import Seen
from specialsam.studies.carpet.transfer import BLIND
from specialsam.studies.figures import pixels_of
from specialsam.studies.recipe import Sheet
from specialsam.studies.sheets import pictured, save_sheets

TILES, SIDE, NAMED = 4, 132, 112
"""Pictures of a row of the gallery, their side in pixels, and the width of its name."""
OUTLINE, PAPER, INK = (213, 94, 0), 250, (40, 40, 40)
DARK_TEXT, LIGHT_TEXT = "#111111", "#ffffff"


def write_realism(found: Realism, data: str, folder: Path) -> Path:
    """Write `realism.html` and `figures/` into `folder`; the page's path."""
    sheets = [
        _sheet(found, "real", "Real defects by type"),
        _sheet(found, "synthetic", "Synthetic defects by kind"),
    ]
    plates = {"separability": _separability_plate(found), "types": _types_plate(found)}
    if found.transfer is not None:
        plates["transfer"] = _transfer_plate(found)
    rank = ranks(found)
    page = folder / "realism.html"
    text = (
        environment()
        .get_template("realism.html.j2")
        .render(
            run=_run_facts(found, data, folder),
            level=_level(found),
            headline=headline(found),
            doubts=doubts(found),
            sheets=pictured(sheets),
            figures={name: figured(name, plate) for name, plate in plates.items()},
            lines=_lines(found),
            gains=None if found.transfer is None else _gain_table(found),
            rank=None if rank is None else f"{rank.rho:+.2f} (p = {rank.p:.2f}, {rank.kinds} kinds)",
            few=TOO_FEW,
            two=two,
            limits=limits,
            prompt_note=prompt_note("truth"),
        )
    )
    write_page(text, page)
    save_plates(plates.items(), folder / "figures")
    save_sheets(sheets, folder / "figures")
    return page


def meter_sheet(found: Realism) -> Sheet:
    """The figure of separability as a picture for another page; DataError where there are too few real defects."""
    plate = _separability_plate(found)
    if plate.figure is None:
        raise DataError(plate.caption)
    return Sheet("sim-to-real", pixels_of(plate.figure), plate.caption)


def _level(found: Realism) -> str:
    """Colour of the summary: weak where the encoder hardly sees defects, good where a kind passes for real."""
    kinds, halves, clean = found.kinds, found.line("real halves"), found.line("clean")
    if not len(kinds) or halves is None or clean is None or clean["low"] <= halves["high"]:
        return "weak"
    return "use" if kinds.iloc[0]["auc"] <= halves["high"] else "unclear"


def _lines(found: Realism) -> list[dict[str, Any]]:
    """Kinds, then anchors, as the table shows them."""
    asked = {"kind": "Synthetic against real", "real type": "Anchor: one real type against the others"}
    asked |= {"real halves": "Anchor: real against real", "clean": "Anchor: no defect against real"}
    out = []
    for question, title in asked.items():
        rows = rows_of(found.table[found.table.question == question])
        rows.sort(key=lambda row: (row["name"] == ALL, np.nan_to_num(row.get("auc", np.nan), nan=2.0)))
        out.append({"title": title, "rows": rows})
    return out


def _separability_plate(found: Realism) -> Plate:
    """AUC of each kind with its interval, the anchors below in another colour, the spread of real halves as a band."""
    anchors = [row for row in rows_of(found.table) if row["question"] in ("real type", "clean")]
    kinds = [row for row in rows_of(found.table) if row["question"] == "kind" and row["name"] == ALL]
    rows: list[dict[str, Any]] = [*rows_of(found.kinds), *kinds, *anchors]
    rows = [row for row in rows if row["note"] != TOO_FEW]
    if not rows:
        return Plate("No figure of separability: there are too few real defects.")
    figure, (axis,) = blank(7.6, 1.0 + 0.28 * len(rows))
    halves = found.line("real halves")
    if halves is not None:
        axis.axvspan(halves["low"], halves["high"], color=LIGHT["line"], linewidth=0)
    axis.axvline(0.5, color=LIGHT["muted"], linewidth=0.9)
    values, low, high = (column(rows, name) for name in ("auc", "low", "high"))
    for spot, row in enumerate(rows):
        colour = LIGHT["tuned"] if row["question"] == "kind" else LIGHT["base"]
        error = np.array([[values[spot] - low[spot]], [high[spot] - values[spot]]]).clip(0)
        axis.errorbar(values[spot], spot, xerr=error, fmt="o", color=colour, ecolor=colour, markersize=5)
    axis.set_yticks(range(len(rows)), [_named(row) for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(min(0.3, float(np.nanmin(low)) - 0.02), 1.02)
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", color=LIGHT["line"], linewidth=0.7)
    label(axis, "AUC, told from real defects (0.5: not at all, 1: always)")
    caption = (
        "How well each kind is told from all real defects (blue), with 95 % intervals; grey dots are anchors, the grey "
        "band is what random halves of the real defects do by chance."
    )
    said = "; ".join(f"{_named(row)} {two(row['auc'])} {limits(row)}" for row in rows)
    return Plate(caption, f"AUC: {said}.", figure)


def _named(row: dict[str, Any]) -> str:
    if row["question"] == "real type":
        return f"{words(row['name'])} against other real types"
    return "bare ground" if row["question"] == "clean" else "all kinds" if row["name"] == ALL else words(row["name"])


def _types_plate(found: Realism) -> Plate:
    """AUC of each kind against each real type as a matrix."""
    part = found.table[found.table.question == "kind and type"]
    types = list(dict.fromkeys(part["against"]))
    names = [*found.kinds["name"]]
    cells = {(row["name"], row["against"]): row for row in rows_of(part)}
    if not names or not types:
        return Plate("No matrix of kinds and types: there are too few real defects.")
    values = np.array([[cells[name, kind].get("auc", np.nan) for kind in types] for name in names], np.float64)
    texts = [[two(value) if np.isfinite(value) else TOO_FEW for value in row] for row in values]
    caption = (
        "AUC of each synthetic kind (rows) against each real type (columns): the paler, the more alike; below 0.5 is "
        "chance. A type has few defects, so single cells are uncertain by 0.1 to 0.2; intervals: separability.csv."
    )
    said = "; ".join(f"{name}: {', '.join(row)}" for name, row in zip(names, texts, strict=True))
    drawn = matrix_figure(
        np.maximum(values, 0.5), [words(name) for name in names], [words(kind) for kind in types], texts, 0.5, 0.5
    )
    return Plate(caption, f"AUC by kind over {', '.join(types)}: {said}.", drawn)


def _transfer_plate(found: Realism) -> Plate:
    names, types, table = _gains(found)
    values = np.array([[100 * table[name, kind]["gain"] for kind in types] for name in names], np.float64)
    texts = [
        [score(table[name, kind]["gain"], sign=True) + _mark(table[name, kind]) for kind in types] for name in names
    ]
    reach = float(max(1.0, np.nanmax(np.abs(values))))
    caption = (
        "Gain in IoU (points) by one click on each real type (columns) after tuning on one synthetic kind (rows). "
        "Purple is gained, orange lost; * marks a 95 % interval without zero, not corrected for the number of cells."
    )
    said = "; ".join(f"{name}: {', '.join(row)}" for name, row in zip(names, texts, strict=True))
    rows, columns = [_row_name(name) for name in names], [_column_name(kind) for kind in types]
    drawn = matrix_figure(values, rows, columns, texts, 0.0, reach)
    return Plate(caption, f"Gains over {', '.join(columns)}: {said}.", drawn)


def _row_name(name: str) -> str:
    return "all kinds together" if name == ALL else words(name)


def _column_name(kind: str) -> str:
    return "all real" if kind == ALL else words(kind)


def _mark(row: dict[str, Any]) -> str:
    return "*" if row["low"] > 0 or row["high"] < 0 else ""


def _gains(found: Realism) -> tuple[list[str], list[str], dict[tuple[str, str], dict[str, Any]]]:
    """Rows (kinds by gain, then all together and the blind decoder), columns (types, then all), and cells."""
    assert found.transfer is not None
    cells = {(row["trained_on"], row["type"]): row for row in rows_of(found.transfer)}
    names = list(dict.fromkeys(name for name, _ in cells))
    names.sort(key=lambda name: (name == BLIND, name == ALL, -cells[name, ALL]["gain"]))
    return names, list(dict.fromkeys(kind for _, kind in cells)), cells


def _gain_table(found: Realism) -> dict[str, Any]:
    """The matrix as a table with intervals."""
    names, types, cells = _gains(found)
    rows = [
        {
            "name": _row_name(name),
            "cells": [
                (
                    score(cells[name, kind]["gain"], sign=True),
                    interval(cells[name, kind]["low"], cells[name, kind]["high"], sign=True),
                )
                for kind in types
            ],
        }
        for name in names
    ]
    heads = [(_column_name(kind), cells[names[0], kind]["n"], score(cells[names[0], kind]["base"])) for kind in types]
    return {"heads": heads, "rows": rows}


def matrix_figure(
    values: np.ndarray[Any, np.dtype[np.float64]],
    rows: Sequence[str],
    columns: Sequence[str],
    texts: Sequence[Sequence[str]],
    middle: float,
    reach: float,
) -> Figure:
    """A matrix (R, K) as coloured cells with their texts: purple above `middle`, orange below, pale at it.

    `reach` from the middle has the full colour. Purple and orange differ for every common kind of colour blindness.
    """
    figure, (axis,) = blank(7.6, 0.9 + 0.3 * len(rows))
    colours = colormaps["PuOr"]
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            known = bool(np.isfinite(value))
            place = float(np.clip(0.5 + 0.5 * (value - middle) / reach, 0, 1)) if known else 0.5
            colour = colours(0.08 + 0.84 * place)
            axis.fill([x, x + 1, x + 1, x], [y, y, y + 1, y + 1], color=colour, linewidth=0)
            dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 0.5
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SIZE - 0.5}
            axis.text(x + 0.5, y + 0.5, texts[y][x], color=LIGHT_TEXT if dark else DARK_TEXT, **style)
    axis.set_xticks(np.arange(len(columns)) + 0.5, columns)
    axis.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axis.xaxis.tick_top()
    axis.set_xlim(0, len(columns))
    axis.set_ylim(len(rows), 0)
    axis.grid(visible=False)
    axis.spines["bottom"].set_visible(False)
    return figure


def _sheet(found: Realism, name: Literal["real", "synthetic"], caption: str) -> Sheet:
    """Windows around defects of each kind or type, their masks outlined; where types are few, they have more rows."""
    kinds = found.encoded.kinds(name)
    lines = max(1, round(len(found.encoded.kinds("synthetic")) / len(kinds)))
    rows = []
    for kind in kinds:
        of_kind = found.encoded.of(name, kind)
        order = generator(found.seed, "gallery", name, kind).permutation(len(of_kind))[: TILES * lines]
        tiles = [_window(of_kind[int(index)]) for index in sorted(order)]
        tiles += [np.full((SIDE, SIDE, 3), PAPER, np.uint8)] * (-len(tiles) % TILES)
        for start in range(0, len(tiles), TILES):
            head = np.full((SIDE, NAMED, 3), PAPER, np.uint8)
            for line, word in enumerate(words(kind).split() if not start else ()):
                cv2.putText(head, word, (4, 24 + 20 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.46, INK, 1, cv2.LINE_AA)
            rows.append(np.hstack([head, *tiles[start : start + TILES]]))
    return Sheet(f"{name}-defects", np.asarray(np.vstack(rows), np.uint8), f"{caption}; masks outlined.")


def _window(one: Seen) -> ImageArray:
    """The picture around a defect, twice its size and at least a quarter of the picture: uint8 (SIDE, SIDE, 3)."""
    image, mask = load_image_only(one.picture), one.mask()
    rows, columns = np.nonzero(mask)
    size = int(max(np.ptp(rows), np.ptp(columns)) * 1.6) + 8
    size = min(max(size, min(mask.shape) // 4), min(mask.shape))
    top = int(np.clip((rows.min() + rows.max()) // 2 - size // 2, 0, mask.shape[0] - size))
    left = int(np.clip((columns.min() + columns.max()) // 2 - size // 2, 0, mask.shape[1] - size))
    cut = slice(top, top + size), slice(left, left + size)
    method = cv2.INTER_AREA if size > SIDE else cv2.INTER_CUBIC
    small = np.asarray(cv2.resize(image[cut], (SIDE, SIDE), interpolation=method), np.uint8)
    return _outlined(small, cv2.resize(mask[cut].astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA) > 0.3)


def _outlined(image: ImageArray, mask: BoolArray) -> ImageArray:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, contours, -1, OUTLINE, 1)
    return image


def _run_facts(found: Realism, data: str, folder: Path) -> RunFacts:
    kinds = ",".join(found.encoded.kinds("synthetic"))
    command = f"specialsam study realism --data {shlex.quote(data)} --model {shlex.quote(found.model)} --kinds {kinds}"
    command += f" --count {found.count} --seed {found.seed} -o {shlex.quote(str(folder))}"
    command += " --no-transfer" if found.transfer is None else f" --epochs {found.epochs}"
    return RunFacts(
        title="How real do the synthetic defects look?",
        source=found.dataset.name,
        layout=found.dataset.layout,
        model=Path(found.model).name,
        command=command,
        date=date.today().isoformat(),
        machine=machine(),
        versions=versions(),
        seed=found.seed,
        licence=found.dataset.licence,
    )
