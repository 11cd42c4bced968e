"""What storing embeddings at half precision or int8 costs, and decoding in bf16: masks against live fp32 ones.

python benchmarks/precision.py SOURCE [--model nano] [--images 100]
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from specialsam.data.loading import load
from specialsam.data.open import open_dataset
from specialsam.data.splits import stable_hash
from specialsam.embeddings import EmbeddingStore
from specialsam.metrics.overlaps import overlap
from specialsam.models.load import load_model
from specialsam.prompts import draw, generator

BF16 = "bf16 decoder"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--images", type=int, default=100)
    asked = parser.parse_args()
    segmenter = load_model(asked.model)
    records = sorted(open_dataset(asked.source).records, key=lambda record: stable_hash(record.id))[: asked.images]
    found: dict[str, list[tuple[float, float, float]]] = {"half": [], "int8": [], BF16: []}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        stores = {name: EmbeddingStore(Path(folder) / name, segmenter.encoder_id, name) for name in ("half", "int8")}
        for record in records:
            sample = load(record)
            live = segmenter.encode(sample.image)
            for strategy in ("interior", "box"):
                for places, prompts in draw(strategy, sample.masks, generator(0, record.id)):
                    exact = segmenter.decode(live, prompts).masks()[:, 0]
                    answers = {}
                    for name, store in stores.items():
                        key = store.key(record.id)
                        if key not in store:
                            with store.writer() as writer:
                                writer.put(key, live, record.id)
                        answers[name] = segmenter.decode(store.get(key), prompts).masks()[:, 0]
                    with torch.autocast(segmenter.device.type, torch.bfloat16):
                        low = segmenter.decode(live, prompts)
                    answers[BF16] = replace(low, logits=low.logits.float()).masks()[:, 0]
                    for name, masks in answers.items():
                        for one, other, truth in zip(exact, masks, sample.masks[places], strict=True):
                            same, before, after = (
                                overlap(a, b)["iou"] for a, b in ((other, one), (one, truth), (other, truth))
                            )
                            found[name].append((same, before, after))
        sizes = {name: sum(entry.bytes for entry in store.entries()) for name, store in stores.items()}
    print(f"{asked.model} on {len(records)} images of {asked.source}, prompts interior and box")
    for name, rows in found.items():
        same, before, after = np.array(rows).T
        print(
            f"{name:12} mask IoU with fp32: median {np.median(same):.4f}, 5 % worst {np.quantile(same, 0.05):.4f}; "
            f"IoU with the truth {before.mean():.4f} -> {after.mean():.4f}"
            + (f"; {sizes[name] / len(records) / 1e6:.3f} MB an image" if name in sizes else "")
        )


if __name__ == "__main__":
    main()
