"""What a report is made of: plain frozen facts that the pipeline fills in and `report.html` shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, FloatArray, ImageArray
from specialsam.core.types import Problem

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["best gain", "median gain", "worst gain", "failure"]

SUMMARY_COLUMNS = ("model", "strategy", "output", "metric", "mean", "low", "high", "n", "failed")
COMPARISON_COLUMNS = (
    *("strategy", "output", "metric", "base", "tuned", "gain", "low", "high"),
    *("p_wilcoxon", "p_holm", "wins", "losses", "ties", "n"),
)
CATEGORY_COLUMNS = ("category", "n", "base", "tuned", "gain", "low", "high")
PAIR_COLUMNS = ("base", "tuned")
PLACE = ("dataset", "split", "prompt_source")
"""Further columns that a table may have; lines that differ in them are never compared."""


@dataclass(frozen=True)
class RunFacts:
    """How the run came about: enough to judge it and to repeat it.

    `seconds` holds wall-clock seconds a stage in order (embed, base evaluation, train, evaluation); `machine` names the
    parts (cpu, cores, memory, gpu); `verdict` holds further sentences for the verdict, after the report's own ones.
    """

    title: str
    source: str
    layout: str
    model: str
    command: str
    date: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    licence: str = "unknown"
    verdict: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataFacts:
    """What lay on disk and what became of it. `areas` float (N,): each object's area as a fraction 0..1 of its image.

    `splits` maps a split's name to its number of images, `categories` a category's name to images per split.
    """

    on_disk: int
    usable: int
    with_objects: int
    labelled_empty: int
    unlabelled: int
    broken: int
    problems: tuple[Problem, ...] = ()
    splits: Mapping[str, int] = field(default_factory=dict)
    categories: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    areas: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class History:
    """Training, epoch by epoch: dictionaries of epoch, train_loss, val_loss, val_iou, lr, grad_norm, seconds, warnings.

    A value that was not measured may be absent, None or NaN. Epoch 0, if there, is the untouched model; `base_val_iou`
    (0..1), its validation IoU, is taken from there when NaN. `best_epoch` is the epoch that was kept (0: the base).
    """

    epochs: tuple[Mapping[str, Any], ...]
    base_val_iou: float = math.nan
    best_epoch: int | None = None
    stop_reason: str = ""

    @property
    def trained(self) -> tuple[Mapping[str, Any], ...]:
        """The epochs in which something was trained: all but epoch 0."""
        return tuple(epoch for epoch in self.epochs if epoch.get("epoch") != 0)

    @property
    def base_iou(self) -> float:
        """Validation IoU of the untouched model, 0..1, or NaN."""
        if math.isfinite(self.base_val_iou):
            return self.base_val_iou
        first = next((epoch.get("val_iou") for epoch in self.epochs if epoch.get("epoch") == 0), None)
        return math.nan if first is None else float(first)


@dataclass(frozen=True)
class Comparison:
    """One object side by side: `image` uint8 (H, W, 3), masks bool (H, W), prompt and box in original pixels (x, y).

    `points` float32 (K, 2) with `labels` (K,) 1 foreground and 0 background; `base` or `tuned` is None when that model
    gave no answer; IoUs and `gain` are fractions 0..1.
    """

    record: str
    kind: Kind
    strategy: str
    image: ImageArray
    truth: BoolArray
    base: BoolArray | None
    tuned: BoolArray | None
    base_iou: float
    tuned_iou: float
    gain: float
    category: str = ""
    points: FloatArray | None = None
    labels: npt.NDArray[np.int64] | None = None
    box: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise DataError(f"{self.record}: expected a uint8 (H, W, 3) image, got {self.image.shape}")
        for name, mask in (("truth", self.truth), ("base", self.base), ("tuned", self.tuned)):
            if mask is not None and (mask.shape != self.image.shape[:2] or mask.dtype != np.bool_):
                size = self.image.shape[:2]
                raise DataError(f"{self.record}: expected {name} as bool {size}, got {mask.dtype} {mask.shape}")
        if self.points is not None and (self.points.ndim != 2 or self.points.shape[1] != 2):
            raise DataError(f"{self.record}: expected (K, 2) points, got {self.points.shape}")
        if self.labels is not None and (self.points is None or len(self.labels) != len(self.points)):
            raise DataError(f"{self.record}: expected one label a point, got {len(self.labels)} labels")
        if self.box is not None and self.box.shape != (4,):
            raise DataError(f"{self.record}: expected a box (4,), got {self.box.shape}")


@dataclass(frozen=True)
class Report:
    """Everything that one page shows; each part but `run` may be missing, and the page then says so.

    `summary` and `comparison` are the tables of `evaluation.tables`; `by_category` is per category and about
    `main_metric` (columns: `SUMMARY_COLUMNS` and its neighbours; more are allowed). `pairs` has one row a `pair_unit`
    ("image", "object") with its `base` and `tuned` value of `main_metric`, strategy `main_strategy`, output "single".
    `base_model` and `tuned_model` are the names in the summary's column model. `main_strategy` "" takes the first of
    the comparison. `prompt_source` is "truth" when the prompts were derived from the ground truth.
    """

    run: RunFacts
    data: DataFacts | None = None
    summary: pd.DataFrame | None = None
    comparison: pd.DataFrame | None = None
    by_category: pd.DataFrame | None = None
    pairs: pd.DataFrame | None = None
    history: History | None = None
    comparisons: tuple[Comparison, ...] = ()
    protocol: tuple[str, ...] = ()
    base_model: str = "base"
    tuned_model: str = "specialist"
    main_metric: str = "iou"
    main_strategy: str = ""
    prompt_source: str = "truth"
    pair_unit: str = "image"

    def __post_init__(self) -> None:
        for name, columns in (
            ("summary", SUMMARY_COLUMNS),
            ("comparison", COMPARISON_COLUMNS),
            ("by_category", CATEGORY_COLUMNS),
            ("pairs", PAIR_COLUMNS),
        ):
            frame = getattr(self, name)
            missing = [] if frame is None or not len(frame) else [c for c in columns if c not in frame.columns]
            if missing:
                raise DataError(f"report: the {name} table needs columns {', '.join(columns)}; missing {missing}")


def rows_of(frame: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Rows of a table as plain dictionaries, in order; none for a missing or an empty table."""
    if frame is None or not len(frame):
        return []
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def same_place(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two lines of tables speak of the same data set, split and prompt source, as far as both name them."""
    return all(one[name] == other[name] for name in PLACE if name in one and name in other)
