"""What the pages beside the report are made of: the advice before tuning, and the audit of a data set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.findings import Factor, Finding
from specialsam.core.geometry import BoolArray, ImageArray
from specialsam.report.facts import (
    BASELINE_COLUMNS,
    PILOT_COLUMNS,
    Advice,
    Comparison,
    DataFacts,
    RunFacts,
    need,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LearningCurve:
    """Gain in IoU over the base against the number of training images; gains are fractions 0..1.

    `pilots` has a line a pilot run, `fitted` the fitted curve with its band in rising `n` (to twice `now`, the images
    that there are); both have the columns n, gain, low, high, and `fitted` None means that nothing could be fitted.
    `wished` is the gain that would make specialising worth it. `needed` is the number of training images at which the
    curve reaches it, with its interval; NaN where it does not, or where it is not known. `says` is the forecast in one
    sentence.
    """

    pilots: pd.DataFrame
    now: int
    fitted: pd.DataFrame | None = None
    wished: float = math.nan
    needed: float = math.nan
    needed_low: float = math.nan
    needed_high: float = math.nan
    says: str = ""

    def __post_init__(self) -> None:
        need("pilots", self.pilots, PILOT_COLUMNS)
        need("fitted", self.fitted, PILOT_COLUMNS)


@dataclass(frozen=True)
class AdvicePage:
    """The page that says, before tuning, whether specialising is worth it; all after `advice` may be missing.

    `run.seconds` is the time of each step. `baseline` is a summary table (model, strategy, output, metric, mean, low,
    high, n): `base_model` in the outputs "single", "three_best" and "three_oracle", rules that look at no pixel as
    output "rival", the decoder tuned blind as output "blind". `comparisons` show the base beside the largest pilot.
    `commands` are (what it does, the command line) to run next.
    """

    run: RunFacts
    advice: Advice
    curve: LearningCurve | None = None
    factors: tuple[Factor, ...] = ()
    baseline: pd.DataFrame | None = None
    findings: tuple[Finding, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    commands: tuple[tuple[str, str], ...] = ()
    data: DataFacts | None = None
    protocol: tuple[str, ...] = ()
    base_model: str = "base"
    prompt_source: str = "truth"

    def __post_init__(self) -> None:
        need("baseline", self.baseline, BASELINE_COLUMNS)


@dataclass(frozen=True)
class Suspect:
    """A picture that a check calls in question: `image` uint8 (H, W, 3), its `mask` bool (H, W), and why it is here."""

    image: ImageArray
    mask: BoolArray | None
    caption: str

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise DataError(f"{self.caption}: expected a uint8 (H, W, 3) image, got {self.image.shape}")
        if self.mask is not None and (self.mask.shape != self.image.shape[:2] or self.mask.dtype != np.bool_):
            size = self.image.shape[:2]
            raise DataError(f"{self.caption}: expected a bool {size} mask, got {self.mask.dtype} {self.mask.shape}")


@dataclass(frozen=True)
class AuditPage:
    """What a look at the data alone says: the findings, the facts, and pictures of suspects where there are any."""

    run: RunFacts
    findings: tuple[Finding, ...]
    data: DataFacts | None = None
    suspects: tuple[Suspect, ...] = ()
