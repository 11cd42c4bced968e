"""All figures of a page by name, each drawn or replaced by the sentence that says why not; on a page or as files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from specialsam.core.errors import DataError
from specialsam.core.files import write_whole
from specialsam.report.curves import training_figure
from specialsam.report.difficulty import by_factor, difficulty_figure, left_out
from specialsam.report.facts import Comparison, DataFacts, Guard, Report, Rows, rows_of
from specialsam.report.figures import (
    MOST_CATEGORIES,
    categories_figure,
    categories_of,
    gains_figure,
    models_figure,
    pairs_figure,
    pairs_of,
    sizes_figure,
)
from specialsam.report.guard import guard_figure, guard_sentence
from specialsam.report.learning import learning_figure, needed_sentence
from specialsam.report.numbers import count, metric_name, number, score, words
from specialsam.report.pages import AdvicePage
from specialsam.report.pictures import strip
from specialsam.report.prompting import (
    calibration_errors,
    clicks_figure,
    levels_of,
    reliability_figure,
    robustness_figure,
    single_levels,
)
from specialsam.report.protocol import by_protocol
from specialsam.report.verdict import verdict_of

if TYPE_CHECKING:
    import pandas as pd

DPI = 160
COMPRESSED = 1
"""zlib's effort, of 9: most of the time that a picture takes to be written would be its compression."""

_Facts = TypeVar("_Facts")
_Draw = Callable[[Report, Rows], "Plate"]


@dataclass(frozen=True)
class Plate:
    """A figure with its caption and its text for who cannot see it; `figure` None: `caption` says what is missing."""

    caption: str
    alt: str = ""
    figure: Figure | None = None


Drawn = tuple[dict[str, Plate], dict[str, tuple[Plate, ...]]]
"""What `plates` and `further_plates` give."""


def plates(report: Report) -> dict[str, Plate]:
    """The report's figures: models, pairs, gains, training, categories, sizes; each always there, drawn or excused."""
    return {
        "models": _plate(_models, report, "No figure of the models: the summary is missing or holds neither of them."),
        "pairs": _plate(_pairs, report, "No figure of single results: the paired values were not given."),
        "gains": _plate(_gains, report, "No histogram of gains: the paired values were not given."),
        "training": _plate(_training, report, "No training curves: no trained epoch was given."),
        "categories": _plate(_categories, report, "No gains by category: the data names none, or they were not given."),
        "sizes": sizes_plate(report.data),
    }


def further_plates(report: Report) -> dict[str, tuple[Plate, ...]]:
    """Figures of the parts that a report may leave out; each protocol has its own, none where the part is missing."""
    guard = (
        () if report.guard is None else (_plate(_guard, report.guard, "No figure of the mixtures: no gain measured."),)
    )
    return {
        "guard": guard,
        "promptability": _each(report, report.promptability, _promptability, "No figure of worse prompts: no results."),
        "clicks": _each(report, report.clicks, _clicks, "No curve over clicks: nothing was measured."),
        "reliability": _each(report, report.reliability, _reliability, "No reliability diagram: no bin holds a mask."),
        "difficulty": _each(report, report.difficulty, _difficulty, "No figure of difficulty: no group has a gain."),
    }


def learning_plate(page: AdvicePage) -> Plate:
    """The advice's learning curve."""
    return _plate(_learning, page, "No learning curve: no pilot run was measured.")


def sizes_plate(data: DataFacts | None) -> Plate:
    """The distribution of object sizes."""
    return _plate(_sizes, data, "No distribution of object sizes: no object was measured.")


def drawn_once(report: Report) -> Drawn:
    """All plates of a report, to be shown on its page and saved as files."""
    return plates(report), further_plates(report)


def save_figures(report: Report, folder: Path, drawn: Drawn | None = None) -> tuple[Path, ...]:
    """Write every figure that can be drawn, and every side-by-side row, as PNG into `folder`; the paths, in order."""
    first, further = drawn or drawn_once(report)
    named = list(first.items())
    for name, several in further.items():
        named += [(f"{name}-{index}" if index > 1 else name, plate) for index, plate in enumerate(several, 1)]
    return (*save_plates(named, folder), *save_sides(report.comparisons, folder))


def save_plates(named: Iterable[tuple[str, Plate]], folder: Path) -> tuple[Path, ...]:
    """Write each figure that could be drawn as `folder/<name>.png`; the paths, in order."""
    paths = []
    for name, plate in named:
        if plate.figure is not None:
            write_whole(
                folder / f"{name}.png",
                partial(plate.figure.savefig, dpi=DPI, format="png", pil_kwargs={"compress_level": COMPRESSED}),
            )
            paths.append(folder / f"{name}.png")
    return tuple(paths)


def save_sides(comparisons: Sequence[Comparison], folder: Path, tuned: str = "Specialist") -> tuple[Path, ...]:
    """Write each comparison's row of pictures as PNG into `folder`; the paths, in order."""
    paths = []
    for index, comparison in enumerate(comparisons, 1):
        safe = re.sub(r"[^A-Za-z0-9_-]+", "-", comparison.record).strip("-")[-60:]
        picture = Image.fromarray(strip(comparison, tuned=tuned))
        path = folder / f"side-by-side-{index:02d}-{safe}.png"
        write_whole(path, partial(picture.save, format="png", compress_level=COMPRESSED))
        paths.append(path)
    return tuple(paths)


def _plate(draw: Callable[[_Facts], Plate], facts: _Facts, missing: str) -> Plate:
    try:
        return draw(facts)
    except DataError:
        return Plate(missing)


def _each(report: Report, frame: pd.DataFrame | None, draw: _Draw, missing: str) -> tuple[Plate, ...]:
    """One figure a protocol, its words in the caption where there are several; none for a missing or an empty table."""
    protocols = by_protocol(rows_of(frame))
    out = []
    for words_, rows in protocols:
        plate = _plate(lambda own: draw(report, own), rows, missing)
        said = f"{words_}. " if len(protocols) > 1 else ""
        out.append(replace(plate, caption=said + plate.caption))
    return tuple(out)


def _models(report: Report) -> Plate:
    verdict = verdict_of(report)
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
    rows = categories_of(report)
    caption = f"Mean gain in {metric_name(report.main_metric)} for each category, best first; lines are 95 % intervals."
    protocols = by_protocol(rows_of(report.by_category), rows[0])
    if len(protocols) > 1:
        caption += f" {protocols[0][0]}; what was measured otherwise is in the table only."
    if len(rows) > MOST_CATEGORIES:
        caption += f" The {MOST_CATEGORIES // 2} best and the {MOST_CATEGORIES // 2} worst of {len(rows)} are drawn."
    best = max(rows, key=lambda row: number(row["gain"]))
    return Plate(caption, f"Gains of {len(rows)} categories; the largest is {words(best['category'])}.", figure)


def _sizes(data: DataFacts | None) -> Plate:
    areas = np.zeros(0) if data is None else np.asarray(data.areas, np.float64).ravel()
    figure = sizes_figure(areas)
    used = areas[np.isfinite(areas) & (areas > 0)]
    caption = f"Sizes of {count(len(used))} objects, as share of their image's area."
    if len(used) < len(areas):
        caption += f" {len(areas) - len(used)} without a positive size are not drawn."
    return Plate(caption, f"Histogram of object sizes, median {100 * np.median(used):.2g} % of the image.", figure)


def _guard(guard: Guard) -> Plate:
    caption = (
        "Each mixture of base and tuned weights: IoU gained on validation, and what general images lose; shaded: 95 %."
    )
    return Plate(
        caption, f"Gain and loss over the share of tuned weights. {guard_sentence(guard)}", guard_figure(guard)
    )


def _promptability(report: Report, rows: Rows) -> Plate:
    said = single_levels(report, rows)
    drawn, _ = levels_of(rows)
    if not drawn and said:
        return Plate(" ".join(said))
    figure = robustness_figure(report, rows)
    axes = ", ".join(dict.fromkeys(words(str(row["axis"])) for row in drawn))
    caption = (
        "Mean IoU as the prompt gets worse; shaded: 95 % intervals. A flat line may mean that the prompt is ignored."
    )
    alt = f"Lines of mean IoU for base and specialist over {axes}."
    return Plate(" ".join((caption, *said)), alt, figure)


def _clicks(report: Report, rows: Rows) -> Plate:
    figure = clicks_figure(report, rows)
    caption = "Mean IoU after each click, every further one placed in the largest error; shaded: 95 % intervals."
    return Plate(caption, "Lines of mean IoU for base and specialist over the number of clicks.", figure)


def _reliability(report: Report, rows: Rows) -> Plate:
    figure = reliability_figure(report, rows)
    errors = calibration_errors(report, rows)
    said = ", ".join(f"{model} {score(error)}" for model, error in errors.items())
    caption = (
        f"IoU that the model predicts for its own mask, and IoU reached. Expected calibration error: {said} points."
    )
    return Plate(caption, f"Reliability diagram of predicted IoU. Expected calibration error: {said} points.", figure)


def _difficulty(report: Report, rows: Rows) -> Plate:
    figure = difficulty_figure(rows)
    factors = ", ".join(factor for factor, _ in by_factor(rows))
    caption = "Mean gain of each group of images; lines are 95 % intervals, those that touch zero are grey."
    if left_out(rows):
        caption += (
            f" {count(left_out(rows))} groups between the best and the worst, or without a gain, are in the table only."
        )
    return Plate(caption, f"Gains by {factors}.", figure)


def _learning(page: AdvicePage) -> Plate:
    if page.curve is None:
        raise DataError("expected a learning curve, got none")
    figure = learning_figure(page.curve)
    caption = "Gain of short pilot runs over the base on images that no pilot learned from, with 95 % intervals."
    if page.curve.fitted is not None:
        caption += " Shaded: the band of the fitted curve. Right of the second dashed line nothing is claimed."
    alt = f"Learning curve with {count(len(page.curve.pilots))} pilot runs. {needed_sentence(page.curve)}"
    return Plate(caption, alt.strip(), figure)
