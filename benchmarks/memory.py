"""Peak memory of embed, tune and evaluate for a small and a large number of images: it must be the same.

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

RUN = """
import sys
from pathlib import Path
from specialsam.core.machine import peak_memory_mb
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.pipeline.specialize import run_specialize
from specialsam.pipeline.job import Request
settings = {"train": {"epochs": 1}, "duplicates": False}
settings["evaluate"] = {"strategies": ["interior"], "groups": ["overlap"]}
run_specialize(Request(sys.argv[1], "nano", Path(sys.argv[2])), SpecializeSettings.parse(settings))
print(f"peak {peak_memory_mb():.0f} MB")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000])
    for count in parser.parse_args().sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_dataset(Path(folder) / "data", count, 128, 0)
            call = [sys.executable, "-c", RUN, f"folder:{folder}/data", f"{folder}/run"]
            out = subprocess.run(call, capture_output=True, text=True, check=True).stdout
            print(f"{count} images: {out.strip().splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
