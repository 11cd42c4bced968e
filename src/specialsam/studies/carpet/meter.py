"""The sim-to-real meter: what it found (separability, and transfer where asked for), and what that says in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from specialsam.core.console import stage
from specialsam.core.types import Dataset
from specialsam.models.segmenter import Segmenter
from specialsam.report.facts import rows_of
from specialsam.report.numbers import interval, score
from specialsam.studies.carpet.realism import ALL, TOO_FEW, separability
from specialsam.studies.carpet.realism_data import Encoded, check_kinds, encode, gather, regions
from specialsam.studies.carpet.transfer import BLIND

KINDS_FOR_RANKS = 5
"""Synthetic kinds from which on it is asked whether the nearer ones also help more."""
BLURRED, APART, HABIT = 0.8, 0.8, 0.5
"""AUC that bare ground should reach at least; AUC of size alone that is named; share of the best gain, reached without
seeing, that is named."""


@dataclass(frozen=True)
class Realism:
    """What was found: tables of `separability` and `transfer` (None: not asked for), and the pictures behind them."""

    dataset: Dataset
    model: str
    count: int
    seed: int
    encoded: Encoded
    table: pd.DataFrame
    transfer: pd.DataFrame | None = None
    epochs: int = 0

    @property
    def kinds(self) -> pd.DataFrame:
        """Lines of the synthetic kinds against all real defects, the one that is hardest to tell apart first."""
        own = self.table[(self.table.question == "kind") & (self.table.name != ALL) & (self.table.note != TOO_FEW)]
        return own.sort_values(["auc", "nearest"], kind="stable")

    def line(self, question: str, name: str = "") -> dict[str, Any] | None:
        """The first line of a question (and name); None where it is not there or has too few defects."""
        for row in rows_of(self.table):
            if row["question"] == question and name in ("", row["name"]) and row["note"] != TOO_FEW:
                return row
        return None


def measure(
    dataset: Dataset, segmenter: Segmenter, folder: Path, kinds: Sequence[str] = (), count: int = 60, seed: int = 0
) -> Realism:
    """The meter without tuning and without a page, for whoever shows it in a page of their own (`facts`).

    Pictures and embeddings go to `folder` and are not made again; no `kinds` are all but composites. UsageError for an
    unknown kind or a count below four, DataError for data without clean pictures or with fewer than four real defects.
    """
    encoded = encode(gather(dataset, folder, check_kinds(kinds, count), count, seed), segmenter, folder)
    found = regions(encoded)
    with stage("telling apart") as progress:
        table = separability(found, seed, progress)
    return Realism(dataset, segmenter.name, count, seed, encoded, table)


def headline(found: Realism) -> str:
    """The answer in one sentence."""
    kinds = found.kinds
    if not len(kinds):
        return "There are too few real defects to say how real the synthetic ones look"
    near, far = kinds.iloc[0], kinds.iloc[-1]
    says = (
        f"Of {len(kinds)} synthetic kinds {near['name']} is hardest to tell from real defects (AUC {two(near['auc'])} "
        f"{limits(near)})"
    )
    if len(kinds) > 1:
        says += f", {far['name']} easiest ({two(far['auc'])})"
    best = best_row(found)
    if best is not None:
        gain = f"{score(best['gain'], sign=True)} points {interval(best['low'], best['high'], sign=True)}"
        verb = "helps most" if best["low"] > 0 else "comes first, though no help is shown"
        says += f"; tuning on {best['trained_on']} {verb} ({gain})"
    return says


def facts(found: Realism) -> tuple[tuple[str, str], ...]:
    """(name, value) in words: each kind's AUC against real defects, the hardest to tell first, and the anchors."""
    kinds = ", ".join(f"{row['name']} {two(row['auc'])} {limits(row)}" for row in rows_of(found.kinds))
    anchors = [("random halves of the real ones", found.line("real halves")), ("bare ground", found.line("clean"))]
    told = ", ".join(f"{name} {two(row['auc'])} {limits(row)}" for name, row in anchors if row is not None)
    return (("told from real defects (AUC)", kinds or TOO_FEW), ("for comparison (AUC)", told or TOO_FEW))


def best_row(found: Realism) -> dict[str, Any] | None:
    """The kind whose decoder gains most on all real defects; None where no transfer was measured."""
    if found.transfer is None:
        return None
    own = found.transfer[(found.transfer.type == ALL) & ~found.transfer.trained_on.isin([ALL, BLIND])]
    return max(rows_of(own), key=lambda row: row["gain"])


def doubts(found: Realism) -> list[str]:
    """What speaks against reading the numbers plainly, a sentence each."""
    out = []
    clean, halves = found.line("clean"), found.line("real halves")
    if clean is not None and clean["low"] < BLURRED:
        out.append(
            f"Even bare ground is told from real defects with AUC {two(clean['auc'])} {limits(clean)} only: this "
            "encoder sees little of the defects, so an AUC near 0.5 is no praise."
        )
    if halves is not None and halves["high"] - halves["low"] > 0.25:
        out.append(
            f"Random halves of the {halves['n'] + halves['m']} real defects lie between {two(halves['low'])} and "
            f"{two(halves['high'])} by chance: smaller differences say nothing."
        )
    sized = found.kinds[found.kinds["size"] > APART] if len(found.kinds) else found.kinds
    if len(sized):
        out.append(f"Size alone tells these from real defects (AUC above {two(APART)}): {', '.join(sized['name'])}.")
    few = found.table[found.table.note == TOO_FEW]
    if len(few):
        out.append(f"{len(few)} questions have fewer than four defects a side and are not answered.")
    best, unseeing = best_row(found), None
    if found.transfer is not None:
        unseeing = found.transfer[(found.transfer.trained_on == BLIND) & (found.transfer.type == ALL)].iloc[0]
    if best is not None and unseeing is not None and unseeing["gain"] >= HABIT * best["gain"]:
        out.append(
            f"A decoder tuned without seeing any image changes IoU by {score(unseeing['gain'], sign=True)} points: at "
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
    gains = found.transfer[found.transfer.type == ALL].set_index("trained_on")["gain"]
    answer = spearmanr(-kinds["auc"].to_numpy(), gains.loc[list(kinds["name"])].to_numpy())
    return Ranks(float(answer.statistic), float(answer.pvalue), len(kinds)) if math.isfinite(answer.statistic) else None


def terminal(found: Realism) -> str:
    """The kinds as a table for the terminal, the anchors below, and the gain of each where it was measured."""
    lines = [f"{'':<16} {'AUC':>5}  {'95 %':<14} {'size':>5} {'nearest':>8}  gain"]
    gains = {row["trained_on"]: row["gain"] for row in rows_of(found.transfer) if row["type"] == ALL}
    anchors = [found.line("kind", ALL), found.line("clean"), found.line("real halves")]
    for row in [*rows_of(found.kinds), *(row for row in anchors if row is not None)]:
        gain = f"{100 * gains[row['name']]:+.1f}" if row["question"] == "kind" and row["name"] in gains else ""
        name = "all kinds" if row["name"] == ALL else row["name"]
        size = "" if math.isnan(row["size"]) else two(row["size"])
        near = "" if math.isnan(row["nearest"]) else f"{row['nearest']:.2f}x"
        lines.append(f"{name:<16} {two(row['auc']):>5}  {limits(row):<14} {size:>5} {near:>8}  {gain}".rstrip())
    return "\n".join([*lines, headline(found), *doubts(found)])


def two(value: Any) -> str:
    """An AUC with two decimals, a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"


def limits(row: Any) -> str:
    """The interval of a line: "[0.61, 0.78]"."""
    return f"[{two(row['low'])}, {two(row['high'])}]"
