"""Ways of tuning on several data sets: what each gains, what it forgets elsewhere, and what the guard hands on.

python benchmarks/tuning.py OUT NAME=SOURCE ... [--elsewhere SOURCE] [--ways plain,replay] [--seeds 3] [--workers 1]

A cell is one way on one data set with one seed: tuned on the training split, mixed by the guard (validation images and
generated scenes that no way replays), then base, tuned and guarded model measured on the test split and on `elsewhere`,
labelled photographs that no way has seen. Finished cells are lines of OUT/cells.jsonl and are not run again. Ways are
chosen by the columns of validation and scenes alone; the test columns say what that choice was worth.
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
from specialsam.training.loop import per_image_iou, train

FAST: dict[str, Any] = {
    "mode": "decoder+prompt",
    "lr": 5e-4,
    "epochs": 8,
    "corrections": 1,
    "correction_share": 0.3,
    "validation": ("interior", "center_of_mass", "box"),
}
REPLAY: dict[str, Any] = {**FAST, "replay": 1.0, "replay_own": False}
DISTIL: dict[str, Any] = {**REPLAY, "replay_truth": "base"}
WAYS: dict[str, dict[str, Any]] = {
    "base": {},
    "fast": FAST,
    "replay": REPLAY,
    "distil": DISTIL,
    "distil own": {**DISTIL, "replay_own": True},
    "distil own, anchor 10": {**DISTIL, "replay_own": True, "anchor": 10.0},
    "distil, anchor 10": {**DISTIL, "anchor": 10.0},
    "tail": {**DISTIL, "replay_own": True, "mode": "tail"},
    "tail, half rate": {**DISTIL, "replay_own": True, "mode": "tail", "lr": 2.5e-4},
    "anchor 10": {**FAST, "anchor": 10.0},
    "replay, anchor 10": {**REPLAY, "anchor": 10.0},
    "no corrections": {**FAST, "corrections": 0},
    "replay 2": {**FAST, "replay": 2.0, "replay_images": 4},
    "replay, half rate": {**REPLAY, "lr": 2.5e-4},
    "slow": {"validation": FAST["validation"]},
    "replay few": {**REPLAY, "replay_pool": 16},
    "anchor 50": {**FAST, "anchor": 50.0},
    "replay, boundary": {**REPLAY, "loss": "half_boundary"},
    "replay, decoder": {**REPLAY, "mode": "decoder"},
    "replay, long": {**REPLAY, "epochs": 20},
}
"""Settings of `train` by name; "base" tunes nothing, and "slow" is what the defaults were before."""
STRATEGIES = ("interior", "center_of_mass", "box", "clicks3", "clicks5")
ELSEWHERE = 60
"""Photographs at most on which forgetting is measured a second time."""


def settings_of(way: str, seed: int) -> SpecializeSettings:
    values = {
        "duplicates": False,
        "train": {**WAYS[way], "seed": seed},
        "evaluate": {"strategies": STRATEGIES, "groups": ("overlap",)},
        "finder": {"enabled": False},
        "probes": 0,
    }
    return SpecializeSettings.parse(values)


def measured(job: Job, model: Segmenter, name: str) -> dict[str, float]:
    """Mean IoU on the test split by each prompt (single mask), named by model and prompt."""
    test = job.plan.of("test")
    stamp = {"run": job.folder.name, "dataset": job.plan.dataset.name, "split": "test"}
    asked = Asked(test, job.plan.content, job.embedded.measuring(job.settings.measured, stamp), "half")
    file = job.folder / f"rows-{name}.jsonl"
    results, _ = measure({name: model}, asked, None, file, job.place, f"{name} on the test split")
    means = results.only(metric="iou", output="single").frame.groupby("strategy", observed=True)["value"].mean()
    return {f"{name} {strategy}": float(value) for strategy, value in means.items()}


def cell(out: Path, elsewhere: str | None, device: str, asked: tuple[str, str, str, int]) -> dict[str, Any]:
    """One way on one data set with one seed."""
    torch.set_num_threads(1)
    name, source, way, seed = asked
    began = time.monotonic()
    folder = out / "cells" / f"{name}-{way}-{seed}".replace(" ", "_").replace(",", "")
    request = Request(source, "nano", folder, store=out / "embeddings", device=device)
    with open_job("tuning", request, settings_of(way, seed)) as job:
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
        own = [per_image_iou(m, data, job.settings.train) for m in (job.segmenter, kept.segmenter)]
        found["validation"] = {"base": own[0], "guarded": own[1]}
        found["test"] = measured(job, tuned, "tuned")
        found["test"] |= measured(job, kept.segmenter, "guarded") if 0 < kept.alpha < 1 else {}
        if general:
            shares = {f"{share:g}": interpolate(job.segmenter, tuned, share) for share in job.settings.guard.alphas}
            found["elsewhere"] = {name: retention_iou(model, general).tolist() for name, model in shares.items()}
    found["seconds"] = {"prepare": prepared - began, "train": trained - prepared, "rest": time.monotonic() - trained}
    return found


def table(cells: list[Mapping[str, Any]]) -> pd.DataFrame:
    """A line a data set and way: means over seeds of gains and losses, in points of IoU; `s` are seconds of tuning."""
    bases = {each["set"]: each["test"] for each in cells if each["way"] == "base"}
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
        for strategy in STRATEGIES if each["set"] in bases else ():
            base, tuned = bases[each["set"]][f"base {strategy}"], each["test"][f"tuned {strategy}"]
            guarded = each["test"].get(f"guarded {strategy}", tuned if alpha else base)
            row |= {strategy: tuned - base, f"{strategy} kept": guarded - base}
        rows.append({k: v if isinstance(v, str) else 100 * v for k, v in row.items()} | {"s": each["seconds"]["train"]})
    frame = pd.DataFrame(rows)
    means = frame.groupby(["set", "way"], sort=False).mean()
    return means.assign(seeds=frame.groupby(["set", "way"], sort=False).size()).round(2)


def gains(cells: list[Mapping[str, Any]]) -> None:
    """Gain on validation of what is handed on, with its interval over images (mean over seeds first)."""
    together: dict[tuple[str, str], list[Any]] = {}
    for each in cells:
        if each["way"] == "base":
            continue
        own = each["validation"]
        together.setdefault((each["set"], each["way"]), []).append(np.subtract(own["guarded"], own["base"]))
    for (name, way), parts in together.items():
        say(f"{name:10} {way:22} handed on {points(bootstrap_mean(np.mean(parts, 0)))} on validation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs="*", metavar="NAME=SOURCE")
    parser.add_argument("--elsewhere")
    parser.add_argument("--ways", default=",".join(WAYS).replace(", ", ";"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    journal = Journal(asked.out / "cells.jsonl")
    ways = [way.replace(";", ", ") for way in asked.ways.split(",")]
    sets = [text.split("=", 1) for text in asked.sets]
    todo = [(n, s, w, seed) for seed in range(asked.seeds) for w in ways for n, s in sets if w != "base" or not seed]
    wanted = {" ".join(map(str, (n, way, seed))): digest(WAYS[way], n, seed) for n, _, way, seed in todo}
    done = journal.finished(wanted)
    left = [one for one in todo if " ".join(map(str, (one[0], *one[2:]))) not in done]
    work = partial(cell, asked.out, asked.elsewhere, asked.device)
    with multiprocessing.get_context("spawn").Pool(asked.workers, maxtasksperchild=8) as pool:
        for number, found in enumerate(pool.imap_unordered(work, left), 1):
            name = " ".join(map(str, (found["set"], found["way"], found["seed"])))
            journal.put(name, wanted[name], found)
            say(f"{number} of {len(left)}: {name}, {found['seconds']}")
    cells = [answer for _, answer in journal.answers(wanted)]
    if any(each["way"] != "base" for each in cells):
        pd.set_option("display.width", 250, "display.max_columns", 40, "display.max_rows", 200)
        say(table(cells).to_string())
        gains(cells)


if __name__ == "__main__":
    main()
