"""What a run does when its data, its folder or its files change under it: each case by the command line, in words.

python benchmarks/resilience.py OUT [--python PATH]

Masks corrected in place, images added, two processes under torchrun, two processes in one folder, SIGTERM, and one bit
flipped (or the content replaced by `{}`) in each file that a run goes on from. `--python` is another interpreter, to
see what another version says.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from specialsam.core.console import say
from specialsam.synth.scenes import write_dataset

SETTINGS = [
    *("train.epochs=1", "duplicates=false", "probes=0", "guard.retention=none", "evaluate.groups=[overlap]"),
    *("evaluate.strategies=[interior]",),
]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
SIDE, SEED = 192, 7
FILES = ("training.pt", "targets.sqlite", "rows-base.jsonl", "run.json")


def invert(data: Path) -> None:
    """Black for white in every mask, in place."""
    for path in (data / "masks").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path, formats=("PNG",)))).save(path)


class Runner:
    """The command line under an interpreter, one thread a process."""

    def __init__(self, python: str):
        self.python, self.env = python, os.environ | {"OMP_NUM_THREADS": "1"}

    def words(self, data: Path, run: Path, *launch: str) -> list[str]:
        options = [part for setting in SETTINGS for part in ("-s", setting)]
        return [self.python, *launch, "-m", "specialsam.cli", "specialize", str(data), "-o", str(run), *options]

    def start(self, data: Path, run: Path) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(self.words(data, run), stdout=pipe, stderr=pipe, text=True, env=self.env)

    def tell(self, title: str, data: Path, run: Path, *launch: str) -> None:
        """Run to the end and say its exit code and the lines that matter."""
        done = subprocess.run(self.words(data, run, *launch), capture_output=True, text=True, check=False, env=self.env)
        say(f"{title}: exit {done.returncode}")
        for line in (done.stdout + done.stderr).splitlines():
            if line.startswith(("interior", "error")) or "again" in line or " made " in line:
                say(f"    {line[:150]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--python", default=sys.executable)
    asked = parser.parse_args()
    out, runner = asked.out, Runner(asked.python)
    data = out / "corrected"
    write_dataset(data, 12, SIDE, SEED)
    invert(data)
    runner.tell("inverted masks", data, out / "run-corrected")
    invert(data)
    runner.tell("the same masks, corrected in place", data, out / "run-corrected")
    data = out / "added"
    write_dataset(data, 12, SIDE, SEED)
    runner.tell("12 images", data, out / "run-added")
    write_dataset(data, 20, SIDE, SEED)  # those that are there stay
    runner.tell("8 more", data, out / "run-added")
    data = out / "shared"
    write_dataset(data, 24, SIDE, SEED)
    runner.tell("torchrun, 2 processes", data, out / "run-two", *TORCHRUN)
    runner.tell("then one process in that folder", data, out / "run-two")
    for process in [runner.start(data, out / "run-both") for _ in range(2)]:
        _, said = process.communicate()
        say(f"one of two processes in one folder: exit {process.returncode} {said.strip()[-150:]}")
    runner.tell("then one", data, out / "run-both")
    process = runner.start(data, out / "run-ended")
    while not (out / "run-ended" / "targets.sqlite").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    say(f"SIGTERM: exit {process.wait()} {process.communicate()[1].strip()[-150:]}")
    for name in FILES:
        for kind in ("one bit flipped", "{}"):
            run = Path(shutil.copytree(out / "run-added", out / f"damaged-{name}-{kind[:1]}"))
            content = bytearray((run / name).read_bytes())
            content[len(content) // 2] ^= 16
            (run / name).write_bytes(b"{}" if kind == "{}" else bytes(content))
            runner.tell(f"{name}, {kind}", out / "added", run)


if __name__ == "__main__":
    main()
