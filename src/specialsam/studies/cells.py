"""One cell of an experiment: a copy of the decoder, tuned on some images and measured on others, kept in one file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from specialsam.advice.guard.mixtures import per_image_iou
from specialsam.advice.probes.blind import blind, blind_decoder
from specialsam.core.files import write_whole
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone
from specialsam.training.loop import train
from specialsam.training.settings import TrainSettings
from specialsam.training.state import TrainingData


def cell_iou(
    path: Path,
    made_by: Mapping[str, Any],
    segmenter: Segmenter,
    learned: TrainingData,
    measured: TrainingData,
    settings: TrainSettings,
    *,
    blinded: bool = False,
) -> list[float]:
    """IoU (0 to 1) of each image in `measured.val`, after tuning a copy of `segmenter` on `learned.train`.

    `blinded` tunes and measures on one constant embedding instead. `path` keeps the answer beside `made_by` and the
    model's identity, and is read where both are unchanged; an interrupted cell goes on where it was.
    """
    identity = {**made_by, "encoder": segmenter.encoder_id, "decoder": segmenter.decoder_id}
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text())
        if all(kept.get(name) == value for name, value in identity.items()):
            return list(kept["iou"])
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    state = path.with_name(f"{path.stem}-{digest[:8]}")
    state.mkdir(parents=True, exist_ok=True)
    if blinded:
        tuned, _ = blind_decoder(segmenter, learned, settings, state, Accelerator())
        found = per_image_iou(tuned, blind(measured), settings)
    else:
        tuned = clone(segmenter, path.stem)
        train(tuned, learned, settings, state, Accelerator())
        found = per_image_iou(tuned, measured, settings)
    write_whole(path, lambda place: place.write_text(json.dumps({**identity, "iou": found})))
    shutil.rmtree(state)
    return found
