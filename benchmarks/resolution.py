"""The best IoU that masks can reach through the low-res logits of a model of a given side, by category of a data set.

python benchmarks/resolution.py SOURCE [--side 384] [--limit 400]

The true mask is reduced to the coverage of each logit, and back to original pixels as a model's logits are.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from specialsam.core.console import say, stage
from specialsam.core.geometry import Geometry
from specialsam.data.loading import load_masks
from specialsam.data.open import open_dataset
from specialsam.data.splits import stable_hash
from specialsam.metrics.overlaps import overlap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--limit", type=int, default=400)
    asked = parser.parse_args()
    records = [record for record in open_dataset(asked.source).records if record.mask_kind != "none"]
    records = sorted(records, key=lambda record: stable_hash(record.id))[: asked.limit]
    found: dict[str, list[tuple[float, float]]] = {}
    with stage("through the logits") as progress:
        for number, record in enumerate(records, 1):
            masks = load_masks(record)
            masks = masks[masks.any((1, 2))]
            frame = Geometry(masks.shape[1], masks.shape[2], asked.side)
            coverage = torch.from_numpy(frame.masks_to_logits(masks) - 0.5)[:, None]
            for mask, back in zip(masks, frame.logits_to_original(coverage)[:, 0].numpy() > 0, strict=True):
                pixels = float(mask.mean()) * frame.resized[0] * frame.resized[1]
                found.setdefault(record.category or "all", []).append((overlap(back, mask)["iou"], pixels))
            progress(number, len(records), record.id)
    for category, rows in sorted(found.items()):
        ious, pixels = np.array(rows).T
        size = f"{len(rows):5} objects, median {np.median(pixels):7.0f} model pixels"
        say(f"{category:24}{size}, IoU {100 * ious.mean():.1f}")


if __name__ == "__main__":
    main()
