"""Interactive use as a picture: IoU after each click, and how many segments have reached 85 and 90 % by then."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from specialsam.core.errors import DataError
from specialsam.evaluation.bench import GOALS, curves
from specialsam.evaluation.statistics import bootstrap_mean
from specialsam.report.palette import LIGHT, band, blank, label, legend

COLOURS = ("tuned", "worse", "rival")


def clicks_figure(rows: pd.DataFrame, most: int, seed: int = 0) -> Figure:
    """Left mean IoU over images after each of `most` clicks with its 95 % interval, right shares of the segments.

    `rows` are those of `evaluation.bench`. DataError where none is of clicks one after the other.
    """
    sets = curves(rows, most)
    if not sets:
        raise DataError("expected IoU after clicks one after the other to draw, got none")
    figure, (ious, shares) = blank(8.4, 3.4, 1, 2)
    numbers = np.arange(1, most + 1, dtype=np.float64)
    for colour, (dataset, table) in zip(COLOURS, sets.items(), strict=False):
        images = table.groupby(level="record").mean().to_numpy(np.float64)
        means = [bootstrap_mean(100 * images[:, number], seed) for number in range(most)]
        middle, low, high = (np.array([getattr(one, part) for one in means]) for part in ("mean", "low", "high"))
        band(ious, numbers, middle, low, high, LIGHT[colour], dataset)
        best = np.maximum.accumulate(table.to_numpy(np.float64), 1)
        for goal, line in zip(GOALS, ("-", "--"), strict=True):
            share = 100 * (best >= goal).mean(0)
            shares.plot(numbers, share, color=LIGHT[colour], linewidth=1.6, linestyle=line)
            shares.annotate(f"{goal:.0%}", (numbers[-1], share[-1]), (4, 0), textcoords="offset points", va="center",
                            fontsize=8, color=LIGHT[colour])  # fmt: skip
    for axis in (ious, shares):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_ylim(0, 100)
    label(ious, "clicks", "IoU (%)", "After each click")
    label(shares, "clicks", "segments (%)", "Segments at 85 % (line) or 90 % by then")
    legend(figure, ious)
    return figure
