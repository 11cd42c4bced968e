"""Ways of tuning on several data sets: what each gains, what it forgets elsewhere, and what the guard hands on.

python benchmarks/tuning_sets.py SETS DATA
python benchmarks/tuning.py OUT NAME=SOURCE ... [--elsewhere SOURCE] [--ways plain,replay] [--seeds 3] [--workers 1]

A cell is one way on one data set with one seed, by which images are split too where the set does not say it: tuned on
the training split, mixed by the guard (validation images and generated scenes that no way replays), then base, tuned
and guarded model measured on the test split and on `elsewhere`, labelled photographs that no way has seen. Finished
cells are lines of OUT/cells.jsonl and are not run again. Ways are chosen by the columns of validation and scenes
alone; the test columns say what that choice was worth.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from specialsam.advice.guard.mixtures import interpolate
from specialsam.advice.guard.retention import retention_iou, retention_set
from specialsam.core.console import say
from specialsam.core.ledger import Journal, digest
from specialsam.evaluation.results import Asked, measure
from specialsam.evaluation.statistics import bootstrap_mean, points
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone
from specialsam.pipeline.evidence import guarded
from specialsam.pipeline.general import training_data
from specialsam.pipeline.job import Job, Request, open_job
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.training.loop import train

NO_REPLAY: dict[str, Any] = {"replay": 0.0}
WAYS: dict[str, dict[str, Any]] = {
    "base": {},
    "default": {},
    "no replay": NO_REPLAY,
    "scenes alone": {"replay_own": False},
    "masks": {"replay_truth": "masks"},
    "no corrections": {"corrections": 0},
    "tail": {"mode": "tail"},
    "tail, half rate": {"mode": "tail", "lr": 2.5e-4},
    "thin": {"loss": "thin"},
    "missed": {"loss": "missed"},
    "boundary": {"loss": "half_boundary"},
    "anchor 10": {"anchor": 10.0},
    "no replay, anchor 10": {**NO_REPLAY, "anchor": 10.0},
    "anchor 50": {"anchor": 50.0},
    "half rate": {"lr": 2.5e-4},
    "long": {"epochs": 20},
    "with prompt encoder": {"mode": "decoder+prompt"},
    "more replay": {"replay": 2.0, "replay_images": 4},
    "less replay": {"replay_pool": 16},
    "slow": {**NO_REPLAY, "lr": 1e-4, "epochs": 20, "corrections": 0},
}
"""What differs from the defaults, by name; "base" tunes nothing, and "slow" is what the defaults once were."""
STRATEGIES = ("interior", "center_of_mass", "box", "clicks3", "clicks5")
ELSEWHERE = 30
"""Photographs at most on which forgetting is measured a second time."""


def settings_of(way: str, seed: int, fractions: tuple[float, ...]) -> SpecializeSettings:
    values = {
        "seed": seed,
        "fractions": fractions,
        "duplicates": False,
        "train": {**WAYS[way], "seed": seed},
        "evaluate": {"strategies": STRATEGIES, "groups": ("overlap",)},
        "finder": {"enabled": False},
        "probes": 0,
    }
    return SpecializeSettings.parse(values)


def measured(job: Job, model: Segmenter, name: str) -> dict[str, dict[str, float]]:
    """IoU (single mask) of each image of the test split by its id, by model and prompt."""
    test = job.plan.of("test")
    stamp = {"run": job.folder.name, "dataset": job.plan.dataset.name, "split": "test"}
    asked = Asked(test, job.plan.content, job.embedded.measuring(job.settings.measured, stamp), "half")
    file = job.folder / f"rows-{name}.jsonl"
    results, _ = measure({name: model}, asked, None, file, job.place, f"{name} on the test split")
    frame = results.only(metric="iou", output="single").frame
    found = {}
    for strategy, rows in frame.groupby("strategy", observed=True):
        means = rows.groupby("record", observed=True)["value"].mean()
        found[f"{name} {strategy}"] = {str(record): float(value) for record, value in means.items()}
    return found


def cell(
    out: Path, elsewhere: str | None, device: str, fractions: tuple[float, ...], asked: tuple[str, str, str, int]
) -> dict[str, Any]:
    """One way on one data set with one seed."""
    torch.set_num_threads(1)
    name, source, way, seed = asked
    began = time.monotonic()
    folder = out / "cells" / f"{name}-{way}-{seed}".replace(" ", "_").replace(",", "")
    request = Request(source, "nano", folder, store=out / "embeddings", device=device)
    with open_job("tuning", request, settings_of(way, seed, fractions)) as job:
        job.prepare()
        prepared = time.monotonic()
        found: dict[str, Any] = {"set": name, "way": way, "seed": seed, "device": str(job.place.device)}
        general = retention_set(job.segmenter, elsewhere, ELSEWHERE, 1, job.embedded.store) if elsewhere else None
        if way == "base":
            found["test"] = measured(job, job.segmenter, "base")
            found["elsewhere"] = {"base": retention_iou(job.segmenter, general).tolist()} if general else {}
            return found | {"seconds": {"prepare": prepared - began, "rest": time.monotonic() - prepared}}
        tuned = clone(job.segmenter, "tuned")
        data = training_data(job)
        result = train(tuned, data, job.settings.train, folder, job.place)
        trained = time.monotonic()
        kept = guarded(job, tuned)
        assert kept is not None
        found |= {"best_epoch": result.best_epoch, "alpha": kept.alpha, "mixtures": [row.plain() for row in kept.rows]}
        found["test"] = measured(job, tuned, "tuned")
        found["test"] |= measured(job, kept.segmenter, "guarded") if 0 < kept.alpha < 1 else {}
        if general:
            shares = {f"{share:g}": interpolate(job.segmenter, tuned, share) for share in {0.0, kept.alpha, 1.0}}
            found["elsewhere"] = {name: retention_iou(model, general).tolist() for name, model in shares.items()}
    found["seconds"] = {"prepare": prepared - began, "train": trained - prepared, "rest": time.monotonic() - trained}
    return found


def table(cells: list[Mapping[str, Any]]) -> pd.DataFrame:
    """A line a data set and way: means over seeds of gains and losses, in points of IoU; `s` are seconds of tuning."""
    bases = {(each["set"], each["seed"]): each["test"] for each in cells if each["way"] == "base"}
    rows = []
    for each in cells:
        if each["way"] == "base":
            continue
        mixtures = {row["alpha"]: row for row in each["mixtures"]}
        full, kept, alpha = mixtures[1.0], mixtures[each["alpha"]], each["alpha"]
        row = {"set": each["set"], "way": each["way"], "val": full["gain"], "val kept": kept["gain"]}
        row |= {"share kept": alpha / 100, "lost": -full["drop"], "lost kept": -kept["drop"]}
        if each.get("elsewhere"):
            away = {name: float(np.mean(values)) for name, values in each["elsewhere"].items()}
            row |= {"photos": away["1"] - away["0"], "photos kept": away[f"{alpha:g}"] - away["0"]}
        unspecialised = bases.get((each["set"], each["seed"]), {})
        for strategy in STRATEGIES if unspecialised else ():
            before = mean_of(unspecialised[f"base {strategy}"])
            row[strategy] = mean_of(each["test"][f"tuned {strategy}"]) - before
            row[f"{strategy} kept"] = mean_of(handed_on(each, unspecialised, strategy)) - before
        rows.append({k: v if isinstance(v, str) else 100 * v for k, v in row.items()} | {"s": each["seconds"]["train"]})
    frame = pd.DataFrame(rows)
    means = frame.groupby(["set", "way"], sort=False).mean()
    return means.assign(seeds=frame.groupby(["set", "way"], sort=False).size()).round(2)


def mean_of(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values())))


def handed_on(each: Mapping[str, Any], base: Mapping[str, Any], strategy: str) -> dict[str, float]:
    """IoU by image of what a cell hands on: a mixture, the tuned model or the base, whose IoU are in `base`."""
    unchanged = each["way"] == "base" or not each["alpha"]
    whole = base[f"base {strategy}"] if unchanged else each["test"][f"tuned {strategy}"]
    found: dict[str, float] = each["test"].get(f"guarded {strategy}", whole)
    return found


def gains(cells: list[Mapping[str, Any]], name: str, way: str, rival: str, strategy: str) -> list[float]:
    """Test IoU by image of what a way hands on over what its rival does, the mean over the seeds that both have."""
    by_key = {(each["way"], each["seed"]): each for each in cells if each["set"] == name}
    together: dict[str, list[float]] = {}
    for seed in sorted({each["seed"] for each in cells}):
        if any((one, seed) not in by_key for one in (way, rival, "base")):
            continue
        base = by_key["base", seed]["test"]
        before = handed_on(by_key[rival, seed], base, strategy)
        for record, value in handed_on(by_key[way, seed], base, strategy).items():
            together.setdefault(record, []).append(value - before[record])
    return [float(np.mean(values)) for values in together.values()]


def differences(cells: list[Mapping[str, Any]]) -> None:
    """Test IoU of what is handed on, over the base and over what the defaults hand on, 95 % over images."""
    for name, way in dict.fromkeys((each["set"], each["way"]) for each in cells if each["way"] != "base"):
        for strategy in STRATEGIES:
            line = f"{name:8} {way:22} {strategy:16}"
            for rival in ("base", "default"):
                found = gains(cells, name, way, rival, strategy) if way != rival else []
                line += f"  over {rival} {points(bootstrap_mean(found))} (n {len(found)})" if found else ""
            say(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs="*", metavar="NAME=SOURCE")
    parser.add_argument("--elsewhere")
    parser.add_argument("--ways", default=",".join(WAYS).replace(", ", ";"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--fractions", default="0.7,0.15,0.15", help="of sets that state no splits")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    journal = Journal(asked.out / "cells.jsonl")
    ways = [way.replace(";", ", ") for way in asked.ways.split(",")]
    sets = [text.split("=", 1) for text in asked.sets]
    todo = [(n, s, w, seed) for seed in range(asked.seeds) for w in ways for n, s in sets]
    fractions = tuple(float(share) for share in asked.fractions.split(","))
    made = (fractions, asked.elsewhere)
    wanted = {" ".join(map(str, (n, way, seed))): digest(WAYS[way], n, s, seed, made) for n, s, way, seed in todo}
    done = journal.finished(wanted)
    left = [one for one in todo if " ".join(map(str, (one[0], *one[2:]))) not in done]
    work = partial(cell, asked.out, asked.elsewhere, asked.device, fractions)
    with multiprocessing.get_context("spawn").Pool(asked.workers, maxtasksperchild=8) as pool:
        for number, found in enumerate(pool.imap_unordered(work, left), 1):
            name = " ".join(map(str, (found["set"], found["way"], found["seed"])))
            journal.put(name, wanted[name], found)
            say(f"{number} of {len(left)}: {name}, {found['seconds']}")
    cells = [answer for _, answer in journal.answers(wanted)]
    if any(each["way"] != "base" for each in cells):
        pd.set_option("display.width", 250, "display.max_columns", 40, "display.max_rows", 200)
        say(table(cells).to_string())
        differences(cells)


if __name__ == "__main__":
    main()
