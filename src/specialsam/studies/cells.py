"""One cell of an experiment: a copy of the decoder, tuned on some images and measured on others, kept in a journal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from specialsam.advice.probes.blind import blind, blind_decoder
from specialsam.core.ledger import Journal, digest
from specialsam.core.place import Place
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone
from specialsam.training.loop import per_image_iou, train
from specialsam.training.settings import TrainSettings
from specialsam.training.state import Item, TrainingData


@dataclass(frozen=True)
class Bench:
    """Where cells are tuned: the journal of finished ones, the model that each begins with, and the place."""

    journal: Journal
    segmenter: Segmenter
    place: Place


def cell_iou(
    bench: Bench,
    name: str,
    learned: TrainingData,
    measured: TrainingData,
    settings: TrainSettings,
    *,
    blinded: bool = False,
) -> list[float]:
    """IoU (0 to 1) of each image in `measured.val`, after tuning a copy of the bench's model on `learned.train`.

    `blinded` tunes and measures on one constant embedding instead. A finished cell is read where it was made from the
    same model, images, masks and settings; an interrupted one goes on where it was.
    """
    segmenter, place = bench.segmenter, bench.place
    who = segmenter.encoder_id, segmenter.decoder_id
    made_from = digest(who, settings.model_dump(mode="json"), _named(learned.train), _named(measured.val), blinded)
    kept = place.first(lambda: dict(bench.journal.answers({name: made_from})))
    if name in kept:
        return list(kept[name])
    state = bench.journal.path.parent / f"{name.replace(' ', '-')}-{made_from[:8]}"
    state.mkdir(parents=True, exist_ok=True)
    if blinded:
        tuned, _ = blind_decoder(segmenter, learned, settings, state, place)
        found = per_image_iou(tuned, blind(measured), settings, place.spread)
    else:
        tuned = clone(segmenter, name)
        train(tuned, learned, settings, state, place)
        found = per_image_iou(tuned, measured, settings, place.spread)
    if place.main:
        bench.journal.put(name, made_from, found)
        shutil.rmtree(state)
    return found


def _named(items: Sequence[Item]) -> list[list[str]]:
    return [[item.id, item.key, item.masks] for item in items]
