"""Time of one encode, of decoding 1 and 64 clicks (ours, transformers'), of finding by a finder and by a point grid.

Of nano and of MobileSAM's architecture.

python benchmarks/speed.py [--rounds 7] [--threads 1]

All sides are timed in turn in every round, so that other work on the machine hits them alike; ratios are taken within a
round. A short call is repeated within its turn until 50 ms are over. The image has 1024 x 768 pixels; weights of
MobileSAM's architecture are random, which changes no time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specialsam.core.console import say, stage
from specialsam.core.types import Embedding, Prompts
from specialsam.models.architectures import build
from specialsam.models.finder import Finder, find, propose
from specialsam.models.grid import find_on_grid
from specialsam.models.load import load_model
from specialsam.models.sam import as_transformers
from specialsam.models.segmenter import THREE, Segmenter
from specialsam.models.zoo import CARDS

COUNTS = (1, 8, 64)
"""Clicks, one an object, that are decoded at once."""
TURN = 0.05
"""Seconds that a short call is repeated for within its turn."""
MOBILE = "MobileSAM's architecture"

Times = dict[str, list[tuple[float, float]]]
"""Milliseconds of each call by round: on the wall's clock, and of the process on all its threads."""


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of a call, wall and CPU: the mean over one turn."""
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    while count == 0 or time.perf_counter() - wall < TURN:
        call()
        count += 1
    return 1000 * (time.perf_counter() - wall) / count, 1000 * (time.process_time() - cpu) / count


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int) -> Times:
    """Times of every call in each round, after one round to warm up."""
    spent: Times = {name: [] for name in calls}
    with stage("timing") as progress:
        for number in range(rounds + 1):
            for name, call in calls.items():
                progress(number, rounds + 1, name)
                took = timed(call)
                if number:
                    spent[name].append(took)
        progress(rounds + 1, rounds + 1, "")
    return spent


def transformers_decode(theirs: Any, embedding: Embedding, prompts: Prompts, three: bool = True) -> Tensor:
    """Low-res logits (P, C, L, L) by the forward pass of transformers' `SamModel`: `three` masks or the single one."""
    given: dict[str, Tensor] = {}
    if prompts.points is not None:
        given["input_points"] = torch.from_numpy(embedding.geometry.points_to_model(prompts.points))[None]
        given["input_labels"] = torch.from_numpy(prompts.labels)[None]
    if prompts.boxes is not None:
        given["input_boxes"] = torch.from_numpy(embedding.geometry.boxes_to_model(prompts.boxes))[None]
    with torch.no_grad():
        answer = theirs(image_embeddings=embedding.tensor[None], multimask_output=three, **given)
    logits: Tensor = answer.pred_masks[0]
    return logits


def calls_of(segmenter: Segmenter, name: str) -> dict[str, Callable[[], object]]:
    """What is timed of a model, by name. ValueError where the two ways to decode disagree."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (768, 1024, 3), dtype=np.uint8)
    embedding = segmenter.encode(image)
    own = as_transformers(segmenter.sam)
    calls: dict[str, Callable[[], object]] = {f"{name}: encode": partial(segmenter.encode, image)}
    for count in COUNTS:
        points = rng.uniform(0, 700, (count, 1, 2)).astype(np.float32)
        prompts = Prompts("click", points=points, labels=np.ones((count, 1), np.int64))
        ours = partial(segmenter.decode_outputs, embedding, prompts, THREE)
        theirs = partial(transformers_decode, own, embedding, prompts)
        gap = float((ours().logits - theirs()).abs().max())
        if gap > 1e-2:
            raise ValueError(f"expected {name}'s logits by both ways to decode to agree, they differ by {gap:.3g}")
        calls |= {f"{name}: decode {count}": ours, f"{name}: transformers' decode {count}": theirs}
    torch.manual_seed(0)
    finder = Finder(embedding.tensor.shape[0]).eval()
    calls[f"{name}: propose"] = partial(propose, finder, embedding)
    calls[f"{name}: find"] = partial(find, finder, segmenter, embedding)
    calls[f"{name}: point grid"] = partial(find_on_grid, segmenter, embedding)
    return calls


def ratio(spent: Times, over: tuple[str, ...], under: tuple[str, ...]) -> str:
    """Wall time of some calls over that of others: median of the rounds' ratios with the lowest and the highest."""
    top, bottom = (np.sum([[wall for wall, _ in spent[name]] for name in names], axis=0) for names in (over, under))
    each = top / bottom
    return f"{np.median(each):.2f} (rounds: {each.min():.2f} to {each.max():.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    if asked.rounds < 1 or asked.threads < 1:
        parser.error("expected at least one round and one thread")
    torch.set_num_threads(asked.threads)
    models = {"nano": load_model("nano"), MOBILE: Segmenter(MOBILE, build(CARDS["mobile_sam"]), 1024)}
    calls: dict[str, Callable[[], object]] = {}
    for name, segmenter in models.items():
        calls |= calls_of(segmenter, name)
    spent = interleaved(calls, asked.rounds)
    say(f"{asked.threads} thread(s), {asked.rounds} rounds; milliseconds, median (quartiles); CPU time on all threads")
    for name, rounds in spent.items():
        wall, cpu = np.array(rounds).T
        low, middle, high = np.quantile(wall, [0.25, 0.5, 0.75])
        say(f"{name:48}{middle:9.1f} ({low:.1f} to {high:.1f}), CPU {np.median(cpu):.1f}")
    for name in models:
        encode = (f"{name}: encode",)
        say(f"{name}: propose over encode {ratio(spent, (f'{name}: propose',), encode)}")
        say(f"{name}: find over encode {ratio(spent, (f'{name}: find',), encode)}")
        say(f"{name}: point grid over find {ratio(spent, (f'{name}: point grid',), (f'{name}: find',))}")
    for name in models:
        for count in COUNTS:
            ours, theirs = f"{name}: decode {count}", f"{name}: transformers' decode {count}"
            say(f"{name}: transformers' decode {count} over ours: {ratio(spent, (theirs,), (ours,))}")
    one = {name: (f"{name}: encode", f"{name}: decode 1") for name in models}
    own = np.median(np.sum([[wall for wall, _ in spent[name]] for name in one["nano"]], axis=0))
    say(f"nano, one encode and one decode: {own:.1f} ms; {MOBILE} over nano: {ratio(spent, one[MOBILE], one['nano'])}")


if __name__ == "__main__":
    main()
