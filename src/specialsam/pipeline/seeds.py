"""The main job several times, with another training seed each, on the same split and prompts: is the gain luck?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from specialsam.core.console import say
from specialsam.core.errors import UsageError
from specialsam.evaluation.results import Results, save_table
from specialsam.evaluation.seeds import across_seeds
from specialsam.pipeline.evidence import BASE, SPECIALIST
from specialsam.pipeline.job import Request
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.pipeline.specialize import run_specialize


@dataclass(frozen=True)
class Repeated:
    """`table` of `across_seeds`, also in `seeds.csv`; each run's own report is in `folder/seed-N`."""

    folder: Path
    table: pd.DataFrame


def run_seeds(request: Request, settings: SpecializeSettings, seeds: int) -> Repeated | None:
    """Run (or go on with) `seeds` runs that differ in `train.seed` alone, and combine images and seeds in one table.

    Each run has a folder of its own in the request's; None in every process but the main one.
    """
    if seeds < 2:
        raise UsageError(f"expected at least 2 seeds to compare, got {seeds}")
    frames: dict[int, pd.DataFrame] = {}
    folder, shared = request.folder, request.embeddings
    for number in range(seeds):
        seed = settings.train.seed + number
        own = settings.model_copy(update={"train": settings.train.model_copy(update={"seed": seed})})
        say(f"-- training seed {seed} ({number + 1} of {seeds})")
        outcome = run_specialize(replace(request, folder=folder / f"seed-{seed}", store=shared), own)
        if outcome is not None:
            results = Results.read(outcome.folder / "results.parquet")
            frames[seed] = results.only(model=(BASE, SPECIALIST)).frame
    if not frames:
        return None
    table = across_seeds(frames, BASE, SPECIALIST, metrics=("iou",))
    save_table(table, folder / "seeds.csv")
    return Repeated(folder, table)


def seeds_text(table: pd.DataFrame) -> str:
    """The single mask's gains as plain text: interval over images and seeds, spread between seeds."""
    lines = [f"{'prompt':16}{'gain':>8}  {'95 % over images and seeds':30}{'between seeds':>16}{'seeds':>7}{'n':>6}"]
    for row in table[table.output == "single"].to_dict("records"):
        interval = f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
        spread = f"{100 * row['lowest']:+.1f} to {100 * row['highest']:+.1f}"
        lines.append(
            f"{row['strategy']:16}{100 * row['gain']:+8.1f}  {interval:30}{spread:>16}{row['seeds']:>7}{row['n']:>6}"
        )
    return "\n".join(lines)
