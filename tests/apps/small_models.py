"""What the tests of new images share: a SAM of 64 pixels with random weights, a specialist of it, tiny photographs."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from specialsam.apps.answers import Answer, FoundObject, objects_of, surest_first
from specialsam.core.geometry import BoolArray, Geometry, ImageArray
from specialsam.core.types import Embedding, Prediction, Prompts
from specialsam.models.finder import By, Finder
from specialsam.models.finder_files import Alarm, FinderParts
from specialsam.models.folder import save_pretrained
from specialsam.models.nano import build_nano
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import SpecialistCard, clone, save_specialist

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


def found_objects(masks: BoolArray, scores: Sequence[float], labels: Sequence[str] = ()) -> tuple[FoundObject, ...]:
    """Masks (P, H, W) as an answer's objects, the surest first, empty ones left out."""
    given = np.array(scores)
    return objects_of(masks, given, surest_first(masks, given), labels)


def answers_of(out: Path) -> dict[str, Answer]:
    """What the journal of a folder holds, by file; each file must stand there once."""
    kept = [json.loads(line.split(" ", 1)[1]) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert len({name for name, _, _ in kept}) == len(kept)
    return {name: Answer.read(answer) for name, _, answer in kept}


def enormous(path: Path, side: int = 60_000) -> None:
    """A PNG of a few bytes whose header says that it has 3.6 gigapixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b""))
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def broken(folder: Path) -> Mapping[str, str]:
    """Files that are no photographs, each in its own way, and a word of what must be said of each."""
    whole = folder / "whole.png"
    Image.fromarray(picture(99)).save(whole)
    content = whole.read_bytes()
    Image.fromarray(picture(99)).save(folder / "whole.jpg")
    shorter = (folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").unlink()
    whole.unlink()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "cut.jpg").write_bytes(shorter[:300])
    (folder / "text.jpg").write_text("this is no picture")
    (folder / "void.jpg").write_bytes(b"")
    (folder / "noise.tif").write_bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes())
    enormous(folder / "enormous.png")
    (folder / "film.jpg").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 500)
    return {
        "cut.png": "damaged or cut short",
        "cut.jpg": "damaged or cut short",
        "text.jpg": "expected an image file",
        "void.jpg": "the file is empty",
        "noise.tif": "expected an image file",
        "enormous.png": "3600 megapixels, more than the limit of 200; cut it into tiles, scale it down",
        "film.jpg": "expected an image file",
    }


def as_csv(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def as_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def refused(answer: tuple[int, str, str], code: int, *words: str) -> None:
    """The call ended with `code` and one line that begins with "error:" and holds all `words`."""
    found, _, err = answer
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert not err.startswith("error: unexpected "), f"an error that nobody thought of: {err}"
    for word in words:
        assert word in lines[0], lines[0]
    assert found == code
