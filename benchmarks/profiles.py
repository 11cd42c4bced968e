"""Where the time of `specialsam specialize` goes: by stage, and in each the functions of ours that take the most.

pip install py-spy
python benchmarks/profiles.py OUT [--images 60] [--side 384] [--threads 1] [-- OPTIONS OF SPECIALIZE]

The job runs on generated images under py-spy, which looks a hundred times a second where the main thread stands; what
waits (for a disk, for other processes) is not counted. A function's share is that of the samples in which it is the
deepest one of specialsam, so what it calls in torch or numpy is its own; the library function seen most often below it
stands beside it. OUT/stacks.txt has the samples, in the form that flame graphs are made of.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from specialsam.core.console import say
from specialsam.synth.scenes import write_dataset

RATE = 100
"""Samples a second."""
JOB = "run_specialize"
"""The function whose callees are the stages."""
START = "start"
"""Stage of what runs before and after the job: imports, settings, opening the run."""


def sampled(stacks: Path) -> Iterator[tuple[list[str], int]]:
    """Frames as "function (file:line)" from the outermost on, and the samples that saw them."""
    for line in stacks.read_text().splitlines():
        frames, _, count = line.rpartition(" ")
        yield frames.split(";"), int(count)


def stage_of(frames: Sequence[str]) -> str:
    names = [frame.split(" (")[0] for frame in frames]
    if JOB not in names[:-1]:
        return START
    return names[len(names) - names[::-1].index(JOB)]


def deepest(frames: Sequence[str]) -> tuple[str, str]:
    """The deepest function of ours, as "Conv.forward (models/nano.py)", and what it had called, "" where nothing."""
    for number in range(len(frames) - 1, -1, -1):
        name, _, place = frames[number].partition(" (")
        if "specialsam/" in place:
            below = frames[number + 1] if number + 1 < len(frames) else ""
            file = place.rpartition("specialsam/")[2].split(":")[0]
            return f"{name} ({file})", below.split(" (")[0]
    return "imports and interpreter", ""


def report(stacks: Path, most: int) -> None:
    stages: Counter[str] = Counter()
    inside: dict[str, Counter[str]] = defaultdict(Counter)
    below: dict[str, Counter[str]] = defaultdict(Counter)
    for frames, count in sampled(stacks):
        stage = stage_of(frames)
        ours, called = deepest(frames)
        stages[stage] += count
        inside[stage][ours] += count
        below[ours][called] += count
    total = sum(stages.values())
    say(f"{total / RATE:.0f} s of work seen")
    for stage, count in stages.most_common():
        say(f"{stage}: {count / RATE:.1f} s, {100 * count / total:.0f} %")
        for ours, share in inside[stage].most_common(most):
            called = below[ours].most_common(1)[0][0]
            say(f"    {100 * share / count:4.0f} %  {ours}" + (f", most in {called}" if called else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--most", type=int, default=3, help="functions to show of each stage")
    parser.add_argument("options", nargs="*", help="of specialsam specialize")
    asked = parser.parse_args()
    data, run, stacks = asked.out / "data", asked.out / "run", asked.out / "stacks.txt"
    if not data.exists():
        write_dataset(data, asked.images, asked.side, seed=20_000, camouflage=1.0)
    shutil.rmtree(run, ignore_errors=True)
    job = [sys.executable, "-m", "specialsam.cli", "specialize", f"folder:{data}", "-o", str(run), *asked.options]
    spy = [str(Path(sys.executable).with_name("py-spy")), "record", "--rate", str(RATE), "--format", "raw"]
    spy += ["--output", str(stacks), "--", *job]
    threads = {"OMP_NUM_THREADS": str(asked.threads)}
    subprocess.run(spy, check=True, env=os.environ | threads, stdout=subprocess.DEVNULL)
    report(stacks, asked.most)


if __name__ == "__main__":
    main()
