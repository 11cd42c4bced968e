"""Kill a job at random moments, start it again, and look for anything lost, doubled or different.

python benchmarks/kills.py OUT [--kills 100] [--seed 0] [--longest 12] [--two 0.3]

The job is `specialsam specialize` on 40 generated images. One unbroken run is the truth. Then the same command is
started again and again and killed with SIGKILL after a random time of at most `--longest` seconds; a share `--two` of
the starts runs in two processes under torchrun, of which one alone is killed. A folder whose run comes to its end is
compared with the truth, row by row and weight by weight, and another one is begun.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from specialsam.core.console import say, stage
from specialsam.synth.scenes import write_dataset

SETTINGS = [
    *("train.epochs=4", "train.lr=3e-4", "evaluate.groups=[overlap]", "duplicates=false", "probes=6"),
    *("guard.retention_images=6", "evaluate.strategies=[interior,box,clicks3]"),
]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
KEY = ["model", "record", "object", "strategy", "output", "metric"]


def command(data: Path, folder: Path, two: bool) -> list[str]:
    """The job's command line, in one process or under torchrun in two."""
    options = [part for setting in SETTINGS for part in ("-s", setting)]
    job = ["-m", "specialsam.cli", "specialize", str(data), "-o", str(folder), "--device", "cpu", *options]
    return [sys.executable, *(TORCHRUN if two else ()), *job]


def workers(parent: int) -> list[int]:
    """Processes that torchrun has started."""
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout.split()
    return [int(text) for text in found]


def struck(words: list[str], after: float, two: bool) -> tuple[bool, str]:
    """Start a command and kill it after some seconds: whether it was killed before its end, and what it complained."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, said = process.communicate(timeout=after)
            return False, said if process.returncode else ""
        except subprocess.TimeoutExpired:
            children = workers(process.pid) if two else []
            os.kill(random.choice(children) if children else process.pid, signal.SIGKILL)
            process.communicate()
            return True, ""


def differences(folder: Path, truth: Path) -> list[str]:
    """What a finished run has lost, doubled or changed against the unbroken one; weights and values within 1e-4."""
    own, other = (
        pd.read_parquet(path / "results.parquet").sort_values(KEY, ignore_index=True) for path in (folder, truth)
    )
    wrong = []
    if own.duplicated(KEY).any():
        wrong.append(f"{int(own.duplicated(KEY).sum())} rows doubled")
    if len(own) != len(other) or not own[KEY].equals(other[KEY]):
        wrong.append(f"{len(own)} rows, expected {len(other)}")
    elif (own["value"] - other["value"]).abs().max() > 1e-4:
        wrong.append(f"values differ by up to {(own['value'] - other['value']).abs().max():.2g}")
    ours, theirs = (load_file(path / "specialist" / "model.safetensors") for path in (folder, truth))
    apart = max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)
    if apart > 1e-4:
        wrong.append(f"weights differ by up to {apart:.2g}")
    left = [path.name for path in folder.rglob(".*") if path.is_file()]
    return wrong + [f"left behind: {', '.join(left)}"] * bool(left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=12.0)
    parser.add_argument("--two", type=float, default=0.3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(asked.seed)
    data, truth = asked.out / "data", asked.out / "unbroken"
    write_dataset(data, 40, 192, seed=7, camouflage=0.5)
    began = time.monotonic()
    subprocess.run(command(data, truth, False), check=True, stdout=subprocess.DEVNULL)
    say(f"unbroken run: {time.monotonic() - began:.1f} s")
    kills = finished = of_two = 0
    wrong: list[str] = []
    with stage("killing") as progress:
        while kills < asked.kills or finished == 0:
            two = random.random() < asked.two
            folder = asked.out / f"run-{finished}"
            patience = random.uniform(0.5, asked.longest) if kills < asked.kills else 3600.0
            killed, said = struck(command(data, folder, two), patience, two)
            kills, of_two = kills + killed, of_two + (killed and two)
            if not killed:
                wrong += [f"{folder.name}: {' '.join(said.split())[:300]}"] if said else differences(folder, truth)
                finished += 1
            progress(min(kills, asked.kills), asked.kills, f"{finished} finished, {len(wrong)} wrong")
    found = {"kills": kills, "of one of two processes": of_two, "finished runs compared": finished, "wrong": wrong}
    say(json.dumps(found, indent=1))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
