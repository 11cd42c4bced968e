"""All figures of a report by name, each drawn or replaced by the sentence that says why not; on a page or as files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from specialsam.core.errors import DataError
from specialsam.core.files import write_whole
from specialsam.report.curves import training_figure
from specialsam.report.facts import Report, rows_of
from specialsam.report.figures import (
    MOST_CATEGORIES,
    categories_figure,
    gains_figure,
    models_figure,
    pairs_figure,
    pairs_of,
    sizes_figure,
)
from specialsam.report.numbers import count, metric_name, words
from specialsam.report.pictures import strip
from specialsam.report.verdict import judge

DPI = 160


@dataclass(frozen=True)
class Plate:
    """A figure with its caption and its text for who cannot see it; `figure` None: `caption` says what is missing."""

    caption: str
    alt: str = ""
    figure: Figure | None = None


def plates(report: Report) -> dict[str, Plate]:
    """The report's figures: models, pairs, gains, training, categories, sizes; each always there, drawn or excused."""
    return {
        "models": _plate(_models, report, "No figure of the models: the summary is missing or holds neither of them."),
        "pairs": _plate(_pairs, report, "No figure of single results: the paired values were not given."),
        "gains": _plate(_gains, report, "No histogram of gains: the paired values were not given."),
        "training": _plate(_training, report, "No training curves: no trained epoch was given."),
        "categories": _plate(_categories, report, "No gains by category: the data names none, or they were not given."),
        "sizes": _plate(_sizes, report, "No distribution of object sizes: no object was measured."),
    }


def save_figures(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write every figure that can be drawn, and every side-by-side row, as PNG into `folder`; the paths, in order."""
    paths = []
    for name, plate in plates(report).items():
        if plate.figure is not None:
            figure = plate.figure
            write_whole(folder / f"{name}.png", lambda beside, figure=figure: figure.savefig(beside, dpi=DPI))  # type: ignore[misc]
            paths.append(folder / f"{name}.png")
    for index, comparison in enumerate(report.comparisons, 1):
        safe = re.sub(r"[^A-Za-z0-9_-]+", "-", comparison.record).strip("-")[-60:]
        picture = Image.fromarray(strip(comparison))
        path = folder / f"side-by-side-{index:02d}-{safe}.png"
        write_whole(path, lambda beside, picture=picture: picture.save(beside))  # type: ignore[misc]
        paths.append(path)
    return tuple(paths)


def _plate(draw: Callable[[Report], Plate], report: Report, missing: str) -> Plate:
    try:
        return draw(report)
    except DataError:
        return Plate(missing)


def _models(report: Report) -> Plate:
    verdict = judge(report)
    alt = "Bars of base, specialist and trivial rivals for each kind of prompt, with 95 % intervals."
    if verdict.gain:
        alt += f" With {verdict.strategy}: base {verdict.base}, specialist {verdict.tuned}."
    caption = "Mean over the test images for each kind of prompt; thin lines are 95 % bootstrap intervals."
    return Plate(caption, alt, models_figure(report))


def _pairs(report: Report) -> Plate:
    figure = pairs_figure(report)
    base, tuned = pairs_of(report)
    up = int((tuned >= base).sum())
    caption = f"One point for each {report.pair_unit}; above the dashed diagonal the specialist gained."
    if len(base) < len(rows_of(report.pairs)):
        caption += f" {len(rows_of(report.pairs)) - len(base)} without a value on both sides are not drawn."
    alt = f"Scatter of base against specialist: {up} of {len(base)} {report.pair_unit}s on or above the diagonal."
    return Plate(caption, alt, figure)


def _gains(report: Report) -> Plate:
    figure = gains_figure(report)
    base, tuned = pairs_of(report)
    median = float(np.median(tuned - base))
    caption = f"How the gain spreads over the {count(len(base))} {report.pair_unit}s."
    return Plate(caption, f"Histogram of gains, median {median:.1f} percent points.", figure)


def _training(report: Report) -> Plate:
    if report.history is None:
        raise DataError("expected a training history, got none")
    history = report.history
    figure = training_figure(history)
    kept = {0: "the untouched base", None: "not told"}.get(history.best_epoch, f"epoch {history.best_epoch}")
    caption = "Dashed: the untouched base. Ring: the epoch that was kept. Triangle: a warning."
    return Plate(caption, f"Loss and validation IoU over {len(history.trained)} epochs; kept: {kept}.", figure)


def _categories(report: Report) -> Plate:
    figure = categories_figure(report)
    rows = rows_of(report.by_category)
    caption = f"Mean gain in {metric_name(report.main_metric)} for each category, best first; lines are 95 % intervals."
    if len(rows) > MOST_CATEGORIES:
        caption += f" The {MOST_CATEGORIES // 2} best and the {MOST_CATEGORIES // 2} worst of {len(rows)} are drawn."
    best = max(rows, key=lambda row: np.nan_to_num(row["gain"], nan=-np.inf))
    return Plate(caption, f"Gains of {len(rows)} categories; the largest is {words(best['category'])}.", figure)


def _sizes(report: Report) -> Plate:
    areas = np.zeros(0) if report.data is None else np.asarray(report.data.areas, np.float64).ravel()
    figure = sizes_figure(areas)
    used = areas[np.isfinite(areas) & (areas > 0)]
    caption = f"Sizes of {count(len(used))} objects, as share of their image's area."
    if len(used) < len(areas):
        caption += f" {len(areas) - len(used)} without a positive size are not drawn."
    return Plate(caption, f"Histogram of object sizes, median {100 * np.median(used):.2g} % of the image.", figure)
