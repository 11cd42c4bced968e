"""The main job several times, with another training seed each, on the same split and prompts: is the gain luck?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from specialsam.core.console import say
from specialsam.core.errors import UsageError
from specialsam.core.files import write_whole
from specialsam.evaluation.seeds import across_seeds
from specialsam.pipeline.evidence import BASE, SPECIALIST
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.pipeline.specialize import run_specialize


@dataclass(frozen=True)
class Repeated:
    """`table` of `across_seeds`, also in `seeds.csv`; each run's own report is in `folder/seed-N`."""

    folder: Path
    table: Any


def run_seeds(
    source: str,
    model: str,
    folder: Path,
    settings: SpecializeSettings,
    seeds: int,
    store: Path | None = None,
    limit: int | None = None,
    base_model: str | None = None,
) -> Repeated:
    """Run (or go on with) `seeds` runs that differ in `train.seed` alone, and combine images and seeds in one table."""
    if seeds < 2:
        raise UsageError(f"expected at least 2 seeds to compare, got {seeds}")
    frames: dict[int, pd.DataFrame] = {}
    shared = store or folder / "embeddings"
    for number in range(seeds):
        seed = settings.train.seed + number
        own = settings.model_copy(update={"train": settings.train.model_copy(update={"seed": seed})})
        say(f"-- training seed {seed} ({number + 1} of {seeds})")
        outcome = run_specialize(source, model, folder / f"seed-{seed}", own, shared, limit, base_model=base_model)
        if outcome is not None:
            rows = pd.read_parquet(outcome.folder / "results.parquet")
            frames[seed] = rows[rows.model.isin([BASE, SPECIALIST])]
    table = across_seeds(frames, BASE, SPECIALIST, metrics=("iou",))
    write_whole(folder / "seeds.csv", lambda path: table.to_csv(path, index=False))
    return Repeated(folder, table)


def seeds_text(table: Any) -> str:
    """The single mask's gains as plain text: interval over images and seeds, spread between seeds."""
    lines = [f"{'prompt':16}{'gain':>8}  {'95 % over images and seeds':30}{'between seeds':>16}{'seeds':>7}{'n':>6}"]
    return "\n".join([*lines, *(_line(row) for row in table[table.output == "single"].to_dict("records"))])


def _line(row: Mapping[Any, Any]) -> str:
    interval = f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
    spread = f"{100 * row['lowest']:+.1f} to {100 * row['highest']:+.1f}"
    return f"{row['strategy']:16}{100 * row['gain']:+8.1f}  {interval:30}{spread:>16}{row['seeds']:>7}{row['n']:>6}"
