"""The sim-to-real study from a category to its page: separability, transfer, and what the two say of each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from specialsam.core.errors import UsageError
from specialsam.core.files import write_whole
from specialsam.core.ledger import Journal, Lock
from specialsam.core.place import here
from specialsam.data.open import open_dataset
from specialsam.evaluation.results import save_table
from specialsam.models.load import load_model
from specialsam.studies.carpet.meter import Realism, doubts, headline, ranks, told_apart
from specialsam.studies.carpet.realism import Answer
from specialsam.studies.carpet.realism_data import check_kinds, encode, gather
from specialsam.studies.carpet.realism_page import write_realism
from specialsam.studies.carpet.transfer import Gain, transfer
from specialsam.studies.cells import Bench


@dataclass(frozen=True)
class RealismSettings:
    """Synthetic `kinds` (none: all but composites), `count` pictures of each, and how their decoders are tuned."""

    kinds: tuple[str, ...] = ()
    count: int = 60
    seed: int = 0
    transfer: bool = True
    epochs: int = 10


def run_realism(
    data: str, folder: Path, model: str, settings: RealismSettings = RealismSettings(), device: str = "auto"
) -> Realism | None:
    """Everything, written to `folder`: realism.html, separability.csv, transfer.csv, realism.json and figures.

    The same call goes on after a kill. None in every process but the main one. UsageError for unknown kinds and too
    small a count, DataError for data without clean pictures or real defects.
    """
    count, seed = settings.count, settings.seed
    chosen = check_kinds(settings.kinds, count)
    if settings.epochs < 1:
        raise UsageError(f"expected at least 1 epoch, got {settings.epochs}")
    place = here(device)
    with Lock(folder) if place.main else nullcontext():
        dataset, segmenter = open_dataset(data), load_model(model, device=place.device)
        seen = place.first(lambda: gather(dataset, folder, chosen, count, seed))  # written once, read by all
        found = replace(told_apart(dataset, segmenter, encode(seen, segmenter, folder), count, seed), model=model)
        if settings.transfer:
            bench = Bench(Journal(folder / "cells.jsonl"), segmenter, place)
            gains = transfer(found.encoded, bench, settings.epochs, seed)
            found = replace(found, transfer=gains, epochs=settings.epochs)
        if not place.main:
            return None
        save_table(found.table, folder / "separability.csv")
        if found.transfer is not None:
            save_table(pd.DataFrame(found.transfer), folder / "transfer.csv")
        write_whole(folder / "realism.json", lambda path: path.write_text(json.dumps(plain(found), indent=1) + "\n"))
        write_realism(found, data, folder)
        return found


def plain(found: Realism) -> dict[str, object]:
    """All that was found as JSON holds it: no NaN, None instead."""

    def lines(rows: Sequence[Answer] | Sequence[Gain]) -> object:
        return json.loads(pd.DataFrame(rows).to_json(orient="records"))

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
        "separability": lines(found.answers),
        "transfer": None if found.transfer is None else lines(found.transfer),
    }
