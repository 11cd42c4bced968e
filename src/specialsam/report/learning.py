"""The learning curve of the advice: what pilot runs gained, the curve through them, and how far it reaches."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from specialsam.core.errors import DataError
from specialsam.report.facts import rows_of
from specialsam.report.numbers import count, score
from specialsam.report.pages import LearningCurve
from specialsam.report.palette import LIGHT, SIZE, band, blank, column, label, legend


def learning_figure(curve: LearningCurve) -> Figure:
    """Pilots with their intervals, the fitted curve with its band, marks at now, at twice that and at the wished gain.

    DataError where neither a pilot nor the curve has a finite gain.
    """
    pilots, fitted = rows_of(curve.pilots), rows_of(curve.fitted)
    gains, lows, highs = (column(pilots, name, 100) for name in ("gain", "low", "high"))
    line = column(fitted, "gain", 100)
    if not (np.isfinite(gains).any() or np.isfinite(line).any()):
        raise DataError("expected the gain of a pilot run to draw, got none")
    figure, (axis,) = blank(7.6, 3.6)
    axis.axhline(0, color=LIGHT["muted"], linewidth=0.9)
    if np.isfinite(line).any():
        low, high = column(fitted, "low", 100), column(fitted, "high", 100)
        band(axis, column(fitted, "n"), line, low, high, LIGHT["tuned"], "fitted curve", "")
    if np.isfinite(gains).any():
        errors = np.nan_to_num(np.stack([gains - lows, highs - gains])).clip(0)
        axis.errorbar(
            column(pilots, "n"), gains, errors, fmt="o", color=LIGHT["ink"], ecolor=LIGHT["ink"],
            markersize=5, elinewidth=1.2, capsize=2, label="pilot runs",
        )  # fmt: skip
    if math.isfinite(curve.wished):
        wished = f"wished gain ({score(curve.wished, sign=True)})"
        axis.axhline(100 * curve.wished, color=LIGHT["worse"], linewidth=1.2, linestyle=":", label=wished)
    axis.set_xlim(0, 2.12 * max(curve.now, 1))
    for n, text in ((curve.now, f"now: {count(curve.now)}"), (2 * curve.now, f"twice: {count(2 * curve.now)}")):
        axis.axvline(n, color=LIGHT["muted"], linewidth=1, linestyle=(0, (4, 3)))
        axis.text(
            n - 0.01 * max(curve.now, 1), 0.99, text, color=LIGHT["muted"],
            transform=axis.get_xaxis_transform(), ha="right", va="top", fontsize=SIZE,
        )  # fmt: skip
    if math.isfinite(curve.needed) and math.isfinite(curve.wished) and curve.needed <= 2.12 * curve.now:
        axis.plot(
            [curve.needed], [100 * curve.wished], marker="D", markersize=5.5, linestyle="none", color=LIGHT["worse"],
            label=f"reached with {count(curve.needed)}", zorder=4,
        )  # fmt: skip
    axis.xaxis.set_major_formatter(lambda value, _: count(value))
    axis.margins(y=0.16)
    label(axis, "training images", "gain in IoU over the base (percent points)")
    legend(figure, axis)
    return figure


def needed_sentence(curve: LearningCurve) -> str:
    """How many training images the wished gain needs, "" where no gain was wished for."""
    if not math.isfinite(curve.wished):
        return ""
    wish = f"a gain of {score(curve.wished)} percent points"
    if not math.isfinite(curve.needed):
        return f"The curve does not say how many images {wish} would need: it does not reach it, or nothing was fitted."
    ends = [end for end in (curve.needed_low, curve.needed_high) if not math.isnan(end)]
    limits = (
        f" (95 % interval {' to '.join('more' if math.isinf(e) else count(e) for e in ends)})" if len(ends) == 2 else ""
    )
    more = curve.needed - curve.now
    tail = f"{count(more)} more than there are" if more > 0 else "which are there already"
    far = (
        " This lies beyond twice the images that there are, where no curve can be trusted." if more > curve.now else ""
    )
    return f"By the curve {wish} needs about {count(curve.needed)} training images{limits}, {tail}.{far}"
