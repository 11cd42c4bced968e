"""What decides how nano is pre-trained: variants of one recipe at equal CPU time, judged by photographs.

python benchmarks/pretraining.py OUT [NAME ...] [--minutes 12] [--side 256] [--seed 0] [--camo DIR] [--bsds DIR]

Each variant of VARIANTS (by default all) differs in what it names from the same ground: scenes, prompts, schedule and,
of the lite ones, the weights that they begin with. The number of steps is what fits in `--minutes` of CPU time of the
training process (scenes are made beside it and do not count), by a trial of 20 steps. Judged by the averaged weights,
on 48 scenes that no step trains on; where folders are given, on photographs, of which BSDS500's are the validation half
and CAMO's none of the studies' test split; and by what a decoder tuned on CAMO's training images reaches on their
validation images, for an encoder is worth what can be read from it. A run that is stopped goes on by the same command.
With --judge MODEL ... nothing is pre-trained and any models are scored on the photographs, with --tune tuned as well.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from specialsam.core.console import say, stage
from specialsam.core.files import write_whole
from specialsam.evaluation.bench import BenchSettings, bench_bsds, bench_records, camo_animals
from specialsam.evaluation.tables import frame, summary
from specialsam.models.load import load_model
from specialsam.models.nano import build_nano
from specialsam.models.segmenter import Segmenter, fingerprint
from specialsam.models.specialist import read_card
from specialsam.pipeline.job import Request
from specialsam.pipeline.plan import plan
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.pipeline.specialize import run_specialize
from specialsam.training.pretrain import bundle, pretrain
from specialsam.training.pretrain_settings import PretrainSettings

VARIANTS: dict[str, dict[str, Any]] = {
    "frozen": {},
    "a tenth of the rate": {"backbone": 0.1},
    "free": {"backbone": 1.0},
    "not kept readable": {"readable": 0.0},
    "16 objects an image": {"objects": 16},
    "192 px": {"side": 192},
    "384 px": {"side": 384, "batch": 4},
    "512 px": {"side": 512, "batch": 2},
    "pyramid": {"encoder": "conv"},
    "plain ViT": {"encoder": "vit"},
    "TinyViT": {"encoder": "tinyvit"},
}
"""What each variant changes; "frozen" is the recipe itself."""
GROUND: dict[str, Any] = {
    "batch": 8,
    "objects": 8,
    "lr": 1e-3,
    "ema": 0.99,
    "corrections": 0.6,
    "rounds": 3,
    "reuse": 4,
    "decoder": "nano",
}
TRIAL = (2, 5, 25)
"""Steps of the trial runs: the first warms up, the difference of the others leaves out what is done once."""
LATENCY_ROUNDS = 15
FRACTIONS = (0.6, 0.15, 0.25)
"""The last quarter is the test split of the camouflage study."""
TUNING = {
    "fractions": FRACTIONS,
    "train": {"epochs": 6, "lr": 3e-4, "batch": 8, "prompts": {"random": 0.5, "box_jitter": 0.5}},
    "evaluate": {"strategies": ["interior", "box"], "groups": ["overlap"]},
    "guard": {"enabled": False},
    "finder": {"enabled": False},
    "probes": 0,
}
"""How a decoder is tuned on each encoder; six epochs show what can be read, not where it ends."""


def settings_of(name: str, steps: int, side: int, seed: int) -> PretrainSettings:
    """The recipe with what a variant changes: a tenth of warm-up, then cosine; nano's decoder to begin with."""
    length = {"side": side, "steps": steps, "warmup": max(1, min(150, steps // 10)), "seed": seed}
    return PretrainSettings(**length | GROUND | VARIANTS[name])


def seconds_a_step(name: str, side: int, seed: int) -> float:
    """CPU seconds of the training process for one step."""
    spent = []
    for steps in TRIAL:
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            pretrain(Path(folder), settings_of(name, steps, side, seed), validate_every=10**9)
            spent.append(time.process_time() - began)
    return (spent[2] - spent[1]) / (TRIAL[2] - TRIAL[1])


def latency(settings: PretrainSettings) -> float:
    """CPU milliseconds of one forward pass of the encoder, median."""
    model = build_nano(settings.encoder, settings.side).vision_encoder
    pixels, spent = torch.zeros(1, 3, settings.side, settings.side), []
    with torch.no_grad():
        for _ in range(LATENCY_ROUNDS):
            began = time.process_time()
            model(pixels)
            spent.append(1000 * (time.process_time() - began))
    return float(np.median(spent))


def planned(name: str, folder: Path, asked: argparse.Namespace) -> tuple[PretrainSettings, float]:
    """A variant's settings and its CPU seconds a step; what a first call settled is kept beside the run."""
    path = folder / "plan.json"
    if not path.exists():
        cost = seconds_a_step(name, asked.side, asked.seed)
        fresh = {"seconds": cost, "steps": int(60 * asked.minutes / cost), "side": asked.side, "seed": asked.seed}
        write_whole(path, lambda beside: beside.write_text(json.dumps(fresh)))
    found = json.loads(path.read_text())
    if (found["side"], found["seed"]) != (asked.side, asked.seed):
        raise SystemExit(f"expected side and seed of {path}, or another folder: it holds {found}")
    return settings_of(name, found["steps"], asked.side, asked.seed), found["seconds"]


def photographs(segmenter: Segmenter, asked: argparse.Namespace) -> dict[str, float]:
    """Mean IoU in percent on photographs of the developers' sets, by data, prompt and output."""
    settings, rows = BenchSettings(asked.limit, asked.segments, rivals=False), []
    if asked.bsds:
        rows += [row for part in bench_bsds(segmenter, asked.bsds, settings) for row in part]
    if asked.camo:
        tested = {record.id for record in plan(f"camo:{asked.camo}", FRACTIONS, 0).of("test")}
        animals = [record for record in camo_animals(asked.camo) if record.id not in tested]
        rows += [row for part in bench_records(segmenter, animals[: asked.limit], settings) for row in part]
    means = summary(frame(rows), ("iou",)) if rows else pd.DataFrame()
    own = means[means["model"] == segmenter.name] if len(means) else means
    return {f"{r['dataset']} {r['strategy']} {r['output']}": 100 * r["mean"] for r in own.to_dict("records")}


def specialised(model: Path, folder: Path, asked: argparse.Namespace) -> dict[str, float]:
    """Validation IoU in percent of the base and of the decoder tuned on CAMO's training images."""
    if not asked.camo:
        return {}
    request = Request(f"camo:{asked.camo}", str(model), folder, limit=asked.tuned)
    run_specialize(request, SpecializeSettings.parse(TUNING), measured=False)
    scores = read_card(folder / "specialist").scores["val_iou"]
    return {f"CAMO validation, {name}": 100 * scores[key] for name, key in (("base", "base"), ("specialised", "kept"))}


def tuned(name: str, asked: argparse.Namespace) -> dict[str, float]:
    """What a decoder tuned on any model reaches, where that is asked for."""
    folder = asked.out / f"tuned-{fingerprint(load_model(name).sam)[:8]}"
    return specialised(Path(name), folder, asked) if asked.tune else {}


def trained(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One column of the table."""
    folder = asked.out / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    settings, seconds = planned(name, folder, asked)
    log = folder / "log.jsonl"
    if not log.exists() or f'"step": {settings.steps}, "validation"' not in log.read_text():
        with stage(f"pre-training: {name}") as progress:
            pretrain(folder, settings, progress=progress, validate_every=max(50, settings.steps // 8))
    if (done := folder / "row.json").exists():
        row: dict[str, Any] = json.loads(done.read_text())
        return row
    model = bundle(folder / "nano.safetensors", settings.encoder, folder / "nano", asked.side)
    segmenter = load_model(str(model))
    weights = sum(p.numel() for p in build_nano(settings.encoder, settings.side).vision_encoder.parameters())
    row = {
        "variant": name,
        "parameters of the encoder (M)": weights / 1e6,
        "ms an image": latency(settings),
        "s a step": seconds,
        "images": settings.steps * settings.batch,
        **{f"scenes {k}": 100 * v for k, v in json.loads(log.read_text().splitlines()[-1])["validation"].items()},
        **photographs(segmenter, asked),
        **specialised(model, folder / "tuned", asked),
    }
    write_whole(done, lambda beside: beside.write_text(json.dumps(row)))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(VARIANTS)}; all if left out")
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--camo", type=Path)
    parser.add_argument("--bsds", type=Path)
    parser.add_argument("--limit", type=int, default=60, help="photographs of each data set")
    parser.add_argument("--segments", type=int, default=8, help="segments of each photograph")
    parser.add_argument("--tuned", type=int, default=300, help="CAMO images that decoders are tuned on a share of")
    parser.add_argument("--tune", action="store_true", help="with --judge: also tune a decoder on each (needs --camo)")
    parser.add_argument("--judge", nargs="+", metavar="MODEL", help="score these on the photographs, train nothing")
    asked = parser.parse_args()
    if asked.judge:
        scores = {name: photographs(load_model(name), asked) | tuned(name, asked) for name in asked.judge}
        say(pd.DataFrame(scores).to_string(float_format=lambda value: f"{value:.1f}"))
        return
    unknown = [name for name in asked.names if name not in VARIANTS]
    if unknown:
        parser.error(f"expected variants of {', '.join(VARIANTS)}, got {', '.join(unknown)}")
    torch.set_num_threads(1)
    rows = [trained(name, asked) for name in asked.names or VARIANTS]
    table = pd.DataFrame(rows).set_index("variant").T
    write_whole(asked.out / "pretraining.csv", lambda path: table.to_csv(path))
    say(table.to_string(float_format=lambda value: f"{value:.2f}"))


if __name__ == "__main__":
    main()
