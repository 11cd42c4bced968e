"""Probes of a tuned decoder: does it look at the image, does it follow the prompt, was it measured on its own data?

A decoder can score well without having learned the task: from the place of the prompt alone (objects of one shape in
fixed places), by answering with the one object that every image has wherever the prompt lies, or because it has seen
the test images. Each probe takes one of these sources away and looks at what is left of the IoU, for the tuned decoder,
the base, and a disc at the prompt that sees nothing (the image is the unit of every interval).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from specialsam.advice.probes.promptability import (
    Look,
    Point,
    answers,
    background_click,
    clicks_prompt,
    embeddings_by,
    look,
    moved_click,
    of_each,
)
from specialsam.advice.subject import Subject
from specialsam.core.console import Progress
from specialsam.core.errors import DataError
from specialsam.core.findings import Finding
from specialsam.core.geometry import BoolArray
from specialsam.core.masks import interior_point
from specialsam.core.place import Spread, alone
from specialsam.core.randomness import generator
from specialsam.core.types import Embedding, Record
from specialsam.evaluation.rivals import disc, disc_radius, relative_area
from specialsam.evaluation.statistics import Interval, bootstrap_mean
from specialsam.metrics.overlaps import overlap
from specialsam.models.segmenter import Segmenter

PLAIN, BLIND, SHUFFLED, BACKGROUND, MOVED = "plain", "blind", "shuffled", "background", "moved"
SHIFTS = {"shift 10 %": 0.1, "shift 25 %": 0.25, "shift 50 %": 0.5}
BASE, TUNED, DISC = "base", "tuned", "disc"
PARTS = 8
"""Parts that images are summed in for their mean embedding: the same sums, whoever makes them."""

LARGE_SHARE = 0.8
"""Share of the IoU that is too much to reach without the image; 5 tuned decoders on generated scenes: .59 to .84."""
WHOLE_SHARE = 0.9
"""Share of the IoU, or of the gain, above which the image adds nothing; the same five with another image's embedding:
.50 to .74 of the IoU."""
SAME = 0.9
"""IoU from which two answers count as the same mask."""
SENSITIVITY_LOSS = 0.2
"""Rise of an overlap, against the base, that a click elsewhere may keep; the same five: .00 to .09."""
FEWEST = 5
"""Images below which nothing is said of a group."""
SMALL_P = 0.05
"""p below which duplicates are said to have gained more: one false warning in twenty where they did not."""


@dataclass(frozen=True)
class ProbeRow:
    """One number of one probe: `model` is base, tuned or disc, `iou` in 0..1.

    plain: one click in the object's interior. blind: the same with the mean embedding of all probed images. shuffled:
    with another image's embedding. shift 10 %, 25 %, 50 %: the click moved by that share of the object's size, off the
    object perhaps. background: a click beside the object, whose answer should not be the object. moved: the IoU of the
    answers to the plain click and to one on another object (beside the object where there is no other).
    """

    record: str
    object: int
    probe: str
    model: str
    iou: float


def probe_rows(
    base: Segmenter,
    tuned: Segmenter,
    records: Sequence[Record],
    subject: Subject,
    seed: int = 0,
    progress: Progress | None = None,
    spread: Spread = alone,
) -> list[ProbeRow]:
    """All probes of both models and the disc, whose radius is that of the median object probed.

    Images are passed twice (for the mean embedding first), so that one embedding a model is in memory and not all.
    Raises DataError where fewer than two images have objects.
    """
    models = {BASE: base, TUNED: tuned}
    order = generator(seed, "probes").permutation(len(records))
    shuffled = [records[index] for index in order]
    parts = list(spread(partial(_part, models, subject, seed), [shuffled[i::PARTS] for i in range(PARTS)]))
    count = sum(len(part.ids) for part in parts)
    if count < 2:
        raise DataError(f"expected at least two images with objects to probe, got {count}")
    blind = {name: torch.stack([part.sums[name] for part in parts if part.ids]).sum(0) / count for name in models}
    radius = disc_radius([area for part in parts for area in part.areas])
    filled = {name for part in parts for name in part.ids}
    probed = [record for record in shuffled if record.id in filled]
    before = dict(zip([record.id for record in probed], [probed[-1], *probed[:-1]], strict=True))

    def rows(images: Sequence[Look]) -> list[ProbeRow]:
        [seen] = images
        own = {name: embedding.geometry for name, embedding in seen.embeddings.items()}
        last = embeddings_by(models, subject.true(before[seen.truth.id]), subject)
        other = {name: replace(last[name], geometry=own[name], key="") for name in models}
        mean = {name: Embedding(blind[name], own[name]) for name in models}
        return _image_rows(models, seen, {BLIND: mean, SHUFFLED: other}, radius, seed)

    return of_each(rows, models, shuffled, subject, seed, progress, spread)


@dataclass(frozen=True)
class _Part:
    """Of a part of the images: ids of those with objects, sums of embeddings (C, h, w) by model, relative areas."""

    ids: list[str]
    sums: dict[str, Tensor]
    areas: list[float]


def _part(models: Mapping[str, Segmenter], subject: Subject, seed: int, records: Sequence[Record]) -> _Part:
    part = _Part([], {}, [])
    for record in records:
        seen = look(models, record, subject, seed)
        if seen is None:
            continue
        part.ids.append(record.id)
        part.areas.extend(relative_area(mask) for mask in seen.masks)
        for name, embedding in seen.embeddings.items():
            part.sums[name] = part.sums.get(name, 0) + embedding.tensor.float()
    return part


def _image_rows(
    models: Mapping[str, Segmenter],
    seen: Look,
    unseeing: Mapping[str, Mapping[str, Embedding]],
    radius: float,
    seed: int,
) -> list[ProbeRow]:
    places, points = _clicks(seen, seed)
    plain = clicks_prompt([interior_point(mask) for mask in seen.masks])
    rows: list[ProbeRow] = []

    def add(place: int, probe: str, model: str, mask: BoolArray, truth: BoolArray) -> None:
        rows.append(ProbeRow(seen.truth.id, seen.objects[place], probe, model, overlap(mask, truth)["iou"]))

    for place, mask in enumerate(disc(plain, seen.truth.size, radius)):
        add(place, PLAIN, DISC, mask, seen.masks[place])
    for model, segmenter in models.items():
        first = [mask for mask, _ in answers(segmenter, seen.embeddings[model], plain)]
        for place, mask in enumerate(first):
            add(place, PLAIN, model, mask, seen.masks[place])
        for (place, probe), (mask, _) in zip(
            places, answers(segmenter, seen.embeddings[model], clicks_prompt(points)), strict=True
        ):
            add(place, probe, model, mask, first[place] if probe == MOVED else seen.masks[place])
        for probe, embeddings in unseeing.items():
            for place, (mask, _) in enumerate(answers(segmenter, embeddings[model], plain)):
                add(place, probe, model, mask, seen.masks[place])
    return rows


def _clicks(seen: Look, seed: int) -> tuple[list[tuple[int, str]], list[Point]]:
    """(index of the object, probe) and the click of everything but the plain one; none where there is no room."""
    places: list[tuple[int, str]] = []
    points: list[Point] = []
    for place, mask in enumerate(seen.masks):
        rng = generator(seed, "probes", seen.truth.id, seen.objects[place])
        turn = rng.uniform(0, 2 * np.pi)
        for probe, share in SHIFTS.items():
            places.append((place, probe))
            points.append(moved_click(mask, (share * np.cos(turn), share * np.sin(turn))))
        beside = background_click(mask, rng, seen.truth.masks)
        elsewhere = [interior_point(other) for other in seen.masks if not mask[interior_point(other)[::-1]]]
        moved = elsewhere[int(rng.integers(len(elsewhere)))] if elsewhere else beside
        for probe, point in ((BACKGROUND, beside), (MOVED, moved)):
            if point is not None:
                places.append((place, probe))
                points.append(point)
    return places, points


def run_probes(
    base: Segmenter,
    tuned: Segmenter,
    samples: Sequence[Record],
    subject: Subject,
    seed: int = 0,
    progress: Progress | None = None,
    duplicates: Collection[str] = (),
) -> list[Finding]:
    """`probe_findings` of `probe_rows`: take those two where the table is wanted too.

    `samples` are records that were not trained on, `duplicates` the ids of those with a near-duplicate in training.
    """
    return probe_findings(probe_rows(base, tuned, samples, subject, seed, progress), duplicates, seed)


def probe_findings(rows: Sequence[ProbeRow], duplicates: Collection[str] = (), seed: int = 0) -> list[Finding]:
    """Findings "blind embeddings", "prompt ignored", "prompt sensitivity" and "near-duplicates of training"."""
    table = _Table(rows, seed)
    return [_blind(table), _ignored(table), _sensitivity(table), _duplicates(table, duplicates)]


class _Table:
    """Rows as one value an image: objects are averaged, records in one order."""

    def __init__(self, rows: Sequence[ProbeRow], seed: int):
        self.seed = seed
        self._values: dict[tuple[str, str], dict[str, list[float]]] = {}
        for row in rows:
            self._values.setdefault((row.probe, row.model), {}).setdefault(row.record, []).append(row.iou)

    def images(self, probe: str, model: str, of: Callable[[float], float] = float) -> dict[str, float]:
        """Mean of `of(iou)` over the objects of each image."""
        found = self._values.get((probe, model), {})
        return {record: float(np.mean([of(value) for value in found[record]])) for record in sorted(found)}

    def values(self, probe: str, model: str, of: Callable[[float], float] = float) -> npt.NDArray[np.float64]:
        return np.array(list(self.images(probe, model, of).values()), np.float64)

    def interval(self, values: npt.NDArray[np.float64]) -> Interval:
        return bootstrap_mean(values, self.seed)


def _blind(table: _Table) -> Finding:
    """Fails where most of the score is there without the image and neither the base nor a disc explains it; warns where
    the image adds nothing, makes it worse, or has no part in the gain.
    """
    check = "blind embeddings"
    plain, before = table.values(PLAIN, TUNED), table.values(PLAIN, BASE)
    numbers: dict[str, float | int | str] = {"images": len(plain), "tuned": _mean(plain), "base": _mean(before)}
    numbers["disc"] = _mean(table.values(PLAIN, DISC))
    if len(plain) < FEWEST:
        return _too_few(check, numbers)
    shortcut, adds_nothing, idle, misleads, undecided = [], True, False, False, False
    gained = plain - before
    shown = table.interval(gained).low > 0
    for probe in (BLIND, SHUFFLED):
        left, left_base = table.values(probe, TUNED), table.values(probe, BASE)
        numbers |= {f"{probe} tuned": _mean(left), f"{probe} base": _mean(left_base)}
        large = table.interval(left - LARGE_SHARE * plain).low > 0
        over_base = table.interval(left - left_base).low > 0
        over_disc = table.interval(left - table.values(PLAIN, DISC)).low > 0
        if large and over_base and over_disc:
            shortcut.append(probe)
        adds_nothing &= table.interval(left - WHOLE_SHARE * plain).low > 0
        part = left - left_base - WHOLE_SHARE * gained
        idle |= shown and table.interval(part).low > 0
        undecided |= shown and _mean(part) > 0
        misleads |= table.interval(left - plain).low > 0
    most = max((BLIND, SHUFFLED), key=lambda probe: float(numbers[f"{probe} tuned"]))
    said = (
        f"without its image the tuned decoder reaches IoU {_percent(numbers[f'{most} tuned'])} of "
        f"{_percent(numbers['tuned'])} with it (base {_percent(numbers[f'{most} base'])} of "
        f"{_percent(numbers['base'])}, a disc at the click {_percent(numbers['disc'])})"
    )
    if shortcut:
        remedy = "vary where objects lie, how large they are and where prompts fall; measure on images without layout"
        return Finding(check, "fail", f"{said}: it answers from the place of the prompt", numbers, (), remedy)
    if adds_nothing:
        remedy = "check that each image trains on its own embedding, and that images and masks belong together"
        return Finding(check, "warn", f"{said}: the image adds next to nothing", numbers, (), remedy)
    if idle or misleads:
        remedy = "the encoder shows the decoder little here: try a larger base model, or tune longer and more of it"
        why = "looking makes it worse" if misleads else "nearly its whole gain is there without a look"
        return Finding(check, "warn", f"{said}: {why}", numbers, (), remedy)
    if undecided:
        said += f"; whether the image has a part in the gain, {len(plain)} images cannot tell"
    return Finding(check, "pass", said, numbers)


def _ignored(table: _Table) -> Finding:
    check = "prompt ignored"
    tuned, base = (table.values(MOVED, model, _same) for model in (TUNED, BASE))
    numbers: dict[str, float | int | str] = {"images": len(tuned), "same tuned": _mean(tuned), "same base": _mean(base)}
    if len(tuned) < FEWEST:
        return _too_few(check, numbers)
    said = (
        f"a click elsewhere gives the same mask (IoU above {SAME}) for {_percent(numbers['same tuned'])} % of the "
        f"objects, {_percent(numbers['same base'])} % with the base"
    )
    if table.interval(tuned).low > 0.5 and table.interval(tuned - base).low > 0:
        ious = table.images(MOVED, TUNED)
        worst = tuple(sorted(ious, key=lambda record: -ious[record]))
        remedy = (
            "train on images with several objects and with prompts all over them, and check that points reach the "
            "prompt encoder in its own frame; as it is, this model finds one object an image whatever is asked"
        )
        return Finding(check, "fail", said, numbers, worst, remedy)
    return Finding(check, "pass", said, numbers)


def _sensitivity(table: _Table) -> Finding:
    check = "prompt sensitivity"
    numbers: dict[str, float | int | str] = {"images": len(table.values(MOVED, TUNED))}
    if int(numbers["images"]) < FEWEST:
        return _too_few(check, numbers)
    fell = []
    for probe, means in ((MOVED, "the old answer"), (BACKGROUND, "the object")):
        tuned, base = table.values(probe, TUNED), table.values(probe, BASE)
        if len(tuned) < FEWEST:
            continue
        rise = table.interval(tuned - base)
        numbers |= {f"{probe} tuned": _mean(tuned), f"{probe} base": _mean(base), f"{probe} rise low": rise.low}
        if rise.low > SENSITIVITY_LOSS:
            fell.append(f"a click {'elsewhere' if probe == MOVED else 'beside the object'} still gives {means}")
    for probe in SHIFTS:
        numbers |= {f"{probe} {model}": _mean(table.values(probe, model)) for model in (TUNED, BASE)}
    said = (
        f"a click elsewhere keeps IoU {_percent(numbers[f'{MOVED} tuned'])} with the old answer, "
        f"{_percent(numbers[f'{MOVED} base'])} with the base"
    )
    if fell:
        remedy = "train on images with several objects, or say that the model serves one object an image"
        return Finding(check, "warn", f"{said}: {' and '.join(fell)}", numbers, (), remedy)
    return Finding(check, "pass", said, numbers)


def _duplicates(table: _Table, duplicates: Collection[str]) -> Finding:
    """Whether images with a duplicate in training gained more over the base than the rest: ease alone is no leak."""
    from scipy import stats

    check = "near-duplicates of training"
    tuned, base = table.images(PLAIN, TUNED), table.images(PLAIN, BASE)
    known = [record for record in tuned if record in set(duplicates)]
    rest = [record for record in tuned if record not in set(duplicates)]
    numbers: dict[str, float | int | str] = {"with duplicate": len(known), "rest": len(rest)}
    if min(len(known), len(rest)) < FEWEST:
        said = f"{len(known)} of {len(tuned)} images have a near-duplicate in training"
        return Finding(check, "pass", f"{said}: too few on one side to compare (at least {FEWEST})", numbers)
    gains = [np.array([tuned[record] - base[record] for record in part]) for part in (known, rest)]
    p = float(stats.mannwhitneyu(*gains, alternative="greater").pvalue)
    numbers |= {"gain with duplicate": _mean(gains[0]), "gain of the rest": _mean(gains[1]), "p": p}
    numbers |= {"tuned with duplicate": _mean(np.array([tuned[r] for r in known]))}
    numbers |= {"tuned of the rest": _mean(np.array([tuned[r] for r in rest]))}
    said = (
        f"{len(known)} images with a near-duplicate in training gained {_percent(numbers['gain with duplicate'])} "
        f"points of IoU, the other {len(rest)} {_percent(numbers['gain of the rest'])} (p {p:.3f})"
    )
    if p < SMALL_P and gains[0].mean() > gains[1].mean():
        remedy = "keep near-duplicates in one split, and report the score of the rest alone"
        return Finding(check, "warn", said, numbers, tuple(known), remedy)
    return Finding(check, "pass", said, numbers)


def validation_leak(train_ids: Collection[str], val_ids: Collection[str], test_ids: Collection[str]) -> Finding:
    """Check "validation on test data": no test image was trained on or decided when to stop."""
    check, test = "validation on test data", set(test_ids)
    trained, stopped = sorted(test & set(train_ids)), sorted(test & set(val_ids))
    both = sorted(set(train_ids) & set(val_ids))
    numbers = {"train in test": len(trained), "validation in test": len(stopped), "train in validation": len(both)}
    if trained or stopped:
        said = f"of {len(test)} test images {len(trained)} were trained on and {len(stopped)} decided when to stop"
        remedy = "split anew so that train, validation and test share no image, and measure again"
        return Finding(check, "fail", said, numbers, tuple(dict.fromkeys([*trained, *stopped])), remedy)
    if both:
        said = f"{len(both)} validation images were trained on: the best epoch was chosen on what was learned by heart"
        remedy = "split anew so that train and validation share no image"
        return Finding(check, "warn", said, numbers, tuple(both), remedy)
    return Finding(check, "pass", f"none of {len(test)} test images was trained on or decided when to stop", numbers)


def encoder_unchanged(before: str, after: str) -> Finding:
    """Check "encoder unchanged", from the encoder's hash before and after training (`segmenter.fingerprint`)."""
    check, numbers = "encoder unchanged", {"before": before, "after": after}
    if not before or not after:
        raise DataError(f"expected the encoder's hash before and after training, got {before!r} and {after!r}")
    if before == after:
        return Finding(check, "pass", f"the encoder's weights and buffers are what they were ({before[:16]})", numbers)
    said = f"the encoder changed in training (hash {before[:16]} before, {after[:16]} after)"
    remedy = "keep the encoder frozen and in eval mode; stored embeddings no longer fit this model: encode anew"
    return Finding(check, "fail", said, numbers, (), remedy)


def _same(iou: float) -> float:
    return float(iou > SAME)


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _percent(value: float | int | str) -> str:
    return f"{100 * float(value):.1f}"


def _too_few(check: str, numbers: Mapping[str, float | int | str]) -> Finding:
    said = f"expected at least {FEWEST} images to judge by, got {numbers['images']}"
    return Finding(check, "warn", said, numbers, (), "probe more images with objects")
