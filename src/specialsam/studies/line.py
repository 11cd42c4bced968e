"""A finished study as one line beside others: whose it is, how it was trained, and the scores of its headline."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

from specialsam.core.errors import UsageError
from specialsam.report.numbers import count, trend
from specialsam.studies.published import published
from specialsam.studies.run import read_study

SUCCESS = 0.10
"""Sure gain in IoU from which a run is called a success: between the published 6.75 (modest) and 18.83 points."""


@dataclass(frozen=True)
class StudyLine:
    """One finished study as a line of the summary, called by its folder's name; scores are those of its headline.

    `samples` are training images with their views, `mix` weighs the losses by name, `losses` has a value an epoch,
    `link` leads from the page to the study's own one.
    """

    experiment: str
    title: str
    study: str
    model: str
    parameters: int
    images: int
    objects: int
    samples: int
    test: str
    base: float
    base_low: float
    base_high: float
    tuned: float
    tuned_low: float
    tuned_high: float
    gain: float
    low: float
    high: float
    n: int
    doubts: Sequence[str]
    mix: Mapping[str, float]
    losses: tuple[float, ...]
    best_epoch: int
    folder: str
    link: str

    @property
    def samples_note(self) -> str:
        return f"{count(self.images)} images"

    @property
    def outcome(self) -> str:
        return outcome(self.gain, self.low, self.high)

    @property
    def published(self) -> float | None:
        return published(self.study).headline.change

    @property
    def published_model(self) -> str:
        return published(self.study).model

    @property
    def loss(self) -> str:
        return " + ".join(f"{weight:g} {name}" for name, weight in self.mix.items())

    @property
    def first_loss(self) -> float:
        return self.losses[0] if self.losses else math.nan

    @property
    def final_loss(self) -> float:
        return self.losses[-1] if self.losses else math.nan

    @property
    def largest_fall(self) -> float:
        """Of the loss from one epoch to the next, as a share; 0 where it never falls."""
        return -min([0.0, *self._steps])

    @property
    def largest_rise(self) -> float:
        return max([0.0, *self._steps])

    @property
    def _steps(self) -> list[float]:
        return [(after - before) / before for before, after in pairwise(self.losses) if before > 0]


def read_line(folder: Path, out: Path) -> StudyLine:
    """The finished study in `folder`, linked from a page in `out`; UsageError where it is not finished."""
    stored = read_study(folder)
    if "finished" not in stored:
        raise UsageError(f"expected a finished study in {folder}, got one that stopped; run its command again")
    facts, recipe = stored["finished"], stored["recipe"]
    main, train = facts["headline"], facts["train"]
    return StudyLine(
        experiment=folder.resolve().name,
        title=recipe["title"],
        study=recipe["study"],
        model=facts["model"],
        parameters=facts["parameters"],
        images=train["images"],
        objects=train["objects"],
        samples=train["views"],
        test=f"{main['what']}, n = {main['n']}",
        **{name: main[name] for name in ("base", "base_low", "base_high", "tuned", "tuned_low", "tuned_high")},
        **{name: main[name] for name in ("gain", "low", "high", "n")},
        doubts=facts.get("doubts", []),
        mix=facts["loss"],
        losses=tuple(math.nan if loss is None else float(loss) for loss in facts["losses"]),
        best_epoch=facts["best_epoch"],
        folder=str(folder),
        link=quote(os.fsencode(Path(os.path.relpath(folder / "study.html", out)).as_posix())),
    )


def outcome(gain: float, low: float, high: float) -> str:
    """failed, no change shown, modest or success, by the interval of the gain; "not known" without one."""
    found = trend(low, high)
    if found == "up":
        return "success" if gain >= SUCCESS else "modest"
    return {"down": "failed", "flat": "no change shown"}.get(found, "not known")
