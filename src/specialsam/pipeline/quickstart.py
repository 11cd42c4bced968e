"""The whole job on generated images with the bundled model: what a newcomer runs first."""

from __future__ import annotations

from pathlib import Path

from specialsam.core.console import say, stage
from specialsam.pipeline.job import Request
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.pipeline.specialize import Outcome, run_specialize
from specialsam.synth.scenes import write_dataset

SIDE = 384
"""Pixels a side of the generated images."""
SETTINGS = {
    "fractions": (0.5, 0.2, 0.3),
    "train": {"patience": 4, "replay_pool": 16},
    "finder": {"epochs": 12, "grid": 4},
    "guard": {"retention_images": 20},
    "probes": 12,
    "evaluate": {"strategies": ["interior", "edge", "grid4", "box"], "groups": ["overlap", "boundary", "canny"]},
    "duplicates": False,
}


def run_quickstart(folder: Path, images: int, device: str = "auto") -> Outcome | None:
    """Generate `images` camouflaged animals, specialise nano on them, and print the table and where the report is."""
    data = folder / "data"
    say(f"quickstart: {images} generated images of camouflaged animals, the bundled model nano, no network needed")
    with stage("generating images") as progress:
        write_dataset(data, images, SIDE, seed=20_000, camouflage=1.0, progress=progress)
    title = "Quickstart: camouflaged animals, generated"
    request = Request(f"folder:{data}", "nano", folder / "run", title=title, device=device)
    return run_specialize(request, SpecializeSettings.parse(SETTINGS))
