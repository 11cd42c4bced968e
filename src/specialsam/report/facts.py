"""What a report is made of: plain frozen facts that the pipeline fills in and `report.html` shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from specialsam.core.errors import DataError
from specialsam.core.findings import Finding
from specialsam.core.geometry import BoolArray, FloatArray, ImageArray
from specialsam.core.types import Problem
from specialsam.report.numbers import number

if TYPE_CHECKING:
    import pandas as pd

Decision = Literal["go", "no-go", "unsure"]
Kind = Literal["best gain", "median gain", "worst gain", "failure"]
TableRow = Mapping[str, object]
"""A line of a table: what stands in each column. `report.numbers.number` makes a float of it."""
Rows = Sequence[TableRow]

DECISIONS: tuple[Decision, ...] = ("go", "no-go", "unsure")
SUMMARY_COLUMNS = ("model", "strategy", "output", "metric", "mean", "low", "high", "n", "failed")
COMPARISON_COLUMNS = (
    *("strategy", "output", "metric", "base", "tuned", "gain", "low", "high"),
    *("p_wilcoxon", "p_holm", "wins", "losses", "ties", "n"),
)
CATEGORY_COLUMNS = ("category", "n", "base", "tuned", "gain", "low", "high")
PAIR_COLUMNS = ("base", "tuned")
GUARD_COLUMNS = ("alpha", "gain", "gain_low", "gain_high", "drop", "drop_low", "drop_high")
PROBE_COLUMNS = ("probe", "model", "mean", "low", "high", "n")
PROMPTABILITY_COLUMNS = ("model", "axis", "value", "mean", "low", "high", "n")
CLICK_COLUMNS = ("model", "click", "mean", "low", "high", "n")
NOC_COLUMNS = ("model", "noc85", "noc90", "failures", "n")
RELIABILITY_COLUMNS = ("model", "predicted", "actual", "n")
DIFFICULTY_COLUMNS = ("factor", "bin", "n", "base", "tuned", "gain", "low", "high")
FOUND_COLUMNS = ("model", "metric", "mean", "low", "high", "n", "failed")
BASELINE_COLUMNS = SUMMARY_COLUMNS[:-1]
PILOT_COLUMNS = ("n", "gain", "low", "high")
"""Columns that each table needs; every table may have those of `report.protocol.PLACE` too, and further ones."""


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
    machine: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
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
    areas: npt.NDArray[np.floating] = field(default_factory=lambda: np.zeros(0))
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class History:
    """Training, epoch by epoch: dictionaries of epoch, train_loss, val_loss, val_iou, lr, grad_norm, seconds, warnings.

    A value that was not measured may be absent, None or NaN. Epoch 0, if there, is the untouched model; `base_val_iou`
    (0..1), its validation IoU, is taken from there when NaN. `best_epoch` is the epoch that was kept (0: the base).
    """

    epochs: tuple[TableRow, ...]
    base_val_iou: float = math.nan
    best_epoch: int | None = None
    stop_reason: str = ""

    @property
    def trained(self) -> tuple[TableRow, ...]:
        """The epochs in which something was trained: all but epoch 0."""
        return tuple(epoch for epoch in self.epochs if epoch.get("epoch") != 0)

    @property
    def base_iou(self) -> float:
        """Validation IoU of the untouched model, 0..1, or NaN."""
        if math.isfinite(self.base_val_iou):
            return self.base_val_iou
        first = next((epoch.get("val_iou") for epoch in self.epochs if epoch.get("epoch") == 0), None)
        return number(first)


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
class Advice:
    """What was advised before anything was tuned: the decision, one headline, and reasons in plain sentences."""

    decision: Decision
    headline: str
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.decision not in DECISIONS:
            raise DataError(f"report: expected a decision of {', '.join(DECISIONS)}, got {self.decision!r}")


@dataclass(frozen=True)
class Guard:
    """Mixtures of base (alpha 0) and tuned weights (alpha 1), and the one that was handed on.

    `table` has a line an alpha (`GUARD_COLUMNS`): gain in IoU on validation and drop in IoU on general images, both as
    fractions with intervals; a drop that was not measured is None or NaN. `says` is the guard's own sentence,
    `allowed_drop` what may be lost elsewhere, as a fraction.
    """

    table: pd.DataFrame
    chosen: float
    says: str = ""
    allowed_drop: float = math.nan

    def __post_init__(self) -> None:
        need("guard", self.table, GUARD_COLUMNS)
        if not len(self.table):
            raise DataError("report: expected a guard's table with at least one mixture, got an empty one")


SEARCH_COLUMNS = ("trial", "state", "worth", "val_iou", "lost", "seconds")


@dataclass(frozen=True)
class Search:
    """What a search of training settings found: its own sentence, a line a trial, the best first, and what mattered.

    `trials` has `SEARCH_COLUMNS` and a column a setting; `importance` are shares that sum to 1.
    """

    says: str
    trials: pd.DataFrame
    importance: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        need("search", self.trials, SEARCH_COLUMNS)


@dataclass(frozen=True)
class Report:
    """Everything that one page shows; each part but `run` may be missing.

    `summary` and `comparison` are the tables of `evaluation.tables`; `by_category` is per category and about
    `main_metric` (columns: `SUMMARY_COLUMNS` and its neighbours; more are allowed). `pairs` has one row a `pair_unit`
    ("image", "object") with its `base` and `tuned` value of `main_metric`, strategy `main_strategy`, output "single".
    `leads` (`evaluation.tables.leads`) is the specialist against each rival and the base's best of three masks, image
    by image.
    `base_model` and `tuned_model` are the names in the summary's column model, and in those of the other tables.
    `main_strategy` "" takes the first of the comparison. `prompt_source` is "truth" when the prompts were derived from
    the ground truth.

    `findings` are the checks that were made. `probes` is what the models answer when image or prompt is taken away or
    exchanged, `promptability` how they bear worse prompts (a curve an axis), `clicks` IoU after each click, `noc` mean
    number of clicks to an IoU of 0.85 and 0.90 with the objects that never came to 0.90 (`failures`), `reliability`
    bins of predicted IoU with the mean IoU that was reached, `difficulty` gains by bin of a factor such as size, with
    `losses`, sentences that say where the specialist loses (None: they are made of the intervals), `found` what was
    found without a prompt (`evaluation.found_tables`). All scores are fractions 0..1. Models may be called "base" and
    "tuned" in these tables too. The page leaves out what is missing or
    empty.
    """

    run: RunFacts
    data: DataFacts | None = None
    summary: pd.DataFrame | None = None
    comparison: pd.DataFrame | None = None
    by_category: pd.DataFrame | None = None
    pairs: pd.DataFrame | None = None
    leads: pd.DataFrame | None = None
    history: History | None = None
    comparisons: tuple[Comparison, ...] = ()
    protocol: tuple[str, ...] = ()
    base_model: str = "base"
    tuned_model: str = "specialist"
    main_metric: str = "iou"
    main_strategy: str = ""
    prompt_source: str = "truth"
    pair_unit: str = "image"
    findings: tuple[Finding, ...] = ()
    guard: Guard | None = None
    search: Search | None = None
    probes: pd.DataFrame | None = None
    promptability: pd.DataFrame | None = None
    clicks: pd.DataFrame | None = None
    noc: pd.DataFrame | None = None
    reliability: pd.DataFrame | None = None
    difficulty: pd.DataFrame | None = None
    losses: tuple[str, ...] | None = None
    found: pd.DataFrame | None = None
    advice: Advice | None = None

    def __post_init__(self) -> None:
        for name, columns in (
            ("summary", SUMMARY_COLUMNS),
            ("comparison", COMPARISON_COLUMNS),
            ("by_category", CATEGORY_COLUMNS),
            ("pairs", PAIR_COLUMNS),
            ("probes", PROBE_COLUMNS),
            ("promptability", PROMPTABILITY_COLUMNS),
            ("clicks", CLICK_COLUMNS),
            ("noc", NOC_COLUMNS),
            ("reliability", RELIABILITY_COLUMNS),
            ("difficulty", DIFFICULTY_COLUMNS),
            ("found", FOUND_COLUMNS),
        ):
            need(name, getattr(self, name), columns)


def need(name: str, frame: pd.DataFrame | None, columns: tuple[str, ...]) -> None:
    """DataError in one line where a table that is there and not empty lacks a column."""
    missing = [] if frame is None or not len(frame) else [c for c in columns if c not in frame.columns]
    if missing:
        raise DataError(f"report: the {name} table needs columns {', '.join(columns)}; missing {missing}")


def rows_of(frame: pd.DataFrame | None) -> list[TableRow]:
    """Rows of a table as plain dictionaries, in order; none for a missing or an empty table."""
    if frame is None or not len(frame):
        return []
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]
