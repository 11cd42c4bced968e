"""Score any number of models on the same images and the same prompts; each image is encoded once an encoder.

One pass of the mask decoder answers with the single mask and with the three, so that "single", "three_best" (the mask
with the best own score) and "three_oracle" (the best by the truth, an upper bound) come from one decode. The trivial
rivals, a disc of the training set's median size at the prompt and the filled box, get the same prompts. A failed image
leaves rows with its error and the worst value of each metric, never a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from pydantic import Field, field_validator

from specialsam.core.errors import SpecialSamError, UsageError
from specialsam.core.geometry import BoolArray, FloatArray, ImageArray
from specialsam.core.packing import packed
from specialsam.core.settings import Settings
from specialsam.core.types import Embedding, Prediction, Prompts, Record, Row, Sample, Truth
from specialsam.core.windows import Window
from specialsam.data.loading import load_image_only
from specialsam.data.tiles import TileSettings
from specialsam.evaluation.clicking import clicked
from specialsam.evaluation.rivals import disc, filled_box
from specialsam.metrics import METRICS, THRESHOLD, check_groups, overlap, score
from specialsam.models.segmenter import ALL, Segmenter
from specialsam.models.stitching import stitch
from specialsam.models.zoom import zoom
from specialsam.prompts import STRATEGIES, draw, generator

DISC, FILLED_BOX = "disc of median size", "filled box"
"""Names of the trivial rivals in the column `model`."""
OUTPUT_GROUPS: dict[str, tuple[str, ...]] = {
    "single": ("overlap", "boundary", "canny", "cod"),
    "three_best": ("overlap", "boundary"),
    "three_oracle": ("overlap",),
    "zoom": ("overlap", "boundary"),
    "tiles": ("overlap", "boundary"),
    "rival": ("overlap", "boundary"),
}
"""The metric groups that are computed for each output, of those asked for."""

SOFT = ("cod",)
"""Groups that score probabilities; all others score the mask above probability 0.5."""

PIECE_PIXELS = 2**24
"""Pixels of all objects that are decoded to full size at once: bounds memory for large images and many objects."""

TOGETHER = 32
"""Objects, each counted once a strategy, that a model is asked about at once: few of them take a pass together."""

Embed = Callable[[Truth, Segmenter], Embedding]
TruthOf = Callable[[Record], Truth]
EmbedTile = Callable[[Truth, Segmenter, Window], Embedding]
Look = Callable[[Segmenter, Prompts, Prediction], FloatArray]
"""A closer look: from prompts and their single answers to probabilities float32 (P, H, W)."""


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
    zoom: bool = Field(
        False, description="also look a second time at the region of each single mask, one encoder pass an object more"
    )
    tiles: TileSettings = Field(
        default=TileSettings(), description="also answer from overlapping tiles of the image's own pixels, put together"
    )
    tolerance: float = Field(5.0, description="pixels by which boundaries may miss each other", gt=0)
    seed: int = Field(0, description="of the prompts that are drawn at random")

    @field_validator("strategies", "cod")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if clicks(name) is None and name not in STRATEGIES]
        if unknown:
            known = f"{', '.join(STRATEGIES)} and clicksN, N from 2 to 50"
            raise UsageError(f"expected prompt strategies of {known}, got {', '.join(map(repr, unknown))}")
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


def image_of(truth: Truth) -> ImageArray:
    """The pixels (H, W, 3) of an image that is at hand or on disk."""
    return truth.image if isinstance(truth, Sample) else load_image_only(truth.record)


def live(truth: Truth, segmenter: Segmenter) -> Embedding:
    """An embedding made now."""
    return segmenter.encode(image_of(truth))


def live_tile(truth: Truth, segmenter: Segmenter, window: Window) -> Embedding:
    """The embedding of a tile, made now."""
    return segmenter.encode(np.ascontiguousarray(image_of(truth)[window.slices]))


@dataclass(frozen=True)
class Measuring:
    """How each record is measured.

    `truth` answers with its masks, `embed` with its embedding by a model's encoder (from a store, or live) and is asked
    once an encoder, `tile` with that of one of its tiles. `stamp` gives the rows' run, dataset, split and subset.
    """

    truth: TruthOf
    embed: Embed
    settings: EvaluateSettings
    stamp: Mapping[str, str]
    tile: EmbedTile = live_tile


def evaluate(
    models: Mapping[str, Segmenter], records: Iterable[Record], how: Measuring, radius: float | None
) -> Iterator[list[Row]]:
    """`record_rows` of one record after the other."""
    for record in records:
        yield record_rows(models, record, how, radius)


def record_rows(models: Mapping[str, Segmenter], record: Record, how: Measuring, radius: float | None) -> list[Row]:
    """Rows of one record: all models, strategies, outputs and metrics.

    `radius` is the disc rival's radius as a fraction of the image's shorter side (`rivals.disc_radius` of the training
    set); None leaves the trivial rivals out.
    """
    try:
        return list(_image_rows(models, how.truth(record), how, radius))
    except SpecialSamError as error:
        return _failed(models, record, how, radius, str(error))


def _image_rows(models: Mapping[str, Segmenter], sample: Truth, how: Measuring, radius: float | None) -> Iterator[Row]:
    kept = [index for index, mask in enumerate(sample.masks) if mask.any()]
    masks = sample.masks[kept]
    if not kept:
        return
    by_encoder: dict[str, Embedding] = {}
    for segmenter in models.values():
        if segmenter.encoder_id not in by_encoder:
            by_encoder[segmenter.encoder_id] = how.embed(sample, segmenter)
    looks = _looks(sample, how)
    pieces = _pieces(sample, kept, masks, how.settings, models)
    for some in packed(pieces, lambda piece: len(piece.indices), TOGETHER):
        answers = {name: _plain(model, by_encoder[model.encoder_id], some) for name, model in models.items()}
        for place, piece in enumerate(some):
            for model, segmenter in models.items():
                embedding, answer = by_encoder[segmenter.encoder_id], answers[model][place]
                for output, probabilities in _outputs(segmenter, embedding, piece, answer, looks):
                    yield from _rows(piece, model, output, probabilities, how)
            if radius is not None and not clicks(piece.strategy):
                for model, mask in _rivals(piece.prompts, sample.size, radius):
                    yield from _rows(piece, model, "rival", mask.astype(np.float32), how)


@dataclass(frozen=True)
class _Piece:
    """Objects of one image that one strategy prompts at once: their places among all, and masks (P, H, W)."""

    sample: Truth
    strategy: str
    indices: Sequence[int]
    truth: BoolArray
    prompts: Prompts


def _pieces(
    sample: Truth, kept: Sequence[int], masks: BoolArray, settings: EvaluateSettings, models: Mapping[str, Segmenter]
) -> Iterator[_Piece]:
    """The objects `kept`, with masks (P, H, W), by strategy: cut where more than PIECE_PIXELS would be answered."""
    side = max((model.side for model in models.values()), default=1)
    most = max(1, PIECE_PIXELS // max(side * side, sample.size[0] * sample.size[1]))
    for strategy in settings.strategies:
        rng = generator(settings.seed, "evaluation", sample.id, strategy)
        for places, prompts in draw("interior" if clicks(strategy) else strategy, masks, rng):
            for start in range(0, len(places), most):
                part = slice(start, start + most)
                chosen = places[part]
                yield _Piece(sample, strategy, [kept[place] for place in chosen], masks[chosen], prompts[part])


def _plain(segmenter: Segmenter, embedding: Embedding, pieces: Sequence[_Piece]) -> list[Prediction | None]:
    """All masks for the plain prompts among the pieces; None for clicks, each of which follows from an answer."""
    prompts = [piece.prompts for piece in pieces if not clicks(piece.strategy)]
    found = iter(segmenter.decode_each([embedding] * len(prompts), prompts, ALL))
    return [None if clicks(piece.strategy) else next(found) for piece in pieces]


def _rivals(prompts: Prompts, size: tuple[int, int], radius: float) -> Iterator[tuple[str, BoolArray]]:
    yield DISC, disc(prompts, size, radius)
    box = filled_box(prompts, size)
    if box is not None:
        yield FILLED_BOX, box


def _looks(sample: Truth, how: Measuring) -> dict[str, Look]:
    """The closer looks that the settings ask for at one image, by the name of their output."""
    settings, size = how.settings, sample.size
    looks: dict[str, Look] = {}
    if settings.zoom:
        image = image_of(sample)
        looks["zoom"] = lambda segmenter, prompts, first: zoom(segmenter, image, prompts, first).probabilities
    if settings.tiles.side:
        windows = settings.tiles.windows(size)
        made: dict[tuple[str, Window], Embedding] = {}

        def embedded(segmenter: Segmenter, window: Window) -> Embedding:
            key = segmenter.encoder_id, window
            if key not in made:  # once an encoder, whatever the number of models and strategies
                made[key] = how.tile(sample, segmenter, window)
            return made[key]

        def tiled(segmenter: Segmenter, prompts: Prompts, first: Prediction) -> FloatArray:
            soft = first.probabilities()[:, 0]
            return stitch(segmenter, size, windows, partial(embedded, segmenter), prompts, soft).probabilities

        looks["tiles"] = tiled
    return looks


def _outputs(
    segmenter: Segmenter, embedding: Embedding, piece: _Piece, answer: Prediction | None, looks: Mapping[str, Look]
) -> Iterator[tuple[str, FloatArray]]:
    """(output, probabilities (P, H, W)) of one model: all outputs of its `answer` to plain prompts, "single" of clicks.

    Closer looks begin with "single" and its prompts.
    """
    truth, prompts = piece.truth, piece.prompts

    def looked(first: Prediction, prompts: Prompts) -> Iterator[tuple[str, FloatArray]]:
        for output, look in looks.items():
            yield output, look(segmenter, prompts, first)

    if number := clicks(piece.strategy):
        *_, (prompts, last, _) = clicked(segmenter, embedding, truth, prompts, number)
        yield "single", last.probabilities()[:, 0]
        yield from looked(last, prompts)
        return
    assert answer is not None
    soft = answer.probabilities()
    yield "single", soft[:, 0]
    rows = np.arange(len(soft))
    yield "three_best", soft[rows, 1 + answer.scores[:, 1:].argmax(1).numpy()]
    found = soft[:, 1:] > THRESHOLD
    ious = [[overlap(mask, true)["iou"] for mask in three] for three, true in zip(found, truth, strict=True)]
    yield "three_oracle", soft[rows, 1 + np.argmax(ious, 1)]
    yield from looked(Prediction(answer.logits[:, :1], answer.scores[:, :1], answer.geometry), prompts)


def _rows(piece: _Piece, model: str, output: str, probabilities: FloatArray, how: Measuring) -> Iterator[Row]:
    sample, record, settings = piece.sample, piece.sample.record, how.settings
    groups = _groups(settings, piece.strategy, output)
    for index, soft, mask in zip(piece.indices, probabilities, piece.truth, strict=True):
        category = sample.labels[index] if sample.labels else record.category
        for metric, value in score(soft, mask, groups, settings.tolerance).items() if groups else ():
            yield Row(
                **how.stamp,
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
    models: Mapping[str, Segmenter], record: Record, how: Measuring, radius: float | None, error: str
) -> list[Row]:
    """The worst value of every metric of every model, strategy and output, rivals among them, with the error."""
    return [
        Row(
            **how.stamp,
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
        for model, strategy, output in _asked(models, how.settings, radius)
        for name, metric in METRICS.items()
        if metric.group in _groups(how.settings, strategy, output)
    ]


def _asked(
    models: Mapping[str, Segmenter], settings: EvaluateSettings, radius: float | None
) -> Iterator[tuple[str, str, str]]:
    """(model, strategy, output) of all that is measured of an image."""
    closer = [name for name, asked in (("zoom", settings.zoom), ("tiles", settings.tiles.side)) if asked]
    anything = np.ones((1, 8, 8), np.bool_)
    for strategy in settings.strategies:
        plain = clicks(strategy) is None
        outputs = ("single", "three_best", "three_oracle") if plain else ("single",)
        yield from product(models, (strategy,), (*outputs, *closer))
        if radius is not None and plain:
            for _, prompts in draw(strategy, anything, generator(settings.seed, "failed", strategy)):
                yield from ((rival, strategy, "rival") for rival, _ in _rivals(prompts, anything.shape[1:], radius))


__all__ = [
    *("DISC", "FILLED_BOX", "EvaluateSettings", "Measuring"),
    *("clicks", "evaluate", "image_of", "live", "live_tile", "record_rows"),
]
