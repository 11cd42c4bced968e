"""The sim-to-real study from a category to its page: separability, transfer, and what the two say of each other."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from specialsam.core.errors import UsageError
from specialsam.core.files import write_whole
from specialsam.data.open import open_dataset
from specialsam.models.load import load_model
from specialsam.studies.carpet.meter import Realism, doubts, headline, measure, ranks
from specialsam.studies.carpet.realism_data import check_kinds
from specialsam.studies.carpet.realism_page import write_realism
from specialsam.studies.carpet.transfer import transfer


def run_realism(
    data: str,
    folder: Path,
    model: str = "nano",
    kinds: tuple[str, ...] = (),
    count: int = 60,
    seed: int = 0,
    epochs: int = 10,
    with_transfer: bool = True,
) -> Realism:
    """Everything, written to `folder`: realism.html, separability.csv, transfer.csv, realism.json and figures.

    The same call goes on after a kill. UsageError for unknown kinds and too small a count, DataError for data without
    clean pictures or real defects.
    """
    chosen = check_kinds(kinds, count)
    if epochs < 1:
        raise UsageError(f"expected at least 1 epoch, got {epochs}")
    dataset, segmenter = open_dataset(data), load_model(model)
    found = replace(measure(dataset, segmenter, folder, chosen, count, seed), model=model)
    write_whole(folder / "separability.csv", lambda path: found.table.to_csv(path, index=False))
    if with_transfer:
        gains = transfer(found.encoded, segmenter, folder, epochs, seed)
        write_whole(folder / "transfer.csv", lambda path: gains.to_csv(path, index=False))
        found = replace(found, transfer=gains, epochs=epochs)
    write_whole(folder / "realism.json", lambda path: path.write_text(json.dumps(plain(found), indent=1) + "\n"))
    write_realism(found, data, folder)
    return found


def plain(found: Realism) -> dict[str, Any]:
    """All that was found as JSON holds it: no NaN, None instead."""

    def lines(table: pd.DataFrame | None) -> list[dict[str, Any]] | None:
        return None if table is None else json.loads(table.to_json(orient="records"))

    rank = ranks(found)
    return {
        "dataset": found.dataset.name,
        "licence": found.dataset.licence,
        "model": found.model,
        "count": found.count,
        "seed": found.seed,
        "epochs": found.epochs,
        "headline": headline(found),
        "doubts": doubts(found),
        "ranks": None if rank is None else asdict(rank),
        "separability": lines(found.table),
        "transfer": lines(found.transfer),
    }
