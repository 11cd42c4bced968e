"""What can be learned without looking: the same tuning on embeddings that say nothing of the image.

Where prompts and masks alone decide (four fixed clicks on four fixed tiles), a decoder fed one constant embedding
becomes as good as the specialist, and a fine score says nothing about seeing (Geirhos et al. 2020, "Shortcut learning
in deep neural networks"; the hypothesis-only baseline of Poliak et al. 2018 is the same test for language).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from specialsam.core.errors import DataError, UsageError
from specialsam.core.findings import LEVELS, Finding, Level
from specialsam.core.geometry import Geometry
from specialsam.core.place import Place
from specialsam.core.types import Embedding
from specialsam.evaluation.rivals import disc, disc_radius, relative_area
from specialsam.evaluation.statistics import Interval, flat, paired_bootstrap, points
from specialsam.metrics.overlaps import overlap
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import ENCODER_MODES, clone
from specialsam.prompts import draw, generator
from specialsam.training.loop import train
from specialsam.training.settings import TrainSettings
from specialsam.training.state import Item, TrainingData, TrainResult

Kind = Literal["mean", "shuffled"]
NEAR = 0.05
"""IoU below which a lead over what has not looked at the image counts as none: 5 points."""


def blind(data: TrainingData, kind: Kind = "mean", seed: int = 0) -> TrainingData:
    """The same items and masks, with embeddings that say nothing of the item's image.

    "mean": the mean embedding of the training items, made by one pass that holds one embedding at a time. "shuffled":
    the embedding of an item of another record of the same split, the same one every time for the same `seed`. Each
    item keeps its own frame, which says no more than the image's size. There are no `pixels` (the encoder is not tuned)
    and no general images to replay.
    """
    if kind == "mean":
        replaced = _mean(data)
    elif kind == "shuffled":
        replaced = _shuffled(data, seed)
    else:
        raise UsageError(f"expected blind embeddings of kind mean or shuffled, got {kind!r}")
    return replace(data, embeddings=replaced, pixels=None, general=None)


def blind_decoder(
    base: Segmenter,
    data: TrainingData,
    settings: TrainSettings,
    folder: Path,
    place: Place,
    kind: Kind = "mean",
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[Segmenter, TrainResult]:
    """Tune a copy of `base` on blind embeddings by the specialist's own settings; a second call goes on.

    Checkpoints lie in `folder/blind-mean` or `folder/blind-shuffled`. Modes that tune the encoder become "decoder":
    without images there is nothing for an encoder to learn from. Test the answer on blind embeddings (`blind`), never
    on real ones.
    """
    blinded = blind(data, kind, settings.seed)
    model = clone(base, f"blind decoder ({kind})")
    own = folder / f"blind-{kind}"
    own.mkdir(parents=True, exist_ok=True)
    return model, train(model, blinded, blind_settings(settings), own, place, progress)


def blind_settings(settings: TrainSettings) -> TrainSettings:
    """The settings of the blind decoder, for training and for measuring it: nothing of the encoder is tuned."""
    return settings.model_copy(update={"mode": "decoder"}) if settings.mode in ENCODER_MODES else settings


def rival_iou(data: TrainingData, settings: TrainSettings) -> list[float]:
    """IoU of each validation item by the trivial rival: a disc of the training set's median size at each prompt.

    The prompts are those of `training.loop.validate`, so that the numbers stand beside `guard.per_image_iou`.
    """
    radius = disc_radius([relative_area(mask) for item in data.train for mask in data.masks(item)])
    out = []
    for item in data.val:
        masks, means = data.masks(item), []
        size = masks.shape[1], masks.shape[2]
        for strategy in settings.validation:
            for indices, prompts in draw(strategy, masks, generator(settings.seed, "validation", item.id, strategy)):
                pairs = zip(disc(prompts, size, radius), masks[indices], strict=True)
                means.append(float(np.mean([overlap(found, truth)["iou"] for found, truth in pairs])))
        out.append(float(np.mean(means)))
    return out


def shortcut(
    real_iou: npt.ArrayLike,
    blind_iou: npt.ArrayLike,
    rival_iou: npt.ArrayLike,
    names: Sequence[str] = (),
    near: float = NEAR,
    level: float = 0.95,
    seed: int = 0,
) -> Finding:
    """Whether the specialist leads what has not looked: the blind decoder and the disc, on the same images.

    All three are (N,), one IoU in 0..1 an image, `names` the images. "fail" where the specialist's lead over one of
    them is shown to be below `near` (the whole paired bootstrap interval), "warn" where no lead is shown (the interval
    holds 0, or there is one image), "pass" otherwise. A blind decoder tuned for too short a time passes too easily.
    """
    real, unseeing, trivial = (np.asarray(values, np.float64).ravel() for values in (real_iou, blind_iou, rival_iou))
    leads = {
        "blind": paired_bootstrap(unseeing, real, seed, level=level),
        "rival": paired_bootstrap(trivial, real, seed, level=level),
    }
    levels = {name: _lead_level(lead, near) for name, lead in leads.items()}
    verdict = max(levels.values(), key=LEVELS.index)
    n = len(real)
    means = {"real": real, "blind": unseeing, "rival": trivial}
    says = (
        f"On {n} images the specialist reaches {100 * real.mean():.1f} IoU, a decoder tuned without seeing any image "
        f"{100 * unseeing.mean():.1f} (lead {points(leads['blind'])}) and a disc at the prompt "
        f"{100 * trivial.mean():.1f} (lead {points(leads['rival'])})"
    )
    says += {
        "pass": ": it looks at the image.",
        "warn": "; that it leads both is not shown.",
        "fail": "; what does not look comes within {near:.0f} points of it: the task is solvable without pixels.",
    }[verdict].format(near=100 * near)
    numbers: dict[str, float | int | str] = {f"{name}_iou": float(values.mean()) for name, values in means.items()}
    for name, lead in leads.items():
        numbers |= flat(f"lead_{name}", lead)
    lacking = np.argsort(real - np.maximum(unseeing, trivial), kind="stable")
    files = tuple(names[index] for index in lacking[:10]) if len(names) and verdict != "pass" else ()
    return Finding(
        "blind decoder", verdict, says, numbers | {"n": n, "near": near, "level": level}, files, _REMEDIES[verdict]
    )


_REMEDIES: dict[Level, str] = {
    "pass": "",
    "warn": "measure on more images, or tune longer; read the score beside that of the blind decoder until then",
    "fail": "vary what prompts give away (place, size, shape of the objects; random instead of fixed clicks), and do "
    "not read the specialist's score as skill",
}


def _lead_level(lead: Interval, near: float) -> Level:
    if lead.high < near:
        return "fail"
    return "pass" if lead.low > 0 else "warn"


Read = Callable[[Sequence[Item]], list[Embedding]]


def _mean(data: TrainingData) -> Read:
    """A reader that answers with the mean training embedding in each item's own frame."""
    frames: dict[str, Geometry] = {}
    total: torch.Tensor | None = None
    for item in data.train:
        embedding = data.embeddings([item])[0]
        frames[item.id] = embedding.geometry
        values = embedding.tensor.double()
        total = values if total is None else total + values
    if total is None:
        raise DataError("expected at least one training item to take the mean embedding of, got none")
    mean = (total / len(data.train)).float()

    def read(items: Sequence[Item]) -> list[Embedding]:
        return [Embedding(mean, _frame(data, item, frames)) for item in items]

    return read


def _shuffled(data: TrainingData, seed: int) -> Read:
    """A reader that answers with another record's embedding of the same split, in each item's own frame."""
    partners = _partners(data.train, seed, "train") | _partners(data.val, seed, "val")
    frames: dict[str, Geometry] = {}

    def read(items: Sequence[Item]) -> list[Embedding]:
        others = data.embeddings([partners[item.id] for item in items])
        return [Embedding(other.tensor, _frame(data, item, frames)) for item, other in zip(items, others, strict=True)]

    return read


def _frame(data: TrainingData, item: Item, frames: dict[str, Geometry]) -> Geometry:
    """The frame of an item's own image, read once."""
    if item.id not in frames:
        frames[item.id] = data.embeddings([item])[0].geometry
    return frames[item.id]


def _partners(items: Sequence[Item], seed: int, split: str) -> dict[str, Item]:
    """For each item one of another record, every item once.

    Records stand one after the other in random order, and each item takes the one as many places further as the
    largest record has items: never one of its own record while no record holds more than half of all.
    """
    by_record: dict[str, list[Item]] = {}
    for item in items:
        by_record.setdefault(item.record, []).append(item)
    step = max((len(own) for own in by_record.values()), default=0)
    if 2 * step > len(items):
        raise DataError(
            f"expected {split} images of which none has more than half of the {len(items)} items, got one with {step}; "
            'use the mean embedding (kind "mean") instead'
        )
    records = list(by_record)
    order = generator(seed, "blind", split).permutation(len(records))
    row = [item for index in order for item in by_record[records[index]]]
    return {item.id: row[(place + step) % len(row)] for place, item in enumerate(row)}
