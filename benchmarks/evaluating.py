"""Measuring two models by three prompts: ours, beside a loop that encodes each image for each of them.

python benchmarks/evaluating.py [MODEL ...] [--images 20] [--rounds 3] [--threads 1]

The loop is what an evaluation script usually is: for each model, prompt and image the encoder, transformers'
decoder and the IoU of the masks. Ours is `evaluation.evaluate` with IoU and Dice alone, and with all that it measures
by default (boundaries, the measures of camouflage, the single mask and the three, rivals). The second model is the
first with other weights in its decoder, as a specialist is; MobileSAM's weights are random. All are timed in turn, in
one process.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import interleaved, transformers_decode

from specialsam.core.console import say
from specialsam.core.types import Record, Sample
from specialsam.evaluation.evaluate import EvaluateSettings, Measuring, evaluate, live
from specialsam.metrics.overlaps import overlap
from specialsam.models.architectures import build
from specialsam.models.load import load_model
from specialsam.models.sam import as_transformers
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone
from specialsam.models.zoo import CARDS
from specialsam.prompts import draw, generator
from specialsam.synth.scenes import scene

PROMPTS = ("interior", "edge", "box")


def pair(name: str) -> dict[str, Segmenter]:
    """A model and one with another decoder on its encoder."""
    torch.manual_seed(0)
    card = CARDS.get(name)
    base = load_model(name) if card is None else Segmenter(name, build(card), card.side)
    tuned = clone(base, "tuned")
    with torch.no_grad():
        for parameter in tuned.sam.mask_decoder.parameters():  # type: ignore[union-attr]
            parameter.mul_(1.001)
    return {"base": base, "tuned": tuned}


def loop(models: dict[str, Segmenter], theirs: dict[str, Any], samples: list[Sample]) -> dict[str, float]:
    """Mean IoU of each model: the encoder inside the loop over models, prompts and images."""
    means = {}
    for name, segmenter in models.items():
        found = []
        for strategy in PROMPTS:
            for sample in samples:
                embedding = segmenter.encode(sample.image)
                for places, prompts in draw(strategy, sample.masks, generator(0, "evaluation", sample.id, strategy)):
                    logits = transformers_decode(theirs[name], embedding, prompts, three=False)
                    masks = (embedding.geometry.logits_to_original(logits) > 0).numpy()[:, 0]
                    found += [overlap(m, t)["iou"] for m, t in zip(masks, sample.masks[places], strict=True)]
        means[name] = float(np.mean(found))
    return means


def ours(models: dict[str, Segmenter], samples: list[Sample], settings: EvaluateSettings, radius: float | None) -> Any:
    """Rows of all samples."""
    by_id = {sample.id: sample for sample in samples}
    how = Measuring(lambda record: by_id[record.id], live, settings, {"run": "", "dataset": "", "split": ""})
    return [row for rows in evaluate(models, [sample.record for sample in samples], how, radius) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["nano"])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    made = [(f"s{number}", scene(30_000 + number, 384)) for number in range(asked.images)]
    samples = [Sample(Record(name, Path(name)), one.image, one.masks[:2]) for name, one in made]
    little = EvaluateSettings(strategies=PROMPTS, groups=("overlap",))
    whole = EvaluateSettings(strategies=PROMPTS)
    for name in asked.models:
        models = pair(name)
        theirs = {key: as_transformers(model.sam) for key, model in models.items()}
        rows = ours(models, samples, little, None)
        for key, mean in loop(models, theirs, samples).items():
            own = [row.value for row in rows if (row.model, row.output, row.metric) == (key, "single", "iou")]
            if abs(float(np.mean(own)) - mean) > 1e-3:
                raise ValueError(f"expected the same IoU of {key} by both ways, got {np.mean(own)} and {mean}")
        calls = {
            "loop": partial(loop, models, theirs, samples),
            "ours, IoU": partial(ours, models, samples, little, None),
            "ours, all": partial(ours, models, samples, whole, 0.2),
        }
        spent = interleaved(calls, asked.rounds)
        plain = np.array(spent["loop"])[:, 0]
        for call in ("ours, IoU", "ours, all"):
            ratios = np.sort(plain / np.array(spent[call])[:, 0])
            say(
                f"{name}, {asked.images} images: {call} {np.median(ratios):.1f} times as fast as the loop "
                f"({ratios[0]:.1f} to {ratios[-1]:.1f}), {np.median(spent[call], 0)[0] / 1000:.1f} s"
            )


if __name__ == "__main__":
    main()
