"""Time of one encode and one decode, of nano against MobileSAM's architecture, and of our decode against transformers'.

python benchmarks/speed.py [--rounds 5] [--threads 2]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from specialsam.core.types import Prompts
from specialsam.models.architectures import build
from specialsam.models.load import load_model
from specialsam.models.segmenter import THREE, Segmenter
from specialsam.models.zoo import CARDS


def timed(call: Callable[[], object], rounds: int) -> float:
    """Median milliseconds of `rounds` calls after one to warm up."""
    call()
    spent = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - began))
    return float(np.median(spent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    image = np.random.default_rng(0).integers(0, 255, (768, 1024, 3), dtype=np.uint8)
    mobile = Segmenter("mobile_sam (random weights)", build(CARDS["mobile_sam"]), 1024)
    spent = {}
    for segmenter in (load_model("nano"), mobile):
        embedding = segmenter.encode(image)
        for count in (1, 64):
            points = np.random.default_rng(1).uniform(0, 700, (count, 1, 2)).astype(np.float32)
            prompts = Prompts("click", points=points, labels=np.ones((count, 1), np.int64))
            ours = timed(lambda s=segmenter, e=embedding, p=prompts: s.decode_outputs(e, p, THREE), asked.rounds)
            theirs = timed(lambda s=segmenter, e=embedding, p=prompts: _transformers(s, e, p), asked.rounds)
            print(
                f"{segmenter.name}: decode {count}: {ours:.1f} ms, "
                f"transformers' {theirs:.1f} ms, ratio {theirs / ours:.2f}"
            )
            spent[segmenter.name, count] = ours
        spent[segmenter.name, 0] = timed(lambda s=segmenter: s.encode(image), asked.rounds)
        print(f"{segmenter.name}: encode {spent[segmenter.name, 0]:.1f} ms")
    own, other = (spent[name, 0] + spent[name, 1] for name in ("nano", mobile.name))
    print(
        f"one image and one prompt: nano {own:.1f} ms, MobileSAM's architecture {other:.1f} ms, ratio {other / own:.1f}"
    )


def _transformers(segmenter: Segmenter, embedding: object, prompts: Prompts) -> object:
    with torch.no_grad():
        return segmenter.sam(
            image_embeddings=embedding.tensor[None],  # type: ignore[attr-defined]
            input_points=torch.from_numpy(embedding.geometry.points_to_model(prompts.points))[None],  # type: ignore[attr-defined]
            input_labels=torch.from_numpy(prompts.labels)[None],
            multimask_output=True,
        )


if __name__ == "__main__":
    main()
