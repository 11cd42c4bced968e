"""The page of the sim-to-real meter: real and synthetic defects side by side, how far apart they are, what helps."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, ImageArray
from specialsam.core.machine import machine, versions
from specialsam.core.randomness import generator
from specialsam.data.loading import load_image_only
from specialsam.report.facts import RunFacts
from specialsam.report.gallery import Plate, save_plates
from specialsam.report.numbers import brief, interval, score, words
from specialsam.report.page import environment, figured, prompt_note, write_page
from specialsam.report.palette import LIGHT, SIZE, blank, label
from specialsam.studies.carpet.meter import Realism, doubts, headline, limits, ranks, two
from specialsam.studies.carpet.realism import ALL, TOO_FEW, Answer, Question, Values
from specialsam.studies.carpet.realism_data import Seen
from specialsam.studies.carpet.transfer import BLIND, Gain
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
            groups=_groups(found),
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
    kinds, halves, clean = found.kinds, found.answer("real halves"), found.answer("clean")
    if not kinds or halves is None or clean is None or clean.low <= halves.high:
        return "weak"
    return "use" if kinds[0].auc <= halves.high else "unclear"


def _groups(found: Realism) -> list[tuple[str, list[Answer]]]:
    """(title, answers): kinds, then anchors, as the table shows them."""
    titles: dict[Question, str] = {
        "kind": "Synthetic against real",
        "real type": "Anchor: one real type against the others",
        "real halves": "Anchor: real against real",
        "clean": "Anchor: no defect against real",
    }
    out = []
    for question, title in titles.items():
        own = [one for one in found.answers if one.question == question]
        own.sort(key=lambda one: (one.name == ALL, 2.0 if math.isnan(one.auc) else one.auc))
        out.append((title, own))
    return out


def _separability_plate(found: Realism) -> Plate:
    """AUC of each kind with its interval, the anchors below in another colour, the spread of real halves as a band."""
    anchors = [one for one in found.answers if one.question in ("real type", "clean")]
    kinds = [one for one in found.answers if one.question == "kind" and one.name == ALL]
    rows = [one for one in (*found.kinds, *kinds, *anchors) if one.note != TOO_FEW]
    if not rows:
        return Plate("No figure of separability: there are too few real defects.")
    figure, (axis,) = blank(7.6, 1.0 + 0.28 * len(rows))
    halves = found.answer("real halves")
    if halves is not None:
        axis.axvspan(halves.low, halves.high, color=LIGHT["line"], linewidth=0)
    axis.axvline(0.5, color=LIGHT["muted"], linewidth=0.9)
    for spot, one in enumerate(rows):
        colour = LIGHT["tuned"] if one.question == "kind" else LIGHT["base"]
        error = np.array([[one.auc - one.low], [one.high - one.auc]]).clip(0)
        axis.errorbar(one.auc, spot, xerr=error, fmt="o", color=colour, ecolor=colour, markersize=5)
    axis.set_yticks(range(len(rows)), [_named(one) for one in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(min(0.3, min(one.low for one in rows) - 0.02), 1.02)
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", color=LIGHT["line"], linewidth=0.7)
    label(axis, "AUC, told from real defects (0.5: not at all, 1: always)")
    caption = (
        "How well each kind is told from all real defects (blue), with 95 % intervals; grey dots are anchors, the grey "
        "band is what random halves of the real defects do by chance."
    )
    said = "; ".join(f"{_named(one)} {two(one.auc)} {limits(one)}" for one in rows)
    return Plate(caption, f"AUC: {said}.", figure)


def _named(answer: Answer) -> str:
    if answer.question == "real type":
        return f"{words(answer.name)} against other real types"
    return "bare ground" if answer.question == "clean" else "all kinds" if answer.name == ALL else words(answer.name)


def _types_plate(found: Realism) -> Plate:
    """AUC of each kind against each real type as a matrix."""
    cells = {(one.name, one.against): one for one in found.answers if one.question == "kind and type"}
    types = list(dict.fromkeys(against for _, against in cells))
    names = [one.name for one in found.kinds]
    if not names or not types:
        return Plate("No matrix of kinds and types: there are too few real defects.")
    values = np.array([[cells[name, kind].auc for kind in types] for name in names], np.float64)
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
    names, types, cells = _gains(found)
    values = np.array([[100 * cells[name, kind].gain for kind in types] for name in names], np.float64)
    texts = [[score(cells[name, kind].gain, sign=True) + _mark(cells[name, kind]) for kind in types] for name in names]
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


def _mark(gain: Gain) -> str:
    return "*" if gain.low > 0 or gain.high < 0 else ""


def _gains(found: Realism) -> tuple[list[str], list[str], dict[tuple[str, str], Gain]]:
    """Rows (kinds by gain, then all together and the blind decoder), columns (types, then all), and cells."""
    assert found.transfer is not None
    cells = {(one.trained_on, one.type): one for one in found.transfer}
    names = list(dict.fromkeys(name for name, _ in cells))
    names.sort(key=lambda name: (name == BLIND, name == ALL, -cells[name, ALL].gain))
    return names, list(dict.fromkeys(kind for _, kind in cells)), cells


@dataclass(frozen=True)
class _GainTable:
    """The matrix, printed: (type, pictures, base) a column, (kind, (gain, interval) a type) a row."""

    heads: list[tuple[str, int, str]]
    rows: list[tuple[str, list[tuple[str, str]]]]


def _gain_table(found: Realism) -> _GainTable:
    names, types, cells = _gains(found)
    rows = []
    for name in names:
        own = [cells[name, kind] for kind in types]
        told = [(score(one.gain, sign=True), interval(one.low, one.high, sign=True)) for one in own]
        rows.append((_row_name(name), told))
    first = [cells[names[0], kind] for kind in types]
    return _GainTable([(_column_name(one.type), one.n, score(one.base)) for one in first], rows)


def matrix_figure(
    values: Values,
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
            axis.text(
                x + 0.5, y + 0.5, texts[y][x], color=LIGHT_TEXT if dark else DARK_TEXT,
                ha="center", va="center", fontsize=SIZE - 0.5,
            )  # fmt: skip
    axis.set_xticks(np.arange(len(columns)) + 0.5, [brief(name, 22) for name in columns])
    axis.set_yticks(np.arange(len(rows)) + 0.5, [brief(name) for name in rows])
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
