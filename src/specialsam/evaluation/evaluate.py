"""Score any number of models on the same images and the same prompts; each image is encoded once an encoder.

One pass of the mask decoder answers with the single mask and with the three, so that "single", "three_best" (the mask
with the best own score) and "three_oracle" (the best by the truth, an upper bound) come from one decode. The trivial
rivals, a disc of the training set's median size at the prompt and the filled box, get the same prompts. A failed image
leaves rows with its error and the worst value of each metric, never a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, field_validator

from specialsam.core.errors import SpecialSamError, UsageError
from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.core.settings import Settings
from specialsam.core.types import Embedding, Prompts, Record, Row, Truth
from specialsam.evaluation.rivals import disc, filled_box
from specialsam.metrics import GROUPS, METRICS, check_groups, score
from specialsam.models.segmenter import ALL, Segmenter
from specialsam.prompts import Group, check_mixture, correction_clicks, draw, generator

DISC, FILLED_BOX = "disc of median size", "filled box"
"""Names of the trivial rivals in the column `model`."""
OUTPUT_GROUPS: dict[str, tuple[str, ...]] = {
    "single": ("overlap", "boundary", "canny", "cod"),
    "three_best": ("overlap", "boundary"),
    "three_oracle": ("overlap",),
    "rival": ("overlap", "boundary"),
}
"""The metric groups that are computed for each output, of those asked for."""

SOFT = ("cod",)
"""Groups that score probabilities; all others score the mask above probability 0.5."""

PIECE_PIXELS = 2**24
"""Pixels of all objects that are decoded to full size at once: bounds memory for large images and many objects."""

Embed = Callable[[Truth, Segmenter], Embedding]
TruthOf = Callable[[Record], Truth]


class EvaluateSettings(Settings):
    """What is measured, and how the prompts are drawn."""

    strategies: tuple[str, ...] = Field(
        ("interior", "center_of_mass", "edge", "grid4", "box", "clicks3"),
        description="prompt strategies; clicksN is one interior click and N - 1 corrections in the largest error",
    )
    groups: tuple[str, ...] = Field(("overlap", "boundary", "canny", "cod"), description="metric groups")
    cod: tuple[str, ...] = Field(
        ("interior",), description="strategies that the slow group cod (about 50 ms an object) is computed for"
    )
    tolerance: float = Field(5.0, description="pixels by which boundaries may miss each other", gt=0)
    seed: int = Field(0, description="of the prompts that are drawn at random")

    @field_validator("strategies", "cod")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_mixture({name: 1.0 for name in value if clicks(name) is None} or {"interior": 1.0})
        return value

    @field_validator("strategies")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise UsageError(f"expected one or more different prompt strategies, got {', '.join(value) or 'none'}")
        return value

    @field_validator("groups")
    @classmethod
    def _groups(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_groups(value)
        return value


def clicks(strategy: str) -> int | None:
    """N of a strategy `clicksN` (N from 2 to 50), None for any other name."""
    digits = strategy.removeprefix("clicks")
    return int(digits) if digits != strategy and digits.isdigit() and 2 <= int(digits) <= 50 else None


def evaluate(
    models: Mapping[str, Segmenter],
    records: Iterable[Record],
    truth: TruthOf,
    embed: Embed,
    settings: EvaluateSettings,
    stamp: Mapping[str, str],
    radius: float | None,
) -> Iterator[list[Row]]:
    """`record_rows` of one record after the other."""
    for record in records:
        yield record_rows(models, record, truth, embed, settings, stamp, radius)


def record_rows(
    models: Mapping[str, Segmenter],
    record: Record,
    truth: TruthOf,
    embed: Embed,
    settings: EvaluateSettings,
    stamp: Mapping[str, str],
    radius: float | None,
) -> list[Row]:
    """Rows of one record: all models, strategies, outputs and metrics.

    `truth` answers with the record's masks, `embed` with its embedding by a model's encoder (from a store, or live);
    it is asked once an encoder. `stamp` gives the rows' run, dataset and split. `radius` is the disc rival's radius as
    a fraction of the image's shorter side (`rivals.disc_radius` of the training set); None leaves the trivial rivals
    out.
    """
    try:
        return list(_image_rows(models, truth(record), embed, settings, stamp, radius))
    except SpecialSamError as error:
        return _failed(models, record, settings, stamp, str(error))


def _image_rows(
    models: Mapping[str, Segmenter],
    sample: Truth,
    embed: Embed,
    settings: EvaluateSettings,
    stamp: Mapping[str, str],
    radius: float | None,
) -> Iterator[Row]:
    kept = [index for index, mask in enumerate(sample.masks) if mask.any()]
    masks = sample.masks[kept]
    if not kept:
        return
    by_encoder: dict[str, Embedding] = {}
    for segmenter in models.values():
        if segmenter.encoder_id not in by_encoder:
            by_encoder[segmenter.encoder_id] = embed(sample, segmenter)
    for strategy in settings.strategies:
        rng = generator(settings.seed, "evaluation", sample.id, strategy)
        groups = draw("interior" if clicks(strategy) else strategy, masks, rng)
        for places, prompts in _pieces(groups, max((model.side for model in models.values()), default=1), sample.size):
            piece = _Piece(sample, strategy, [kept[place] for place in places], masks[places])
            for model, segmenter in models.items():
                embedding = by_encoder[segmenter.encoder_id]
                for output, probabilities in _answers(segmenter, embedding, prompts, piece.truth, strategy):
                    yield from _rows(piece, model, output, probabilities, settings, stamp)
            if radius is not None and not clicks(strategy):
                for model, answer in _rivals(prompts, sample.size, radius):
                    yield from _rows(piece, model, "rival", answer.astype(np.float32), settings, stamp)


@dataclass(frozen=True)
class _Piece:
    """Objects of one image that are prompted by one strategy at once: their places among all, and masks (P, H, W)."""

    sample: Truth
    strategy: str
    indices: Sequence[int]
    truth: BoolArray


def _pieces(groups: Sequence[Group], side: int, size: tuple[int, int]) -> Iterator[Group]:
    """The groups, cut where their objects would take more than PIECE_PIXELS at the image's (or the model's) size."""
    most = max(1, PIECE_PIXELS // max(side * side, size[0] * size[1]))
    for places, prompts in groups:
        for start in range(0, len(places), most):
            piece = slice(start, start + most)
            yield places[piece], prompts[piece]


def _rivals(prompts: Prompts, size: tuple[int, int], radius: float) -> Iterator[tuple[str, BoolArray]]:
    yield DISC, disc(prompts, size, radius)
    box = filled_box(prompts, size)
    if box is not None:
        yield FILLED_BOX, box


def _answers(
    segmenter: Segmenter, embedding: Embedding, prompts: Prompts, truth: BoolArray, strategy: str
) -> Iterator[tuple[str, FloatArray]]:
    """(output, probabilities (P, H, W)) of one model: all outputs for plain prompts, "single" for correction rounds."""
    if number := clicks(strategy):
        for _ in range(number - 1):
            answer = segmenter.decode(embedding, prompts)
            given = np.asarray(answer.logits[:, 0].numpy(), np.float32)
            prompts = correction_clicks(truth, answer.masks()[:, 0], prompts, None, given)
        yield "single", segmenter.decode(embedding, prompts).probabilities()[:, 0]
        return
    answer = segmenter.decode_outputs(embedding, prompts, ALL)
    soft = answer.probabilities()
    yield "single", soft[:, 0]
    rows = np.arange(len(soft))
    yield "three_best", soft[rows, 1 + answer.scores[:, 1:].argmax(1).numpy()]
    found = soft[:, 1:] > 0.5
    overlap = (found & truth[:, None]).sum((2, 3)) / np.maximum((found | truth[:, None]).sum((2, 3)), 1)
    yield "three_oracle", soft[rows, 1 + overlap.argmax(1)]


def _rows(
    piece: _Piece,
    model: str,
    output: str,
    probabilities: FloatArray,
    settings: EvaluateSettings,
    stamp: Mapping[str, str],
) -> Iterator[Row]:
    sample, record = piece.sample, piece.sample.record
    groups = _groups(settings, piece.strategy, output)
    for index, soft, mask in zip(piece.indices, probabilities, piece.truth, strict=True):
        category = sample.labels[index] if sample.labels else record.category
        for metric, value in score(soft, mask, groups, settings.tolerance).items() if groups else ():
            yield Row(
                **stamp,
                model=model,
                record=sample.id,
                object=index,
                strategy=piece.strategy,
                output=output,
                metric=metric,
                soft=METRICS[metric].group in SOFT,
                value=float(value),
                category=category,
                supercategory=record.supercategory,
            )


def _groups(settings: EvaluateSettings, strategy: str, output: str) -> tuple[str, ...]:
    """The metric groups of one strategy and output."""
    wanted = tuple(group for group in settings.groups if group in OUTPUT_GROUPS[output])
    return wanted if strategy in settings.cod else tuple(group for group in wanted if group != "cod")


def _failed(
    models: Mapping[str, Segmenter],
    record: Record,
    settings: EvaluateSettings,
    stamp: Mapping[str, str],
    error: str,
) -> list[Row]:
    """The worst value of every metric of every model, strategy and output, with the error."""
    rows = []
    for model in models:
        for strategy in settings.strategies:
            outputs = ("single",) if clicks(strategy) else ("single", "three_best", "three_oracle")
            for output in outputs:
                wanted = _groups(settings, strategy, output)
                rows += [
                    Row(
                        **stamp,
                        model=model,
                        record=record.id,
                        object=0,
                        strategy=strategy,
                        output=output,
                        metric=name,
                        soft=metric.group in SOFT,
                        value=metric.worst,
                        category=record.category,
                        supercategory=record.supercategory,
                        error=error,
                    )
                    for name, metric in METRICS.items()
                    if metric.group in wanted
                ]
    return rows


__all__ = ["DISC", "FILLED_BOX", "GROUPS", "EvaluateSettings", "clicks", "evaluate", "record_rows"]
