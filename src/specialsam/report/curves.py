"""The training curves: loss and validation IoU on twin panels, with the base, the kept epoch and warnings marked."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from specialsam.core.errors import DataError
from specialsam.report.facts import History
from specialsam.report.numbers import number
from specialsam.report.palette import LIGHT, SIZE, blank, label


def training_figure(history: History) -> Figure:
    """Loss (training, validation) left, validation IoU right; dashed: the base, ring: kept epoch, triangle: warning.

    DataError when no epoch was trained.
    """
    if not history.trained:
        raise DataError("expected at least one trained epoch to draw, got none")
    figure, (losses, ious) = blank(7.6, 3.1, 1, 2)
    epochs = _series(history, "epoch")
    train, val, iou = _series(history, "train_loss"), _series(history, "val_loss"), 100 * _series(history, "val_iou")
    for axis, series, colour, name in (
        (losses, train, "base", "training"),
        (losses, val, "tuned", "validation"),
        (ious, iou, "tuned", "specialist"),
    ):
        if np.isfinite(series).any():
            axis.plot(epochs, series, color=LIGHT[colour], label=name, marker="o", markersize=2.8, linewidth=1.6)
    base = 100 * history.base_iou
    if np.isfinite(base):
        ious.axhline(base, color=LIGHT["base"], linewidth=1.4, linestyle=(0, (4, 3)), label=f"base ({base:.1f})")
    best = epochs == history.best_epoch
    for axis, line in ((losses, val if np.isfinite(val).any() else train), (ious, iou)):
        if best.any() and np.isfinite(line[best]).all():
            axis.scatter(
                epochs[best], line[best], 70, marker="o", facecolors="none", edgecolors=LIGHT["ink"], linewidths=1.4,
                label=f"kept: epoch {history.best_epoch}", zorder=3,
            )  # fmt: skip
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.margins(x=0.04, y=0.12)
    warned = np.array([bool(epoch.get("warnings")) for epoch in history.trained])
    if warned.any():
        for axis in (losses, ious):
            axis.scatter(
                epochs[warned], np.zeros(int(warned.sum())), 28, marker="^", color=LIGHT["worse"], clip_on=False,
                label="warning", transform=axis.get_xaxis_transform(), zorder=4,
            )  # fmt: skip
    for axis, y, title in ((losses, "loss", "Loss"), (ious, "validation IoU (%)", "Validation IoU")):
        label(axis, "epoch", y, title)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=SIZE - 0.5, labelcolor=LIGHT["ink"], loc="best")
        else:
            axis.text(0.5, 0.5, "not measured", ha="center", color=LIGHT["muted"], transform=axis.transAxes)
    return figure


def _series(history: History, name: str) -> npt.NDArray[np.float64]:
    return np.array([number(epoch.get(name)) for epoch in history.trained], np.float64)
