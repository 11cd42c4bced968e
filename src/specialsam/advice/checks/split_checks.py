"""Do the splits measure what they should? Copies that leak from training into the test, and tests of one kind only."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from specialsam.advice.checks.data_checks import named
from specialsam.advice.checks.image_facts import ImageFacts
from specialsam.core.findings import Finding, Level
from specialsam.core.geometry import BoolArray
from specialsam.core.randomness import generator
from specialsam.core.sampling import evenly
from specialsam.data.duplicates import DISTANCE, close_pairs

NEAR_SHARE = 0.05
"""Share of the validation and test images with a near copy in another split from which leaking is a failure."""
MIX_FAR, MIX_OFF = 0.40, 0.25
"""Total variation (0 the same mix, 1 nothing in common) between the categories of a split and of all images that makes
a failure or a warning, if chance makes it rarely: one category out of two equal ones is at 0.5, one of four at 0.75."""
MIX_CHANCE = 0.01
"""Share of random splits of the same size that may differ as much: above it nothing is said."""
MIX_DRAWS = 500

LAYOUT_IMAGES = 200
LAYOUT_CELLS = 9
"""Thumbnails of masks with fewer of 32 x 32 cells are too small to be compared."""
LAYOUT_IOU, LAYOUT_TWINS, LAYOUT_SHARE = 0.9, 0.1, 0.5
"""Masks are the same from this IoU on; a layout is one where half of the objects have a twin in a tenth of the other
images. Measured share: 100 % in 2x2 mosaics, 0 % in generated scenes, CAMO, MVTec grid and fabric."""


def exact_duplicates(facts: Sequence[ImageFacts]) -> Finding:
    """The same pixels in two splits."""
    check = "exact duplicates across splits"
    same: dict[str, list[ImageFacts]] = defaultdict(list)
    for fact in facts:
        if not fact.error:
            same[fact.digest].append(fact)
    groups = [group for group in same.values() if len(group) > 1]
    torn = [group for group in groups if len({fact.split for fact in group}) > 1]
    within = sum(len(group) - 1 for group in groups if len({fact.split for fact in group}) == 1)
    numbers = {"images in two splits": sum(map(len, torn)), "copies within a split": within}
    text = f"{len(torn)} pictures occur in more than one split with the same pixels; {within} copies within a split"
    if not torn:
        return Finding(check, "pass", text, numbers)
    remedy = "remove the copies, or split again with copies kept together; scores on such a test are too good"
    return Finding(check, "fail", text, numbers, named([str(f.image) for group in torn for f in group]), remedy)


def near_duplicates(facts: Sequence[ImageFacts]) -> Finding:
    """Pictures that look the same (scaled, recompressed, mirrored, next frame of a film) in two splits."""
    check = "near-duplicates across splits"
    loaded = [fact for fact in facts if not fact.error]
    hashes = np.array([fact.hashes for fact in loaded], np.uint64).reshape(-1, 2)
    pairs = [(loaded[i], loaded[j], bits) for i, j, bits in close_pairs(hashes, DISTANCE)]
    pairs = [pair for pair in pairs if pair[0].digest != pair[1].digest]
    torn = sorted((pair for pair in pairs if pair[0].split != pair[1].split), key=lambda pair: pair[2])
    leaking = {fact.id for pair in torn for fact in pair[:2] if fact.split != "train"}
    held = sum(fact.split != "train" for fact in loaded)
    numbers: dict[str, float | int | str] = {
        "pairs across splits": len(torn),
        "pairs within a split": len(pairs) - len(torn),
        "validation and test images concerned": len(leaking),
        "validation and test images": held,
    }
    numbers |= {
        f"pair {n}": f"{a.id} ({a.split}) and {b.id} ({b.split}), {bits} bits of 63 differ"
        for n, (a, b, bits) in enumerate(torn[:5], 1)
    }
    text = f"{len(torn)} pairs of look-alike pictures stand in different splits, {len(pairs) - len(torn)} within one"
    if not torn:
        return Finding(check, "pass", text, numbers)
    level: Level = "fail" if len(leaking) >= NEAR_SHARE * held else "warn"
    files = [str(fact.image) for a, b, _ in torn for fact in (a, b)]
    remedy = (
        "split again with near-duplicates kept together, or drop one of each pair; scores on such a test are too good"
    )
    return Finding(check, level, text, numbers, named(list(dict.fromkeys(files))), remedy)


def class_mix(facts: Sequence[ImageFacts]) -> Finding:
    """Validation or test of other categories than the whole, as when the first names of a sorted list are taken."""
    check = "class mix"
    worst: tuple[float, float, str, str] | None = None
    for level_name in ("category", "supercategory"):
        names = [getattr(fact, level_name) for fact in facts]
        if len(set(names)) < 2:
            continue
        for split in ("val", "test"):
            taken = np.array([fact.split == split for fact in facts])
            if taken.any() and not taken.all():
                distance, chance = _mix(names, taken)
                if chance <= MIX_CHANCE and (worst is None or distance > worst[0]):
                    worst = (distance, chance, level_name, split)
    if not any(fact.category or fact.supercategory for fact in facts):
        return Finding(check, "pass", "the data set names no categories, so their mix cannot be compared")
    if worst is None or worst[0] < MIX_OFF:
        return Finding(check, "pass", "validation and test hold the categories as the whole does, or differ by chance")
    distance, chance, level_name, split = worst
    mine = Counter(getattr(fact, level_name) or "(none)" for fact in facts if fact.split == split)
    whole = Counter(getattr(fact, level_name) or "(none)" for fact in facts)
    lacking = [name for name in whole if name not in mine]
    share = ", ".join(f"{name} {count}" for name, count in mine.most_common(4))
    text = (
        f"{split} holds {len(mine)} of {len(whole)} kinds ({level_name}: {share}); {distance:.0%} of it would have to "
        f"change to have the mix of all images, by chance that happens in {chance:.1%} of splits"
    )
    numbers: dict[str, float | int | str] = {
        "split": split,
        "distance": distance,
        "chance": chance,
        "kinds missing": len(lacking),
    }
    remedy = (
        "draw the split by a seeded hash within each category instead of taking the first names; "
        f"missing there: {', '.join(sorted(lacking)[:6]) or 'none, but the shares are off'}"
    )
    return Finding(check, "fail" if distance >= MIX_FAR else "warn", text, numbers, remedy=remedy)


def _mix(names: Sequence[str], taken: BoolArray) -> tuple[float, float]:
    """(total variation between the categories of the taken and of all, share of random choices that differ as much)."""
    _, codes = np.unique(np.array(names), return_inverse=True)
    whole = np.bincount(codes) / len(codes)

    def distance(chosen: BoolArray) -> float:
        return float(np.abs(np.bincount(codes[chosen], minlength=len(whole)) / chosen.sum() - whole).sum() / 2)

    seen, rng = distance(taken), generator(0, "class mix")
    as_far = sum(distance(rng.permutation(taken)) >= seen - 1e-12 for _ in range(MIX_DRAWS))
    return seen, (as_far + 1) / (MIX_DRAWS + 1)


def layout_shortcut(facts: Sequence[ImageFacts]) -> Finding:
    """Masks that are the same in many images (a mosaic's tiles): the prompt alone then says which mask is meant."""
    check = "layout shortcut"
    flat, owner, ids = [], [], []
    kept = [fact for fact in facts if fact.sketch is not None and len(fact.sketch.layout)]
    for number, fact in enumerate(evenly(kept, LAYOUT_IMAGES)):
        assert fact.sketch is not None
        for thumb in fact.sketch.layout:
            smaller = 1 - thumb if thumb.mean() > 0.5 else thumb  # all masks that fill their image look alike
            if smaller.sum() >= LAYOUT_CELLS:
                flat.append(smaller.ravel().astype(np.float32))
                owner.append(number)
                ids.append(fact.file)
    images = len(set(owner))
    if images < 8:
        return Finding(check, "pass", f"{images} images with objects large enough to compare, too few to tell a layout")
    masks, owners = np.stack(flat), np.array(owner)
    both = masks @ masks.T
    sizes = masks.sum(1)
    iou = both / (sizes[:, None] + sizes[None] - both)
    alike = (iou >= LAYOUT_IOU) & (owners[:, None] != owners[None])
    twins = np.array([len(set(owners[row])) for row in alike]) / (images - 1)
    share = float((twins >= LAYOUT_TWINS).mean())
    text = (
        f"{share:.0%} of the objects have the same mask as objects in at least {LAYOUT_TWINS:.0%} of the other images"
    )
    numbers = {
        "objects": len(masks),
        "images": images,
        "share with twins": share,
        "median share of twins": float(np.median(twins)),
    }
    if share < LAYOUT_SHARE:
        return Finding(check, "pass", text, numbers)
    remedy = (
        "the task can be solved without looking at the picture: vary where the borders run from image to image, "
        "and compare with a decoder that sees a constant embedding"
    )
    return Finding(check, "fail", text, numbers, named(list(dict.fromkeys(ids))), remedy)
