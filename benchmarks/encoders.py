"""nano's candidate image encoders at equal CPU time: convolutional pyramid, plain ViT with windows, TinyViT.

python benchmarks/encoders.py OUT [--minutes 12] [--side 128] [--seed 0] [--camo DIR] [--bsds DIR] [--limit 60]

Each is pre-trained from nothing by `training.pretrain`, with the same decoder, scenes, prompts and schedule; only the
number of steps differs: as many as fit in `--minutes` of CPU time of the training process (scenes are made beside it
and do not count), by a trial of 20 steps. Scores are those of the averaged weights on 48 scenes that no step trains on
and, where folders are given, on real photographs. A run that is stopped goes on by the same command.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch

from specialsam.core.console import say, stage
from specialsam.core.files import write_whole
from specialsam.evaluation.bench import run_bench
from specialsam.models.load import load_model
from specialsam.models.nano import EncoderKind, build_nano
from specialsam.training.pretrain import PretrainSettings, bundle, pretrain

TRIAL = (2, 5, 25)
"""Steps of the trial runs: the first warms up, the difference of the others leaves out what is done once."""
LATENCY_SIDE, LATENCY_ROUNDS = 256, 15


def settings_of(encoder: EncoderKind, steps: int, side: int, seed: int) -> PretrainSettings:
    """What is the same for all: 16 scenes a step, 6 objects each, cosine from 1.2e-3 after a tenth of warm-up."""
    return PretrainSettings(
        encoder=encoder,
        side=side,
        batch=16,
        objects=6,
        steps=steps,
        lr=1.2e-3,
        warmup=max(1, min(60, steps // 10)),
        ema=0.98,
        corrections=0.3,
        seed=seed,
    )


def seconds_a_step(encoder: EncoderKind, side: int, seed: int) -> float:
    """CPU seconds of the training process for one step."""
    spent = []
    for steps in TRIAL:
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            pretrain(Path(folder), settings_of(encoder, steps, side, seed), validate_every=10**9)
            spent.append(time.process_time() - began)
    return (spent[2] - spent[1]) / (TRIAL[2] - TRIAL[1])


def latency(encoder: EncoderKind) -> float:
    """CPU milliseconds of one forward pass of the encoder at 256 px, median."""
    model = build_nano(encoder, LATENCY_SIDE).vision_encoder
    pixels, spent = torch.zeros(1, 3, LATENCY_SIDE, LATENCY_SIDE), []
    with torch.no_grad():
        for _ in range(LATENCY_ROUNDS):
            began = time.process_time()
            model(pixels)
            spent.append(1000 * (time.process_time() - began))
    return float(np.median(spent))


def trained(encoder: EncoderKind, out: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """One row of the table; the steps that a first call settled are kept beside the run."""
    folder = out / encoder
    folder.mkdir(parents=True, exist_ok=True)
    planned = folder / "plan.json"
    if not planned.exists():
        cost = seconds_a_step(encoder, asked.side, asked.seed)
        plan = {"seconds": cost, "steps": int(60 * asked.minutes / cost), "side": asked.side, "seed": asked.seed}
        write_whole(planned, lambda path: path.write_text(json.dumps(plan)))
    plan = json.loads(planned.read_text())
    if (plan["side"], plan["seed"]) != (asked.side, asked.seed):
        raise SystemExit(f"expected side and seed of {planned}, or another folder: it holds {plan}")
    settings = settings_of(encoder, plan["steps"], asked.side, asked.seed)
    log = folder / "log.jsonl"
    if not log.exists() or f'"step": {settings.steps}, "validation"' not in log.read_text():
        with stage(f"pre-training {encoder}") as progress:
            pretrain(folder, settings, progress=progress, validate_every=max(50, settings.steps // 8))
    last = json.loads(log.read_text().splitlines()[-1])
    model = bundle(folder / "nano.safetensors", encoder, folder / "nano", asked.side)
    scores = {name: 100 * score for name, score in last["validation"].items()}
    if asked.camo or asked.bsds:
        table = folder / "photographs.csv"
        run_bench(str(model), asked.bsds, asked.camo, asked.limit, rivals=False, out=table, most=asked.segments)
        means = pd.read_csv(table)
        for row in means[means["model"] == load_model(str(model)).name].to_dict("records"):
            scores[f"{row['dataset']} {row['strategy']} {row['output']}"] = 100 * row["mean"]
    weights = sum(p.numel() for p in build_nano(encoder, asked.side).vision_encoder.parameters())
    return {
        "encoder": encoder,
        "parameters (M)": weights / 1e6,
        f"ms at {LATENCY_SIDE} px": latency(encoder),
        "s a step": plan["seconds"],
        "images": settings.steps * settings.batch,
        **scores,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--camo", type=Path)
    parser.add_argument("--bsds", type=Path)
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--segments", type=int, default=8)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [trained(encoder, asked.out, asked) for encoder in get_args(EncoderKind)]
    table = pd.DataFrame(rows).set_index("encoder").T
    write_whole(asked.out / "encoders.csv", lambda path: table.to_csv(path))
    say(table.to_string(float_format=lambda value: f"{value:.2f}"))


if __name__ == "__main__":
    main()
