"""Metrics as pure functions from a prediction and a truth to numbers, and the registry of their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from specialsam.core.errors import UsageError
from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.metrics.boundaries import boundary, boundary_canny
from specialsam.metrics.camouflage import THRESHOLD, cod, cod_dataset
from specialsam.metrics.overlaps import mae, overlap

Group = Literal["overlap", "boundary", "canny", "cod"]
GROUPS: tuple[Group, ...] = ("overlap", "boundary", "canny", "cod")

CANNY_TOLERANCE = 5
"""Tolerance of the original study's boundary metric in pixels, whatever the tolerance of the exact one."""


@dataclass(frozen=True)
class Metric:
    """A metric's title in tables, whether higher is better, and the group it is computed with; all are in 0..1."""

    title: str
    higher_is_better: bool
    group: Group

    @property
    def worst(self) -> float:
        """The value of an image that failed."""
        return 0.0 if self.higher_is_better else 1.0


METRICS: dict[str, Metric] = {
    "iou": Metric("IoU", True, "overlap"),
    "dice": Metric("Dice", True, "overlap"),
    "precision": Metric("Precision", True, "overlap"),
    "recall": Metric("Recall", True, "overlap"),
    "f1": Metric("F1", True, "overlap"),
    "boundary_precision": Metric("Boundary precision", True, "boundary"),
    "boundary_recall": Metric("Boundary recall", True, "boundary"),
    "boundary_f1": Metric("Boundary F1", True, "boundary"),
    "canny_precision": Metric("Boundary precision (Canny)", True, "canny"),
    "canny_recall": Metric("Boundary recall (Canny)", True, "canny"),
    "canny_f1": Metric("Boundary F1 (Canny)", True, "canny"),
    "s_measure": Metric("S-measure", True, "cod"),
    "e_mean": Metric("E-measure (mean)", True, "cod"),
    "e_max": Metric("E-measure (max)", True, "cod"),
    "e_adaptive": Metric("E-measure (adaptive)", True, "cod"),
    "weighted_f": Metric("Weighted F", True, "cod"),
    "mae": Metric("MAE", False, "cod"),
}


def check_groups(groups: tuple[str, ...]) -> None:
    """Raise UsageError unless every group is known."""
    unknown = [group for group in groups if group not in GROUPS]
    if unknown or not groups:
        raise UsageError(f"expected metric groups of {', '.join(GROUPS)}, got {', '.join(unknown) or 'none'}")


def score(
    probability: FloatArray,
    truth: BoolArray,
    groups: tuple[str, ...] = ("overlap",),
    tolerance: float = 5,
    mask: BoolArray | None = None,
) -> dict[str, float]:
    """All metrics of the groups for one object: probabilities float32 (H, W) in 0..1 against its bool (H, W) truth.

    `tolerance` in pixels is that of the group "boundary"; "canny" keeps its own 5. `mask` bool (H, W) is the
    thresholded prediction where the caller has it already; without, it is probability > 0.5, which is logits > 0.
    """
    check_groups(groups)
    binary = np.asarray(probability > THRESHOLD, np.bool_) if mask is None else mask
    values: dict[str, float] = {}
    if "overlap" in groups:
        values |= overlap(binary, truth)
    if "boundary" in groups:
        values |= boundary(binary, truth, tolerance)
    if "canny" in groups:
        values |= boundary_canny(binary, truth, CANNY_TOLERANCE)
    if "cod" in groups:
        values |= cod(probability, truth)
    return {name: values[name] for name in METRICS if name in values}


__all__ = [
    "CANNY_TOLERANCE",
    "GROUPS",
    "METRICS",
    "Group",
    "Metric",
    "boundary",
    "boundary_canny",
    "check_groups",
    "cod",
    "cod_dataset",
    "mae",
    "overlap",
    "score",
]
