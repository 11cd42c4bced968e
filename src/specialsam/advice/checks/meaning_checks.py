"""Were pixels and labels read as they were meant? Grey levels in use, objects an image, labels that are none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from specialsam.advice.checks.data_checks import INVERTED_AREA, INVERTED_BORDER, named
from specialsam.advice.checks.image_facts import ImageFacts, usable
from specialsam.core.findings import Finding, Level

LEAST_LEVELS = 32
"""Grey levels of 256 below which an image is nearly blank to a model. Photographs of CAMO use 200 and more, a fabric in
even light 90; 12-bit values read as 16-bit ones leave 16 at most."""
MOST, SOME = 0.5, 0.1
"""Shares of such images that make a failure and a warning."""

MANY = 20
"""Objects an image from which shades may have been taken for labels."""
SHARDS = 0.5
"""Share of objects without one block of 3x3 pixels from which they look like the shades of an edge."""


def _level(share: float) -> Level:
    """Of a check that so large a share of the images speaks against."""
    return "fail" if share >= MOST else "warn" if share >= SOME else "pass"


def grey_levels(facts: Sequence[ImageFacts]) -> Finding:
    """Images that use few grey levels, as deep values do that were read by the wrong range."""
    check = "grey levels"
    seen = [fact for fact in facts if not fact.error]
    if not seen:
        return Finding(check, "pass", "no image to look at")
    few = sorted((fact for fact in seen if fact.levels < LEAST_LEVELS), key=lambda fact: fact.levels)
    share, middle = len(few) / len(seen), float(np.median([fact.levels for fact in seen]))
    text = (
        f"images use {middle:.0f} of 256 grey levels (median); {len(few)} of {len(seen)} use fewer than {LEAST_LEVELS}"
    )
    numbers = {"median levels": middle, "images": len(seen), "of few levels": len(few)}
    level = _level(share)
    if level == "pass":
        return Finding(check, level, text, numbers)
    remedy = (
        "the images may be read by the wrong range: set the values that are black and white, "
        "-s data.levels=[LOW,HIGH]; if they are as they should be, expect little of any model"
    )
    return Finding(check, level, text, numbers, named([str(fact.image) for fact in few]), remedy)


def objects_an_image(facts: Sequence[ImageFacts]) -> Finding:
    """More objects an image than anyone has drawn: shades of a lossy or smoothed mask that were taken for labels."""
    check = "objects an image"
    own = usable(facts)
    if not own:
        return Finding(check, "pass", "no object to count")
    counts = np.array([len(fact.objects) for fact in own])
    suspects = [f for f in own if len(f.objects) >= MANY and f.shards >= SHARDS * len(f.objects)]
    numbers = {
        "median objects": float(np.median(counts)),
        "most objects": int(counts.max()),
        "images of shards": len(suspects),
    }
    text = (
        f"{np.median(counts):g} objects an image (median), {counts.max()} at most; in {len(suspects)} of {len(own)} "
        f"images {MANY} and more, of which most have no block of 3x3 pixels"
    )
    share = len(suspects) / len(own)
    level = _level(share)
    if level == "pass":
        return Finding(check, level, text, numbers)
    remedy = (
        "shades of edges were taken for labels: save the masks without loss and without smoothing (PNG, one value an "
        "object), or as black and white"
    )
    worst = sorted(suspects, key=lambda fact: -len(fact.objects))
    return Finding(check, level, text, numbers, named([fact.file for fact in worst]), remedy)


def label_plausibility(facts: Sequence[ImageFacts]) -> Finding:
    """Labels that can hardly be objects: the background beside others, an object drawn twice, all of the image."""
    check = "label plausibility"
    own = usable(facts)
    if not own:
        return Finding(check, "pass", "no object to look at")
    kinds = {
        "a background among the objects": [f for f in own if _ground(f)],
        "an object drawn twice": [f for f in own if f.twins],
        "an object that is the whole image": [f for f in own if any(o.area_share > 0.995 for o in f.objects)],
    }
    told = ", ".join(f"{len(found)} of {len(own)} hold {kind}" for kind, found in kinds.items())
    kind, found = max(kinds.items(), key=lambda item: len(item[1]))
    share = len(found) / len(own)
    level = _level(share)
    numbers = {kind: len(found) for kind, found in kinds.items()} | {"images": len(own)}
    remedy = {
        "a background among the objects": "one label surrounds the others: say which value is no object, -s "
        "data.background=VALUE, or leave it out with -s data.void=[VALUE]",
        "an object drawn twice": "masks of several annotators were taken for objects: -s data.several=annotators, or "
        "delete the second ones",
        "an object that is the whole image": "a mask of everything teaches nothing: look whether the shape is in "
        "another channel, or delete these masks",
    }[kind]
    if level == "pass":
        return Finding(check, level, told, numbers)
    return Finding(check, level, told, numbers, named([fact.file for fact in found]), remedy)


def _ground(fact: ImageFacts) -> bool:
    """Whether one of several objects holds most of the image and of its border."""
    several = len(fact.objects) > 1
    return several and any(o.area_share > INVERTED_AREA and o.border >= INVERTED_BORDER for o in fact.objects)
