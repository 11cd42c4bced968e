"""A pre-training as a picture: validation IoU, training loss and learning rate over the images seen, stage by stage.

A stage is the folder of one `training.pretrain` run: `log.jsonl` for the lines, `state.pt` for the settings. A run that
was killed and resumed may have logged a step twice; the last line of a step counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from specialsam.core.documents import parse_json
from specialsam.core.errors import DataError
from specialsam.report.facts import Rows, TableRow
from specialsam.report.numbers import brief, number
from specialsam.report.palette import LIGHT, SIZE, Values, blank, column, label, legend

SCORES: Mapping[str, tuple[str, str, str, str]] = {
    "box_single": ("box", LIGHT["tuned"], "o", "-"),
    "click_oracle": ("click, best of three by the truth", LIGHT["rival"], "^", "-"),
    "click_single": ("click, single mask", LIGHT["worse"], "s", "-"),
    "click_best": ("click, best of three by own score", LIGHT["base"], "D", "--"),
}
"""Name, colour, mark and line of each score that pre-training validates, the highest first."""


@dataclass(frozen=True)
class Stage:
    """One stage: its name, the side of its images in pixels, the images of a step, the step that it began at.

    `training` and `validation` are the log's lines by rising step, those of the validation flat: step and scores.
    """

    name: str
    side: int
    batch: int
    first: int
    training: tuple[TableRow, ...]
    validation: tuple[TableRow, ...]

    @property
    def images(self) -> int:
        """Images that the stage has seen up to its last logged step."""
        last = max(number(row["step"]) for row in (*self.training, *self.validation))
        return (int(last) - self.first) * self.batch


def read_stage(folder: Path) -> Stage:
    """The stage in a run folder of `specialsam pretrain`; DataError where its log or its state says nothing."""
    log, state = folder / "log.jsonl", folder / "state.pt"
    if not log.is_file():
        raise DataError(f"expected a folder that `specialsam pretrain` wrote, got {folder} without log.jsonl")
    training: dict[int, TableRow] = {}
    validation: dict[int, TableRow] = {}
    for index, line in enumerate(log.read_text().splitlines(), 1):
        step, row = _row(line, f"{log}, line {index}")
        scores = row.get("validation")
        if isinstance(scores, dict):
            validation[step] = {"step": step, **scores}
        else:
            training[step] = row
    if not training and not validation:
        raise DataError(f"expected at least one line in {log}, got none: the first comes after 50 steps")
    side, batch, start = _settings(state)
    return Stage(
        folder.name,
        side,
        batch,
        start,
        tuple(training[step] for step in sorted(training)),
        tuple(validation[step] for step in sorted(validation)),
    )


def _row(line: str, place: str) -> tuple[int, TableRow]:
    """One line of the log, a JSON object with a step: the step, and all of it."""
    try:
        row = parse_json(line)
    except ValueError as error:
        raise DataError(f"expected JSON at {place}, got {line[:60]!r}; remove the line") from error
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise DataError(f"expected a JSON object with a step at {place}, got {line[:60]!r}; remove the line")
    return row["step"], row


def _settings(path: Path) -> tuple[int, int, int]:
    """(side, batch, first step) of the settings that a run saved with its weights, which stay on the disk."""
    import torch

    if not path.is_file():
        raise DataError(f"expected the state beside the log for its settings, got no {path}; wait for the first save")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        settings = json.loads(state["settings"])
        return int(settings["side"]), int(settings["batch"]), int(settings.get("start", 0))
    except Exception as error:  # torch raises errors of many kinds for a damaged file
        raise DataError(f"expected the state of a pre-training run in {path}, got an unreadable file") from error


def pretraining_figure(stages: Sequence[Stage]) -> Figure:
    """Validation IoU, training loss and learning rate over images seen, all stages in a row.

    Lines end with their stage: scores and losses of different sides or settings cannot be compared. DataError without
    a stage.
    """
    if not stages:
        raise DataError("expected at least one stage of a pre-training to draw, got none")
    figure, (scores, losses, rates) = blank(7.6, 6.4, 3)
    spans, before = [], 0
    for stage in stages:
        _draw(stage, before, scores, losses, rates)
        spans.append((before, before + stage.images))
        before += stage.images
    for axis in (scores, losses, rates):
        axis.set_xlim(0, 1.02 * before / 1000)
        for _, last in spans[:-1]:
            axis.axvline(last / 1000, color=LIGHT["muted"], linewidth=0.9, linestyle=(0, (4, 3)))
        if axis is not rates:
            axis.tick_params(labelbottom=False)
    for stage, (first, last) in zip(stages, spans, strict=True):
        name = brief(stage.name, 24)
        text = f"{name}, {stage.side} px" if last - first > 0.12 * before else f"{name},\n{stage.side} px"
        scores.text(
            (first + last) / 2000, 1.0, text, transform=scores.get_xaxis_transform(), ha="center", va="bottom",
            fontsize=SIZE - 0.5, color=LIGHT["muted"],
        )  # fmt: skip
    rates.set_ylim(bottom=0)
    label(scores, "", "validation IoU (%)")
    label(losses, "", "training loss")
    label(rates, "images seen (thousands)", "learning rate")
    rates.ticklabel_format(axis="y", style="plain")
    legend(figure, scores, 2)
    return figure


def _draw(stage: Stage, before: int, scores: Axes, losses: Axes, rates: Axes) -> None:
    """The lines of one stage, `before` images after the beginning; each name is in the legend once."""
    for key, (name, colour, mark, line) in SCORES.items():
        named = name if name not in scores.get_legend_handles_labels()[1] else "_"
        scores.plot(
            _seen(stage, stage.validation, before), column(stage.validation, key, 100), color=colour, linewidth=1.6,
            linestyle=line, marker=mark, markersize=4, label=named,
        )  # fmt: skip
    seen = _seen(stage, stage.training, before)
    losses.plot(seen, column(stage.training, "loss"), color=LIGHT["base"], linewidth=1.6)
    rates.plot(seen, column(stage.training, "lr"), color=LIGHT["ink"], linewidth=1.6)


def _seen(stage: Stage, rows: Rows, before: int) -> Values:
    """Thousands of images at each line, float64 (n,)."""
    return np.asarray((before + (column(rows, "step") - stage.first) * stage.batch) / 1000, np.float64)
