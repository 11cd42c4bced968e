"""Peak memory of the main job, and of an evaluation alone, for a small and a large number of images.

Each size runs in a process of its own on generated images (by default 100 and 1,000 of 128 px).

    python benchmarks/memory.py [--sizes 100 1000]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from specialsam.synth.scenes import write_dataset

SPECIALIZE = """
import sys
from specialsam import specialize
from specialsam.core.machine import peak_memory_mb
settings = {"train": {"epochs": 1}, "duplicates": False}
settings["evaluate"] = {"strategies": ["interior"], "groups": ["overlap"]}
specialize(sys.argv[1], "nano", sys.argv[2], settings)
print(f"{peak_memory_mb():.0f} MB")
"""
EVALUATE = """
import sys
from specialsam import evaluate
from specialsam.core.machine import peak_memory_mb
evaluate(sys.argv[1], ["nano"], sys.argv[2], {"strategies": ["interior", "box"], "groups": ["overlap"]}, split="all")
print(f"{peak_memory_mb():.0f} MB")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000])
    for count in parser.parse_args().sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_dataset(Path(folder) / "data", count, 128, 0)
            for name, job in (("specialize", SPECIALIZE), ("evaluate", EVALUATE)):
                call = [sys.executable, "-c", job, f"folder:{folder}/data", f"{folder}/{name}"]
                out = subprocess.run(call, capture_output=True, text=True, check=True).stdout
                print(f"{count} images, {name}: peak {out.strip().splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
