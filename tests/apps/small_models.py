"""What the tests of new images share: a SAM of 64 pixels with random weights, a specialist of it, tiny photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from specialsam.apps.answers import Answer
from specialsam.core.geometry import BoolArray, Geometry, ImageArray
from specialsam.core.types import Embedding, Prediction, Prompts
from specialsam.models.finder import By, Finder
from specialsam.models.folder import save_pretrained
from specialsam.models.nano import build_nano
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import Alarm, FinderParts, SpecialistCard, clone, save_specialist

torch.set_num_threads(1)
SIDE, CHANNELS = 64, 128


def small(seed: int = 1, side: int = SIDE) -> Segmenter:
    """A SAM whose answers are blots that follow from seed, picture and prompt."""
    torch.manual_seed(seed)
    return Segmenter("small", build_nano("conv", side), side)


def pointed(self: Segmenter, embedding: Embedding, prompts: Prompts, outputs: slice) -> Prediction:
    """In place of `Segmenter.decode_outputs`: a disc where each prompt points, as large as its box.

    Random weights answer the same to whatever prompt; this tells prompts apart, and decoders by their id.
    """
    geometry, side = embedding.geometry, embedding.geometry.logits_side
    places = np.arange(side) * 4 + 1.5
    size = 0.7 + int(self.decoder_id[:4], 16) / 2**17
    logits = np.zeros((len(prompts), 4, side, side), np.float32)
    scores = np.zeros((len(prompts), 4), np.float32)
    for number in range(len(prompts)):
        x, y, radius = _disc(geometry, prompts[[number]])
        distance = np.hypot(places[:, None] - y, places - x)
        for output in range(4):
            logits[number, output] = np.clip(size * radius * (1 + output / 3) - distance, -8, 8)
            scores[number, output] = 0.9 - np.hypot(x - 30, y - 20) / 400 - output / 50
    return Prediction(torch.from_numpy(logits[:, outputs]), torch.from_numpy(scores[:, outputs]), geometry)


def _disc(geometry: Geometry, prompt: Prompts) -> tuple[float, float, float]:
    """Middle (x, y) and radius in the model's pixels."""
    if prompt.boxes is not None:
        x0, y0, x1, y1 = geometry.boxes_to_model(prompt.boxes)[0]
        if prompt.points is None:
            return (x0 + x1) / 2, (y0 + y1) / 2, max(6.0, min(x1 - x0, y1 - y0) / 2)
        radius = max(6.0, min(x1 - x0, y1 - y0) / 3)
    else:
        radius = 9.0
    assert prompt.points is not None
    assert prompt.labels is not None
    x, y = geometry.points_to_model(prompt.points[0][prompt.labels[0] == 1]).mean(0)
    return x, y, radius


def finder(by: By = "both", seed: int = 1, threshold: float = 0.0) -> Finder:
    """A finder that shows all of its proposals unless it is given a threshold."""
    torch.manual_seed(seed)
    made = Finder(CHANNELS, 16, 1, by)
    made.threshold.fill_(threshold)
    return made.eval().requires_grad_(False)


def specialist(
    folder: Path, found_by: Finder | None, seed: int = 0, good: Sequence[float] = (), base: Segmenter | None = None
) -> Path:
    """A specialist folder with its base beside it; its decoder is moved by the seed, 0 leaves the base's."""
    whole = base or small()
    if not (folder.parent / "base").exists():
        save_pretrained(whole, folder.parent / "base")
    tuned = clone(whole, "animals")
    if seed:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weights in tuned.sam.mask_decoder.parameters():  # type: ignore[union-attr]
                weights.add_(0.03 * torch.randn(weights.shape, generator=generator))
    fields: dict[str, Any] = {
        "name": "animals",
        "base": str(folder.parent / "base"),
        "base_encoder_id": whole.encoder_id,
        "base_decoder_id": whole.decoder_id,
        "side": SIDE,
        "tuned": "decoder",
        "alarm": Alarm(good_scores=list(good)),
    }
    return save_specialist(tuned, SpecialistCard(**fields), folder, FinderParts(found_by))


def picture(seed: int, size: tuple[int, int] = (48, 64)) -> ImageArray:
    """Noise with a bright square."""
    rng = np.random.default_rng(seed)
    made = rng.integers(40, 120, (*size, 3)).astype(np.uint8)
    y, x = rng.integers(0, max(1, size[0] // 2)), rng.integers(0, max(1, size[1] // 2))
    made[y : y + size[0] // 3, x : x + size[1] // 3] += 120
    return made


def photographs(folder: Path, *names: str, first: int = 0) -> Path:
    """Files of different pictures under these names; PNG, so that they are read back as they are."""
    for number, name in enumerate(names, first):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(folder / name)
    return folder


def decoded(segmenter: Segmenter, image: ImageArray, prompts: Prompts) -> BoolArray:
    """The segmenter's own answer, bool (P, H, W)."""
    return segmenter.decode(segmenter.encode(image), prompts).masks()[:, 0]


def answers_of(out: Path) -> dict[str, Answer]:
    """What the journal of a folder holds, by file; each file must stand there once."""
    import json

    kept = [json.loads(line.split(" ", 1)[1]) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert len({name for name, _, _ in kept}) == len(kept)
    return {name: Answer.read(answer) for name, _, answer in kept}
