"""What a GPU gives: encoders in batches, as they come and as they run here, and a step of tuning.

python benchmarks/gpu.py [--model sam_vit_h] [--batches 1 8] [--seconds 2] [--json FILE]

Weights are random, which changes no time. The card's own peaks are measured first, as products of 8192 x 8192 matrices,
and the floating-point operations of an image are counted from the architecture (those that the padding of windows adds
are not work), so that the share of the peak is of what had to be done. Sides are timed in turn, medians of calls.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specialsam.core.geometry import Geometry
from specialsam.core.place import Place, here
from specialsam.core.types import Embedding
from specialsam.models.architectures import build
from specialsam.models.sam import as_transformers
from specialsam.models.segmenter import Segmenter
from specialsam.models.vit import FastViT
from specialsam.models.zoo import CARDS, Card, VitNumbers
from specialsam.training.loop import train
from specialsam.training.losses import mixed, resolve_mix
from specialsam.training.settings import TrainSettings
from specialsam.training.state import Item, TrainingData

HEIGHT, WIDTH = 768, 1024
OBJECTS = 4
DIFFERENT = 32
"""Different images of the training measurement."""


def seconds(call: Callable[[], object], budget: float) -> float:
    """Median seconds of a call on the GPU, of as many as fit in `budget` (three at least), after two to warm up."""
    for _ in range(2):
        call()
    torch.cuda.synchronize()
    spent: list[float] = []
    while len(spent) < 3 or sum(spent) < budget:
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return float(np.median(spent))


def peak(dtype: torch.dtype, budget: float, side: int = 8192) -> float:
    """Floating-point operations a second of a plain matrix product."""
    one, other = (torch.randn(side, side, device="cuda", dtype=dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: one @ other, budget)


def operations(card: Card) -> float:
    """Floating-point operations that one image costs the ViT of a card, attention in windows without padding."""
    numbers = card.numbers
    assert isinstance(numbers, VitNumbers)
    cells, width = (card.side // numbers.patch) ** 2, numbers.width
    total = 2.0 * 3 * numbers.patch**2 * width * cells
    for number in range(numbers.blocks):
        seen = cells if number in numbers.global_blocks else numbers.window**2
        total += 24 * width**2 * cells + 4 * cells * seen * width
    return total + 2 * width * card.channels * cells + 2 * 9 * card.channels**2 * cells


def encoders(card: Card, sam: Any) -> dict[str, Callable[[Tensor], Tensor]]:
    """Ways to run one encoder, by name: pixels float32 (B, 3, S, S) to embeddings."""

    def as_it_comes(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return sam.vision_encoder(pixels).last_hidden_state  # type: ignore[no-any-return]

    def autocast(pixels: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            return sam.vision_encoder(pixels).last_hidden_state.float()  # type: ignore[no-any-return]

    return {
        "transformers fp32": as_it_comes,
        "transformers bf16 autocast": autocast,
        "ours fp32": FastViT(sam.vision_encoder),
        "ours bf16": FastViT(sam.vision_encoder, torch.bfloat16),
        "ours bf16 compiled": FastViT(sam.vision_encoder, torch.bfloat16, compiled=True),
    }


def measure_encoders(name: str, batches: list[int], budget: float, bf16: float) -> list[dict[str, Any]]:
    card = CARDS[name]
    torch.manual_seed(0)
    sam = build(card)
    with torch.no_grad():
        for layer in sam.vision_encoder.layers:
            layer.attn.rel_pos_h.normal_(std=0.1)
            layer.attn.rel_pos_w.normal_(std=0.1)
    sam.to("cuda")
    work, rows = operations(card), []
    truth: Tensor | None = None
    for batch in batches:
        pixels = torch.randn(batch, 3, card.side, card.side, generator=torch.Generator().manual_seed(1)).cuda()
        for way, run in encoders(card, sam).items():
            answer = run(pixels[:1]).double()
            truth = answer if truth is None else truth
            gap = float((answer - truth).norm() / truth.norm())
            began = time.perf_counter()
            run(pixels)
            torch.cuda.synchronize()
            first = time.perf_counter() - began
            rate = batch / seconds(lambda run=run, pixels=pixels: run(pixels), budget)  # type: ignore[misc]
            rows.append(
                {
                    "model": name, "way": way, "batch": batch, "images_per_second": rate,
                    "share_of_peak": rate * work / bf16, "relative_error": gap, "first_call_s": first,
                }
            )  # fmt: skip
            print(
                f"{name} {way:28} batch {batch:2}: {rate:7.2f} images/s, {rate * work / 1e12:6.1f} TFLOP/s, "
                f"{100 * rate * work / bf16:5.1f} % of the bf16 peak, error {gap:.1e}, first call {first:.1f} s",
                flush=True,
            )
    return rows


def ellipses(number: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Some objects, bool (OBJECTS, HEIGHT, WIDTH)."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    planes = []
    for _ in range(OBJECTS):
        y, x, a, b = rng.uniform((200, 200, 40, 40), (HEIGHT - 200, WIDTH - 200, 200, 200))
        planes.append(((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < 1)
    return np.stack(planes)


def seeds_step(sam: Any, embedding: Tensor, mask: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """The seed's step: one image, one box, transformers' forward from the stored embedding, loss at the mask's size."""
    rows, columns = torch.nonzero(mask, as_tuple=True)
    box = torch.stack([columns.min(), rows.min(), columns.max(), rows.max()]).float()[None, None]
    answer = sam(image_embeddings=embedding[None].cuda().float(), input_boxes=box, multimask_output=False)
    whole = torch.nn.functional.interpolate(answer.pred_masks[0], (1024, 1024), mode="bilinear")
    large = whole[..., :HEIGHT, :WIDTH].flatten(0, 1)
    loss = mixed(large, mask[None].float(), torch.ones_like(large), resolve_mix("half")).mean()
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def ours(segmenter: Segmenter, batch: int, images: int, place: Place) -> dict[str, float]:
    """Objects a second of `train` after its first third, and the share of its time that reading takes."""
    frame = Geometry(HEIGHT, WIDTH, segmenter.side)
    stored = [Embedding(torch.randn(256, 64, 64).half(), frame) for _ in range(DIFFERENT)]
    drawn = [ellipses(number) for number in range(DIFFERENT)]
    items = [Item(f"{number}", f"{number}") for number in range(images)]
    data = TrainingData(
        items,
        [],
        lambda chosen: [stored[int(item.id) % DIFFERENT] for item in chosen],
        lambda item: drawn[int(item.id) % DIFFERENT],
    )
    stamps: list[float] = []
    settings = TrainSettings(batch=batch, objects=OBJECTS, epochs=max(2, batch // 4), keep="last")
    with tempfile.TemporaryDirectory() as folder:
        result = train(segmenter, data, settings, Path(folder), place, lambda *_: stamps.append(time.perf_counter()))
    skip = len(stamps) // 3
    rate = (len(stamps) - 1 - skip) * batch * OBJECTS / (stamps[-1] - stamps[skip])
    spent = sum(facts.seconds for facts in result.history[1:])
    read = sum(facts.read_seconds for facts in result.history[1:])
    return {f"ours, {batch} images x {OBJECTS} objects": rate, f"ours, {batch} images: share of reading": read / spent}


def measure_training(budget: float, images: int = 256, batches: tuple[int, ...] = (4, 16, 64)) -> dict[str, float]:
    """Objects a second of the seed's step and of `train`, on the decoder of MobileSAM's architecture."""
    torch.manual_seed(0)
    card = CARDS["mobile_sam"]
    seed = as_transformers(build(card)).to("cuda")
    seed.mask_decoder.requires_grad_(True)
    optimizer = torch.optim.Adam(seed.mask_decoder.parameters(), lr=1e-5)
    embeddings = [torch.randn(256, 64, 64) for _ in range(DIFFERENT)]
    planes = [torch.from_numpy(ellipses(number)[0]).cuda() for number in range(DIFFERENT)]
    turn = iter(range(1_000_000))

    def step() -> None:
        number = next(turn) % DIFFERENT
        seeds_step(seed, embeddings[number], planes[number], optimizer)

    rates = {"the seed's step, 1 image x 1 object": 1 / seconds(step, budget)}
    segmenter, place = Segmenter("mobile", build(card), card.side), here("cuda")
    for batch in batches:
        rates |= ours(segmenter, batch, images, place)
    for name, rate in rates.items():
        print(f"{name:40} {rate:9.2f}", flush=True)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="*", default=["sam_vit_b", "sam_vit_h"])
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 8])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("expected a GPU, found none")
    peaks = {name: peak(dtype, asked.seconds) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    print(torch.cuda.get_device_name(), {name: f"{value / 1e12:.0f} TFLOP/s" for name, value in peaks.items()})
    rows = []
    training = measure_training(asked.seconds)
    for name in asked.model:
        rows += measure_encoders(name, asked.batches, asked.seconds, peaks["bf16"])
    if asked.json:
        asked.json.write_text(json.dumps({"peaks": peaks, "encoders": rows, "training": training}, indent=1))


if __name__ == "__main__":
    main()
