"""Objects of at most six pixels' width: what a model answers in its plain frame, by a second look, and from tiles.

python benchmarks/thin.py OUT [SOURCE ...] [--model nano] [--images 60] [--tile 256] [--epochs 8]

Without sources on generated surfaces of 640 px with one crack of 2 to 5 pixels each; with sources on those objects of
theirs that are so thin nearly everywhere. IoU in percent with 95 % bootstrap intervals over images, by box and by a
click inside, beside the filled box. Then, on the cracks alone, the same for a decoder that was tuned on tiles.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from specialsam.core.console import say
from specialsam.core.geometry import BoolArray
from specialsam.data.loading import load_masks
from specialsam.data.open import open_dataset
from specialsam.evaluation.evaluate import EvaluateSettings
from specialsam.evaluation.results import Results
from specialsam.pipeline.job import Request
from specialsam.pipeline.measure import Comparison, run_evaluate
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.pipeline.specialize import run_specialize
from specialsam.synth.scenes import write_dataset

SIDE, SEED, THIN = 640, 50_000, 6.0
STRATEGIES = ("box", "interior")


def thickness(mask: BoolArray) -> float:
    """Width in pixels of a mask (H, W): twice the distance to its border that 95 % of its pixels keep within."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    return 2 * float(np.quantile(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[padded > 0], 0.95))


def thin_objects(source: str) -> pd.DataFrame:
    """Record and number of each thin object of a data set."""
    found = [
        (record.id, number)
        for record in open_dataset(source).records
        if record.mask_kind != "none"
        for number, mask in enumerate(load_masks(record))
        if mask.any() and thickness(mask) <= THIN
    ]
    return pd.DataFrame(found, columns=["record", "object"])


def shown(title: str, results: Results, thin: pd.DataFrame) -> None:
    """A line for each prompt, model and output, on the thin objects alone."""
    kept = results.frame.merge(thin, on=["record", "object"])
    say(f"{title}: {len(thin)} objects of at most {THIN:.0f} px in {thin['record'].nunique()} images")
    if not len(kept):
        return
    means = Results(kept).summary(("iou",))
    for row in means.sort_values(["strategy", "model", "mean"]).to_dict("records"):
        interval = f"({100 * row['low']:.1f} to {100 * row['high']:.1f}, n {row['n']})"
        say(f"  {row['strategy']:10}{row['model']:22}{row['output']:14}{100 * row['mean']:6.1f} {interval}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", nargs="*", metavar="SOURCE")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=8)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cracks = asked.out / "cracks"
    if not asked.sources:
        write_dataset(cracks, asked.images, SIDE, SEED, cracks=True)
    closer = {"strategies": STRATEGIES, "groups": ("overlap",), "zoom": True, "tiles": {"side": asked.tile}}
    for number, source in enumerate(asked.sources or [str(cracks)]):
        wanted = Comparison(source, [asked.model], asked.out / f"measured-{number}", "all")
        run_evaluate(wanted, EvaluateSettings.model_validate(closer))
        shown(source, Results.read(wanted.folder / "results.parquet"), thin_objects(source))
    if not asked.sources:
        settings = {
            "tiles": {"side": asked.tile},
            "train": {"epochs": asked.epochs, "lr": 3e-4, "prompts": {"random": 0.5, "box_jitter": 0.5}},
            "evaluate": {"strategies": list(STRATEGIES), "groups": ["overlap"], "zoom": True},
            "fractions": [0.5, 0.1, 0.4],
            "guard": {"enabled": False},
            "probes": 0,
        }
        folder = asked.out / "tuned"
        run_specialize(Request(str(cracks), asked.model, folder), SpecializeSettings.parse(settings))
        shown("tuned on tiles", Results.read(folder / "results.parquet"), thin_objects(str(cracks)))


if __name__ == "__main__":
    main()
