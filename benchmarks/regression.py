"""Have we become slower? Ratios to plain alternatives, timed in turn, against the ratios that are on record.

python benchmarks/regression.py [--rounds 5] [--record]

Each pair does the same work, ours and an ordinary way. Times differ from machine to machine and with what else runs, so
only ratios count: one that has fallen by more than a third of what `ratios.json` holds fails the command (exit code 1).
`--record` writes the ratios of this run instead. Some 40 seconds on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from pycocotools import mask as coco
from speed import interleaved, transformers_decode
from torch.nn import functional

from specialsam.core.console import say
from specialsam.core.geometry import Geometry
from specialsam.core.masks import to_rle
from specialsam.core.place import here
from specialsam.core.types import Embedding, Prompts
from specialsam.models.load import load_model
from specialsam.models.sam import as_transformers
from specialsam.models.segmenter import THREE, Segmenter
from specialsam.models.specialist import clone
from specialsam.training.loop import train
from specialsam.training.losses import mixed, resolve_mix
from specialsam.training.settings import TrainSettings
from specialsam.training.state import Item, TrainingData

RECORD = Path(__file__).with_name("ratios.json")
FALLEN = 2 / 3
"""Share of the recorded ratio below which a pair has become slower."""
HEIGHT, WIDTH, OBJECTS, IMAGES = 600, 800, 4, 4
Call = Callable[[], object]


def discs(count: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.bool_]]:
    """bool (count, HEIGHT, WIDTH)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([(rows - 80 - 60 * n) ** 2 + (columns - 100 - 80 * n) ** 2 < 70**2 for n in range(count)])


def decoding(segmenter: Segmenter, embedding: Embedding, count: int) -> tuple[Call, Call]:
    points = np.random.default_rng(0).uniform(0, 500, (count, 1, 2)).astype(np.float32)
    prompts = Prompts("click", points=points, labels=np.ones((count, 1), np.int64))
    ours = partial(segmenter.decode_outputs, embedding, prompts, THREE)
    return ours, partial(transformers_decode, as_transformers(segmenter.sam), embedding, prompts)


def tuning(segmenter: Segmenter, embedding: Embedding) -> tuple[Call, Call]:
    """Two steps on IMAGES images of OBJECTS objects; the seed's step takes one object at a time."""
    masks = discs(OBJECTS)
    items = [Item(f"{n}", f"{n}") for n in range(2 * IMAGES)]
    data = TrainingData(items, [], lambda chosen: [embedding] * len(chosen), lambda item: masks)
    settings = TrainSettings(epochs=1, batch=IMAGES, objects=OBJECTS, keep="last", corrections=0, replay=0)
    place = here("cpu")

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            train(clone(segmenter, "tuned"), data, settings, Path(folder), place)

    seed = as_transformers(segmenter.sam)
    seed.mask_decoder.requires_grad_(True)
    optimizer = torch.optim.Adam(seed.mask_decoder.parameters(), lr=1e-5)
    frame = embedding.geometry

    def seeds() -> None:
        for number in range(2 * IMAGES * OBJECTS):
            mask = torch.from_numpy(masks[number % OBJECTS])
            box = torch.from_numpy(frame.boxes_to_model([[30.0, 30.0, 300.0, 300.0]]))[None]
            answer = seed(image_embeddings=embedding.tensor[None].float(), input_boxes=box, multimask_output=False)
            large = frame.logits_to_original(answer.pred_masks[0])[:, 0]
            loss = mixed(large, mask[None].float(), torch.ones_like(large), resolve_mix("half")).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()

    return ours, seeds


def lowering() -> tuple[Call, Call]:
    """Masks to the decoder's frame, against the two resizes of whole planes that define it."""
    masks, frame = discs(OBJECTS), Geometry(HEIGHT, WIDTH, 1024)

    def resized() -> None:
        square = torch.zeros(OBJECTS, 1, frame.side, frame.side)
        for number, mask in enumerate(masks):
            large = cv2.resize(mask.astype(np.float32), frame.resized[::-1], interpolation=cv2.INTER_LINEAR)
            square[number, 0, : large.shape[0], : large.shape[1]] = torch.from_numpy(large)
        functional.avg_pool2d(square, 4)

    return partial(frame.masks_to_logits, masks), resized


def run_lengths() -> tuple[Call, Call]:
    mask = cv2.resize(discs(1)[0].astype(np.uint8), (3000, 2200), interpolation=cv2.INTER_NEAREST) > 0
    return partial(to_rle, mask), lambda: coco.encode(np.asfortranarray(mask.astype(np.uint8)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    nano = load_model("nano")
    embedding = nano.encode(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    pairs = {
        "decode 1 click": decoding(nano, embedding, 1),
        "decode 64 clicks": decoding(nano, embedding, 64),
        "tune, objects a second": tuning(nano, embedding),
        "masks to the decoder's frame": lowering(),
        "run-length coding": run_lengths(),
    }
    calls = {f"{name}, {who}": call for name, pair in pairs.items() for who, call in zip("ab", pair, strict=True)}
    spent = interleaved(calls, asked.rounds)
    ratios = {
        name: float(np.median([b / a for (a, _), (b, _) in zip(spent[f"{name}, a"], spent[f"{name}, b"], strict=True)]))
        for name in pairs
    }
    if asked.record:
        RECORD.write_text(json.dumps({name: round(value, 2) for name, value in ratios.items()}, indent=1) + "\n")
    known = json.loads(RECORD.read_text())
    slower = [name for name, value in ratios.items() if value < FALLEN * known[name]]
    for name, value in ratios.items():
        say(f"{name:32}{value:7.2f} times as fast as the plain way, on record {known[name]:.2f}")
    if slower:
        sys.exit(f"slower by more than a third against the plain way: {', '.join(slower)}")


if __name__ == "__main__":
    main()
