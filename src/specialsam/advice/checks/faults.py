"""Faults that people really make, each planted in a clean generated data set, and the check that must name it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np

from specialsam.advice.subject import Subject
from specialsam.core.geometry import BoolArray, Geometry
from specialsam.core.randomness import generator
from specialsam.core.types import Embedding, Prediction, Prompts, Record, Sample, Split
from specialsam.data.images import read_image, write_png
from specialsam.data.splits import stable_hash
from specialsam.models.segmenter import SINGLE, Segmenter
from specialsam.models.specialist import clone
from specialsam.prompts import Draw, Group, draw
from specialsam.training.settings import TrainSettings

BLOCK = 16
"""Pixels of the block by which wrongly resized masks are off."""
SETTLE = 6
"""Clicks in a row after which the base's own answers hardly change any more."""


@dataclass(frozen=True)
class Case:
    """A subject and how it will be trained; `early_stop` is the split that chooses the epoch.

    `broken` may break the tuned model afterwards; `moves_encoder` says that tuning moves what should be frozen.
    """

    subject: Subject
    folder: Path
    seed: int
    settings: TrainSettings
    early_stop: Split = "val"
    broken: Callable[[Segmenter], Segmenter] | None = None
    moves_encoder: bool = False

    def with_subject(self, **changes: object) -> Case:
        return replace(self, subject=replace(self.subject, **changes))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Fault:
    """`plant` turns a clean case into a faulty one; `checks` are those of which one must raise the alarm.

    `trained`: the fault shows only in training or after it, so the case is trained as well.
    """

    checks: tuple[str, ...]
    plant: Callable[[Case], Case]
    trained: bool = False


def _with_load(case: Case, change: Callable[[Sample], Sample]) -> Case:
    load = case.subject.load
    return case.with_subject(load=lambda record: change(load(record)))


def _with_masks(case: Case, change: Callable[[Sample], BoolArray]) -> Case:
    return _with_load(case, lambda sample: replace(sample, masks=change(sample)))


def _with_draw(case: Case, change: Callable[[Prompts], Prompts]) -> Case:
    def place(strategy: str, masks: BoolArray, rng: np.random.Generator) -> list[Group]:
        return [(indices, change(prompts)) for indices, prompts in draw(strategy, masks, rng)]

    wrong: Draw = place
    return case.with_subject(draw=wrong)


def _scaled(prompts: Prompts, factor: float) -> Prompts:
    points = None if prompts.points is None else np.asarray(prompts.points * factor, np.float32)
    boxes = None if prompts.boxes is None else np.asarray(prompts.boxes * factor, np.float32)
    return replace(prompts, points=points, boxes=boxes)


def frame_512(case: Case) -> Case:
    """Points and boxes in the frame of a 512 px copy of the image."""
    side = max(_first(case).size)
    return _with_draw(case, lambda prompts: _scaled(prompts, 512 / side))


def swapped(case: Case) -> Case:
    """(row, column) where (x, y) is expected."""

    def swap(prompts: Prompts) -> Prompts:
        points = None if prompts.points is None else prompts.points[..., ::-1].copy()
        boxes = None if prompts.boxes is None else prompts.boxes[:, [1, 0, 3, 2]]
        return replace(prompts, points=points, boxes=boxes)

    return _with_draw(case, swap)


def inverted(case: Case) -> Case:
    """Background white, object black."""
    return _with_masks(case, lambda sample: ~sample.masks)


def off_by_a_block(case: Case) -> Case:
    """Masks resized as if the image had one block of pixels more on its left and top."""

    def resize(sample: Sample) -> BoolArray:
        height, width = sample.size
        out = np.zeros_like(sample.masks)
        for mask, target in zip(sample.masks, out, strict=True):
            small = cv2.resize(mask.astype(np.uint8), (width - BLOCK, height - BLOCK), interpolation=cv2.INTER_NEAREST)
            target[BLOCK:, BLOCK:] = small.astype(np.bool_)
        return out

    return _with_masks(case, resize)


def train_in_test(case: Case) -> Case:
    """Every other test image is a copy of a training image under another name."""
    return _copies(case, flipped=False)


def mirrored_in_test(case: Case) -> Case:
    """Every other test image is the mirror image of a training image, saved anew."""
    return _copies(case, flipped=True)


def _copies(case: Case, flipped: bool) -> Case:
    subject = case.subject
    sources, copies = subject.of("train"), {record.id for record in subject.of("test")[::2]}
    folder = case.folder / ("mirrored" if flipped else "copied")
    folder.mkdir(parents=True, exist_ok=True)
    taken: dict[str, Record] = {}
    records = []
    for record in subject.dataset.records:
        if record.id in copies:
            source = sources[len(taken) % len(sources)]
            path = folder / f"{record.id.replace('/', '-')}.png"
            pixels = read_image(source.image, source.reading)
            write_png(path, pixels[:, ::-1] if flipped else pixels)
            taken[record.id] = source
            record = replace(record, image=path if flipped else source.image)
        records.append(record)
    load = subject.load

    def read(record: Record) -> Sample:
        if record.id not in taken:
            return load(record)
        sample = load(taken[record.id])
        masks = sample.masks[..., ::-1] if flipped else sample.masks
        return Sample(record, read_image(record.image, record.reading), np.ascontiguousarray(masks), sample.labels)

    return case.with_subject(dataset=replace(subject.dataset, records=tuple(records)), load=read)


def fixed_mosaics(case: Case) -> Case:
    """Each image becomes a two by two mosaic of image quarters; masks and prompts are the same four in all of them."""
    records = case.subject.of()
    load = case.subject.load

    def mosaic(sample: Sample) -> Sample:
        rng = generator(case.seed, "mosaic", sample.id)
        height, width = sample.size
        half = (height // 2, width // 2)
        image, masks = sample.image.copy(), np.zeros((4, height, width), np.bool_)
        for place in range(4):
            other = load(records[int(rng.integers(len(records)))]).image
            top, left = (place // 2) * half[0], (place % 2) * half[1]
            image[top : top + half[0], left : left + half[1]] = cv2.resize(other, half[::-1])
            masks[place, top : top + half[0], left : left + half[1]] = True
        return Sample(sample.record, image, masks)

    return _with_load(case, mosaic)


def train_mode(case: Case) -> Case:
    """The encoder's batch normalisation follows whatever it is shown."""
    segmenter = clone(case.subject.segmenter, share_encoder=False)
    segmenter.encoder.train()
    return case.with_subject(segmenter=segmenter)


def other_model(case: Case) -> Case:
    """The store holds embeddings that other weights of the same architecture made."""
    other = clone(case.subject.segmenter, share_encoder=False)
    rng = np.random.default_rng(case.seed)
    for parameter in other.encoder.parameters():
        if parameter.ndim > 1:
            parameter.data *= float(rng.uniform(0.7, 1.3))
    other.forget_ids()
    made: dict[str, Embedding] = {}

    def embed(sample: Sample, segmenter: Segmenter) -> Embedding:
        if sample.id not in made:
            made[sample.id] = other.encode(sample.image)
        return made[sample.id]

    return case.with_subject(embed=embed)


def shuffled_masks(case: Case) -> Case:
    """Each image has the mask of another one."""
    return others_masks(case, 1.0)


def noisy_labels(case: Case) -> Case:
    """One mask in five belongs to another image."""
    return others_masks(case, 0.2)


def others_masks(case: Case, share: float) -> Case:
    """A share of the masks, exchanged among their images."""
    records, load = case.subject.of(), case.subject.load
    chosen = sorted(records, key=lambda record: stable_hash(f"noise:{case.seed}:{record.id}"))
    chosen = chosen[: round(share * len(chosen))]
    source = {a.id: b for a, b in zip(chosen, [*chosen[1:], chosen[0]], strict=True)}

    def change(sample: Sample) -> BoolArray:
        if sample.id not in source:
            return sample.masks
        masks = load(source[sample.id]).masks.astype(np.uint8)
        height, width = sample.size
        resized = [cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST) for mask in masks]
        return np.stack(resized).astype(np.bool_)

    return _with_masks(case, change)


def half_empty(case: Case) -> Case:
    """Every second mask is empty, and the user counts all of them as labelled objects."""
    empty = {record.id for record in case.subject.of()[::2]}
    believed = len(case.subject.of())
    case = _with_masks(case, lambda s: s.masks[:0] if s.id in empty else s.masks)
    return case.with_subject(believed=believed)


def one_category_in_test(case: Case) -> Case:
    """Test is the first names of the sorted list, all of one category."""
    order = sorted(case.subject.of(), key=lambda record: (record.category, record.id))
    count = min(len(case.subject.of("test")), sum(r.category == order[0].category for r in order))
    splits: dict[str, Split] = {}
    for number, record in enumerate(order):
        splits[record.id] = "test" if number < count else "val" if number % 6 == 0 else "train"
    return case.with_subject(splits=splits)


def rate_100_times(case: Case) -> Case:
    """The learning rate is 100 times too high."""
    return replace(case, settings=case.settings.model_copy(update={"lr": 100 * case.settings.lr}))


def ten_images(case: Case) -> Case:
    """Ten images in all."""
    few = case.subject.of("train")[:6] + case.subject.of("val")[:2] + case.subject.of("test")[:2]
    records = tuple(few)
    splits = {record.id: case.subject.splits[record.id] for record in records}
    return case.with_subject(dataset=replace(case.subject.dataset, records=records), splits=splits)


def labels_by_the_model(case: Case) -> Case:
    """The masks are the base model's own answers, clicked until they stay as they are: nothing is left to learn."""
    segmenter = case.subject.segmenter
    settled: dict[str, BoolArray] = {}

    def change(sample: Sample) -> BoolArray:
        if sample.id not in settled and sample.masks.any():
            embedding, masks = segmenter.encode(sample.image), sample.masks[sample.masks.any((1, 2))]
            for _ in range(SETTLE):
                prompts = draw("interior", masks, generator(0, sample.id))[0][1]
                answer = segmenter.decode(embedding, prompts).masks()[:, 0]
                masks = np.stack([mine if mine.any() else old for mine, old in zip(answer, masks, strict=True)])
            settled[sample.id] = masks
        return settled.get(sample.id, sample.masks)

    return _with_masks(case, change)


@dataclass(frozen=True)
class _Deaf(Segmenter):
    """A segmenter that answers as if every prompt were a click on the middle of the image."""

    def decode_each(
        self, embeddings: Sequence[Embedding], prompts: Sequence[Prompts], outputs: slice = SINGLE
    ) -> list[Prediction]:
        def deaf(geometry: Geometry, asked: Prompts) -> Prompts:
            middle = np.array([[[geometry.width / 2, geometry.height / 2]]], np.float32).repeat(len(asked), 0)
            return Prompts(asked.strategy, middle, np.ones((len(asked), 1), np.int64))

        heard = [deaf(embedding.geometry, asked) for embedding, asked in zip(embeddings, prompts, strict=True)]
        return super().decode_each(embeddings, heard, outputs)


def twelve_bits(case: Case) -> Case:
    """Values of 12 bits in files of 16, read by the range of the file."""
    return _with_load(case, lambda sample: replace(sample, image=sample.image // 16))


def shades_as_labels(case: Case) -> Case:
    """Each shade that smoothing leaves at a mask's edge becomes an object."""

    def shades(sample: Sample) -> BoolArray:
        soft = cv2.GaussianBlur(np.asarray(sample.masks.any(0), np.uint8) * 255, (0, 0), 2)
        values = np.unique(soft)[1:]
        return np.asarray(soft[None] == values[:, None, None]) if len(values) else sample.masks

    return _with_masks(case, shades)


def background_as_object(case: Case) -> Case:
    """Labels from 1 on, of which the background's is taken for an object too."""

    def with_ground(sample: Sample) -> BoolArray:
        return (
            np.concatenate([sample.masks, ~sample.masks.any(0, keepdims=True)]) if len(sample.masks) else sample.masks
        )

    return _with_masks(case, with_ground)


def deaf_decoder(case: Case) -> Case:
    """The tuned decoder ignores its prompt."""
    return replace(case, broken=lambda tuned: _Deaf(tuned.name, tuned.sam, tuned.side, tuned.source))


def stops_on_test(case: Case) -> Case:
    """The epoch is chosen on the test images."""
    return replace(case, early_stop="test")


def thawed_encoder(case: Case) -> Case:
    """The encoder, said to be frozen, is tuned with the rest."""
    return replace(case, moves_encoder=True)


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "points in the 512 px frame": Fault(("prompt frame",), frame_512),
        "x and y swapped": Fault(("prompt frame",), swapped),
        "inverted masks": Fault(("mask polarity",), inverted),
        "masks off by one block": Fault(("mask alignment",), off_by_a_block),
        "training images in test": Fault(("exact duplicates across splits",), train_in_test),
        "mirrored training images in test": Fault(("near-duplicates across splits",), mirrored_in_test),
        "constant mosaics, fixed prompts": Fault(("layout shortcut", "blind decoder"), fixed_mosaics),
        "encoder in train mode": Fault(("encoder mode",), train_mode),
        "embeddings of another model": Fault(("embedding parity",), other_model),
        "shuffled masks": Fault(("masks belong to images",), shuffled_masks),
        "12 bits read as 16": Fault(("grey levels",), twelve_bits),
        "shades taken for labels": Fault(("objects an image",), shades_as_labels),
        "background as an object": Fault(("label plausibility",), background_as_object),
        "20 % noisy labels": Fault(("label noise",), noisy_labels),
        "50 % empty masks": Fault(("image counts",), half_empty),
        "one category in test": Fault(("class mix",), one_category_in_test),
        "ten images": Fault(("data volume",), ten_images),
        "saturated base": Fault(("room for improvement",), labels_by_the_model),
        "learning rate 100 times": Fault(("training stability", "validation gain"), rate_100_times, True),
        "decoder ignores its prompt": Fault(("prompt ignored",), deaf_decoder, True),
        "early stopping on test": Fault(("validation on test data",), stops_on_test, True),
        "encoder tuned with the rest": Fault(("encoder unchanged",), thawed_encoder, True),
    }
)


def _first(case: Case) -> Sample:
    return case.subject.load(case.subject.of()[0])
