"""The sim-to-real meter: what it found (separability, and transfer where asked for), and what that says in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from specialsam.core.console import stage
from specialsam.core.types import Dataset
from specialsam.models.segmenter import Segmenter
from specialsam.report.numbers import interval, score
from specialsam.studies.carpet.realism import ALL, TOO_FEW, Answer, Question, separability
from specialsam.studies.carpet.realism_data import Encoded, check_kinds, encode, gather, regions
from specialsam.studies.carpet.transfer import BLIND, Gain

KINDS_FOR_RANKS = 5
"""Synthetic kinds from which on it is asked whether the nearer ones also help more."""
BLURRED, APART, HABIT = 0.8, 0.8, 0.5
"""AUC that bare ground should reach at least; AUC of size alone that is named; share of the best gain, reached without
seeing, that is named."""


@dataclass(frozen=True)
class Realism:
    """What was found: `separability`, `transfer` (None: not asked for), and the pictures behind them."""

    dataset: Dataset
    model: str
    count: int
    seed: int
    encoded: Encoded
    answers: tuple[Answer, ...]
    transfer: tuple[Gain, ...] | None = None
    epochs: int = 0

    @property
    def table(self) -> pd.DataFrame:
        """The answers, a line each."""
        return pd.DataFrame(self.answers)

    @property
    def kinds(self) -> list[Answer]:
        """The synthetic kinds against all real defects, the one that is hardest to tell apart first."""
        own = [one for one in self.answers if one.question == "kind" and one.name != ALL and one.note != TOO_FEW]
        return sorted(own, key=lambda one: (one.auc, one.nearest))

    def answer(self, question: Question, name: str = "") -> Answer | None:
        """The first answer to a question (and name); None where it is not there or has too few defects."""
        for one in self.answers:
            if one.question == question and name in ("", one.name) and one.note != TOO_FEW:
                return one
        return None


def measure(
    dataset: Dataset, segmenter: Segmenter, folder: Path, kinds: Sequence[str] = (), count: int = 60, seed: int = 0
) -> Realism:
    """The meter without tuning and without a page, for whoever shows it in a page of their own (`facts`).

    Pictures and embeddings go to `folder` and are not made again; no `kinds` are all but composites. UsageError for an
    unknown kind or a count below four, DataError for data without clean pictures or with fewer than four real defects.
    """
    seen = gather(dataset, folder, check_kinds(kinds, count), count, seed)
    return told_apart(dataset, segmenter, encode(seen, segmenter, folder), count, seed)


def told_apart(dataset: Dataset, segmenter: Segmenter, encoded: Encoded, count: int, seed: int) -> Realism:
    """What the meter says of pictures that are encoded; `count` of each kind, drawn by `seed`."""
    found = regions(encoded)
    with stage("telling apart") as progress:
        answers = separability(found, seed, progress)
    return Realism(dataset, segmenter.name, count, seed, encoded, answers)


def headline(found: Realism) -> str:
    """The answer in one sentence."""
    kinds = found.kinds
    if not kinds:
        return "There are too few real defects to say how real the synthetic ones look"
    near, far = kinds[0], kinds[-1]
    says = (
        f"Of {len(kinds)} synthetic kinds {near.name} is hardest to tell from real defects (AUC {two(near.auc)} "
        f"{limits(near)})"
    )
    if len(kinds) > 1:
        says += f", {far.name} easiest ({two(far.auc)})"
    best = best_gain(found)
    if best is not None:
        gain = f"{score(best.gain, sign=True)} points {interval(best.low, best.high, sign=True)}"
        verb = "helps most" if best.low > 0 else "comes first, though no help is shown"
        says += f"; tuning on {best.trained_on} {verb} ({gain})"
    return says


def facts(found: Realism) -> tuple[tuple[str, str], ...]:
    """(name, value) in words: each kind's AUC against real defects, the hardest to tell first, and the anchors."""
    kinds = ", ".join(f"{one.name} {two(one.auc)} {limits(one)}" for one in found.kinds)
    anchors = [("random halves of the real ones", found.answer("real halves")), ("bare ground", found.answer("clean"))]
    told = ", ".join(f"{name} {two(one.auc)} {limits(one)}" for name, one in anchors if one is not None)
    return (("told from real defects (AUC)", kinds or TOO_FEW), ("for comparison (AUC)", told or TOO_FEW))


def best_gain(found: Realism) -> Gain | None:
    """The kind whose decoder gains most on all real defects; None where no transfer was measured."""
    if found.transfer is None:
        return None
    own = [one for one in found.transfer if one.type == ALL and one.trained_on not in (ALL, BLIND)]
    return max(own, key=lambda one: one.gain)


def doubts(found: Realism) -> list[str]:
    """What speaks against reading the numbers plainly, a sentence each."""
    out = []
    clean, halves = found.answer("clean"), found.answer("real halves")
    if clean is not None and clean.low < BLURRED:
        out.append(
            f"Even bare ground is told from real defects with AUC {two(clean.auc)} {limits(clean)} only: this "
            "encoder sees little of the defects, so an AUC near 0.5 is no praise."
        )
    if halves is not None and halves.high - halves.low > 0.25:
        out.append(
            f"Random halves of the {halves.n + halves.m} real defects lie between {two(halves.low)} and "
            f"{two(halves.high)} by chance: smaller differences say nothing."
        )
    sized = [one.name for one in found.kinds if one.size > APART]
    if sized:
        out.append(f"Size alone tells these from real defects (AUC above {two(APART)}): {', '.join(sized)}.")
    few = sum(one.note == TOO_FEW for one in found.answers)
    if few:
        out.append(f"{few} questions have fewer than four defects a side and are not answered.")
    best, unseeing = best_gain(found), None
    if found.transfer is not None:
        unseeing = next(one for one in found.transfer if one.trained_on == BLIND and one.type == ALL)
    if best is not None and unseeing is not None and best.gain > 0 and unseeing.gain >= HABIT * best.gain:
        out.append(
            f"A decoder tuned without seeing any image changes IoU by {score(unseeing.gain, sign=True)} points: at "
            "least half of the best gain is a habit of size and place, not a matter of how real the defects look."
        )
    return out


@dataclass(frozen=True)
class Ranks:
    """Spearman's correlation over kinds between looking real (low AUC) and helping (gain on all real defects)."""

    rho: float
    p: float
    kinds: int


def ranks(found: Realism) -> Ranks | None:
    """Whether kinds that look more real help more; None with fewer than five kinds or no transfer."""
    from scipy.stats import spearmanr

    kinds = found.kinds
    if found.transfer is None or len(kinds) < KINDS_FOR_RANKS:
        return None
    gains = {one.trained_on: one.gain for one in found.transfer if one.type == ALL}
    answer = spearmanr([-one.auc for one in kinds], [gains[one.name] for one in kinds])
    return Ranks(float(answer.statistic), float(answer.pvalue), len(kinds)) if math.isfinite(answer.statistic) else None


def terminal(found: Realism) -> str:
    """The kinds as a table for the terminal, the anchors below, and the gain of each where it was measured."""
    lines = [f"{'':<16} {'AUC':>5}  {'95 %':<14} {'size':>5} {'nearest':>8}  gain"]
    gains = {one.trained_on: one.gain for one in found.transfer or () if one.type == ALL}
    anchors = [found.answer("kind", ALL), found.answer("clean"), found.answer("real halves")]
    for one in [*found.kinds, *(anchor for anchor in anchors if anchor is not None)]:
        gain = f"{100 * gains[one.name]:+.1f}" if one.question == "kind" and one.name in gains else ""
        name = "all kinds" if one.name == ALL else one.name
        size = "" if math.isnan(one.size) else two(one.size)
        near = "" if math.isnan(one.nearest) else f"{one.nearest:.2f}x"
        lines.append(f"{name:<16} {two(one.auc):>5}  {limits(one):<14} {size:>5} {near:>8}  {gain}".rstrip())
    return "\n".join([*lines, headline(found), *doubts(found)])


def two(value: float) -> str:
    """An AUC with two decimals, a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:.2f}"


def limits(answer: Answer) -> str:
    """The interval of an answer: "[0.61, 0.78]"."""
    return f"[{two(answer.low)}, {two(answer.high)}]"
