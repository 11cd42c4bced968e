"""One process beside two under torchrun on the same machine: seconds of the same job, and whether they end alike.

python benchmarks/processes.py OUT [--images 160] [--rounds 2]

The job of `kills.py` on more images, one thread a process, in turns; each run begins in an empty folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from pathlib import Path

import numpy as np
from kills import command, differences

from specialsam.core.console import say
from specialsam.synth.scenes import write_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    data, env = asked.out / "data", os.environ | {"OMP_NUM_THREADS": "1"}
    write_dataset(data, asked.images, 192, seed=7, camouflage=0.5)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for number in range(asked.rounds):
        for two in (False, True):
            folder = asked.out / f"{'two' if two else 'one'}-{number}"
            began = time.monotonic()
            subprocess.run(command(data, folder, two), check=True, stdout=subprocess.DEVNULL, env=env)
            seconds[two].append(time.monotonic() - began)
            say(f"{folder.name}: {seconds[two][-1]:.1f} s")
        wrong = differences(asked.out / f"two-{number}", asked.out / f"one-{number}")
        say(f"differences: {', '.join(wrong) or 'none'}")
    one, two_ = (float(np.median(seconds[two])) for two in (False, True))
    say(f"one process {one:.1f} s, two processes {two_:.1f} s: {one / two_:.2f} times as fast")


if __name__ == "__main__":
    main()
