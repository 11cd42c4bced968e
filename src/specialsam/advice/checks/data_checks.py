"""Is there what the user believes to have? Counts, readable and upright masks, enough images, visible objects."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from specialsam.advice.checks.image_facts import ImageFacts, usable
from specialsam.advice.subject import Subject
from specialsam.core.errors import DataError
from specialsam.core.findings import Finding, Level
from specialsam.core.sampling import evenly
from specialsam.core.types import Problem, Record
from specialsam.data.census import counts, inspect_masks
from specialsam.data.mask_kind import vote
from specialsam.data.mask_values import mask_values as values_of
from specialsam.data.pairs import NO_MASK, ODD_VALUES

FILES = 20
"""Files named in a finding; their full number stands in its numbers."""

BELIEVED_OFF, BELIEVED_FAR = 0.05, 0.20
"""Shares by which the believed number of images may be missed before a warning and a failure. COD10K's training folder
holds 6,000 images of which 3,040 have an object: half of what the folder suggests."""
EMPTY_SHARE = 0.05
"""Labelled images without objects beyond which to say so even where nobody stated a number."""

INVERTED_BORDER, INVERTED_AREA = 0.8, 0.5
"""A mask looks inverted when it covers this share of the image's border and of the image. Of 80 generated scenes each
with and without camouflage, 200 of CAMO, 30 of MVTec grid and 25 of a fabric none does; inverted, nearly all scenes."""
INVERTED_MOST, INVERTED_SOME = 0.5, 0.1
"""Shares of such images that make a failure and a warning."""

MASK_FILES = 200
"""Mask files whose raw values are read, evenly chosen: some 5 ms each."""

FEW, TOO_FEW = 30, 15
"""Training images below which to warn, and up to which to fail: the study that this follows tuned on 500 and more, and
at 15 the images of validation are single ones, so that no epoch can be told from another."""

TINY_SHARE = 0.1
"""Share of objects under one cell of the model's answer beyond which to warn."""
CLEAR = 9.0
"""Cells of the model's answer in which an object has an outline."""
FAINT, FAINT_SHARE = 0.15, 0.5
"""Colour contrast under which an object is faint, and the share of such objects from which to say so. Median contrast:
CAMO 0.5 (a tenth of it faint), generated scenes 0.25 with camouflage and 0.9 without, fabric defects 1.7."""


def named(files: Sequence[str]) -> tuple[str, ...]:
    """The first files of a list, as many as a finding names."""
    return tuple(files[:FILES])


def image_counts(subject: Subject, facts: Sequence[ImageFacts], problems: Sequence[Problem] = ()) -> Finding:
    """Images on disk, usable, with objects, empty, broken, against what the user believes."""
    check = "image counts"
    objects = {fact.id: len(fact.objects) for fact in facts if not fact.error}
    seen = {fact.id for fact in facts}
    unreadable: list[Problem] = []
    others = [record for record in subject.dataset.records if record.id not in seen]
    objects.update(inspect_masks(others, problems=unreadable))
    found = counts(subject.dataset, objects)
    failed = [str(fact.image) for fact in facts if fact.error]
    more = {str(p.path) for p in (*problems, *subject.dataset.problems, *unreadable)} | set(failed)
    broken = found["broken"] + len(failed) + len(unreadable)
    empty = sorted(
        str(record.image)
        for record in subject.dataset.records
        if record.mask_kind != "none" and objects.get(record.id) == 0
    )
    numbers: dict[str, float | int | str] = {
        "on disk": found["images"],
        "usable": found["usable"],
        "with objects": found["with_objects"],
        "empty": found["empty"],
        "unlabelled": found["unlabelled"],
        "broken": broken,
        "used": len(facts),
    }
    text = (
        f"{found['images']} images on disk, {found['with_objects']} hold an object, {found['empty']} are labelled as "
        f"empty, {found['unlabelled']} have no label, {broken} cannot be used"
    )
    if lacking := sum(problem.kind == NO_MASK for problem in subject.dataset.problems):
        text += f" ({lacking} of them have no mask)"
    level: Level = "pass"
    remedy = ""
    if subject.believed is not None:
        numbers["believed"] = subject.believed
        off = abs(found["with_objects"] - subject.believed) / max(subject.believed, 1)
        level = "fail" if off > BELIEVED_FAR else "warn" if off > BELIEVED_OFF else "pass"
        text += f"; {subject.believed} images with objects were expected"
        if level != "pass":
            remedy = (
                "state the number of images with objects in every report; look for a missing or empty mask folder, "
                "and for images that were never meant to hold an object"
            )
    labelled = found["with_objects"] + found["empty"]
    if level == "pass" and found["empty"] > EMPTY_SHARE * max(labelled, 1):
        level = "warn"
        remedy = "nothing can be learned from empty masks here: count the images with objects, and encode only those"
    if level == "pass" and broken > EMPTY_SHARE * max(found["images"], 1):
        level, remedy = "warn", "repair the files named, or take them out of the folder"
    return Finding(check, level, text, numbers, named([*failed, *sorted(more - set(failed)), *empty]), remedy)


def mask_polarity(facts: Sequence[ImageFacts]) -> Finding:
    """Masks in which the background is painted instead of the object."""
    check = "mask polarity"
    single = [fact for fact in usable(facts) if len(fact.objects) == 1]
    if not single:
        return Finding(check, "pass", "no image with a single object, so nothing can be painted the wrong way round")
    suspects = [f for f in single if f.border_share >= INVERTED_BORDER and f.foreground > INVERTED_AREA]
    share = len(suspects) / len(single)
    numbers = {
        "images": len(single),
        "look inverted": len(suspects),
        "median foreground share": float(np.median([f.foreground for f in single])),
        "median border share": float(np.median([f.border_share for f in single])),
    }
    text = (
        f"in {len(suspects)} of {len(single)} masks the foreground covers most of the image's border "
        "and more than half of the image"
    )
    level: Level = "fail" if share >= INVERTED_MOST else "warn" if share >= INVERTED_SOME else "pass"
    remedy = {
        "pass": "",
        "warn": "open the masks named: white must be the object, black the background",
        "fail": "the masks are inverted: swap black and white in all of them (white must be the object)",
    }[level]
    worst_first = sorted(suspects, key=lambda f: -f.foreground)
    return Finding(check, level, text, numbers, named([f.file for f in worst_first]), remedy)


def mask_values(subject: Subject, problems: Sequence[Problem] = ()) -> Finding:
    """Mask files whose values are neither those of a binary mask nor, where label maps are expected, of a label map."""
    check = "mask values"
    stated = {str(p.path) for p in (*problems, *subject.dataset.problems) if p.kind == ODD_VALUES}
    files = evenly([record for record in subject.of() if record.mask is not None], MASK_FILES)
    odd = sorted(stated)
    odd += [str(record.mask) for record in files if _odd(record)]
    looked = len(files) + len(stated)
    text = f"{len(odd)} of {looked} mask files looked at hold values that fit no mask"
    numbers = {"looked at": looked, "odd": len(odd)}
    if not odd:
        return Finding(check, "pass", text, numbers)
    level: Level = "fail" if len(odd) > EMPTY_SHARE * looked else "warn"
    remedy = (
        "save these masks as PNG with 0 for background and 255 for the object (or one value an object in all of them); "
        "a photograph or a heat map in the mask folder is no mask"
    )
    return Finding(check, level, text, numbers, named(odd), remedy)


def _odd(record: Record) -> bool:
    """Whether the raw values of a record's mask file do not fit its kind, or cannot be read at all."""
    assert record.mask is not None
    try:
        pixels, palette = values_of(record.mask)
    except DataError:
        return True
    if record.masks_as is not None and (record.masks_as.alpha or record.masks_as.levels):
        return False  # read by its alpha or its flat levels, whatever its values
    cast = vote(pixels, palette)
    return cast == "odd" or (record.mask_kind == "binary" and cast == "index")


def data_volume(facts: Sequence[ImageFacts]) -> Finding:
    """Too few training images for tuning to mean anything."""
    train = len([fact for fact in usable(facts) if fact.split == "train"])
    objects = sum(len(fact.objects) for fact in facts if fact.split == "train")
    level: Level = "fail" if train <= TOO_FEW else "warn" if train < FEW else "pass"
    text = f"{train} training images with {objects} objects"
    remedy = (
        ""
        if level == "pass"
        else f"label at least {FEW} training images; with fewer, try the base with boxes before tuning at all"
    )
    numbers = {"training images": train, "training objects": objects}
    return Finding("data volume", level, text, numbers, remedy=remedy)


def object_size(subject: Subject, facts: Sequence[ImageFacts]) -> Finding:
    """Objects smaller than one cell of the model's low-res answer, which it cannot outline."""
    check = "object size"
    sizes = [
        (one.area_px * math.prod(subject.segmenter.geometry(fact.size).logits_extent) / math.prod(fact.size), fact)
        for fact in usable(facts)
        for one in fact.objects
    ]
    if not sizes:
        return Finding(check, "pass", "no object to measure")
    tiny = sorted((pair for pair in sizes if pair[0] < 1), key=lambda pair: pair[0])
    numbers: dict[str, float | int | str] = {
        "objects": len(sizes),
        "under one cell": len(tiny),
        "median cells": float(np.median([s for s, _ in sizes])),
    }
    text = (
        f"{len(tiny)} of {len(sizes)} objects cover less than one cell of the model's {subject.segmenter.side} px frame"
    )
    if len(tiny) <= TINY_SHARE * len(sizes):
        return Finding(check, "pass", text, numbers)
    shrunk = [cells * (max(fact.size) / subject.segmenter.side) ** 2 for cells, fact in tiny]
    tile = _tile_side(float(np.median(shrunk)), subject.segmenter.side)
    remedy = f"learn and answer from tiles (-s tiles.side={tile}), or choose a model with a larger input side"
    return Finding(check, "warn", text, numbers, named(list(dict.fromkeys(f.file for _, f in tiny))), remedy)


def _tile_side(cells: float, side: int) -> int:
    """Side in pixels of a tile in which an object of so many cells, at the image's own scale, has CLEAR of them."""
    wanted = side * float(np.sqrt(cells / CLEAR))
    return int(np.clip(16 * round(wanted / 16), 32, 1024))


def contrast(facts: Sequence[ImageFacts]) -> Finding:
    """How much objects differ in colour from what surrounds them; says what to expect, not that anything is wrong."""
    check = "contrast"
    values = np.array([one.contrast for fact in usable(facts) for one in fact.objects])
    if not len(values):
        return Finding(check, "pass", "no object to measure")
    faint = float((values < FAINT).mean())
    low, middle, high = (float(q) for q in np.quantile(values, [0.1, 0.5, 0.9]))
    text = (
        f"objects differ from their surroundings by {middle:.2f} spreads of colour (median; a tenth below {low:.2f}), "
        f"{faint:.0%} of them are faint"
    )
    numbers = {"median": middle, "lowest tenth": low, "highest tenth": high, "share of faint objects": faint}
    if faint < FAINT_SHARE:
        return Finding(check, "pass", text, numbers)
    remedy = "expect clicks to fail more often than boxes: measure box prompts too, and check the labels by eye"
    return Finding(check, "warn", text, numbers, remedy=remedy)
