"""Metrics as pure functions from a prediction and a truth to numbers, and the registry of their names.

`GROUPS` is that registry: a new group of metrics is one entry there, its function and the titles of its values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from specialsam.core.errors import UsageError
from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.metrics.boundaries import boundary, boundary_canny
from specialsam.metrics.camouflage import THRESHOLD, cod, cod_dataset
from specialsam.metrics.overlaps import mae, overlap

CANNY_TOLERANCE = 5
"""Tolerance of the original study's boundary metric in pixels, whatever the tolerance of the exact one."""

Measure = Callable[[FloatArray, BoolArray, BoolArray, float], Mapping[str, float]]
"""From probabilities float32 (H, W) in 0..1, the mask bool (H, W) that they make, the truth bool (H, W) and a tolerance
in pixels to values in 0..1 by name."""


@dataclass(frozen=True)
class Group:
    """Metrics that one function measures together, with their titles in tables; lower is better for those named."""

    measure: Measure
    titles: Mapping[str, str]
    lower_is_better: frozenset[str] = frozenset()


GROUPS: dict[str, Group] = {
    "overlap": Group(
        lambda soft, mask, truth, tolerance: overlap(mask, truth),
        {"iou": "IoU", "dice": "Dice", "precision": "Precision", "recall": "Recall", "f1": "F1"},
    ),
    "boundary": Group(
        lambda soft, mask, truth, tolerance: boundary(mask, truth, tolerance),
        {
            "boundary_precision": "Boundary precision",
            "boundary_recall": "Boundary recall",
            "boundary_f1": "Boundary F1",
        },
    ),
    "canny": Group(
        lambda soft, mask, truth, tolerance: boundary_canny(mask, truth, CANNY_TOLERANCE),
        {
            "canny_precision": "Boundary precision (Canny)",
            "canny_recall": "Boundary recall (Canny)",
            "canny_f1": "Boundary F1 (Canny)",
        },
    ),
    "cod": Group(
        lambda soft, mask, truth, tolerance: cod(soft, truth),
        {
            "s_measure": "S-measure",
            "e_mean": "E-measure (mean)",
            "e_max": "E-measure (max)",
            "e_adaptive": "E-measure (adaptive)",
            "weighted_f": "Weighted F",
            "mae": "MAE",
        },
        lower_is_better=frozenset({"mae"}),
    ),
}
"""Every group of metrics by name, in the order of tables."""


@dataclass(frozen=True)
class Metric:
    """A metric's title in tables, whether higher is better, and the group it is computed with; all are in 0..1."""

    title: str
    higher_is_better: bool
    group: str

    @property
    def worst(self) -> float:
        """The value of an image that failed."""
        return 0.0 if self.higher_is_better else 1.0


METRICS: dict[str, Metric] = {
    metric: Metric(title, metric not in group.lower_is_better, name)
    for name, group in GROUPS.items()
    for metric, title in group.titles.items()
}
"""Every metric of every group by name, in the order of tables."""


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
    for name, group in GROUPS.items():
        if name in groups:
            measured = group.measure(probability, binary, truth, tolerance)
            values |= {metric: measured[metric] for metric in group.titles}
    return values


__all__ = [
    "CANNY_TOLERANCE",
    "GROUPS",
    "METRICS",
    "THRESHOLD",
    "Group",
    "Measure",
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
